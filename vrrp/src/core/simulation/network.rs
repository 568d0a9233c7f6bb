//! What carries advertisements, and does not always.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::random::Random;
use crate::packet::Interval;

/// An advertisement as it arrives.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Message {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) octets: Vec<u8>,
}

/// One on its way.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flight {
    pub(super) at: Instant,
    /// In the order of sending among those that arrive at once.
    number: u64,
    pub(super) to: usize,
    pub(super) message: Message,
}

pub(super) struct Network {
    flights: BinaryHeap<Reverse<Flight>>,
    flown: u64,
    /// Percent.
    pub(super) loss: u64,
    pub(super) doubles: u64,
    pub(super) delay: Duration,
    /// Who does not reach whom.
    pub(super) cut: [[bool; 3]; 3],
}

impl Network {
    pub(super) fn new(delay: Duration) -> Self {
        Self { flights: BinaryHeap::new(), flown: 0, loss: 0, doubles: 0, delay, cut: [[false; 3]; 3] }
    }

    /// From now on it loses and doubles nothing, and has this delay. What is on its way stays on its way.
    pub(super) fn heal(&mut self, delay: Duration) {
        *self = Self { flights: std::mem::take(&mut self.flights), flown: self.flown, ..Self::new(delay) };
    }

    /// False when none of it will arrive.
    pub(super) fn send(
        &mut self,
        now: Instant,
        from: usize,
        to: usize,
        message: &Message,
        random: &mut Random,
    ) -> bool {
        let before = self.flown;
        let copies = 1 + u64::from(random.chance(self.doubles));
        for _ in 0..copies {
            if self.cut[from][to] || random.chance(self.loss) {
                continue;
            }
            self.fly(now + random.within(self.delay), to, message.clone());
        }
        self.flown > before
    }

    /// Whoever sent it.
    pub(super) fn fly(&mut self, at: Instant, to: usize, message: Message) {
        self.flights.push(Reverse(Flight { at, number: self.flown, to, message }));
        self.flown += 1;
    }

    /// When the next one arrives.
    pub(super) fn next(&self) -> Option<Instant> {
        self.flights.peek().map(|Reverse(flight)| flight.at)
    }

    pub(super) fn arrive(&mut self) -> Option<Flight> {
        self.flights.pop().map(|Reverse(flight)| flight)
    }
}

/// The priority and the interval that an advertisement names.
pub(super) fn says(octets: &[u8]) -> (u8, Interval) {
    let interval = match octets[0] >> 4 {
        2 => Interval::Seconds(octets[5]),
        _ => Interval::Centiseconds(u16::from_be_bytes([octets[4], octets[5]]) & 0x0fff),
    };
    (octets[2], interval)
}
