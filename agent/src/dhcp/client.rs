//! The states and timers of RFC 2131 section 4.4, without sockets and clocks: it is told what comes and what time it is, and says
//! what goes out, when it wants to be woken, and what became of the address.
//!
//! | state | leaves by |
//! | --- | --- |
//! | `Waiting` | its time: `Selecting` |
//! | `Selecting` | the first offer that makes sense: `Requesting` |
//! | `Requesting` | ACK: `Probing`; NAK, or silence: `Waiting` |
//! | `Probing` | silence: `Bound`; somebody who has the address: DECLINE, `Waiting` |
//! | `Rebooting`, with a lease of before | ACK: `Bound`; NAK: `Waiting`; silence: `Bound` for the rest of it |
//! | `Bound` | T1: `Renewing` |
//! | `Renewing`, asking the server | ACK: `Bound`; NAK: `Waiting`; T2: `Rebinding` |
//! | `Rebinding`, asking all | ACK: `Bound`; NAK, or the end of the lease: `Waiting` |
//!
//! Silence is met by asking again after 4, 8, 16, 32 and then always 64 s, a second more or less. What fails is begun anew at once, and
//! if it goes on failing after 4, 8, .. 64 s: whoever answers wrongly as fast as he can is not asked faster.
//!
//! Two differences from the letter: the first question is not delayed by some seconds, since somebody waits for the port; and an
//! address is looked for with two ARP probes in 0.4 s, for the same reason.

mod questions;

use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use amphora_netlink::MacAddress;

use self::questions::Random;
use super::{
    lease::{ENDLESS, Lease, Unfit},
    message::{Answer, Kind, Question},
};

/// Requests for an offer, before another one is looked for.
const REQUESTS: u32 = 4;
/// Requests for a lease of before, before it is used for the rest of its time.
const REBOOT_REQUESTS: u32 = 2;
/// ARP probes for an address before it is used, and the time after each.
const PROBES: u32 = 2;
const PROBE_INTERVAL: Duration = Duration::from_millis(200);

/// The client of one interface.
#[derive(Debug)]
pub struct Client {
    mac: MacAddress,
    largest: u16,
    random: Random,
    state: State,
    /// Failures since there was an address.
    failures: u32,
    /// Why the last answer was not taken.
    refused: Option<Unfit>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

/// What goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// To all servers of the link, from port 68 of this address to port 67.
    Broadcast {
        /// The address of this host, or zeros.
        from: Ipv4Addr,
        /// The message.
        message: Vec<u8>,
    },
    /// To one server, by the host's own routes.
    Unicast {
        /// The server.
        to: Ipv4Addr,
        /// The message.
        message: Vec<u8>,
    },
    /// An ARP probe: does anybody have this address?
    Probe(Ipv4Addr),
}

/// What became of the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It can be used, or be used for longer.
    Bound {
        /// The lease.
        lease: Lease,
        /// Its end; without, it has none.
        expires: Option<Instant>,
    },
    /// It must not be used any more.
    Lost,
}

#[derive(Debug)]
enum State {
    Waiting { until: Instant },
    Selecting(Exchange),
    Requesting { offer: Lease, exchange: Exchange },
    Probing { lease: Lease, asked: Instant, probes: u32, next: Instant },
    Rebooting { held: Held, exchange: Exchange },
    Bound(Held),
    Renewing { held: Held, exchange: Exchange },
    Rebinding { held: Held, exchange: Exchange },
}

/// A question under way.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    transaction: u32,
    began: Instant,
    /// The first time that it was asked under this number: leases count from here, since nobody knows which of the times is
    /// answered.
    asked: Instant,
    times: u32,
    again: Instant,
}

/// A lease that is in use.
#[derive(Clone, Debug)]
struct Held {
    lease: Lease,
    /// Nothing of an endless one is ever due.
    ends: Option<Ends>,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    renewal: Instant,
    rebinding: Instant,
    expires: Instant,
}

impl Held {
    fn new(lease: Lease, asked: Instant) -> Self {
        let after = |seconds: u32| asked + Duration::from_secs(seconds.into());
        let ends = (lease.seconds != ENDLESS).then(|| Ends {
            renewal: after(lease.renewal),
            rebinding: after(lease.rebinding),
            expires: after(lease.seconds),
        });
        Self { lease, ends }
    }

    /// One of before, which ends then, and never later than if it were new.
    fn rest(lease: Lease, now: Instant, expires: Option<Instant>) -> Self {
        let mut held = Self::new(lease, now);
        if let (Some(ends), Some(expires)) = (&mut held.ends, expires) {
            let early = ends.expires.saturating_duration_since(expires);
            for time in [&mut ends.renewal, &mut ends.rebinding, &mut ends.expires] {
                *time = time.checked_sub(early).unwrap_or(now).max(now);
            }
        }
        held
    }

    fn address(&self) -> Ipv4Addr {
        self.lease.address.addr()
    }

    fn expires(&self) -> Option<Instant> {
        self.ends.map(|ends| ends.expires)
    }
}

impl Client {
    /// A client that asks at once: for the lease that it is given, of which it is taken to be in use, or for any. `largest`:
    /// octets of the largest IP packet that it takes. `seed` is to be random.
    pub fn new(
        mac: MacAddress,
        largest: u16,
        seed: u64,
        now: Instant,
        lease: Option<(Lease, Option<Instant>)>,
    ) -> Self {
        let mut client = Self {
            mac,
            largest,
            random: Random(seed),
            state: State::Waiting { until: now },
            failures: 0,
            refused: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        };
        match lease {
            Some((lease, expires)) => {
                let held = Held::rest(lease, now, expires);
                let exchange = client.begin(now);
                client.ask(Kind::Request, None, Some(held.address()), &exchange, now);
                client.state = State::Rebooting { held, exchange };
            }
            None => client.handle_timeout(now),
        }
        client
    }

    /// The next thing to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing that became of the address.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Selecting(exchange) | State::Requesting { exchange, .. } => Some(exchange.again),
            State::Probing { next, .. } => Some(*next),
            State::Bound(held) => held.ends.map(|ends| ends.renewal),
            State::Rebooting { held, exchange } | State::Rebinding { held, exchange } => {
                Some(held.expires().map_or(exchange.again, |expires| expires.min(exchange.again)))
            }
            State::Renewing { held, exchange } => {
                Some(held.ends.map_or(exchange.again, |ends| ends.rebinding.min(exchange.again)))
            }
        }
    }

    /// Whether anything that comes in matters.
    pub fn listens(&self) -> bool {
        !matches!(self.state, State::Waiting { .. } | State::Bound(_))
    }

    /// Why there is no address yet, where something was answered.
    pub fn refused(&self) -> Option<Unfit> {
        self.refused
    }
}

/// What comes in.
impl Client {
    /// An answer came. What is not for this client, or not an answer to what it asked last, is nothing.
    pub fn handle_answer(&mut self, answer: &Answer, now: Instant) {
        if answer.mac != self.mac || self.transaction() != Some(answer.transaction) {
            return;
        }
        match answer.kind {
            Kind::Offer => self.handle_offer(answer, now),
            Kind::Ack => self.handle_ack(answer, now),
            Kind::Nak => self.handle_nak(answer, now),
            Kind::Discover | Kind::Request | Kind::Decline | Kind::Release => {}
        }
    }

    fn transaction(&self) -> Option<u32> {
        match &self.state {
            State::Selecting(exchange)
            | State::Requesting { exchange, .. }
            | State::Rebooting { exchange, .. }
            | State::Renewing { exchange, .. }
            | State::Rebinding { exchange, .. } => Some(exchange.transaction),
            State::Waiting { .. } | State::Probing { .. } | State::Bound(_) => None,
        }
    }

    fn handle_offer(&mut self, answer: &Answer, now: Instant) {
        let State::Selecting(discover) = self.state else { return };
        let Some(offer) = self.lease(answer) else { return };
        let mut exchange = self.begin(now);
        // It goes on with the transaction of the offer (RFC 2131 section 4.4.1).
        (exchange.transaction, exchange.began) = (discover.transaction, discover.began);
        self.request_offer(&offer, &exchange, now);
        self.state = State::Requesting { offer, exchange };
    }

    fn handle_ack(&mut self, answer: &Answer, now: Instant) {
        let Some(lease) = self.lease(answer) else { return };
        let (address, server) = (lease.address.addr(), lease.server);
        // A short one, after long silence, has ended before it is there.
        let left = |exchange: &Exchange| {
            let at_least = now + PROBE_INTERVAL * PROBES;
            lease.seconds == ENDLESS || exchange.asked + Duration::from_secs(lease.seconds.into()) > at_least
        };
        match &self.state {
            State::Requesting { exchange, .. }
            | State::Rebooting { exchange, .. }
            | State::Renewing { exchange, .. }
            | State::Rebinding { exchange, .. }
                if !left(exchange) => {}
            State::Requesting { offer, exchange }
                if (address, server) == (offer.address.addr(), offer.server) =>
            {
                let asked = exchange.asked;
                self.transmits.push_back(Transmit::Probe(address));
                self.state = State::Probing { lease, asked, probes: 1, next: now + PROBE_INTERVAL };
            }
            State::Renewing { held, exchange }
                if (address, server) == (held.address(), held.lease.server) =>
            {
                self.bind(lease, exchange.asked);
            }
            State::Rebooting { held, exchange } | State::Rebinding { held, exchange }
                if address == held.address() =>
            {
                self.bind(lease, exchange.asked);
            }
            _ => {}
        }
    }

    fn handle_nak(&mut self, answer: &Answer, now: Instant) {
        let from = |server| answer.server == Some(server);
        match &self.state {
            State::Requesting { offer, .. } if from(offer.server) => self.begin_anew(now),
            State::Renewing { held, .. } if from(held.lease.server) => self.lose(now),
            State::Rebooting { .. } | State::Rebinding { .. } => self.lose(now),
            _ => {}
        }
    }

    /// An ARP message came.
    pub fn handle_arp(&mut self, sender: (MacAddress, Ipv4Addr), target: Ipv4Addr, now: Instant) {
        let State::Probing { lease, .. } = &self.state else { return };
        let address = lease.address.addr();
        let (mac, of) = sender;
        // Who has it, or is about to have it (RFC 5227 section 2.1.1).
        if mac != self.mac && (of == address || of.is_unspecified() && target == address) {
            let lease = lease.clone();
            self.decline(&lease, now);
        }
    }

    /// The lease of the last [`Event::Bound`] cannot be used here.
    pub fn refuse(&mut self, now: Instant) {
        if let State::Bound(held) = &self.state {
            let lease = held.lease.clone();
            self.decline(&lease, now);
            self.events.push_back(Event::Lost);
        }
    }

    /// It is the time that [`poll_timeout`](Self::poll_timeout) said.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|timeout| now < timeout) {
            return;
        }
        let waiting = State::Waiting { until: now };
        match std::mem::replace(&mut self.state, waiting) {
            State::Waiting { .. } => {
                let exchange = self.begin(now);
                self.discover(&exchange, now);
                self.state = State::Selecting(exchange);
            }
            State::Selecting(mut exchange) => {
                self.count(&mut exchange, now);
                self.discover(&exchange, now);
                self.state = State::Selecting(exchange);
            }
            State::Requesting { exchange, .. } if exchange.times == REQUESTS => self.begin_anew(now),
            State::Requesting { offer, mut exchange } => {
                self.count(&mut exchange, now);
                self.request_offer(&offer, &exchange, now);
                self.state = State::Requesting { offer, exchange };
            }
            State::Probing { lease, asked, probes: PROBES, .. } => self.bind(lease, asked),
            State::Probing { lease, asked, probes, .. } => {
                self.transmits.push_back(Transmit::Probe(lease.address.addr()));
                self.state = State::Probing { lease, asked, probes: probes + 1, next: now + PROBE_INTERVAL };
            }
            State::Rebooting { held, exchange } => self.go_on_rebooting(held, exchange, now),
            State::Bound(held) => {
                let exchange = self.begin(now);
                self.renew(held, exchange, now);
            }
            State::Renewing { held, mut exchange } => {
                if held.ends.is_some_and(|ends| now < ends.rebinding) {
                    // These are far apart: what is late is not waited for.
                    exchange.transaction = self.random.next() as u32;
                    self.renew(held, exchange, now);
                } else {
                    let exchange = self.begin(now);
                    self.rebind(held, exchange, now);
                }
            }
            State::Rebinding { held, mut exchange } => {
                if held.expires().is_some_and(|expires| now >= expires) {
                    self.lose(now);
                } else {
                    exchange.transaction = self.random.next() as u32;
                    self.rebind(held, exchange, now);
                }
            }
        }
    }

    fn go_on_rebooting(&mut self, held: Held, mut exchange: Exchange, now: Instant) {
        if held.expires().is_some_and(|expires| now >= expires) {
            self.lose(now);
        } else if exchange.times == REBOOT_REQUESTS {
            self.state = State::Bound(held);
        } else {
            self.count(&mut exchange, now);
            self.ask(Kind::Request, None, Some(held.address()), &exchange, now);
            self.state = State::Rebooting { held, exchange };
        }
    }

    /// The last word to the server, when the address is given back.
    pub fn release(mac: MacAddress, lease: &Lease, seed: u64) -> Transmit {
        let question = Question {
            kind: Kind::Release,
            transaction: Random(seed).next() as u32,
            seconds: 0,
            address: lease.address.addr(),
            mac,
            requested: None,
            server: Some(lease.server),
            largest: 0,
        };
        Transmit::Unicast { to: lease.server, message: question.write() }
    }
}
