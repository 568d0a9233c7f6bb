//! The proxy's own answers, shaped as HAProxy shapes them.

use std::io::Write as _;

use super::write::{Connection, write_connection};
use crate::http::{Method, Version};

/// To whom an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The version of the request; HTTP/1.1 when it was not understood.
    pub version: Version,
    /// The method of the request: HEAD gets no body.
    pub method: Method,
    /// Whether the client's connection stays open. Not when the request was refused or its body not read.
    pub keep_alive: bool,
}

impl Recipient {
    /// One whose request was not understood: the connection is closed.
    pub const UNKNOWN: Self = Self { version: Version::Http11, method: Method::Other, keep_alive: false };
}

/// A prepared error: head without the fields that vary, and body.
struct Prepared {
    status: u16,
    head: &'static str,
    body: &'static str,
}

macro_rules! prepared {
    ($($status:literal $reason:literal $length:literal $text:literal)*) => {
        &[$(Prepared {
            status: $status,
            head: concat!(
                "HTTP/1.1 ", $status, " ", $reason, "\r\ncontent-length: ", $length,
                "\r\ncache-control: no-cache\r\ncontent-type: text/html\r\n"
            ),
            body: concat!("<html><body><h1>", $status, " ", $reason, "</h1>\n", $text, "\n</body></html>\n"),
        }),*]
    };
}

/// The lengths are held to the bodies by a test.
const PREPARED: &[Prepared] = prepared! {
    400 "Bad request" 90 "Your browser sent an invalid request."
    403 "Forbidden" 93 "Request forbidden by administrative rules."
    405 "Method Not Allowed" 146 "A request was made of a resource using a request method not supported by that resource"
    408 "Request Time-out" 110 "Your browser didn't send a complete request in time."
    413 "Payload Too Large" 106 "The request entity exceeds the maximum allowed."
    414 "URI Too Long" 91 "The request line exceeds the maximum."
    429 "Too Many Requests" 117 "You have sent too many requests in a given amount of time."
    431 "Request Header Fields Too Large" 119 "The request fields exceed the maximum allowed."
    500 "Internal Server Error" 97 "An internal server error occurred."
    501 "Not Implemented" 137 ".\nThe server does not support the functionality required to fulfill the request."
    502 "Bad Gateway" 107 "The server returned an invalid or incomplete response."
    503 "Service Unavailable" 107 "No server is available to handle this request."
    504 "Gateway Time-out" 92 "The server didn't respond in time."
    505 "HTTP Version Not Supported" 108 "The version of the request is not known."
};

/// What 405 must say (RFC 9110 section 15.5.6): the methods that are passed on to members, which may know others.
const ALLOW: &[u8] = b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE\r\n";

/// Appends the answer with an error `status`. One that is not prepared becomes 500.
pub fn write_error(out: &mut Vec<u8>, status: u16, to: Recipient) {
    write_prepared(out, status, None, to);
}

/// Appends the answer to what is too much: after so many seconds it would not be.
pub fn write_too_many(out: &mut Vec<u8>, seconds: u64, to: Recipient) {
    write_prepared(out, 429, Some(seconds), to);
}

fn write_prepared(out: &mut Vec<u8>, status: u16, retry_after: Option<u64>, to: Recipient) {
    let find = |status| PREPARED.iter().find(|prepared| prepared.status == status);
    let prepared = find(status).or_else(|| find(500)).expect("500 is in the table");
    out.extend_from_slice(prepared.head.as_bytes());
    if status == 405 {
        out.extend_from_slice(ALLOW);
    }
    if let Some(seconds) = retry_after {
        // Writing to memory does not fail.
        let _ = write!(out, "retry-after: {seconds}\r\n");
    }
    end_head(out, to);
    if to.method != Method::Head {
        out.extend_from_slice(prepared.body.as_bytes());
    }
}

/// Appends a redirect with the status `code` (301, 302, 303, 307, 308) to the concatenation of `location`, which must
/// hold nothing but visible ASCII.
pub fn write_redirect(out: &mut Vec<u8>, code: u16, location: [&[u8]; 2], to: Recipient) {
    // 301 and 308 may be cached.
    let (line, cached): (&[u8], bool) = match code {
        301 => (b"HTTP/1.1 301 Moved Permanently", true),
        303 => (b"HTTP/1.1 303 See Other", false),
        307 => (b"HTTP/1.1 307 Temporary Redirect", false),
        308 => (b"HTTP/1.1 308 Permanent Redirect", true),
        _ => (b"HTTP/1.1 302 Found", false),
    };
    out.extend_from_slice(line);
    out.extend_from_slice(b"\r\ncontent-length: 0\r\nlocation: ");
    out.extend_from_slice(location[0]);
    out.extend_from_slice(location[1]);
    out.extend_from_slice(if cached { b"\r\n" } else { b"\r\ncache-control: no-cache\r\n" });
    end_head(out, to);
}

/// Ends the head of an answer with what says how the connection goes on.
pub fn end_head(out: &mut Vec<u8>, to: Recipient) {
    let connection = if to.keep_alive { Connection::Persistent } else { Connection::Close };
    write_connection(out, to.version, connection, None);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OPEN: Recipient = Recipient { version: Version::Http11, method: Method::Get, keep_alive: true };

    fn error(status: u16, to: Recipient) -> String {
        let mut out = Vec::new();
        write_error(&mut out, status, to);
        String::from_utf8(out).unwrap()
    }

    fn redirect(code: u16, to: Recipient) -> String {
        let mut out = Vec::new();
        write_redirect(&mut out, code, [b"http://new/", b"x"], to);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn announced_lengths_are_those_of_the_bodies() {
        for prepared in PREPARED {
            let expected = format!("content-length: {}\r\n", prepared.body.len());
            assert!(prepared.head.contains(&expected), "{}: {expected}", prepared.status);
        }
    }

    #[test]
    fn a_deny_is_haproxys() {
        let body = "<html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</body></html>\n";
        let head = "HTTP/1.1 403 Forbidden\r\ncontent-length: 93\r\ncache-control: no-cache\r\ncontent-type: text/html\r\n";
        assert_eq!(error(403, OPEN), format!("{head}\r\n{body}"));
        assert_eq!(error(403, Recipient::UNKNOWN), format!("{head}connection: close\r\n\r\n{body}"));
        assert_eq!(error(403, Recipient { method: Method::Head, ..OPEN }), format!("{head}\r\n"));
        assert_eq!(
            error(403, Recipient { version: Version::Http10, ..OPEN }),
            format!("{head}connection: keep-alive\r\n\r\n{body}")
        );
    }

    #[test]
    fn every_refusal_has_its_answer() {
        assert!(error(405, OPEN).contains("\r\nallow: GET, "));
        for status in [400, 403, 405, 408, 413, 414, 429, 431, 500, 501, 502, 503, 504, 505] {
            assert!(error(status, OPEN).starts_with(&format!("HTTP/1.1 {status} ")));
        }
        assert!(error(418, OPEN).starts_with("HTTP/1.1 500 "));
    }

    #[test]
    fn who_asks_too_much_is_told_when_to_come_again() {
        let mut out = Vec::new();
        write_too_many(&mut out, 17, OPEN);
        let expected = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 117\r\ncache-control: no-cache\r\n\
            content-type: text/html\r\nretry-after: 17\r\n\r\n<html><body><h1>429 Too Many Requests</h1>\n\
            You have sent too many requests in a given amount of time.\n</body></html>\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn redirects_are_haproxys() {
        let head = "content-length: 0\r\nlocation: http://new/x\r\n";
        assert_eq!(redirect(301, OPEN), format!("HTTP/1.1 301 Moved Permanently\r\n{head}\r\n"));
        assert_eq!(redirect(308, OPEN), format!("HTTP/1.1 308 Permanent Redirect\r\n{head}\r\n"));
        for (code, reason) in [(302, "Found"), (303, "See Other"), (307, "Temporary Redirect")] {
            let expected = format!("HTTP/1.1 {code} {reason}\r\n{head}cache-control: no-cache\r\n");
            assert_eq!(redirect(code, OPEN), format!("{expected}\r\n"));
            assert_eq!(redirect(code, Recipient::UNKNOWN), format!("{expected}connection: close\r\n\r\n"));
        }
    }
}
