//! Message heads: a table of offsets over bytes, the same for requests and responses of every version.

use super::{
    fields::{Fields, Span},
    method::{Method, Version},
    names::Known,
    reject::Reject,
    target::Target,
};

/// The offset table of one head, `L` being what stands in front of its fields. Reused from message to message, so that it
/// allocates only while it grows.
///
/// HTTP/1.1 parses into it; fields that come decoded are [filled in](super::fill). Either way the bytes that it is a table
/// of are a head of HTTP/1.1.
#[derive(Clone, Debug)]
pub struct Head<L> {
    pub(crate) line: L,
    pub(crate) fields: Fields,
    /// Behind the last complete line: where parsing goes on when more bytes come. 0 before the first line is complete.
    pub(crate) parsed: usize,
    pub(crate) complete: bool,
}

/// The head of a request.
pub type RequestHead = Head<RequestLine>;

/// The head of a response.
pub type ResponseHead = Head<StatusLine>;

/// What stands in front of a request's fields.
#[derive(Clone, Debug, Default)]
pub struct RequestLine {
    pub(crate) method: Method,
    pub(crate) method_span: Span,
    pub(crate) target: Target,
    pub(crate) version: Version,
}

/// What stands in front of a response's fields.
#[derive(Clone, Debug, Default)]
pub struct StatusLine {
    pub(crate) version: Version,
    pub(crate) status: u16,
    pub(crate) reason: Span,
}

impl RequestLine {
    /// Whether there is one `Host`, and it names what the target names (RFC 9112 section 3.2).
    pub(crate) fn check_host(&self, fields: &Fields, bytes: &[u8]) -> Result<(), Reject> {
        if fields.repeated.contains(Known::Host) {
            return Err(Reject::BadRequest("more than one Host"));
        }
        match fields.first(bytes, Known::Host) {
            Some(host) => self.target.check_host(self.method, bytes, host),
            None if self.version == Version::Http10 => Ok(()),
            None => Err(Reject::BadRequest("HTTP/1.1 without Host")),
        }
    }
}

impl<L: Default> Default for Head<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: Default> Head<L> {
    /// An empty table.
    pub fn new() -> Self {
        Self { line: L::default(), fields: Fields::with_capacity(32), parsed: 0, complete: false }
    }
}

impl<L> Head<L> {
    /// Forgets a head that was read in part. Needed only when the table goes to another connection before `parse` said
    /// `Some` or an error.
    pub fn reset(&mut self) {
        self.parsed = 0;
        self.complete = false;
        self.fields.clear();
    }
}

impl RequestHead {
    /// The head in `buf`, which must hold the bytes that it was read from.
    #[inline]
    pub fn view<'a>(&'a self, buf: &'a [u8]) -> RequestView<'a> {
        debug_assert!(self.complete, "no complete head was read");
        RequestView { head: self, buf: &buf[..self.parsed] }
    }
}

impl ResponseHead {
    /// The head in `buf`, which must hold the bytes that it was read from.
    #[inline]
    pub fn view<'a>(&'a self, buf: &'a [u8]) -> ResponseView<'a> {
        debug_assert!(self.complete, "no complete head was read");
        ResponseView { head: self, buf: &buf[..self.parsed] }
    }
}

/// A request head together with its bytes.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    pub(crate) head: &'a RequestHead,
    pub(crate) buf: &'a [u8],
}

impl<'a> RequestView<'a> {
    /// Where the request line begins: behind an empty line that may precede it.
    pub(crate) fn line_start(&self) -> usize {
        usize::from(self.head.line.method_span.start)
    }

    /// The method.
    #[inline]
    pub fn method(&self) -> Method {
        self.head.line.method
    }

    /// The method as it came.
    pub fn method_bytes(&self) -> &'a [u8] {
        self.head.line.method_span.of(self.buf)
    }

    /// The request target as it came.
    pub fn target(&self) -> &'a [u8] {
        self.head.line.target.span.of(self.buf)
    }

    /// The path without the query, as HAProxy's `path` has it: `None` for `*`, for CONNECT, and for an absolute form
    /// without a path, where no path rule matches.
    pub fn path(&self) -> Option<&'a [u8]> {
        let whole = self.path_and_query()?;
        Some(memchr::memchr(b'?', whole).map_or(whole, |mark| &whole[..mark]))
    }

    /// Path and query, HAProxy's `pathq`; `None` where [`path`](Self::path) is.
    pub fn path_and_query(&self) -> Option<&'a [u8]> {
        let whole = self.head.line.target.path_and_query.of(self.buf);
        (!whole.is_empty()).then_some(whole)
    }

    /// The version that the client speaks.
    pub fn version(&self) -> Version {
        self.head.line.version
    }

    /// The fields in order: name as it came, trimmed value, and what the name is.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8], Known)> + use<'a> {
        let buf = self.buf;
        self.head.fields.list.iter().map(move |field| (field.name.of(buf), field.value.of(buf), field.known))
    }

    /// How many fields there are.
    #[inline]
    pub fn field_count(&self) -> usize {
        self.head.fields.list.len()
    }

    /// Name and trimmed value of a field, for `index` below [`field_count`](Self::field_count).
    #[inline]
    pub fn field(&self, index: usize) -> (&'a [u8], &'a [u8]) {
        let field = &self.head.fields.list[index];
        (field.name.of(self.buf), field.value.of(self.buf))
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

/// A response head together with its bytes.
#[derive(Clone, Copy, Debug)]
pub struct ResponseView<'a> {
    pub(crate) head: &'a ResponseHead,
    pub(crate) buf: &'a [u8],
}

impl<'a> ResponseView<'a> {
    /// The status, 100 to 999.
    #[inline]
    pub fn status(&self) -> u16 {
        self.head.line.status
    }

    /// The reason, perhaps empty.
    pub fn reason(&self) -> &'a [u8] {
        self.head.line.reason.of(self.buf)
    }

    /// The version that the member speaks.
    pub fn version(&self) -> Version {
        self.head.line.version
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
