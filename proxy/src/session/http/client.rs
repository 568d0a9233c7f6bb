//! The client's side of an HTTP connection: waiting for a request, reading its head, answering without a member.

use std::{
    future::poll_fn,
    io, mem,
    net::SocketAddr,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::{address::ClientAddress, own::OwnConnections};
use crate::{
    conn::{BufferPool, Conn, Deadline, Inlet, Then},
    http::{Reject, RequestHead},
    limits::rate::Farewell,
    local::{Enlisted, LocalListener},
};

/// After a response that leaves request bytes unread, the connection is closed in two steps, or the reset that
/// the unread bytes cause would overtake the response. This is how long and how much is read in between.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

/// A client that has asked within the first of these is taken to be about to ask again: it has the second to do so when it is let go, and learns of it
/// from that response. Its request and the end of the connection would cross on their way, and nobody could tell what became of the request.
const ASKS_OFTEN: Duration = Duration::from_secs(1);
const LAST_CALL: Duration = Duration::from_millis(30);

/// A client's connection.
pub(in crate::session) struct Client {
    pub(in crate::session) stream: Conn,
    pub(in crate::session) address: SocketAddr,
    pub(super) address_text: ClientAddress,
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
    /// The listener wants the connection gone.
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
            address_text: ClientAddress::default(),
            inlet: Inlet::new(buffers),
            deadline: Deadline::never(),
            requests: 0,
            active: Instant::now(),
            own: OwnConnections::default(),
            closing: listener.enlist(),
        }
    }

    /// Waits for the first byte of a request. Holds no buffer meanwhile.
    ///
    /// A client that has not asked for anything yet when its listener goes, or the process is to end, is about to: as with
    /// HAProxy it has the time for its first request that it has in any case, and the connection ends behind the response. One that has
    /// asked a moment ago has a moment more.
    pub(in crate::session) async fn wait_for_request(
        &mut self,
        listener: &LocalListener,
        timeout: Duration,
    ) -> Begin {
        if !self.inlet.is_empty() {
            return Begin::Bytes;
        }
        self.deadline.set(Some(self.active + timeout));
        let mut last_call = false;
        poll_fn(|cx| {
            match self.inlet.poll_fill(cx, &mut self.stream) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Begin::Gone),
                Poll::Ready(Ok(_)) => return Poll::Ready(Begin::Bytes),
                Poll::Pending => {}
            }
            self.own.poll_closed(cx);
            self.closing.ensure(cx);
            if listener.bars(self.address) {
                return Poll::Ready(Begin::Unwanted);
            }
            let closing = self.requests > 0 && listener.is_closing(self.address);
            if closing != last_call {
                last_call = closing;
                let now = Instant::now();
                if closing && now.duration_since(self.active) > ASKS_OFTEN {
                    return Poll::Ready(Begin::Unwanted);
                }
                // It may be that the VIP does not move after all.
                self.deadline.set(Some(if closing { now + LAST_CALL } else { self.active + timeout }));
            }
            let ended = if last_call { Begin::Unwanted } else { Begin::Late };
            self.deadline.poll_expired(cx).map(|()| ended)
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

    /// Has the task woken when something is to be looked at for all clients of the listener.
    #[inline]
    pub(super) fn enlist(&mut self, cx: &Context<'_>) {
        self.closing.ensure(cx);
    }

    /// Looks whether the client is still there while it waits for a response, and takes in what it pipelines. Ready
    /// when its connection has failed. A client that has only finished sending waits for what it has asked for, as in
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

    /// Waits until the client is not there any more while it waits for its turn: who has finished sending is not. What it sends is
    /// read as far as there is room for it; of what lies beyond the kernel alone knows how it ends.
    pub(super) async fn left(&mut self) {
        let ended = poll_fn(|cx| {
            while !self.inlet.is_full() {
                match ready!(self.inlet.poll_fill(cx, &mut self.stream)) {
                    Ok(0) | Err(_) => return Poll::Ready(true),
                    Ok(_) => {}
                }
            }
            Poll::Ready(false)
        });
        if !ended.await {
            self.stream.ended().await;
        }
    }

    /// What closes the connection next tells the client so by a reset, or not at all.
    pub(super) fn drop_off(&mut self, farewell: Farewell) {
        match farewell {
            Farewell::Reset => self.stream.reset_on_close(),
            Farewell::Silent => self.stream.vanish_on_close(),
        }
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
    /// sent was not read. Where the end is not out at once, because the client does not read, it has `patience`.
    pub(in crate::session) async fn linger(&mut self, patience: Duration) {
        self.deadline.set(Some(Instant::now() + patience));
        let ended = poll_fn(|cx| match self.stream.poll_shutdown(cx) {
            Poll::Ready(ended) => Poll::Ready(ended.is_ok()),
            Poll::Pending => self.deadline.poll_expired(cx).map(|()| false),
        });
        if !ended.await {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::pin::Pin;

    use rustls::version;
    use tokio::io::{AsyncWrite, AsyncWriteExt};

    use super::*;
    use crate::conn::{
        BUFFER_SIZE, TlsStream,
        testing::{configs, conn, pair_with, read, was_told_of_the_end},
    };

    fn client(stream: Conn) -> Client {
        let buffers = BufferPool::default();
        Client {
            stream,
            address: SocketAddr::from(([192, 0, 2, 1], 1)),
            address_text: ClientAddress::default(),
            inlet: Inlet::new(&buffers),
            deadline: Deadline::never(),
            requests: 1,
            active: Instant::now(),
            own: OwnConnections::default(),
            closing: Enlisted::default(),
        }
    }

    /// However much it has sent that nobody reads.
    #[tokio::test]
    async fn who_goes_is_noticed_behind_what_is_not_read() {
        for (sent, resets) in
            [(0, false), (100, false), (BUFFER_SIZE, false), (100_000, false), (100_000, true)]
        {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut other = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let mut client = client(Conn::from(listener.accept().await.unwrap().0));
            other.write_all(&vec![b'x'; sent]).await.unwrap();
            let mut left = Box::pin(client.left());
            let waits = tokio::time::timeout(Duration::from_millis(20), left.as_mut());
            assert!(waits.await.is_err(), "{sent} bytes: it is still there");
            if resets {
                other.set_zero_linger().unwrap();
            }
            drop(other);
            let seen = tokio::time::timeout(Duration::from_secs(20), left);
            assert!(seen.await.is_ok(), "{sent} bytes, {resets}");
            assert_eq!(
                client.inlet.filled().len(),
                sent.min(BUFFER_SIZE),
                "no more is read than there is room for"
            );
        }
    }

    /// A server whose kernel takes nothing more, because the client does not read.
    async fn full() -> (Client, TlsStream) {
        let (server, other) = pair_with(configs(&version::TLS13, 0)).await;
        let mut server = conn(server);
        let piece = vec![7; 64 << 10];
        while poll_fn(|cx| Poll::Ready(AsyncWrite::poll_write(Pin::new(&mut server), cx, &piece)))
            .await
            .is_ready()
        {}
        (client(server), other)
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_not_waited_for_longer_than_it_may_take() {
        let (mut client, _other) = full().await;
        tokio::time::pause();
        let begun = Instant::now();
        tokio::time::timeout(Duration::from_secs(3600), client.linger(Duration::from_secs(50)))
            .await
            .unwrap();
        assert_eq!(begun.elapsed().as_secs(), 50);
    }

    #[tokio::test]
    async fn one_that_reads_meanwhile_learns_of_the_end() {
        let (mut client, mut other) = full().await;
        let reading = async {
            while !read(&mut other, 100_000).await.unwrap().is_empty() {}
            was_told_of_the_end(&mut other)
        };
        // It is lingered for until it closes, too.
        let ((), told) = tokio::join!(client.linger(Duration::from_secs(50)), reading);
        assert!(told);
    }
}
