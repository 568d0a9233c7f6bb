//! Where a message ends and what becomes of its connection (RFC 9112 sections 6 and 9).
//!
//! Decided here and nowhere else. Requests that the RFC lets a server repair (both `Content-Length` and
//! `Transfer-Encoding`, repeated lengths) are refused instead: the repair is what the next hop may do otherwise.

use crate::http::{BadResponse, Fields, Known, Method, Reject, RequestView, ResponseView, Version, scan};

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
    /// `h2c` and the like is none: in a tunnel no policy would see its requests. Nor is one of WebSocket whose own fields
    /// `Connection` names.
    pub upgrade: bool,
}

/// What the head of a response says about the message and the member's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseFraming {
    /// The body.
    pub body: Body,
    /// Whether the member's connection may carry another request afterwards.
    pub keep_alive: bool,
    /// There is no body, but a member that has misunderstood may send one all the same: the response to HEAD, or 304 with
    /// a length.
    pub body_in_doubt: bool,
    /// A 1xx other than 101: another response to the same request follows. A client of HTTP/1.0 must not see it.
    pub interim: bool,
    /// The connection is a tunnel from here on: 101 to an upgrade.
    pub switching: bool,
}

/// The length of a `Sec-WebSocket-Key`: 16 bytes in base64 (RFC 6455 section 4.1).
const WEBSOCKET_KEY_LEN: usize = 24;

/// How the names of the fields of WebSocket begin.
const WEBSOCKET: &[u8] = b"sec-websocket-";

/// Frames a request.
///
/// # Errors
/// 405 for CONNECT, 400 when the length of the body is in any doubt, 501 for transfer codings other than `chunked`.
pub fn request_framing(request: &RequestView<'_>) -> Result<RequestFraming, Reject> {
    if request.method() == Method::Connect {
        return Err(Reject::MethodNotAllowed);
    }
    let fields = &request.head.fields;
    let http11 = request.version() >= Version::Http11;
    let body = match length(fields, request.buf, request.version())? {
        Some(Body::Length(0)) | None => Body::None,
        Some(body) => body,
    };
    if !http11
        && body != Body::None
        && matches!(request.method(), Method::Get | Method::Head | Method::Delete)
    {
        // Peers of that age take the body for the next request; HAProxy refuses it too.
        return Err(Reject::BadRequest("body that HTTP/1.0 does not know for this method"));
    }
    let options = fields.options;
    let keep_alive = !options.close && (http11 || options.keep_alive);
    let expect_continue = http11
        && body != Body::None
        && fields.elements(request.buf, Known::Expect).any(|e| e.eq_ignore_ascii_case(b"100-continue"));
    let upgrade = http11 && options.upgrade && body == Body::None && upgradable(fields, request.buf);
    if options.upgrade
        && body == Body::None
        && offers_websocket(fields, request.buf)
        && !request.values(b"sec-websocket-key").any(|key| key.len() == WEBSOCKET_KEY_LEN)
    {
        // A member that ignores the fault and switches all the same would leave the two in different protocols.
        return Err(Reject::BadRequest("websocket without Sec-WebSocket-Key"));
    }
    Ok(RequestFraming { body, keep_alive, expect_continue, upgrade })
}

/// Frames a response to a request of the given method. `upgrade` says whether the member was offered one.
///
/// # Errors
/// [`BadResponse`] when the length of the body is in any doubt, on a switch of protocols that was not asked for, or on one to
/// WebSocket without its `Sec-WebSocket-Accept`, which no client may take (RFC 6455 section 4.1).
pub fn response_framing(
    method: Method,
    upgrade: bool,
    response: &ResponseView<'_>,
) -> Result<ResponseFraming, BadResponse> {
    let fields = &response.head.fields;
    let status = response.status();
    let length = length(fields, response.buf, response.version())?;
    let options = fields.options;
    let keep_alive = !options.close && (response.version() >= Version::Http11 || options.keep_alive);
    let announced = !matches!(length, None | Some(Body::Length(0)));
    // A 304 may well announce one, but most members do not.
    let body_in_doubt = method == Method::Head || (status == 304 && announced);
    let framed = |body, keep_alive| ResponseFraming {
        body,
        keep_alive,
        body_in_doubt,
        interim: false,
        switching: false,
    };
    match status {
        101 if !upgrade => Err(BadResponse("101 without an upgrade")),
        101 if !(options.upgrade && fields.present.contains(Known::Upgrade)) => {
            Err(BadResponse("101 without Connection: upgrade and Upgrade"))
        }
        // What it says is for the client to judge, which knows its key.
        101 if offers_websocket(fields, response.buf)
            && response.values(b"sec-websocket-accept").next().is_none() =>
        {
            Err(BadResponse("101 to websocket without Sec-WebSocket-Accept"))
        }
        101 => Ok(ResponseFraming { switching: true, ..framed(Body::None, false) }),
        100..=199 if response.version() == Version::Http10 => Err(BadResponse("1xx from HTTP/1.0")),
        100..=199 => Ok(ResponseFraming { interim: true, ..framed(Body::None, keep_alive) }),
        // A member that announces a body here may send it all the same: its connection is not used again.
        204 => Ok(framed(Body::None, keep_alive && !announced)),
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
    let mut codings = value.rsplit(|&b| b == b',').map(scan::trim);
    let last = codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    let tokens = codings.all(|coding| {
        !coding.is_empty()
            && !coding.eq_ignore_ascii_case(b"chunked")
            && coding.iter().all(|&b| scan::is_token_byte(b))
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

/// Whether `Upgrade` has WebSocket in it.
fn offers_websocket(fields: &Fields, buf: &[u8]) -> bool {
    fields.elements(buf, Known::Upgrade).any(|offer| offer.eq_ignore_ascii_case(b"websocket"))
}

/// Whether `Upgrade` offers something that may become a tunnel.
fn upgradable(fields: &Fields, buf: &[u8]) -> bool {
    let mut offers = fields.elements(buf, Known::Upgrade).peekable();
    offers.peek().is_some() && offers.all(|offer| !carries_requests(offer)) && !ends_here(fields, buf)
}

/// Whether an offer is of a protocol that carries requests, in any spelling: `h2c`, `"h2c"`, `h2c-14`, `HTTP/2.0`, or
/// `TLS/1.2` (RFC 2817), behind which HTTP goes on; also as one word among others, for members that look for it in the
/// field as a whole (`websocket;h2c`).
fn carries_requests(offer: &[u8]) -> bool {
    let apart = |byte: &u8| !byte.is_ascii_alphanumeric();
    is_of_requests(offer) || offer.split(apart).any(is_of_requests)
}

/// The same of one word, whatever else than letters and digits is in it.
fn is_of_requests(word: &[u8]) -> bool {
    let mut name = [0; 4];
    let letters = word.iter().filter(|byte| byte.is_ascii_alphanumeric());
    name.iter_mut().zip(letters).for_each(|(place, byte)| *place = byte.to_ascii_lowercase());
    matches!(name, [b'h', b'2' | b'3', ..] | [b't', b'l', b's', _] | [b'h', b't', b't', b'p'])
}

/// Whether `Connection` names fields of WebSocket: then what they agree on ends here, and so does the offer.
fn ends_here(fields: &Fields, buf: &[u8]) -> bool {
    let own =
        |name: &&[u8]| name.get(..WEBSOCKET.len()).is_some_and(|start| start.eq_ignore_ascii_case(WEBSOCKET));
    let named =
        |name: &[u8]| fields.elements(buf, Known::Connection).any(|option| option.eq_ignore_ascii_case(name));
    fields.list.iter().map(|field| field.name.of(buf)).filter(own).any(named)
}

#[cfg(test)]
mod tests;
