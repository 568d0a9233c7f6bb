//! Requests that do not come to their end, though their responses may: what lines say of them, beside HAProxy.

use std::{net::SocketAddr, time::Duration};

use amphora_tests::{
    Backend, Client, L7Policy, Message, Step, eventually,
    http2::{Http2Client, request},
    http2_frames::{END_HEADERS, END_STREAM, OK, kind, literal},
    in_time,
};
use bytes::Bytes;
use h2::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    FIELDS,
    pair::{Backing, PATIENT, Pair, Timeouts},
};

const HASTY: Timeouts = Timeouts { client: 400, connect: 200, server: 30_000 };

/// A member that answers before it has read the request's body, or never.
async fn member() -> Backend {
    Backend::http("member", |request: &Message| match request.target() {
        "/early" => vec![Step::response("413 Content Too Large", "", "too much"), Step::ReadBody],
        "/early/chunked" => vec![
            Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n\r\n"),
            Step::ReadBody,
        ],
        "/early/reset" => {
            vec![Step::response("413 Content Too Large", "", "too much"), Step::Wait, Step::Reset]
        }
        "/stall" => vec![
            Step::ReadBody,
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"),
            Step::Wait,
        ],
        "/endless" => vec![
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"),
            Step::SendPattern(1_000_000_000),
        ],
        _ => vec![Step::ReadBody, Step::Wait],
    })
    .await
}

async fn start(timeouts: Timeouts, member: &Backend) -> Option<Pair> {
    let pools = [Backing::new("HTTP", &[member.address])];
    Pair::start(false, FIELDS, timeouts, &pools, Vec::<(L7Policy, String)>::new()).await
}

/// Sends a head and some of the body.
async fn begin(address: SocketAddr, path: &str, chunked: bool) -> Client {
    let mut client = Client::connect(address).await;
    let (length, body) =
        if chunked { ("Transfer-Encoding: chunked", "3\r\nabc\r\n") } else { ("Content-Length: 10", "abc") };
    client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n{body}")).await;
    client
}

#[tokio::test]
async fn a_request_that_is_answered_early_tells_what_became_of_its_rest() {
    let member = member().await;
    let Some(mut pair) = start(PATIENT, &member).await else { return };
    for (path, chunked) in [("/early", false), ("/early", true), ("/early/chunked", false)] {
        let what = |end: &str| format!("{path} {chunked}, {end}");
        pair.compare(&what("finished"), 1, async |address| {
            let mut client = begin(address, path, chunked).await;
            client.response().await;
            client.finish().await;
            client.end().await;
        })
        .await;
        pair.compare(&what("reset"), 1, async |address| {
            let mut client = begin(address, path, chunked).await;
            client.response().await;
            client.reset();
        })
        .await;
    }
    pair.compare("a bad chunk", 1, async |address| {
        let mut client = begin(address, "/early", true).await;
        client.response().await;
        client.send("zz\r\n").await;
        client.end().await;
    })
    .await;
    pair.compare("the rest", 1, async |address| {
        let mut client = begin(address, "/early", false).await;
        client.response().await;
        client.send("0123456").await;
        client.finish().await;
        client.end().await;
    })
    .await;
    // Before there is a response.
    for chunked in [false, true] {
        for finished in [false, true] {
            pair.compare(&format!("no response {chunked} {finished}"), 1, async |address| {
                let before = member.started();
                let mut client = begin(address, "/never", chunked).await;
                eventually("the member has it", async || (member.started() > before).then_some(())).await;
                if finished {
                    client.finish().await;
                    client.end().await;
                } else {
                    client.reset();
                }
            })
            .await;
        }
    }
    // HAProxy counts also what it has nobody to send to.
    let mut client = begin(pair.address, "/early/reset", false).await;
    client.response().await;
    member.proceed();
    let at = pair.address;
    eventually("the member's connection is gone", async || (member.open() == 0).then_some(at)).await;
    client.send("0123456").await;
    let line = pair.ours.line("one whose member has gone").await;
    assert!(line.contains("|ST=413|") && line.contains("|ts=SD|"), "{line}");
    pair.end();
    let Some(mut pair) = start(HASTY, &member).await else { return };
    for chunked in [false, true] {
        pair.compare(&format!("late {chunked}"), 1, async |address| {
            let mut client = begin(address, "/early", chunked).await;
            client.response().await;
            client.end().await;
        })
        .await;
    }
    pair.end();
}

#[tokio::test]
async fn a_stream_that_is_reset_tells_how_far_it_has_come() {
    let member = member().await;
    let Some(mut pair) = start(PATIENT, &member).await else { return };
    for path in ["/never", "/stall", "/early"] {
        for length in [None, Some(3usize)] {
            pair.compare(&format!("{path} {length:?}"), 1, async |address| {
                let before = member.started();
                let mut client = Http2Client::connect(address).await;
                let method = if length.is_some() { "POST" } else { "GET" };
                // Of a member that reads the body the rest would be waited for.
                let has_rest = length.is_some() && path != "/stall";
                let (response, mut stream) = client.begin(request(method, path), length.is_none()).await;
                if length.is_some() {
                    stream.send_data(Bytes::from_static(b"abc"), !has_rest).unwrap();
                }
                eventually("the member has it", async || (member.started() > before).then_some(())).await;
                if path == "/never" {
                    stream.send_reset(Reason::CANCEL);
                    drop((response, stream));
                    return client.end().await.unwrap_or_default();
                }
                let mut body = in_time("a response", response).await.unwrap().into_body();
                while let Some(data) = in_time("data", body.data()).await {
                    data.unwrap();
                    if path == "/stall" {
                        break;
                    }
                }
                stream.send_reset(Reason::CANCEL);
                drop((body, stream));
                client.end().await.unwrap_or_default();
            })
            .await;
        }
    }
    pair.end();
    // How much has passed until then differs.
    let Some(pair) = start(HASTY, &member).await else { return };
    let mut client = Http2Client::connect(pair.address).await;
    let (response, _stream) = client.begin(request("GET", "/endless"), true).await;
    let _body = in_time("a response", response).await.unwrap().into_body();
    let line = pair.ours.line("one that does not read").await;
    assert!(line.contains("|ST=200|") && line.contains("|ts=cD|"), "{line}");
    pair.end();
}

/// What begins a connection: the preface, and no settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test]
async fn what_is_no_request_of_http2_leaves_haproxys_line() {
    let member = member().await;
    let Some(mut pair) = start(PATIENT, &member).await else { return };
    // `:method: GET`, `:scheme: http`, `:path: /` of the static table.
    let get = [b"\x82\x86\x84".as_slice(), &literal(":authority", "a")].concat();
    let with = |name: &str| [&get[..], &literal(name, "x")].concat();
    let whole = END_HEADERS | END_STREAM;
    for (what, bytes) in [
        ("a name in upper case", frame(kind::HEADERS, whole, 1, &with("X-Up"))),
        ("a field of the connection", frame(kind::HEADERS, whole, 1, &with("connection"))),
        ("no path", frame(kind::HEADERS, whole, 1, b"\x82\x86")),
        ("a response", frame(kind::HEADERS, whole, 1, OK)),
        ("no header block", frame(kind::HEADERS, whole, 1, &[0xff; 6])),
        ("data of the connection", frame(kind::DATA, 0, 0, b"abc")),
        ("a stream of the server's", frame(kind::HEADERS, whole, 2, &get)),
        ("settings of odd length", frame(kind::SETTINGS, 0, 0, b"abc")),
    ] {
        pair.compare(what, 1, async |address| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&[PREFACE, &bytes].concat()).await.unwrap();
            // Of a stream that is refused the connection goes on.
            let mut read = [0; 4096];
            let reading = async { while matches!(stream.read(&mut read).await, Ok(1..)) {} };
            let _ = tokio::time::timeout(Duration::from_millis(300), reading).await;
        })
        .await;
    }
    pair.end();
}
