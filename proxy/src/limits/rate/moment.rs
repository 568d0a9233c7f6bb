//! Time as limits reckon it: a number, from a clock that all workers share.

use std::time::Duration;

/// A moment, or a span of time: seconds and their 2^32nd parts. Never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub(super) u64);

impl Moment {
    /// So long after the clock's beginning.
    #[inline]
    pub fn after(since: Duration) -> Self {
        let seconds = since.as_secs().min(u64::from(u32::MAX));
        Self((seconds << 32) | ((u64::from(since.subsec_nanos()) << 32) / 1_000_000_000))
    }

    /// Whole seconds.
    #[inline]
    pub(super) fn seconds(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The span from the clock's beginning, to the nanosecond below.
    pub fn span(self) -> Duration {
        let nanos = ((self.0 & u64::from(u32::MAX)) * 1_000_000_000) >> 32;
        Duration::new(u64::from(self.seconds()), nanos as u32)
    }
}

/// Where a moment lies among the periods of an interval, which are the same for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period {
    /// Its number.
    number: u32,
    interval: u32,
    /// What of it is left, in 2^32nd parts of it: 1 to 2^32.
    left: u64,
}

impl Period {
    /// `interval` is in seconds, at least 1.
    #[inline]
    pub(super) fn of(now: Moment, interval: u32) -> Self {
        let number = now.seconds() / interval;
        let begun = u64::from(number) * u64::from(interval);
        let passed = (now.0 - (begun << 32)) / u64::from(interval);
        Self { number, interval, left: (1 << 32) - passed }
    }

    /// Which of two places the period's count is in; the other has that of the one before.
    #[inline]
    pub(super) fn place(self) -> usize {
        self.number as usize & 1
    }

    /// When what was counted in it counts for nothing any more, in seconds; no other period of the interval has the same.
    #[inline]
    pub(super) fn expiry(self) -> u32 {
        self.number.saturating_add(2).saturating_mul(self.interval)
    }

    /// The same of the period before.
    #[inline]
    pub(super) fn expiry_before(self) -> u32 {
        self.number.saturating_add(1).saturating_mul(self.interval)
    }

    /// The same of the next that has the same place.
    #[inline]
    pub(super) fn expiry_after_next(self) -> u32 {
        self.number.saturating_add(4).saturating_mul(self.interval)
    }

    /// How much came within one interval up to now, if it came evenly in the period before: HAProxy's `freq_ctr_total`.
    #[inline]
    pub(super) fn rate(self, count: Count) -> u64 {
        u64::from(count.now) + ((u64::from(count.before) * self.left) >> 32)
    }

    /// After how long one more would not be too much, if nothing comes until then.
    pub(super) fn free_after(self, count: Count, threshold: u32) -> Duration {
        let interval = Duration::from_secs(u64::from(self.interval));
        let whole = (1u64 << 32) as f64;
        let left = self.left as f64 / whole;
        // What may be left of a count for one more to fit: less than the threshold beside what else there is.
        let share = |of: u32, room: u32| 1.0 - f64::from(room) / f64::from(of.max(1));
        let parts = if count.now < threshold {
            (share(count.before, threshold - count.now) - (1.0 - left)).max(0.0)
        } else {
            left + share(count.now, threshold)
        };
        interval.mul_f64(parts.clamp(0.0, 2.0))
    }
}

/// What was counted of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// In this period.
    pub(super) now: u32,
    /// In the one before.
    pub(super) before: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Moment {
        Moment::after(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn what_was_before_fades_evenly() {
        let count = Count { now: 3, before: 10 };
        for (now, rate) in [(60.0, 13), (66.0, 11), (75.0, 8), (89.9, 3)] {
            assert_eq!(Period::of(at(now), 30).rate(count), rate, "{now}");
        }
        assert_eq!(Period::of(at(60.0), 30).expiry(), 120);
        assert_eq!(Period::of(at(90.0), 30).expiry_before(), 120);
    }

    /// As long as it says, and no longer.
    #[test]
    fn who_is_quiet_for_as_long_as_told_fits() {
        for (now, count, threshold) in [
            (63.0, Count { now: 4, before: 20 }, 10),
            (63.0, Count { now: 10, before: 20 }, 10),
            (89.0, Count { now: 400, before: 0 }, 10),
            (60.0, Count { now: 1, before: 1 }, 1),
            (61.0, Count { now: 9, before: 0 }, 10),
        ] {
            let wait = Period::of(at(now), 30).free_after(count, threshold).as_secs_f64();
            let rate = |later: f64| {
                let (then, first) = (Period::of(at(now + later), 30), Period::of(at(now), 30));
                let moved = match then.number - first.number {
                    0 => count,
                    1 => Count { now: 0, before: count.now },
                    _ => Count::default(),
                };
                then.rate(Count { now: moved.now + 1, ..moved })
            };
            assert!(rate(wait + 0.01) <= u64::from(threshold), "{now} {count:?}: {wait}");
            assert!(wait < 0.1 || rate(wait - 0.1) > u64::from(threshold), "{now} {count:?}: {wait}");
        }
    }
}
