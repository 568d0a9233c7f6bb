//! Heads between HTTP/2 and what everything else decides by (RFC 9113 section 8).
//!
//! Requests of clients and responses of members are [filled](crate::http::fill) into an arena, which checks them as those of
//! HTTP/1.1 are. What goes out is made of views, or of the text that a member of HTTP/1.1 would be sent.

mod read;

use std::net::SocketAddr;

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method as Verb, Request, Response, StatusCode, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use bytes::Bytes;
use h2::ext::Protocol;

pub use self::read::{
    RequestContext, is_extended_connect, read_agreement, read_request, read_response, refusal,
};
use super::hpack::{Bounds, FieldList};
use crate::http::{
    BadResponse, Head, Known, KnownSet, RequestView, ResponseEdits, ResponseView, is_forbidden_trailer, scan,
};

/// What does not go beyond a connection of HTTP/1.1, and may not stand in HTTP/2 (RFC 9113 section 8.2.2).
const OF_CONNECTION: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::Http2Settings,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
]);

/// RepeatedValues that responses have again and again, as they were made last: those of these fields, when they are short.
#[derive(Debug, Default)]
pub struct RepeatedValues {
    content_type: Option<HeaderValue>,
    date: Option<HeaderValue>,
    server: Option<HeaderValue>,
}

/// The longest that is kept.
const LONGEST_VALUE: usize = 64;

impl RepeatedValues {
    fn of(&mut self, known: Known, value: &[u8]) -> Option<HeaderValue> {
        let kept = match known {
            Known::ContentType => &mut self.content_type,
            Known::Date => &mut self.date,
            Known::Server => &mut self.server,
            _ => return HeaderValue::from_bytes(value).ok(),
        };
        match kept {
            Some(kept) if kept.as_bytes() == value => Some(kept.clone()),
            _ => {
                let made = HeaderValue::from_bytes(value).ok()?;
                *kept = (value.len() <= LONGEST_VALUE).then(|| made.clone());
                Some(made)
            }
        }
    }
}

/// The name of a field, without looking it up where it is known.
fn name_of(known: Known, name: &[u8]) -> Option<HeaderName> {
    Some(match known {
        Known::CacheControl => header::CACHE_CONTROL,
        Known::ContentLength => header::CONTENT_LENGTH,
        Known::ContentType => header::CONTENT_TYPE,
        Known::Date => header::DATE,
        Known::Location => header::LOCATION,
        Known::Server => header::SERVER,
        Known::SetCookie => header::SET_COOKIE,
        Known::StrictTransportSecurity => header::STRICT_TRANSPORT_SECURITY,
        _ => return HeaderName::from_bytes(name).ok(),
    })
}

/// The response for a client. `tunnel`: it is the answer to an extended CONNECT that a member of HTTP/1.1 has given as 101.
///
/// # Errors
/// When it has what HTTP/2 cannot carry.
pub fn response(
    view: &ResponseView<'_>,
    edits: &ResponseEdits<'_>,
    tunnel: bool,
    values: &mut RepeatedValues,
) -> Result<Response<()>, BadResponse> {
    let status = if tunnel { 200 } else { view.status() };
    let mut drop = OF_CONNECTION.with(Known::Te);
    if status < 200 || status == 204 || tunnel {
        drop = drop.with(Known::ContentLength);
    }
    let mut map = HeaderMap::with_capacity(view.fields().count() + 2);
    for (name, value, known) in view.fields() {
        if drop.contains(known) || edits.removes(known, value) {
            continue;
        }
        if tunnel && name.eq_ignore_ascii_case(b"sec-websocket-accept") {
            continue;
        }
        let field = name_of(known, name).zip(values.of(known, value));
        field
            .and_then(|(name, value)| map.try_append(name, value).ok())
            .ok_or(BadResponse("field that HTTP/2 cannot carry"))?;
    }
    for (name, value) in edits.added() {
        append(&mut map, name.as_bytes(), &value.concat())
            .ok_or(BadResponse("field that HTTP/2 cannot carry"))?;
    }
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(status).map_err(|_| BadResponse("status that HTTP/2 does not have"))?;
    *response.headers_mut() = map;
    Ok(response)
}

fn append(map: &mut HeaderMap, name: &[u8], value: &[u8]) -> Option<()> {
    let name = HeaderName::from_bytes(name).ok()?;
    let value = HeaderValue::from_bytes(value).ok()?;
    map.try_append(name, value).ok()?;
    Some(())
}

/// Why a request cannot be sent with HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsendable(pub &'static str);

/// The request for a member, from the one that a member of HTTP/1.1 would be sent. `member` is where it goes, and the host of one that names
/// none.
/// One that asks for a WebSocket becomes an extended CONNECT.
///
/// # Errors
/// When it has what HTTP/2 cannot carry.
pub fn request(view: &RequestView<'_>, secure: bool, member: SocketAddr) -> Result<Request<()>, Unsendable> {
    let tunnel = view.value(Known::Upgrade).map(|protocol| {
        std::str::from_utf8(protocol).map(Protocol::from).map_err(|_| Unsendable("upgrade to no protocol"))
    });
    let method = if tunnel.is_some() { b"CONNECT" } else { view.method_bytes() };
    let host = view.value(Known::Host).filter(|host| !host.is_empty());
    let mut uri = ::http::uri::Parts::default();
    uri.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    let authority = match host {
        Some(host) => Authority::try_from(host),
        // The library sends no scheme without one.
        None => Authority::try_from(member.to_string()),
    };
    uri.authority = Some(authority.map_err(|_| Unsendable("host that HTTP/2 cannot carry"))?);
    uri.path_and_query = Some(match view.path_and_query() {
        Some(text) => path(text)?,
        // The target is `*`, which is for OPTIONS alone, or has no path (RFC 9113 section 8.3.1).
        None if method == b"OPTIONS" => PathAndQuery::from_static("*"),
        None => PathAndQuery::from_static("/"),
    });
    let mut map = HeaderMap::with_capacity(view.field_count());
    for (name, value, known) in view.fields() {
        let drops = OF_CONNECTION.contains(known)
            || known == Known::Host
            || known == Known::Te && !value.eq_ignore_ascii_case(b"trailers")
            || tunnel.is_some() && name.eq_ignore_ascii_case(b"sec-websocket-key");
        if !drops {
            append(&mut map, name, value).ok_or(Unsendable("field that HTTP/2 cannot carry"))?;
        }
    }
    let mut request = Request::new(());
    *request.method_mut() =
        Verb::from_bytes(method).map_err(|_| Unsendable("method that HTTP/2 cannot carry"))?;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Unsendable("target that HTTP/2 cannot carry"))?;
    *request.headers_mut() = map;
    if let Some(protocol) = tunnel.transpose()? {
        request.extensions_mut().insert(protocol);
    }
    Ok(request)
}

/// Whether this is an extended CONNECT (RFC 8441).
pub fn is_tunnel(request: &Request<()>) -> bool {
    request.extensions().get::<Protocol>().is_some()
}

/// Bytes that no URI has (RFC 3986), and HTTP/1.1 is let have, are encoded.
fn path(path: &[u8]) -> Result<PathAndQuery, Unsendable> {
    if let Ok(path) = PathAndQuery::try_from(path) {
        return Ok(path);
    }
    let mut encoded = Vec::with_capacity(path.len() + 16);
    for &byte in path {
        if matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') {
            let digit = |n: u8| b"0123456789ABCDEF"[usize::from(n)];
            encoded.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        } else {
            encoded.push(byte);
        }
    }
    PathAndQuery::from_maybe_shared(Bytes::from(encoded))
        .map_err(|_| Unsendable("target that HTTP/2 cannot carry"))
}

/// Appends trailers that have come as lines of HTTP/1.1, without those that may not be there (RFC 9110 section 6.5.1), and the
/// empty line behind them.
pub fn write_trailers(trailers: &FieldList, out: &mut Vec<u8>) {
    for (name, value) in trailers {
        if !is_forbidden_trailer(name) {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(scan::trim(value));
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Trailers to be sent, of fields of HTTP/1.1, without those that may not be there.
pub fn trailers<'f>(fields: impl Iterator<Item = (&'f [u8], &'f [u8])>) -> FieldList {
    let mut list = FieldList::default();
    for (name, value) in fields.filter(|(name, _)| !is_forbidden_trailer(name)) {
        list.push(name, value, Bounds::NONE);
    }
    list
}

/// The same, of trailers that have come with HTTP/2.
pub fn passed_trailers(trailers: FieldList) -> FieldList {
    if trailers.iter().any(|(name, _)| is_forbidden_trailer(name)) {
        return self::trailers(trailers.iter());
    }
    trailers
}

/// The library's.
pub(super) fn map_of(trailers: &FieldList) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in trailers {
        let _ = append(&mut map, name, value);
    }
    map
}

/// What is kept of a head, in bytes, once it is read: its text, and its table.
pub fn kept<L>(head: &Head<L>, text: &[u8]) -> usize {
    text.len() + head.fields.list.len() * size_of::<crate::http::Field>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{IpAddr, Ipv4Addr};

    use super::{read::tests::list, *};
    use crate::http::{RequestHead, ResponseHead};

    const MEMBER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 80);

    fn sent(text: &str) -> Result<Request<()>, Unsendable> {
        let mut head = RequestHead::new();
        head.parse(text.as_bytes()).unwrap().unwrap();
        request(&head.view(text.as_bytes()), false, MEMBER)
    }

    #[test]
    fn requests_for_members_are_made_of_text() {
        let request = sent(
            "PUT /p?q HTTP/1.1\r\nHost: a:8080\r\nX-A: 1\r\nTE: trailers\r\nConnection: te, close\r\nX-A: 2\r\n\
             Transfer-Encoding: chunked\r\nKeep-Alive: 1\r\n\r\n",
        )
        .unwrap();
        assert_eq!(
            (request.method().as_str(), request.uri().to_string()),
            ("PUT", "http://a:8080/p?q".into())
        );
        let fields: Vec<_> =
            request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(fields, [("x-a", "1"), ("x-a", "2"), ("te", "trailers")]);
        for (text, uri) in [
            ("GET / HTTP/1.0\r\n\r\n", "http://192.0.2.1:80/"),
            ("GET http://b/x HTTP/1.1\r\nHost: b\r\n\r\n", "http://b/x"),
            ("GET http://b HTTP/1.1\r\nHost: b\r\n\r\n", "http://b/"),
            ("GET /a<b>\"`{|}^\\ HTTP/1.1\r\nHost: b\r\n\r\n", "http://b/a%3Cb%3E%22%60%7B%7C%7D%5E%5C"),
            ("GET /[a]%zz?b'c HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "http://[::1]:80/[a]%zz?b'c"),
        ] {
            assert_eq!(sent(text).unwrap().uri().to_string(), uri);
        }
        let nameless = "GET / HTTP/1.0\r\n\r\n";
        let mut head = RequestHead::new();
        head.parse(nameless.as_bytes()).unwrap().unwrap();
        let member = "[2001:db8::1]:443".parse().unwrap();
        let of_ipv6 = super::request(&head.view(nameless.as_bytes()), true, member).unwrap();
        assert_eq!(of_ipv6.uri().to_string(), "https://[2001:db8::1]:443/");
        let star = sent("OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n").unwrap();
        assert_eq!(star.uri().path_and_query().unwrap().as_str(), "*");
    }

    fn answered(text: &str, edits: &ResponseEdits<'_>, tunnel: bool) -> (u16, Vec<(String, String)>) {
        let mut head = ResponseHead::new();
        head.parse(text.as_bytes()).unwrap().unwrap();
        let response =
            response(&head.view(text.as_bytes()), edits, tunnel, &mut RepeatedValues::default()).unwrap();
        let fields = response.headers().iter();
        let fields = fields.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        (response.status().as_u16(), fields.collect())
    }

    #[test]
    fn responses_for_clients_have_nothing_of_the_members_connection() {
        let edits = ResponseEdits {
            strip_cookie: Some(b"SRV"),
            insert_cookie: Some((b"SRV", b"m1")),
            private: true,
            ..ResponseEdits::default()
        };
        let text = "HTTP/1.1 200 Fine\r\nServer: x\r\nSet-Cookie: SRV=other\r\nSet-Cookie: a=b\r\n\
                    Connection: close, x\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5\r\nTrailer: t\r\n\r\n";
        let (status, fields) = answered(text, &edits, false);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(status, 200);
        let expected = [
            ("server", "x"),
            ("set-cookie", "a=b"),
            ("set-cookie", "SRV=m1; path=/"),
            ("trailer", "t"),
            ("cache-control", "private"),
        ];
        assert_eq!(fields, expected);
        let switching = "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: p\r\n\r\n";
        assert_eq!(
            answered(switching, &ResponseEdits::default(), true),
            (200, vec![("sec-websocket-protocol".into(), "p".into())])
        );
        let empty = "HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(answered(empty, &ResponseEdits::default(), false), (204, vec![]));
    }

    #[test]
    fn values_that_come_again_are_the_same_and_others_are_others() {
        let mut values = RepeatedValues::default();
        let long = [b'a'; LONGEST_VALUE + 1];
        for value in [&b"text/plain"[..], b"text/plain", b"text/html", b"", &long, b"text/html"] {
            for known in [Known::ContentType, Known::Server, Known::Other] {
                assert_eq!(values.of(known, value).unwrap().as_bytes(), value);
            }
        }
        assert_eq!(values.of(Known::Date, b"a\0"), None);
        values.of(Known::Date, b"now").unwrap();
        assert_eq!(values.of(Known::Date, b"a\0"), None);
        values.of(Known::Date, &long).unwrap();
        assert_eq!(values.date, None);
    }

    #[test]
    fn trailers_are_passed_on_without_what_may_not_be_there() {
        let list = list(&[("grpc-status", "0"), ("content-length", "0"), ("x", " 1 ")]);
        let mut out = Vec::new();
        write_trailers(&list, &mut out);
        assert_eq!(out, b"grpc-status: 0\r\nx: 1\r\n\r\n");
        assert_eq!(passed_trailers(list.clone()).len(), 2);
        assert_eq!(trailers(list.iter()).len(), 2);
        assert_eq!(map_of(&list).len(), 3);
    }
}
