//! What the clients saw, counted by the phase of the demo in which a request began.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::exchange::{Kind, Verdict};

/// How many descriptions of losses are kept.
const KEPT: usize = 20;

/// All that was counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// By phase, see [`Phase`].
    phases: BTreeMap<u32, Phase>,
    /// The last things that went wrong, for people.
    pub(super) troubles: VecDeque<String>,
}

/// The requests that began in one phase.
#[derive(Clone, Debug, Default)]
pub(super) struct Phase {
    /// Requests that got the answer that they had to get.
    pub(super) answered: u64,
    /// Requests without a complete answer.
    pub(super) lost: u64,
    /// Requests with an answer that is not the one that they had to get.
    pub(super) wrong: u64,
    /// Connections that were closed although no answer had announced it.
    pub(super) closed: u64,
    /// Answers to a client with a cookie by another member than the cookie's.
    pub(super) moved: u64,
    /// Right answers by kind of request.
    pub(super) kinds: BTreeMap<Kind, u64>,
    /// Right answers by member.
    pub(super) members: BTreeMap<String, Share>,
    /// Time from the request's first byte to the answer's last.
    pub(super) latency: Histogram,
}

/// What one member answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Requests without a cookie: balanced.
    pub(super) balanced: u64,
    /// Requests with a cookie that names this member.
    pub(super) persistent: u64,
}

impl Share {
    /// Both together.
    pub(super) fn total(self) -> u64 {
        self.balanced + self.persistent
    }
}

impl Tally {
    /// Counts one request.
    pub(super) fn count(&mut self, phase: u32, kind: Kind, verdict: Verdict, took: Duration) {
        let phase = self.phases.entry(phase).or_default();
        match verdict {
            Verdict::Right { member, persistent, moved } => {
                phase.answered += 1;
                phase.moved += u64::from(moved);
                *phase.kinds.entry(kind).or_default() += 1;
                if let Some(member) = member {
                    let share = phase.members.entry(member).or_default();
                    if persistent { share.persistent += 1 } else { share.balanced += 1 }
                }
                phase.latency.add(took);
            }
            Verdict::Wrong(what) => {
                phase.wrong += 1;
                self.trouble(format!("wrong answer to {kind}: {what}"));
            }
            Verdict::Lost(what) => {
                phase.lost += 1;
                self.trouble(format!("lost {kind}: {what}"));
            }
        }
    }

    /// Counts a connection that was closed without announcement, between two requests.
    pub(super) fn count_closed(&mut self, phase: u32) {
        self.phases.entry(phase).or_default().closed += 1;
        self.trouble("a connection was closed between two requests".to_owned());
    }

    fn trouble(&mut self, what: String) {
        self.troubles.truncate(KEPT - 1);
        self.troubles.push_front(what);
    }

    /// What began in this phase.
    pub(super) fn phase(&self, phase: u32) -> Phase {
        self.phases.get(&phase).cloned().unwrap_or_default()
    }

    /// Everything together.
    pub(super) fn total(&self) -> Phase {
        let mut total = Phase::default();
        self.phases.values().for_each(|phase| total.add(phase));
        total
    }

    /// Adds up the phases before `now`, so that a demo that runs for days does not grow.
    pub(super) fn settle(&mut self, now: u32) {
        let running = self.phases.split_off(&now);
        let settled = self.total();
        self.phases = running;
        self.phases.insert(0, settled);
    }
}

impl Phase {
    /// Requests that began.
    pub(super) fn requests(&self) -> u64 {
        self.answered + self.lost + self.wrong
    }

    /// True when nothing was lost, wrong or closed.
    pub(super) fn is_clean(&self) -> bool {
        (self.lost, self.wrong, self.closed) == (0, 0, 0)
    }

    /// What went wrong of how many, all of what makes it not clean.
    pub(super) fn harm(&self) -> String {
        let Self { lost, wrong, closed, .. } = self;
        format!("{lost} lost, {wrong} wrong, {closed} connections closed")
    }

    fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.closed += other.closed;
        self.moved += other.moved;
        for (kind, count) in &other.kinds {
            *self.kinds.entry(*kind).or_default() += count;
        }
        for (member, share) in &other.members {
            let own = self.members.entry(member.clone()).or_default();
            own.balanced += share.balanced;
            own.persistent += share.persistent;
        }
        self.latency.add_all(&other.latency);
    }
}

/// Times in buckets that grow by a quarter of a power of two: 19 % wide at most, from 1 µs to an hour.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    buckets: [u64; Self::BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; Self::BUCKETS] }
    }
}

impl Histogram {
    const BUCKETS: usize = 128;

    /// Counts one time.
    pub(super) fn add(&mut self, time: Duration) {
        let micros = time.as_micros().max(1) as f64;
        let bucket = (micros.log2() * 4.0).ceil() as usize;
        self.buckets[bucket.min(Self::BUCKETS - 1)] += 1;
    }

    fn add_all(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(own, other)| *own += other);
    }

    /// The upper bound of the bucket in which the quantile (0 to 1) lies; `None` when nothing was counted.
    pub(super) fn quantile(&self, quantile: f64) -> Option<Duration> {
        let count: u64 = self.buckets.iter().sum();
        let rank = (count as f64 * quantile).ceil().max(1.0) as u64;
        let mut below = 0;
        let bucket = self.buckets.iter().position(|n| {
            below += n;
            below >= rank
        })?;
        Some(Duration::from_secs_f64((bucket as f64 / 4.0).exp2() / 1e6))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn right(member: &str, persistent: bool) -> Verdict {
        Verdict::Right { member: Some(member.to_owned()), persistent, moved: false }
    }

    #[test]
    fn phases_are_kept_apart_and_add_up() {
        let mut tally = Tally::default();
        let ms = Duration::from_millis(1);
        tally.count(1, Kind::Page, right("a", false), ms);
        tally.count(2, Kind::Page, right("a", true), ms);
        tally.count(2, Kind::Upload, Verdict::Lost("reset".into()), ms);
        tally.count_closed(3);
        assert_eq!(tally.phase(2).harm(), "1 lost, 0 wrong, 0 connections closed");
        assert!(tally.phase(1).is_clean() && !tally.phase(2).is_clean() && !tally.phase(3).is_clean());
        for settled in [0, 3, 4] {
            tally.settle(settled);
            let total = tally.total();
            assert_eq!((total.requests(), total.lost, total.closed), (3, 1, 1));
            assert_eq!(total.members["a"], Share { balanced: 1, persistent: 1 });
        }
        assert_eq!(tally.phase(2).requests(), 0, "settled");
        for n in 0..100 {
            tally.count(5, Kind::Page, Verdict::Wrong(n.to_string()), ms);
        }
        assert_eq!(tally.troubles.len(), KEPT);
        assert!(tally.troubles[0].contains("99"));
    }

    #[test]
    fn quantiles_are_right_within_a_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (1..=1000).for_each(|n| histogram.add(Duration::from_micros(n)));
        for (quantile, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let micros = histogram.quantile(quantile).unwrap().as_secs_f64() * 1e6;
            assert!((exact..exact * 1.2).contains(&micros), "{quantile}: {micros}");
        }
        histogram.add(Duration::ZERO);
        histogram.add(Duration::from_secs(1_000_000));
    }
}
