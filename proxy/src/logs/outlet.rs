//! A worker's way to syslog: lines wait for a moment, so that many leave in one call, and nobody waits for them.
//!
//! What a syslog does to it: full, its lines wait until there is room; gone or not there yet, they wait while it is
//! looked for once a second, for five at the most; and while more wait than may, further lines are dropped and
//! counted.

use std::{
    cell::{Cell, RefCell},
    io,
    os::{fd::AsFd, unix::net::UnixDatagram as StdDatagram},
    path::Path,
    sync::Arc,
    time::Duration,
};

use nix::errno::Errno;
use tokio::{
    io::Interest,
    net::UnixDatagram,
    sync::Notify,
    time::{Instant, sleep},
};

use super::queue::Queue;
use crate::{
    state::{Counter, PerWorker},
    sys,
};

/// So many lines go in one call.
const BATCH: usize = 32;
/// How long the first line of a batch waits for others.
const LINGER: Duration = Duration::from_millis(5);
/// How often a syslog that is not there is looked for.
const RETRY: Duration = Duration::from_secs(1);
/// How long lines wait for one.
const PATIENCE: Duration = Duration::from_secs(5);

/// What has become of a worker's lines. Read by any thread.
#[derive(Debug, Default)]
pub struct Counters {
    /// Given to syslog.
    pub sent: Counter,
    /// Not written, or not sent.
    pub dropped: Counter,
}

/// A socket that is to be a worker's, made while one may still be made.
#[derive(Debug)]
pub struct Socket {
    socket: StdDatagram,
    path: Arc<Path>,
}

/// Makes a socket for each worker. It is not connected: that may be long before there is a syslog.
///
/// # Errors
/// As socket(2).
pub fn sockets(path: &Path, workers: usize) -> io::Result<Vec<Socket>> {
    let path: Arc<Path> = path.into();
    (0..workers)
        .map(|_| {
            let socket = StdDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            // Nobody answers.
            socket.shutdown(std::net::Shutdown::Read)?;
            Ok(Socket { socket, path: Arc::clone(&path) })
        })
        .collect()
}

/// See the module.
pub(crate) struct Outlet {
    socket: UnixDatagram,
    path: Arc<Path>,
    queue: RefCell<Queue>,
    counters: Arc<PerWorker<Counters>>,
    worker: usize,
    /// Somebody takes lines, as far as is known.
    connected: Cell<bool>,
    /// It takes no more for now.
    full: Cell<bool>,
    /// Nobody takes any, and lines do not wait for somebody who does.
    gone: Cell<bool>,
    /// A line has come to an empty queue, or for a syslog that is gone.
    wanted: Notify,
}

/// What sending has come to.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    All,
    /// Syslog takes no more for now.
    Full,
    /// There is none.
    Away,
}

impl Outlet {
    /// To be called on the worker's runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub(crate) fn new(socket: Socket, counters: Arc<PerWorker<Counters>>, worker: usize) -> io::Result<Self> {
        let Socket { socket, path } = socket;
        Ok(Self {
            socket: UnixDatagram::from_std(socket)?,
            path,
            queue: RefCell::default(),
            counters,
            worker,
            connected: Cell::new(false),
            full: Cell::new(false),
            gone: Cell::new(false),
            wanted: Notify::new(),
        })
    }

    /// Puts a line, which `write` appends with its head, on its way. Where it cannot go it is not written, but counted.
    pub(crate) fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut queue = self.queue.borrow_mut();
        if self.gone.get() || !queue.has_room() {
            self.counters().dropped.add(1);
            if self.gone.get() {
                self.wanted.notify_one();
            }
            return;
        }
        let first = queue.is_empty();
        queue.push(write);
        let batch = queue.len() >= BATCH;
        drop(queue);
        if first {
            self.wanted.notify_one();
        } else if batch && self.connected.get() && !self.full.get() {
            self.send();
        }
    }

    /// Sends what waits, whenever it has waited for a moment. Never ends, and sleeps while there is nothing to do.
    pub(crate) async fn run(&self) {
        loop {
            self.wanted.notified().await;
            if !self.gone.get() {
                sleep(LINGER).await;
                self.empty().await;
            } else if self.connect() {
                tracing::info!(path = %self.path.display(), "flow logs are taken again");
                self.gone.set(false);
            } else {
                sleep(RETRY).await;
            }
        }
    }

    /// Sends all that waits, for as long as it may wait.
    async fn empty(&self) {
        let mut away_since = None;
        loop {
            match self.send() {
                Sent::All => return,
                Sent::Full => {
                    away_since = None;
                    // An error is none that sending would not meet.
                    let _ = self.socket.writable().await;
                    self.full.set(false);
                }
                Sent::Away => {
                    let since = *away_since.get_or_insert_with(Instant::now);
                    if self.connect() && self.send() != Sent::Away {
                        continue;
                    }
                    if since.elapsed() >= PATIENCE {
                        tracing::warn!(path = %self.path.display(), "nobody takes flow logs: they are dropped");
                        self.drop_all();
                        self.gone.set(true);
                        return;
                    }
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Sends what can be sent at once, and drops the rest: this is the end.
    pub(crate) fn finish(&self) {
        if self.connected.get() || self.connect() {
            // Not by the runtime, which may not have looked yet whether there is room.
            self.send_by(|| Ok(sys::send_each::<BATCH>(self.socket.as_fd(), self.queue.borrow().iter())?));
        }
        self.drop_all();
    }

    fn drop_all(&self) {
        let mut queue = self.queue.borrow_mut();
        let lines = queue.len();
        self.counters().dropped.add(lines as u64);
        queue.pop(lines);
    }

    fn counters(&self) -> &Counters {
        self.counters.of(self.worker)
    }

    fn connect(&self) -> bool {
        let connected = self.socket.connect(&self.path);
        if let Err(error) = &connected {
            tracing::debug!(path = %self.path.display(), %error, "no syslog");
        }
        self.connected.set(connected.is_ok());
        connected.is_ok()
    }

    fn send(&self) -> Sent {
        self.send_by(|| {
            self.socket.try_io(Interest::WRITABLE, || {
                Ok(sys::send_each::<BATCH>(self.socket.as_fd(), self.queue.borrow().iter())?)
            })
        })
    }

    fn send_by(&self, send: impl Fn() -> io::Result<usize>) -> Sent {
        loop {
            if self.queue.borrow().is_empty() {
                return Sent::All;
            }
            if !self.connected.get() {
                return Sent::Away;
            }
            match send() {
                Ok(lines) => {
                    self.queue.borrow_mut().pop(lines);
                    self.counters().sent.add(lines as u64);
                }
                // The runtime's own, when it knows already.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.full.set(true);
                    return Sent::Full;
                }
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EINTR) => {}
                    // Its buffers hold no datagram of that size.
                    Some(Errno::EMSGSIZE) => {
                        self.queue.borrow_mut().pop(1);
                        self.counters().dropped.add(1);
                    }
                    _ => {
                        self.connected.set(false);
                        return Sent::Away;
                    }
                },
            }
        }
    }
}

#[cfg(test)]
#[path = "outlet_tests.rs"]
mod tests;
