//! Where a message ends and what becomes of its connection (RFC 9112 sections 6 and 9).
//!
//! Decided here and nowhere else. Requests that the RFC lets a server repair (both `Content-Length` and
//! `Transfer-Encoding`, repeated lengths) are refused instead: the repair is what the next hop may do otherwise.

use super::{
    fields::Fields,
    names::{Known, Method, Version},
    reject::{BadResponse, Reject},
    request::RequestView,
    response::ResponseView,
};

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// So many bytes, at least one.
    Length(u64),
    /// Chunks; see [`ChunkedDecoder`](super::ChunkedDecoder).
    Chunked,
    /// Until the member closes. Responses only.
    UntilClose,
}

/// What the head of a request says about the message and the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFraming {
    /// The body.
    pub body: Body,
    /// Whether the client may send another request on the connection.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// The client offers to switch protocols: `Connection: upgrade` and `Upgrade`, HTTP/1.1, no body. An offer of
    /// `h2c` is none: in a tunnel no policy would see its requests.
    pub upgrade: bool,
}

/// What the head of a response says about the message and the member's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseFraming {
    /// The body.
    pub body: Body,
    /// Whether the member's connection may carry another request afterwards.
    pub keep_alive: bool,
    /// A 1xx other than 101: another response to the same request follows.
    pub interim: bool,
    /// The connection is a tunnel from here on: 101 to an upgrade, 2xx to CONNECT.
    pub switching: bool,
}

/// Frames a request.
///
/// # Errors
/// 400 when the length of the body is in any doubt, 501 for transfer codings other than `chunked`.
pub fn request_framing(request: &RequestView<'_>) -> Result<RequestFraming, Reject> {
    let fields = &request.head.fields;
    let http11 = request.version() == Version::Http11;
    let body = match length(fields, request.buf, request.version())? {
        Some(Body::Length(0)) | None => Body::None,
        Some(body) => body,
    };
    let options = Options::of(fields, request.buf);
    let keep_alive = !options.close && (http11 || options.keep_alive);
    let expect_continue = http11
        && body != Body::None
        && fields.elements(request.buf, Known::Expect).any(|e| e.eq_ignore_ascii_case(b"100-continue"));
    let upgrade = http11 && options.upgrade && body == Body::None && upgradable(fields, request.buf);
    Ok(RequestFraming { body, keep_alive, expect_continue, upgrade })
}

/// Frames a response to a request of the given method. `upgrade` says whether the member was offered one.
///
/// # Errors
/// [`BadResponse`] when the length of the body is in any doubt, or on a switch of protocols that was not asked for.
pub fn response_framing(
    method: Method,
    upgrade: bool,
    response: &ResponseView<'_>,
) -> Result<ResponseFraming, BadResponse> {
    let fields = &response.head.fields;
    let status = response.status();
    let length = length(fields, response.buf, response.version())?;
    let options = Options::of(fields, response.buf);
    let keep_alive = !options.close && (response.version() == Version::Http11 || options.keep_alive);
    let framed = |body, keep_alive| ResponseFraming { body, keep_alive, interim: false, switching: false };
    match status {
        101 if !upgrade => Err(BadResponse("101 without an upgrade")),
        101 if !(options.upgrade && fields.present.contains(Known::Upgrade)) => {
            Err(BadResponse("101 without Connection: upgrade and Upgrade"))
        }
        101 => Ok(ResponseFraming { switching: true, ..framed(Body::None, false) }),
        100..=199 if response.version() == Version::Http10 => Err(BadResponse("1xx from HTTP/1.0")),
        100..=199 => Ok(ResponseFraming { interim: true, ..framed(Body::None, keep_alive) }),
        200..=299 if method == Method::Connect => {
            Ok(ResponseFraming { switching: true, ..framed(Body::None, false) })
        }
        // A member that announces a body here may send it all the same: its connection is not used again.
        204 => Ok(framed(Body::None, keep_alive && matches!(length, None | Some(Body::Length(0))))),
        304 => Ok(framed(Body::None, keep_alive)),
        _ if method == Method::Head => Ok(framed(Body::None, keep_alive)),
        _ => Ok(match length {
            None => framed(Body::UntilClose, false),
            Some(Body::Length(0)) => framed(Body::None, keep_alive),
            Some(body) => framed(body, keep_alive),
        }),
    }
}

/// The body that `Content-Length` or `Transfer-Encoding` announces; `None` without either.
fn length(fields: &Fields, buf: &[u8], version: Version) -> Result<Option<Body>, Reject> {
    let has_length = fields.present.contains(Known::ContentLength);
    if fields.present.contains(Known::TransferEncoding) {
        if has_length {
            return Err(Reject::BadRequest("both Content-Length and Transfer-Encoding"));
        }
        if version == Version::Http10 {
            return Err(Reject::BadRequest("Transfer-Encoding in HTTP/1.0"));
        }
        return transfer_coding(fields, buf).map(|()| Some(Body::Chunked));
    }
    if !has_length {
        return Ok(None);
    }
    if fields.repeated.contains(Known::ContentLength) {
        return Err(Reject::BadRequest("more than one Content-Length"));
    }
    let value = fields.first(buf, Known::ContentLength).unwrap_or_default();
    content_length(value).map(|n| Some(Body::Length(n)))
}

/// Accepts `chunked` alone, in any case, in one field.
fn transfer_coding(fields: &Fields, buf: &[u8]) -> Result<(), Reject> {
    if fields.repeated.contains(Known::TransferEncoding) {
        return Err(Reject::BadRequest("more than one Transfer-Encoding"));
    }
    let value = fields.first(buf, Known::TransferEncoding).unwrap_or_default();
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.rsplit(|&b| b == b',').map(super::scan::trim);
    let last = codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    let tokens = codings.all(|coding| {
        !coding.is_empty()
            && !coding.eq_ignore_ascii_case(b"chunked")
            && coding.iter().all(|&b| super::scan::is_token_byte(b))
    });
    if last && tokens {
        return Err(Reject::NotImplemented("transfer coding other than chunked"));
    }
    Err(Reject::BadRequest("Transfer-Encoding is not chunked"))
}

/// `1*DIGIT`, below 2^63 so that every peer's signed type holds it.
fn content_length(value: &[u8]) -> Result<u64, Reject> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Reject::BadRequest("Content-Length is not a number"));
    }
    let length = value.iter().fold(0u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    if length > i64::MAX as u64 {
        return Err(Reject::BadRequest("Content-Length is not a number"));
    }
    Ok(length)
}

/// Whether `Upgrade` offers something that may become a tunnel.
fn upgradable(fields: &Fields, buf: &[u8]) -> bool {
    let mut offers = fields.elements(buf, Known::Upgrade).peekable();
    offers.peek().is_some()
        && offers.all(|offer| !offer.eq_ignore_ascii_case(b"h2c") && !offer.eq_ignore_ascii_case(b"h2"))
}

/// The connection options (RFC 9110 section 7.6.1) that this hop acts on.
#[derive(Default)]
struct Options {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

impl Options {
    fn of(fields: &Fields, buf: &[u8]) -> Self {
        let mut options = Self::default();
        for option in fields.elements(buf, Known::Connection) {
            options.close |= option.eq_ignore_ascii_case(b"close");
            options.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            options.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
        options
    }
}
