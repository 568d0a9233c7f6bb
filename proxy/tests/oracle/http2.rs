//! HTTP/2 from clients: any frames, to a server that answers.

use std::{future::poll_fn, net::TcpStream, os::fd::OwnedFd, time::Instant};

use amphora_proxy::{
    conn::{BufferPool, Conn},
    http::{RequestHead, RequestView},
    http2::{
        Ended, Incoming, Limits, Patience, ServerConnection,
        guard::{Frames, Guard, PREFACE, Role, Then},
        head::{self, RequestContext},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::LocalSet,
    time::Duration,
};

/// The frames that `data` stands for: of each the type, flags, the stream, the length of the payload, and that. From type 240
/// on there is the payload alone.
fn frames(mut data: &[u8]) -> Vec<u8> {
    let mut bytes = [&PREFACE[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    while let [kind, flags, stream, length, rest @ ..] = data {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        data = rest;
        if *kind < 240 {
            bytes.extend([0, 0, payload.len() as u8, *kind % 12, *flags, 0, 0, 0, *stream]);
        }
        bytes.extend(payload);
    }
    bytes
}

/// What the guard says of bytes that come in pieces of this size: where streams begin, how many there were, how it ends.
fn guarded(bytes: &[u8], step: usize, now: Instant) -> (Vec<(usize, Then)>, Frames) {
    let mut guard = Guard::new(Role::Client, now);
    let (mut at, mut events) = (0, Vec::new());
    while at < bytes.len() {
        let pass = guard.inbound(&bytes[at..(at + step).min(bytes.len())], now);
        at += pass.length;
        match pass.then {
            Then::More => {}
            Then::Refuse(_) => {
                events.push((0, pass.then));
                break;
            }
            then => events.push((at, then)),
        }
    }
    (events, Frames { bytes: 0, ..*guard.frames() })
}

/// The guard says the same however the bytes are cut. A server takes them without a panic, ends when they do, holds no more
/// than its budget, and answers with frames. A request that it accepts is one of HTTP/1.1, too.
pub(crate) fn http2_server(data: &[u8]) {
    let bytes = frames(data);
    let now = Instant::now();
    let whole = guarded(&bytes, bytes.len(), now);
    for step in [1, 7, 100] {
        assert_eq!(guarded(&bytes, step, now), whole);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let limits = Limits::default();
    let (ended, most, answers) = LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), served(bytes, limits)).await.expect("it ends")
    });
    assert!(!matches!(ended, Ended::Late | Ended::Drained), "{ended:?}");
    let empty_chunks = 512 * limits.streams as usize;
    assert!(most <= limits.budget + empty_chunks, "{most}");
    let mut rest = &answers[..];
    while let [a, b, c, kind, _, _, _, _, _, payload @ ..] = rest {
        assert!(*kind <= 9, "{answers:?}");
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        rest = &payload[length.min(payload.len())..];
    }
}

async fn served(bytes: Vec<u8>, limits: Limits) -> (Ended, usize, Vec<u8>) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    for socket in [&ours, &theirs] {
        socket.set_nonblocking(true).expect("a socket");
    }
    let mut theirs = tokio::net::UnixStream::from_std(theirs).expect("a runtime");
    let client = tokio::task::spawn_local(async move {
        let (mut reader, mut writer) = theirs.split();
        let mut answers = Vec::new();
        let writing = async {
            // A server that has had enough does not take the rest.
            let _ = writer.write_all(&bytes).await;
            let _ = writer.shutdown().await;
        };
        let reading = async {
            let _ = reader.read_to_end(&mut answers).await;
        };
        tokio::join!(writing, reading);
        answers
    });
    let stream = TcpStream::from(OwnedFd::from(ours));
    let conn = Conn::from(tokio::net::TcpStream::from_std(stream).expect("a runtime"));
    let patience = Patience { idle: Duration::from_secs(60), progress: Duration::from_secs(60) };
    let pool = BufferPool::new(2);
    let mut connection = ServerConnection::new(conn, None, &pool, limits, patience);
    let ended = loop {
        match poll_fn(|cx| connection.poll_accept(cx)).await {
            Ok(incoming) => drop(tokio::task::spawn_local(answer(incoming))),
            Err(ended) => break ended,
        }
    };
    let most = connection.budget().most();
    drop(connection);
    (ended, most, client.await.expect("the client"))
}

async fn answer(mut incoming: Incoming) {
    let (mut table, mut text) = (RequestHead::new(), Vec::new());
    let context = RequestContext {
        scheme: "http",
        websocket_key: b"dGhlIHNhbXBsZSBub25jZQ==",
        ended: incoming.body.is_empty(),
    };
    match head::read_request(&incoming.request, context, &mut table, &mut text) {
        Ok(length) => {
            assert_eq!(length, text.len());
            same(&table.view(&text), &text);
        }
        Err(reject) => {
            if let Err(reason) = head::refusal(reject) {
                incoming.respond.reset(reason);
                return;
            }
        }
    }
    incoming.charge.shrink(head::kept(&table, &text));
    let Ok(mut body) = incoming.respond.send_head(http::Response::new(()), false) else { return };
    while let Some(Ok(mut data)) = poll_fn(|cx| incoming.body.poll_data(cx)).await {
        while !data.is_empty() {
            let capacity = poll_fn(|cx| {
                incoming.body.absorb(cx);
                body.poll_capacity(cx, data.len())
            });
            let Ok(n) = capacity.await else { return };
            if body.send(data.split_to(n), false).is_err() {
                return;
            }
            incoming.body.release(n);
        }
    }
    let _ = match poll_fn(|cx| incoming.body.poll_trailers(cx)).await {
        Ok(Some(trailers)) => body.send_trailers(head::passed_trailers(trailers)),
        _ => body.send(bytes::Bytes::new(), true),
    };
}

/// The text that a table is made of reads the same as what it was made for.
fn same(view: &RequestView<'_>, text: &[u8]) {
    let mut again = RequestHead::new();
    assert_eq!(again.parse(text), Ok(Some(text.len())), "{}", text.escape_ascii());
    let again = again.view(text);
    assert_eq!((again.method(), again.target()), (view.method(), view.target()));
    assert_eq!((again.path(), again.field_count()), (view.path(), view.field_count()));
    assert!(again.fields().eq(view.fields()), "{}", text.escape_ascii());
}
