//! What the readers of bytes from outside must hold for any bytes at all: each function panics where it does not.
//!
//! * here: the HTTP/1.1 engine's heads and chunks; `stream`: its requests, beside hyper
//! * `document`: the load balancer's document and the update of a member
//! * `l7`: rules and their regular expressions
//! * `http2`: frames of HTTP/2, and the requests in them
//! * `log_format`: formats of flow logs
//! * `cookies`: `Cookie` and `Set-Cookie`
//! * `peers`: what the other proxy of a pair says
//! * `proxy_header`: the PROXY protocol, which is only written
//! * `tls`: what a client says first
//!
//! The property tests beside this directory and the fuzz targets in `tests/fuzz` call the same functions.

#![allow(dead_code, unused_imports)]

mod cookies;
mod document;
mod http2;
mod l7;
mod log_format;
mod peers;
mod proxy_header;
mod stream;
mod tls;

use amphora_proxy::{
    http::{
        Known, Method, Reject, RequestEdits, RequestHead, RequestView, ResponseEdits, ResponseHead,
        ResponseView, cookie_values,
    },
    http1::{
        Body, ChunkedDecoder, Connection, Piece, ResponseHop, request_framing, response_framing,
        write_chunk_header, write_request, write_response,
    },
};

pub(crate) use self::{
    cookies::cookies,
    document::{document, member_update},
    http2::{hpack, http2_server},
    l7::l7,
    log_format::log_format,
    peers::peers,
    proxy_header::proxy_header,
    stream::{Comparison, request_stream},
    tls::tls_hello,
};

/// The cuts in which input is fed again: byte by byte while that is cheap.
fn steps(len: usize) -> [usize; 3] {
    [if len <= 1024 { 1 } else { 241 }, 7 + len / 64, 64 + len / 3]
}

/// A request head: cut into pieces it parses as in one; httparse, where it accepts it too, reads the same; what is
/// refused by httparse is refused; written out, it is the same request.
pub(crate) fn request_head(data: &[u8]) {
    let mut head = RequestHead::new();
    let whole = head.parse(data);
    for step in steps(data.len()) {
        let mut again = RequestHead::new();
        assert_eq!(in_steps(data, step, |part| again.parse(part)), whole, "in steps of {step}");
    }
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut peer = httparse::Request::new(&mut fields);
    let theirs = peer.parse(data);
    let Ok(Some(len)) = whole else { return };
    assert_eq!(theirs, Ok(httparse::Status::Complete(len)));
    let view = head.view(data);
    assert_eq!(peer.method.map(str::as_bytes), Some(view.method_bytes()));
    assert_eq!(peer.path.map(str::as_bytes), Some(view.target()));
    assert!(
        peer.headers.iter().map(|h| (h.name.as_bytes(), h.value)).eq(view.fields().map(|(n, v, _)| (n, v)))
    );
    if let Ok(framing) = request_framing(&view) {
        written_request(&view, framing.body);
    }
}

fn written_request(view: &RequestView<'_>, body: Body) {
    let all = RequestEdits {
        forwarded_for: Some(b"192.0.2.1"),
        forwarded_port: Some(b"80"),
        forwarded_proto: Some(b"http"),
        strip_cookie: Some(b"SRV"),
        drop_expect: true,
        ..RequestEdits::default()
    };
    for edits in [RequestEdits::default(), all] {
        let edited = edits.strip_cookie.is_some();
        let mut out = Vec::new();
        let connection = if edited { Connection::Close } else { Connection::Persistent };
        write_request(&mut out, view, connection, &edits);
        let mut head = RequestHead::new();
        match head.parse(&out) {
            Ok(len) => assert_eq!(len, Some(out.len())),
            Err(Reject::HeadTooLarge | Reject::TooManyFields) if edited || view.fields().count() > 98 => {
                continue;
            }
            Err(reject) => panic!("{reject}: {:?}", out.escape_ascii().to_string()),
        }
        let after = head.view(&out);
        assert_eq!((after.method_bytes(), after.target()), (view.method_bytes(), view.target()));
        assert_eq!(after.version(), view.version());
        assert_eq!(request_framing(&after).map(|framing| framing.body), Ok(body));
        let options: Vec<&[u8]> = options(view.values(b"connection"));
        let kept = |name: &[u8], known: Known| {
            let edited = edited
                && matches!(
                    known,
                    Known::XForwardedFor
                        | Known::XForwardedPort
                        | Known::XForwardedProto
                        | Known::Cookie
                        | Known::Expect
                );
            let of_requests = known == Known::Http2Settings;
            !edited && !may_be_nominated(&options, name, known) && !is_hop_by_hop(known) && !of_requests
        };
        let before: Vec<_> = view.fields().filter(|&(name, _, known)| kept(name, known)).collect();
        let after_fields: Vec<_> = after.fields().filter(|&(name, _, known)| kept(name, known)).collect();
        assert_eq!(after_fields, before);
        if edited {
            assert_eq!(after.values(b"cookie").flat_map(|value| cookie_values(value, b"SRV")).count(), 0);
            assert_eq!(after.values(b"x-forwarded-port").collect::<Vec<_>>(), [b"80"]);
            assert_eq!(after.values(b"x-forwarded-for").last(), Some(b"192.0.2.1".as_slice()));
            assert!(!after.has(Known::Upgrade));
        }
    }
}

/// Whether `Connection` names the field, so that it may be gone; it is not when it means something end to end.
fn may_be_nominated(options: &[&[u8]], name: &[u8], known: Known) -> bool {
    known == Known::Other && options.iter().any(|option| option.eq_ignore_ascii_case(name))
}

/// Whether the field is of one connection, not of the message (RFC 9110 section 7.6.1), the framing aside.
fn is_hop_by_hop(known: Known) -> bool {
    matches!(
        known,
        Known::Connection | Known::KeepAlive | Known::ProxyConnection | Known::Te | Known::Upgrade
    )
}

/// A response head: as for requests.
pub(crate) fn response_head(data: &[u8]) {
    let mut head = ResponseHead::new();
    let whole = head.parse(data);
    for step in steps(data.len()) {
        let mut again = ResponseHead::new();
        assert_eq!(in_steps(data, step, |part| again.parse(part)), whole, "in steps of {step}");
    }
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut peer = httparse::Response::new(&mut fields);
    let theirs = peer.parse(data);
    let Ok(Some(len)) = whole else { return };
    let view = head.view(data);
    if theirs.is_err() && view.reason().iter().any(|b| !b.is_ascii()) {
        return;
    }
    assert_eq!(theirs, Ok(httparse::Status::Complete(len)));
    assert_eq!(peer.code, Some(view.status()));
    assert!(
        peer.headers.iter().map(|h| (h.name.as_bytes(), h.value)).eq(view.fields().map(|(n, v, _)| (n, v)))
    );
    for method in [Method::Get, Method::Head] {
        if let Ok(framing) = response_framing(method, true, &view) {
            written_response(&view, method, framing.switching, framing.body);
        }
    }
}

fn written_response(view: &ResponseView<'_>, method: Method, switching: bool, body: Body) {
    let connection = if view.status() == 101 { Connection::Upgrade } else { Connection::Persistent };
    let hop = ResponseHop { connection, tunnel: switching, ..ResponseHop::default() };
    let all = ResponseEdits {
        strip_cookie: Some(b"SRV"),
        insert_cookie: Some((b"SRV", b"mine")),
        private: true,
        ..ResponseEdits::default()
    };
    for edits in [ResponseEdits::default(), all] {
        let edited = edits.private;
        let mut out = Vec::new();
        write_response(&mut out, view, hop, &edits);
        let mut head = ResponseHead::new();
        let Ok(len) = head.parse(&out) else {
            assert!(
                out.len() > 16 * 1024 || view.fields().count() > 96,
                "{:?}",
                out.escape_ascii().to_string()
            );
            continue;
        };
        assert_eq!(len, Some(out.len()));
        let after = head.view(&out);
        assert_eq!((after.status(), after.reason()), (view.status(), view.reason()));
        let framing = response_framing(method, true, &after).expect("what was written is framed");
        assert_eq!((framing.body, framing.switching), (body, switching));
        let options: Vec<&[u8]> = options(view.values(b"connection"));
        let kept = |name: &[u8], known: Known| {
            let edited = edited && matches!(known, Known::SetCookie | Known::CacheControl);
            let nominated = may_be_nominated(&options, name, known);
            let length = matches!(known, Known::ContentLength | Known::TransferEncoding);
            !edited && !nominated && !length && !is_hop_by_hop(known)
        };
        let before: Vec<_> = view.fields().filter(|&(name, _, known)| kept(name, known)).collect();
        let after_fields: Vec<_> = after.fields().filter(|&(name, _, known)| kept(name, known)).collect();
        assert_eq!(after_fields, before);
        if edited {
            let own = |value: &&[u8]| value.starts_with(b"SRV=");
            assert_eq!(after.values(b"set-cookie").filter(own).collect::<Vec<_>>(), [b"SRV=mine; path=/"]);
        }
    }
}

/// A chunked body: cut into pieces it decodes as in one; its data, encoded again, is its data; a reader that knows only
/// the bare grammar finds the same.
pub(crate) fn chunked(data: &[u8]) {
    let whole = decode(data, data.len().max(1));
    for step in steps(data.len()) {
        assert_eq!(decode(data, step), whole, "in steps of {step}");
    }
    let verbatim = ChunkedDecoder::new().decode(data);
    match (&whole, verbatim) {
        (Err(ours), Err(theirs)) => assert_eq!(*ours, theirs),
        (Ok((_, consumed, done)), Ok(step)) => assert_eq!((step.consumed, step.done), (*consumed, *done)),
        (ours, theirs) => panic!("{ours:?} and {theirs:?}"),
    }
    let Ok((decoded, consumed, true)) = whole else { return };
    let (plain, len) = read_chunks(data).expect("a decoded body is in the grammar");
    assert_eq!((plain.as_slice(), len), (decoded.as_slice(), consumed));
    let mut encoded = Vec::new();
    for chunk in decoded.chunks(13) {
        write_chunk_header(&mut encoded, chunk.len() as u64);
        encoded.extend_from_slice(chunk);
        encoded.extend_from_slice(b"\r\n");
    }
    encoded.extend_from_slice(b"0\r\n\r\n");
    let len = encoded.len();
    assert_eq!(decode(&encoded, 5), Ok((decoded, len, true)));
}

/// Decodes in steps: the data, how many bytes belong to the body, whether it ended.
fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), Reject> {
    let mut decoder = ChunkedDecoder::new();
    let mut data = Vec::new();
    let mut total = 0;
    for mut part in input.chunks(step) {
        while !part.is_empty() && !decoder.is_done() {
            let Piece { consumed, data: range, .. } = decoder.decode_data(part)?;
            data.extend_from_slice(&part[range]);
            part = &part[consumed..];
            total += consumed;
        }
    }
    Ok((data, total, decoder.is_done()))
}

/// Reads a complete chunked body by lines, trusting it: the data and the length.
fn read_chunks(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let line_end = |at: usize| Some(at + input.get(at..)?.windows(2).position(|pair| pair == b"\r\n")?);
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let end = line_end(at)?;
        let size = input[at..end].split(|&b| b == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        at = end + 2;
        if size == 0 {
            break;
        }
        data.extend_from_slice(input.get(at..at + size)?);
        at += size + 2;
    }
    loop {
        let end = line_end(at)?;
        let last = end == at;
        at = end + 2;
        if last {
            return Some((data, at));
        }
    }
}

/// Feeds ever longer prefixes of `data` until `parse` says something else than "more".
fn in_steps<E>(
    data: &[u8],
    step: usize,
    mut parse: impl FnMut(&[u8]) -> Result<Option<usize>, E>,
) -> Result<Option<usize>, E> {
    let mut end = 0;
    loop {
        match parse(&data[..end]) {
            Ok(None) if end < data.len() => end = data.len().min(end + step),
            result => return result,
        }
    }
}

/// The elements of comma-separated lists.
fn options<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    values.flat_map(|value| value.split(|&b| b == b',')).map(<[u8]>::trim_ascii).collect()
}
