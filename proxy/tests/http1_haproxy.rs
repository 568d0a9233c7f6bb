//! The HTTP/1.1 engine beside a real HAProxy on loopback: what HAProxy refuses, the engine refuses; where both accept,
//! they see the same requests. Without a `haproxy` program the tests say so and pass.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "tests may block")]

mod generate;
#[path = "../../tests/src/judge.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "a module of the crate amphora-tests, which depends on this one"
)]
mod judge;

use std::{
    cell::Cell,
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use amphora_proxy::{
    http::{Known, RequestEdits, RequestHead, ResponseHead},
    http1::{Body, ChunkedDecoder, Connection, request_framing, write_request},
};
use proptest::{prelude::*, test_runner::TestRunner};

use self::judge::{Judge, is_of_haproxy_2_6};

/// What a reader makes of a stream of requests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reading {
    /// `method|path and query|body in hexadecimal` of each request.
    requests: Vec<String>,
    refused: bool,
}

/// A HAProxy that answers every request itself and says what it saw. Killed when dropped.
struct Haproxy {
    child: Child,
    address: SocketAddr,
    /// Where it takes its cookie `SRV` out of requests before it looks at them.
    cookies: SocketAddr,
    is_2_6: bool,
    _directory: tempfile::TempDir,
}

impl Haproxy {
    fn start() -> Option<Self> {
        let found = Command::new("haproxy").arg("-v").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: there is no haproxy program to compare with");
            return None;
        }
        let free = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [address, cookies, behind] = free.each_ref().map(|free| free.local_addr().unwrap());
        drop(free);
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("haproxy.cfg");
        let text = format!(
            "defaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\n \
             timeout http-request 200ms\n\
             frontend f\n bind {address}\n option http-buffer-request\n \
             http-request return status 200 hdr x-seen \"%[method]|%[pathq]|%[req.body,hex]\"\n\
             frontend cookies\n bind {cookies}\n default_backend cookies\n\
             backend cookies\n cookie SRV insert indirect nocache\n server m {behind} cookie m\n\
             frontend behind\n bind {behind}\n \
             http-request return status 200 hdr x-seen \"%[req.hdrs,hex]\"\n"
        );
        fs::write(&config, text).unwrap();
        let mut child = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "haproxy does not start");
            assert!(Instant::now() < deadline, "haproxy does not listen");
            std::thread::yield_now();
        }
        let is_2_6 = Judge::HaProxy.judges("requests that it has since come to read otherwise");
        Some(Self { child, address, cookies, is_2_6, _directory: directory })
    }

    fn read(&self, data: &[u8]) -> Reading {
        Self::read_at(self.address, data)
    }

    /// What a member would get for `Cookie: value`, without blanks at its end; empty when the field is gone.
    fn without_its_cookie(&self, value: &str) -> String {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCookie: {value}\r\n\r\n");
        let reading = Self::read_at(self.cookies, request.as_bytes());
        assert_eq!((reading.requests.len(), reading.refused), (1, false), "{value:?}");
        let digits = reading.requests[0].as_bytes();
        let bytes = digits.chunks(2).map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap());
        let fields = String::from_utf8(bytes.collect()).unwrap();
        let cookie = fields.lines().find_map(|line| line.strip_prefix("cookie: "));
        cookie.unwrap_or_default().trim_end().to_owned()
    }

    fn read_at(address: SocketAddr, data: &[u8]) -> Reading {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answers = Vec::new();
        // HAProxy may refuse and close before it has read everything.
        let _ = stream.write_all(data);
        let _ = stream.read_to_end(&mut answers);
        let mut reading = Reading::default();
        let mut head = ResponseHead::new();
        let mut rest = answers.as_slice();
        while let Ok(Some(len)) = head.parse(rest) {
            let view = head.view(rest);
            match view.values(b"x-seen").next() {
                Some(seen) => reading.requests.push(String::from_utf8_lossy(seen).into_owned()),
                None if view.status() < 200 => {}
                None => {
                    reading.refused = true;
                    break;
                }
            }
            rest = &rest[len..];
        }
        reading
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads with the engine. An incomplete message counts as refused: HAProxy answers 408.
fn read(data: &[u8]) -> Reading {
    let mut reading = Reading::default();
    let mut head = RequestHead::new();
    let mut rest = data;
    while !rest.is_empty() && !b"\r\n".starts_with(rest) {
        reading.refused = true;
        let Ok(Some(len)) = head.parse(rest) else { return reading };
        let view = head.view(rest);
        let Ok(framing) = request_framing(&view) else { return reading };
        rest = &rest[len..];
        let mut body = Vec::new();
        match framing.body {
            Body::None | Body::UntilClose => {}
            Body::Length(n) => {
                let Some((data, next)) = rest.split_at_checked(n as usize) else { return reading };
                body.extend_from_slice(data);
                rest = next;
            }
            Body::Chunked => {
                let mut decoder = ChunkedDecoder::new();
                while !decoder.is_done() {
                    let Ok(piece) = decoder.decode_data(rest) else { return reading };
                    if rest.is_empty() {
                        return reading;
                    }
                    body.extend_from_slice(&rest[piece.data]);
                    rest = &rest[piece.consumed..];
                }
            }
        }
        let mut seen = format!(
            "{}|{}|",
            String::from_utf8_lossy(view.method_bytes()),
            String::from_utf8_lossy(view.path_and_query().unwrap_or_default())
        );
        for byte in body {
            write!(seen, "{byte:02X}").unwrap();
        }
        reading.requests.push(seen);
        reading.refused = false;
        if !framing.keep_alive {
            break;
        }
    }
    reading
}

/// Whether the engine is stricter; panics where it is laxer or reads something else.
fn compare(haproxy: &Haproxy, data: &[u8]) -> bool {
    if !haproxy.is_2_6 && is_of_haproxy_2_6(data) {
        return false;
    }
    // A last request that closes lets both come to an end, whatever became of those before it.
    let data = &[data, b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat();
    let ours = read(data);
    let theirs = haproxy.read(data);
    let shown = data.escape_ascii();
    assert!(ours.requests.len() <= theirs.requests.len(), "{shown}: HAProxy refuses: {theirs:?}, {ours:?}");
    assert_eq!(ours.requests, theirs.requests[..ours.requests.len()], "{shown}");
    assert!(ours.refused || ours == theirs, "{shown}: HAProxy reads on: {theirs:?}, {ours:?}");
    ours != theirs
}

#[test]
fn smuggling_shapes_that_haproxy_refuses_are_refused() {
    let Some(haproxy) = Haproxy::start() else { return };
    let next = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut stricter = 0;
    let mut count = 0;
    let mut check = |text: String| {
        count += 1;
        stricter += u32::from(compare(&haproxy, text.as_bytes()));
    };
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 05\r\n",
        "Content-Length:\r\n",
        "Content-Length: \x0b5\r\n",
        "Content-Length : 5\r\n",
        "Content-Length: 18446744073709551621\r\n",
        "Content_Length: 5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked;a=b\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding: chunked\x0c\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "A: b\r\n Transfer-Encoding: chunked\r\n",
        "A: b\rTransfer-Encoding: chunked\r\n",
        "A: b\nTransfer-Encoding: chunked\r\n",
        "A: b\r\r\nTransfer-Encoding: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "\0Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: CHUNKED\r\n",
        "Transfer-Encoding: chunked\r\n",
        "A b: c\r\n",
        "A\r\n",
        ": a\r\n",
        "A(: b\r\n",
        "A: \0\r\n",
        "A: \x7f\r\n",
        "Host: b\r\n",
        "Host: a\r\n",
        "Connection: content-length\r\n",
        "",
    ] {
        for body in ["", "0\r\n\r\n", "5\r\nabcde\r\n0\r\n\r\n"] {
            check(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}{next}"));
            check(format!(
                "POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n{fields}\r\n{body}{next}"
            ));
        }
    }
    for body in [
        "3\r\nabc\r\n0\r\n\r\n",
        "3;a=b;c=\"d\\\"\"\r\nabc\r\n0\r\n\r\n",
        "003\r\nabc\r\n0\r\nA: b\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\rXabc\r\n0\r\n\r\n",
        "3;\r\nabc\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n0\r\n\r\n",
        "3;a\0\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "g\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "00000000000000000003\r\nabc\r\n0\r\n\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\nContent-Length: 3\r\n\r\n",
        "0\r\n A: b\r\n\r\n",
        "0\r\nA\r\n\r\n",
        "0\r\n\n",
        "0\n\r\n",
        "0\r\n\rX\r\n",
    ] {
        check(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}{next}"));
    }
    for line in [
        "GET / HTTP/1.1",
        "\r\nGET / HTTP/1.1",
        "\r\n\r\nGET / HTTP/1.1",
        " GET / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET\t/ HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /#a HTTP/1.1",
        "GET /<>{}|^\"`\\ HTTP/1.1",
        "G\u{1}T / HTTP/1.1",
        "G(T / HTTP/1.1",
        "get / HTTP/1.1",
        "GET /",
        "GET / HTTP/1.10",
        "GET / HTTP/1.2",
        "GET / HTTP/0.9",
        "GET / http/1.1",
        "GET / HTTP/1.",
        "GET / HTTP/1,1",
        "GET / FOO/1.1",
        "GET http://a/ HTTP/1.1",
        "GET http://b/ HTTP/1.1",
        "GET http://a:80/ HTTP/1.1",
        "GET http://a:81/ HTTP/1.1",
        "GET http://u@a/ HTTP/1.1",
        "GET http://a HTTP/1.1",
        "GET http://a?b HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "GET http:/a HTTP/1.1",
        "GET a HTTP/1.1",
        "GET * HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "OPTIONS *a HTTP/1.1",
        "CONNECT a:80 HTTP/1.1",
        "CONNECT a:81 HTTP/1.1",
        "CONNECT b:80 HTTP/1.1",
        "CONNECT a HTTP/1.1",
        "CONNECT / HTTP/1.1",
    ] {
        check(format!("{line}\r\nHost: a\r\n\r\n{next}"));
    }
    println!("{count} shapes; stricter than HAProxy on {stricter}");
}

#[test]
fn generated_requests_are_read_as_haproxy_reads_them() {
    let Some(haproxy) = Haproxy::start() else { return };
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) };
    let counts = Cell::new([0u32; 2]);
    let result = TestRunner::new(config).run(&generate::requests(), |data| {
        let mut count = counts.get();
        count[usize::from(compare(&haproxy, &data))] += 1;
        counts.set(count);
        Ok(())
    });
    let [same, stricter] = counts.get();
    println!("the same: {same}; stricter than HAProxy: {stricter}");
    result.unwrap();
    assert!(same > 300 && stricter > 50);
}

/// What a member gets for `Cookie: value`; empty when the field is gone.
fn without_our_cookie(value: &str) -> String {
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {value}\r\n\r\n");
    let mut head = RequestHead::new();
    head.parse(text.as_bytes()).unwrap().unwrap();
    let mut out = Vec::new();
    let edits = RequestEdits { strip_cookie: Some(b"SRV"), ..RequestEdits::default() };
    write_request(&mut out, &head.view(text.as_bytes()), Connection::Persistent, &edits);
    head.parse(&out).unwrap().unwrap();
    let value = head.view(&out).value(Known::Cookie).unwrap_or_default().to_vec();
    String::from_utf8(value).unwrap()
}

#[test]
fn the_cookie_srv_is_taken_out_as_haproxy_takes_it_out() {
    let Some(haproxy) = Haproxy::start() else { return };
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) };
    let piece = prop::sample::select(vec![
        "SRV=m",
        "SRV=\"m\"",
        "SRV=",
        "SRV",
        "srv=m",
        "a=1",
        "b={\"x\":1,\"y\":2}",
        "c=\"d;e\"",
        "$Path=/",
        "$Version",
        "f",
        "\"",
        "\\",
        "=",
        ";",
        ";",
        "; ",
        " ;",
        ",",
        ", ",
        " ",
        "\t",
    ]);
    let result = TestRunner::new(config).run(&prop::collection::vec(piece, 0..10), |pieces| {
        let value = pieces.concat();
        // HAProxy takes blanks around `=` away from all cookies, where here they stay.
        prop_assume!(!["= ", "=\t", " =", "\t="].iter().any(|blank| value.contains(blank)));
        // Behind a delimiter at the end HAProxy looks at the byte after the field, for a `$`: what it does goes by what another
        // request has left there.
        prop_assume!(!value.trim_end().ends_with([',', ';']));
        prop_assert_eq!(without_our_cookie(&value), haproxy.without_its_cookie(&value), "{:?}", value);
        Ok(())
    });
    result.unwrap();
}
