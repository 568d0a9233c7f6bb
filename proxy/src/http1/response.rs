//! Response heads: the status line and the fields (RFC 9112 sections 4 and 5).

use super::{
    head::{FirstLine, parse},
    request::version_of,
};
use crate::http::{BadResponse, Reject, ResponseHead, Span, StatusLine, scan};

impl ResponseHead {
    /// Parses the head at the start of `buf` and returns its length; `None` and repeated calls are as for
    /// [`RequestHead::parse`](crate::http::RequestHead::parse).
    ///
    /// # Errors
    /// [`BadResponse`] when the head breaks RFC 9112, is longer than [`MAX_HEAD`](crate::http::MAX_HEAD) or has too many
    /// fields.
    pub fn parse(&mut self, buf: &[u8]) -> Result<Option<usize>, BadResponse> {
        Ok(parse(self, buf)?)
    }
}

impl FirstLine for StatusLine {
    const TOO_LONG: Reject = Reject::HeadTooLarge;

    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, Reject> {
        let version_end = scan::target_end(bytes, 0);
        match bytes.get(version_end) {
            None if version_end <= 8 => return Ok(None),
            Some(b' ') if version_end == 8 => {}
            _ => return Err(Reject::BadRequest("malformed status line")),
        }
        self.version = version_of(&bytes[..version_end])?;
        let status = version_end + 1;
        let Some(&[a, b, c, after]) = bytes.get(status..).and_then(|rest| rest.first_chunk::<4>()) else {
            return Ok(None);
        };
        if !matches!(a, b'1'..=b'9') || !b.is_ascii_digit() || !c.is_ascii_digit() {
            return Err(Reject::BadRequest("status is not three digits"));
        }
        let reason = match after {
            b' ' => status + 4,
            // Many servers leave out the space before an empty reason.
            b'\r' => status + 3,
            _ => return Err(Reject::BadRequest("status is not three digits")),
        };
        let reason_end = scan::value_end(bytes, reason);
        match bytes[reason_end..] {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => {}
            [b'\r', ..] => return Err(Reject::BadRequest("bare CR")),
            [b'\n', ..] => return Err(Reject::BadRequest("bare LF")),
            _ => return Err(Reject::BadRequest("control byte in the reason")),
        }
        self.status = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
        self.reason = Span::new(reason, reason_end);
        Ok(Some(reason_end + 2))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::{Known, MAX_HEAD, Version};

    /// Parses in one call, and byte by byte, which must say the same.
    fn parse(text: &str) -> Result<Option<usize>, BadResponse> {
        let bytes = text.as_bytes();
        let whole = ResponseHead::new().parse(bytes);
        let mut head = ResponseHead::new();
        let stepped = (0..=bytes.len()).map(|end| head.parse(&bytes[..end])).find(|r| *r != Ok(None));
        assert_eq!(stepped.unwrap_or(Ok(None)), whole, "{text:?}");
        whole
    }

    #[test]
    fn a_head_is_taken_apart() {
        let text =
            b"HTTP/1.0 404 Not here\r\nServer: x\r\nSet-Cookie: a=b; path=/\r\nset-cookie: c=d\r\n\r\nbody";
        let mut head = ResponseHead::new();
        assert_eq!(head.parse(text), Ok(Some(text.len() - 4)));
        let view = head.view(text);
        assert_eq!((view.status(), view.version()), (404, Version::Http10));
        assert_eq!(view.reason(), b"Not here");
        assert_eq!(view.values(b"SET-COOKIE").count(), 2);
        assert_eq!(view.value(Known::Server), Some(b"x".as_slice()));
    }

    #[test]
    fn status_lines() {
        for (line, fine) in [
            ("HTTP/1.1 200 OK", true),
            ("HTTP/1.1 200 ", true),
            ("HTTP/1.1 200", true),
            ("HTTP/1.1 999 \u{e9}\t!", true),
            ("HTTP/1.1 099 OK", false),
            ("HTTP/1.1 20 OK", false),
            ("HTTP/1.1 2000 OK", false),
            ("HTTP/1.1  200 OK", false),
            ("HTTP/1.1 200\tOK", false),
            ("HTTP/1.1\t200 OK", false),
            ("HTTP/1.1 200 O\0K", false),
            ("HTTP/1.1 200 O\rK", false),
            ("HTTP/1.1 2x0 OK", false),
            ("HTTP/2.0 200 OK", false),
            ("ICY 200 OK", false),
            ("http/1.1 200 OK", false),
            (" HTTP/1.1 200 OK", false),
            ("\r\nHTTP/1.1 200 OK", false),
            ("HTTP/1.1", false),
            ("", false),
        ] {
            assert_eq!(parse(&format!("{line}\r\nA: b\r\n\r\n")).is_ok(), fine, "{line:?}");
        }
        for text in ["HTTP/1.1 200 OK\n\n", "HTTP/1.1 200\n\n", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn bounds() {
        let mut head = ResponseHead::new();
        let text = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(MAX_HEAD));
        assert!(head.parse(text.as_bytes()).is_err());
        let text = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(101));
        assert!(head.parse(text.as_bytes()).is_err());
        assert!(head.parse(&vec![b'A'; MAX_HEAD]).is_err());
    }
}
