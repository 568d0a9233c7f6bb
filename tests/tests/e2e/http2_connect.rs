//! CONNECT over HTTP/2, and the one that opens a WebSocket (RFC 8441).

use amphora_tests::{
    Backend, Document, Message, Proxy, Step,
    http2::{Http2Client, answer, request},
    in_time,
};
use bytes::Bytes;
use http::Request;

use super::http2::with;

#[tokio::test]
async fn connect_is_refused_and_no_member_sees_it() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let connect = Request::builder().method("CONNECT").uri("a.example:443").body(()).unwrap();
    let answer = client.ask(connect, None, None).await;
    assert_eq!(answer.status, Some(405));
    assert!(answer.field("allow").is_some());
    assert_eq!(client.get("/").await.text(), "a");
    assert_eq!(member.requests().len(), 1);
}

#[tokio::test]
async fn a_websocket_is_opened_by_an_extended_connect() {
    let member = Backend::http("a", |request: &Message| {
        let key = request.field("sec-websocket-key").unwrap_or_default().to_owned();
        match request.target() {
            "/chat" => vec![
                Step::send(format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: b\r\n\
                     Sec-WebSocket-Accept: {}\r\n\r\nfirst",
                    accept(&key)
                )),
                Step::Echo,
            ],
            "/wrong" => vec![
                Step::send(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
                ),
                Step::Echo,
            ],
            "/no" => vec![Step::response("403 Forbidden", "", "no")],
            _ => vec![Step::response("200 OK", "", "what?")],
        }
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    assert_eq!(client.get("/").await.status, Some(200));
    assert!(client.has_extended_connect());
    let connect = |path: &str| {
        let mut connect = request("CONNECT", path);
        connect.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        with(connect, &[("sec-websocket-version", "13")])
    };
    let (response, mut stream) = client.begin(connect("/chat"), false).await;
    let response = in_time("a response", response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers().get("x-a").unwrap(), "b");
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    let mut body = response.into_body();
    stream.send_data(Bytes::from_static(b" and more"), false).unwrap();
    let mut got = Vec::new();
    while got.len() < "first and more".len() {
        got.extend_from_slice(&in_time("data", body.data()).await.unwrap().unwrap());
    }
    assert_eq!(got, b"first and more");
    stream.send_data(Bytes::new(), true).unwrap();
    while let Some(data) = in_time("the end", body.data()).await {
        assert!(data.unwrap().is_empty());
    }
    let seen = &member.requests()[1..];
    assert!(seen.iter().all(|request| request.field("upgrade") == Some("websocket")));
    for (path, status) in [("/no", 403), ("/wrong", 502), ("/fine", 502)] {
        let (response, _stream) = client.begin(connect(path), false).await;
        assert_eq!(answer(response).await.status, Some(status), "{path}");
    }
    let mut other = request("CONNECT", "/");
    other.extensions_mut().insert(h2::ext::Protocol::from_static("h2c"));
    assert_eq!(answer(client.begin(other, false).await.0).await.status, Some(501));
}

/// The `Sec-WebSocket-Accept` for a key.
fn accept(key: &str) -> String {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    let mut child = Command::new("sh")
        .args(["-c", "openssl dgst -sha1 -binary | openssl base64"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    write!(child.stdin.take().unwrap(), "{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}
