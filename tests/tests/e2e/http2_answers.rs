//! Answers of members of HTTP/2 that are malformed, or at the edge of that: beside HAProxy.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use amphora_tests::{
    Certificates, Client, Document, HaProxy, HaProxyConfig, Listener, Pool, Proxy,
    http2::Http2Client,
    http2_frames::{self, END_HEADERS, END_STREAM, OK, kind, literal},
};
use tokio::time::timeout;

/// What a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    /// A response of this status, as a whole.
    Whole(u16),
    /// One of the proxy's own, or none.
    Refused,
    /// One that does not end as a whole one does.
    Cut,
    /// Nothing comes any more.
    Waits,
}

use Got::{Cut, Refused, Waits, Whole};

/// What a member sends for a request, and what a client has of it.
struct Case {
    name: &'static str,
    frames: Vec<(u8, u8, Vec<u8>)>,
    got: Got,
}

fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// One head that ends the stream.
fn alone(name: &'static str, block: Vec<u8>, got: Got) -> Case {
    Case { name, frames: vec![(kind::HEADERS, END_HEADERS | END_STREAM, block)], got }
}

/// A head of these fields behind the status 200, data, and perhaps trailers.
fn with_data(
    name: &'static str,
    fields: &[(&str, &str)],
    data: &str,
    trailers: Option<Vec<u8>>,
    got: Got,
) -> Case {
    let block = [OK, &head(fields)[..]].concat();
    let end = if trailers.is_none() { END_STREAM } else { 0 };
    let mut frames = vec![(kind::HEADERS, END_HEADERS, block), (kind::DATA, end, data.into())];
    frames.extend(trailers.map(|block| (kind::HEADERS, END_HEADERS | END_STREAM, block)));
    Case { name, frames, got }
}

fn cases() -> Vec<Case> {
    let ok = |fields: &[(&str, &str)]| [OK, &head(fields)[..]].concat();
    let status = |value: &str| head(&[(":status", value)]);
    let large = "x".repeat(20_000);
    let many: Vec<u8> = OK.iter().copied().chain((0..150).flat_map(|_| literal("x-a", "b"))).collect();
    let mut all = vec![
        alone("good", ok(&[("x-a", "b")]), Whole(200)),
        alone("no status", head(&[("x-a", "b")]), Refused),
        alone("nothing", Vec::new(), Refused),
        alone("status twice", [OK, OK].concat(), Refused),
        alone("status behind a field", [&head(&[("x-a", "b")])[..], OK].concat(), Refused),
        alone("status of letters", status("abc"), Refused),
        alone("status of two digits", status("20"), Refused),
        alone("status of four digits", status("2000"), Refused),
        alone("status 099", status("099"), Refused),
        alone("status 600", status("600"), Whole(600)),
        alone("empty status", status(""), Refused),
        alone("upper case", ok(&[("X-A", "b")]), Refused),
        alone("empty name", ok(&[("", "b")]), Refused),
        alone("space in a name", ok(&[("x a", "b")]), Refused),
        alone("colon in a name", ok(&[("x:a", "b")]), Refused),
        alone("line end in a name", ok(&[("x\r\na", "b")]), Refused),
        alone("line end in a value", ok(&[("x-a", "b\r\nc: d")]), Refused),
        alone("NUL in a value", ok(&[("x-a", "b\0c")]), Refused),
        alone("control in a value", ok(&[("x-a", "b\u{1}c")]), Refused),
        alone("path", ok(&[(":path", "/")]), Refused),
        alone("method", ok(&[(":method", "GET")]), Refused),
        alone("unknown pseudo field", ok(&[(":x", "y")]), Refused),
        alone("connection", ok(&[("connection", "close")]), Refused),
        alone("transfer-encoding", ok(&[("transfer-encoding", "chunked")]), Refused),
        alone("keep-alive", ok(&[("keep-alive", "timeout=1")]), Refused),
        alone("upgrade", ok(&[("upgrade", "websocket")]), Refused),
        alone("proxy-connection", ok(&[("proxy-connection", "close")]), Refused),
        alone("length of nothing", ok(&[("content-length", "5")]), Refused),
        alone("length of letters", ok(&[("content-length", "abc")]), Refused),
        alone("two lengths", ok(&[("content-length", "0"), ("content-length", "5")]), Refused),
        alone("a length twice", ok(&[("content-length", "0"), ("content-length", "0")]), Refused),
        alone("interim that ends", status("103"), Refused),
        alone("100 that ends", status("100"), Refused),
        alone("101", status("101"), Refused),
        alone("large field", ok(&[("x-a", &large)]), Refused),
        alone("many fields", many, Refused),
        with_data("data", &[], "hello", None, Whole(200)),
        with_data("length", &[("content-length", "5")], "hello", None, Whole(200)),
        with_data("less than the length", &[("content-length", "9")], "hello", None, Cut),
        with_data("more than the length", &[("content-length", "3")], "hello", None, Cut),
        with_data("trailers", &[], "hello", Some(head(&[("x-a", "b")])), Whole(200)),
        with_data("status in trailers", &[], "hello", Some(OK.to_vec()), Cut),
        with_data("upper case in trailers", &[], "hello", Some(head(&[("X-A", "b")])), Cut),
        with_data("connection in trailers", &[], "hello", Some(head(&[("connection", "close")])), Cut),
    ];
    for (name, code, got) in [("204 with data", "204", Whole(204)), ("304 with data", "304", Whole(304))] {
        let frames =
            vec![(kind::HEADERS, END_HEADERS, status(code)), (kind::DATA, END_STREAM, b"hello".to_vec())];
        all.push(Case { name, frames, got });
    }
    let heads = |name, first: Vec<u8>, second: Vec<u8>, end, got| {
        let frames = vec![(kind::HEADERS, END_HEADERS, first), (kind::HEADERS, END_HEADERS | end, second)];
        Case { name, frames, got }
    };
    all.push(heads("interim", status("103"), OK.to_vec(), END_STREAM, Whole(200)));
    all.push(heads("interim without status", head(&[("x-a", "b")]), OK.to_vec(), END_STREAM, Refused));
    all.push(heads("trailers that do not end", OK.to_vec(), head(&[("x-a", "b")]), 0, Cut));
    all.push(Case {
        name: "data first",
        frames: vec![
            (kind::DATA, 0, b"hello".to_vec()),
            (kind::HEADERS, END_HEADERS | END_STREAM, OK.to_vec()),
        ],
        got: Refused,
    });
    all.push(alone("an index of no field", vec![0xff, 0xff, 0x7f], Refused));
    all
}

/// How long an answer may take: less than what the helpers of the tests wait for.
const PATIENCE: Duration = Duration::from_secs(5);

async fn over_http2(address: SocketAddr) -> Got {
    let mut client = Http2Client::connect(address).await;
    let answer = client.get("/").await;
    match answer.status {
        Some(status) if !(500..600).contains(&status) => {
            if answer.reset.is_some() {
                Cut
            } else {
                Whole(status)
            }
        }
        _ => Refused,
    }
}

async fn over_http1(address: SocketAddr) -> Got {
    let mut client = Client::connect(address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    loop {
        match client.try_response(false).await {
            Ok(response) if (100..200).contains(&response.status()) => {}
            Ok(response) if !(500..600).contains(&response.status()) => {
                return if response.complete { Whole(response.status()) } else { Cut };
            }
            _ => return Refused,
        }
    }
}

#[tokio::test]
async fn malformed_answers_are_refused_and_harm_nobody_else() {
    let certificates = Certificates::new();
    let all = Arc::new(cases());
    let current = Arc::new(AtomicUsize::new(0));
    let (of_member, at) = (Arc::clone(&all), Arc::clone(&current));
    let member = http2_frames::member(&certificates, move |mut connection| {
        let (all, at) = (Arc::clone(&of_member), Arc::clone(&at));
        async move {
            while let Some(stream) = connection.request().await {
                for (kind, flags, payload) in &all[at.load(Ordering::SeqCst)].frames {
                    // Longer ones go in pieces.
                    let mut pieces = payload.chunks(16_384);
                    let first = pieces.next().unwrap_or_default();
                    let rest: Vec<_> = pieces.collect();
                    let flags = if rest.is_empty() { *flags } else { flags & !END_HEADERS };
                    connection.send(*kind, flags, stream, first).await;
                    for (n, piece) in rest.iter().enumerate() {
                        let flags = if n + 1 == rest.len() { END_HEADERS } else { 0 };
                        connection.send(kind::CONTINUATION, flags, stream, piece).await;
                    }
                }
            }
        }
    })
    .await;
    let pool = Pool::http().members([&member]).with("tls_enabled", true);
    let options = ["--workers", "1", "--certificates", &certificates.option()];
    let proxy = Proxy::start_with(Document::of(Listener::http(), pool), &options).await;
    let mut config = HaProxyConfig::http([member.address]);
    config.servers[0].2 = "ssl verify none alpn h2,http/1.1".to_owned();
    let mut haproxy = HaProxy::start(&config).await;
    let (mut wrong, mut differences) = (Vec::new(), 0);
    for (number, case) in all.iter().enumerate() {
        let address = proxy.address();
        current.store(number, Ordering::SeqCst);
        let over_http2_in_time = timeout(PATIENCE, over_http2(address)).await.unwrap_or(Waits);
        let got = [over_http2_in_time, timeout(PATIENCE, over_http1(address)).await.unwrap_or(Waits)];
        current.store(0, Ordering::SeqCst);
        let good = [over_http2(address).await, over_http1(address).await];
        if got != [case.got; 2] || good != [Whole(200); 2] {
            wrong.push(format!("{}: {got:?}, then {good:?}", case.name));
        }
        current.store(number, Ordering::SeqCst);
        let mut theirs = Vec::new();
        for version in ["HTTP/2", "HTTP/1.1"] {
            // Release 2.6 ends itself (BUG_ON) on some of these.
            if haproxy.as_ref().is_some_and(|haproxy| TcpStream::connect(haproxy.address).is_err()) {
                haproxy = HaProxy::start(&config).await;
            }
            let Some(haproxy) = &haproxy else { continue };
            let got = match version {
                "HTTP/2" => timeout(PATIENCE, over_http2(haproxy.address)).await,
                _ => timeout(PATIENCE, over_http1(haproxy.address)).await,
            };
            theirs.push(got.unwrap_or(Waits));
        }
        if theirs.iter().any(|got| *got != case.got) {
            differences += 1;
            if matches!(case.got, Whole(_)) {
                wrong.push(format!("{}: HAProxy {theirs:?}", case.name));
            }
            println!("{}: HAProxy {theirs:?}, here {:?}", case.name, case.got);
        }
    }
    println!("{} answers, {differences} otherwise through HAProxy", all.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
