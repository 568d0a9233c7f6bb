//! The proxy's side of [`amphora_ipc::fitness`]: a thread that does nothing else than look at the pulses of the workers and
//! answer. It waits for nobody: not for a worker, not for the control thread, not for a peer that does not read, and not for
//! the log, which another writes.

use std::{
    fs,
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::AsFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

pub use amphora_ipc::fitness::{FIT, UNFIT};
use amphora_ipc::{
    fitness::{BUSY, QUIESCE, QUIET, RESUME, socket_beside},
    server::remove_stale,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};

use crate::{
    engine::{Pulse, Quiescing},
    net,
};

/// Connections at once. For another one that goes which has been silent the longest.
const MAX_CONNECTIONS: usize = 8;
/// How long accepting pauses when the system is out of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// More than it uses in a debug build.
const STACK: usize = 256 * 1024;

/// The socket of one process. Removed from the file system when dropped.
#[derive(Debug)]
pub struct FitnessSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl FitnessSocket {
    /// Descriptors that it takes at the most, its thread's included: for a moment there is one connection more than is kept.
    pub const DESCRIPTORS: usize = MAX_CONNECTIONS + 3;

    /// Where the socket is that belongs to a control socket: the same name with `.fitness` behind it.
    pub fn beside(control_socket: &Path) -> PathBuf {
        socket_beside(control_socket)
    }

    /// Binds it, readable and writable by the owner and the group. To be called by who holds the control socket, so
    /// that what is there already was left by a process that is gone.
    ///
    /// # Errors
    /// As the file system says.
    #[expect(clippy::disallowed_methods, reason = "at the start, before anybody is served")]
    pub fn bind(path: PathBuf) -> io::Result<Self> {
        remove_stale(&path)?;
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts the thread. It inherits the caller's place among all that wants to run, and what the caller may do; peers that
    /// connect are answered from `begin` on.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors.
    pub fn start(self) -> io::Result<Fitness> {
        let bell = Arc::new(Bell {
            event: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            stop: AtomicBool::new(false),
        });
        let (pulse, given) = mpsc::channel();
        let rung = Arc::clone(&bell);
        let thread = thread::Builder::new().name("fitness".into()).stack_size(STACK).spawn(move || {
            if let Ok(pulse) = given.recv() {
                Loop::new(self, pulse, rung).run();
            }
        })?;
        Ok(Fitness { bell, pulse: Some(pulse), thread: Some(thread) })
    }
}

impl Drop for FitnessSocket {
    #[expect(clippy::disallowed_methods, reason = "at the end")]
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The thread that answers. Dropping it ends it, which closes all connections and removes the socket.
#[derive(Debug)]
pub struct Fitness {
    bell: Arc<Bell>,
    pulse: Option<mpsc::Sender<Pulse>>,
    thread: Option<JoinHandle<()>>,
}

impl Fitness {
    /// Answers from now on, by this.
    pub fn begin(&mut self, pulse: Pulse) {
        if let Some(begin) = self.pulse.take() {
            // It lives until it is told to stop.
            let _ = begin.send(pulse);
        }
    }
}

impl Drop for Fitness {
    fn drop(&mut self) {
        self.pulse = None;
        self.bell.stop.store(true, Ordering::Relaxed);
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Lets the thread look up: it is to stop, or a worker has counted its clients.
#[derive(Debug)]
struct Bell {
    event: EventFd,
    stop: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        // One that rings already is not refused for any other reason.
        let _ = self.event.write(1);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

/// A peer, and what it waits for.
#[derive(Debug)]
struct Peer {
    stream: UnixStream,
    heard: Instant,
    /// It has asked to let clients go, or in again.
    waits: Option<(u8, Quiescing)>,
    keeps_out: bool,
}

struct Loop {
    socket: FitnessSocket,
    pulse: Pulse,
    bell: Arc<Bell>,
    waker: Waker,
    peers: Vec<Peer>,
    paused_until: Option<Instant>,
}

impl Loop {
    fn new(socket: FitnessSocket, pulse: Pulse, bell: Arc<Bell>) -> Self {
        let waker = Waker::from(Arc::clone(&bell));
        // As many as there can be, so that nothing is allocated later: whoever holds the allocator would hold the answer.
        let peers = Vec::with_capacity(MAX_CONNECTIONS);
        Self { socket, pulse, bell, waker, peers, paused_until: None }
    }

    fn run(mut self) {
        while !self.bell.stop.load(Ordering::Relaxed) {
            let (rung, connecting, asking) = self.wait();
            if rung {
                let _ = self.bell.event.read();
            }
            for index in (0..self.peers.len()).rev() {
                if asking[index] && self.hear(index).is_err() {
                    self.let_go(index);
                } else if self.peers[index].waits.is_some() {
                    self.settle(index);
                }
            }
            if connecting {
                self.accept();
            }
        }
        (0..self.peers.len()).rev().for_each(|index| self.let_go(index));
    }

    /// Until something happens: the bell, somebody who connects, peers who ask.
    fn wait(&mut self) -> (bool, bool, [bool; MAX_CONNECTIONS]) {
        let pause = self.paused_until.map(|until| until.saturating_duration_since(net::now()));
        self.paused_until = self.paused_until.filter(|_| pause.is_some_and(|pause| !pause.is_zero()));
        let accepts = if self.paused_until.is_none() { PollFlags::POLLIN } else { PollFlags::empty() };
        let timeout = match pause.filter(|pause| !pause.is_zero()) {
            // Rounded up, or it would turn without end for less than a millisecond.
            Some(pause) => {
                PollTimeout::try_from(pause + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO)
            }
            None => PollTimeout::NONE,
        };
        let bell = self.bell.event.as_fd();
        let mut fds: [PollFd<'_>; MAX_CONNECTIONS + 2] =
            std::array::from_fn(|_| PollFd::new(bell, PollFlags::POLLIN));
        fds[1] = PollFd::new(self.socket.listener.as_fd(), accepts);
        for (fd, peer) in fds[2..].iter_mut().zip(&self.peers) {
            *fd = PollFd::new(peer.stream.as_fd(), PollFlags::POLLIN);
        }
        // An interruption is looked at like any other reason, and finds nothing.
        let _ = poll(&mut fds[..self.peers.len() + 2], timeout);
        let happened = |index: usize| fds[index].any().unwrap_or(false);
        (happened(0), happened(1), std::array::from_fn(|index| happened(index + 2)))
    }

    fn accept(&mut self) {
        match self.socket.listener.accept() {
            Ok((stream, _)) => {
                if self.peers.len() == MAX_CONNECTIONS {
                    let silent = (0..MAX_CONNECTIONS).min_by_key(|index| self.peers[*index].heard);
                    silent.into_iter().for_each(|index| self.let_go(index));
                }
                if stream.set_nonblocking(true).is_ok() {
                    self.peers.push(Peer { stream, heard: net::now(), waits: None, keeps_out: false });
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.paused_until = Some(net::now() + ACCEPT_PAUSE),
        }
    }

    /// Lets clients in again at the end of the connection that kept them out.
    fn let_go(&mut self, index: usize) {
        if self.peers.swap_remove(index).keeps_out {
            self.pulse.resume();
        }
    }

    /// One answer for all that was asked meanwhile, so that a peer in a hurry makes no queue.
    fn hear(&mut self, index: usize) -> io::Result<()> {
        let peer = &mut self.peers[index];
        let mut asked = [0; 64];
        let read = match peer.stream.read(&mut asked) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(error) => return Err(error),
        };
        let asked = &asked[..read];
        peer.heard = net::now();
        if let Some(last) = asked.iter().rfind(|octet| matches!(**octet, QUIESCE | RESUME)) {
            peer.keeps_out = *last == QUIESCE;
            peer.waits = Some((*last, self.pulse.quiesce(peer.keeps_out)));
        }
        if asked.iter().any(|octet| !matches!(*octet, QUIESCE | RESUME)) {
            self.answer(index);
        }
        self.settle(index);
        Ok(())
    }

    /// Answers what had to wait for the workers, once they have done it.
    fn settle(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let Some((asked, quiescing)) = &mut peer.waits else { return };
        let Poll::Ready(clients) = Pin::new(quiescing).poll(&mut Context::from_waker(&self.waker)) else {
            return;
        };
        if *asked == QUIESCE {
            say(&mut peer.stream, if clients == Some(0) { QUIET } else { BUSY });
        } else {
            self.answer(index);
        }
        self.peers[index].waits = None;
    }

    fn answer(&mut self, index: usize) {
        let fit = self.pulse.look(net::now());
        say(&mut self.peers[index].stream, if fit { FIT } else { UNFIT });
    }
}

/// A peer that does not read what it has asked for goes without, and one that is gone is found out by reading.
fn say(stream: &mut UnixStream, answer: u8) {
    let _ = stream.write(&[answer]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::snapshot::TlsSource;
    use crate::{
        datagram::Datagrams,
        engine::Engine,
        limits::{Bounds, Resources},
        logs::Syslog,
    };

    const PATIENCE: Duration = Duration::from_secs(20);

    fn bounds(workers: usize) -> Bounds {
        Resources { descriptors: 4096, memory: 1 << 30, set_aside: 64, workers }.share_out().unwrap()
    }

    fn syslog(workers: usize) -> Syslog {
        Syslog::new(Path::new("/nonexistent/log"), workers).unwrap()
    }

    struct Asker(UnixStream);

    impl Asker {
        fn of(path: &Path) -> Self {
            let stream = UnixStream::connect(path).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Self(stream)
        }

        fn ask(&mut self, octets: &[u8], answers: usize) -> Vec<u8> {
            self.0.write_all(octets).unwrap();
            let mut got = vec![0; answers];
            self.0.read_exact(&mut got).unwrap();
            got
        }
    }

    fn bind() -> (tempfile::TempDir, PathBuf, FitnessSocket) {
        let directory = tempfile::tempdir().unwrap();
        let path = FitnessSocket::beside(&directory.path().join("proxy.sock"));
        assert!(path.ends_with("proxy.sock.fitness"));
        let socket = FitnessSocket::bind(path.clone()).unwrap();
        (directory, path, socket)
    }

    fn engine(workers: usize) -> std::io::Result<Engine> {
        let (datagrams, _) = Datagrams::start(None)?;
        Engine::start(bounds(workers), TlsSource::default(), syslog(workers), datagrams)
    }

    #[tokio::test]
    async fn answers_while_workers_turn_and_closes_with_the_process() {
        let (_directory, path, socket) = bind();
        let mut fitness = socket.start().unwrap();
        let mut early = Asker::of(&path);
        early.0.write_all(b"?").unwrap();
        tokio::task::LocalSet::new()
            .run_until(async {
                let engine = engine(2).unwrap();
                fitness.begin(engine.pulse());
                assert_eq!(early.ask(b"", 1), [FIT], "asked before it began");
                for _ in 0..3 {
                    assert_eq!(early.ask(b"?", 1), [FIT]);
                }
                assert!(engine.drain(Duration::from_secs(5)).await);
                // They are about to end.
                while early.ask(b"?", 1) == [FIT] {
                    thread::yield_now();
                }
                assert_eq!(early.ask(b"?", 1), [UNFIT]);
                drop(fitness);
                assert_eq!(early.0.read(&mut [0]).unwrap(), 0);
                assert!(!path.exists());
            })
            .await;
    }

    #[tokio::test]
    async fn clients_are_kept_out_until_resumed_or_the_connection_closes() {
        let (_directory, path, socket) = bind();
        let mut fitness = socket.start().unwrap();
        tokio::task::LocalSet::new()
            .run_until(async {
                let engine = engine(2).unwrap();
                fitness.begin(engine.pulse());
                let mut peer = Asker::of(&path);
                assert_eq!(peer.ask(b"q", 1), [QUIET]);
                assert_eq!(peer.ask(b"?", 1), [FIT]);
                let mut both = peer.ask(b"q?", 2);
                both.sort_unstable();
                assert_eq!(both, [FIT, QUIET], "how it is does not wait for the workers");
                assert_eq!(peer.ask(b"r", 1), [FIT]);
                assert_eq!(engine.pulse().quiesce(true).await, Some(0));
            })
            .await;
    }

    #[tokio::test]
    async fn a_peer_that_asks_is_not_kept_out_by_those_that_do_not() {
        let (_directory, path, socket) = bind();
        let mut fitness = socket.start().unwrap();
        let silent: Vec<_> = (0..MAX_CONNECTIONS).map(|_| Asker::of(&path)).collect();
        tokio::task::LocalSet::new()
            .run_until(async {
                let engine = engine(1).unwrap();
                fitness.begin(engine.pulse());
                let mut peer = Asker::of(&path);
                for _ in 0..2 * MAX_CONNECTIONS {
                    assert_eq!(peer.ask(b"?", 1), [FIT]);
                    drop(Asker::of(&path));
                }
                drop(silent);
            })
            .await;
    }

    #[test]
    fn a_thread_that_was_never_told_to_begin_ends() {
        let (_directory, path, socket) = bind();
        drop(socket.start().unwrap());
        assert!(!path.exists());
    }
}
