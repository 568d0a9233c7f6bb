//! The connection under the library: reads through the [guard](super::guard) and into pooled buffers, writes that are put
//! together.
//!
//! The library gets a [`Transport`]; whoever drives the library has the [`Wire`] behind it, too. What the library writes and
//! flushes is held until the driver [drains](Wire::poll_drain) it, once for all frames of a turn.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    budget::Budget,
    guard::{Excess, Fault, Frames, Guard, Opening, Piece, Role, Then, Verdict},
    heads::{Came, Heads, Skeleton, Traffic},
    outgoing::Outgoing,
};
use crate::conn::{self, Buffer, BufferPool, Conn, Inlet};

/// A connection, what has come on it, and what is to go.
#[derive(Debug)]
pub(super) struct Wire {
    conn: Conn,
    inlet: Inlet,
    pool: BufferPool,
    outlet: Option<Buffer>,
    /// Header blocks for which there was no room in the outlet, and go behind it.
    behind: Vec<u8>,
    /// Bytes that the connection has taken.
    written: u64,
    outgoing: Outgoing,
    traffic: Rc<RefCell<Traffic>>,
    /// What the library is to get first.
    skeleton: Skeleton,
    /// What has to happen before the library gets more.
    pause: Option<Pause>,
    /// When something was read last.
    now: Instant,
    /// Since when what is written does not go out.
    blocked: Option<Instant>,
    /// Since when a header block is under way.
    block: Option<Instant>,
    /// What the peer has sent is worth reading when it takes nothing any more: it is a member, whose response may be there.
    reads_on: bool,
    /// The peer takes nothing any more. What is written goes nowhere, until all was read that has come before.
    broken: Option<io::ErrorKind>,
}

/// What is waited for before the library gets more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// A stream that has been opened is taken over.
    Opened,
    /// The tasks of streams run.
    Crowded,
    /// Nothing.
    Refused(Verdict),
}

/// What the library reads from and writes to.
#[derive(Debug)]
pub(super) struct Transport(Rc<RefCell<Wire>>);

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Wire {
    /// A connection to a peer that is `role`, and what was read of it already, if anything. What is held for it counts against
    /// the budget.
    pub(super) fn new(
        conn: Conn,
        begun: Option<Buffer>,
        pool: &BufferPool,
        role: Role,
        budget: Budget,
    ) -> Rc<RefCell<Self>> {
        let now = now();
        Rc::new(RefCell::new(Self {
            conn,
            inlet: Inlet::begun(pool, begun),
            pool: pool.clone(),
            outlet: None,
            behind: Vec::new(),
            written: 0,
            outgoing: Outgoing::new(role),
            traffic: Rc::new(RefCell::new(Traffic {
                guard: Guard::new(role, now),
                heads: Heads::new(role, budget),
            })),
            skeleton: Skeleton::default(),
            pause: None,
            now,
            blocked: None,
            block: None,
            reads_on: role == Role::Server,
            broken: None,
        }))
    }

    /// The library's end of it.
    pub(super) fn transport(wire: &Rc<RefCell<Self>>) -> Transport {
        Transport(Rc::clone(wire))
    }

    /// What is known of its frames.
    pub(super) fn traffic(&self) -> &Rc<RefCell<Traffic>> {
        &self.traffic
    }

    /// What has passed.
    pub(super) fn frames(&self) -> Frames {
        *self.traffic.borrow().guard.frames()
    }

    /// What the library has been kept from reading on for; it reads on afterwards, unless it was refused.
    pub(super) fn take_pause(&mut self) -> Option<Pause> {
        let pause = self.pause;
        if !matches!(pause, Some(Pause::Refused(_))) {
            self.pause = None;
        }
        pause
    }

    /// The stream that has been opened last was taken over: the library reads on when it is polled next.
    pub(super) fn taken_over(&mut self) {
        self.pause.take_if(|pause| *pause == Pause::Opened);
    }

    /// When what has come last was read.
    pub(super) fn read_at(&self) -> Instant {
        self.now
    }

    /// Whether the peer has said nothing, and has not ended, that was not read yet; the kernel is asked.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.inlet.is_empty() && self.conn.is_quiet()
    }

    /// Whether the kernel knows that the peer sends nothing any more. What it has sent before may not have been read yet.
    pub(super) fn end_has_come(&self) -> bool {
        self.conn.end_has_come()
    }

    /// Since when the peer does not take what is written.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.blocked
    }

    /// Whether the peer takes nothing any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Since when a header block is under way.
    pub(super) fn block_since(&self) -> Option<Instant> {
        self.block
    }

    /// Writes what is held. Ready when none is left, or a member takes nothing any more: what it has sent before is there to be
    /// read then.
    ///
    /// # Errors
    /// As send(2), of clients.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.broken.is_some() {
                (self.outlet, self.blocked) = (None, None);
                self.behind.clear();
            }
            let outlet = match self.outlet.as_mut().filter(|outlet| !outlet.is_empty()) {
                Some(outlet) => outlet,
                None if self.behind.is_empty() => break,
                None => {
                    let outlet = self.outlet.get_or_insert_with(|| self.pool.get());
                    let n = outlet.put(&self.behind);
                    self.behind.drain(..n);
                    outlet
                }
            };
            match self.conn.poll_write(cx, outlet.filled(), conn::Then::More) {
                Poll::Ready(Ok(0)) => self.break_off(cx, io::ErrorKind::WriteZero.into())?,
                Poll::Ready(Ok(n)) => {
                    self.blocked = None;
                    outlet.consume(n);
                    self.wrote(n);
                }
                Poll::Ready(Err(error)) => self.break_off(cx, error)?,
                Poll::Pending => {
                    self.blocked.get_or_insert_with(now);
                    self.hold();
                    return Poll::Pending;
                }
            }
        }
        self.outlet = None;
        Poll::Ready(Ok(()))
    }

    /// Nothing more can be written.
    fn break_off(&mut self, cx: &Context<'_>, error: io::Error) -> io::Result<()> {
        if !self.reads_on {
            return Err(error);
        }
        self.broken.get_or_insert(error.kind());
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn wrote(&mut self, n: usize) {
        self.written += n as u64;
        self.traffic.borrow_mut().heads.set_sent(self.written);
    }

    /// Changes how the connection is closed.
    pub(super) fn with_conn(&mut self, change: impl FnOnce(&mut Conn)) {
        change(&mut self.conn);
    }

    /// The connection does not take what is held. Of what is encrypted some may have left all the same.
    fn hold(&mut self) {
        let end = self.end();
        self.traffic.borrow_mut().heads.set_sent(end);
    }

    /// How much was written, with what is held.
    fn end(&self) -> u64 {
        self.written + (self.outlet.as_ref().map_or(0, Buffer::len) + self.behind.len()) as u64
    }

    /// Reads and drops what the peer still sends. Ready when it has ended, or `left` bytes of it have come.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        loop {
            self.inlet.clear();
            match ready!(self.inlet.poll_fill(cx, &mut self.conn)) {
                Ok(n) if n > 0 && n < *left => *left -= n,
                _ => {
                    self.inlet.clear();
                    return Poll::Ready(());
                }
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = buffer.remaining();
        loop {
            let skeleton = self.skeleton.left();
            if !skeleton.is_empty() {
                let n = skeleton.len().min(buffer.remaining());
                buffer.put_slice(&skeleton[..n]);
                self.skeleton.consume(n);
            }
            // Whoever drives the library looks for a pause.
            if self.pause.is_some() || buffer.remaining() == 0 {
                break;
            }
            if !self.pass(buffer) {
                if buffer.remaining() < room {
                    break;
                }
                if ready!(self.poll_fill(cx))? == 0 {
                    return Poll::Ready(Ok(()));
                }
                self.now = now();
            }
        }
        if buffer.remaining() < room { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let filled = self.inlet.poll_fill(cx, &mut self.conn);
        match self.broken {
            Some(kind) if filled.is_pending() => {
                if self.conn.is_quiet() {
                    return Poll::Ready(Err(kind.into()));
                }
                // The kernel has what the runtime does not know of yet.
                self.inlet.poll_fill(cx, &mut self.conn)
            }
            _ => filled,
        }
    }

    /// Takes from what was read what can be taken; false when that takes more.
    fn pass(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let bytes = self.inlet.filled();
        let Traffic { guard, heads } = &mut *self.traffic.borrow_mut();
        let pass = guard.inbound(bytes, buffer.remaining(), self.now);
        match pass.piece {
            Piece::Onward => buffer.put_slice(&bytes[..pass.taken]),
            Piece::Block(part) => match pass.then {
                Then::Head(opening) => match heads.complete(opening, &bytes[part], &mut self.skeleton) {
                    Ok(Came::Head) => {}
                    Ok(Came::Stray) => guard.stray(self.now),
                    Ok(Came::Flood) => guard.refuse(Verdict::Calm(Excess::HeaderBlock)),
                    Err(error) => {
                        tracing::debug!(%error, "header block that cannot be decoded");
                        let fault = Verdict::Fault(Fault::Compression, "header block that cannot be decoded");
                        guard.refuse(fault);
                    }
                },
                _ => heads.part(&bytes[part]),
            },
        }
        self.inlet.consume(pass.taken);
        self.block = guard.in_block().then(|| self.block.unwrap_or(self.now));
        self.pause = match pass.then {
            Then::More => return pass.taken > 0,
            Then::Head(Opening { opens, .. }) => opens.then_some(Pause::Opened),
            Then::Reset(stream) => {
                heads.reset(stream);
                return true;
            }
            Then::Crowded => Some(Pause::Crowded),
            Then::Refuse(verdict) => {
                self.inlet.clear();
                Some(Pause::Refused(verdict))
            }
        };
        true
    }

    /// Takes what is to be written, the more of it the better.
    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if !self.behind.is_empty() {
            ready!(self.poll_drain(cx))?;
        }
        if self.broken.is_some() {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let Some(first) = slices.first() else { return Poll::Ready(Ok(0)) };
        let run = {
            let heads = &mut self.traffic.borrow_mut().heads;
            self.outgoing.run(first, |stream| heads.reset(stream))
        };
        if run == 0 {
            return Poll::Ready(self.put_head(first));
        }
        let until_head = [IoSlice::new(&first[..run.min(first.len())])];
        let slices = if run < first.len() { &until_head } else { slices };
        let taken = ready!(self.poll_take(cx, slices))?;
        self.outgoing.passed(taken);
        let mut left = taken;
        for slice in slices {
            let n = left.min(slice.len());
            self.count(&slice[..n]);
            left -= n;
        }
        Poll::Ready(Ok(taken))
    }

    /// Takes a skeleton, whose head goes in its place.
    fn put_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(bones) = Outgoing::skeleton(bytes) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "part of a frame"));
        };
        self.count(&bytes[..bones.length]);
        let behind = self.end();
        let block = self.traffic.borrow_mut().heads.take_block(bones.stream, behind);
        // The stream has been reset by the peer otherwise, which takes nothing more of it.
        if let Some(block) = block {
            let outlet = self.outlet.get_or_insert_with(|| self.pool.get());
            let length = Outgoing::length(&block);
            if length > outlet.spare().len() {
                outlet.compact();
            }
            if length <= outlet.spare().len() {
                self.outgoing.frames(bones, &block, |part| {
                    outlet.put(part);
                });
            } else {
                self.outgoing.frames(bones, &block, |part| self.behind.extend_from_slice(part));
            }
        }
        Ok(bones.length)
    }

    fn count(&mut self, written: &[u8]) {
        let counted = self.traffic.borrow_mut().guard.outbound(written, self.now);
        if let Err(verdict) = counted {
            self.pause = Some(Pause::Refused(verdict));
        }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let Some((last, first)) = slices.split_last() else { return Poll::Ready(Ok(0)) };
        let first_len = total - last.len();
        loop {
            if self.broken.is_some() {
                return Poll::Ready(Ok(total));
            }
            let outlet = self.outlet.get_or_insert_with(|| self.pool.get());
            if total > outlet.spare().len() {
                outlet.compact();
            }
            if total <= outlet.spare().len() {
                for slice in slices {
                    outlet.put(slice);
                }
                return Poll::Ready(Ok(total));
            }
            if self.conn.as_plain().is_none() {
                // What is encrypted while the connection does not take it must be offered again, so it is held first.
                let taken: usize = slices.iter().map(|slice| outlet.put(slice)).sum();
                if taken > 0 {
                    return Poll::Ready(Ok(taken));
                }
                ready!(self.poll_drain(cx))?;
                continue;
            }
            if first_len > outlet.spare().len() {
                ready!(self.poll_drain(cx))?;
                continue;
            }
            // Too much to be held. The last slice, a body's data, goes out together with what is held.
            for slice in first {
                outlet.put(slice);
            }
            let held = outlet.len();
            match self.conn.poll_write_two(cx, outlet.filled(), last, conn::Then::More) {
                Poll::Ready(Ok(0)) => {
                    self.break_off(cx, io::ErrorKind::WriteZero.into())?;
                    continue;
                }
                Poll::Ready(Ok(n)) => {
                    self.blocked = None;
                    self.written += n as u64;
                    self.traffic.borrow_mut().heads.set_sent(self.written);
                    if n >= held {
                        self.outlet = None;
                        return Poll::Ready(Ok(first_len + n - held));
                    }
                    outlet.consume(n);
                }
                Poll::Ready(Err(error)) => {
                    self.break_off(cx, error)?;
                    continue;
                }
                Poll::Pending => {
                    self.blocked.get_or_insert_with(now);
                    if first_len == 0 {
                        return Poll::Pending;
                    }
                }
            }
            if first_len > 0 {
                return Poll::Ready(Ok(first_len));
            }
        }
    }

    /// Why the connection is not served on, if so.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        match self.pause {
            Some(Pause::Refused(verdict)) => Some(verdict),
            _ => None,
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What was written goes out when the driver drains it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        ready!(wire.poll_drain(cx))?;
        wire.conn.poll_shutdown(cx)
    }
}
