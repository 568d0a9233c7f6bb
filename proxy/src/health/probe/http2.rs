//! The same over HTTP/2, with members that agree on it when they shake hands (HAProxy's `check-alpn h2`).
//!
//! The crate `h2` speaks, at the other end of a pipe in memory: so that this is, like everything here, bytes that came and bytes that
//! are to go.

use std::{
    fmt,
    future::Future as _,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use amphora_model::{HttpCheck, HttpMethod, HttpVersion};
use bytes::Bytes;
use h2::client::{self, Connection, ResponseFuture, SendRequest};
use http::{
    HeaderValue, Method as Verb, Request, Response, Uri, header::CONTENT_LENGTH, uri::PathAndQuery,
    uri::Scheme,
};
use tokio::io::{AsyncRead as _, AsyncWrite as _, DuplexStream, ReadBuf, duplex};

use super::{
    http::judge,
    outcome::{CheckStatus, Found},
};
use crate::{
    http::{MAX_HEAD, Method, ResponseHead},
    http2::{
        head,
        hpack::{Bounds, FieldList},
    },
};

/// Bytes that are under way in the pipe, each way.
const PIPE: usize = 16 * 1024;

/// Of the body nothing is wanted: the target may send so much, and then waits.
const WINDOW: u32 = 4 * 1024;

/// One question on a connection of its own.
pub(super) struct Exchange {
    pipe: DuplexStream,
    connection: Connection<DuplexStream, Bytes>,
    /// Without it the connection would come to its end.
    _send: SendRequest<Bytes>,
    response: ResponseFuture,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exchange")
    }
}

impl Exchange {
    /// Asks; what is to be sent goes to `out`.
    ///
    /// # Errors
    /// When HTTP/2 cannot carry it.
    pub(super) fn begin(check: &HttpCheck, target: SocketAddr, out: &mut Vec<u8>) -> Result<Self, Found> {
        let failed = |error: h2::Error| Found::because(CheckStatus::L7Response, error.to_string());
        let request = request(check, target)
            .ok_or_else(|| Found::because(CheckStatus::L7Response, "request that HTTP/2 cannot carry"))?;
        let (pipe, other) = duplex(PIPE);
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(WINDOW)
            .max_header_list_size(MAX_HEAD as u32)
            .max_send_buffer_size(PIPE);
        let handshake = pin!(builder.handshake::<_, Bytes>(other));
        // The pipe has room for all that is said at first.
        let Poll::Ready(opened) = handshake.poll(&mut Context::from_waker(Waker::noop())) else {
            return Err(Found::because(CheckStatus::SocketError, "no room for the preface"));
        };
        let (mut send, connection) = opened.map_err(failed)?;
        let (response, _) = send.send_request(request, true).map_err(failed)?;
        let mut exchange = Self { pipe, connection, _send: send, response };
        match exchange.take(check, b"", false, out) {
            Some(found) => Err(found),
            None => Ok(exchange),
        }
    }

    /// Takes what has come, `ended` when nothing will come behind it; what is to be sent goes to `out`. `None` while the answer is not
    /// there.
    pub(super) fn take(
        &mut self,
        check: &HttpCheck,
        mut bytes: &[u8],
        ended: bool,
        out: &mut Vec<u8>,
    ) -> Option<Found> {
        let mut context = Context::from_waker(Waker::noop());
        let cx = &mut context;
        loop {
            let mut moved = false;
            if !bytes.is_empty()
                && let Poll::Ready(Ok(n)) = Pin::new(&mut self.pipe).poll_write(cx, bytes)
            {
                bytes = &bytes[n..];
                moved = n > 0;
            }
            // That it has come to its end, or has failed, is what the response says, too.
            let over = Pin::new(&mut self.connection).poll(cx).is_ready();
            moved |= self.drain(cx, out);
            if let Poll::Ready(response) = Pin::new(&mut self.response).poll(cx) {
                return Some(match response {
                    Ok(response) => answer(check, response),
                    Err(error) => Found::because(CheckStatus::L7Response, error.to_string()),
                });
            }
            if over || !moved {
                let why = "connection closed without a response";
                return (over || ended).then(|| Found::because(CheckStatus::L7Response, why));
            }
        }
    }

    /// Whether there was something to be sent.
    fn drain(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        let mut piece = [0; 1024];
        loop {
            let mut read = ReadBuf::new(&mut piece);
            match Pin::new(&mut self.pipe).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => out.extend_from_slice(read.filled()),
                _ => return out.len() > before,
            }
        }
    }
}

/// What [`super::http::request`] asks in HTTP/1. Without a domain name the authority is the target, as for requests of clients who name none:
/// HAProxy leaves it out, and what nginx answers to that is 400.
fn request(check: &HttpCheck, target: SocketAddr) -> Option<Request<()>> {
    let HttpCheck { method, url_path, version, domain_name, .. } = check;
    let name = domain_name.as_deref().filter(|_| *version == HttpVersion::Http11);
    let mut uri = http::uri::Parts::default();
    uri.authority = Some(name.map_or_else(|| target.to_string(), str::to_owned).parse().ok()?);
    if *method != HttpMethod::Connect {
        uri.scheme = Some(Scheme::HTTPS);
        uri.path_and_query = Some(url_path.parse::<PathAndQuery>().ok()?);
    }
    let mut request = Request::new(());
    *request.method_mut() = Verb::from_bytes(method.as_str().as_bytes()).ok()?;
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    if matches!(method, HttpMethod::Post | HttpMethod::Put | HttpMethod::Patch) {
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    Some(request)
}

/// Reads it as the proxy reads those to its clients.
fn answer(check: &HttpCheck, response: Response<h2::RecvStream>) -> Found {
    let method = Method::of(check.method.as_str().as_bytes());
    let mut fields = FieldList::default();
    fields.push(b":status", response.status().as_str().as_bytes(), Bounds::NONE);
    for (name, value) in response.headers() {
        fields.push(name.as_str().as_bytes(), value.as_bytes(), Bounds::NONE);
    }
    let ended = response.body().is_end_stream();
    let (mut head, mut text) = (ResponseHead::new(), Vec::new());
    match head::read_response(&fields, method, ended, &mut head, &mut text) {
        Ok(_) => judge(check, response.status().as_u16()),
        Err(bad) => Found::because(CheckStatus::L7Response, bad.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

    fn check(method: HttpMethod, version: HttpVersion) -> HttpCheck {
        HttpCheck {
            method,
            url_path: "/p?x=1".into(),
            version,
            domain_name: Some("www.example.com".into()),
            expected_codes: vec![(200, 200)],
        }
    }

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// `:status` 200 with these fields, none of them indexed.
    fn head(fields: &[(&str, &str)], ends: bool) -> Vec<u8> {
        let mut block = vec![0x88];
        for (name, value) in fields {
            for text in [name, value] {
                if text == name {
                    block.push(0);
                }
                block.push(u8::try_from(text.len()).unwrap());
                block.extend_from_slice(text.as_bytes());
            }
        }
        frame(1, 4 | u8::from(ends), 1, &block)
    }

    /// What comes of these bytes behind the target's SETTINGS, in pieces of every size alike.
    fn found(bytes: &[u8], ended: bool) -> Option<(CheckStatus, Option<u16>)> {
        let check = check(HttpMethod::Get, HttpVersion::Http11);
        let bytes = [SETTINGS, bytes].concat();
        let in_pieces = |size: usize| {
            let mut out = Vec::new();
            let mut exchange = Exchange::begin(&check, ([127, 0, 0, 1], 80).into(), &mut out).unwrap();
            let early = bytes.chunks(size).find_map(|piece| exchange.take(&check, piece, false, &mut out));
            early
                .or_else(|| exchange.take(&check, b"", ended, &mut out))
                .map(|found| (found.status, found.code))
        };
        let whole = in_pieces(bytes.len());
        assert_eq!((in_pieces(1), in_pieces(7)), (whole, whole));
        whole
    }

    #[test]
    fn an_answer_is_judged_as_soon_as_its_head_is_there() {
        let ok = Some((CheckStatus::L7Ok, Some(200)));
        let failed = Some((CheckStatus::L7Response, None));
        assert_eq!(found(b"", false), None);
        assert_eq!(found(b"", true), failed);
        assert_eq!(found(&head(&[], true), false), ok);
        assert_eq!(found(&head(&[("content-length", "5")], false), false), ok);
        let another = frame(1, 5, 1, &[0x8d]);
        assert_eq!(found(&another, false), Some((CheckStatus::L7Status, Some(404))));
        // 103 goes before.
        let interim = frame(1, 4, 1, b"\x08\x03103");
        assert_eq!(found(&interim, false), None);
        assert_eq!(found(&[interim, head(&[], true)].concat(), false), ok);
        // What no client would be given.
        assert_eq!(found(&head(&[("content-length", "5x")], false), false), failed);
        assert_eq!(found(&head(&[("connection", "close")], true), false), failed);
        let long = "x".repeat(100);
        assert_eq!(found(&head(&[("a", long.as_str()); 120], true), false), failed);
        for end in
            [frame(3, 0, 1, &[0, 0, 0, 8]), frame(7, 0, 0, &[0; 8]), b"HTTP/1.1 400 Bad\r\n\r\n".to_vec()]
        {
            assert_eq!(found(&end, false), failed, "{end:?}");
        }
    }

    #[test]
    fn the_question_is_that_of_http1() {
        let asked = |method, version| {
            let request = request(&check(method, version), ([192, 0, 2, 1], 443).into()).unwrap();
            let length =
                request.headers().get(CONTENT_LENGTH).map(|value| value.to_str().unwrap().to_owned());
            (request.method().to_string(), request.uri().to_string(), length)
        };
        use HttpMethod::*;
        let all = |method: &str, uri: &str, length: Option<&str>| {
            (method.to_owned(), uri.to_owned(), length.map(str::to_owned))
        };
        assert_eq!(asked(Get, HttpVersion::Http11), all("GET", "https://www.example.com/p?x=1", None));
        assert_eq!(asked(Head, HttpVersion::Http10), all("HEAD", "https://192.0.2.1:443/p?x=1", None));
        assert_eq!(asked(Put, HttpVersion::Http11), all("PUT", "https://www.example.com/p?x=1", Some("0")));
        assert_eq!(asked(Connect, HttpVersion::Http11), all("CONNECT", "www.example.com", None));
    }
}
