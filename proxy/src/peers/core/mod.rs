//! One connection between two peers, without a socket and without a clock: what to say, what to make of what was
//! said, and when to give up.
//!
//! The caller passes bytes and the time in, and does what comes out:
//! 1. bytes from the peer go to [`handle_input`](Session::handle_input);
//! 2. [`poll_output`](Session::poll_output) has bytes for the peer; [`sent`](Session::sent) says how many went;
//! 3. at [`poll_timeout`](Session::poll_timeout), call [`handle_timeout`](Session::handle_timeout);
//! 4. an [`End`] ends the connection; what output there is then may still be sent;
//! 5. once there are [`parties`](Session::parties), [`tell_all`](Session::tell_all) puts it to use.
//!
//! Once both sides have proved that they have the key, each tells all that is in its tables, and from then on what
//! changes. What is to be told is a mark in the table ([`crate::persist::StickTable`]): any number of changes to an entry between two
//! looks is told once, and nothing has to be queued while the peer is slow. Between two sides the later use wins. What came
//! from the peer is not marked, so it is not told back.
//!
//! Times of use go over the wire in seconds after the connection was made, which is the same moment for both. So
//! both compare the same numbers and decide alike, whatever their clocks show.

mod tables;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    time::{Duration, Instant},
};

use uuid::Uuid;

use self::tables::Cursor;
pub use self::tables::Tables;
use super::{
    auth::Seal,
    wire::{self, Hello, Message, NONCE, Refuse, WireError, framed, write_frame},
};
use crate::{persist::table_time, tls::TicketSecret};

/// The versions of the protocol that are spoken here.
const VERSIONS: (u8, u8) = (1, 2);

/// The first that knows secrets of tickets.
const WITH_TICKETS: u8 = 2;

/// How long both sides may take to prove themselves.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long the side that connects waits for the answer to its proof. Both count times of use from this moment, so it must be
/// nearly the same one: with a second for the clocks, which count whole ones, times are wrong by less than 2 s, which tables put up
/// with (`SLACK` of [`crate::persist::table`]).
const PROOF: Duration = Duration::from_secs(1);

/// After so long without a word Alive is said.
const ALIVE: Duration = Duration::from_secs(1);

/// After so long without a word, or with none taken, the peer is taken for dead.
const SILENCE: Duration = Duration::from_secs(5);

/// How often tables are looked through for what has changed.
pub const LOOK: Duration = Duration::from_millis(20);

/// No more entries are put into the output while it holds so many bytes.
const OUTPUT: usize = 64 * 1024;

/// Who speaks, and with what key.
#[derive(Clone)]
pub struct Config {
    /// The shared key.
    pub key: Box<[u8]>,
    /// Differs each time the process starts.
    pub instance: Uuid,
    /// Where the workers' clock began.
    pub epoch: Instant,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the key.
        f.debug_struct("Config").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The peer refuses it.
    Refused(Refuse),
    /// It is refused here.
    Refuse(Refuse),
    /// A message was altered, repeated or left out.
    Forged,
    /// What came is not of this protocol.
    Wire(WireError),
    /// A message that does not belong here.
    Unexpected,
    /// Nothing was heard, or nothing was taken, for too long.
    Silent,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(Refuse::Version) => f.write_str("the peer speaks no version that is spoken here"),
            Self::Refused(Refuse::Key) => f.write_str("the peer has another key"),
            Self::Refused(Refuse::Oneself) | Self::Refuse(Refuse::Oneself) => {
                f.write_str("the peer is this process itself")
            }
            Self::Refuse(Refuse::Version) => f.write_str("no version that the peer speaks is spoken here"),
            Self::Refuse(Refuse::Key) => f.write_str("the peer does not have the key"),
            Self::Forged => f.write_str("a message was altered, repeated or left out"),
            Self::Wire(error) => error.fmt(f),
            Self::Unexpected => f.write_str("a message that does not belong here"),
            Self::Silent => f.write_str("the peer is silent"),
        }
    }
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// What was exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries told.
    pub entries_sent: u64,
    /// Entries that the peer told.
    pub entries_received: u64,
    /// Of these, those that were news.
    pub entries_taken: u64,
    /// Of these, those of a pool or a member that is not known here.
    pub entries_unknown: u64,
    /// Times that everything was told.
    pub full_syncs_sent: u64,
    /// Times that the peer told everything.
    pub full_syncs_received: u64,
}

/// The two ends of a connection whose sides have proved themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parties {
    /// This process.
    pub own: Uuid,
    /// The other one.
    pub peer: Uuid,
    /// Whether this one has connected.
    pub connects: bool,
}

impl Parties {
    /// Whether this connection is given up for a newer one. When both sides connect to each other, both keep the connection of the one
    /// whose instance is the lower; a connection of a peer that has started anew, or has connected again, replaces
    /// what was there.
    pub fn yields_to(&self, newer: &Self) -> bool {
        let crossed = self.peer == newer.peer && self.connects != newer.connects;
        !crossed || newer.connects == (newer.own < newer.peer)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The peer's Hello is awaited.
    Hello,
    /// Its proof is.
    Auth,
    /// Both have proved themselves.
    Open,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    config: Config,
    connects: bool,
    state: State,
    /// Our Hello, as it is sent.
    hello: Vec<u8>,
    seal: Option<Seal>,
    peer: Uuid,
    version: u8,
    input: Vec<u8>,
    output: Vec<u8>,
    /// What of the output has gone.
    gone: usize,
    started: Instant,
    /// When the proof was sent, or the peer's was awaited.
    agreed: Instant,
    heard: Instant,
    said: Instant,
    /// When output last went, or began to wait.
    moved: Instant,
    look: Instant,
    /// The tables' time when the session opened.
    zero: u32,
    pass: Option<Cursor>,
    /// The present pass tells everything.
    whole: bool,
    /// The peer has spoken of what is not known here.
    missed: bool,
    counters: Counters,
    /// The secrets of tickets that were told last.
    told: Vec<TicketSecret>,
    /// What the peer has told of them since this was asked last.
    heard_tickets: Vec<TicketSecret>,
}

impl Session {
    /// A connection that this side has made; `nonce` are random bytes.
    pub fn connect(config: Config, nonce: [u8; NONCE], now: Instant) -> Self {
        let mut session = Self::new(config, true, nonce, now);
        session.say_hello();
        session
    }

    /// A connection that the peer has made; `nonce` are random bytes.
    pub fn accept(config: Config, nonce: [u8; NONCE], now: Instant) -> Self {
        Self::new(config, false, nonce, now)
    }

    fn new(config: Config, connects: bool, nonce: [u8; NONCE], now: Instant) -> Self {
        let (lowest, highest) = VERSIONS;
        let mut hello = Vec::new();
        Message::Hello(Hello { lowest, highest, instance: config.instance, nonce }).encode(&mut hello);
        Self {
            config,
            connects,
            state: State::Hello,
            hello,
            seal: None,
            peer: Uuid::nil(),
            version: 0,
            input: Vec::new(),
            output: Vec::new(),
            gone: 0,
            started: now,
            agreed: now,
            heard: now,
            said: now,
            moved: now,
            look: now,
            zero: 0,
            pass: None,
            whole: false,
            missed: false,
            counters: Counters::default(),
            told: Vec::new(),
            heard_tickets: Vec::new(),
        }
    }

    /// Tells the secrets that tickets are made with here, unless they are what was told last. Nothing happens before the connection
    /// is open, and with a peer that does not know of them.
    pub fn tell_tickets(&mut self, now: Instant, secrets: Vec<TicketSecret>) {
        let Some(seal) = self.seal.as_mut().filter(|_| self.state == State::Open) else { return };
        if self.version < WITH_TICKETS || secrets.is_empty() || secrets == self.told {
            return;
        }
        let sealed = seal.encrypt(wire::write_secrets(&secrets));
        self.told = secrets;
        self.say(now, &Message::Tickets(sealed));
    }

    /// The secrets of tickets that the peer has told since this was asked last.
    pub fn take_tickets(&mut self) -> Vec<TicketSecret> {
        std::mem::take(&mut self.heard_tickets)
    }

    /// Who speaks with whom, once both have proved themselves.
    pub fn parties(&self) -> Option<Parties> {
        let parties = Parties { own: self.config.instance, peer: self.peer, connects: self.connects };
        (self.state == State::Open).then_some(parties)
    }

    /// The version of the protocol, once it is agreed on.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// What was exchanged since this was asked last.
    pub fn take_counters(&mut self) -> Counters {
        std::mem::take(&mut self.counters)
    }

    /// Takes bytes from the peer.
    ///
    /// # Errors
    /// When the connection is to be ended; what is in the output may be sent before.
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8], tables: &Tables) -> Result<(), End> {
        let mut input = std::mem::take(&mut self.input);
        input.extend(bytes);
        let mut at = 0;
        while let Some(frame) = wire::frame(&input[at..])? {
            at += framed(frame.len());
            self.heard = now;
            self.handle_frame(now, frame, tables)?;
        }
        // What is left is no larger than one frame, which has not come in whole.
        input.drain(..at);
        self.input = input;
        Ok(())
    }

    fn handle_frame(&mut self, now: Instant, frame: &[u8], tables: &Tables) -> Result<(), End> {
        let refusal = frame.len() < wire::MAC && self.state != State::Open;
        let Some(seal) = self.seal.as_mut().filter(|_| !refusal) else {
            return match Message::decode(frame)? {
                Message::Refuse(refuse) => Err(End::Refused(refuse)),
                Message::Hello(hello) if self.state == State::Hello => self.agree(now, hello, frame),
                _ => Err(End::Unexpected),
            };
        };
        let Some(message) = seal.read(frame)? else {
            return Err(match self.state {
                State::Open => End::Forged,
                State::Hello | State::Auth => self.refuse(Refuse::Key),
            });
        };
        match (self.state, Message::decode(message)?) {
            (State::Auth, Message::Auth) => {
                if now >= self.proved_by() {
                    return Err(End::Silent);
                }
                if !self.connects {
                    self.say(now, &Message::Auth);
                }
                self.open(now);
            }
            (State::Open, Message::Alive) => {}
            (State::Open, Message::Entries(entries)) => {
                let merged = tables.merge(&entries, self.zero, self.table_time(now));
                self.missed |= merged.unknown > 0;
                self.counters.entries_received += entries.list.len() as u64;
                self.counters.entries_taken += merged.taken;
                self.counters.entries_unknown += merged.unknown;
            }
            (State::Open, Message::Tickets(sealed)) if self.version >= WITH_TICKETS => {
                let text = self.seal.as_mut().and_then(|seal| seal.decrypt(&sealed)).ok_or(End::Forged)?;
                self.heard_tickets = wire::read_secrets(&text)?;
            }
            (State::Open, Message::Whole) => self.counters.full_syncs_received += 1,
            (State::Open, Message::Again) => self.tell_all(tables),
            _ => return Err(End::Unexpected),
        }
        Ok(())
    }

    /// Agrees on version and keys with the peer's Hello, and answers it.
    fn agree(&mut self, now: Instant, hello: Hello, frame: &[u8]) -> Result<(), End> {
        if hello.instance == self.config.instance {
            return Err(self.refuse(Refuse::Oneself));
        }
        let (lowest, highest) = (VERSIONS.0.max(hello.lowest), VERSIONS.1.min(hello.highest));
        if highest < lowest {
            return Err(self.refuse(Refuse::Version));
        }
        (self.peer, self.version) = (hello.instance, highest);
        (self.state, self.agreed) = (State::Auth, now);
        let hellos = if self.connects { (&self.hello[..], frame) } else { (frame, &self.hello[..]) };
        let mut seal = Seal::new(&self.config.key, self.connects, hellos.0, hellos.1);
        if self.connects {
            seal.write(&mut self.output, |out| Message::Auth.encode(out));
        } else {
            self.say_hello();
        }
        self.seal = Some(seal);
        Ok(())
    }

    fn say_hello(&mut self) {
        write_frame(&mut self.output, |out| out.extend(&self.hello));
    }

    fn refuse(&mut self, refuse: Refuse) -> End {
        write_frame(&mut self.output, |out| Message::Refuse(refuse).encode(out));
        End::Refuse(refuse)
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Open;
        self.zero = self.table_time(now);
        self.look = now;
    }

    /// All that is in the tables is to be told, from the start. To be called when this connection is put to use, both sides having
    /// proved themselves, and not sooner: marks are the tables', and a connection that is in use until then takes them.
    pub fn tell_all(&mut self, tables: &Tables) {
        tables.mark_all();
        (self.pass, self.whole) = (Some(Cursor::default()), true);
    }

    /// The tables are others, or their members are.
    pub fn handle_tables(&mut self, now: Instant) {
        if self.pass.is_some() {
            self.pass = Some(Cursor::default());
        }
        if self.missed && self.state == State::Open {
            self.missed = false;
            self.say(now, &Message::Again);
        }
    }

    fn say(&mut self, now: Instant, message: &Message) {
        let Some(seal) = &mut self.seal else { return };
        if self.output.is_empty() {
            self.moved = now;
        }
        self.said = now;
        seal.write(&mut self.output, |out| message.encode(out));
    }

    /// The bytes to be sent next.
    pub fn poll_output(&mut self, now: Instant, tables: &Tables) -> &[u8] {
        while let Some(cursor) = self.pass
            && self.output.len() < OUTPUT
        {
            let (entries, next) = tables.take(cursor, self.zero);
            self.pass = next;
            if let Some(entries) = entries {
                self.counters.entries_sent += entries.list.len() as u64;
                self.say(now, &Message::Entries(entries));
            }
            if next.is_none() && std::mem::take(&mut self.whole) {
                self.counters.full_syncs_sent += 1;
                self.say(now, &Message::Whole);
            }
        }
        self.output()
    }

    /// The bytes that were to be sent next, when they were last asked for.
    pub fn output(&self) -> &[u8] {
        &self.output[self.gone..]
    }

    /// So many bytes of the output have gone.
    pub fn sent(&mut self, now: Instant, bytes: usize) {
        self.gone = self.output.len().min(self.gone + bytes);
        self.moved = now;
        if self.gone == self.output.len() {
            self.output.clear();
            self.gone = 0;
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Instant {
        if self.state != State::Open {
            return self.proved_by();
        }
        let alive = if self.output.is_empty() { self.said + ALIVE } else { self.moved + SILENCE };
        let other = alive.min(self.heard + SILENCE);
        if self.pass.is_none() { other.min(self.look) } else { other }
    }

    /// Does what is due.
    ///
    /// # Errors
    /// When the peer is taken for dead.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), End> {
        let silent = match self.state {
            State::Open => {
                now >= self.heard + SILENCE || !self.output.is_empty() && now >= self.moved + SILENCE
            }
            State::Hello | State::Auth => now >= self.proved_by(),
        };
        if silent {
            return Err(End::Silent);
        }
        if self.state != State::Open {
            return Ok(());
        }
        if self.output.is_empty() && now >= self.said + ALIVE {
            self.say(now, &Message::Alive);
        }
        if self.pass.is_none() && now >= self.look {
            self.look = now + LOOK;
            self.pass = Some(Cursor::default());
        }
        Ok(())
    }

    fn proved_by(&self) -> Instant {
        let by = self.started + HANDSHAKE;
        if self.state == State::Auth && self.connects { by.min(self.agreed + PROOF) } else { by }
    }

    fn table_time(&self, now: Instant) -> u32 {
        let seconds = now.saturating_duration_since(self.config.epoch).as_secs();
        table_time(u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}
