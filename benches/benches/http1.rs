//! One message head: parsed, framed, and written for the other side.

use std::hint::black_box;

use amphora_proxy::{
    http::{Method, RequestEdits, RequestHead, ResponseEdits, ResponseHead},
    http1::{
        ChunkedDecoder, Connection, ResponseHop, request_framing, response_framing, write_request,
        write_response,
    },
};
use divan::{Bencher, counter::BytesCount};

fn main() {
    divan::main();
}

/// What a load generator sends.
const SMALL_REQUEST: &str =
    "GET /bytes/128 HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n";

/// What a browser sends.
const BROWSER_REQUEST: &str = "GET /catalogue/items/4711?colour=blue&sort=price HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    Connection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://shop.example.com/catalogue\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; SRV=1420fe92-2c34-551d-a7fe-0aa09cc50670\r\n\
    \r\n";

const RESPONSE: &str = "HTTP/1.1 200 OK\r\n\
    Server: nginx\r\n\
    Date: Sun, 22 Nov 2026 17:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 10240\r\n\
    Cache-Control: max-age=60\r\n\
    ETag: \"5f3-6123456789abc\"\r\n\
    Connection: keep-alive\r\n\
    \r\n";

#[divan::bench(args = ["small", "browser"])]
fn request_parse(bencher: Bencher<'_, '_>, which: &str) {
    let bytes = request(which);
    let mut head = RequestHead::new();
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| head.parse(black_box(bytes)).expect("the request is right"));
}

#[divan::bench(args = ["small", "browser"])]
fn request_parse_frame_write(bencher: Bencher<'_, '_>, which: &str) {
    let bytes = request(which);
    let mut head = RequestHead::new();
    let mut out = Vec::with_capacity(4096);
    let edits = RequestEdits { forwarded_for: Some(b"192.0.2.77"), ..RequestEdits::default() };
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        head.parse(black_box(bytes)).expect("the request is right");
        let view = head.view(bytes);
        let framing = request_framing(&view).expect("the request is right");
        out.clear();
        write_request(&mut out, &view, Connection::Persistent, &edits);
        (framing, out.len())
    });
}

#[divan::bench]
fn response_parse_frame_write(bencher: Bencher<'_, '_>) {
    let bytes = RESPONSE.as_bytes();
    let mut head = ResponseHead::new();
    let mut out = Vec::with_capacity(4096);
    let edits = ResponseEdits::default();
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        head.parse(black_box(bytes)).expect("the response is right");
        let view = head.view(bytes);
        let framing = response_framing(Method::Get, false, &view).expect("the response is right");
        out.clear();
        write_response(&mut out, &view, ResponseHop::default(), &edits);
        (framing, out.len())
    });
}

#[divan::bench(args = [64, 4096])]
fn chunked_decode(bencher: Bencher<'_, '_>, chunk: usize) {
    let mut bytes = Vec::new();
    for _ in 0..65_536 / chunk {
        bytes.extend_from_slice(format!("{chunk:x}\r\n").as_bytes());
        bytes.resize(bytes.len() + chunk, b'x');
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        let mut decoder = ChunkedDecoder::new();
        let mut rest = black_box(&bytes[..]);
        while !decoder.is_done() {
            let piece = decoder.decode(rest).expect("the chunks are right");
            rest = &rest[piece.consumed..];
        }
        rest.len()
    });
}

fn request(which: &str) -> &'static [u8] {
    match which {
        "small" => SMALL_REQUEST.as_bytes(),
        _ => BROWSER_REQUEST.as_bytes(),
    }
}
