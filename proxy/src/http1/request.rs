//! Request heads: the request line and the fields (RFC 9112 sections 2 to 5).

use super::{
    MAX_HEAD,
    cookies::cookies,
    fields::{Field, Fields, Span},
    names::{Known, Method, Version},
    reject::Reject,
    scan,
    target::Target,
};

/// The offset table of one request head. Reused from request to request, so that it allocates only while it grows.
#[derive(Clone, Debug)]
pub struct RequestHead {
    method: Method,
    method_span: Span,
    target: Target,
    version: Version,
    pub(super) fields: Fields,
    /// Behind the last complete line: where parsing goes on when more bytes come. 0 before the request line is complete.
    parsed: usize,
    complete: bool,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestHead {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            method: Method::Other,
            method_span: Span::default(),
            target: Target::default(),
            version: Version::Http11,
            fields: Fields::with_capacity(32),
            parsed: 0,
            complete: false,
        }
    }

    /// Forgets a head that was parsed in part. Needed only when the table goes to another connection before
    /// [`parse`](Self::parse) said `Some` or an error.
    pub fn reset(&mut self) {
        self.parsed = 0;
        self.complete = false;
        self.fields.clear();
    }

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
                let line = self.parsed == 0;
                self.reset();
                Err(match result {
                    Err(reject) => reject,
                    Ok(_) if line => Reject::UriTooLong,
                    Ok(_) => Reject::HeadTooLarge,
                })
            }
        }
    }

    /// The head in `buf`, which must hold the bytes that [`parse`](Self::parse) returned `Some` for.
    #[inline]
    pub fn view<'a>(&'a self, buf: &'a [u8]) -> RequestView<'a> {
        debug_assert!(self.complete, "no complete head was parsed");
        RequestView { head: self, buf: &buf[..self.parsed] }
    }

    fn parse_bounded(&mut self, bytes: &[u8]) -> Result<bool, Reject> {
        if self.parsed == 0 && !self.request_line(bytes)? {
            return Ok(false);
        }
        let mut at = self.parsed;
        let done = self.fields.parse(bytes, &mut at);
        self.parsed = at;
        if done? { self.check_host(bytes).map(|()| true) } else { Ok(false) }
    }

    fn request_line(&mut self, bytes: &[u8]) -> Result<bool, Reject> {
        self.fields.clear();
        let start = match bytes {
            [] | [b'\r'] => return Ok(false),
            [b'\r', b'\n', ..] => 2,
            [b'\r' | b'\n', ..] => return Err(Reject::BadRequest("bare CR or LF before the request line")),
            _ => 0,
        };
        let method_end = scan::token_end(bytes, start);
        match bytes.get(method_end) {
            None => return Ok(false),
            Some(b' ') if method_end > start => {}
            Some(b'\r' | b'\n') if start == 2 && method_end == start => {
                return Err(Reject::BadRequest("more than one empty line before the request line"));
            }
            Some(_) => return Err(Reject::BadRequest("method is not a token followed by one space")),
        }
        let target = method_end + 1;
        let target_end = scan::target_end(bytes, target);
        match bytes.get(target_end) {
            None => return Ok(false),
            Some(b' ') if target_end > target => {}
            Some(b' ') => return Err(Reject::BadRequest("more than one space before the target")),
            Some(b'\r' | b'\n') => return Err(Reject::BadRequest("request line without a version")),
            Some(_) => return Err(Reject::BadRequest("byte in the target that may not stand there")),
        }
        let version = target_end + 1;
        let version_end = scan::target_end(bytes, version);
        let end = match bytes[version_end..] {
            [] | [b'\r'] => return Ok(false),
            [b'\r', b'\n', ..] => version_end + 2,
            [b'\r', ..] => return Err(Reject::BadRequest("bare CR")),
            [b'\n', ..] => return Err(Reject::BadRequest("bare LF")),
            _ => return Err(Reject::BadRequest("request line has more than three parts")),
        };
        self.version = version_of(&bytes[version..version_end])?;
        self.method_span = Span::new(start, method_end);
        self.method = Method::of(&bytes[start..method_end]);
        self.target = Target::parse(self.method, bytes, Span::new(target, target_end))?;
        self.parsed = end;
        Ok(true)
    }

    fn check_host(&self, bytes: &[u8]) -> Result<(), Reject> {
        if self.fields.repeated.contains(Known::Host) {
            return Err(Reject::BadRequest("more than one Host"));
        }
        match self.fields.first(bytes, Known::Host) {
            Some(host) => self.target.check_host(self.method, bytes, host),
            None if self.version == Version::Http10 => Ok(()),
            None => Err(Reject::BadRequest("HTTP/1.1 without Host")),
        }
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

/// A request head together with its bytes.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) buf: &'a [u8],
}

impl<'a> RequestView<'a> {
    /// The length of the head in bytes, with the empty line at its end.
    pub fn head_len(&self) -> usize {
        self.buf.len()
    }

    /// Where the request line begins: behind an empty line that may precede it.
    pub(super) fn line_start(&self) -> usize {
        usize::from(self.head.method_span.start)
    }

    /// The method.
    #[inline]
    pub fn method(&self) -> Method {
        self.head.method
    }

    /// The method as it came.
    pub fn method_bytes(&self) -> &'a [u8] {
        self.head.method_span.of(self.buf)
    }

    /// The request target as it came.
    pub fn target(&self) -> &'a [u8] {
        self.head.target.span.of(self.buf)
    }

    /// The authority of a target in absolute or authority form.
    pub fn authority(&self) -> Option<&'a [u8]> {
        let authority = self.head.target.authority.of(self.buf);
        (!authority.is_empty()).then_some(authority)
    }

    /// The path without the query, as HAProxy's `path` has it: `None` for `*`, for CONNECT, and for an absolute form
    /// without a path, where no path rule matches.
    pub fn path(&self) -> Option<&'a [u8]> {
        let whole = self.path_and_query()?;
        Some(memchr::memchr(b'?', whole).map_or(whole, |mark| &whole[..mark]))
    }

    /// Path and query, HAProxy's `pathq`; `None` where [`path`](Self::path) is.
    pub fn path_and_query(&self) -> Option<&'a [u8]> {
        let whole = self.head.target.path_and_query.of(self.buf);
        (!whole.is_empty()).then_some(whole)
    }

    /// What follows the first `?` of the target; `None` without one.
    pub fn query(&self) -> Option<&'a [u8]> {
        let whole = self.path_and_query()?;
        memchr::memchr(b'?', whole).map(|mark| &whole[mark + 1..])
    }

    /// The value of `Host`, with its port if there is one.
    pub fn host(&self) -> Option<&'a [u8]> {
        self.value(Known::Host)
    }

    /// The version of the request line.
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

    /// The values of the cookies named `name` (case-sensitive), with HAProxy's `req.cook(name)` reading of `Cookie`.
    pub fn cookies<'n>(&self, name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let buf = self.buf;
        let list: &'a [Field] = if self.has(Known::Cookie) { &self.head.fields.list } else { &[] };
        list.iter()
            .filter(|field| field.known == Known::Cookie)
            .flat_map(move |field| cookies(field.value.of(buf), name))
    }
}
