//! What goes out, and when it is asked again.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{Client, Event, Exchange, Held, State, Transmit};
use crate::dhcp::{
    lease::Lease,
    message::{Answer, Kind, Question},
};

/// The first silence after which a question is asked again, and the longest one (RFC 2131 section 4.1).
const FIRST: Duration = Duration::from_secs(4);
const LONGEST: Duration = Duration::from_secs(64);
/// By so much more or less.
const JITTER: Duration = Duration::from_secs(1);
/// The shortest time between two questions for an address that one has (RFC 2131 section 4.4.5).
const SHORTEST_RENEWAL: Duration = Duration::from_secs(60);
/// After an address was declined (RFC 2131 section 3.1).
const AFTER_DECLINE: Duration = Duration::from_secs(10);
/// What goes out, and what follows.
impl Client {
    pub(super) fn lease(&mut self, answer: &Answer) -> Option<Lease> {
        match Lease::of(answer) {
            Ok(lease) => Some(lease),
            Err(unfit) => {
                self.refused = Some(unfit);
                None
            }
        }
    }

    pub(super) fn begin(&mut self, now: Instant) -> Exchange {
        let again = now + self.random.about(FIRST);
        Exchange { transaction: self.random.next() as u32, began: now, asked: now, times: 1, again }
    }

    pub(super) fn count(&mut self, exchange: &mut Exchange, now: Instant) {
        exchange.again = now + self.random.about(back_off(exchange.times));
        exchange.times = exchange.times.saturating_add(1);
    }

    pub(super) fn discover(&mut self, exchange: &Exchange, now: Instant) {
        self.ask(Kind::Discover, None, None, exchange, now);
    }

    pub(super) fn request_offer(&mut self, offer: &Lease, exchange: &Exchange, now: Instant) {
        let requested = Some(offer.address.addr());
        self.ask(Kind::Request, Some(offer.server), requested, exchange, now);
    }

    /// To all, from nobody.
    pub(super) fn ask(
        &mut self,
        kind: Kind,
        server: Option<Ipv4Addr>,
        requested: Option<Ipv4Addr>,
        exchange: &Exchange,
        now: Instant,
    ) {
        let from = Ipv4Addr::UNSPECIFIED;
        let question = Question { requested, server, ..self.question(kind, exchange, from, now) };
        self.transmits.push_back(Transmit::Broadcast { from, message: question.write() });
    }

    pub(super) fn question(
        &self,
        kind: Kind,
        exchange: &Exchange,
        address: Ipv4Addr,
        now: Instant,
    ) -> Question {
        let seconds = now.saturating_duration_since(exchange.began).as_secs();
        Question {
            kind,
            transaction: exchange.transaction,
            seconds: seconds.try_into().unwrap_or(u16::MAX),
            address,
            mac: self.mac,
            requested: None,
            server: None,
            largest: self.largest,
        }
    }

    pub(super) fn renew(&mut self, held: Held, mut exchange: Exchange, now: Instant) {
        exchange.asked = now;
        exchange.again = now + half(held.ends.map(|ends| ends.rebinding), now);
        let message = self.question(Kind::Request, &exchange, held.address(), now).write();
        self.transmits.push_back(Transmit::Unicast { to: held.lease.server, message });
        self.state = State::Renewing { held, exchange };
    }

    pub(super) fn rebind(&mut self, held: Held, mut exchange: Exchange, now: Instant) {
        exchange.asked = now;
        exchange.again = now + half(held.expires(), now);
        let from = held.address();
        let message = self.question(Kind::Request, &exchange, from, now).write();
        self.transmits.push_back(Transmit::Broadcast { from, message });
        self.state = State::Rebinding { held, exchange };
    }

    pub(super) fn bind(&mut self, lease: Lease, asked: Instant) {
        let held = Held::new(lease.clone(), asked);
        (self.failures, self.refused) = (0, None);
        self.events.push_back(Event::Bound { lease, expires: held.expires() });
        self.state = State::Bound(held);
    }

    pub(super) fn decline(&mut self, lease: &Lease, now: Instant) {
        let exchange = self.begin(now);
        let requested = Some(lease.address.addr());
        self.ask(Kind::Decline, Some(lease.server), requested, &exchange, now);
        self.begin_anew(now);
        if let State::Waiting { until } = &mut self.state {
            *until = (*until).max(now + AFTER_DECLINE);
        }
    }

    pub(super) fn lose(&mut self, now: Instant) {
        self.events.push_back(Event::Lost);
        self.begin_anew(now);
    }

    pub(super) fn begin_anew(&mut self, now: Instant) {
        let delay = match self.failures {
            0 => Duration::ZERO,
            failures => self.random.about(back_off(failures - 1)),
        };
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until: now + delay };
    }
}

/// After so many times: 4, 8, 16, 32, 64, 64 s ..
fn back_off(times: u32) -> Duration {
    FIRST.saturating_mul(1 << times.min(4)).min(LONGEST)
}

/// Half of the time that is left, and a minute at least (RFC 2131 section 4.4.5).
fn half(until: Option<Instant>, now: Instant) -> Duration {
    let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(now));
    (left / 2).max(SHORTEST_RENEWAL)
}

/// SplitMix64: for jitter, and for numbers that nobody off the link can know, from a seed that is random.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A second more or less.
    pub(super) fn about(&mut self, time: Duration) -> Duration {
        let range = 2 * JITTER.as_millis() as u64;
        time - JITTER + Duration::from_millis(self.next() % (range + 1))
    }
}
