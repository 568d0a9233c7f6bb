//! What has been read from a connection and not been used yet.

use std::{
    io,
    task::{Context, Poll, ready},
};

use super::{BUFFER_SIZE, Buffer, BufferPool, Conn};

/// A read buffer that exists only while it holds bytes: a connection that waits costs no buffer.
#[derive(Debug)]
pub(crate) struct Inlet {
    pool: BufferPool,
    buffer: Option<Buffer>,
}

impl Inlet {
    pub(crate) fn new(pool: &BufferPool) -> Self {
        Self { pool: pool.clone(), buffer: None }
    }

    /// With what was read already, if anything.
    pub(crate) fn begun(pool: &BufferPool, begun: Option<Buffer>) -> Self {
        Self { pool: pool.clone(), buffer: begun.filter(|buffer| !buffer.is_empty()) }
    }

    /// The bytes that were read and not consumed.
    #[inline]
    pub(crate) fn filled(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], Buffer::filled)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_none()
    }

    /// Whether no more can be read before something is consumed.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.buffer.as_ref().is_some_and(|buffer| buffer.len() == BUFFER_SIZE)
    }

    /// Drops the first `n` bytes.
    #[inline]
    pub(crate) fn consume(&mut self, n: usize) {
        if let Some(buffer) = &mut self.buffer {
            buffer.consume(n);
            if buffer.is_empty() {
                self.buffer = None;
            }
        }
    }

    /// What is left, for whoever reads on from here.
    pub(crate) fn take(&mut self) -> Option<Buffer> {
        self.buffer.take()
    }

    /// Gives up all bytes.
    pub(crate) fn clear(&mut self) {
        self.buffer = None;
    }

    /// Reads once. `Ok(0)` is the end of the stream, unless the inlet [is full](Self::is_full).
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, source: &mut Conn) -> Poll<io::Result<usize>> {
        loop {
            // Readiness costs no system call; a buffer is taken only when there is something to read.
            ready!(source.poll_read_ready(cx))?;
            let buffer = self.buffer.get_or_insert_with(|| self.pool.get());
            if buffer.is_full() {
                buffer.compact();
            }
            let read = source.read(buffer.spare());
            buffer.commit(*read.as_ref().unwrap_or(&0));
            if buffer.is_empty() {
                self.buffer = None;
            }
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }
}
