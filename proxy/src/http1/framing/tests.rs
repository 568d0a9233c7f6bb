#![allow(clippy::unwrap_used)]

use super::*;
use crate::http::{RequestHead, ResponseHead};

fn request(line: &str, fields: &str) -> Result<RequestFraming, Reject> {
    let text = format!("{line}\r\nHost: a\r\n{fields}\r\n");
    let mut head = RequestHead::new();
    head.parse(text.as_bytes())?.unwrap();
    request_framing(&head.view(text.as_bytes()))
}

fn post(fields: &str) -> Result<RequestFraming, Reject> {
    request("POST / HTTP/1.1", fields)
}

fn response(method: Method, text: &str) -> Result<ResponseFraming, BadResponse> {
    let text = format!("{text}\r\n\r\n");
    let mut head = ResponseHead::new();
    head.parse(text.as_bytes())?.unwrap();
    response_framing(method, true, &head.view(text.as_bytes()))
}

#[test]
fn request_bodies() {
    assert_eq!(post("").unwrap().body, Body::None);
    assert_eq!(post("Content-Length: 0\r\n").unwrap().body, Body::None);
    assert_eq!(post("Content-Length: 12\r\n").unwrap().body, Body::Length(12));
    assert_eq!(post("Content-Length: 9223372036854775807\r\n").unwrap().body, Body::Length(i64::MAX as u64));
    assert_eq!(post("Transfer-Encoding: chunked\r\n").unwrap().body, Body::Chunked);
    assert_eq!(post("transfer-encoding:\tCHUNKED \r\n").unwrap().body, Body::Chunked);
    assert_eq!(request("POST / HTTP/1.0", "Content-Length: 3\r\n").unwrap().body, Body::Length(3));
}

#[test]
fn lengths_in_doubt_are_refused() {
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: -3\r\n",
        "Content-Length: 3 3\r\n",
        "Content-Length: 0x3\r\n",
        "Content-Length: 3.0\r\n",
        "Content-Length:\r\n",
        "Content-Length: 9223372036854775808\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: 00000000000000000003\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked;a=b\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        assert_eq!(post(fields).map_err(Reject::status), Err(400), "{fields:?}");
    }
    assert_eq!(post("Transfer-Encoding: gzip, chunked\r\n").map_err(Reject::status), Err(501));
    let http10 = request("POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n");
    assert_eq!(http10.map_err(Reject::status), Err(400));
    let http10 = request("GET / HTTP/1.0", "Content-Length: 3\r\n");
    assert_eq!(http10.map_err(Reject::status), Err(400));
}

#[test]
fn the_clients_connection() {
    for (line, fields, keep_alive) in [
        ("GET / HTTP/1.1", "", true),
        ("GET / HTTP/1.1", "Connection: close\r\n", false),
        ("GET / HTTP/1.1", "Connection: foo,CLOSE\r\n", false),
        ("GET / HTTP/1.1", "Connection: foo\r\nConnection: close\r\n", false),
        ("GET / HTTP/1.1", "Connection: keep-alive, close\r\n", false),
        ("GET / HTTP/1.1", "Connection: closed\r\n", true),
        ("GET / HTTP/1.0", "", false),
        ("GET / HTTP/1.0", "Connection: Keep-Alive\r\n", true),
        ("GET / HTTP/1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        assert_eq!(request(line, fields).unwrap().keep_alive, keep_alive, "{line} {fields}");
    }
}

#[test]
fn expectations() {
    assert!(post("Expect: 100-Continue\r\nContent-Length: 1\r\n").unwrap().expect_continue);
    assert!(!post("Expect: 100-continue\r\n").unwrap().expect_continue);
    assert!(!post("Expect: 200-ok\r\nContent-Length: 1\r\n").unwrap().expect_continue);
    let http10 = request("POST / HTTP/1.0", "Expect: 100-continue\r\nContent-Length: 1\r\n");
    assert!(!http10.unwrap().expect_continue);
}

#[test]
fn upgrades() {
    for (fields, upgrade) in [
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
        ("Connection: keep-alive, upgrade\r\nUpgrade: WebSocket\r\n", true),
        ("Connection: upgrade\r\n", false),
        ("Upgrade: websocket\r\n", false),
        ("Connection: upgrade\r\nUpgrade:\r\n", false),
        ("Connection: upgrade\r\nUpgrade: websocket, H2C\r\n", false),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n", false),
        ("Connection: upgrade, Sec-WebSocket-Key\r\nUpgrade: websocket\r\n", false),
        ("Connection: sec-websocket-KEY\r\nConnection: upgrade\r\nUpgrade: websocket\r\n", false),
        (
            "Connection: upgrade, sec-websocket-version\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n",
            false,
        ),
        // What is named and not there does not matter, nor does what is not WebSocket's: it stays.
        ("Connection: upgrade, sec-websocket-protocol\r\nUpgrade: websocket\r\n", true),
        ("Connection: upgrade, x-a\r\nX-A: 1\r\nUpgrade: websocket\r\n", true),
        ("Connection: upgrade, x-a\r\nX-A: 1\r\nUpgrade: other\r\n", true),
        ("Connection: upgrade, cookie, origin\r\nCookie: a=b\r\nOrigin: b\r\nUpgrade: other\r\n", true),
    ] {
        let fields = format!("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}");
        assert_eq!(post(&fields).unwrap().upgrade, upgrade, "{fields:?}");
    }
    assert!(post("Connection: upgrade\r\nUpgrade: websocket\r\n").is_err());
    assert!(request("GET / HTTP/1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n").is_err());
    for (key, taken) in [("x".repeat(23), false), ("x".repeat(24), true), ("x".repeat(25), false)] {
        let fields =
            format!("Sec-WebSocket-Key: {key}\r\nConnection: upgrade\r\nUpgrade: foo, WebSocket\r\n");
        assert_eq!(post(&fields).is_ok_and(|framing| framing.upgrade), taken, "{key}");
        assert_eq!(post(&fields).is_err(), !taken, "{key}");
    }
    // Without an offer that a member could take there is no fault.
    assert!(!post("Upgrade: websocket\r\n").unwrap().upgrade);
    assert!(!post("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n").unwrap().upgrade);
    assert!(!post("Connection: upgrade\r\nUpgrade: websockets, h2\r\n").unwrap().upgrade);
    assert!(post("Connection: upgrade\r\nUpgrade: other\r\n").unwrap().upgrade);
    let http10 = request("GET / HTTP/1.0", "Connection: upgrade\r\nUpgrade: other\r\n");
    assert!(!http10.unwrap().upgrade);
}

#[test]
fn offers_of_http_are_none_in_any_spelling() {
    for offer in [
        "h2c",
        "H2C",
        "h2",
        "\"h2c\"",
        "\"h\\2c\"",
        "h2c/2.0",
        "h2c-14",
        "h2-14",
        "HTTP/2.0",
        "http/2",
        "HTTP/1.1",
        "h3",
        "TLS/1.2",
        "tls",
        "websocket, h2c",
        "h2c,websocket",
        "websocket, \"h2c\"",
        "websocket,,h2c;q=1",
        "websocket\r\nUpgrade: h2c",
        "h2c\r\nupgrade: websocket",
        "\th2c ",
        "h2c foo",
        "foo h2c",
        "websocket h2c",
        "websocket;h2c",
        "foo/h2c",
        "websocket; \"h2c\"",
        "foo/HTTP/2",
    ] {
        let fields = format!(
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: upgrade\r\nUpgrade: {offer}\r\n"
        );
        assert!(!post(&fields).unwrap().upgrade, "{offer:?}");
    }
    for offer in ["SPDY/3.1", "tcp", "raw", "foo/1, bar/2", "th2c"] {
        assert!(post(&format!("Connection: upgrade\r\nUpgrade: {offer}\r\n")).unwrap().upgrade, "{offer:?}");
    }
}

#[test]
fn connect_is_not_allowed() {
    for (line, fields) in [
        ("CONNECT a:80 HTTP/1.1", ""),
        ("CONNECT a:443 HTTP/1.1", "Connection: close\r\n"),
        ("CONNECT a:80 HTTP/1.0", ""),
        ("CONNECT a:80 HTTP/1.1", "Content-Length: 3\r\n"),
        ("CONNECT a:80 HTTP/1.1", "Transfer-Encoding: chunked\r\n"),
    ] {
        assert_eq!(request(line, fields).map_err(Reject::status), Err(405), "{line} {fields}");
    }
}

#[test]
fn response_bodies() {
    for (method, text, body, keep_alive) in [
        (Method::Get, "HTTP/1.1 200 OK\r\nContent-Length: 5", Body::Length(5), true),
        (Method::Get, "HTTP/1.1 200 OK\r\nContent-Length: 0", Body::None, true),
        (Method::Get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close", Body::Length(5), false),
        (Method::Get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", Body::Chunked, true),
        (Method::Get, "HTTP/1.1 200 OK", Body::UntilClose, false),
        (Method::Get, "HTTP/1.0 200 OK\r\nContent-Length: 5", Body::Length(5), false),
        (
            Method::Get,
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive",
            Body::Length(5),
            true,
        ),
        (Method::Get, "HTTP/1.0 200 OK\r\nConnection: keep-alive", Body::UntilClose, false),
        (Method::Head, "HTTP/1.1 200 OK\r\nContent-Length: 5", Body::None, true),
        (Method::Head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", Body::None, true),
        (Method::Head, "HTTP/1.1 200 OK", Body::None, true),
        (Method::Get, "HTTP/1.1 204 No", Body::None, true),
        (Method::Get, "HTTP/1.1 204 No\r\nContent-Length: 0", Body::None, true),
        (Method::Get, "HTTP/1.1 204 No\r\nContent-Length: 5", Body::None, false),
        (Method::Get, "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked", Body::None, false),
        (Method::Get, "HTTP/1.1 304 Not\r\nContent-Length: 5", Body::None, true),
    ] {
        let framing = response(method, text).unwrap();
        assert_eq!((framing.body, framing.keep_alive), (body, keep_alive), "{text}");
        assert!(!framing.interim && !framing.switching, "{text}");
    }
}

#[test]
fn bodies_that_may_come_though_there_are_none() {
    for (method, text, doubt) in [
        (Method::Head, "HTTP/1.1 200 OK\r\nContent-Length: 5", true),
        (Method::Head, "HTTP/1.1 200 OK", true),
        (Method::Head, "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked", true),
        (Method::Head, "HTTP/1.1 304 Not", true),
        (Method::Get, "HTTP/1.1 304 Not\r\nContent-Length: 5", true),
        (Method::Get, "HTTP/1.1 304 Not\r\nTransfer-Encoding: chunked", true),
        (Method::Get, "HTTP/1.1 304 Not", false),
        (Method::Get, "HTTP/1.1 304 Not\r\nContent-Length: 0", false),
        (Method::Get, "HTTP/1.1 204 No", false),
        (Method::Get, "HTTP/1.1 200 OK\r\nContent-Length: 5", false),
    ] {
        assert_eq!(response(method, text).unwrap().body_in_doubt, doubt, "{method:?} {text}");
    }
}

#[test]
fn responses_in_doubt_are_refused() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 304 Not\r\nContent-Length: 5, 5",
        "HTTP/1.0 100 Continue",
        "HTTP/1.1 101 Switching",
        "HTTP/1.1 101 Switching\r\nConnection: upgrade",
        "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x",
        "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket",
        "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: echo, WebSocket",
        "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x",
    ] {
        assert!(response(Method::Get, text).is_err(), "{text}");
    }
}

#[test]
fn interim_responses_and_tunnels() {
    assert!(response(Method::Get, "HTTP/1.1 100 Continue").unwrap().interim);
    assert!(response(Method::Get, "HTTP/1.1 103 Early Hints\r\nLink: x").unwrap().interim);
    let switch =
        "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x";
    assert!(response(Method::Get, switch).unwrap().switching);
    let other = "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websockets";
    assert!(response(Method::Get, other).unwrap().switching);
    let none = "HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0";
    assert!(!response(Method::Get, none).unwrap().switching);

    let mut head = ResponseHead::new();
    let text = format!("{switch}\r\n\r\n");
    head.parse(text.as_bytes()).unwrap().unwrap();
    assert!(response_framing(Method::Get, false, &head.view(text.as_bytes())).is_err());
}
