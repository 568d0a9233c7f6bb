//! One direction of a session: from a source to a destination.

use std::{
    io,
    task::{Context, Poll, ready},
};

use tokio::{io::Interest, net::TcpStream};

use crate::{
    conn::{BUFFER_SIZE, Buffer, Conn, PIPE_SIZE, Pipe, Pools, Then},
    state::Counter,
};

/// A burst of this many bytes turns a direction from copying to splicing, and a smaller one back. Below, the
/// additional system calls of a splice cost more than the copy; a transfer that arrives in larger bursts is bulk.
const SPLICE_FROM: u64 = BUFFER_SIZE as u64;

/// A transfer that is known to be this long splices from its first byte.
const SPLICE_AT_ONCE: u64 = 4 * SPLICE_FROM;

/// Bytes that one poll of a direction carries before it lets other tasks of the worker run: about 0.2 ms.
const POLL_BUDGET: u64 = PIPE_SIZE as u64;

/// Counters that grow as bytes pass, so that readers see a long transfer while it goes on.
#[derive(Clone, Copy, Debug)]
pub struct Meter<'a> {
    /// Bytes read from the source.
    pub read: &'a Counter,
    /// Bytes written to the destination.
    pub written: &'a Counter,
}

/// Which end of a direction failed, and how.
#[derive(Debug)]
pub enum Fault {
    /// Reading failed.
    Source(io::Error),
    /// Writing failed.
    Destination(io::Error),
}

/// How a direction came to its end. Everything that was read has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The source has no more bytes.
    Closed,
    /// The limit was reached; the source may have more bytes.
    Limit,
    /// [`Direction::stop_reading`] was called.
    Stopped,
}

/// What a pending direction waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Bytes from the source.
    Source,
    /// Room in the destination; bytes are pending.
    Destination,
    /// Nothing: it has ended.
    Nothing,
}

/// The state of one direction. Poll it with the same two streams until it is ready.
#[derive(Debug)]
pub struct Direction {
    held: Held,
    splice: bool,
    burst: u64,
    remaining: u64,
    /// What is held is most likely the last, and the end follows at once.
    last: bool,
    ended: Option<Ended>,
    read: u64,
    written: u64,
}

/// Bytes on their way. Never an empty buffer or pipe between polls.
#[derive(Debug)]
enum Held {
    Nothing,
    Buffer(Buffer),
    Pipe(Pipe),
}

impl Direction {
    /// Carries bytes until the source ends.
    pub fn new() -> Self {
        Self {
            held: Held::Nothing,
            splice: false,
            burst: 0,
            remaining: u64::MAX,
            last: false,
            ended: None,
            read: 0,
            written: 0,
        }
    }

    /// Carries `length` bytes, and reads not one more from the source.
    pub fn exact(length: u64) -> Self {
        let ended = (length == 0).then_some(Ended::Limit);
        Self { remaining: length, splice: length >= SPLICE_AT_ONCE, ended, ..Self::new() }
    }

    /// Sends `bytes`, which came from the source before, first. They count as written, not as read, and not towards
    /// the limit.
    pub fn preceded_by(mut self, bytes: Option<Buffer>) -> Self {
        self.held = bytes.filter(|b| !b.is_empty()).map_or(Held::Nothing, Held::Buffer);
        self
    }

    /// Bytes read from the source so far.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Bytes written to the destination so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that are still to be read from the source, of one that carries [so many](Self::exact).
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Why nothing more is read, once that is so.
    #[inline]
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// What it waits for, after a poll was pending.
    #[inline]
    pub fn waiting(&self) -> Waiting {
        match (&self.held, self.ended) {
            (Held::Nothing, None) => Waiting::Source,
            (Held::Nothing, Some(_)) => Waiting::Nothing,
            _ => Waiting::Destination,
        }
    }

    /// Reads no more; what is held is still written.
    pub fn stop_reading(&mut self) {
        self.ended.get_or_insert(Ended::Stopped);
    }

    /// Drops what is held and ends.
    pub fn abandon(&mut self) {
        self.held = Held::Nothing;
        self.stop_reading();
    }

    /// Carries what can be carried now. Ready when the source has ended (or the limit is reached) and all is
    /// written; the destination is not shut down. After a fault only [`abandon`](Self::abandon) makes
    /// sense.
    ///
    /// Works for about 0.2 ms at most, then yields to the worker's other tasks.
    ///
    /// # Errors
    /// [`Fault`] says on which side.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Conn,
        destination: &mut Conn,
        pools: &Pools,
        meter: Meter<'_>,
    ) -> Poll<Result<Ended, Fault>> {
        let mut budget = POLL_BUDGET;
        loop {
            ready!(self.poll_write(cx, destination, meter)).map_err(Fault::Destination)?;
            if let Some(ended) = self.ended {
                return Poll::Ready(Ok(ended));
            }
            if budget == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Poll::Ready(read) = self.poll_read(cx, source, destination, pools) else {
                // The source is idle: the size of the burst that is over tells the size of the next.
                self.splice = self.splice && self.burst >= SPLICE_FROM;
                self.burst = 0;
                return Poll::Pending;
            };
            let n = read.map_err(Fault::Source)? as u64;
            if n == 0 {
                self.ended = Some(Ended::Closed);
                continue;
            }
            meter.read.add(n);
            self.read += n;
            self.burst += n;
            self.splice |= self.burst >= SPLICE_FROM;
            budget = budget.saturating_sub(n);
            if self.remaining != u64::MAX {
                self.remaining -= n;
                if self.remaining == 0 {
                    self.ended = Some(Ended::Limit);
                }
            }
        }
    }

    /// Writes what is held. Ready when nothing is.
    #[inline]
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        destination: &mut Conn,
        meter: Meter<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let n = match &mut self.held {
                Held::Nothing => break,
                Held::Buffer(buffer) => {
                    let then = if self.last { Then::End } else { Then::More };
                    let n = ready!(destination.poll_write(cx, buffer.filled(), then))?;
                    buffer.consume(n);
                    if buffer.is_empty() {
                        self.held = Held::Nothing;
                    }
                    n
                }
                Held::Pipe(pipe) => {
                    let socket = destination.as_plain().ok_or_else(no_longer_plain)?;
                    let n = ready!(poll_drain(cx, pipe, socket))?;
                    if pipe.is_empty() {
                        self.held = Held::Nothing;
                    }
                    n
                }
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n as u64;
            meter.written.add(n as u64);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads into a buffer or a pipe, which is held only if something was read. Nothing is held before.
    #[inline]
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Conn,
        destination: &Conn,
        pools: &Pools,
    ) -> Poll<io::Result<usize>> {
        if self.splice
            && self.remaining >= SPLICE_FROM
            && let (Some(socket), Some(_)) = (source.as_plain(), destination.as_plain())
            && let Some(mut pipe) = pools.pipes.get()
        {
            let max = self.remaining.min(POLL_BUDGET) as usize;
            let n = ready!(poll_fill(cx, &mut pipe, socket, max))?;
            if n > 0 {
                self.held = Held::Pipe(pipe);
            }
            return Poll::Ready(Ok(n));
        }
        loop {
            ready!(source.poll_read_ready(cx))?;
            let mut buffer = pools.buffers.get();
            let max = self.remaining.min(buffer.capacity() as u64) as usize;
            match source.read(&mut buffer.spare()[..max]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(n) if n > 0 => {
                    buffer.commit(n);
                    self.held = Held::Buffer(buffer);
                    // A member that closes when it has answered is met with all that it has to say: the end goes with it. Where
                    // it is none after all, no more is lost than the time for which the kernel waits for more.
                    self.last = n < max
                        && self.remaining == u64::MAX
                        && source.seems_read_to_its_end()
                        && destination.as_plain().is_some();
                    return Poll::Ready(Ok(n));
                }
                ended => return Poll::Ready(ended),
            }
        }
    }
}

impl Default for Direction {
    fn default() -> Self {
        Self::new()
    }
}

/// The pipe must be empty: only then is it the socket that `WouldBlock` speaks of, and clearing the socket's
/// readiness right.
fn poll_fill(
    cx: &mut Context<'_>,
    pipe: &mut Pipe,
    source: &TcpStream,
    max: usize,
) -> Poll<io::Result<usize>> {
    debug_assert!(pipe.is_empty());
    loop {
        ready!(source.poll_read_ready(cx))?;
        match source.try_io(Interest::READABLE, || pipe.fill_from(source, max)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return Poll::Ready(result),
        }
    }
}

/// The pipe must not be empty, for the same reason.
fn poll_drain(cx: &mut Context<'_>, pipe: &mut Pipe, destination: &TcpStream) -> Poll<io::Result<usize>> {
    debug_assert!(!pipe.is_empty());
    loop {
        ready!(destination.poll_write_ready(cx))?;
        match destination.try_io(Interest::WRITABLE, || pipe.drain_to(destination)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return Poll::Ready(result),
        }
    }
}

#[cold]
fn no_longer_plain() -> io::Error {
    io::Error::other("the destination stopped being plain TCP while bytes were in the pipe")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{future::poll_fn, time::Duration};

    use socket2::SockRef;
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    async fn pair() -> (TcpStream, Conn) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (theirs, listener.accept().await.unwrap().0.into())
    }

    /// Whether what is read first is taken for the last of a source that has sent this and then behaves so.
    async fn first_is_last(
        mut direction: Direction,
        sent: usize,
        then: impl AsyncFnOnce(&mut TcpStream),
    ) -> bool {
        let ((mut theirs, mut source), (_other, destination)) = (pair().await, pair().await);
        theirs.write_all(&vec![7; sent]).await.unwrap();
        then(&mut theirs).await;
        // The runtime learns of all of it at once.
        tokio::task::yield_now().await;
        let pools = Pools::default();
        let read = poll_fn(|cx| direction.poll_read(cx, &mut source, &destination, &pools)).await;
        assert_eq!(read.unwrap(), sent.min(BUFFER_SIZE));
        direction.last
    }

    #[tokio::test]
    async fn what_comes_with_the_end_is_taken_for_the_last_and_nothing_else_is() {
        let closes = async |theirs: &mut TcpStream| theirs.shutdown().await.unwrap();
        let nothing = async |_: &mut TcpStream| {};
        assert!(first_is_last(Direction::new(), 64, closes).await);
        assert!(!first_is_last(Direction::new(), 64, nothing).await);
        // There is more behind it.
        assert!(!first_is_last(Direction::new(), BUFFER_SIZE + 1, closes).await);
        assert!(!first_is_last(Direction::new(), BUFFER_SIZE, closes).await);
        // The destination's connection goes on.
        assert!(!first_is_last(Direction::exact(64), 64, closes).await);
    }

    #[tokio::test]
    async fn an_end_that_is_a_failure_is_read_before_anything_is_made_of_it() {
        let (mut theirs, mut source) = pair().await;
        theirs.write_all(b"word").await.unwrap();
        poll_fn(|cx| source.poll_read_ready(cx)).await.unwrap();
        assert_eq!(source.read(&mut [0; 8]).unwrap(), 4);
        assert!(!source.seems_read_to_its_end(), "nothing has ended");
        SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
        drop(theirs);
        source.failed().await;
        assert!(!source.seems_read_to_its_end());
    }
}
