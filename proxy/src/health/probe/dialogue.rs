//! One probe: the connection, what is asked on it, and what becomes of the answer.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    sync::Arc,
    time::{Duration, Instant},
};

use amphora_model::{HealthCheck, HttpCheck};
use nix::{errno::Errno, sys::epoll::EpollFlags};
use rustls::ClientConnection;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    http::{self, Answer},
    http2::Exchange,
    outcome::{CheckStatus, Found},
    ping::Echo,
    sctp::Association,
    tls,
};
use crate::{
    conn::proxy_protocol,
    health::core::{Target, TargetId},
    sys,
};

/// What of an answer is read at once.
pub(super) const READ: usize = 16 * 1024;
/// Tables that are kept for the next answers.
const SPARE: usize = 16;
/// Reads for one target before others have their turn.
const READS: usize = 8;
/// What a target may ask for (`PING`, `SETTINGS`) before it takes the answers.
const UNSENT: usize = 64 * 1024;
/// After so long without an error a datagram is taken for delivered.
const SILENCE: Duration = Duration::from_secs(1);

/// A probe under way.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) id: TargetId,
    target: Arc<Target>,
    socket: Socket,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    stage: Stage,
    /// What the socket would not take yet.
    unsent: Vec<u8>,
    /// The target has closed its side: there is no other event, so all is read up to the end.
    ended: bool,
}

#[derive(Debug)]
enum Stage {
    Connecting,
    Echo(Echo),
    /// A datagram was sent.
    Datagram,
    /// INIT of SCTP was sent.
    Association(Association),
    Hello(Vec<u8>),
    Http(Answer),
    /// `None` until the handshake is done and the question asked.
    Tls(Box<ClientConnection>, Option<Asked>),
}

/// What was asked over TLS, in the version of HTTP that the target has agreed on.
#[derive(Debug)]
enum Asked {
    Http1(Answer),
    Http2(Box<Exchange>),
}

impl Asked {
    /// Asks; the question goes to `out`.
    fn begin(
        check: &HttpCheck,
        target: &Target,
        tls: &ClientConnection,
        turn: &mut Turn<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Self, Found> {
        if tls.alpn_protocol() == Some(b"h2") {
            let address = SocketAddr::new(target.address, target.port);
            return Exchange::begin(check, address, out).map(|exchange| Self::Http2(exchange.into()));
        }
        http::request(check, out);
        Ok(Self::Http1(turn.answer()))
    }

    /// Takes what has come; what is to be said to that goes to `out`.
    fn take(&mut self, check: &HttpCheck, bytes: &[u8], ended: bool, out: &mut Vec<u8>) -> Option<Found> {
        match self {
            Self::Http1(answer) => answer.take(check, bytes, ended),
            Self::Http2(exchange) => exchange.take(check, bytes, ended, out),
        }
    }
}

/// `Ok(None)`: there is more to come.
pub(super) type Progress = Result<Option<Found>, Found>;

/// Which targets a socket for TCP can be used for, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// `None`: for one target alone. An IPv6 socket that was connected over IPv4 is not what it was.
    pub(super) fn of(target: &Target) -> Option<Self> {
        match target.address {
            _ if !over_tcp(&target.check) => None,
            IpAddr::V4(_) => Some(Self::V4),
            IpAddr::V6(ip) => ip.to_ipv4_mapped().is_none().then_some(Self::V6),
        }
    }
}

/// Whether a connection of TCP is made, and more on it.
pub(in crate::health) fn over_tcp(check: &HealthCheck) -> bool {
    !matches!(check, HealthCheck::Ping | HealthCheck::UdpConnect | HealthCheck::Sctp)
}

/// What the probes of one thread share.
pub(super) struct Turn<'a> {
    pub(super) scratch: &'a mut Vec<u8>,
    pub(super) spare: &'a mut Vec<Answer>,
    /// There is more to read.
    pub(super) again: bool,
}

impl Turn<'_> {
    fn answer(&mut self) -> Answer {
        let mut answer = self.spare.pop().unwrap_or_default();
        answer.clear();
        answer
    }
}

/// A socket for TCP probes, on which nothing was done yet. Its options hold for all its connections.
pub(super) fn stream(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    // Nothing of a connection is to stay here or there, and one packet does it.
    socket.set_linger(Some(Duration::ZERO))?;
    // We speak first: the ACK of the handshake goes with the question, and where there is none with the reset.
    sys::hold_back_handshake(&socket)?;
    Ok(socket)
}

fn echo(target: &Target) -> Result<(Socket, Stage), Found> {
    let failed = |error: io::Error| Found::error(CheckStatus::L4Connection, &error);
    let (socket, raw) = Echo::socket(target.address)
        .map_err(|error| Found::because(CheckStatus::SocketError, error.to_string()))?;
    let echo = Echo::new(target.address, raw);
    socket.connect(&SocketAddr::new(target.address, target.port).into()).map_err(failed)?;
    socket.send(&echo.request()).map_err(failed)?;
    Ok((socket, Stage::Echo(echo)))
}

/// `UDP-CONNECT`: what Octavia's `udp_check.sh` asks by `nc -uz`. A datagram is sent, and that nobody listens comes back as an
/// ICMP error; anything else, and silence, is good.
fn datagram(target: &Target) -> Result<(Socket, Stage), Found> {
    let ours = |error: io::Error| Found::because(CheckStatus::SocketError, error.to_string());
    let failed = |error: io::Error| Found::error(CheckStatus::L4Connection, &error);
    let address = SocketAddr::new(target.address, target.port);
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP)).map_err(ours)?;
    socket.connect(&address.into()).map_err(failed)?;
    // One byte, as nc(1): an empty one is the end to some.
    socket.send(b"X").map_err(failed)?;
    Ok((socket, Stage::Datagram))
}

fn connect(target: &Target, kept: Option<Socket>) -> Result<(Socket, Stage), Found> {
    let ours = |error: io::Error| Found::because(CheckStatus::SocketError, error.to_string());
    let address = SocketAddr::new(target.address, target.port);
    let socket = match kept {
        Some(socket) => socket,
        None => stream(Domain::for_address(address)).map_err(ours)?,
    };
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
            Err(Found::error(CheckStatus::L4Connection, &error))
        }
        _ => Ok((socket, Stage::Connecting)),
    }
}

impl Probe {
    /// One that connects, on a socket that is kept for the target's [`Family`] or on a new one, or that has sent its
    /// echo.
    ///
    /// # Errors
    /// When that alone says how it ends.
    pub(super) fn begin(
        id: TargetId,
        target: Arc<Target>,
        started: Instant,
        kept: Option<Socket>,
    ) -> Result<Self, Found> {
        let (socket, stage) = match *target.check {
            HealthCheck::Ping => echo(&target)?,
            HealthCheck::UdpConnect => datagram(&target)?,
            HealthCheck::Sctp => {
                Association::ask(&target).map(|(socket, asked)| (socket, Stage::Association(asked)))?
            }
            _ => connect(&target, kept)?,
        };
        let patience = match *target.check {
            HealthCheck::UdpConnect => target.timeout.min(SILENCE),
            _ => target.timeout,
        };
        let deadline = started + patience;
        Ok(Self { id, target, socket, started, deadline, stage, unsent: Vec::new(), ended: false })
    }

    /// What events are to be asked for.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Ends the connection with a reset. The socket, where it can be used again; it has the events that it had.
    pub(super) fn end(self, spare: &mut Vec<Answer>) -> Option<(Family, Socket)> {
        let family = Family::of(&self.target);
        if let Stage::Http(answer) | Stage::Tls(_, Some(Asked::Http1(answer))) = self.stage
            && spare.len() < SPARE
        {
            spare.push(answer);
        }
        // What cannot be disconnected is closed.
        let family = family.filter(|_| sys::disconnect(&self.socket).is_ok())?;
        Some((family, self.socket))
    }

    /// What it means that the deadline passes now.
    pub(super) fn late(&self) -> Found {
        let status = match &self.stage {
            // Nobody has said that there is nobody.
            Stage::Datagram => return Found { silent: true, ..Found::new(CheckStatus::L4Ok) },
            Stage::Connecting | Stage::Echo(_) | Stage::Association(_) => CheckStatus::L4Timeout,
            Stage::Hello(_) | Stage::Tls(_, None) => CheckStatus::L6Timeout,
            Stage::Http(_) | Stage::Tls(_, Some(_)) => CheckStatus::L7Timeout,
        };
        Found::because(status, "timeout")
    }

    /// What it means that the connection fails now.
    fn failed(&self) -> CheckStatus {
        match &self.stage {
            Stage::Connecting | Stage::Echo(_) | Stage::Datagram | Stage::Association(_) => {
                CheckStatus::L4Connection
            }
            Stage::Hello(_) | Stage::Tls(_, None) => CheckStatus::L6Response,
            Stage::Http(_) | Stage::Tls(_, Some(_)) => CheckStatus::L7Response,
        }
    }

    /// Goes on with what these events allow. `Err` and `Ok(Some)` are the end.
    pub(super) fn go_on(&mut self, flags: EpollFlags, turn: &mut Turn<'_>) -> Progress {
        let broken = flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        if matches!(self.stage, Stage::Connecting) {
            let failed = CheckStatus::L4Connection;
            if broken && let Ok(Some(error)) = self.socket.take_error() {
                return Err(Found::error(failed, &error));
            }
            if !flags.contains(EpollFlags::EPOLLOUT) {
                return if broken { Err(Found::because(failed, "connection closed")) } else { Ok(None) };
            }
            if let Some(found) = self.connected(turn)? {
                return Ok(Some(found));
            }
        } else if flags.contains(EpollFlags::EPOLLOUT) && !self.unsent.is_empty() {
            self.flush()?;
        }
        self.ended |= flags.contains(EpollFlags::EPOLLRDHUP);
        if flags.contains(EpollFlags::EPOLLIN) || broken { self.read(turn) } else { Ok(None) }
    }

    /// The connection stands: asks.
    fn connected(&mut self, turn: &mut Turn<'_>) -> Progress {
        // Of most questions the whole, in one piece of memory.
        self.unsent.reserve(256);
        if let Some(version) = self.target.proxy_protocol {
            match version {
                proxy_protocol::Version::V1 => {
                    let local = self.socket.local_addr().ok().and_then(|address| address.as_socket());
                    let local =
                        local.ok_or_else(|| Found::because(CheckStatus::L4Connection, "not connected"))?;
                    let target = SocketAddr::new(self.target.address, self.target.port);
                    proxy_protocol::encode(version, local, target, &mut self.unsent);
                }
                proxy_protocol::Version::V2 => proxy_protocol::encode_local(&mut self.unsent),
            }
        }
        let target = Arc::clone(&self.target);
        let done = match &*target.check {
            HealthCheck::Http(check) if target.tls.is_none() => {
                http::request(check, &mut self.unsent);
                self.stage = Stage::Http(turn.answer());
                false
            }
            HealthCheck::Tcp if target.tls.is_none() => true,
            HealthCheck::Http(_) | HealthCheck::Https(_) | HealthCheck::Tcp => {
                let config = target.tls.as_ref().map_or_else(tls::accept_any, |tls| Arc::clone(tls.config()));
                self.stage = Stage::Tls(Box::new(tls::client(target.address, config)?), None);
                self.write_tls()?;
                false
            }
            HealthCheck::TlsHello => {
                let hello = tls::client(target.address, tls::accept_any());
                let written = hello?.write_tls(&mut self.unsent);
                written.map_err(|error| Found::error(CheckStatus::SocketError, &error))?;
                self.stage = Stage::Hello(Vec::new());
                false
            }
            HealthCheck::Ping | HealthCheck::UdpConnect | HealthCheck::Sctp => true,
        };
        self.flush()?;
        Ok(done.then(|| Found::new(CheckStatus::L4Ok)))
    }

    fn write_tls(&mut self) -> Result<(), Found> {
        let failed = self.failed();
        if let Stage::Tls(tls, _) = &mut self.stage {
            while tls.wants_write() {
                tls.write_tls(&mut self.unsent).map_err(|error| Found::error(failed, &error))?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Found> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match sys::send(self.socket.as_fd(), &self.unsent[sent..], 0) {
                Ok(n) => sent += n,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Found::error(self.failed(), &errno.into())),
            }
        }
        self.unsent.drain(..sent);
        Ok(())
    }

    fn read(&mut self, turn: &mut Turn<'_>) -> Progress {
        for _ in 0..READS {
            if matches!(self.stage, Stage::Tls(..)) {
                match self.read_tls(turn)? {
                    More::Done(found) => return Ok(Some(found)),
                    More::Later => return Ok(None),
                    More::Perhaps => continue,
                }
            }
            let failed = self.failed();
            let n = match sys::recv(self.socket.as_fd(), turn.scratch) {
                Ok(n) => n,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => continue,
                // A port is refused to UDP, or to another's probe of the host: the kernel tells them all.
                Err(Errno::ECONNREFUSED) if matches!(self.stage, Stage::Association(_)) => continue,
                Err(errno) => return Err(Found::error(failed, &errno.into())),
            };
            let (bytes, ended) = (&turn.scratch[..n], n == 0);
            let found = match (&mut self.stage, &*self.target.check) {
                (Stage::Http(answer), HealthCheck::Http(check)) => answer.take(check, bytes, ended),
                (Stage::Hello(begun), _) => {
                    begun.extend_from_slice(bytes);
                    tls::judge_hello(begun, ended)
                }
                (Stage::Echo(echo), _) => echo.is_reply(bytes).then(|| Found::new(CheckStatus::L4Ok)),
                (Stage::Association(asked), _) => asked.take(bytes, &self.socket),
                // Whatever it says, and if it is nothing, it is there.
                (Stage::Datagram, _) => Some(Found::new(CheckStatus::L4Ok)),
                _ => None,
            };
            self.ended |= ended;
            // A stream that gave less than was asked for is empty: more of it is another event.
            let packets = matches!(self.stage, Stage::Echo(_) | Stage::Association(_));
            let empty = n < READ && !self.ended && !packets;
            if found.is_some() || empty {
                return Ok(found);
            }
        }
        turn.again = true;
        Ok(None)
    }

    fn read_tls(&mut self, turn: &mut Turn<'_>) -> Result<More, Found> {
        let failed = self.failed();
        if self.unsent.len() > UNSENT {
            return Err(Found::because(failed, "takes nothing of what it asks for"));
        }
        let target = Arc::clone(&self.target);
        let Stage::Tls(tls, asked) = &mut self.stage else { return Ok(More::Later) };
        let question = match &*target.check {
            HealthCheck::Http(check) | HealthCheck::Https(check) => Some(check),
            _ => None,
        };
        let n = match tls.read_tls(&mut &self.socket) {
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(More::Later),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(More::Perhaps),
            Err(error) => return Err(Found::error(failed, &error)),
        };
        let processed = tls.process_new_packets().map_err(|error| error.to_string());
        let ended = match processed {
            Ok(state) => {
                if asked.is_none() && !tls.is_handshaking() {
                    // To a target that is only connected to, the handshake is the answer.
                    let Some(check) = question else { return Ok(More::Done(Found::new(CheckStatus::L6Ok))) };
                    let mut request = Vec::with_capacity(128);
                    *asked = Some(Asked::begin(check, &target, tls, turn, &mut request)?);
                    say(tls, &request)?;
                }
                n == 0 || state.peer_has_closed()
            }
            Err(error) => {
                // The alert that tells the target why; should it not arrive the answer is the same.
                let _ = self.write_tls().and_then(|()| self.flush());
                return Err(Found::because(failed, error));
            }
        };
        let mut found = None;
        if let (Some(asked), Some(check)) = (asked, question) {
            let mut more = Vec::new();
            while found.is_none() {
                match tls.reader().read(turn.scratch) {
                    Ok(n) if n > 0 => found = asked.take(check, &turn.scratch[..n], false, &mut more),
                    _ => break,
                }
            }
            if ended {
                found = found.or_else(|| asked.take(check, b"", true, &mut more));
            }
            say(tls, &more)?;
        } else if ended {
            found = Some(Found::because(failed, "connection closed in the handshake"));
        }
        self.ended |= n == 0;
        if let Some(found) = found {
            return Ok(More::Done(found));
        }
        self.write_tls()?;
        self.flush()?;
        Ok(More::Perhaps)
    }
}

fn say(tls: &mut ClientConnection, text: &[u8]) -> Result<(), Found> {
    tls.writer().write_all(text).map_err(|error| Found::error(CheckStatus::L7Response, &error))
}

/// What a read of TLS came to.
enum More {
    /// It decides.
    Done(Found),
    /// Nothing is there.
    Later,
    /// There may be more.
    Perhaps,
}
