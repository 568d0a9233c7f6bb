//! A client's stream of HTTP/2: one request, and its response.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use h2::Reason;
use tokio::time::Instant;

use super::{
    address::ClientAddress,
    body::{Sink, Source},
    own::OwnConnections,
};
use crate::{
    conn::Deadline,
    http::{ResponseEdits, ResponseHead, ResponseView, fill::WEBSOCKET_KEY_LEN, websocket},
    http2::{RecvBody, Responder, SendBody, head, hpack::FieldList},
    limits::rate::Farewell,
    tls::PeerFacts,
};

/// What the streams of one client's connection share.
pub(in crate::session) struct ClientStreams {
    pub(in crate::session) address: SocketAddr,
    pub(super) address_text: RefCell<ClientAddress>,
    /// The address that the client has connected to.
    pub(super) local: Option<SocketAddr>,
    /// What is known of a client that speaks TLS.
    pub(super) facts: Option<Rc<PeerFacts>>,
    /// Connections to members that serve this client alone.
    pub(super) own: RefCell<OwnConnections>,
    /// The connection is to go.
    pub(super) farewell: Cell<Option<Farewell>>,
    /// The task of the connection, once one of its streams could end it.
    pub(super) connection: RefCell<Option<Waker>>,
}

impl ClientStreams {
    /// The connection goes, and all of its streams with it.
    pub(super) fn drop_off(&self, farewell: Farewell) {
        self.farewell.set(Some(farewell));
        if let Some(connection) = &*self.connection.borrow() {
            connection.wake_by_ref();
        }
    }

    /// Whether it is to go; asked by its task, which is woken when it is.
    #[inline]
    pub(super) fn farewell(&self, cx: &Context<'_>) -> Option<Farewell> {
        let mut connection = self.connection.borrow_mut();
        if connection.is_none() {
            *connection = Some(cx.waker().clone());
        }
        self.farewell.get()
    }
}

/// A stream of a client's.
pub(in crate::session) struct ClientStream {
    pub(super) client: Rc<ClientStreams>,
    pub(super) body: RecvBody,
    response: Sending,
    pub(super) deadline: Deadline,
    /// The client had asked for nothing before.
    pub(super) is_first: bool,
    /// What a member is asked with for an extended CONNECT.
    key: Option<Box<[u8; WEBSOCKET_KEY_LEN]>>,
}

/// How far the response is.
enum Sending {
    Nothing(Responder),
    Body(SendBody),
    Ended,
}

impl ClientStream {
    /// With a deadline that is not set.
    pub(in crate::session) fn new(
        client: Rc<ClientStreams>,
        body: RecvBody,
        respond: Responder,
        deadline: Deadline,
        is_first: bool,
    ) -> Self {
        Self { client, body, response: Sending::Nothing(respond), deadline, is_first, key: None }
    }

    pub(super) fn source(&mut self) -> Source<'_> {
        Source::Http2(&mut self.body)
    }

    pub(super) fn sink(&mut self) -> Sink<'_> {
        match &mut self.response {
            Sending::Body(body) => Sink::Http2(body),
            Sending::Nothing(_) | Sending::Ended => Sink::Ended,
        }
    }

    /// Ready when the client has reset the stream, or its connection has ended.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.body.absorb(cx);
        match &mut self.response {
            Sending::Nothing(respond) => respond.poll_broken(cx).map(drop),
            Sending::Body(body) => body.poll_broken(cx).map(drop),
            Sending::Ended => Poll::Pending,
        }
    }

    /// What a member is to be asked with, should the request be an extended CONNECT.
    pub(super) fn websocket_key(&mut self, fields: &FieldList) -> Option<[u8; WEBSOCKET_KEY_LEN]> {
        if !head::is_extended_connect(fields) {
            return Some([b'='; WEBSOCKET_KEY_LEN]);
        }
        let key = websocket::key()?;
        self.key = Some(Box::new(key));
        Some(key)
    }

    /// Whether this can be the response: to an extended CONNECT the member agrees by switching protocols, and by nothing else.
    pub(super) fn may_have(&self, response: &ResponseView<'_>, switching: bool) -> bool {
        let Some(key) = &self.key else { return true };
        if switching {
            response
                .values(b"sec-websocket-accept")
                .next()
                .is_some_and(|accept| websocket::accepts(key, accept))
        } else {
            !matches!(response.status(), 200..=299)
        }
    }

    /// Sends an interim response; says how much that was.
    pub(super) fn send_interim(&mut self, view: &ResponseView<'_>) -> io::Result<usize> {
        let response = head::response(view, &ResponseEdits::default(), false);
        let length = response.text();
        match &mut self.response {
            Sending::Nothing(respond) => respond.send_interim(response).map_err(|_| broken())?,
            _ => return Err(broken()),
        }
        Ok(length)
    }

    /// Sends the head of the response, and with `end` nothing else; says how much that was. One that `switching` is the beginning
    /// of a tunnel.
    pub(super) fn send_head(
        &mut self,
        view: &ResponseView<'_>,
        edits: &ResponseEdits<'_>,
        switching: bool,
        end: bool,
    ) -> io::Result<usize> {
        let Sending::Nothing(respond) = &mut self.response else { return Err(broken()) };
        let response = head::response(view, edits, switching);
        let length = response.text();
        let body = respond.send_head(response, end).map_err(|_| broken())?;
        self.response = if end { Sending::Ended } else { Sending::Body(body) };
        Ok(length)
    }

    /// Sends a response of the proxy's own, whose text as one of HTTP/1.1 this is, within `timeout`.
    pub(in crate::session) async fn reply(&mut self, text: &[u8], timeout: Duration) -> io::Result<()> {
        let length = self.begin_reply(text, false)?;
        let body = Bytes::copy_from_slice(&text[length..]);
        if body.is_empty() { Ok(()) } else { self.send_data(body, true, timeout).await }
    }

    /// Sends the head of a response of the proxy's own, whose text as one of HTTP/1.1 begins so; says how long it is. That ends the
    /// response if nothing is behind it, and no `more` comes.
    pub(in crate::session) fn begin_reply(&mut self, text: &[u8], more: bool) -> io::Result<usize> {
        let mut parsed = ResponseHead::new();
        let Ok(Some(length)) = parsed.parse(text) else { return Err(broken()) };
        let end = text.len() == length && !more;
        self.send_head(&parsed.view(text), &ResponseEdits::default(), false, end)?;
        Ok(length)
    }

    /// Sends data behind the head of the response, and with `end` ends it, within `timeout`.
    pub(in crate::session) async fn send_data(
        &mut self,
        mut body: Bytes,
        end: bool,
        timeout: Duration,
    ) -> io::Result<()> {
        self.deadline.set(Some(Instant::now() + timeout));
        poll_fn(|cx| {
            loop {
                let Sending::Body(stream) = &mut self.response else { return Poll::Ready(Err(broken())) };
                match stream.poll_capacity(cx, body.len()) {
                    Poll::Ready(Ok(n)) => {
                        let piece = body.split_to(n);
                        let last = !body.has_remaining();
                        stream.send(piece, last && end).map_err(|_| broken())?;
                        if last && end {
                            self.response = Sending::Ended;
                        }
                        if last {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(broken())),
                    Poll::Pending => {
                        self.body.absorb(cx);
                        return self.deadline.poll_expired(cx).map(|()| Err(io::ErrorKind::TimedOut.into()));
                    }
                }
            }
        })
        .await
    }

    /// Nothing more follows, and what was sent is not to be taken for the whole.
    pub(in crate::session) fn reset(&mut self, reason: Reason) {
        match &mut self.response {
            Sending::Nothing(respond) => respond.reset(reason),
            Sending::Body(body) => body.reset(reason),
            Sending::Ended => {}
        }
        self.response = Sending::Ended;
    }
}

fn broken() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}
