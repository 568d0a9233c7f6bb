//! Heads from fields that come decoded, as HTTP/2 has them (RFC 9113 section 8).
//!
//! They are written into an arena as a head of HTTP/1.1, whose table is the head: what reads, edits and writes heads need not
//! know where they are from. What a message of HTTP/1.1 would be refused for is refused here, too.

use super::{
    BadResponse, MAX_FIELDS, MAX_HEAD, Reject,
    fields::{Fields, Span},
    head::{RequestHead, RequestLine, ResponseHead, StatusLine},
    method::{Method, Version},
    names::{self, Known, KnownSet},
    scan,
    target::{Named, Target, authority_port, default_port, is_scheme},
};

/// What stands in the pseudo-header fields of a request.
#[derive(Clone, Copy, Debug)]
pub struct Pseudo<'a> {
    /// `:method`.
    pub method: &'a [u8],
    /// `:scheme`; empty where there is none, which only CONNECT may have.
    pub scheme: &'a [u8],
    /// `:authority`.
    pub authority: Option<&'a [u8]>,
    /// `:path`; empty where there is none.
    pub path: &'a [u8],
    /// `:protocol` (RFC 8441), and the `Sec-WebSocket-Key` that a member of HTTP/1.1 is to be asked with.
    pub protocol: Option<(&'a [u8], &'a [u8; WEBSOCKET_KEY_LEN])>,
}

/// The length of a `Sec-WebSocket-Key`: 16 bytes in base64 (RFC 6455 section 4.1).
pub const WEBSOCKET_KEY_LEN: usize = 24;

/// Whether something comes behind a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The head ends the stream.
    Ended,
    /// Frames follow, perhaps without any data.
    Follows,
}

/// A field that comes decoded: name and value.
pub type Decoded<'f> = (&'f [u8], &'f [u8]);

impl RequestHead {
    /// Fills the table from a request of HTTP/2, whose head is written to `text`; says how long it is. What `text` held is
    /// gone.
    ///
    /// Cookies become one field (RFC 9113 section 8.2.3). `:authority` becomes `Host`, without the default port of the
    /// scheme, as HAProxy has it. An extended CONNECT becomes the request for an upgrade that it stands for.
    ///
    /// # Errors
    /// [`Reject`] for what is malformed or too large, however many fields cookies came in; 405 for CONNECT.
    pub fn fill<'f>(
        &mut self,
        text: &mut Vec<u8>,
        pseudo: &Pseudo<'_>,
        fields: impl Iterator<Item = Decoded<'f>> + Clone,
        content: Content,
    ) -> Result<usize, Reject> {
        self.reset();
        text.clear();
        self.line.fill(text, pseudo)?;
        let mut arena = Arena { text, fields: &mut self.fields, count: 0, bytes: 0 };
        let host = self.line.host(pseudo, fields.clone())?;
        arena.line(b"host", host, Known::Host)?;
        let mut has_cookies = false;
        for (name, value) in fields.clone() {
            let (known, value) = arena.admit(name, value)?;
            match known {
                Known::Host => continue,
                Known::Cookie => has_cookies = true,
                Known::Te if !value.eq_ignore_ascii_case(b"trailers") => {
                    return Err(Reject::BadRequest("te other than trailers"));
                }
                Known::Other if pseudo.protocol.is_some() && name == b"sec-websocket-key" => continue,
                _ => arena.line(name, value, known)?,
            }
        }
        if has_cookies {
            let crumbs = fields
                .filter(|(name, _)| names::is(name, b"cookie"))
                .map(|(_, value)| scan::trim(value))
                // Of one at the end white space would be left, which is no part of the value.
                .filter(|crumb| !crumb.is_empty());
            arena.joined(b"cookie", Known::Cookie, crumbs)?;
        }
        let length = arena.fields.first(arena.text, Known::ContentLength);
        if let Some((protocol, key)) = pseudo.protocol {
            if length.is_some() {
                return Err(Reject::BadRequest("content-length in CONNECT"));
            }
            arena.line(b"connection", b"upgrade", Known::Connection)?;
            arena.line(b"upgrade", protocol, Known::Upgrade)?;
            arena.line(b"sec-websocket-key", key, Known::Other)?;
        } else {
            match (length, content) {
                (None, Content::Follows) => {
                    arena.line(b"transfer-encoding", b"chunked", Known::TransferEncoding)?;
                }
                (Some(length), Content::Ended) if !is_zero(length) => {
                    return Err(Reject::BadRequest("content-length of what has ended"));
                }
                _ => {}
            }
        }
        self.parsed = end(text);
        self.complete = true;
        Ok(self.parsed)
    }
}

impl ResponseHead {
    /// Fills the table from a response of HTTP/2 to a request of this method, whose head is written to `text`; says how long
    /// it is. What `text` held is gone.
    ///
    /// # Errors
    /// [`BadResponse`] for what is malformed or too large.
    pub fn fill<'f>(
        &mut self,
        text: &mut Vec<u8>,
        status: u16,
        fields: impl Iterator<Item = Decoded<'f>>,
        method: Method,
        content: Content,
    ) -> Result<usize, BadResponse> {
        self.reset();
        text.clear();
        if !(100..=999).contains(&status) || status == 101 {
            return Err(BadResponse("status that HTTP/2 does not have"));
        }
        text.extend_from_slice(b"HTTP/1.1 ");
        text.extend([status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8));
        text.extend_from_slice(b" \r\n");
        let reason = Span::new(text.len() - 2, text.len() - 2);
        self.line = StatusLine { version: Version::Http2, status, reason };
        let mut arena = Arena { text, fields: &mut self.fields, count: 0, bytes: 0 };
        for (name, value) in fields {
            let (known, value) = arena.admit(name, value)?;
            arena.line(name, value, known)?;
        }
        let length = arena.fields.first(arena.text, Known::ContentLength);
        let empty = status < 200 || status == 204 || status == 304 || method == Method::Head;
        match (length, content) {
            (None, _) if empty => {}
            (None, _) => arena.line(b"transfer-encoding", b"chunked", Known::TransferEncoding)?,
            (Some(length), Content::Ended) if !empty && !is_zero(length) => {
                return Err(BadResponse("content-length of what has ended"));
            }
            _ => {}
        }
        self.parsed = end(text);
        self.complete = true;
        Ok(self.parsed)
    }
}

impl RequestLine {
    fn fill(&mut self, text: &mut Vec<u8>, pseudo: &Pseudo<'_>) -> Result<(), Reject> {
        let method = match pseudo.protocol {
            None if pseudo.method == b"CONNECT" => return Err(Reject::MethodNotAllowed),
            None if !scan::is_token(pseudo.method) => {
                return Err(Reject::BadRequest("method is not a token"));
            }
            None => pseudo.method,
            Some(_) if pseudo.method != b"CONNECT" => {
                return Err(Reject::BadRequest(":protocol without CONNECT"));
            }
            Some((b"websocket", _)) => b"GET",
            Some(_) => return Err(Reject::NotImplemented(":protocol other than websocket")),
        };
        if !is_scheme(pseudo.scheme) {
            return Err(Reject::BadRequest(":scheme is none"));
        }
        let path = pseudo.path;
        if scan::target_end(path, 0) < path.len() {
            return Err(Reject::BadRequest("byte in :path that may not stand there"));
        }
        if path.first() != Some(&b'/') && path != b"*" {
            return Err(Reject::BadRequest(":path is none"));
        }
        if method.len() + path.len() + b"  HTTP/1.1\r\n\r\n".len() > MAX_HEAD {
            return Err(Reject::UriTooLong);
        }
        text.extend_from_slice(method);
        text.push(b' ');
        let target = text.len();
        text.extend_from_slice(path);
        let target = Span::new(target, text.len());
        text.extend_from_slice(b" HTTP/1.1\r\n");
        self.method = Method::of(method);
        self.method_span = Span::new(0, method.len());
        self.target = Target::parse(self.method, text, target)?;
        self.version = Version::Http2;
        Ok(())
    }

    /// The value of `Host`, which is the authority where there is one: what else names a host must name the same.
    fn host<'p, 'f: 'p>(
        &self,
        pseudo: &Pseudo<'p>,
        fields: impl Iterator<Item = Decoded<'f>>,
    ) -> Result<&'p [u8], Reject> {
        let default_port = default_port(pseudo.scheme);
        let authority = pseudo.authority;
        if authority.is_some_and(|name| name.first() == Some(&b':') || authority_port(name).is_none()) {
            return Err(Reject::BadRequest(":authority is not host[:port]"));
        }
        let named = Named { authority: authority.unwrap_or_default(), default_port, either: false };
        let mut hosts = fields.filter(|(name, _)| names::is(name, b"host")).map(|(_, host)| scan::trim(host));
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(Reject::BadRequest("more than one Host"));
        }
        host.map_or(Ok(()), |host| named.check_host(host))?;
        let host: &[u8] = match authority.or(host) {
            Some(host) => host,
            None => return Err(Reject::BadRequest("neither :authority nor Host")),
        };
        let port: &[u8] = match default_port {
            80 => b":80",
            443 => b":443",
            _ => return Ok(host),
        };
        Ok(host.strip_suffix(port).or_else(|| host.strip_suffix(b":")).unwrap_or(host))
    }
}

/// What a connection of HTTP/1.1 has, and none of HTTP/2 (RFC 9113 section 8.2.2).
const OF_CONNECTION: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
]);

/// Checks a field of a head or of trailers that has come decoded, and is no pseudo-header field; says what its name is.
///
/// # Errors
/// When HTTP/2 does not have it, or HTTP/1.1.
pub(crate) fn check_field(name: &[u8], value: &[u8]) -> Result<Known, Reject> {
    let known = Known::of(name);
    if !scan::is_lower_token(name) {
        return Err(Reject::BadRequest("field name is not a token in lower case"));
    }
    if scan::value_end(value, 0) < value.len() {
        return Err(Reject::BadRequest("control byte in a field value"));
    }
    if OF_CONNECTION.contains(known) {
        return Err(Reject::BadRequest("field of a connection of HTTP/1.1"));
    }
    Ok(known)
}

/// A head that is being written.
struct Arena<'a> {
    text: &'a mut Vec<u8>,
    fields: &'a mut Fields,
    /// Fields that came.
    count: usize,
    /// What they would take as lines.
    bytes: usize,
}

impl Arena<'_> {
    /// Checks a field that came, and counts it. Says what its name is, and its value without white space around it.
    fn admit<'f>(&mut self, name: &[u8], value: &'f [u8]) -> Result<(Known, &'f [u8]), Reject> {
        self.count += 1;
        if self.count > MAX_FIELDS {
            return Err(Reject::TooManyFields);
        }
        self.bytes += name.len() + value.len() + b": \r\n".len();
        if self.bytes > MAX_HEAD {
            return Err(Reject::HeadTooLarge);
        }
        Ok((check_field(name, value)?, scan::trim(value)))
    }

    /// Writes a field.
    fn line(&mut self, name: &[u8], value: &[u8], known: Known) -> Result<(), Reject> {
        self.joined(name, known, std::iter::once(value))
    }

    /// Writes a field of values that are cookies, joined; nothing when there is none.
    fn joined<'f>(
        &mut self,
        name: &[u8],
        known: Known,
        values: impl Iterator<Item = &'f [u8]>,
    ) -> Result<(), Reject> {
        let start = self.text.len();
        let mut value_start = 0;
        for value in values {
            let before: &[u8] = if value_start == 0 { b": " } else { b"; " };
            // What ends the line, and the head, goes behind it.
            let more = if value_start == 0 { name.len() } else { 0 } + before.len() + value.len();
            if self.text.len() + more + b"\r\n\r\n".len() > MAX_HEAD {
                return Err(Reject::HeadTooLarge);
            }
            if value_start == 0 {
                self.text.extend_from_slice(name);
            }
            self.text.extend_from_slice(before);
            if value_start == 0 {
                value_start = self.text.len();
            }
            self.text.extend_from_slice(value);
        }
        if value_start == 0 {
            return Ok(());
        }
        let value_end = self.text.len();
        self.text.extend_from_slice(b"\r\n");
        self.fields.add(self.text, start..start + name.len(), value_start..value_end, known)
    }
}

/// Ends a head; says how long it is.
fn end(text: &mut Vec<u8>) -> usize {
    text.extend_from_slice(b"\r\n");
    text.len()
}

fn is_zero(length: &[u8]) -> bool {
    !length.is_empty() && length.iter().all(|&digit| digit == b'0')
}

#[cfg(test)]
mod tests;
