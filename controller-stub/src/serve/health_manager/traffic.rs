//! The traffic of the last minutes, as heartbeats tell it. No clock.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use amphora_agent::heartbeat::Message;
use uuid::Uuid;

/// How many spans are kept.
pub const KEPT: usize = 60;

/// Listeners whose traffic is kept; more have none.
const LISTENERS: usize = 4096;

/// What a listener carried in one span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Connections that were accepted.
    pub connections: u64,
    /// Requests that were refused as no requests.
    pub errors: u64,
    /// Connections that were open at a time, at most.
    pub open: u64,
}

/// The samples of one listener: that of span `n` is at `n % KEPT`.
#[derive(Debug)]
struct Ring {
    newest: u64,
    samples: Box<[Sample; KEPT]>,
}

/// Traffic by listener.
#[derive(Debug)]
pub struct Traffic {
    begin: Instant,
    span: Duration,
    listeners: Mutex<HashMap<Uuid, Ring>>,
}

impl Sample {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.connections = self.connections.saturating_add(other.connections);
        self.errors = self.errors.saturating_add(other.errors);
        self.open = self.open.saturating_add(other.open);
    }
}

impl Ring {
    fn new(at: u64) -> Self {
        Self { newest: at, samples: Box::new([Sample::default(); KEPT]) }
    }

    fn slot(at: u64) -> usize {
        usize::try_from(at % KEPT as u64).unwrap_or_default()
    }

    /// The sample of a span that is not before the newest.
    fn at(&mut self, at: u64) -> &mut Sample {
        let first = (self.newest + 1).max((at + 1).saturating_sub(KEPT as u64));
        for gone in first..=at {
            self.samples[Self::slot(gone)] = Sample::default();
        }
        self.newest = self.newest.max(at);
        &mut self.samples[Self::slot(self.newest)]
    }

    /// The sample of a span, where it is kept.
    fn get(&self, at: u64) -> Option<&Sample> {
        (at <= self.newest && at + KEPT as u64 > self.newest).then(|| &self.samples[Self::slot(at)])
    }
}

impl Traffic {
    /// Nothing yet. Two heartbeats at least are of one span.
    pub fn new(now: Instant, interval: Duration) -> Self {
        let span = Duration::from_secs(10).max(interval * 2);
        Self { begin: now, span, listeners: Mutex::default() }
    }

    /// How long a span is.
    pub fn span(&self) -> Duration {
        self.span
    }

    fn number(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begin).as_secs() / self.span.as_secs().max(1)
    }

    /// A heartbeat was believed. Listeners without any traffic take no memory.
    pub fn heard(&self, message: &Message, now: Instant) {
        let at = self.number(now);
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        for (listener, report) in &message.listeners {
            let stats = &report.stats;
            let told = Sample {
                bytes_in: stats.rx,
                bytes_out: stats.tx,
                connections: stats.totconns,
                errors: stats.ereq,
                open: 0,
            };
            if told == Sample::default() && stats.conns == 0 {
                continue;
            }
            let id = listener.0;
            if listeners.len() >= LISTENERS && !listeners.contains_key(&id) {
                listeners.retain(|_, ring| ring.newest + KEPT as u64 > at);
                if listeners.len() >= LISTENERS {
                    continue;
                }
            }
            let sample = listeners.entry(id).or_insert_with(|| Ring::new(at)).at(at);
            sample.add(&told);
            sample.open = sample.open.max(stats.conns);
        }
    }

    /// What some listeners carried together, the oldest span first. The span that has not ended is not among them; of those before
    /// the start there are none.
    pub fn of(&self, wanted: impl Fn(&Uuid) -> bool, now: Instant) -> Vec<Sample> {
        let end = self.number(now);
        let first = end.saturating_sub(KEPT as u64 - 1);
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let chosen: Vec<&Ring> =
            listeners.iter().filter(|(id, _)| wanted(id)).map(|(_, ring)| ring).collect();
        let sum = |at| {
            let mut sum = Sample::default();
            chosen.iter().filter_map(|ring| ring.get(at)).for_each(|sample| sum.add(sample));
            sum
        };
        (first..end).map(sum).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn beat(listener: Uuid, bytes: u64, open: u64) -> Message {
        serde_json::from_value(
            json!({"id": "a", "seq": 1, "ver": 3, "pools": {}, "listeners": {listener.to_string():
            {"status": "OPEN", "stats": {"tx": bytes, "rx": 1, "conns": open, "totconns": 2, "ereq": 0}}}}),
        )
        .unwrap()
    }

    #[test]
    fn spans_add_up_and_the_oldest_go() {
        let begin = Instant::now();
        let traffic = Traffic::new(begin, Duration::from_secs(3));
        let after = |seconds| begin + Duration::from_secs(seconds);
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let out = |now, wanted: &[Uuid]| -> Vec<u64> {
            traffic.of(|id| wanted.contains(id), now).iter().map(|sample| sample.bytes_out).collect()
        };
        assert_eq!(out(after(5), &[one]), [0; 0]);
        traffic.heard(&beat(one, 10, 3), after(1));
        traffic.heard(&beat(one, 5, 1), after(4));
        traffic.heard(&beat(other, 100, 1), after(12));
        traffic.heard(&beat(one, 7, 0), after(35));
        assert_eq!(out(after(9), &[one]), [0; 0], "the first has not ended");
        assert_eq!(out(after(49), &[one]), [15, 0, 0, 7]);
        assert_eq!(out(after(49), &[one, other]), [15, 100, 0, 7]);
        assert_eq!(out(after(49), &[]), [0, 0, 0, 0]);
        let all = traffic.of(|_| true, after(49));
        assert_eq!((all[0].open, all[0].connections, all[0].bytes_in), (3, 4, 2), "open at a time, at most");
        // All but one second of the spans that are kept, and then nothing of them.
        let late = out(after(10 * KEPT as u64 + 9), &[one]);
        assert_eq!((late.len(), late[0], late[2]), (KEPT - 1, 0, 7));
        traffic.heard(&beat(one, 1, 0), after(20_000));
        assert_eq!(out(after(20_010), &[one]).iter().sum::<u64>(), 1);
    }

    #[test]
    fn silence_takes_no_memory_and_listeners_are_so_many() {
        let begin = Instant::now();
        let traffic = Traffic::new(begin, Duration::from_secs(30));
        assert_eq!(traffic.span(), Duration::from_secs(60));
        let nothing: Message = serde_json::from_value(json!({"id": "a", "seq": 1, "ver": 3, "pools": {}, "listeners": {
            Uuid::from_u128(1).to_string(): {"status": "OPEN", "stats": {"tx": 0, "rx": 0, "conns": 0, "totconns": 0, "ereq": 0}}}}))
        .unwrap();
        traffic.heard(&nothing, begin);
        let kept = || traffic.listeners.lock().unwrap().len();
        assert_eq!(kept(), 0);
        (0..LISTENERS as u128 + 5).for_each(|n| traffic.heard(&beat(Uuid::from_u128(n), 1, 0), begin));
        assert_eq!(kept(), LISTENERS);
        let later = begin + traffic.span() * (KEPT as u32 + 1);
        traffic.heard(&beat(Uuid::from_u128(1 << 100), 1, 0), later);
        assert_eq!(kept(), 1, "those that carry nothing any more make room");
    }
}
