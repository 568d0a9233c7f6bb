//! Response heads: the status line and the fields (RFC 9112 sections 4 and 5).

use super::{
    MAX_HEAD,
    fields::{Fields, Span},
    names::{Known, Version},
    reject::{BadResponse, Reject},
    request::version_of,
    scan,
};

/// The offset table of one response head. Reused from response to response.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    version: Version,
    status: u16,
    reason: Span,
    pub(super) fields: Fields,
    /// As in `RequestHead`.
    parsed: usize,
    complete: bool,
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self::new()
    }
}

impl ResponseHead {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            version: Version::Http11,
            status: 0,
            reason: Span::default(),
            fields: Fields::with_capacity(32),
            parsed: 0,
            complete: false,
        }
    }

    /// Forgets a head that was parsed in part, as [`RequestHead::reset`](super::RequestHead::reset) does.
    pub fn reset(&mut self) {
        self.parsed = 0;
        self.complete = false;
        self.fields.clear();
    }

    /// Parses the head at the start of `buf` and returns its length; `None` and repeated calls are as for
    /// [`RequestHead::parse`](super::RequestHead::parse).
    ///
    /// # Errors
    /// [`BadResponse`] when the head breaks RFC 9112, is longer than [`MAX_HEAD`] or has too many fields.
    pub fn parse(&mut self, buf: &[u8]) -> Result<Option<usize>, BadResponse> {
        if self.complete || self.parsed > buf.len() {
            self.reset();
        }
        let bytes = &buf[..buf.len().min(MAX_HEAD)];
        match self.parse_bounded(bytes) {
            Ok(true) => {
                self.complete = true;
                Ok(Some(self.parsed))
            }
            Ok(false) if bytes.len() < MAX_HEAD => Ok(None),
            result => {
                self.reset();
                Err(result.err().unwrap_or(Reject::HeadTooLarge).into())
            }
        }
    }

    /// The head in `buf`, which must hold the bytes that [`parse`](Self::parse) returned `Some` for.
    #[inline]
    pub fn view<'a>(&'a self, buf: &'a [u8]) -> ResponseView<'a> {
        debug_assert!(self.complete, "no complete head was parsed");
        ResponseView { head: self, buf: &buf[..self.parsed] }
    }

    fn parse_bounded(&mut self, bytes: &[u8]) -> Result<bool, Reject> {
        if self.parsed == 0 && !self.status_line(bytes)? {
            return Ok(false);
        }
        let mut at = self.parsed;
        let done = self.fields.parse(bytes, &mut at);
        self.parsed = at;
        done
    }

    fn status_line(&mut self, bytes: &[u8]) -> Result<bool, Reject> {
        self.fields.clear();
        let version_end = scan::target_end(bytes, 0);
        match bytes.get(version_end) {
            None if version_end <= 8 => return Ok(false),
            Some(b' ') if version_end == 8 => {}
            _ => return Err(Reject::BadRequest("malformed status line")),
        }
        self.version = version_of(&bytes[..version_end])?;
        let status = version_end + 1;
        let Some(&[a, b, c, after]) = bytes.get(status..).and_then(|rest| rest.first_chunk::<4>()) else {
            return Ok(false);
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
            [] | [b'\r'] => return Ok(false),
            [b'\r', b'\n', ..] => {}
            [b'\r', ..] => return Err(Reject::BadRequest("bare CR")),
            [b'\n', ..] => return Err(Reject::BadRequest("bare LF")),
            _ => return Err(Reject::BadRequest("control byte in the reason")),
        }
        self.status = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
        self.reason = Span::new(reason, reason_end);
        self.parsed = reason_end + 2;
        Ok(true)
    }
}

/// A response head together with its bytes.
#[derive(Clone, Copy, Debug)]
pub struct ResponseView<'a> {
    pub(super) head: &'a ResponseHead,
    pub(super) buf: &'a [u8],
}

impl<'a> ResponseView<'a> {
    /// The status, 100 to 999.
    #[inline]
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The reason, perhaps empty.
    pub fn reason(&self) -> &'a [u8] {
        self.head.reason.of(self.buf)
    }

    /// The version of the status line.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// The fields in order: name as it came, trimmed value, and what the name is.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8], Known)> + use<'a> {
        let buf = self.buf;
        self.head.fields.list.iter().map(move |field| (field.name.of(buf), field.value.of(buf), field.known))
    }

    /// The values of the fields named `name` in any case.
    pub fn values<'n>(&self, name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.head.fields.named(self.buf, name)
    }

    /// The value of the first field that is `known`.
    pub fn value(&self, known: Known) -> Option<&'a [u8]> {
        self.head.fields.first(self.buf, known)
    }

    /// Whether there is a field that is `known`.
    #[inline]
    pub fn has(&self, known: Known) -> bool {
        self.head.fields.present.contains(known)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
