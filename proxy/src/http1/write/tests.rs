//! Heads, before and after.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::{
    http::{EditList, FieldEdits, RequestHead, ResponseHead, SetFields},
    sys::counted,
};

fn request(text: &str, edits: &RequestEdits<'_>) -> String {
    request_over(text, Connection::Persistent, edits)
}

fn request_over(text: &str, connection: Connection, edits: &RequestEdits<'_>) -> String {
    let mut head = RequestHead::new();
    head.parse(text.as_bytes()).unwrap().unwrap();
    let mut out = Vec::new();
    write_request(&mut out, &head.view(text.as_bytes()), connection, edits);
    String::from_utf8(out).unwrap()
}

fn response(text: &str, hop: ResponseHop) -> String {
    edited_response(text, hop, &ResponseEdits::default())
}

fn edited_response(text: &str, hop: ResponseHop, edits: &ResponseEdits<'_>) -> String {
    let mut head = ResponseHead::new();
    head.parse(text.as_bytes()).unwrap().unwrap();
    let mut out = Vec::new();
    write_response(&mut out, &head.view(text.as_bytes()), hop, edits);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_plain_request_passes_unchanged() {
    let text = "GET /a?b HTTP/1.1\r\nHost: a\r\nx-ODD:  b \r\nCookie: a=b\r\n\r\n";
    assert_eq!(request(text, &RequestEdits::default()), text);
    assert_eq!(request(&format!("\r\n{text}rest"), &RequestEdits::default()), text);
    let absolute = "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(request(absolute, &RequestEdits::default()), absolute);
}

#[test]
fn fields_of_the_clients_hop_are_left_out() {
    let text = "GET / HTTP/1.1\r\nConnection: close, X-One\r\nHost: a\r\nx-one: 1\r\nX-Two: 2\r\nKeep-Alive: 5\r\n\
                Proxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: websocket\r\nconnection: X-Two\r\nX-Three: 3\r\n\r\n";
    assert_eq!(
        request(text, &RequestEdits::default()),
        "GET / HTTP/1.1\r\nHost: a\r\nx-one: 1\r\nX-Two: 2\r\nX-Three: 3\r\n\r\n"
    );
}

#[test]
fn connection_does_not_remove_what_it_names() {
    for name in [
        "Content-Length",
        "Content-Type",
        "content-encoding",
        "Content-Disposition",
        "Cookie",
        "Cookie2",
        "X-Forwarded-For",
        "x-forwarded-proto",
        "X-Forwarded-Port",
        "X-Forwarded-Host",
        "Forwarded",
        "X-Real-IP",
        "X-Project-Id",
        "Remote_User",
        "X-Scheme",
        "Front-End-Https",
        "X-Api-Version",
        "X-Admin",
        "X-Internal",
        "X",
        "Authorization",
        "Proxy-Authorization",
        "Origin",
        "Referer",
        "Range",
        "Date",
    ] {
        let length = if name.eq_ignore_ascii_case("content-length") { "" } else { "Content-Length: 1\r\n" };
        let text =
            |connection: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{length}{name}: 1\r\n{connection}\r\n");
        let named = text(&format!("Connection: close, X-None, {}\r\n", name.to_ascii_uppercase()));
        assert_eq!(request(&named, &RequestEdits::default()), text(""), "{name}");
    }
    let text = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let named = text.replacen("\r\n\r\n", "\r\nConnection: host, transfer-encoding\r\n\r\n", 1);
    assert_eq!(request(&named, &RequestEdits::default()), text);
    for name in ["Set-Cookie", "Location", "WWW-Authenticate", "Proxy-Authenticate", "X-Verified", "Server"] {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{name}: 1\r\n\r\n");
        let named = text.replacen("\r\n\r\n", &format!("\r\nConnection: {name}, x-none\r\n\r\n"), 1);
        assert_eq!(response(&named, ResponseHop::default()), text, "{name}");
    }
}

#[test]
fn forwarding_fields_are_added_and_replaced() {
    let text = "GET / HTTP/1.1\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Port: 1\r\nHost: a\r\n\
                X-FORWARDED-PROTO: a\r\nx-forwarded-proto: b\r\n\r\n";
    let edits = RequestEdits {
        forwarded_for: Some(b"192.0.2.1"),
        forwarded_port: Some(b"80"),
        forwarded_proto: Some(b"http"),
        ..RequestEdits::default()
    };
    assert_eq!(
        request(text, &edits),
        "GET / HTTP/1.1\r\nX-Forwarded-For: 9.9.9.9\r\nHost: a\r\nx-forwarded-port: 80\r\n\
         x-forwarded-proto: http\r\nx-forwarded-for: 192.0.2.1\r\n\r\n"
    );
}

#[test]
fn the_persistence_cookie_is_stripped() {
    let edits = RequestEdits { strip_cookie: Some(b"SRV"), ..RequestEdits::default() };
    for (before, after) in [
        ("Cookie: SRV=m\r\n", ""),
        ("Cookie: a=1; SRV=m; b=2\r\n", "Cookie: a=1; b=2\r\n"),
        ("COOKIE:\ta=1,b=2;  SRV=m\r\n", "COOKIE:\ta=1,b=2\r\n"),
        ("Cookie:  a=1\r\n", "Cookie:  a=1\r\n"),
        ("Cookie: a=1\r\nA: b\r\nCookie: SRV=m\r\n", "Cookie: a=1\r\nA: b\r\n"),
        ("Cookie: SRV=m\r\nA: b\r\nCookie: a=1\r\n", "A: b\r\nCookie: a=1\r\n"),
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{before}\r\n");
        assert_eq!(request(&text, &edits), format!("GET / HTTP/1.1\r\nHost: a\r\n{after}\r\n"), "{before}");
    }
}

#[test]
fn connection_is_said_where_it_must_be() {
    let upgrade = Connection::Upgrade;
    assert_eq!(
        request_over(
            "GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
            upgrade,
            &RequestEdits::default()
        ),
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    );
    assert_eq!(
        request_over("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Connection::Close, &RequestEdits::default()),
        "GET / HTTP/1.1\r\nHost: a\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(
        request("GET / HTTP/1.0\r\n\r\n", &RequestEdits::default()),
        "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
    );
    assert_eq!(
        request(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers, deflate\r\n\r\n",
            &RequestEdits::default()
        ),
        "GET / HTTP/1.1\r\nHost: a\r\nte: trailers\r\nconnection: te\r\n\r\n"
    );
}

#[test]
fn an_expectation_that_means_nothing_is_left_out() {
    let drop = RequestEdits { drop_expect: true, ..RequestEdits::default() };
    for value in [
        "100-continue",
        "100-Continue",
        " 100-CONTINUE ",
        "\"100-continue\"",
        "100-continue;q=1",
        "x, 100-continue",
    ] {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nExpect:{value}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(request(&text, &RequestEdits::default()), text);
        assert_eq!(
            request(&text, &drop),
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "{value}"
        );
    }
    let other = "GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok, x\r\n\r\n";
    assert_eq!(request(other, &drop), other);
}

#[test]
fn what_belongs_to_h2c_is_left_out_of_requests_and_what_announces_trailers_is_not() {
    let text = "POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\
                HTTP2-Settings: AAMAAABkAAQAAP__\r\nhttp2-settings: b\r\n\r\n";
    assert_eq!(
        request(text, &RequestEdits::default()),
        "POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let text = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(response(text, ResponseHop::default()), text);
}

#[test]
fn a_plain_response_passes_unchanged() {
    let text = "HTTP/1.1 200 Fine\r\nServer: a\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(response(text, ResponseHop::default()), text);
    let http10 = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(response(http10, ResponseHop::default()), http10.replace("1.0", "1.1"));
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n";
    let close = ResponseHop { connection: Connection::Close, ..ResponseHop::default() };
    assert_eq!(response(interim, close), interim);
}

#[test]
fn fields_of_the_members_hop_are_left_out() {
    let text = "HTTP/1.1 200 OK\r\nConnection: close, x-a\r\nX-A: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n\
                Content-Length: 2\r\n\r\n";
    assert_eq!(
        response(text, ResponseHop::default()),
        "HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\n\r\n"
    );
    let http10 = ResponseHop { client: Version::Http10, ..ResponseHop::default() };
    assert_eq!(
        response(text, http10),
        "HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\nconnection: keep-alive\r\n\r\n"
    );
    let required = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.2\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(
        response(required, ResponseHop::default()),
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.2\r\nContent-Length: 0\r\nconnection: upgrade\r\n\r\n"
    );
}

#[test]
fn lengths_are_left_out_where_there_is_no_body() {
    let lengths = "Content-Length: 2\r\n\r\n";
    for line in ["HTTP/1.1 204 No Content\r\n", "HTTP/1.1 100 Continue\r\n"] {
        let text = format!("{line}{lengths}");
        assert_eq!(response(&text, ResponseHop::default()), format!("{line}\r\n"));
    }
    let not_modified = format!("HTTP/1.1 304 Not Modified\r\n{lengths}");
    assert_eq!(response(&not_modified, ResponseHop::default()), not_modified);
    let tunnel = ResponseHop { tunnel: true, ..ResponseHop::default() };
    assert_eq!(response(&format!("HTTP/1.1 200 OK\r\n{lengths}"), tunnel), "HTTP/1.1 200 OK\r\n\r\n");
}

#[test]
fn switching_keeps_the_upgrade() {
    let text = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let edits = ResponseHop { connection: Connection::Upgrade, tunnel: true, ..ResponseHop::default() };
    assert_eq!(
        response(text, edits),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    );
}

#[test]
fn the_persistence_cookie_is_set_by_the_proxy_alone() {
    let text =
        "HTTP/1.1 200 OK\r\nSet-Cookie: SRV=theirs; path=/z\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n";
    let edits = ResponseEdits {
        strip_cookie: Some(b"SRV"),
        insert_cookie: Some((b"SRV", b"m1")),
        private: true,
        ..ResponseEdits::default()
    };
    assert_eq!(
        edited_response(text, ResponseHop::default(), &edits),
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\nset-cookie: SRV=m1; path=/\r\n\
         cache-control: private\r\n\r\n"
    );
}

#[test]
fn framing_is_changed_on_demand() {
    let chunked = ResponseHop { transfer: Transfer::Chunked, ..ResponseHop::default() };
    assert_eq!(
        response("HTTP/1.0 200 OK\r\nA: b\r\n\r\n", chunked),
        "HTTP/1.1 200 OK\r\nA: b\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let until_close = ResponseHop {
        client: Version::Http10,
        connection: Connection::Close,
        transfer: Transfer::UntilClose,
        ..ResponseHop::default()
    };
    assert_eq!(
        response("HTTP/1.1 200 OK\r\nTrailer: a\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n", until_close),
        "HTTP/1.1 200 OK\r\nA: b\r\nconnection: close\r\n\r\n"
    );
}

#[test]
fn what_is_set_replaces_what_the_client_says_of_itself() {
    let text = "GET / HTTP/1.1\r\nX-SSL-Client-DN: \"/CN=forged\"\r\nHost: a\r\nx-ssl-client-dn: b\r\n\
                X-SSL-Client-Verify: 0\r\nX-Ssl-Client-Verify2: c\r\n\r\n";
    let mut names = KnownSet::default();
    names.insert(Known::XSslClientDn);
    let set = crate::http::SetFields { names, lines: b"x-ssl-client-dn: \"\"\r\n" };
    assert_eq!(
        request(text, &RequestEdits { set, ..RequestEdits::default() }),
        "GET / HTTP/1.1\r\nHost: a\r\nX-SSL-Client-Verify: 0\r\nX-Ssl-Client-Verify2: c\r\nx-ssl-client-dn: \"\"\r\n\r\n"
    );
}

#[test]
fn transport_security_is_the_listeners() {
    let text = "HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nA: b\r\nSTRICT-transport-security: c\r\n\
                Content-Length: 0\r\n\r\n";
    let edits = ResponseEdits { transport_security: Some(b"max-age=60;"), ..ResponseEdits::default() };
    assert_eq!(
        edited_response(text, ResponseHop::default(), &edits),
        "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 0\r\nstrict-transport-security: max-age=60;\r\n\r\n"
    );
    assert_eq!(response(text, ResponseHop::default()), text);
}

/// Edits of these names and values, `None` to remove.
fn changes<'a>(edits: &[(&'a str, bool, Option<&'a str>)]) -> EditList<'a> {
    let mut list = EditList::default();
    for (name, removes, value) in edits {
        let known = Known::of(name.as_bytes());
        match value {
            None => list.remove(name.as_bytes(), known),
            Some(value) => {
                let write = |values: &mut Vec<u8>| {
                    values.extend_from_slice(value.as_bytes());
                    Ok(())
                };
                list.add(name.as_bytes(), known, *removes, write).unwrap();
            }
        }
    }
    list
}

#[test]
fn policies_have_the_last_word_about_fields() {
    let list = changes(&[
        ("x-a", true, Some("new")),
        ("x-b", false, Some("more")),
        ("x-c", true, None),
        ("cookie", true, Some("k=v")),
        ("x-forwarded-port", true, None),
        ("x-forwarded-proto", true, Some("wss")),
        ("x-ssl-issuer", true, None),
    ]);
    let mut names = KnownSet::default();
    names.insert(Known::XSslIssuer);
    names.insert(Known::XSslClientCn);
    let edits = RequestEdits {
        forwarded_for: Some(b"192.0.2.1"),
        forwarded_port: Some(b"80"),
        forwarded_proto: Some(b"http"),
        set: SetFields { names, lines: b"x-ssl-client-cn: me\r\nx-ssl-issuer: ca\r\n" },
        strip_cookie: Some(b"SRV"),
        fields: list.edits(),
        ..RequestEdits::default()
    };
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nX-A: 2\r\nX-B: 3\r\nX-C: 4\r\nx-d: 5\r\nCookie: SRV=1; a=b\r\n\
                X-Forwarded-Port: 1\r\nX-SSL-Issuer: me\r\n\r\n";
    assert_eq!(
        request(text, &edits),
        "GET / HTTP/1.1\r\nHost: a\r\nX-B: 3\r\nx-d: 5\r\nx-ssl-client-cn: me\r\nx-forwarded-for: 192.0.2.1\r\nx-a: new\r\n\
         x-b: more\r\ncookie: k=v\r\nx-forwarded-proto: wss\r\n\r\n"
    );
    let list =
        changes(&[("server", true, None), ("set-cookie", true, Some("mine=1")), ("x-e", true, Some(""))]);
    let edits = ResponseEdits {
        transport_security: Some(b"max-age=1"),
        insert_cookie: Some((b"SRV", b"m")),
        fields: list.edits(),
        ..ResponseEdits::default()
    };
    let text =
        "HTTP/1.1 200 OK\r\nServer: x\r\nX-E: 1\r\nx-f: 2\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(
        edited_response(text, ResponseHop::default(), &edits),
        "HTTP/1.1 200 OK\r\nx-f: 2\r\nContent-Length: 0\r\nstrict-transport-security: max-age=1\r\n\
         set-cookie: SRV=m; path=/\r\nset-cookie: mine=1\r\nx-e: \r\n\r\n"
    );
    let list = changes(&[("strict-transport-security", true, Some("max-age=9"))]);
    let edits = ResponseEdits { fields: list.edits(), ..edits };
    let text = "HTTP/1.1 204 No\r\nStrict-Transport-Security: max-age=5\r\n\r\n";
    assert_eq!(
        edited_response(text, ResponseHop::default(), &edits),
        "HTTP/1.1 204 No\r\nset-cookie: SRV=m; path=/\r\nstrict-transport-security: max-age=9\r\n\r\n"
    );
}

#[test]
fn a_head_takes_no_memory_while_it_is_written() {
    let text = "GET /a?b HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nCookie: SRV=1; a=b\r\nConnection: close\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nServer: x\r\nX-A: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let (mut request, mut response) = (RequestHead::new(), ResponseHead::new());
    request.parse(text.as_bytes()).unwrap().unwrap();
    response.parse(answer.as_bytes()).unwrap().unwrap();
    let list = changes(&[("x-a", true, Some("new")), ("server", true, None)]);
    for fields in [FieldEdits::default(), list.edits()] {
        let edits = RequestEdits {
            forwarded_for: Some(b"192.0.2.1"),
            strip_cookie: Some(b"SRV"),
            fields,
            ..RequestEdits::default()
        };
        let back = ResponseEdits { insert_cookie: Some((b"SRV", b"1")), fields, ..ResponseEdits::default() };
        let mut out = Vec::with_capacity(4096);
        counted::take_most();
        let before = counted::live();
        write_request(&mut out, &request.view(text.as_bytes()), Connection::Persistent, &edits);
        write_response(&mut out, &response.view(answer.as_bytes()), ResponseHop::default(), &back);
        assert_eq!(counted::take_most(), before);
    }
}

#[test]
fn paths_and_hosts_are_replaced() {
    let both = RequestEdits { path: Some(b"/new"), host: Some(b"inner:8080"), ..RequestEdits::default() };
    let path = RequestEdits { host: None, ..both };
    let host = RequestEdits { path: None, ..both };
    for (line, fields, edits, expected) in [
        ("GET /a?b=/c HTTP/1.1", "Host: a\r\n", both, "GET /new?b=/c HTTP/1.1\r\nhost: inner:8080\r\n"),
        ("GET /a HTTP/1.1", "x-y: z\r\nHost: a\r\n", path, "GET /new HTTP/1.1\r\nx-y: z\r\nHost: a\r\n"),
        (
            "GET /a HTTP/1.1",
            "x-y: z\r\nHost: a\r\n",
            host,
            "GET /a HTTP/1.1\r\nhost: inner:8080\r\nx-y: z\r\n",
        ),
        ("GET http://a/b?c HTTP/1.1", "Host: a\r\n", path, "GET http://a/new?c HTTP/1.1\r\nHost: a\r\n"),
        ("GET http://a/b?c HTTP/1.1", "Host: a\r\n", host, "GET /b?c HTTP/1.1\r\nhost: inner:8080\r\n"),
        ("GET http://a HTTP/1.1", "Host: a\r\n", host, "GET / HTTP/1.1\r\nhost: inner:8080\r\n"),
        ("OPTIONS http://a HTTP/1.1", "Host: a\r\n", host, "OPTIONS * HTTP/1.1\r\nhost: inner:8080\r\n"),
        ("OPTIONS * HTTP/1.1", "Host: a\r\n", both, "OPTIONS * HTTP/1.1\r\nhost: inner:8080\r\n"),
        ("GET / HTTP/1.0", "", host, "GET / HTTP/1.0\r\nhost: inner:8080\r\nconnection: keep-alive\r\n"),
    ] {
        assert_eq!(request(&format!("{line}\r\n{fields}\r\n"), &edits), format!("{expected}\r\n"), "{line}");
    }
}

mod edits {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 6] = ["x-a", "x-b", "accept", "cookie", "user-agent", "x-forwarded-for"];

    fn field() -> impl Strategy<Value = (usize, bool, String)> {
        (0..NAMES.len(), any::<bool>(), "[a-z=;]{0,6}")
    }

    /// What is left of fields when edits are made one after the other.
    fn naive(fields: &[(usize, bool, String)], edits: &[(usize, u8, String)]) -> Vec<(String, String)> {
        let mut list: Vec<(String, String)> =
            fields.iter().map(|(name, _, value)| (NAMES[*name].to_owned(), value.clone())).collect();
        for (name, op, value) in edits {
            if *op > 0 {
                list.retain(|(other, _)| other != NAMES[*name]);
            }
            if *op < 2 {
                list.push((NAMES[*name].to_owned(), value.clone()));
            }
        }
        list
    }

    proptest! {
        #[test]
        fn are_as_if_made_one_after_the_other(
            fields in prop::collection::vec(field(), 0..8),
            // ADD, SET, REMOVE.
            edits in prop::collection::vec((0..NAMES.len(), 0..3_u8, "[a-z=;]{0,6}"), 0..6),
        ) {
            let lines: String = fields.iter().map(|(name, upper, value)| {
                let name = if *upper { NAMES[*name].to_uppercase() } else { NAMES[*name].to_owned() };
                format!("{name}: {value}\r\n")
            }).collect();
            let ops: Vec<_> = edits.iter().map(|(name, op, value)| {
                (NAMES[*name], *op > 0, (*op < 2).then_some(value.as_str()))
            }).collect();
            let list = changes(&ops);
            let expected = naive(&fields, &edits);
            let found = |head: String| -> Vec<(String, String)> {
                let lines = head.lines().skip(1).filter(|line| !line.is_empty());
                let pairs = lines.filter_map(|line| line.split_once(": "));
                pairs
                    .filter(|(name, _)| !name.eq_ignore_ascii_case("host"))
                    .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                    .collect()
            };
            let edits = RequestEdits { fields: list.edits(), ..RequestEdits::default() };
            let head = request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), &edits);
            prop_assert_eq!(&found(head), &expected);
            let edits = ResponseEdits { fields: list.edits(), ..ResponseEdits::default() };
            let head = edited_response(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n"), ResponseHop::default(), &edits);
            prop_assert_eq!(&found(head), &expected);
        }
    }
}
