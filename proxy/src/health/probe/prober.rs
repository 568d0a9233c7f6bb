//! All probes that are under way, in one epoll instance of one thread.
//!
//! A probe costs what its packets cost and as few system calls as they allow: descriptors are registered once, edge-triggered,
//! and never taken out (closing them does it); the last packet of the handshake is held back until the question goes
//! with it, as HAProxy does, and every connection ends with a reset, which HAProxy uses where the target has not closed yet.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
    },
};
use rustls::ClientConnection;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    http::{self, Answer},
    outcome::{CheckStatus, Found, Outcome},
    ping::Echo,
    tls,
};
use crate::{
    health::core::{Target, TargetId},
    model::HealthCheck,
    net::proxy_protocol,
};

/// The token of the descriptor that wakes the thread up.
const WAKE: u64 = u64::MAX;
/// What of an answer is read at once.
const READ: usize = 16 * 1024;
/// Reads for one target before others have their turn.
const READS: usize = 8;
/// Tables that are kept for the next answers.
const SPARE: usize = 16;

/// The probes under way.
#[derive(Debug)]
pub(in crate::health) struct Prober {
    epoll: Epoll,
    wake: Arc<EventFd>,
    probes: Vec<Slot>,
    free: Vec<u32>,
    deadlines: BTreeSet<(Instant, u32)>,
    /// Tokens of those who have had their share of a turn and have more to read.
    again: Vec<u64>,
    spare: Vec<Answer>,
    scratch: Vec<u8>,
    done: Vec<(TargetId, Outcome)>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    probe: Option<Probe>,
}

#[derive(Debug)]
struct Probe {
    id: TargetId,
    target: Arc<Target>,
    socket: Socket,
    started: Instant,
    deadline: Instant,
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
    Hello(Vec<u8>),
    Http(Answer),
    /// `None` until the handshake is done and the question asked.
    Https(Box<ClientConnection>, Option<Answer>),
}

/// `Ok(None)`: there is more to come.
type Progress = Result<Option<Found>, Found>;

impl Prober {
    /// One without probes.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(in crate::health) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self {
            epoll,
            wake: Arc::new(wake),
            probes: Vec::new(),
            free: Vec::new(),
            deadlines: BTreeSet::new(),
            again: Vec::new(),
            spare: Vec::new(),
            scratch: vec![0; READ],
            done: Vec::new(),
        })
    }

    /// Ends a [`turn`](Self::turn) that waits when it is written to.
    pub(in crate::health) fn waker(&self) -> Arc<EventFd> {
        Arc::clone(&self.wake)
    }

    /// The results since the last call.
    pub(in crate::health) fn done(&mut self) -> std::vec::Drain<'_, (TargetId, Outcome)> {
        self.done.drain(..)
    }

    /// Begins to probe a target.
    pub(in crate::health) fn start(&mut self, id: TargetId, target: Arc<Target>) {
        let started = Instant::now();
        let (socket, stage) = match open(&target) {
            Ok(opened) => opened,
            Err(Found { status, code, detail }) => {
                let duration = started.elapsed();
                return self.done.push((id, Outcome { status, code, detail, duration }));
            }
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.probes.push(Slot::default());
            self.probes.len() as u32 - 1
        });
        let slot = &mut self.probes[index as usize];
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        let token = u64::from(slot.generation) << 32 | u64::from(index);
        let added = self.epoll.add(&socket, EpollEvent::new(flags, token));
        let deadline = started + target.timeout;
        self.deadlines.insert((deadline, index));
        slot.probe =
            Some(Probe { id, target, socket, started, deadline, stage, unsent: Vec::new(), ended: false });
        if let Err(errno) = added {
            self.finish(index, Found::error(CheckStatus::SocketError, &errno.into()));
        }
    }

    /// Waits until a probe can go on, is over, the waker is used, or it is `until`; lets all that can go on.
    pub(in crate::health) fn turn(&mut self, until: Option<Instant>) {
        let deadline = self.deadlines.first().map(|&(at, _)| at);
        let next = [until, deadline].into_iter().flatten().min();
        let timeout = match next {
            _ if !self.done.is_empty() || !self.again.is_empty() => EpollTimeout::ZERO,
            None => EpollTimeout::NONE,
            // Rounded up: what is due in half a millisecond is not asked for again and again until then.
            Some(at) => at
                .saturating_duration_since(Instant::now())
                .checked_add(Duration::from_micros(999))
                .and_then(|wait| EpollTimeout::try_from(wait.as_millis().min(60_000) as i32).ok())
                .unwrap_or(EpollTimeout::ZERO),
        };
        let mut events = [EpollEvent::empty(); 256];
        let ready = match self.epoll.wait(&mut events, timeout) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => 0,
            // None of what epoll_wait(2) lists can be, and what cannot be is not to keep a core busy.
            Err(errno) => {
                tracing::error!(%errno, "health probes cannot be waited for");
                std::thread::sleep(Duration::from_millis(100));
                0
            }
        };
        for token in std::mem::take(&mut self.again) {
            self.go_on(token, EpollFlags::EPOLLIN);
        }
        for event in &events[..ready] {
            match event.data() {
                WAKE => drop(self.wake.read()),
                token => self.go_on(token, event.events()),
            }
        }
        let now = Instant::now();
        while let Some(&(at, index)) = self.deadlines.first()
            && at <= now
        {
            let late = self.probes[index as usize].probe.as_ref().map(Probe::late);
            match late {
                Some(found) => self.finish(index, found),
                None => drop(self.deadlines.pop_first()),
            }
        }
    }

    fn go_on(&mut self, token: u64, flags: EpollFlags) {
        let index = token as u32;
        let slot = &mut self.probes[index as usize];
        if slot.generation != (token >> 32) as u32 {
            return; // Over since.
        }
        let Some(probe) = &mut slot.probe else { return };
        let mut turn = Turn { scratch: &mut self.scratch, spare: &mut self.spare, again: false };
        let progress = probe.go_on(flags, &mut turn);
        let again = turn.again;
        match progress {
            Ok(None) if again => self.again.push(token),
            Ok(None) => {}
            Ok(Some(found)) | Err(found) => self.finish(index, found),
        }
    }

    fn finish(&mut self, index: u32, found: Found) {
        let slot = &mut self.probes[index as usize];
        let Some(probe) = slot.probe.take() else { return };
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        self.deadlines.remove(&(probe.deadline, index));
        if !matches!(probe.stage, Stage::Echo(_)) {
            // Nothing of the connection is to stay here or there, and one packet does it; should this fail the kernel closes
            // it in its own time.
            let _ = probe.socket.set_linger(Some(Duration::ZERO));
        }
        if let Stage::Http(answer) | Stage::Https(_, Some(answer)) = probe.stage
            && self.spare.len() < SPARE
        {
            self.spare.push(answer);
        }
        let Found { status, code, detail } = found;
        self.done.push((probe.id, Outcome { status, code, detail, duration: probe.started.elapsed() }));
    }
}

/// What the probes of one thread share.
struct Turn<'a> {
    scratch: &'a mut Vec<u8>,
    spare: &'a mut Vec<Answer>,
    again: bool,
}

impl Turn<'_> {
    fn answer(&mut self) -> Answer {
        let mut answer = self.spare.pop().unwrap_or_default();
        answer.clear();
        answer
    }
}

/// A socket that connects, or has sent its echo.
fn open(target: &Target) -> Result<(Socket, Stage), Found> {
    let ours = |error: io::Error| Found::error(CheckStatus::SocketError, &error);
    let failed = |error: io::Error| Found::error(CheckStatus::L4Connection, &error);
    let address = SocketAddr::new(target.address, target.port);
    if target.check == HealthCheck::Ping {
        let (socket, raw) = Echo::socket(target.address)
            .map_err(|error| Found::because(CheckStatus::SocketError, error.to_string()))?;
        let echo = Echo::new(target.address, raw);
        socket.connect(&address.into()).map_err(failed)?;
        socket.send(&echo.request()).map_err(failed)?;
        return Ok((socket, Stage::Echo(echo)));
    }
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))
        .map_err(|error| Found::because(CheckStatus::SocketError, error.to_string()))?;
    // We speak first: the ACK of the handshake goes with the question, and where there is none with the reset.
    socket.set_tcp_quickack(false).map_err(ours)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(failed(error)),
        _ => Ok((socket, Stage::Connecting)),
    }
}

impl Probe {
    /// What it means that the deadline passes now.
    fn late(&self) -> Found {
        let status = match &self.stage {
            Stage::Connecting | Stage::Echo(_) => CheckStatus::L4Timeout,
            Stage::Hello(_) | Stage::Https(_, None) => CheckStatus::L6Timeout,
            Stage::Http(_) | Stage::Https(_, Some(_)) => CheckStatus::L7Timeout,
        };
        Found::because(status, "timeout")
    }

    /// What it means that the connection fails now.
    fn failed(&self) -> CheckStatus {
        match &self.stage {
            Stage::Connecting | Stage::Echo(_) => CheckStatus::L4Connection,
            Stage::Hello(_) | Stage::Https(_, None) => CheckStatus::L6Response,
            Stage::Http(_) | Stage::Https(_, Some(_)) => CheckStatus::L7Response,
        }
    }

    fn go_on(&mut self, flags: EpollFlags, turn: &mut Turn<'_>) -> Progress {
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
        if let Some(version) = self.target.proxy_protocol {
            self.unsent.reserve(proxy_protocol::MAX_LENGTH);
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
        let done = match &target.check {
            HealthCheck::Http(check) => {
                http::request(check, &mut self.unsent);
                self.stage = Stage::Http(turn.answer());
                false
            }
            HealthCheck::Https(_) => {
                self.stage = Stage::Https(Box::new(tls::client(target.address)?), None);
                self.write_tls()?;
                false
            }
            HealthCheck::TlsHello => {
                let written = tls::client(target.address)?.write_tls(&mut self.unsent);
                written.map_err(|error| Found::error(CheckStatus::SocketError, &error))?;
                self.stage = Stage::Hello(Vec::new());
                false
            }
            HealthCheck::Tcp | HealthCheck::Ping => true,
        };
        self.flush()?;
        Ok(done.then(|| Found::new(CheckStatus::L4Ok)))
    }

    fn write_tls(&mut self) -> Result<(), Found> {
        let failed = self.failed();
        if let Stage::Https(tls, _) = &mut self.stage {
            while tls.wants_write() {
                tls.write_tls(&mut self.unsent).map_err(|error| Found::error(failed, &error))?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Found> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.socket.send_with_flags(&self.unsent[sent..], libc::MSG_NOSIGNAL) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Found::error(self.failed(), &error)),
            }
        }
        self.unsent.drain(..sent);
        Ok(())
    }

    fn read(&mut self, turn: &mut Turn<'_>) -> Progress {
        for _ in 0..READS {
            if matches!(self.stage, Stage::Https(..)) {
                match self.read_tls(turn)? {
                    More::Done(found) => return Ok(Some(found)),
                    More::Later => return Ok(None),
                    More::Perhaps => continue,
                }
            }
            let failed = self.failed();
            let n = match (&self.socket).read(turn.scratch) {
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Found::error(failed, &error)),
            };
            let (bytes, ended) = (&turn.scratch[..n], n == 0);
            let found = match (&mut self.stage, &self.target.check) {
                (Stage::Http(answer), HealthCheck::Http(check)) => answer.take(check, bytes, ended),
                (Stage::Hello(begun), _) => {
                    begun.extend_from_slice(bytes);
                    tls::judge_hello(begun, ended)
                }
                (Stage::Echo(echo), _) => echo.is_reply(bytes).then(|| Found::new(CheckStatus::L4Ok)),
                _ => None,
            };
            self.ended |= ended;
            // A stream that gave less than was asked for is empty: more of it is another event.
            let empty = n < READ && !self.ended && !matches!(self.stage, Stage::Echo(_));
            if found.is_some() || empty {
                return Ok(found);
            }
        }
        turn.again = true;
        Ok(None)
    }

    fn read_tls(&mut self, turn: &mut Turn<'_>) -> Result<More, Found> {
        let failed = self.failed();
        let Stage::Https(tls, answer) = &mut self.stage else { return Ok(More::Later) };
        let HealthCheck::Https(check) = &self.target.check else { return Ok(More::Later) };
        let n = match tls.read_tls(&mut &self.socket) {
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(More::Later),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(More::Perhaps),
            Err(error) => return Err(Found::error(failed, &error)),
        };
        let processed = tls.process_new_packets().map_err(|error| error.to_string());
        let ended = match processed {
            Ok(state) => {
                if answer.is_none() && !tls.is_handshaking() {
                    let mut request = Vec::with_capacity(128);
                    http::request(check, &mut request);
                    tls.writer()
                        .write_all(&request)
                        .map_err(|error| Found::error(CheckStatus::L7Response, &error))?;
                    *answer = Some(turn.answer());
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
        if let Some(answer) = answer {
            while found.is_none() {
                match tls.reader().read(turn.scratch) {
                    Ok(n) if n > 0 => found = answer.take(check, &turn.scratch[..n], false),
                    _ => break,
                }
            }
            if ended {
                found = found.or_else(|| answer.take(check, b"", true));
            }
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

/// What a read of TLS came to.
enum More {
    /// It decides.
    Done(Found),
    /// Nothing is there.
    Later,
    /// There may be more.
    Perhaps,
}

/// Probes once, waiting for the outcome.
#[cfg(test)]
pub(super) fn once(target: &Target) -> Outcome {
    let mut prober = Prober::new().expect("there are descriptors");
    prober.start(TargetId::default(), Arc::new(target.clone()));
    loop {
        prober.turn(None);
        if let Some((_, outcome)) = prober.done().next() {
            return outcome;
        }
    }
}
