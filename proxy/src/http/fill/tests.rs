#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::{
    http::{RequestEdits, RequestView},
    http1::{Body, Connection, request_framing, response_framing, write_request},
};

const KEY: &[u8; WEBSOCKET_KEY_LEN] = b"dGhlIHNhbXBsZSBub25jZQ==";

fn get<'a>(path: &'a str) -> Pseudo<'a> {
    Pseudo {
        method: b"GET",
        scheme: b"https",
        authority: Some(b"a.example"),
        path: path.as_bytes(),
        protocol: None,
    }
}

fn with<T>(
    pseudo: &Pseudo<'_>,
    fields: &[(&str, &str)],
    content: Content,
    look: impl FnOnce(&RequestView<'_>, &str) -> T,
) -> Result<T, Reject> {
    let mut head = RequestHead::new();
    let mut text = b"what was there".to_vec();
    let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let length = head.fill(&mut text, pseudo, fields, content)?;
    assert_eq!(length, text.len());
    Ok(look(&head.view(&text), std::str::from_utf8(&text).unwrap()))
}

fn text(pseudo: &Pseudo<'_>, fields: &[(&str, &str)], content: Content) -> Result<String, Reject> {
    with(pseudo, fields, content, |_, text| text.to_owned())
}

fn status(pseudo: &Pseudo<'_>, fields: &[(&str, &str)]) -> u16 {
    text(pseudo, fields, Content::Ended).map_or_else(Reject::status, |_| 200)
}

#[test]
fn a_request_becomes_one_of_http11() {
    let fields = [
        ("user-agent", "x"),
        ("cookie", "a=1"),
        ("te", "trailers"),
        ("cookie", ""),
        ("cookie", " b=2 "),
        ("x", " y\t"),
        ("cookie", " "),
    ];
    with(&get("/a?b"), &fields, Content::Ended, |view, text| {
        assert_eq!(
            text,
            "GET /a?b HTTP/1.1\r\nhost: a.example\r\nuser-agent: x\r\nte: trailers\r\nx: y\r\ncookie: a=1; b=2\r\n\r\n"
        );
        assert_eq!((view.method(), view.version()), (Method::Get, Version::Http2));
        assert_eq!((view.path(), view.target()), (Some(b"/a".as_slice()), b"/a?b".as_slice()));
        assert_eq!(view.value(Known::Cookie), Some(b"a=1; b=2".as_slice()));
        let framing = request_framing(view).unwrap();
        assert!(framing.keep_alive && framing.body == Body::None && !framing.upgrade);
    })
    .unwrap();
}

#[test]
fn a_body_without_a_length_is_chunked() {
    let post = Pseudo { method: b"POST", ..get("/") };
    let body = |fields: &[(&str, &str)], content| {
        with(&post, fields, content, |view, _| request_framing(view).map(|framing| framing.body))
    };
    assert_eq!(body(&[], Content::Follows), Ok(Ok(Body::Chunked)));
    assert_eq!(body(&[], Content::Ended), Ok(Ok(Body::None)));
    assert_eq!(body(&[("content-length", "7")], Content::Follows), Ok(Ok(Body::Length(7))));
    assert_eq!(body(&[("content-length", "0")], Content::Ended), Ok(Ok(Body::None)));
    assert_eq!(body(&[("content-length", "7")], Content::Ended).map_err(Reject::status), Err(400));
    assert!(body(&[("content-length", "+7")], Content::Follows).unwrap().is_err());
    assert!(body(&[("content-length", "7"), ("content-length", "7")], Content::Follows).unwrap().is_err());
}

#[test]
fn host_is_the_authority() {
    for (scheme, authority, hosts, expected) in [
        ("https", Some("a:443"), &[][..], Some("a")),
        ("https", Some("a:80"), &[], Some("a:80")),
        ("http", Some("a:80"), &["a"], Some("a")),
        ("http", Some("A"), &["a:80"], Some("A")),
        ("http", Some("a:"), &[], Some("a")),
        ("ftp", Some("a:80"), &[], Some("a:80")),
        ("http", Some("[::1]:8080"), &["[::1]:8080"], Some("[::1]:8080")),
        ("http", None, &["b:80"], Some("b")),
        ("http", None, &[""], Some("")),
        ("http", None, &[], None),
        ("http", Some("a"), &["b"], None),
        ("http", Some("a:81"), &["a"], None),
        ("http", Some("a"), &["a", "a"], None),
        ("http", None, &["a", "b"], None),
        ("http", Some(""), &[], None),
        ("http", Some("u@a"), &[], None),
        ("http", Some(":80"), &[], None),
        ("http", Some("a:x"), &[], None),
        ("http", Some("a,b"), &[], None),
        ("http", None, &["a/b"], None),
    ] {
        let pseudo =
            Pseudo { scheme: scheme.as_bytes(), authority: authority.map(str::as_bytes), ..get("/") };
        let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        let host = with(&pseudo, &fields, Content::Ended, |view, _| {
            String::from_utf8(view.value(Known::Host).unwrap().to_vec()).unwrap()
        });
        assert_eq!(host.ok().as_deref(), expected, "{scheme} {authority:?} {hosts:?}");
    }
}

#[test]
fn what_is_malformed_is_refused() {
    for (name, value) in [
        ("Upper", "a"),
        ("", "a"),
        ("a b", "a"),
        (":path", "/"),
        ("a:", "b"),
        ("a", "b\r\nc: d"),
        ("a", "b\0"),
        ("a", "b\nc"),
        ("a", "\u{7f}"),
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, deflate"),
    ] {
        assert_eq!(status(&get("/"), &[(name, value)]), 400, "{name:?} {value:?}");
    }
    for (pseudo, expected) in [
        (get(""), 400),
        (get("a"), 400),
        (get("*"), 400),
        (get("http://a/"), 400),
        (get("/a b"), 400),
        (get("/a#b"), 400),
        (get("/\u{e9}"), 400),
        (get("/a\r\nb"), 400),
        (Pseudo { method: b"G T", ..get("/") }, 400),
        (Pseudo { method: b"", ..get("/") }, 400),
        (Pseudo { scheme: b"", ..get("/") }, 400),
        (Pseudo { scheme: b"1a", ..get("/") }, 400),
        (Pseudo { scheme: b"a b", ..get("/") }, 400),
        (Pseudo { method: b"CONNECT", ..get("/") }, 405),
        (Pseudo { method: b"CONNECT", scheme: b"", ..get("") }, 405),
        (Pseudo { protocol: Some((b"websocket", KEY)), ..get("/") }, 400),
        (Pseudo { method: b"CONNECT", protocol: Some((b"h2c", KEY)), ..get("/") }, 501),
        (Pseudo { method: b"OPTIONS", ..get("*") }, 200),
        (Pseudo { method: b"M-SEARCH", scheme: b"ftp", ..get("/{}|") }, 200),
    ] {
        assert_eq!(status(&pseudo, &[]), expected, "{pseudo:?}");
    }
}

#[test]
fn an_extended_connect_is_an_upgrade() {
    let pseudo = Pseudo { method: b"CONNECT", protocol: Some((b"websocket", KEY)), ..get("/chat") };
    let fields = [("sec-websocket-version", "13"), ("sec-websocket-key", "theirs")];
    with(&pseudo, &fields, Content::Follows, |view, _| {
        assert!(request_framing(view).unwrap().upgrade);
        let mut out = Vec::new();
        write_request(&mut out, view, Connection::Upgrade, &RequestEdits::default());
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            "GET /chat HTTP/1.1\r\nhost: a.example\r\nsec-websocket-version: 13\r\nupgrade: websocket\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nconnection: upgrade\r\n\r\n"
        );
    })
    .unwrap();
    assert_eq!(status(&pseudo, &[("content-length", "0")]), 400);
}

#[test]
fn bounds_hold_before_and_after_cookies_are_joined() {
    let fields = |count: usize, name: &'static str| vec![(name, "a=b"); count];
    assert_eq!(status(&get("/"), &fields(99, "x")), 200);
    assert_eq!(status(&get("/"), &fields(100, "x")), 431);
    assert_eq!(status(&get("/"), &fields(100, "cookie")), 200);
    assert_eq!(status(&get("/"), &fields(101, "cookie")), 431);
    let long = "v".repeat(MAX_HEAD / 2);
    assert_eq!(status(&get("/"), &[("a", &long)]), 200);
    assert_eq!(status(&get("/"), &[("a", &long), ("b", &long)]), 431);
    assert_eq!(status(&get("/"), &[("cookie", &long), ("cookie", &long)]), 431);
    assert_eq!(status(&get(&format!("/{}", "p".repeat(MAX_HEAD))), &[]), 414);
    let authority = "h".repeat(MAX_HEAD);
    assert_eq!(status(&Pseudo { authority: Some(authority.as_bytes()), ..get("/") }, &[]), 431);
}

fn response(
    status: u16,
    fields: &[(&str, &str)],
    method: Method,
    content: Content,
) -> Result<(String, Body), BadResponse> {
    let mut head = ResponseHead::new();
    let mut text = Vec::new();
    let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let length = head.fill(&mut text, status, fields, method, content)?;
    assert_eq!(length, text.len());
    let view = head.view(&text);
    assert_eq!((view.status(), view.version(), view.reason()), (status, Version::Http2, b"".as_slice()));
    let framing = response_framing(method, false, &view)?;
    assert!(framing.keep_alive);
    Ok((String::from_utf8(text.clone()).unwrap(), framing.body))
}

#[test]
fn a_response_becomes_one_of_http11() {
    use Content::{Ended, Follows};
    let length = [("content-length", "3")];
    for (status, fields, method, content, body) in [
        (200, &[][..], Method::Get, Follows, Some(Body::Chunked)),
        (200, &[], Method::Get, Ended, Some(Body::Chunked)),
        (200, &[], Method::Head, Ended, Some(Body::None)),
        (200, &length, Method::Get, Follows, Some(Body::Length(3))),
        (200, &length, Method::Get, Ended, None),
        (200, &length, Method::Head, Ended, Some(Body::None)),
        (304, &length, Method::Get, Ended, Some(Body::None)),
        (204, &[], Method::Get, Ended, Some(Body::None)),
        (103, &[], Method::Get, Follows, Some(Body::None)),
        (101, &[], Method::Get, Ended, None),
        (99, &[], Method::Get, Ended, None),
        (1000, &[], Method::Get, Ended, None),
        (200, &[("connection", "close")], Method::Get, Ended, None),
        (200, &[("A", "b")], Method::Get, Ended, None),
    ] {
        let got = response(status, fields, method, content).ok().map(|(_, body)| body);
        assert_eq!(got, body, "{status} {fields:?} {method:?} {content:?}");
    }
    let (text, _) = response(404, &[("server", "x"), ("set-cookie", "a=b")], Method::Get, Ended).unwrap();
    assert_eq!(text, "HTTP/1.1 404 \r\nserver: x\r\nset-cookie: a=b\r\ntransfer-encoding: chunked\r\n\r\n");
}

proptest! {
    /// What is filled in is what its text says when it is parsed.
    #[test]
    fn the_text_is_the_table(
        method in "[A-Za-z ]{0,8}",
        path in "[/a-z?#* ]{0,8}",
        authority in prop::option::of("[a-c:0-9@]{0,6}"),
        fields in prop::collection::vec(
            (prop::sample::select(vec!["a", "host", "cookie", "te", "content-length", "x-y", "A", "upgrade", "b:"]),
             prop::sample::select(vec!["a", "a:80", "trailers", "1", "", " z ", "\t", "x\ry", "k=v; l=w"])),
            0..6),
        ended in any::<bool>(),
    ) {
        let pseudo = Pseudo {
            method: method.as_bytes(),
            scheme: b"http",
            authority: authority.as_ref().map(|name| name.as_bytes()),
            path: path.as_bytes(),
            protocol: None,
        };
        let content = if ended { Content::Ended } else { Content::Follows };
        let _ = with(&pseudo, &fields, content, |view, text| {
            let mut head = RequestHead::new();
            assert_eq!(head.parse(text.as_bytes()), Ok(Some(text.len())), "{text:?}");
            let parsed = head.view(text.as_bytes());
            assert!(parsed.fields().eq(view.fields()), "{text:?}");
            assert_eq!((parsed.method_bytes(), parsed.target()), (view.method_bytes(), view.target()));
            assert_eq!(parsed.path_and_query(), view.path_and_query());
            assert_eq!(request_framing(&parsed), request_framing(view));
        });
    }
}
