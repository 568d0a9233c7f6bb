//! The load generator: a fixed number of connections, each with one exchange under way, every answer checked.
//!
//! One thread, one epoll, a closed loop: the next question leaves when the answer to the last one is complete, and not
//! before its time when a rate is wanted. The latency of an exchange is from its first system call (connect, or send on
//! a connection kept) to the last byte of its answer.

mod bulk;
pub mod http2;
mod idle;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    io::{self, Read, Write},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use rustls::{ClientConfig, HandshakeKind, client::Resumption};

pub use self::{
    bulk::bulk,
    idle::{Idle, idle, once},
};
use crate::{
    Error, Result,
    exchange::{AnswerReader, Exchange, Failure, Progress},
    histogram::Histogram,
    wire::Wire,
};

/// An exchange that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(5);
/// With so many failures one after the other nothing is there to be measured.
const MAX_FAILURES_IN_A_ROW: u64 = 1000;
/// How often deadlines are looked at, and the upper bound of a wait.
const TICK: Duration = Duration::from_millis(100);

/// What is asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// How to speak TLS with it.
    pub tls: Option<Arc<ClientConfig>>,
    /// Whether each client resumes the session of its last connection.
    pub resumes: bool,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None, resumes: false }
    }
}

impl From<&Self> for Target {
    fn from(target: &Self) -> Self {
        target.clone()
    }
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Exchanges with the right answer.
    pub exchanges: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// TLS handshakes of answered connections that were full ones, and those that resumed an earlier one.
    pub handshakes: [u64; 2],
    /// Kept connections that the other side closed after it had said so in a response. No failure.
    pub announced_closes: u64,
    /// Failures by kind.
    pub failures: BTreeMap<Failure, u64>,
    /// Unexpected status codes, how often each.
    pub statuses: BTreeMap<u16, u64>,
    /// Latencies of the exchanges.
    pub latency: Histogram,
}

impl Tally {
    /// All failures.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Counts from zero, but forgets no failure.
    fn restart(&mut self) {
        let Self { mut latency, failures, statuses, .. } = std::mem::take(self);
        latency.clear();
        *self = Self { latency, failures, statuses, ..Self::default() };
    }
}

/// What the load's conductor wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Go on.
    Continue,
    /// Count from zero; only failures are kept.
    Restart,
    /// No further questions; the answers under way are waited for and counted.
    Stop,
}

/// A measured stretch of a load.
#[derive(Clone, Debug)]
pub struct Window<S> {
    /// What was counted in it.
    pub tally: Tally,
    /// Its length.
    pub elapsed: Duration,
    /// What the probe said at its start.
    pub before: S,
    /// What the probe said at its end.
    pub after: S,
}

/// Runs a load for `warm_up` and then `length`; the latter is what is measured. `probe` is called at both its ends.
pub fn measure<S>(
    warm_up: Duration,
    length: Duration,
    mut probe: impl FnMut() -> Result<S>,
    run: impl FnOnce(&mut dyn FnMut(Instant, &Tally) -> Command) -> Result<Tally>,
) -> Result<Window<S>> {
    let mut start = None;
    let mut end = None;
    let mut failed: Option<Error> = None;
    let begun = Instant::now();
    let tail = run(&mut |now, tally| {
        if failed.is_some() || end.is_some() {
            return Command::Stop;
        }
        let mut sample = || probe().map_err(|e| failed = Some(e)).ok();
        match &start {
            None if now - begun >= warm_up => {
                let Some(before) = sample() else { return Command::Stop };
                start = Some((Instant::now(), before));
                Command::Restart
            }
            Some((started, _)) if now - *started >= length => {
                let Some(after) = sample() else { return Command::Stop };
                end = Some((Instant::now(), after, tally.clone()));
                Command::Stop
            }
            _ => Command::Continue,
        }
    })?;
    if let Some(e) = failed {
        return Err(e);
    }
    let (started, before) = start.ok_or("the load ended before its warm-up")?;
    let (ended, after, mut tally) = end.ok_or("the load ended before its time")?;
    // What was under way at the end belongs to no window, but its failures are failures of the run.
    tally.failures = tail.failures;
    tally.statuses = tail.statuses;
    Ok(Window { tally, elapsed: ended - started, before, after })
}

/// Exchanges over `connections` connections, at most `rate` of them per second or as many as can be, until `conduct`,
/// which is asked at least every 100 ms, says stop.
pub fn exchanges(
    target: impl Into<Target>,
    exchange: &Exchange,
    connections: usize,
    rate: Option<f64>,
    conduct: &mut dyn FnMut(Instant, &Tally) -> Command,
) -> Result<Tally> {
    let target = target.into();
    let mut load = Exchanges {
        address: target.address,
        tls: Vec::new(),
        exchange,
        poll: Poll::new()?,
        clients: Vec::new(),
        tally: Tally::default(),
        failures_in_a_row: 0,
        stopping: false,
        period: rate.map(|rate| Duration::from_secs_f64(connections as f64 / rate)),
        due: BinaryHeap::new(),
    };
    let mut scratch = vec![0; 256 * 1024];
    let begun = Instant::now();
    for slot in 0..connections {
        let own = target.tls.as_ref().filter(|_| target.resumes).map(|tls| {
            let mut tls = ClientConfig::clone(tls);
            tls.resumption = Resumption::in_memory_sessions(1);
            Arc::new(tls)
        });
        load.tls.push(own.or_else(|| target.tls.clone()));
        load.clients.push(Client::default());
        match load.period {
            None => load.begin(slot),
            Some(period) => load.pause(slot, begun + period * slot as u32 / connections as u32),
        }
    }
    let mut events = Events::with_capacity(1024);
    let mut swept = Instant::now();
    while !load.stopping || load.clients.iter().any(|c| c.stream.is_some()) {
        let next =
            load.due.peek().map_or(TICK, |Reverse((due, _))| due.saturating_duration_since(Instant::now()));
        wait(&mut load.poll, &mut events, next.min(TICK))?;
        for event in &events {
            load.proceed(event.token().0, &mut scratch);
        }
        let now = Instant::now();
        load.resume_due(now);
        if now - swept >= TICK {
            swept = now;
            load.sweep(now);
        }
        if !load.stopping {
            match conduct(now, &load.tally) {
                Command::Continue => {}
                Command::Restart => load.tally.restart(),
                Command::Stop => load.stop(),
            }
        }
        if load.failures_in_a_row > MAX_FAILURES_IN_A_ROW {
            return Err(
                format!("nothing but failures: {:?} {:?}", load.tally.failures, load.tally.statuses).into()
            );
        }
    }
    Ok(load.tally)
}

struct Exchanges<'a> {
    address: SocketAddr,
    /// Of each client.
    tls: Vec<Option<Arc<ClientConfig>>>,
    exchange: &'a Exchange,
    poll: Poll,
    clients: Vec<Client>,
    tally: Tally,
    failures_in_a_row: u64,
    stopping: bool,
    /// From the start of a client's exchange to the start of its next, when a rate is wanted.
    period: Option<Duration>,
    /// Clients that pause, by the time of their next exchange.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
}

#[derive(Default)]
struct Client {
    stream: Option<Wire<TcpStream>>,
    reader: AnswerReader,
    /// The connection was made: it has taken bytes.
    made: bool,
    /// It has brought an answer.
    answered: bool,
    /// Of the request.
    sent: usize,
    started: Option<Instant>,
    /// The answer is complete and the other side is to close.
    closing: bool,
    /// Between two exchanges: nothing may come.
    paused: bool,
}

impl Exchanges<'_> {
    /// Opens a connection and, if it is there at once, asks.
    fn begin(&mut self, slot: usize) {
        let client = &mut self.clients[slot];
        *client = Client { started: Some(Instant::now()), ..Client::default() };
        let opened = TcpStream::connect(self.address).and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(slot), interest)?;
            let _ = stream.set_nodelay(true);
            Wire::client(stream, self.tls[slot].as_ref()).map_err(io::Error::other)
        });
        self.tally.connections += 1;
        match opened {
            Ok(stream) => {
                client.stream = Some(stream);
                if let Err(failure) = self.ask(slot) {
                    self.fail(slot, failure);
                }
            }
            Err(_) => self.fail(slot, Failure::Connect),
        }
    }

    /// Sends what is left of the request.
    fn ask(&mut self, slot: usize) -> Result<(), Failure> {
        let client = &mut self.clients[slot];
        let Some(stream) = &mut client.stream else { return Ok(()) };
        while client.sent < self.exchange.request.len() {
            match stream.write(&self.exchange.request[client.sent..]) {
                Ok(n) => {
                    client.sent += n;
                    client.made = true;
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    break;
                }
                Err(e) => return Err(kind(&e, client.made)),
            }
        }
        Ok(())
    }

    fn proceed(&mut self, slot: usize, scratch: &mut [u8]) {
        if let Err(failure) = self.advance(slot, scratch) {
            self.fail(slot, failure);
        }
    }

    fn advance(&mut self, slot: usize, scratch: &mut [u8]) -> Result<(), Failure> {
        if let Some(stream) = &mut self.clients[slot].stream {
            stream.push().map_err(|e| kind(&e, true))?;
        }
        if !self.clients[slot].paused && self.clients[slot].sent < self.exchange.request.len() {
            self.ask(slot)?;
        }
        loop {
            let client = &mut self.clients[slot];
            let Some(stream) = &mut client.stream else { return Ok(()) };
            let n = match stream.read(scratch) {
                Ok(0) if client.closing => {
                    self.finish(slot);
                    return Ok(());
                }
                Ok(0) => return Err(Failure::Closed),
                Ok(n) => n,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    return Ok(());
                }
                Err(e) => return Err(kind(&e, client.made)),
            };
            self.tally.bytes += n as u64;
            if client.closing || client.paused {
                return Err(Failure::Framing);
            }
            if let Progress::Complete { close } = client.reader.feed(&self.exchange.answer, &scratch[..n])? {
                self.complete(slot, close)?;
            }
            let drained = self.clients[slot].stream.as_ref().is_none_or(|s| s.is_drained(n, scratch.len()));
            // A connection whose end is awaited is read once more: it often is there already.
            if drained && !self.clients[slot].closing {
                return Ok(());
            }
        }
    }

    fn complete(&mut self, slot: usize, close: bool) -> Result<(), Failure> {
        let now = Instant::now();
        let client = &mut self.clients[slot];
        if client.sent < self.exchange.request.len() {
            return Err(Failure::Framing);
        }
        if let Some(started) = client.started {
            self.tally.latency.record(now - started);
        }
        if !std::mem::replace(&mut client.answered, true) {
            count_handshake(&mut self.tally, client.stream.as_ref().and_then(Wire::handshake));
        }
        self.tally.exchanges += 1;
        self.failures_in_a_row = 0;
        if close || !self.exchange.keep_alive {
            self.tally.announced_closes += u64::from(self.exchange.keep_alive);
            client.closing = true;
        } else if self.stopping {
            client.stream = None;
        } else {
            client.sent = 0;
            match self.period {
                Some(period) => {
                    let due = client.started.unwrap_or(now) + period;
                    self.pause(slot, due);
                }
                None => {
                    client.started = Some(now);
                    self.ask(slot)?;
                }
            }
        }
        Ok(())
    }

    /// The other side has closed after its answer.
    fn finish(&mut self, slot: usize) {
        let client = &mut self.clients[slot];
        client.stream = None;
        match (self.period, client.started) {
            _ if self.stopping => {}
            (Some(period), Some(started)) => self.pause(slot, started + period),
            _ => self.begin(slot),
        }
    }

    fn pause(&mut self, slot: usize, until: Instant) {
        let client = &mut self.clients[slot];
        client.paused = true;
        client.started = None;
        self.due.push(Reverse((until, slot)));
    }

    /// Starts the exchanges whose time has come.
    fn resume_due(&mut self, now: Instant) {
        while let Some(Reverse((due, slot))) = self.due.peek().copied()
            && due <= now
        {
            self.due.pop();
            let client = &mut self.clients[slot];
            // One that failed in its pause has begun anew already.
            if self.stopping || !std::mem::take(&mut client.paused) {
                continue;
            }
            if client.stream.is_none() {
                self.begin(slot);
                continue;
            }
            client.started = Some(Instant::now());
            if let Err(failure) = self.ask(slot) {
                self.fail(slot, failure);
            }
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        for client in self.clients.iter_mut().filter(|client| client.paused) {
            client.stream = None;
        }
    }

    fn fail(&mut self, slot: usize, failure: Failure) {
        *self.tally.failures.entry(failure).or_default() += 1;
        if failure == Failure::Status {
            *self.tally.statuses.entry(self.clients[slot].reader.status()).or_default() += 1;
        }
        self.failures_in_a_row += 1;
        self.clients[slot].stream = None;
        if !self.stopping && failure != Failure::Connect {
            self.begin(slot);
        }
    }

    /// Fails what is overdue, and tries again where no connection could be made.
    fn sweep(&mut self, now: Instant) {
        for slot in 0..self.clients.len() {
            let client = &self.clients[slot];
            if client.stream.is_some() {
                if client.started.is_some_and(|s| now - s > DEADLINE) {
                    self.fail(slot, Failure::Timeout);
                }
            } else if !self.stopping && !client.paused {
                self.begin(slot);
            }
        }
    }
}

fn count_handshake(tally: &mut Tally, handshake: Option<HandshakeKind>) {
    if let Some(kind) = handshake {
        tally.handshakes[usize::from(kind == HandshakeKind::Resumed)] += 1;
    }
}

fn wait(poll: &mut Poll, events: &mut Events, patience: Duration) -> io::Result<()> {
    match poll.poll(events, Some(patience)) {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
        other => other,
    }
}

fn kind(error: &io::Error, made: bool) -> Failure {
    match error.kind() {
        _ if !made => Failure::Connect,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Failure::Reset,
        _ => Failure::Closed,
    }
}

#[cfg(test)]
mod tests;
