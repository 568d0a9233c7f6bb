//! HTTP/2 from clients: any frames, to a server that answers.

use std::{future::poll_fn, net::TcpStream, os::fd::OwnedFd, time::Instant};

use amphora_proxy::{
    conn::{BufferPool, Conn},
    http::{Known, RequestHead, RequestView},
    http2::{
        Ended, Incoming, Limits, Patience, ServerConnection,
        guard::{Frames, Guard, PREFACE, Piece, Role, Then},
        head::{self, RequestContext, ResponseBlock},
        hpack::{Bounds, Decoder, FieldList, encode},
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

/// What the guard makes of bytes.
#[derive(Debug, Default, PartialEq)]
struct Guarded {
    /// What goes on.
    onward: Vec<u8>,
    /// Header blocks.
    blocks: Vec<u8>,
    /// Where these are complete, and how it ends.
    events: Vec<(usize, Then)>,
    frames: Frames,
}

/// The same of bytes that come in pieces of this size.
fn guarded(bytes: &[u8], step: usize, now: Instant) -> Guarded {
    let mut guard = Guard::new(Role::Client, now);
    let Guarded { mut onward, mut blocks, mut events, .. } = Guarded::default();
    let (mut at, mut end) = (0, 0);
    loop {
        let pass = guard.inbound(&bytes[at..end], step, now);
        match pass.piece {
            Piece::Onward => onward.extend_from_slice(&bytes[at..at + pass.taken]),
            Piece::Block(part) => blocks.extend_from_slice(&bytes[at..][part]),
        }
        at += pass.taken;
        match pass.then {
            Then::More if pass.taken > 0 => {}
            Then::More if end < bytes.len() => end = (end + step).min(bytes.len()),
            Then::More => break,
            Then::Refuse(_) => {
                events.push((at, pass.then));
                break;
            }
            then => events.push((at, then)),
        }
    }
    Guarded { onward, blocks, events, frames: *guard.frames() }
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
    let context =
        RequestContext { websocket_key: b"dGhlIHNhbXBsZSBub25jZQ==", ended: incoming.body.is_empty() };
    match head::read_request(&incoming.head, context, &mut table, &mut text) {
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
    let Ok(mut body) = incoming.respond.send_head(ResponseBlock::new(200), false) else { return };
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
        Ok(Some(trailers)) => body.send_trailers(&head::passed_trailers(trailers)),
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

/// Blocks of one connection: of each two bytes of length, and that. Whatever they are, what is kept of them is within its bounds;
/// and what was decoded is the same when it is encoded and decoded again.
pub(crate) fn hpack(mut data: &[u8]) {
    let bounds = Bounds { fields: 20, bytes: 2000 };
    let mut decoder = Decoder::new(4096);
    while let [high, low, rest @ ..] = data {
        let (block, rest) = rest.split_at(rest.len().min(usize::from(*high) << 8 | usize::from(*low)));
        data = rest;
        let mut list = FieldList::default();
        let decoded = decoder.decode(block, &mut list, bounds);
        let size: usize = list.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        assert!(list.len() <= bounds.fields && size <= bounds.bytes);
        let mut again = vec![encode::NO_TABLE];
        for (name, value) in &list {
            encode::field(&mut again, name, value, Known::of(name));
        }
        let mut same = FieldList::default();
        Decoder::new(4096).decode(&again, &mut same, bounds).expect("what was encoded");
        let lower = |name: &[u8]| name.to_ascii_lowercase();
        assert!(
            list.iter()
                .map(|(name, value)| (lower(name), value))
                .eq(same.iter().map(|(name, value)| (name.to_vec(), value)))
        );
        if decoded.is_err() {
            break;
        }
    }
}
