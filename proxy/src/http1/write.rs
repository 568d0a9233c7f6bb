//! Heads as they are passed on: the bytes that came, without the fields of the other hop, with the edits of this one.
//!
//! Runs of fields that stay are copied in one piece; a head that needs no edit is one copy.

use crate::http::{
    Field, Fields, Known, KnownSet, Method, RequestEdits, RequestView, ResponseEdits, ResponseView, Version,
    cookies::{self, Stripped},
    scan,
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

/// How a body goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transfer {
    /// As it came.
    #[default]
    AsIs,
    /// The member ends the body by closing, the client gets chunks.
    Chunked,
    /// The member sends chunks, the client, of HTTP/1.0, gets the data alone until the connection closes.
    UntilClose,
}

/// How a response goes over the client's connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseHop {
    /// The version of the client's request.
    pub client: Version,
    /// For the client's connection.
    pub connection: Connection,
    /// The framing towards the client.
    pub transfer: Transfer,
    /// The response to an upgrade with 101: what follows is no body.
    pub tunnel: bool,
}

const HOP_BY_HOP: KnownSet =
    KnownSet::of(&[Known::Connection, Known::KeepAlive, Known::ProxyConnection, Known::Te, Known::Upgrade]);

/// `HTTP2-Settings` belongs to an offer of `h2c`.
const HOP_BY_HOP_OF_REQUESTS: KnownSet = HOP_BY_HOP.with(Known::Http2Settings);

/// Appends the request's head to `out`, for a member.
///
/// The version stays the client's, as with HAProxy: a member must not answer a client of HTTP/1.0 with what only
/// HTTP/1.1 has, nor be shown a request of HTTP/1.1 without `Host`.
pub fn write_request(
    out: &mut Vec<u8>,
    view: &RequestView<'_>,
    connection: Connection,
    edits: &RequestEdits<'_>,
) {
    let fields = &view.head.fields;
    let mut drop = HOP_BY_HOP_OF_REQUESTS;
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
    drop.insert_all(edits.set.names);
    let changes = &edits.fields;
    let mut start = view.line_start();
    if !changes.is_empty() {
        drop.insert_all(changes.touches());
    }
    if edits.path.is_some() || edits.host.is_some() {
        if edits.host.is_some() {
            drop.insert(Known::Host);
        }
        start = write_line(out, view, edits);
    }
    copy(out, fields, view.buf, start, drop, |out, field| match field.known {
        known if changes.removes(field.name.of(view.buf), known) => true,
        // There are others that go, or a host in its place.
        Known::Other => false,
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
        Known::Upgrade => connection != Connection::Upgrade,
        Known::Expect => expects_continue(field.value.of(view.buf)),
        _ => true,
    });
    if changes.is_empty() {
        line(out, b"x-forwarded-port: ", edits.forwarded_port);
        line(out, b"x-forwarded-proto: ", edits.forwarded_proto);
        out.extend_from_slice(edits.set.lines);
        line(out, b"x-forwarded-for: ", edits.forwarded_for);
    } else {
        write_changed(out, edits);
    }
    let trailers = fields.elements(view.buf, Known::Te).any(|e| e.eq_ignore_ascii_case(b"trailers"));
    if trailers {
        out.extend_from_slice(b"te: trailers\r\n");
    }
    write_connection(out, view.version(), connection, trailers.then_some(b"te"));
    out.extend_from_slice(b"\r\n");
}

/// The request line, with a path or host of one's own, and the host behind it. Says where the fields begin.
fn write_line(out: &mut Vec<u8>, view: &RequestView<'_>, edits: &RequestEdits<'_>) -> usize {
    let RequestView { head, buf } = view;
    let target = &head.line.target;
    let first = head.fields.list.first().map_or(buf.len() - 2, |field| usize::from(field.name.start));
    let (begin, end) = (usize::from(target.span.start), usize::from(target.span.end));
    out.extend_from_slice(&buf[view.line_start()..begin]);
    match view.path_and_query() {
        Some(whole) => {
            let (path, query) = whole.split_at(memchr::memchr(b'?', whole).unwrap_or(whole.len()));
            if edits.host.is_none() {
                // Of an absolute target what it names stays.
                out.extend_from_slice(&buf[begin..usize::from(target.path_and_query.start)]);
            }
            out.extend_from_slice(edits.path.unwrap_or(path));
            out.extend_from_slice(query);
        }
        // One that names a host, which is another now, and no path (RFC 9112 section 3.2.4).
        None if edits.host.is_some() && !target.authority.of(buf).is_empty() => {
            out.push(if view.method() == Method::Options { b'*' } else { b'/' });
        }
        None => out.extend_from_slice(&buf[begin..end]),
    }
    out.extend_from_slice(&buf[end..first]);
    line(out, b"host: ", edits.host);
    first
}

/// The lines that are added where policies have the last word about them.
fn write_changed(out: &mut Vec<u8>, edits: &RequestEdits<'_>) {
    let changes = &edits.fields;
    let stays = |name: &[u8]| !changes.removes(name, Known::of(name));
    for (name, value) in
        [("x-forwarded-port", edits.forwarded_port), ("x-forwarded-proto", edits.forwarded_proto)]
    {
        field(out, name.as_bytes(), value.filter(|_| stays(name.as_bytes())));
    }
    for text in edits.set.lines.split_inclusive(|byte| *byte == b'\n') {
        if stays(text.split(|byte| *byte == b':').next().unwrap_or_default()) {
            out.extend_from_slice(text);
        }
    }
    let name = b"x-forwarded-for";
    field(out, name, edits.forwarded_for.filter(|_| stays(name)));
    changes.added().for_each(|(name, value)| field(out, name, Some(value)));
}

/// Appends the response's head to `out`, for a client. The version is HTTP/1.1 always.
pub fn write_response(
    out: &mut Vec<u8>,
    view: &ResponseView<'_>,
    hop: ResponseHop,
    edits: &ResponseEdits<'_>,
) {
    let fields = &view.head.fields;
    let status = view.status();
    let mut drop = HOP_BY_HOP;
    if status < 200 || status == 204 || hop.tunnel {
        drop.insert(Known::ContentLength);
        drop.insert(Known::TransferEncoding);
    }
    if hop.transfer == Transfer::UntilClose {
        drop.insert(Known::TransferEncoding);
        drop.insert(Known::Trailer);
    }
    let touched = edits.touches();
    drop.insert_all(touched);
    // 426 must say what to upgrade to.
    let required = status == 426 && view.has(Known::Upgrade);
    let upgrade = hop.connection == Connection::Upgrade || required;
    out.extend_from_slice(b"HTTP/1.1");
    copy(out, fields, view.buf, b"HTTP/1.1".len(), drop, |_, field| match field.known {
        Known::Upgrade => !upgrade,
        known if touched.contains(known) => {
            edits.removes(field.name.of(view.buf), known, field.value.of(view.buf))
        }
        _ => true,
    });
    for (name, value) in edits.added() {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        value.iter().for_each(|piece| out.extend_from_slice(piece));
        out.extend_from_slice(b"\r\n");
    }
    if hop.transfer == Transfer::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    // An interim response says nothing about the connection; the final one does.
    if status >= 200 || hop.connection == Connection::Upgrade {
        write_connection(out, hop.client, hop.connection, required.then_some(b"upgrade"));
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
        (Connection::Persistent, Version::Http10) => b"keep-alive",
        (Connection::Persistent, _) => b"",
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

/// Whether a value of `Expect` has `100-continue` in it, however it is written.
fn expects_continue(value: &[u8]) -> bool {
    let quoted = |byte: &u8| matches!(byte, b'"' | b'\\');
    scan::list(value).any(|expectation| {
        let plain = expectation.iter().filter(|byte| !quoted(byte)).take(b"100-continue".len());
        plain.map(u8::to_ascii_lowercase).eq(*b"100-continue")
    })
}

fn field(out: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) {
    if let Some(value) = value {
        out.extend_from_slice(name);
        line(out, b": ", Some(value));
    }
}

fn line(out: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) {
    if let Some(value) = value {
        out.extend_from_slice(name);
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

/// Copies `buf` from `start`, in the first line, to the last field, without the fields in `drop` for which `edit` says
/// so, after it has perhaps written a replacement.
///
/// What `Connection` names besides stays, as in HAProxy: a client must not take away what a proxy in front has added or
/// what the member decides by, whatever its name is. The member is not told that it was named.
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
    if !fields.present.intersects(drop) && !drop.contains(Known::Other) {
        out.extend_from_slice(&buf[start..end]);
        return;
    }
    let mut from = start;
    for (i, field) in fields.list.iter().enumerate() {
        if !drop.contains(field.known) {
            continue;
        }
        let begin = usize::from(field.name.start);
        let next = fields.list.get(i + 1).map_or(end, |field| usize::from(field.name.start));
        out.extend_from_slice(&buf[from..begin]);
        from = if edit(out, field) { next } else { begin };
    }
    out.extend_from_slice(&buf[from..end]);
}

#[cfg(test)]
mod tests;
