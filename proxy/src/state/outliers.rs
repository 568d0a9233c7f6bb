//! Members that real traffic fails at, and for how long they are taken out. Workers count; who watches the members decides. Without
//! a clock.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use amphora_model::OutlierDetection;

/// What workers count and read of a member.
#[derive(Debug, Default)]
pub struct Outlier {
    /// Failures in a row, on all workers.
    run: AtomicU32,
    ejected: AtomicBool,
}

impl Outlier {
    /// Whether it is taken out.
    #[inline]
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Failures in a row.
    pub fn run(&self) -> u32 {
        self.run.load(Ordering::Relaxed)
    }

    /// It has done what it was asked for.
    #[inline]
    pub fn passed(&self) {
        // Mostly it has failed nobody, and then nothing that other cores read is written.
        if self.run() != 0 {
            self.run.store(0, Ordering::Relaxed);
        }
    }

    /// It has not; true when that was one of so many in a row.
    pub fn failed(&self, most: u8) -> bool {
        let run = self.run.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        run.is_multiple_of(most.max(1).into())
    }

    /// Takes it out, or lets it back; it begins anew.
    pub fn set_ejected(&self, ejected: bool) {
        self.ejected.store(ejected, Ordering::Relaxed);
        self.run.store(0, Ordering::Relaxed);
    }
}

/// When a member was taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ejections {
    /// Times in a row that nothing good came between.
    times: u32,
    present: Option<Ejection>,
    /// When it came back last, and for how long it had been out.
    back: Option<(Instant, Duration)>,
}

/// A time of being out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Since when.
    pub since: Instant,
    /// Until when.
    pub until: Instant,
    /// The how manyeth this is in a row.
    pub times: u32,
}

impl Ejections {
    /// It is taken out, for `ejection_time` as many times over as it is now in a row. It is forgotten that it was out before once it was
    /// back for as long as that took.
    pub fn eject(&mut self, now: Instant, detection: &OutlierDetection) -> Ejection {
        let forgotten = self.back.is_none_or(|(back, out)| now.saturating_duration_since(back) >= out);
        self.times = if forgotten { 1 } else { self.times.saturating_add(1) };
        let time = detection.ejection_time.saturating_mul(self.times).min(detection.max_ejection_time);
        let ejection = Ejection { since: now, until: now + time, times: self.times };
        self.present = Some(ejection);
        ejection
    }

    /// The time that it is out for.
    pub fn present(&self) -> Option<Ejection> {
        self.present
    }

    /// Whether its time is over: then it is back.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let over = self.present.is_some_and(|ejection| ejection.until <= now);
        if over {
            self.end(now);
        }
        over
    }

    /// It is back.
    pub fn end(&mut self, now: Instant) {
        if let Some(Ejection { since, .. }) = self.present.take() {
            self.back = Some((now, now.saturating_duration_since(since)));
        }
    }
}

/// Whether one more may be taken out of a pool in which so many that are up and have a weight are out, and so many are not.
pub fn may_go(ejected: usize, left: usize, detection: &OutlierDetection) -> bool {
    let share = (ejected + left) * usize::from(detection.max_ejected_percent) / 100;
    left > 1 && ejected < share.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn detection() -> OutlierDetection {
        OutlierDetection { max_ejection_time: seconds(100), ..OutlierDetection::default() }
    }

    #[test]
    fn failures_in_a_row_are_told_each_time_that_they_are_so_many() {
        let outlier = Outlier::default();
        let failed = |times: usize| (0..times).map(|_| outlier.failed(3)).collect::<Vec<_>>();
        assert_eq!(failed(2), [false, false]);
        outlier.passed();
        assert_eq!(failed(7), [false, false, true, false, false, true, false]);
        outlier.set_ejected(true);
        assert!(outlier.is_ejected() && outlier.run() == 0);
        assert!(outlier.failed(1));
    }

    #[test]
    fn each_time_takes_longer_until_it_was_good_for_as_long() {
        let begun = Instant::now();
        let at = |s| begun + seconds(s);
        let mut member = Ejections::default();
        let times = |member: &mut Ejections, s| {
            let Ejection { since, until, times } = member.eject(at(s), &detection());
            (times, until.duration_since(since).as_secs())
        };
        assert_eq!(times(&mut member, 0), (1, 30));
        assert!(!member.handle_timeout(at(29)) && member.handle_timeout(at(30)));
        assert!(!member.handle_timeout(at(31)), "it is back already");
        assert_eq!(times(&mut member, 59), (2, 60), "not good for 30 s");
        assert!(member.handle_timeout(at(119)));
        assert_eq!(times(&mut member, 120), (3, 90));
        assert!(member.handle_timeout(at(210)));
        assert_eq!(times(&mut member, 211), (4, 100), "no longer than the longest");
        assert!(member.handle_timeout(at(312)));
        assert_eq!(times(&mut member, 413), (1, 30), "good for as long as it was out");
    }

    #[test]
    fn one_may_always_go_and_the_last_never() {
        let of = |percent, ejected, left| {
            may_go(ejected, left, &OutlierDetection { max_ejected_percent: percent, ..detection() })
        };
        assert!(of(1, 0, 2) && !of(99, 0, 1) && !of(99, 0, 0));
        assert!(!of(10, 1, 18) && of(10, 1, 19));
        assert!(of(50, 4, 6) && !of(50, 5, 5) && of(99, 8, 2) && !of(99, 9, 1));
    }
}
