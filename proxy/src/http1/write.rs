//! Heads as they are passed on: the bytes that came, without the fields of the other hop, with the edits of this one.
//!
//! Runs of fields that stay are copied in one piece; a head that needs no edit is one copy.

use super::{
    cookies::{self, Stripped},
    fields::{Field, Fields},
    names::{Known, KnownSet, Version},
    request::RequestView,
    response::ResponseView,
};

/// What the receiver is told about the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// It stays open: nothing is said in HTTP/1.1, `keep-alive` in HTTP/1.0.
    #[default]
    Persistent,
    /// `close`.
    Close,
    /// `upgrade`; the message keeps its `Upgrade`.
    Upgrade,
}

/// How a response's body is framed towards the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transfer {
    /// As the member framed it.
    #[default]
    AsIs,
    /// The member ends the body by closing, the client gets chunks.
    Chunked,
    /// The member sends chunks, the client, of HTTP/1.0, gets the data alone until the connection closes.
    UntilClose,
}

/// What to change in a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestEdits<'a> {
    /// For the member's connection.
    pub connection: Connection,
    /// The value of an `X-Forwarded-For` line to add, as HAProxy's `option forwardfor` does; lines that the client sent
    /// stay before it.
    pub forwarded_for: Option<&'a [u8]>,
    /// The value that replaces every `X-Forwarded-Port`, as `http-request set-header` does.
    pub forwarded_port: Option<&'a [u8]>,
    /// The value that replaces every `X-Forwarded-Proto`.
    pub forwarded_proto: Option<&'a [u8]>,
    /// The name of the cookie that the member must not see (`cookie NAME ... indirect`).
    pub strip_cookie: Option<&'a [u8]>,
    /// Leave `Expect` out, because the proxy has answered it.
    pub drop_expect: bool,
}

/// What to change in a response.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseEdits<'a> {
    /// The version of the client's request.
    pub client: Version,
    /// For the client's connection.
    pub connection: Connection,
    /// The framing towards the client.
    pub transfer: Transfer,
    /// The response to a CONNECT with 2xx or an upgrade with 101: what follows is no body.
    pub tunnel: bool,
    /// The name of a cookie whose `Set-Cookie` lines the client must not see, because the proxy owns it.
    pub strip_cookie: Option<&'a [u8]>,
    /// Name and value of a persistence cookie to set, with `path=/`.
    pub insert_cookie: Option<(&'a [u8], &'a [u8])>,
    /// Add `cache-control: private` (`nocache`).
    pub private: bool,
}

const HOP_BY_HOP: KnownSet =
    KnownSet::of(&[Known::Connection, Known::KeepAlive, Known::ProxyConnection, Known::Te, Known::Upgrade]);

/// Appends the request's head to `out`, for a member.
///
/// The version stays the client's, as with HAProxy: a member must not answer a client of HTTP/1.0 with what only
/// HTTP/1.1 has, nor be shown a request of HTTP/1.1 without `Host`.
pub fn write_request(out: &mut Vec<u8>, view: &RequestView<'_>, edits: &RequestEdits<'_>) {
    let fields = &view.head.fields;
    let mut drop = HOP_BY_HOP;
    for (edited, known) in [
        (edits.forwarded_port.is_some(), Known::XForwardedPort),
        (edits.forwarded_proto.is_some(), Known::XForwardedProto),
        (edits.strip_cookie.is_some(), Known::Cookie),
        (edits.drop_expect, Known::Expect),
    ] {
        if edited {
            drop.insert(known);
        }
    }
    let start = view.line_start();
    copy(out, fields, view.buf, start, drop, |out, field| match field.known {
        Known::Cookie => {
            let value = field.value.of(view.buf);
            let mark = out.len();
            out.extend_from_slice(&view.buf[field.name.start.into()..field.value.start.into()]);
            match cookies::strip(value, edits.strip_cookie.unwrap_or_default(), out) {
                Stripped::Unchanged => {
                    out.truncate(mark);
                    return false;
                }
                Stripped::Empty => out.truncate(mark),
                Stripped::Rest => out.extend_from_slice(b"\r\n"),
            }
            true
        }
        Known::Upgrade => edits.connection != Connection::Upgrade,
        _ => true,
    });
    line(out, b"x-forwarded-port: ", edits.forwarded_port);
    line(out, b"x-forwarded-proto: ", edits.forwarded_proto);
    line(out, b"x-forwarded-for: ", edits.forwarded_for);
    let trailers = fields.elements(view.buf, Known::Te).any(|e| e.eq_ignore_ascii_case(b"trailers"));
    if trailers {
        out.extend_from_slice(b"te: trailers\r\n");
    }
    write_connection(out, view.version(), edits.connection, trailers.then_some(b"te"));
    out.extend_from_slice(b"\r\n");
}

/// Appends the response's head to `out`, for a client. The version is HTTP/1.1 always.
pub fn write_response(out: &mut Vec<u8>, view: &ResponseView<'_>, edits: &ResponseEdits<'_>) {
    let fields = &view.head.fields;
    let status = view.status();
    let mut drop = HOP_BY_HOP;
    if status < 200 || status == 204 || edits.tunnel {
        drop.insert(Known::ContentLength);
        drop.insert(Known::TransferEncoding);
    }
    if edits.transfer == Transfer::UntilClose {
        drop.insert(Known::TransferEncoding);
        drop.insert(Known::Trailer);
    }
    if edits.strip_cookie.is_some() {
        drop.insert(Known::SetCookie);
    }
    // 426 must say what to upgrade to.
    let required = status == 426 && view.has(Known::Upgrade);
    let upgrade = edits.connection == Connection::Upgrade || required;
    out.extend_from_slice(b"HTTP/1.1");
    copy(out, fields, view.buf, b"HTTP/1.1".len(), drop, |_, field| match field.known {
        Known::SetCookie => {
            let name = edits.strip_cookie.unwrap_or_default();
            cookies::sets_cookie(field.value.of(view.buf), name)
        }
        Known::Upgrade => !upgrade,
        _ => true,
    });
    if let Some((name, value)) = edits.insert_cookie {
        out.extend_from_slice(b"set-cookie: ");
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value);
        out.extend_from_slice(b"; path=/\r\n");
    }
    if edits.private {
        out.extend_from_slice(b"cache-control: private\r\n");
    }
    if edits.transfer == Transfer::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    // An interim response says nothing about the connection; the final one does.
    if status >= 200 || edits.connection == Connection::Upgrade {
        write_connection(out, edits.client, edits.connection, required.then_some(b"upgrade"));
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the field that says `connection` in `version`, and the option `also`, if either needs saying.
pub(super) fn write_connection(
    out: &mut Vec<u8>,
    version: Version,
    connection: Connection,
    also: Option<&[u8]>,
) {
    let option: &[u8] = match (connection, version) {
        (Connection::Persistent, Version::Http11) => b"",
        (Connection::Persistent, Version::Http10) => b"keep-alive",
        (Connection::Close, _) => b"close",
        (Connection::Upgrade, _) => b"upgrade",
    };
    let also = also.unwrap_or_default();
    if option.is_empty() && also.is_empty() {
        return;
    }
    out.extend_from_slice(b"connection: ");
    out.extend_from_slice(also);
    if !also.is_empty() && !option.is_empty() {
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(option);
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) {
    if let Some(value) = value {
        out.extend_from_slice(name);
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

/// Copies `buf` from `start`, in the first line, to the last field, without the fields in `drop` for which `edit` says
/// so, after it has perhaps written a replacement, and without those that `Connection` names.
///
/// A name in `Connection` takes effect on fields that the proxy does not know: one that names `Content-Length` or
/// `Cookie` would otherwise make this hop lose what the next must see.
#[inline]
fn copy(
    out: &mut Vec<u8>,
    fields: &Fields,
    buf: &[u8],
    start: usize,
    drop: KnownSet,
    mut edit: impl FnMut(&mut Vec<u8>, &Field) -> bool,
) {
    let end = buf.len() - 2;
    if !fields.present.intersects(drop) {
        out.extend_from_slice(&buf[start..end]);
        return;
    }
    let mut from = start;
    for (i, field) in fields.list.iter().enumerate() {
        let dropped = drop.contains(field.known)
            || fields.options.unknown && field.known == Known::Other && {
                let name = field.name.of(buf);
                fields.elements(buf, Known::Connection).any(|option| option.eq_ignore_ascii_case(name))
            };
        if !dropped {
            continue;
        }
        let begin = usize::from(field.name.start);
        let next = fields.list.get(i + 1).map_or(end, |field| usize::from(field.name.start));
        out.extend_from_slice(&buf[from..begin]);
        from = if field.known == Known::Other || edit(out, field) { next } else { begin };
    }
    out.extend_from_slice(&buf[from..end]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{
        super::{RequestHead, ResponseHead},
        *,
    };

    fn request(text: &str, edits: &RequestEdits<'_>) -> String {
        let mut head = RequestHead::new();
        head.parse(text.as_bytes()).unwrap().unwrap();
        let mut out = Vec::new();
        write_request(&mut out, &head.view(text.as_bytes()), edits);
        String::from_utf8(out).unwrap()
    }

    fn response(text: &str, edits: &ResponseEdits<'_>) -> String {
        let mut head = ResponseHead::new();
        head.parse(text.as_bytes()).unwrap().unwrap();
        let mut out = Vec::new();
        write_response(&mut out, &head.view(text.as_bytes()), edits);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_plain_request_passes_unchanged() {
        let text = "GET /a?b HTTP/1.1\r\nHost: a\r\nx-ODD:  b \r\nCookie: a=b\r\nTrailer: c\r\n\r\n";
        assert_eq!(request(text, &RequestEdits::default()), text);
        assert_eq!(request(&format!("\r\n{text}rest"), &RequestEdits::default()), text);
        let absolute = "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(request(absolute, &RequestEdits::default()), absolute);
    }

    #[test]
    fn fields_of_the_clients_hop_are_left_out() {
        let text = "GET / HTTP/1.1\r\nConnection: close, X-One\r\nHost: a\r\nx-one: 1\r\nX-Two: 2\r\nKeep-Alive: 5\r\n\
                    Proxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: websocket\r\nconnection: X-Two\r\nX-Three: 3\r\n\r\n";
        assert_eq!(
            request(text, &RequestEdits::default()),
            "GET / HTTP/1.1\r\nHost: a\r\nX-Three: 3\r\n\r\n"
        );
    }

    #[test]
    fn connection_does_not_remove_fields_that_every_hop_needs() {
        let text = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nCookie: a=b\r\nX-Forwarded-For: c\r\n\
                    Connection: host, content-length, cookie, x-forwarded-for\r\n\r\n";
        assert_eq!(
            request(text, &RequestEdits::default()),
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nCookie: a=b\r\nX-Forwarded-For: c\r\n\r\n"
        );
    }

    #[test]
    fn forwarding_fields_are_added_and_replaced() {
        let text = "GET / HTTP/1.1\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Port: 1\r\nHost: a\r\n\
                    X-FORWARDED-PROTO: a\r\nx-forwarded-proto: b\r\n\r\n";
        let edits = RequestEdits {
            forwarded_for: Some(b"192.0.2.1"),
            forwarded_port: Some(b"80"),
            forwarded_proto: Some(b"http"),
            ..RequestEdits::default()
        };
        assert_eq!(
            request(text, &edits),
            "GET / HTTP/1.1\r\nX-Forwarded-For: 9.9.9.9\r\nHost: a\r\nx-forwarded-port: 80\r\n\
             x-forwarded-proto: http\r\nx-forwarded-for: 192.0.2.1\r\n\r\n"
        );
    }

    #[test]
    fn the_persistence_cookie_is_stripped() {
        let edits = RequestEdits { strip_cookie: Some(b"SRV"), ..RequestEdits::default() };
        for (before, after) in [
            ("Cookie: SRV=m\r\n", ""),
            ("Cookie: a=1; SRV=m; b=2\r\n", "Cookie: a=1; b=2\r\n"),
            ("COOKIE:\ta=1,b=2;  SRV=m\r\n", "COOKIE:\ta=1,b=2\r\n"),
            ("Cookie:  a=1\r\n", "Cookie:  a=1\r\n"),
            ("Cookie: a=1\r\nA: b\r\nCookie: SRV=m\r\n", "Cookie: a=1\r\nA: b\r\n"),
            ("Cookie: SRV=m\r\nA: b\r\nCookie: a=1\r\n", "A: b\r\nCookie: a=1\r\n"),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{before}\r\n");
            assert_eq!(
                request(&text, &edits),
                format!("GET / HTTP/1.1\r\nHost: a\r\n{after}\r\n"),
                "{before}"
            );
        }
    }

    #[test]
    fn connection_is_said_where_it_must_be() {
        let upgrade = RequestEdits { connection: Connection::Upgrade, ..RequestEdits::default() };
        assert_eq!(
            request(
                "GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
                &upgrade
            ),
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nconnection: upgrade\r\n\r\n"
        );
        let close = RequestEdits { connection: Connection::Close, ..RequestEdits::default() };
        assert_eq!(
            request("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &close),
            "GET / HTTP/1.1\r\nHost: a\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(
            request("GET / HTTP/1.0\r\n\r\n", &RequestEdits::default()),
            "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
        );
        assert_eq!(
            request(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers, deflate\r\n\r\n",
                &RequestEdits::default()
            ),
            "GET / HTTP/1.1\r\nHost: a\r\nte: trailers\r\nconnection: te\r\n\r\n"
        );
    }

    #[test]
    fn an_answered_expectation_is_left_out() {
        let text = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(request(text, &RequestEdits::default()), text);
        let edits = RequestEdits { drop_expect: true, ..RequestEdits::default() };
        assert_eq!(request(text, &edits), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
    }

    #[test]
    fn a_plain_response_passes_unchanged() {
        let text = "HTTP/1.1 200 Fine\r\nServer: a\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(response(text, &ResponseEdits::default()), text);
        let http10 = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(response(http10, &ResponseEdits::default()), http10.replace("1.0", "1.1"));
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n";
        let close = ResponseEdits { connection: Connection::Close, ..ResponseEdits::default() };
        assert_eq!(response(interim, &close), interim);
    }

    #[test]
    fn fields_of_the_members_hop_are_left_out() {
        let text = "HTTP/1.1 200 OK\r\nConnection: close, x-a\r\nX-A: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n\
                    Content-Length: 2\r\n\r\n";
        assert_eq!(response(text, &ResponseEdits::default()), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
        let http10 = ResponseEdits { client: Version::Http10, ..ResponseEdits::default() };
        assert_eq!(
            response(text, &http10),
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: keep-alive\r\n\r\n"
        );
        let required = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.2\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(
            response(required, &ResponseEdits::default()),
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.2\r\nContent-Length: 0\r\nconnection: upgrade\r\n\r\n"
        );
    }

    #[test]
    fn lengths_are_left_out_where_there_is_no_body() {
        let lengths = "Content-Length: 2\r\n\r\n";
        for line in ["HTTP/1.1 204 No Content\r\n", "HTTP/1.1 100 Continue\r\n"] {
            let text = format!("{line}{lengths}");
            assert_eq!(response(&text, &ResponseEdits::default()), format!("{line}\r\n"));
        }
        let not_modified = format!("HTTP/1.1 304 Not Modified\r\n{lengths}");
        assert_eq!(response(&not_modified, &ResponseEdits::default()), not_modified);
        let tunnel = ResponseEdits { tunnel: true, ..ResponseEdits::default() };
        assert_eq!(response(&format!("HTTP/1.1 200 OK\r\n{lengths}"), &tunnel), "HTTP/1.1 200 OK\r\n\r\n");
    }

    #[test]
    fn switching_keeps_the_upgrade() {
        let text = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        let edits =
            ResponseEdits { connection: Connection::Upgrade, tunnel: true, ..ResponseEdits::default() };
        assert_eq!(
            response(text, &edits),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nconnection: upgrade\r\n\r\n"
        );
    }

    #[test]
    fn the_persistence_cookie_is_set_by_the_proxy_alone() {
        let text = "HTTP/1.1 200 OK\r\nSet-Cookie: SRV=theirs; path=/z\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n";
        let edits = ResponseEdits {
            strip_cookie: Some(b"SRV"),
            insert_cookie: Some((b"SRV", b"m1")),
            private: true,
            ..ResponseEdits::default()
        };
        assert_eq!(
            response(text, &edits),
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\nset-cookie: SRV=m1; path=/\r\n\
             cache-control: private\r\n\r\n"
        );
    }

    #[test]
    fn framing_is_changed_on_demand() {
        let chunked = ResponseEdits { transfer: Transfer::Chunked, ..ResponseEdits::default() };
        assert_eq!(
            response("HTTP/1.0 200 OK\r\nA: b\r\n\r\n", &chunked),
            "HTTP/1.1 200 OK\r\nA: b\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let until_close = ResponseEdits {
            client: Version::Http10,
            connection: Connection::Close,
            transfer: Transfer::UntilClose,
            ..ResponseEdits::default()
        };
        assert_eq!(
            response(
                "HTTP/1.1 200 OK\r\nTrailer: a\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n",
                &until_close
            ),
            "HTTP/1.1 200 OK\r\nA: b\r\nconnection: close\r\n\r\n"
        );
    }
}
