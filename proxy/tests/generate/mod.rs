//! Messages for property tests: well-formed ones, those that servers are known to read differently, and spoiled ones.

#![allow(dead_code)]

use proptest::{prelude::*, sample::select};

const LINES: &[&str] = &[
    "GET / HTTP/1.1",
    "POST /a?b=c HTTP/1.1",
    "PUT /a/%20b;c HTTP/1.1",
    "HEAD / HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "DELETE http://a/b HTTP/1.1",
    "GET http://a HTTP/1.1",
    "GET /a HTTP/1.0",
    "POST / HTTP/1.0",
    "CONNECT a:80 HTTP/1.1",
    "\r\nPOST / HTTP/1.1",
    "BREW /<x>|\" HTTP/1.1",
    "POST /  HTTP/1.1",
    "GET / HTTP/1.2",
    "GET /#a HTTP/1.1",
];

const FIELDS: &[&str] = &[
    "A: b\r\n",
    "X-Odd:\t b c \r\n",
    "Empty:\r\n",
    "Cookie: a=1; SRV=x; b=\"2;\"\r\n",
    "Cookie: SRV=x\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Connection: a, x-odd, cookie, content-length\r\n",
    "Connection: upgrade\r\nUpgrade: websocket\r\n",
    "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "Upgrade: h2c\r\n",
    "Keep-Alive: 5\r\n",
    "TE: trailers, gzip\r\n",
    "Trailer: a\r\n",
    "Expect: 100-continue\r\n",
    "X-Forwarded-For: 9.9.9.9\r\n",
    "X-Forwarded-Port: 1\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 03\r\n",
    "Content-Length: 4\r\n",
    "Content-Length: 3, 3\r\n",
    "Content-Length: +3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding:CHUNKED\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Host: b\r\n",
    "A: b\nC: d\r\n",
    "A: b\r\n c\r\n",
    "A: \0\r\n",
];

const BODIES: &[&str] = &[
    "",
    "",
    "abc",
    "abc",
    "0\r\n\r\n",
    "3\r\nabc\r\n0\r\n\r\n",
    "003;a=b;c=\"d\"\r\nabc\r\n0\r\nA: b\r\n\r\n",
    "3 \r\nabc\r\n0\r\n\r\n",
    "3\nabc\r\n0\r\n\r\n",
    "ffffffffffffffff\r\nabc",
    "0\r\nContent-Length: 3\r\n\r\n",
    "1\r\na\r\n2\r\n\r\n\r\n0\r\n\r\n",
];

const STATUS_LINES: &[&str] = &[
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 100 Continue",
    "HTTP/1.1 101 Switching Protocols",
    "HTTP/1.1 426 Upgrade Required",
    "HTTP/1.0 404 Not here",
    "HTTP/1.1 2000 OK",
];

const RESPONSE_FIELDS: &[&str] =
    &["Set-Cookie: SRV=a; path=/\r\n", "Set-Cookie: a=b\r\n", "Cache-Control: public\r\n", "Server: x\r\n"];

/// Bytes at which parsers differ.
pub(crate) const BYTES: &[u8] = b"\r\n\t \0:;,=\"\\/?#%@[]*+-_019afAFxX\x01\x0b\x7f\x80\xff";

fn fields(extra: &'static [&'static str]) -> impl Strategy<Value = String> {
    let field = prop_oneof![4 => select(FIELDS), 1 => select(extra)];
    prop::collection::vec(field, 0..5).prop_map(|fields| fields.concat())
}

fn request() -> impl Strategy<Value = String> {
    let host =
        select(&["Host: a\r\n", "Host: a\r\n", "Host: a\r\n", "host:a:80\r\n", "", "Host: a b\r\n"][..]);
    let frame = prop_oneof![
        3 => Just(("", "")),
        3 => Just(("Content-Length: 3\r\n", "abc")),
        3 => Just(("Transfer-Encoding: chunked\r\n", "3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n")),
        2 => select(BODIES).prop_map(|body| ("", body)),
        2 => select(BODIES).prop_map(|body| ("Transfer-Encoding: chunked\r\n", body)),
    ];
    (select(LINES), host, prop_oneof![3 => Just(String::new()), 2 => fields(FIELDS)], frame)
        .prop_map(|(line, host, fields, (frame, body))| format!("{line}\r\n{host}{fields}{frame}\r\n{body}"))
}

/// Changes some bytes: `(where, what, how)` each.
fn spoil(text: String, changes: Vec<(prop::sample::Index, u8, u8)>) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    for (index, byte, how) in changes {
        if bytes.is_empty() {
            break;
        }
        let at = index.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    let byte = prop_oneof![5 => select(BYTES), 1 => any::<u8>()];
    let how = prop_oneof![4 => Just(0u8), 4 => Just(1u8), 2 => Just(2u8), 1 => Just(3u8)];
    prop_oneof![
        1 => Just(Vec::new()),
        2 => prop::collection::vec((any::<prop::sample::Index>(), byte, how), 1..3),
    ]
}

/// One to three requests in a row.
pub(crate) fn requests() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(request(), 1..4), changes())
        .prop_map(|(texts, changes)| spoil(texts.concat(), changes))
}

/// A response head.
pub(crate) fn response() -> impl Strategy<Value = Vec<u8>> {
    (select(STATUS_LINES), fields(RESPONSE_FIELDS), changes())
        .prop_map(|(line, fields, changes)| spoil(format!("{line}\r\n{fields}\r\nbody"), changes))
}

/// A chunked body.
pub(crate) fn chunks() -> impl Strategy<Value = Vec<u8>> {
    (select(BODIES), select(BODIES), changes()).prop_map(|(a, b, changes)| {
        let first = a.strip_suffix("0\r\n\r\n").unwrap_or(a);
        spoil(format!("{first}{b}"), changes)
    })
}
