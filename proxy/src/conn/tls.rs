//! A TLS connection on a socket: rustls keeps the protocol, this the bytes on their way in and out.
//!
//! What is written counts as written when the kernel has all of its ciphertext, as with a plain connection: nothing that a
//! session believes sent waits here, a peer that does not read holds the session back, and closing loses nothing. What is
//! read is decrypted when it is asked for, a buffer's worth at a time. While nothing is in flight the connection holds no
//! buffer but rustls' own 4 KiB.

mod accept;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::{
    io::{self, IoSlice, Read, Write},
    net::IpAddr,
    os::fd::AsFd,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{ClientConfig, ClientConnection, Connection, HandshakeKind, PeerMisbehaved, ProtocolVersion};
use tokio::net::TcpStream;

pub use self::accept::Accepting;
use super::{
    BufferPool,
    plain::{self, Then},
};
use crate::{
    state::{Counter, Open},
    sys,
    tls::{MemberContext, PeerFacts},
};

/// Plaintext that is encrypted in one go: a record, the longest there is (RFC 8446 section 5.1). Whoever reads it has to have
/// all of it before the first byte.
const RECORD: usize = 16 * 1024;

/// Session tickets that a peer may send without a byte of payload between them. Servers send one to four, once.
const MOST_TICKETS: u32 = 32;

/// A connection that is encrypted, or about to be: nothing but [`poll_handshake`](Self::poll_handshake) is called before that
/// is done.
#[derive(Debug)]
pub struct TlsStream {
    socket: TcpStream,
    session: Connection,
    pool: BufferPool,
    /// What was read from the socket and rustls has had no room for.
    ahead: Vec<u8>,
    /// rustls holds plaintext that was not read.
    holds: bool,
    /// How reading ends, once what rustls holds was read.
    ended: Option<End>,
    /// Plaintext that is encrypted while its ciphertext is not all with the kernel: its writer waits.
    accepted: usize,
    /// Ciphertext that the kernel has got since.
    sent: usize,
    /// Nothing more is said to the peer: `close_notify` was, or it is not to be.
    closed: bool,
    /// Tickets that had come when payload came last.
    tickets: u32,
    /// Of a connection to a member: what it was made with, the SNI, and that it is open.
    member: Option<(Arc<ClientConfig>, Option<Box<str>>, Open)>,
    /// Of a connection with a client: what is known of it.
    facts: Option<Rc<PeerFacts>>,
}

/// How a member is spoken to, and which host it is asked for. A connection is for those alone who would have made the same.
#[derive(Clone, Copy, Debug)]
pub struct MemberTls<'a> {
    /// Authorities, client certificate, versions, ciphers: told apart as the object that it is, not by what is in it.
    pub config: &'a Arc<ClientConfig>,
    /// What the client has asked for by SNI, and the member is asked for.
    pub sni: Option<&'a str>,
}

/// Why there is nothing more to read.
#[derive(Debug)]
enum End {
    /// The peer has said so (`close_notify`), or has just closed: HAProxy does not tell the two apart
    /// (`SSL_OP_IGNORE_UNEXPECTED_EOF`), nor do most servers, for HTTP tells by itself where a message ends.
    Closed,
    /// The peer, or somebody in between, does not speak TLS as agreed.
    Violated(rustls::Error),
    /// The socket has failed.
    Failed(io::ErrorKind),
}

/// Why a handshake did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The client closed its side before its hello was there.
    #[error("connection closed before the hello")]
    Unheard,
    /// The peer closed its side.
    #[error("connection closed")]
    Closed,
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// One side does not like what the other says. The peer was told, if it was this one.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// How the socket is read.
#[derive(Clone, Copy)]
enum Ask {
    /// When the runtime has seen it become readable.
    Ready,
    /// In any case.
    Kernel,
}

impl TlsStream {
    /// With a member at this address; the gauge counts it while it is there.
    ///
    /// # Errors
    /// When the configuration has no use.
    pub fn client(
        socket: TcpStream,
        member: MemberTls<'_>,
        address: IpAddr,
        pool: &BufferPool,
        gauge: &Arc<Counter>,
    ) -> Result<Self, rustls::Error> {
        let name = MemberContext::name(address, member.sni);
        let session = ClientConnection::new(Arc::clone(member.config), name)?;
        let made_with = (Arc::clone(member.config), member.sni.map(Into::into), Open::new(gauge));
        let mut stream = Self::new(socket, session.into(), pool);
        stream.member = Some(made_with);
        Ok(stream)
    }

    fn new(socket: TcpStream, mut session: Connection, pool: &BufferPool) -> Self {
        session.set_buffer_limit(Some(RECORD));
        Self {
            socket,
            session,
            pool: pool.clone(),
            ahead: Vec::new(),
            holds: false,
            ended: None,
            accepted: 0,
            sent: 0,
            closed: false,
            tickets: 0,
            member: None,
            facts: None,
        }
    }

    /// What was agreed with the peer, and who it is.
    pub fn session(&self) -> &Connection {
        &self.session
    }

    /// What is known of the client, if it is one whose handshake is done.
    pub(super) fn facts(&self) -> Option<&Rc<PeerFacts>> {
        self.facts.as_ref()
    }

    /// Whether the member would be spoken to in the same way again.
    pub(super) fn is_for(&self, tls: MemberTls<'_>) -> bool {
        self.member
            .as_ref()
            .is_some_and(|(config, sni, _)| Arc::ptr_eq(config, tls.config) && sni.as_deref() == tls.sni)
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Shakes hands. What this side says last goes with the first payload, when that comes at once.
    ///
    /// # Errors
    /// When it does not come about. An alert is on its way then, if it is due.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HandshakeError>> {
        // What is behind the last word of a handshake, be it an end, is for who reads.
        while self.session.is_handshaking() {
            // It may have come with what was read before: then there is nothing to wait for.
            match self.ended.take() {
                None => {}
                Some(End::Closed) => return Poll::Ready(Err(HandshakeError::Closed)),
                Some(End::Failed(kind)) => return Poll::Ready(Err(io::Error::from(kind).into())),
                Some(End::Violated(error)) => return Poll::Ready(Err(error.into())),
            }
            ready!(self.poll_send(cx, Then::More))?;
            ready!(self.socket.poll_read_ready(cx))?;
            // Where there was nothing after all, it is waited for again.
            let _ = self.pull(Ask::Ready);
        }
        if matches!(self.session, Connection::Server(_)) {
            self.facts = Some(Rc::new(PeerFacts::new(&self.session)));
            if !self.holds {
                // A client may wait for its tickets before it says anything.
                self.send_now(Then::More)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// See [`Conn::poll_read_ready`](super::Conn::poll_read_ready). Sends what the protocol has to say by itself, too.
    #[inline]
    pub(super) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.session.wants_write() {
            // Should it fail, what the kernel has is read all the same; the end is behind it.
            let _ = self.poll_send(cx, Then::More);
        }
        if self.holds || self.ended.is_some() || !self.ahead.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_read_ready(cx)
    }

    /// See [`Conn::read`](super::Conn::read).
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.holds {
                // Without anything to give it speaks of an end, which is told below.
                let n = self.session.reader().read(buffer).unwrap_or(0);
                self.holds = n == buffer.len() && self.holds_more();
                if n > 0 {
                    return Ok(n);
                }
            }
            if let Some(end) = &self.ended {
                return match end {
                    End::Closed => Ok(0),
                    End::Violated(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.clone())),
                    End::Failed(kind) => Err((*kind).into()),
                };
            }
            self.pull(Ask::Ready)?;
        }
    }

    fn holds_more(&mut self) -> bool {
        self.session.reader().into_first_chunk().is_ok_and(|chunk| !chunk.is_empty())
    }

    /// Takes in what the socket has, once. `WouldBlock` is all that it fails with; all else is in the state.
    fn pull(&mut self, ask: Ask) -> io::Result<()> {
        if !self.ahead.is_empty() {
            let ahead = std::mem::take(&mut self.ahead);
            self.feed(&ahead);
            return Ok(());
        }
        let mut buffer = self.pool.get();
        let read = match ask {
            Ask::Ready => plain::read_ready(&self.socket, buffer.spare()),
            Ask::Kernel => sys::recv(self.socket.as_fd(), buffer.spare()).map_err(io::Error::from),
        };
        match read {
            Ok(0) => self.ended = Some(End::Closed),
            Ok(n) => self.feed(&buffer.spare()[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(error) => self.ended = Some(End::Failed(error.kind())),
        }
        Ok(())
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.ended.is_none() {
            if self.session.read_tls(&mut bytes).is_err() {
                if self.holds {
                    // There is room for more plaintext once this was read.
                    self.ahead = bytes.to_vec();
                } else {
                    self.violated(rustls::Error::General("a handshake message that is too long".into()));
                }
                return;
            }
            self.process();
        }
        if let Connection::Client(session) = &self.session {
            let tickets = session.tls13_tickets_received();
            if self.holds {
                self.tickets = tickets;
            } else if tickets - self.tickets > MOST_TICKETS {
                self.violated(rustls::Error::General("too many session tickets".into()));
            }
        }
    }

    /// Judges what rustls has.
    fn process(&mut self) {
        match self.session.process_new_packets() {
            Ok(state) => {
                self.holds = state.plaintext_bytes_to_read() > 0;
                if state.peer_has_closed() {
                    self.ended = Some(End::Closed);
                }
            }
            Err(error) => {
                // What came before it was good.
                self.holds = self.holds_more();
                self.violated(error);
            }
        }
    }

    fn violated(&mut self, error: rustls::Error) {
        let unsaid = is_unsaid(&error) && self.speaks_plainly();
        self.ended = Some(End::Violated(error));
        // The alert: whom it does not reach at once learns of the end alone.
        let sent = self.send_now(Then::More);
        if unsaid && matches!(sent, Ok(true)) {
            let _ = plain::write_ready(&self.socket, &[IoSlice::new(&accept::UNEXPECTED)], Then::More);
        }
        self.closed = true;
        plain::discard(&self.socket, plain::MOST_UNREAD);
    }

    /// Whether a client is still spoken to without encryption: until the last message of a handshake of TLS 1.2 that is a full one.
    fn speaks_plainly(&self) -> bool {
        let Connection::Server(session) = &self.session else { return false };
        session.is_handshaking()
            && session.protocol_version() == Some(ProtocolVersion::TLSv1_2)
            && session.handshake_kind() != Some(HandshakeKind::Resumed)
    }

    /// Gives the kernel what it takes now of what waits to be sent; whether that is all.
    fn send_now(&mut self, then: Then) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Output { socket: &self.socket, then }) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => {
                    self.closed = true;
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    /// Ready when the kernel has all of what waits to be sent.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, then: Then) -> Poll<io::Result<()>> {
        while !self.send_now(then)? {
            ready!(self.socket.poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes once, a record at most, of slices one behind the other: ready when the kernel has all of it. Until then it is
    /// called with the same bytes again; there may be more behind them.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        then: Then,
    ) -> Poll<io::Result<usize>> {
        if self.accepted == 0 {
            self.accepted = ready!(self.poll_encrypt(cx, slices))?;
            self.sent = 0;
            let all = slices.iter().map(|slice| slice.len()).sum::<usize>();
            if then == Then::End && self.accepted == all {
                self.say_goodbye();
            }
        }
        ready!(self.poll_send(cx, then))?;
        let n = std::mem::take(&mut self.accepted);
        if self.sent < n {
            // Nothing was encrypted: with TLS 1.2 a key is good for so many records (RFC 9325 section 4.4), and there is no other.
            self.closed = true;
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Poll::Ready(Ok(n))
    }

    /// Encrypts once what there is room for. It counts as written though it may still wait here, a record of it at most, until
    /// [`poll_send`](Self::poll_send): for writers that flush.
    pub(super) fn poll_write_behind(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx, Then::More))?;
        let n = ready!(self.poll_encrypt(cx, slices))?;
        self.send_now(Then::More)?;
        Poll::Ready(Ok(n))
    }

    fn poll_encrypt(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        loop {
            let n = match slices {
                [one] => self.session.writer().write(one)?,
                _ => self.session.writer().write_vectored(slices)?,
            };
            if n > 0 || slices.iter().all(|slice| slice.is_empty()) {
                return Poll::Ready(Ok(n));
            }
            // What the protocol has to say leaves no room.
            ready!(self.poll_send(cx, Then::More))?;
        }
    }

    fn say_goodbye(&mut self) {
        if !self.closed && !self.session.is_handshaking() {
            self.session.send_close_notify();
        }
        self.closed = true;
    }

    /// See [`Conn::poll_shutdown`](super::Conn::poll_shutdown).
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.say_goodbye();
        ready!(self.poll_send(cx, Then::End))?;
        Poll::Ready(plain::shut_down(&self.socket))
    }

    /// See [`Conn::end`](super::Conn::end).
    pub(super) fn end(&mut self) -> bool {
        self.say_goodbye();
        match self.send_now(Then::End) {
            Ok(false) => return false,
            // Of a connection that has failed nothing is left to be said.
            Ok(true) | Err(_) => drop(plain::shut_down(&self.socket)),
        }
        true
    }

    /// See [`Conn::is_quiet`](super::Conn::is_quiet). What the protocol says by itself (tickets, new keys) is taken in.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.is_silent(Ask::Kernel)
    }

    /// See [`Conn::is_quiet_so_far`](super::Conn::is_quiet_so_far).
    pub(super) fn is_quiet_so_far(&mut self) -> bool {
        self.is_silent(Ask::Ready)
    }

    fn is_silent(&mut self, ask: Ask) -> bool {
        // More than once: there may be a ticket, and an end behind it.
        while !self.holds && self.ended.is_none() {
            if self.pull(ask).is_err() {
                return true;
            }
        }
        false
    }

    /// Nothing is said to the peer when the connection is closed.
    pub(super) fn close_silently(&mut self) {
        self.closed = true;
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        // An end without `close_notify` looks like one that somebody else has made.
        if self.accepted == 0 && !self.closed {
            self.say_goodbye();
            let _ = self.send_now(Then::More);
        }
    }
}

/// Whether a peer has done what it must not, and rustls has made no alert of it.
fn is_unsaid(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::PeerMisbehaved(
            PeerMisbehaved::MessageInterleavedWithHandshakeMessage
                | PeerMisbehaved::TooManyEmptyFragments
                | PeerMisbehaved::TooManyWarningAlertsReceived
        )
    )
}

/// The socket, as rustls writes to it.
struct Output<'a> {
    socket: &'a TcpStream,
    then: Then,
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        plain::write_ready(self.socket, slices, self.then)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
