//! The client's side of an HTTP connection: waiting for a request, reading its head, answering without a member.

use std::{
    future::poll_fn,
    io, mem,
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{address::AddressText, own::OwnConnections};
use crate::{
    conn::{BufferPool, Conn, Deadline, Inlet, Then},
    http::{Reject, RequestHead},
    local::{Enlisted, LocalListener},
    session::CLOSING_GRACE,
};

/// After a response that leaves request bytes unread, the connection is closed in two steps, or the reset that
/// the unread bytes cause would overtake the response. This is how long and how much is read in between.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

/// A client's connection.
pub(in crate::session) struct Client {
    pub(in crate::session) stream: Conn,
    pub(in crate::session) address: SocketAddr,
    pub(super) address_text: AddressText,
    pub(in crate::session) inlet: Inlet,
    pub(in crate::session) deadline: Deadline,
    /// Requests read so far.
    pub(in crate::session) requests: u64,
    /// When something last came or went, as far as the clock was read: a wait begins here.
    pub(in crate::session) active: Instant,
    /// Connections to members that serve this client alone.
    pub(super) own: OwnConnections,
    /// Wakes the task when its listener closes.
    closing: Enlisted,
}

/// What ended the wait for a request.
pub(in crate::session) enum Begin {
    /// Bytes are there.
    Bytes,
    /// The client has closed, or its connection failed.
    Gone,
    /// The listener wants idle connections gone.
    Unwanted,
    /// Nothing came in time.
    Late,
}

/// Why no request head was read.
pub(in crate::session) enum HeadError {
    Reject(Reject),
    /// 408.
    Late,
    /// The client closed in the middle of the head, or its connection failed.
    Gone,
}

impl Client {
    pub(in crate::session) fn new(
        stream: Conn,
        address: SocketAddr,
        buffers: &BufferPool,
        listener: &LocalListener,
    ) -> Self {
        Self {
            stream,
            address,
            address_text: AddressText::default(),
            inlet: Inlet::new(buffers),
            deadline: Deadline::never(),
            requests: 0,
            active: Instant::now(),
            own: OwnConnections::default(),
            closing: listener.enlist(),
        }
    }

    /// Waits for the first byte of a request. Holds no buffer meanwhile.
    pub(in crate::session) async fn wait_for_request(
        &mut self,
        listener: &LocalListener,
        timeout: Duration,
    ) -> Begin {
        if !self.inlet.is_empty() {
            return Begin::Bytes;
        }
        self.deadline.set(Some(self.active + timeout));
        let mut closing = false;
        poll_fn(|cx| {
            match self.inlet.poll_fill(cx, &mut self.stream) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Begin::Gone),
                Poll::Ready(Ok(_)) => return Poll::Ready(Begin::Bytes),
                Poll::Pending => {}
            }
            self.own.poll_closed(cx);
            self.closing.ensure(cx);
            if !closing && listener.is_closing() {
                if self.requests > 0 {
                    return Poll::Ready(Begin::Unwanted);
                }
                closing = true;
                self.deadline.set(Some(Instant::now() + timeout.min(CLOSING_GRACE)));
            }
            self.deadline.poll_expired(cx).map(|()| if closing { Begin::Unwanted } else { Begin::Late })
        })
        .await
    }

    /// Reads until the request's head is complete, and says how long it is. The deadline stands from the first
    /// byte on: a client cannot hold a buffer longer by sending a byte now and then.
    pub(in crate::session) async fn read_head(
        &mut self,
        head: &mut RequestHead,
        timeout: Duration,
    ) -> Result<usize, HeadError> {
        head.reset();
        if let Some(length) = head.parse(self.inlet.filled()).map_err(HeadError::Reject)? {
            self.requests += 1;
            return Ok(length);
        }
        self.deadline.set(Some(Instant::now() + timeout));
        poll_fn(|cx| {
            loop {
                if self.inlet.is_full() {
                    return Poll::Ready(Err(HeadError::Reject(Reject::HeadTooLarge)));
                }
                match self.inlet.poll_fill(cx, &mut self.stream) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(HeadError::Gone)),
                    Poll::Ready(Ok(_)) => match head.parse(self.inlet.filled()) {
                        Ok(Some(length)) => {
                            self.requests += 1;
                            return Poll::Ready(Ok(length));
                        }
                        Ok(None) => {}
                        Err(reject) => return Poll::Ready(Err(HeadError::Reject(reject))),
                    },
                    Poll::Pending => {
                        return self.deadline.poll_expired(cx).map(|()| Err(HeadError::Late));
                    }
                }
            }
        })
        .await
    }

    /// Whether the client has begun with the preface of HTTP/2 (RFC 9113 section 3.4), in place of a request.
    pub(in crate::session) fn speaks_http2(&self) -> bool {
        self.requests == 0 && self.inlet.filled().starts_with(b"PRI * HTTP/2.0\r\n")
    }

    /// Looks whether the client is still there while it waits for a response, and takes in what it pipelines. Ready
    /// when its connection has failed. A client that has only finished sending waits for what it has request for, as in
    /// HAProxy without `option abortonclose`.
    pub(in crate::session) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.inlet.is_full() {
            match self.inlet.poll_fill(cx, &mut self.stream) {
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(0)) | Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(_)) => {}
            }
        }
        Poll::Pending
    }

    /// Writes all of `bytes`, within `timeout` without progress.
    pub(in crate::session) async fn write_all(&mut self, bytes: &[u8], timeout: Duration) -> io::Result<()> {
        let mut at = 0;
        let mut waits = false;
        poll_fn(|cx| {
            while at < bytes.len() {
                match self.stream.poll_write(cx, &bytes[at..], Then::More) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(n)) => {
                        at += n;
                        if mem::take(&mut waits) {
                            self.active = Instant::now();
                        }
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        if !mem::replace(&mut waits, true) {
                            self.deadline.set(Some(Instant::now() + timeout));
                        }
                        return self.deadline.poll_expired(cx).map(|()| Err(io::ErrorKind::TimedOut.into()));
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Waits before the connection is closed, so that the client gets to read what was written last though some of what it
    /// sent was not read.
    pub(in crate::session) async fn linger(&mut self) {
        if poll_fn(|cx| self.stream.poll_shutdown(cx)).await.is_err() {
            return;
        }
        self.deadline.set(Some(Instant::now() + LINGER_TIME));
        let mut left = LINGER_BYTES;
        poll_fn(|cx| {
            loop {
                self.inlet.clear();
                match self.inlet.poll_fill(cx, &mut self.stream) {
                    Poll::Ready(Ok(n)) if n > 0 && n < left => left -= n,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return self.deadline.poll_expired(cx),
                }
            }
        })
        .await;
    }
}
