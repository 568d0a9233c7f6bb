//! Request heads: the request line and the fields (RFC 9112 sections 2 to 5).

use super::head::{FirstLine, parse};
use crate::http::{Fields, Method, Reject, RequestHead, RequestLine, Span, Target, Version, scan};

impl RequestHead {
    /// Parses the head at the start of `buf` and returns its length, with the empty line that ends it.
    ///
    /// `None`: the head is not complete. Call again with the same bytes and more behind them; complete lines are not
    /// looked at again. After `Some` or an error the next call begins a new head. One empty line before the request line
    /// is accepted, as RFC 9112 section 2.2 asks, and counted in the length.
    ///
    /// # Errors
    /// [`Reject`] for what must be answered with an error and a closed connection. The same bytes give the same error
    /// however they are cut into calls.
    pub fn parse(&mut self, buf: &[u8]) -> Result<Option<usize>, Reject> {
        parse(self, buf)
    }
}

impl FirstLine for RequestLine {
    const TOO_LONG: Reject = Reject::UriTooLong;

    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, Reject> {
        let start = match bytes {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => 2,
            [b'\r' | b'\n', ..] => return Err(Reject::BadRequest("bare CR or LF before the request line")),
            _ => 0,
        };
        let method_end = scan::token_end(bytes, start);
        match bytes.get(method_end) {
            None => return Ok(None),
            Some(b' ') if method_end > start => {}
            Some(b'\r' | b'\n') if start == 2 && method_end == start => {
                return Err(Reject::BadRequest("more than one empty line before the request line"));
            }
            Some(_) => return Err(Reject::BadRequest("method is not a token followed by one space")),
        }
        let target = method_end + 1;
        let target_end = scan::target_end(bytes, target);
        match bytes.get(target_end) {
            None => return Ok(None),
            Some(b' ') if target_end > target => {}
            Some(b' ') => return Err(Reject::BadRequest("more than one space before the target")),
            Some(b'\r' | b'\n') => return Err(Reject::BadRequest("request line without a version")),
            Some(_) => return Err(Reject::BadRequest("byte in the target that may not stand there")),
        }
        let version = target_end + 1;
        let version_end = scan::target_end(bytes, version);
        let end = match bytes[version_end..] {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => version_end + 2,
            [b'\r', ..] => return Err(Reject::BadRequest("bare CR")),
            [b'\n', ..] => return Err(Reject::BadRequest("bare LF")),
            _ => return Err(Reject::BadRequest("request line has more than three parts")),
        };
        self.version = version_of(&bytes[version..version_end])?;
        self.method_span = Span::new(start, method_end);
        self.method = Method::of(&bytes[start..method_end]);
        self.target = Target::parse(self.method, bytes, Span::new(target, target_end))?;
        Ok(Some(end))
    }

    fn check(&self, fields: &Fields, bytes: &[u8]) -> Result<(), Reject> {
        self.check_host(fields, bytes)
    }
}

/// The version that `text` spells (RFC 9112 section 2.3).
pub(super) fn version_of(text: &[u8]) -> Result<Version, Reject> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Reject::VersionNotSupported)
        }
        _ => Err(Reject::BadRequest("malformed version")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::{Known, MAX_HEAD};

    const FIELDS: &str = "Host: a\r\n\r\n";

    fn parse(text: &str) -> Result<Option<usize>, Reject> {
        parse_bytes(text.as_bytes())
    }

    /// Parses in one call, and byte by byte, which must say the same.
    fn parse_bytes(bytes: &[u8]) -> Result<Option<usize>, Reject> {
        let whole = RequestHead::new().parse(bytes);
        let mut head = RequestHead::new();
        let stepped = (0..=bytes.len()).map(|end| head.parse(&bytes[..end])).find(|r| *r != Ok(None));
        assert_eq!(stepped.unwrap_or(Ok(None)), whole, "{bytes:?}");
        whole
    }

    #[test]
    fn a_head_is_taken_apart() {
        let text =
            b"POST /a/b?c=d?e HTTP/1.1\r\nHost: Example:80\r\nX-One:\t1 \r\nx-one:2\r\nEmpty:\r\n\r\nbody";
        let mut head = RequestHead::new();
        assert_eq!(head.parse(text), Ok(Some(text.len() - 4)));
        let view = head.view(text);
        assert_eq!(view.method(), Method::Post);
        assert_eq!(view.target(), b"/a/b?c=d?e");
        assert_eq!(view.path(), Some(b"/a/b".as_slice()));
        assert_eq!(view.path_and_query(), Some(b"/a/b?c=d?e".as_slice()));
        assert_eq!(view.value(Known::Host), Some(b"Example:80".as_slice()));
        assert_eq!(view.values(b"X-ONE").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(view.values(b"empty").collect::<Vec<_>>(), [b""]);
        assert_eq!(view.values(b"HOST").count(), 1);
        assert_eq!(view.values(b"cookie").count(), 0);
        assert_eq!(view.fields().count(), 4);
        assert!(view.has(Known::Host) && !view.has(Known::Cookie));
    }

    #[test]
    fn the_table_is_reused() {
        let mut head = RequestHead::new();
        for text in ["GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n", "BREW /x HTTP/1.0\r\n\r\n"] {
            assert_eq!(head.parse(text.as_bytes()), Ok(Some(text.len())));
        }
        let view = head.view(b"BREW /x HTTP/1.0\r\n\r\n");
        assert_eq!((view.method(), view.method_bytes()), (Method::Other, b"BREW".as_slice()));
        assert_eq!(view.fields().count(), 0);
        assert!(head.parse(b"GET / HTTP/9.9\r\n").is_err());
        assert_eq!(head.parse(b"GET / HTTP/1.0\r\n\r\n"), Ok(Some(18)));
        assert_eq!(head.parse(b"GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None));
        head.reset();
        assert_eq!(head.parse(b"GET / HTTP/1.0\r\n\r\n"), Ok(Some(18)));
    }

    #[test]
    fn request_lines() {
        for (line, status) in [
            ("GET / HTTP/1.1", 200),
            ("get / HTTP/1.1", 200),
            ("M-SEARCH /a;b=c/%20?{}|<>\"^`\\ HTTP/1.1", 200),
            ("GET / HTTP/1.0", 200),
            ("\r\nGET / HTTP/1.1", 200),
            ("\r\n\r\nGET / HTTP/1.1", 400),
            ("\nGET / HTTP/1.1", 400),
            ("\rGET / HTTP/1.1", 400),
            (" GET / HTTP/1.1", 400),
            ("GET  / HTTP/1.1", 400),
            ("GET /  HTTP/1.1", 400),
            ("GET / HTTP/1.1 ", 400),
            ("GET /a b HTTP/1.1", 400),
            ("GET\t/ HTTP/1.1", 400),
            ("GET /\tHTTP/1.1", 400),
            ("GET /#a HTTP/1.1", 400),
            ("GET /\u{e9} HTTP/1.1", 400),
            ("GET /\0 HTTP/1.1", 400),
            ("GET /\u{7f} HTTP/1.1", 400),
            ("G(T / HTTP/1.1", 400),
            ("G\rT / HTTP/1.1", 400),
            ("GET /\rHTTP/1.1", 400),
            ("GET / HTTP/1.1\rX", 400),
            ("GET /", 400),
            ("GET", 400),
            ("GET / http/1.1", 400),
            ("GET / HTTP/1.", 400),
            ("GET / HTTP/1.10", 400),
            ("GET / HTTP/01.1", 400),
            ("GET / FOO/1.1", 400),
            ("GET / HTTP/1.2", 505),
            ("GET / HTTP/0.9", 505),
            ("PRI * HTTP/2.0", 505),
            ("GET / HTTP/2.0", 505),
        ] {
            let result = parse(&format!("{line}\r\n{FIELDS}"));
            let expected = if status == 200 { Ok(()) } else { Err(status) };
            assert_eq!(result.map(drop).map_err(Reject::status), expected, "{line:?}");
        }
        assert_eq!(parse("GET / HTTP/1.1\nHost: a\n\n").map_err(Reject::status), Err(400));
    }

    #[test]
    fn fields() {
        for (field, fine) in [
            ("A: b", true),
            ("A:b", true),
            ("A:", true),
            ("A: \t ", true),
            ("A: b\tc", true),
            ("!#$%&'*+-.^_`|~09azAZ: b", true),
            ("A : b", false),
            ("A\t: b", false),
            (" A: b", false),
            ("A: b\r\n c", false),
            ("A: b\r\n\tc", false),
            ("A b", false),
            ("A", false),
            (": b", false),
            ("A(: b", false),
            ("\u{e9}: b", false),
            ("A: b\rc", false),
            ("A: b\nC: d", false),
            ("A\r: b", false),
            ("A\nB: c", false),
            ("A: \0", false),
            ("A: \u{b}", false),
            ("A: \u{7f}", false),
            ("A: \u{e9}", true),
        ] {
            let result = parse(&format!("GET / HTTP/1.1\r\n{field}\r\n{FIELDS}"));
            let expected = if fine { Ok(()) } else { Err(400) };
            assert_eq!(result.map(drop).map_err(Reject::status), expected, "{field:?}");
        }
        assert!(parse_bytes(b"GET / HTTP/1.1\r\nHost: a\r\nA: \xff\r\n\r\n").is_ok());
        assert!(parse_bytes(b"GET / HTTP/1.1\r\nHost: a\r\nA\xff: b\r\n\r\n").is_err());
    }

    #[test]
    fn bounds() {
        let fields = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(n));
        assert!(matches!(parse(&fields(99)), Ok(Some(_))));
        assert_eq!(parse(&fields(100)), Err(Reject::TooManyFields));

        let long = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "b".repeat(n));
        let room = MAX_HEAD - long(0).len();
        let mut head = RequestHead::new();
        assert_eq!(head.parse(long(room).as_bytes()), Ok(Some(MAX_HEAD)));
        assert_eq!(head.parse(long(room + 1).as_bytes()), Err(Reject::HeadTooLarge));
        assert_eq!(head.parse(&long(room + 1).as_bytes()[..MAX_HEAD]), Err(Reject::HeadTooLarge));
        let target = format!("GET /{} HTTP/1.1\r\n", "b".repeat(MAX_HEAD));
        assert_eq!(head.parse(target.as_bytes()), Err(Reject::UriTooLong));
        assert_eq!(head.parse(&vec![b'A'; MAX_HEAD]), Err(Reject::UriTooLong));
        assert_eq!(head.parse(&vec![b'A'; MAX_HEAD - 1]), Ok(None));
    }
}
