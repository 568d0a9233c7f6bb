//! How much of its weight a member has that is new or back: HAProxy's `slowstart`.

#![expect(clippy::disallowed_types, reason = "between threads that serve nobody")]

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

/// All of a weight, in the parts that it is counted in (HAProxy's `BE_WEIGHT_SCALE`).
pub const FULL: u16 = 16;

/// What a member has of its weight so long after it came, in sixteenths: HAProxy's steps, which begin with one and go by whole
/// seconds.
pub fn share(since: Duration, slow_start: Duration) -> u16 {
    let (since, slow_start) = (since.as_secs(), slow_start.as_secs());
    if since >= slow_start {
        return FULL;
    }
    let full = u64::from(FULL);
    // Less than `FULL`, since less than all of the time is over.
    (1 + full * since / slow_start).min(full) as u16
}

/// The slow start of one member. Workers read the share; who watches the members moves it on.
#[derive(Debug)]
pub struct SlowStart {
    share: AtomicU16,
    since: Mutex<Option<Instant>>,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self { share: AtomicU16::new(FULL), since: Mutex::default() }
    }
}

impl SlowStart {
    /// What the member has of its weight, in sixteenths.
    #[inline]
    pub fn share(&self) -> u16 {
        self.share.load(Ordering::Relaxed)
    }

    /// It begins with the least.
    pub fn begin(&self, now: Instant) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = Some(now);
        self.share.store(1, Ordering::Relaxed);
    }

    /// Goes on to what it has by now, in a pool that grants so long; true when that is another share.
    pub fn advance(&self, now: Instant, slow_start: Duration) -> bool {
        if self.share() == FULL {
            return false;
        }
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = since.map_or(slow_start, |since| now.saturating_duration_since(since));
        let share = share(elapsed, slow_start);
        if share == FULL {
            *since = None;
        }
        self.share.swap(share, Ordering::Relaxed) != share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_share_grows_by_sixteenths_and_whole_seconds() {
        let shares: Vec<_> = (0..=17).map(|s| share(seconds(s), seconds(16))).collect();
        assert_eq!(shares, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 16, 16]);
        let shares: Vec<_> = (0..=5).map(|s| share(seconds(s), seconds(5))).collect();
        assert_eq!(shares, [1, 4, 7, 10, 13, 16]);
        assert_eq!(share(Duration::from_millis(1999), seconds(5)), 4);
        assert_eq!(share(Duration::ZERO, Duration::ZERO), FULL);
        assert_eq!(share(seconds(3599), seconds(3600)), FULL, "HAProxy's last step is all of it, too");
        assert_eq!(share(seconds(3374), seconds(3600)), 15);
    }

    #[test]
    fn a_member_that_is_back_begins_anew() {
        let begun = Instant::now();
        let at = |s| begun + seconds(s);
        let member = SlowStart::default();
        assert_eq!((member.share(), member.advance(at(9), seconds(4))), (FULL, false));
        member.begin(at(10));
        let step = |s| (member.advance(at(s), seconds(4)), member.share());
        assert_eq!([step(10), step(11), step(11), step(13)], [(false, 1), (true, 5), (false, 5), (true, 13)]);
        member.begin(at(13));
        assert_eq!(
            [step(13), step(14), step(17), step(18)],
            [(false, 1), (true, 5), (true, 16), (false, 16)]
        );
        // The pool has none any more.
        member.begin(at(20));
        assert!(member.advance(at(20), Duration::ZERO));
        assert_eq!(member.share(), FULL);
    }
}
