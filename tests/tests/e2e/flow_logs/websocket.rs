//! Switches to WebSocket that are none: what becomes of them, and their lines, beside HAProxy.

use std::{cell::RefCell, net::SocketAddr};

use amphora_tests::{
    Backend, Client, Message, Step,
    http2::{Http2Client, answer, request},
};

use super::{
    FIELDS,
    pair::{Backing, PATIENT, Pair},
};

/// What a member says, by the path.
const ANSWERS: &[(&str, &str)] = &[
    (
        "/any",
        "101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x",
    ),
    ("/none", "101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket"),
    ("/none/case", "101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket"),
    ("/none/list", "101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo, websocket"),
    ("/other", "101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo"),
    ("/no", "200 OK\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0"),
    ("/required", "426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0"),
];

/// A member that says it, and closes.
async fn member() -> Backend {
    Backend::http("member", |request: &Message| {
        let answer = ANSWERS.iter().find(|(path, _)| *path == request.target()).unwrap().1;
        vec![Step::send(format!("HTTP/1.1 {answer}\r\n\r\n")), Step::Close]
    })
    .await
}

/// Sends the same to both, and wants the same status and line.
async fn compare(
    pair: &mut Pair,
    what: &str,
    lines: usize,
    traffic: impl AsyncFn(SocketAddr) -> Option<u16>,
) {
    let statuses = RefCell::new(Vec::new());
    pair.compare(what, lines, async |address| {
        let status = traffic(address).await;
        statuses.borrow_mut().push(status);
    })
    .await;
    let statuses = statuses.into_inner();
    let [.., ours, haproxys] = statuses[..] else { unreachable!() };
    assert_eq!(ours, haproxys, "{what}");
}

#[tokio::test]
async fn a_switch_to_websocket_without_its_word_is_none() {
    let member = member().await;
    let pools = [Backing::new("HTTP", &[member.address])];
    let Some(mut pair) = Pair::start(false, FIELDS, PATIENT, &pools, Vec::new()).await else { return };
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    for (path, _) in ANSWERS {
        for (offer, lines) in [("websocket", key), ("echo", ""), ("echo", key), ("echo, websocket", key)] {
            compare(&mut pair, &format!("{path} of {offer}"), 1, async |address| {
                let mut client = Client::connect(address).await;
                let upgrade = format!(
                    "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {offer}\r\n{lines}\r\n"
                );
                client.send(upgrade).await;
                let status = client.response_head().await.status();
                client.finish().await;
                client.end().await;
                Some(status)
            })
            .await;
        }
    }
    // In HAProxy a switch to something else, and 200, are consent to CONNECT as well.
    for (path, _) in ANSWERS.iter().filter(|(path, _)| !matches!(*path, "/other" | "/no")) {
        compare(&mut pair, &format!("{path} of CONNECT"), 2, async |address| {
            let mut client = Http2Client::connect(address).await;
            // What the server allows is known behind it.
            client.get("/no").await;
            let mut connect = request("CONNECT", path);
            connect.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
            let (response, _stream) = client.begin(connect, false).await;
            answer(response).await.status
        })
        .await;
    }
    pair.end();
}
