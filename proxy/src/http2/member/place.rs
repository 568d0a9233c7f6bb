//! One request on a connection to a member, and what comes of it.

use std::{
    fmt,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, ready},
};

use ::http::{Method, Request};
use h2::{
    Reason,
    client::{ResponseFuture, SendRequest},
};

use super::{MemberStreams, Shared, connection::Link};
use crate::http2::{
    body::{Broken, RecvBody, SendBody},
    head::RequestBlock,
    heads::StreamHeads,
    hpack::FieldList,
};

/// Why a request has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The member has not processed it and will not: it may be sent to another connection, or another member, whatever its
    /// method (RFC 9113 section 8.7).
    NotProcessed,
    /// What the member has sent is no response.
    Malformed,
    /// The member may have processed it.
    Failed(Broken),
}

impl Failure {
    /// `has_http1`: what requires HTTP/1.1 can be asked for in that.
    fn of(error: &h2::Error, has_http1: impl FnOnce() -> bool) -> Self {
        // It has not acted on what it wants to be asked for otherwise.
        if requires_http1(error) && has_http1() {
            return Self::NotProcessed;
        }
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        // GOAWAY fails the streams that it says are not processed, and no others.
        if error.is_remote() && (refused || error.is_go_away()) {
            return Self::NotProcessed;
        }
        if error.is_library() && error.is_reset() {
            return Self::Malformed;
        }
        Self::Failed(Broken::of(error))
    }
}

/// Whether a member has said that it requires HTTP/1.1 (RFC 9113 section 7), of a stream or of the connection.
pub(super) fn requires_http1(error: &h2::Error) -> bool {
    error.is_remote() && error.reason() == Some(Reason::HTTP_1_1_REQUIRED)
}

/// A place for one request on a connection, until it is dropped.
pub struct Place {
    link: Rc<Link>,
    shared: Weak<Shared>,
}

impl Place {
    pub(super) fn on(link: &Rc<Link>, shared: &Rc<Shared>) -> Self {
        link.streams.set(link.streams.get() + 1);
        shared.set_idle(link, false);
        Self { link: Rc::clone(link), shared: Rc::downgrade(shared) }
    }

    /// Whether the member takes extended CONNECT (RFC 8441), as far as it has said.
    pub fn takes_extended_connect(&self) -> bool {
        self.link.send.borrow().as_ref().is_some_and(SendRequest::is_extended_connect_protocol_enabled)
    }

    /// Waits for the member's SETTINGS, or the end of the connection.
    pub async fn settled(&self) {
        let mut waits = false;
        while !self.link.settled.get()
            && !self.has_ended()
            && let Some(shared) = self.shared.upgrade()
        {
            let streams = MemberStreams(shared);
            poll_fn(|cx| streams.poll_changed(cx, &mut waits)).await;
            waits = false;
        }
    }

    /// Whether the connection takes no more requests.
    pub fn has_ended(&self) -> bool {
        self.link.ended.get()
    }

    /// Our address of the connection.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.link.local
    }

    /// Sends a request; with `end`, that is all of it. The place is the stream's until its [`Answer`] is dropped.
    ///
    /// # Errors
    /// When it is not sent.
    pub fn send(self, request: RequestBlock, end: bool) -> Result<(Answer, SendBody), Failure> {
        let Some(mut send) = self.link.send.borrow().clone() else { return Err(Failure::NotProcessed) };
        // Of the method the library is to know whether a length is that of a body.
        let mut skeleton = Request::new(());
        *skeleton.method_mut() = if request.is_head { Method::HEAD } else { Method::GET };
        let sent = send.send_request(skeleton, end).map_err(|error| {
            // Nothing has left but what the library refuses to send.
            if error.is_io() || error.is_go_away() || error.is_reset() {
                Failure::NotProcessed
            } else {
                Failure::Failed(Broken::Gone)
            }
        });
        let (response, stream) = sent?;
        let heads = StreamHeads::new(self.link.wire.borrow().traffic(), stream.stream_id().as_u32());
        heads.put(request.block);
        let body = SendBody::new(stream, self.link.budget.clone(), Rc::clone(&heads));
        Ok((Answer { response, heads, place: self }, body))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.link.streams.set(self.link.streams.get() - 1);
        if self.link.streams.get() == 0 {
            // Its time begins.
            self.link.wake();
        }
        if let Some(shared) = self.shared.upgrade() {
            if self.link.streams.get() == 0 && !self.link.ended.get() {
                shared.set_idle(&self.link, true);
            }
            shared.changed();
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("streams", &self.link.streams.get()).finish_non_exhaustive()
    }
}

/// What comes of a request. Dropping it resets the stream, unless it has ended.
#[derive(Debug)]
pub struct Answer {
    response: ResponseFuture,
    heads: Rc<StreamHeads>,
    place: Place,
}

/// The head of a response, for [`read_response`](crate::http2::head::read_response).
#[derive(Debug)]
pub enum Answered {
    /// Another follows.
    Interim(FieldList),
    /// The last.
    Final(FieldList, RecvBody),
}

impl Answer {
    /// The next head.
    ///
    /// # Errors
    /// When there is none; [`Failure::NotProcessed`] lets it be tried elsewhere.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answered, Failure>> {
        if let Some(interim) = ready!(self.response.poll_informational(cx)) {
            interim.map_err(|error| self.failure(&error))?;
            return Poll::Ready(self.heads.take().map(Answered::Interim).ok_or(Failure::Malformed));
        }
        let response = ready!(Pin::new(&mut self.response).poll(cx)).map_err(|error| self.failure(&error))?;
        let Some(head) = self.heads.take() else { return Poll::Ready(Err(Failure::Malformed)) };
        let backlog = Rc::clone(&self.place.link.backlog);
        let body = response.into_body();
        let ends = body.is_end_stream();
        let body = RecvBody::new(body, ends, Rc::clone(&self.heads), Some(backlog));
        Poll::Ready(Ok(Answered::Final(head, body)))
    }

    fn failure(&self, error: &h2::Error) -> Failure {
        let has_http1 = || self.place.shared.upgrade().is_some_and(|shared| shared.requires_http1());
        match Failure::of(error, has_http1) {
            // The connection has ended before any of it left.
            Failure::Failed(Broken::Gone) if !self.heads.has_left() => Failure::NotProcessed,
            failure => failure,
        }
    }

    /// What it takes on its connection.
    pub fn place(&self) -> &Place {
        &self.place
    }
}
