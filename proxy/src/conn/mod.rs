//! Connections to clients and to members, and what carrying bytes takes: pooled buffers and pipes, deadlines, the PROXY
//! protocol's header.
//!
//! [`Conn`] is the one seam between plain connections and others: an enum and no type parameter, so that sessions are compiled
//! once, and the kernel can move bytes between two connections that are plain.
//!
//! Pools belong to one worker (`Rc`, never shared between threads). No `unsafe`: `nix`, `socket2` and `crate::sys` wrap the
//! system calls.

mod address;
mod buffer;
mod deadline;
mod inlet;
mod pipe;
mod plain;
pub mod proxy_protocol;
mod tls;
mod traits;

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use crate::tls::PeerFacts;

#[cfg(test)]
pub(crate) use self::tls::testing;
pub(crate) use self::{address::AddressText, inlet::Inlet, plain::Then};
pub use self::{
    buffer::{BUFFER_SIZE, Buffer, BufferPool},
    deadline::Deadline,
    pipe::{PIPE_SIZE, Pipe, PipePool},
    tls::{Accepting, HandshakeError, MemberTls, TlsStream},
};

/// A worker's pools; cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Pools {
    /// Buffers of 16 KiB.
    pub buffers: BufferPool,
    /// Pipes for splice(2).
    pub pipes: PipePool,
}

impl Pools {
    /// With at most so many pipes.
    pub fn with_pipes(pipes: usize) -> Self {
        Self { buffers: BufferPool::default(), pipes: PipePool::at_most(pipes) }
    }
}

/// A connection to a client or a member.
///
/// Reading and writing is of its payload. All that waits registers the task that polled last, one for either direction.
#[derive(Debug)]
pub enum Conn {
    /// What is read from the socket and written to it is the payload.
    Plain(TcpStream),
    /// The payload is encrypted on its way, by the proxy.
    Tls(Box<TlsStream>),
}

impl From<TcpStream> for Conn {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

impl Conn {
    /// The socket, when what is read from and written to it is the payload: bytes may then be moved with splice(2).
    #[inline]
    pub fn as_plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(_) => None,
        }
    }

    /// Whether a new connection to the member, spoken to in this way, would be as this one.
    #[inline]
    pub(crate) fn is_for(&self, tls: Option<MemberTls<'_>>) -> bool {
        match (self, tls) {
            (Self::Plain(_), None) => true,
            (Self::Tls(stream), Some(tls)) => stream.is_for(tls),
            _ => false,
        }
    }

    /// The protocol that was agreed on in the handshake.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.session().alpn_protocol(),
        }
    }

    /// What is known of a client that speaks TLS.
    #[inline]
    pub(crate) fn facts(&self) -> Option<&Rc<PeerFacts>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.facts(),
        }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => tls.socket(),
        }
    }

    /// Waits until there may be something to [read](Self::read).
    ///
    /// # Errors
    /// When the runtime is at its end.
    #[inline]
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx),
            Self::Tls(tls) => tls.poll_read_ready(cx),
        }
    }

    /// Reads once, after [`poll_read_ready`](Self::poll_read_ready). `Ok(0)` is the end of the stream, or an empty `buffer`.
    ///
    /// # Errors
    /// As recv(2): `WouldBlock` when there is nothing to read after all, and readiness is to be waited for again.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => plain::read_ready(stream, buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }

    /// What has come by now, a buffer of it at most, asking the kernel without waiting for the runtime to have seen any of
    /// it: of a plain connection that was accepted a moment ago. `None` when that is nothing, or not known yet.
    ///
    /// # Errors
    /// As recv(2).
    pub(crate) fn take_early(&mut self, buffers: &BufferPool) -> io::Result<Option<Buffer>> {
        match self {
            Self::Plain(stream) => plain::take_early(stream, buffers),
            Self::Tls(_) => Ok(None),
        }
    }

    /// Whether the peer has finished sending, as far as is known without asking the kernel, and nothing of it was left by a
    /// [`read`](Self::read) that has not filled its buffer. The next read tells for certain.
    #[inline]
    pub(crate) fn seems_read_to_its_end(&self) -> bool {
        match self {
            Self::Plain(stream) => plain::seems_read_to_its_end(stream),
            Self::Tls(_) => false,
        }
    }

    /// Writes once; ready when the kernel has what is said to be written. The runtime is asked to wake the task only when it
    /// has not seen the connection become writable. Whoever waits calls again with the same bytes, and perhaps more behind
    /// them.
    ///
    /// # Errors
    /// As send(2).
    #[inline]
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        then: Then,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => plain::poll_write(cx, stream, bytes, then),
            Self::Tls(tls) => tls.poll_write(cx, &[IoSlice::new(bytes)], then),
        }
    }

    /// The same of two slices, one behind the other.
    ///
    /// # Errors
    /// As send(2).
    #[inline]
    pub(crate) fn poll_write_two(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
        then: Then,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => plain::poll_write_two(cx, stream, first, second, then),
            Self::Tls(tls) if second.is_empty() => tls.poll_write(cx, &[IoSlice::new(first)], then),
            Self::Tls(tls) => tls.poll_write(cx, &[IoSlice::new(first), IoSlice::new(second)], then),
        }
    }

    /// Finishes what is sent; the other direction goes on.
    ///
    /// # Errors
    /// As shutdown(2).
    #[inline]
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Poll::Ready(plain::shut_down(stream)),
            Self::Tls(tls) => tls.poll_shutdown(cx),
        }
    }

    /// Ends what is sent, with what [`Then::End`] has held back. Closing does so too, unless the peer has sent something
    /// that was not read: then it is a reset, and what was held back is lost. False when the kernel has no room for all that
    /// goes before the end, which takes [`poll_shutdown`](Self::poll_shutdown) then.
    #[must_use]
    pub(crate) fn end(&mut self) -> bool {
        match self {
            Self::Plain(stream) => {
                // It fails when the connection has.
                let _ = plain::shut_down(stream);
                true
            }
            Self::Tls(tls) => tls.end(),
        }
    }

    /// Whether a connection that nothing is expected on has indeed nothing to say, by asking the kernel. One that became
    /// readable while idle was closed by the peer, or carries something that nobody asked for.
    pub(crate) fn is_quiet(&mut self) -> bool {
        match self {
            Self::Plain(stream) => plain::is_quiet(stream),
            Self::Tls(tls) => tls.is_quiet(),
        }
    }

    /// The same as of the runtime's last look at the kernel, which is no longer ago than the present batch of events: what
    /// HAProxy goes by, too. The kernel is asked only when the runtime believes the connection readable.
    #[inline]
    pub(crate) fn is_quiet_so_far(&mut self) -> bool {
        match self {
            Self::Plain(stream) => plain::is_quiet_so_far(stream),
            Self::Tls(tls) => tls.is_quiet_so_far(),
        }
    }

    /// Whether the kernel knows of an end: the peer sends nothing any more, or the connection has failed. What has come before may
    /// not have been read yet.
    pub(crate) fn end_has_come(&self) -> bool {
        plain::end_has_come(self.socket())
    }

    /// Ready when the connection is not [quiet](Self::is_quiet) any more.
    pub(crate) fn poll_not_quiet(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                // What the runtime remembers may be older than what was read last; asking makes it forget.
                Poll::Ready(Ok(())) if self.is_quiet_so_far() => {}
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
    }

    /// Waits until the connection has failed: not until the peer has finished sending.
    pub(crate) async fn failed(&self) {
        // An error is of the runtime, whose end ends the task as well.
        let _ = self.socket().ready(Interest::ERROR).await;
    }

    /// Waits until the peer has finished sending, or the connection has failed, whatever of what it has sent was not read. What does
    /// not fit into the kernel's buffer hides the end behind it until that is read.
    pub(crate) async fn ended(&self) {
        // Nothing urgent is asked of the kernel: with this interest the runtime tells of the end alone.
        let _ = self.socket().ready(Interest::PRIORITY | Interest::ERROR).await;
    }

    /// The address that the client has connected to, or that the member sees.
    ///
    /// # Errors
    /// As getsockname(2).
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()
    }

    /// Closing the connection resets it from now on: the peer is not to take what it got for the whole.
    pub(crate) fn reset_on_close(&mut self) {
        if let Self::Tls(tls) = self {
            tls.close_silently();
        }
        // Failing leaves an orderly close instead of the reset: nothing to handle.
        let _ = SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }

    /// Closing the connection is not told to the peer from now on: nothing of it leaves by any interface but the loopback one. What
    /// the peer sends afterwards is answered by a reset, as what nobody knows of.
    ///
    /// HAProxy does so by `TCP_REPAIR`, which takes CAP_NET_ADMIN, or by letting the reset die on its way (`IP_TTL` of 1), which
    /// clients on the same network get all the same. `SO_BINDTODEVICE` takes no capability for a socket that is bound to no interface.
    pub(crate) fn vanish_on_close(&mut self) {
        {
            let socket = SockRef::from(self.socket());
            // What has come is acknowledged as long as that can leave: who is not would ask again, and be reset.
            let _ = socket.set_tcp_quickack(true);
            if let Err(error) = socket.bind_device(Some(b"lo")) {
                tracing::debug!(%error, "a client is reset that was not to be told");
            }
        }
        self.reset_on_close();
    }

    /// Takes what the peer has sent, `most` bytes of it, so that the connection is closed in an orderly way: unread bytes
    /// would reset it. Says how much that was.
    pub(crate) fn discard(&self, most: usize) -> usize {
        plain::discard(self.socket(), most)
    }
}
