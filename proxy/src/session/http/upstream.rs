//! Where a request goes, and its response comes from.

use std::{
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::Reason;

use super::{
    body::{Sink, Source},
    exchange::Failure,
};
use crate::{
    conn::{Conn, Inlet},
    http::{Known, Method, RequestHead, ResponseHead, fill::WEBSOCKET_KEY_LEN, websocket},
    http2::{self, Answer, Answered, Place, RecvBody, SendBody, head},
    local::{LocalMember, Slot},
    state::{MemberCounters, Unfit},
};

/// What one exchange has of its member.
pub(super) enum Upstream {
    /// A connection of HTTP/1.1, which carries one exchange at a time.
    Http1(MemberConnection),
    /// A stream of HTTP/2, whose connection carries those of other clients, too.
    Http2(Box<MemberStream>),
}

/// A connection of HTTP/1.1 to a member.
pub(super) struct MemberConnection {
    pub(super) stream: Conn,
    pub(super) inlet: Inlet,
    pub(super) slot: Slot,
}

/// A stream of a member's.
pub(super) struct MemberStream {
    request: Sending,
    body: Option<RecvBody>,
    /// The head of the response that was read last, as that of HTTP/1.1.
    text: Vec<u8>,
    method: Method,
    /// Of an extended CONNECT: the `Sec-WebSocket-Key` of the upgrade that it stands for, and its protocol.
    upgrade: Option<Upgrade>,
    local: Option<SocketAddr>,
    slot: Slot,
}

struct Upgrade {
    key: Option<[u8; WEBSOCKET_KEY_LEN]>,
    protocol: Vec<u8>,
}

/// How far the request is.
enum Sending {
    Nothing(Place),
    /// The last says whether a body follows.
    Sent(Answer, SendBody, bool),
    Failed,
}

impl MemberStream {
    pub(super) fn new(place: Place, slot: Slot) -> Self {
        let local = place.local_addr();
        let request = Sending::Nothing(place);
        let (body, text, upgrade) = Default::default();
        Self { request, body, text, method: Method::Get, upgrade, local, slot }
    }

    /// Sends the head whose text this is; with `end`, that is the request. `table` is there to read it with.
    pub(super) fn send_head(
        &mut self,
        text: &[u8],
        table: &mut RequestHead,
        end: bool,
    ) -> Result<(), Failure> {
        let Sending::Nothing(place) = std::mem::replace(&mut self.request, Sending::Failed) else {
            return Err(Failure::BadResponse);
        };
        table.reset();
        if !matches!(table.parse(text), Ok(Some(length)) if length == text.len()) {
            return Err(Failure::BadResponse);
        }
        let view = table.view(text);
        let member = &self.slot.member().state;
        let at = SocketAddr::new(member.address, member.port);
        let request = head::request(&view, true, at);
        let tunnel = request.is_tunnel;
        if tunnel {
            if !place.takes_extended_connect() {
                tracing::debug!("the member takes no extended CONNECT");
                return Err(Failure::Unfit(Unfit::ExtendedConnect));
            }
            let key = view.values(b"sec-websocket-key").next().and_then(|key| key.try_into().ok());
            let protocol = view.value(Known::Upgrade).unwrap_or_default().to_vec();
            self.upgrade = Some(Upgrade { key, protocol });
        }
        self.method = view.method();
        let end = end && !tunnel;
        let (answer, body) = place.send(request, end).map_err(failure)?;
        self.request = Sending::Sent(answer, body, !end);
        Ok(())
    }

    /// Reads the next head of a response; says how long its text is.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        response: &mut ResponseHead,
    ) -> Poll<Result<usize, Failure>> {
        let Sending::Sent(answer, sent, open) = &mut self.request else {
            return Poll::Ready(Err(Failure::Unanswered));
        };
        let answered = ready!(answer.poll_head(cx)).map_err(failure)?;
        let read = match answered {
            Answered::Interim(head) => {
                head::read_response(&head, self.method, true, response, &mut self.text)
            }
            Answered::Final(head, body) => {
                let ended = body.is_empty();
                self.body = Some(body);
                match self.upgrade.take() {
                    Some(upgrade) if head.status().is_some_and(|status| (200..300).contains(&status)) => {
                        let accept = upgrade.key.as_ref().map(websocket::accept);
                        let accept = accept.as_ref().map(|accept| &accept[..]);
                        head::read_agreement(&head, &upgrade.protocol, accept, response, &mut self.text)
                    }
                    tunnel => {
                        if tunnel.is_some() && std::mem::take(open) {
                            // Nothing more is sent.
                            let _ = sent.send(Bytes::new(), true);
                        }
                        head::read_response(&head, self.method, ended, response, &mut self.text)
                    }
                }
            }
        };
        Poll::Ready(read.map_err(|reason| {
            tracing::debug!(%reason, "bad response");
            sent.reset(Reason::PROTOCOL_ERROR);
            Failure::BadResponse
        }))
    }

    /// What comes, and what goes.
    pub(super) fn both(&mut self) -> (Source<'_>, Sink<'_>) {
        let source = self.body.as_mut().map_or(Source::Ended, Source::Http2);
        let sink = match &mut self.request {
            Sending::Sent(_, body, true) => Sink::Http2(body),
            _ => Sink::Ended,
        };
        (source, sink)
    }
}

fn failure(failure: http2::Failure) -> Failure {
    match failure {
        http2::Failure::NotProcessed => Failure::NotProcessed,
        http2::Failure::Malformed => Failure::BadResponse,
        http2::Failure::Failed(_) => Failure::Unanswered,
    }
}

impl Upstream {
    /// Whether it is a stream of HTTP/2.
    #[inline]
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// The member.
    #[inline]
    pub(super) fn member(&self) -> &Rc<LocalMember> {
        match self {
            Self::Http1(connection) => connection.slot.member(),
            Self::Http2(stream) => stream.slot.member(),
        }
    }

    /// Our address of the connection to the member.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Http1(connection) => connection.stream.local_addr().ok(),
            Self::Http2(stream) => stream.local,
        }
    }

    /// Whether another connection to the member may do better than this has.
    pub(super) fn is_spent(&self) -> bool {
        match self {
            Self::Http1(_) => true,
            Self::Http2(stream) => match &stream.request {
                Sending::Nothing(place) => place.has_ended(),
                Sending::Sent(answer, ..) => answer.place().has_ended(),
                Sending::Failed => true,
            },
        }
    }

    /// The member's.
    #[inline]
    pub(super) fn counters(&self) -> &MemberCounters {
        self.member().counters()
    }

    /// Whether the head of the response is all of it, as far as its frames say.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(stream) => stream.body.as_ref().is_some_and(RecvBody::is_empty),
        }
    }

    /// What begins with the head of a response, once one was read.
    #[inline]
    pub(super) fn head(&self) -> &[u8] {
        match self {
            Self::Http1(connection) => connection.inlet.filled(),
            Self::Http2(stream) => &stream.text,
        }
    }

    /// Drops a head, whose length this is.
    #[inline]
    pub(super) fn consume_head(&mut self, length: usize) {
        match self {
            Self::Http1(connection) => connection.inlet.consume(length),
            Self::Http2(stream) => stream.text = Vec::new(),
        }
    }

    /// Where the body of the response comes from.
    #[inline]
    pub(super) fn source(&mut self) -> Source<'_> {
        match self {
            Self::Http1(connection) => Source::Http1(&mut connection.stream, &mut connection.inlet),
            Self::Http2(stream) => stream.both().0,
        }
    }

    /// Where the body of the request goes.
    #[inline]
    pub(super) fn sink(&mut self) -> Sink<'_> {
        match self {
            Self::Http1(connection) => Sink::Http1(&mut connection.stream),
            Self::Http2(stream) => stream.both().1,
        }
    }
}
