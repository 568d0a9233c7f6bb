//! A stream of requests, read by the engine and by hyper's server.

use std::{cell::RefCell, convert::Infallible, error::Error as _, io, rc::Rc};

use amphora_proxy::{
    http::{Method, RequestHead, RequestView},
    http1::{Body, ChunkedDecoder, request_framing},
};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How the two readings compare, where they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// The same messages, the same end.
    Same,
    /// The engine refuses what hyper accepts.
    Stricter,
    /// hyper refuses a target for its characters, which is no matter of framing.
    Target,
}

/// One complete request.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    method: Vec<u8>,
    target: Vec<u8>,
    /// Lower-case names, sorted with the values of each name in order.
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
}

/// How a reading ends behind its complete messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nothing is left, or the last message closed the connection.
    Clean,
    /// The bytes end within a message.
    Incomplete,
    /// What follows is refused.
    Refused,
    /// The last message makes the connection a tunnel, or asks for it.
    Tunnel,
}

/// Reads `data` both ways and panics where the engine accepts what hyper refuses, or where the two read messages
/// differently: method, target, fields, body, and where the next begins.
pub(crate) fn request_stream(data: &[u8]) -> Comparison {
    let (ours, our_end) = read(data);
    let (theirs, their_end) = read_with_hyper(data);
    for (i, (our, their)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(our, their, "message {i}");
    }
    // A target that hyper does not take, for its characters alone, is an exception that the engine documents.
    if ours.len() > theirs.len() && their_end == End::Refused {
        let target = &ours[theirs.len()].target;
        let strange = |b: &u8| !b.is_ascii_alphanumeric() && !b"-._~:/?[]@!$&'()*+,;=%".contains(b);
        assert!(target.iter().any(strange), "hyper refuses {:?}", String::from_utf8_lossy(target));
        return Comparison::Target;
    }
    assert!(ours.len() <= theirs.len(), "{:?} {our_end:?}, hyper has {} {their_end:?}", ours, theirs.len());
    if ours.len() < theirs.len() {
        assert!(matches!(our_end, End::Refused | End::Tunnel), "{our_end:?} but hyper reads on: {theirs:?}");
        return if our_end == End::Refused { Comparison::Stricter } else { Comparison::Same };
    }
    match (our_end, their_end) {
        (End::Refused, End::Refused) => Comparison::Same,
        (End::Refused, _) => Comparison::Stricter,
        // hyper looks at a line before it is complete.
        (End::Incomplete, End::Incomplete | End::Refused) => Comparison::Same,
        (End::Clean, End::Clean) | (End::Tunnel, _) => Comparison::Same,
        ends => panic!("the engine and hyper end differently: {ends:?} behind {} messages", ours.len()),
    }
}

fn read(data: &[u8]) -> (Vec<Message>, End) {
    let mut messages = Vec::new();
    let mut head = RequestHead::new();
    let mut rest = data;
    while !rest.is_empty() && !b"\r\n".starts_with(rest) {
        let len = match head.parse(rest) {
            Ok(Some(len)) => len,
            Ok(None) => return (messages, End::Incomplete),
            Err(_) => return (messages, End::Refused),
        };
        let view = head.view(rest);
        let Ok(framing) = request_framing(&view) else { return (messages, End::Refused) };
        rest = &rest[len..];
        let body = match framing.body {
            Body::None | Body::UntilClose => Vec::new(),
            Body::Length(n) if n > rest.len() as u64 => return (messages, End::Incomplete),
            Body::Length(n) => {
                let (body, next) = rest.split_at(n as usize);
                rest = next;
                body.to_vec()
            }
            Body::Chunked => {
                let mut decoder = ChunkedDecoder::new();
                let mut body = Vec::new();
                while !decoder.is_done() {
                    if rest.is_empty() {
                        return (messages, End::Incomplete);
                    }
                    let Ok(piece) = decoder.decode_data(rest) else { return (messages, End::Refused) };
                    body.extend_from_slice(&rest[piece.data]);
                    rest = &rest[piece.consumed..];
                }
                body
            }
        };
        messages.push(message(&view, body));
        if framing.upgrade {
            return (messages, End::Tunnel);
        }
        if !framing.keep_alive {
            return (messages, End::Clean);
        }
    }
    (messages, End::Clean)
}

fn message(view: &RequestView<'_>, body: Vec<u8>) -> Message {
    let mut fields: Vec<_> =
        view.fields().map(|(name, value, _)| (name.to_ascii_lowercase(), value.to_vec())).collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    Message { method: view.method_bytes().to_vec(), target: normal_target(view.target()), fields, body }
}

/// The target as hyper shows it: scheme and authority have no case, an empty path is `/`.
fn normal_target(target: &[u8]) -> Vec<u8> {
    let Some(scheme) = target.windows(3).position(|w| w == b"://").filter(|_| target[0] != b'/') else {
        return target.to_vec();
    };
    let path = target[scheme + 3..].iter().position(|&b| b == b'/').map_or(target.len(), |n| n + scheme + 3);
    let mut normal = target[..path].to_ascii_lowercase();
    normal.extend_from_slice(if path == target.len() { b"/" } else { &target[path..] });
    normal
}

fn read_with_hyper(data: &[u8]) -> (Vec<Message>, End) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let seen = Rc::new(RefCell::new((Vec::new(), None)));
    let result = runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(data.len().max(1) + 64 * 1024);
        client.write_all(data).await.expect("the pipe holds it all");
        client.shutdown().await.expect("the other end is open");
        let service = service_fn(|request| record(request, seen.clone()));
        let connection =
            http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), service);
        let drain = async {
            let mut sink = Vec::new();
            client.read_to_end(&mut sink).await
        };
        tokio::join!(connection, drain).0
    });
    let (messages, end) = seen.take();
    let end = end.unwrap_or(match result {
        Ok(()) => End::Clean,
        Err(error) if error.is_incomplete_message() => End::Incomplete,
        Err(_) => End::Refused,
    });
    (messages, end)
}

type Seen = Rc<RefCell<(Vec<Message>, Option<End>)>>;

async fn record(request: Request<Incoming>, seen: Seen) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    match body.collect().await {
        Ok(body) => {
            let mut fields: Vec<_> = head
                .headers
                .iter()
                .map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            seen.borrow_mut().0.push(Message {
                method: head.method.as_str().as_bytes().to_vec(),
                target: normal_target(head.uri.to_string().as_bytes()),
                fields,
                body: body.to_bytes().to_vec(),
            });
        }
        Err(error) => {
            let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
            let cut = source.is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof);
            seen.borrow_mut().1 = Some(if cut { End::Incomplete } else { End::Refused });
        }
    }
    Ok(Response::new(Empty::new()))
}
