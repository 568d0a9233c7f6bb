//! Heads that have come, from fields that are [decoded](crate::http2::hpack).

use crate::{
    http::{
        BadResponse, Method, Reject, RequestHead, ResponseHead,
        fill::{Content, Pseudo, WEBSOCKET_KEY_LEN},
    },
    http2::hpack::{FieldList, Fields},
};

/// What a request of a client is read with.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'a> {
    /// For a request that is to be a WebSocket: the key that a member of HTTP/1.1 is asked with.
    pub websocket_key: &'a [u8; WEBSOCKET_KEY_LEN],
    /// Nothing follows the head.
    pub ended: bool,
}

/// Whether this is an extended CONNECT (RFC 8441): it takes a [WebSocket's key](RequestContext::websocket_key).
pub fn is_extended_connect(fields: &FieldList) -> bool {
    fields.iter().take_while(|(name, _)| name.first() == Some(&b':')).any(|(name, _)| name == b":protocol")
}

/// Reads a client's request into the head, whose text goes to `text`; says how long it is.
///
/// # Errors
/// As [`RequestHead::fill`]. What is malformed is a [stream error](refusal).
pub fn read_request(
    fields: &FieldList,
    context: RequestContext<'_>,
    head: &mut RequestHead,
    text: &mut Vec<u8>,
) -> Result<usize, Reject> {
    if fields.exceeds() {
        return Err(Reject::HeadTooLarge);
    }
    // The library counts by it.
    if fields.has_bad_length() {
        return Err(Reject::BadRequest("content-length that is not one number"));
    }
    let [mut method, mut scheme, mut authority, mut path, mut protocol] = [None; 5];
    let mut rest = fields.iter();
    let regular = loop {
        let from_here = rest.clone();
        let Some((name, value)) = rest.next().filter(|(name, _)| name.first() == Some(&b':')) else {
            break from_here;
        };
        let place = match name {
            b":method" => &mut method,
            b":scheme" => &mut scheme,
            b":authority" => &mut authority,
            b":path" => &mut path,
            b":protocol" => &mut protocol,
            _ => return Err(Reject::BadRequest("pseudo-header field that requests do not have")),
        };
        if place.replace(value).is_some() {
            return Err(Reject::BadRequest("pseudo-header field twice"));
        }
    };
    // RFC 9113 section 8.5.
    let for_tunnel = method == Some(b"CONNECT") && protocol.is_none();
    if for_tunnel && (scheme.is_some() || path.is_some() || authority.is_none()) {
        return Err(Reject::BadRequest("CONNECT to what is not an authority alone"));
    }
    let pseudo = Pseudo {
        method: method.ok_or(Reject::BadRequest("no :method"))?,
        scheme: scheme.unwrap_or_default(),
        authority,
        path: path.unwrap_or_default(),
        protocol: protocol.map(|protocol| (protocol, context.websocket_key)),
    };
    head.fill(text, &pseudo, regular, content(context.ended))
}

/// How a request that was not understood is answered: with a status, or, when it is malformed, by resetting its stream (RFC
/// 9113 section 8.1.1), as HAProxy does.
pub fn refusal(reject: Reject) -> Result<u16, h2::Reason> {
    match reject {
        Reject::BadRequest(_) | Reject::VersionNotSupported => Err(h2::Reason::PROTOCOL_ERROR),
        Reject::MethodNotAllowed
        | Reject::UriTooLong
        | Reject::HeadTooLarge
        | Reject::TooManyFields
        | Reject::NotImplemented(_) => Ok(reject.status()),
    }
}

/// Reads a member's response to a request of this method into the head, whose text goes to `text`; says how long it is.
///
/// # Errors
/// As [`ResponseHead::fill`].
pub fn read_response(
    fields: &FieldList,
    method: Method,
    ended: bool,
    head: &mut ResponseHead,
    text: &mut Vec<u8>,
) -> Result<usize, BadResponse> {
    let (status, regular) = status_and_fields(fields)?;
    head.fill(text, status, regular, method, content(ended))
}

/// Reads a member's agreement to an extended CONNECT, as that to the upgrade that it stands for, with the
/// `Sec-WebSocket-Accept` that a member of HTTP/1.1 would have sent.
///
/// # Errors
/// When it is malformed, or there is too much of it.
pub fn read_agreement(
    fields: &FieldList,
    protocol: &[u8],
    accept: Option<&[u8]>,
    head: &mut ResponseHead,
    text: &mut Vec<u8>,
) -> Result<usize, BadResponse> {
    let (_, regular) = status_and_fields(fields)?;
    // What it is checked for is what any other is.
    head.fill(text, 200, regular.clone(), Method::Get, Content::Follows)?;
    text.clear();
    text.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    let mut line = |name: &[u8], value: &[u8]| {
        text.extend_from_slice(name);
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    };
    line(b"connection", b"upgrade");
    line(b"upgrade", protocol);
    if let Some(accept) = accept {
        line(b"sec-websocket-accept", accept);
    }
    for (name, value) in regular {
        if !matches!(name, b"content-length" | b"sec-websocket-accept") {
            line(name, value);
        }
    }
    text.extend_from_slice(b"\r\n");
    head.reset();
    head.parse(text)?.ok_or(BadResponse("head without an end"))
}

/// The status of a response, and the fields behind it.
fn status_and_fields(fields: &FieldList) -> Result<(u16, Fields<'_>), BadResponse> {
    if fields.exceeds() {
        return Err(BadResponse("head that is too large"));
    }
    if fields.has_bad_length() {
        return Err(BadResponse("content-length that is not one number"));
    }
    let status = fields.status().ok_or(BadResponse("no :status"))?;
    let mut regular = fields.iter();
    // What stands elsewhere, or is another, is no field.
    if regular.next().is_none_or(|(name, _)| name != b":status") {
        return Err(BadResponse("pseudo-header field that responses do not have"));
    }
    Ok((status, regular))
}

fn content(ended: bool) -> Content {
    if ended { Content::Ended } else { Content::Follows }
}

#[cfg(test)]
pub(in crate::http2) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http2::{head::kept, hpack::Bounds};

    const CONTEXT: RequestContext<'static> =
        RequestContext { websocket_key: b"dGhlIHNhbXBsZSBub25jZQ==", ended: true };

    pub(in crate::http2) fn list(fields: &[(&str, &str)]) -> FieldList {
        let mut list = FieldList::default();
        for (name, value) in fields {
            list.push(name.as_bytes(), value.as_bytes(), Bounds::NONE);
        }
        list
    }

    fn read(fields: &[(&str, &str)], context: RequestContext<'_>) -> Result<String, Reject> {
        let (mut head, mut text) = (RequestHead::new(), Vec::new());
        let length = read_request(&list(fields), context, &mut head, &mut text)?;
        assert_eq!(length, text.len());
        Ok(String::from_utf8(text).unwrap())
    }

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

    #[test]
    fn requests_of_clients_are_read() {
        let request = [
            (":path", "/p?q"),
            (":authority", "a.example:443"),
            (":scheme", "https"),
            (":method", "POST"),
            ("cookie", "a=1"),
            ("x-one", "1"),
            ("cookie", "b=2"),
            ("te", "trailers"),
        ];
        assert_eq!(
            read(&request, RequestContext { ended: false, ..CONTEXT }).unwrap(),
            "POST /p?q HTTP/1.1\r\nhost: a.example\r\nx-one: 1\r\nte: trailers\r\ncookie: a=1; b=2\r\n\
             transfer-encoding: chunked\r\n\r\n"
        );
        let request = [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "b")];
        assert_eq!(read(&request, CONTEXT).unwrap(), "GET / HTTP/1.1\r\nhost: b\r\n\r\n");
        let request = [(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), ("host", "b")];
        assert_eq!(read(&request, CONTEXT).unwrap(), "OPTIONS * HTTP/1.1\r\nhost: b\r\n\r\n");
    }

    #[test]
    fn requests_that_are_none_are_malformed() {
        let without = |name: &str| GET.into_iter().filter(|(other, _)| *other != name).collect::<Vec<_>>();
        let with = |name: &'static str, value: &'static str| [&GET[..], &[(name, value)]].concat();
        let instead = |name: &'static str, value: &'static str| [without(name), vec![(name, value)]].concat();
        for request in [
            vec![],
            without(":method"),
            without(":scheme"),
            without(":path"),
            without(":authority"),
            with(":path", "/"),
            with(":status", "200"),
            with(":other", ""),
            [&[("x", "1")], &GET[..]].concat(),
            [&with("x", "1")[..], &[(":protocol", "websocket")]].concat(),
            with(":protocol", "websocket"),
            with("content-length", "1x"),
            with("content-length", ""),
            with("content-length", "18446744073709551616"),
            [&with("content-length", "0")[..], &[("content-length", "1")]].concat(),
            instead(":path", ""),
            instead(":path", "a"),
            instead(":path", "/a b"),
            instead(":method", ""),
            instead(":method", "CONNECT"),
            vec![(":method", "CONNECT")],
            vec![(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")],
            vec![(":method", "CONNECT"), (":authority", "a:1"), (":scheme", "http")],
            instead(":method", "G T"),
            instead(":scheme", "1"),
            instead(":authority", ""),
            instead(":authority", "user@a"),
            with("host", "b"),
            with("te", "gzip"),
            with("connection", "x"),
            with("X", "1"),
            with("x y", "1"),
            with("", "1"),
            with("x", "a\r\nb: c"),
            with("x", "a\0"),
        ] {
            let reject = read(&request, CONTEXT).unwrap_err();
            assert_eq!(refusal(reject), Err(h2::Reason::PROTOCOL_ERROR), "{request:?} {reject}");
        }
        let connect = [(":method", "CONNECT"), (":authority", "a:443")];
        assert_eq!(refusal(read(&connect, CONTEXT).unwrap_err()), Ok(405));
        let mut head = RequestHead::new();
        let large = read_request(&FieldList::beyond_bounds(0), CONTEXT, &mut head, &mut Vec::new());
        assert_eq!(refusal(large.unwrap_err()), Ok(431));
    }

    #[test]
    fn a_websocket_is_an_upgrade_for_who_speaks_http1() {
        let request = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":path", "/chat"),
            (":authority", "a"),
        ];
        assert!(is_extended_connect(&list(&request)));
        assert!(!is_extended_connect(&list(&GET)));
        let text = read(&request, RequestContext { ended: false, ..CONTEXT }).unwrap();
        assert_eq!(
            text,
            "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
    }

    #[test]
    fn responses_of_members_are_read() {
        let (mut head, mut text) = (ResponseHead::new(), Vec::new());
        let response = list(&[(":status", "200"), ("x", "1")]);
        read_response(&response, Method::Get, false, &mut head, &mut text).unwrap();
        assert_eq!(text, b"HTTP/1.1 200 \r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(head.view(&text).status(), 200);
        assert!(kept(&head, &text) >= text.len() + 2);
        for bad in [
            &[][..],
            &[("x", "1")],
            &[(":status", "99")],
            &[(":status", "1000")],
            &[(":status", "20")],
            &[(":status", "2 0")],
            &[(":status", "+20")],
            &[(":status", "101")],
            &[(":status", "200"), (":status", "200")],
            &[(":status", "200"), (":path", "/")],
            &[("x", "1"), (":status", "200")],
            &[(":status", "200"), ("connection", "x")],
            &[(":status", "200"), ("X", "1")],
            &[(":status", "200"), ("x", "1\n")],
            &[(":status", "200"), ("content-length", "5")],
        ] {
            assert!(read_response(&list(bad), Method::Get, true, &mut head, &mut text).is_err(), "{bad:?}");
        }
        assert!(
            read_response(&FieldList::beyond_bounds(0), Method::Get, true, &mut head, &mut text).is_err()
        );
    }

    #[test]
    fn an_agreement_is_an_upgrade() {
        let (mut head, mut text) = (ResponseHead::new(), Vec::new());
        let agreed =
            list(&[(":status", "200"), ("sec-websocket-accept", "x"), ("sec-websocket-protocol", "p")]);
        read_agreement(&agreed, b"websocket", Some(b"key"), &mut head, &mut text).unwrap();
        assert_eq!(
            text,
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
              sec-websocket-accept: key\r\nsec-websocket-protocol: p\r\n\r\n"
        );
        let bad = list(&[(":status", "200"), ("transfer-encoding", "chunked")]);
        assert!(read_agreement(&bad, b"websocket", None, &mut head, &mut text).is_err());
    }
}
