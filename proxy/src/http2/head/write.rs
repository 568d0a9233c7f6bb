//! Heads that are to go, as header blocks: of views, or of the text that a member of HTTP/1.1 would be sent.

use std::net::SocketAddr;

use crate::{
    http::{Known, KnownSet, RequestView, ResponseEdits, ResponseView},
    http2::hpack::{FieldList, encode},
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

/// Room for as much as most heads take.
const ROOM: usize = 256;

/// The head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseBlock {
    pub(in crate::http2) status: u16,
    pub(in crate::http2) block: Vec<u8>,
    text: usize,
}

impl ResponseBlock {
    /// One without fields.
    pub fn new(status: u16) -> Self {
        let mut block = Vec::with_capacity(ROOM);
        encode::status(&mut block, status);
        Self { status, block, text: b"HTTP/1.1 200 \r\n\r\n".len() }
    }

    /// What it would take as lines of HTTP/1.1, as the counters of traffic have it.
    pub fn text(&self) -> usize {
        self.text
    }
}

/// The response for a client. `tunnel`: it is the answer to an extended CONNECT that a member of HTTP/1.1 has given as 101.
pub fn response(view: &ResponseView<'_>, edits: &ResponseEdits<'_>, tunnel: bool) -> ResponseBlock {
    let status = if tunnel { 200 } else { view.status() };
    let mut drop = OF_CONNECTION.with(Known::Te);
    if status < 200 || status == 204 || tunnel {
        drop = drop.with(Known::ContentLength);
    }
    let mut response = ResponseBlock::new(status);
    for (name, value, known) in view.fields() {
        let drops = drop.contains(known)
            || edits.removes(name, known, value)
            || tunnel && name.eq_ignore_ascii_case(b"sec-websocket-accept");
        if !drops {
            encode::field(&mut response.block, name, value, known);
            response.text += name.len() + value.len() + b": \r\n".len();
        }
    }
    for (name, value) in edits.added() {
        encode::field_of_parts(&mut response.block, name, &value);
        response.text += name.len() + value.iter().map(|part| part.len()).sum::<usize>() + b": \r\n".len();
    }
    response
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestBlock {
    pub(in crate::http2) block: Vec<u8>,
    pub(in crate::http2) is_head: bool,
    /// It is an extended CONNECT (RFC 8441).
    pub is_tunnel: bool,
}

/// The request for a member, from the one that a member of HTTP/1.1 would be sent. `member` is where it goes, and the host of
/// one that names none. One that asks for a WebSocket becomes an extended CONNECT.
pub fn request(view: &RequestView<'_>, secure: bool, member: SocketAddr) -> RequestBlock {
    let protocol = view.value(Known::Upgrade);
    let method = if protocol.is_some() { b"CONNECT" } else { view.method_bytes() };
    let mut block = Vec::with_capacity(ROOM);
    encode::method(&mut block, method);
    if let Some(protocol) = protocol {
        encode::protocol(&mut block, protocol);
    }
    encode::scheme(&mut block, secure);
    match view.path_and_query() {
        Some(path) => encode::path(&mut block, path),
        // The target is `*`, which is for OPTIONS alone, or has no path (RFC 9113 section 8.3.1).
        None if method == b"OPTIONS" => encode::path(&mut block, b"*"),
        None => encode::path(&mut block, b"/"),
    }
    match view.value(Known::Host).filter(|host| !host.is_empty()) {
        Some(host) => encode::authority(&mut block, host),
        None => encode::authority(&mut block, member.to_string().as_bytes()),
    }
    for (name, value, known) in view.fields() {
        let drops = OF_CONNECTION.contains(known)
            || known == Known::Host
            || known == Known::Te && !value.eq_ignore_ascii_case(b"trailers")
            || protocol.is_some() && name.eq_ignore_ascii_case(b"sec-websocket-key");
        if !drops {
            encode::field(&mut block, name, value, known);
        }
    }
    RequestBlock { block, is_head: method == b"HEAD", is_tunnel: protocol.is_some() }
}

/// Trailers, as they are.
pub(in crate::http2) fn encode_trailers(trailers: &FieldList) -> Vec<u8> {
    let mut block = Vec::with_capacity(ROOM);
    for (name, value) in trailers {
        encode::field(&mut block, name, value, Known::of(name));
    }
    block
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::{
        http::{RequestHead, ResponseHead},
        http2::{
            head::read::tests::list,
            hpack::{Bounds, Decoder},
        },
    };

    const MEMBER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 80);

    fn decoded(block: &[u8]) -> Vec<(String, String)> {
        let mut list = FieldList::default();
        Decoder::new(4096).decode(block, &mut list, Bounds::NONE).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        list.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    fn sent(text: &str, secure: bool, member: SocketAddr) -> (RequestBlock, Vec<(String, String)>) {
        let mut head = RequestHead::new();
        head.parse(text.as_bytes()).unwrap().unwrap();
        let request = request(&head.view(text.as_bytes()), secure, member);
        let fields = decoded(&request.block);
        (request, fields)
    }

    fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn requests_for_members_are_made_of_text() {
        let (request, fields) = sent(
            "PUT /p?q HTTP/1.1\r\nHost: a:8080\r\nX-A: 1\r\nTE: trailers\r\nConnection: te, close\r\nX-B: 3\r\nX-A: 2\r\n\
             Transfer-Encoding: chunked\r\nKeep-Alive: 1\r\n\r\n",
            false,
            MEMBER,
        );
        assert!(!request.is_head && !request.is_tunnel);
        let expected = [
            (":method", "PUT"),
            (":scheme", "http"),
            (":path", "/p?q"),
            (":authority", "a:8080"),
            ("x-a", "1"),
            ("te", "trailers"),
            ("x-b", "3"),
            ("x-a", "2"),
        ];
        assert_eq!(fields, pairs(&expected));
        for (text, authority, path) in [
            ("GET / HTTP/1.0\r\n\r\n", "192.0.2.1:80", "/"),
            ("GET http://b/x HTTP/1.1\r\nHost: b\r\n\r\n", "b", "/x"),
            ("GET http://b HTTP/1.1\r\nHost: b\r\n\r\n", "b", "/"),
            ("GET /a<b>\"`{|}^\\ HTTP/1.1\r\nHost: b\r\n\r\n", "b", "/a<b>\"`{|}^\\"),
            ("GET /[a]%zz?b'c HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "[::1]:80", "/[a]%zz?b'c"),
            ("OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n", "b", "*"),
        ] {
            let (_, fields) = sent(text, false, MEMBER);
            assert_eq!((fields[2].1.as_str(), fields[3].1.as_str()), (path, authority), "{text}");
        }
        let nameless = sent("HEAD / HTTP/1.0\r\n\r\n", true, "[2001:db8::1]:443".parse().unwrap());
        assert!(nameless.0.is_head);
        assert_eq!(
            nameless.1[1..],
            pairs(&[(":scheme", "https"), (":path", "/"), (":authority", "[2001:db8::1]:443")])
        );
    }

    #[test]
    fn a_websocket_is_connect_for_who_does_not_speak_http1() {
        let text = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
        let (request, fields) = sent(text, true, MEMBER);
        assert!(request.is_tunnel);
        let expected = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":path", "/chat"),
            (":authority", "a"),
            ("sec-websocket-version", "13"),
        ];
        assert_eq!(fields, pairs(&expected));
    }

    fn answered(
        text: &str,
        edits: &ResponseEdits<'_>,
        tunnel: bool,
    ) -> (ResponseBlock, Vec<(String, String)>) {
        let mut head = ResponseHead::new();
        head.parse(text.as_bytes()).unwrap().unwrap();
        let response = response(&head.view(text.as_bytes()), edits, tunnel);
        let fields = decoded(&response.block);
        (response, fields)
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
        let (response, fields) = answered(text, &edits, false);
        assert_eq!(response.status, 200);
        let expected = [
            (":status", "200"),
            ("server", "x"),
            ("set-cookie", "a=b"),
            ("trailer", "t"),
            ("set-cookie", "SRV=m1; path=/"),
            ("cache-control", "private"),
        ];
        assert_eq!(fields, pairs(&expected));
        let lines: usize = expected[1..].iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        assert_eq!(response.text(), lines + 17);
        let switching = "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: p\r\n\r\n";
        let (response, fields) = answered(switching, &ResponseEdits::default(), true);
        assert_eq!(response.status, 200);
        assert_eq!(fields, pairs(&[(":status", "200"), ("sec-websocket-protocol", "p")]));
        let empty = "HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(answered(empty, &ResponseEdits::default(), false).1, pairs(&[(":status", "204")]));
    }

    #[test]
    fn trailers_are_fields() {
        assert_eq!(
            decoded(&encode_trailers(&list(&[("a", "1"), ("b", "")]))),
            pairs(&[("a", "1"), ("b", "")])
        );
    }
}
