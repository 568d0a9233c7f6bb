//! The intervals of RFC 9568 section 6.1.

use std::time::Duration;

use crate::packet::{Interval, Version};

/// Advertisements that a backup misses before it takes over (RFC 9568 section 6.1, Active_Down_Interval).
const MISSED: u32 = 3;

/// Intervals of one virtual router, derived from the interval between its master's advertisements.
///
/// Skews are exact, not cut to whole centiseconds: with advertisements each 10 ms the skew of every priority would be 0,
/// and backups would all take over at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    version: Version,
    interval: Duration,
}

impl Timing {
    /// Of a master that advertises at this interval.
    pub fn new(version: Version, interval: Duration) -> Self {
        Self { version, interval }
    }

    /// The interval that an advertisement names.
    pub fn of(interval: Interval) -> Self {
        match interval {
            Interval::Seconds(seconds) => Self::new(Version::V2, Duration::from_secs(seconds.into())),
            Interval::Centiseconds(centiseconds) => {
                Self::new(Version::V3, Duration::from_millis(u64::from(centiseconds) * 10))
            }
        }
    }

    /// Time between advertisements.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Skew_Time: the higher the priority, the shorter. Version 2 counts in 256ths of a second, version 3 in 256ths of
    /// the interval.
    pub fn skew(&self, priority: u8) -> Duration {
        let unit = match self.version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => self.interval,
        };
        unit * (256 - u32::from(priority)) / 256
    }

    /// Master_Down_Interval.
    pub fn master_down(&self, priority: u8) -> Duration {
        MISSED * self.interval + self.skew(priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_skews_by_the_second() {
        let timing = Timing::of(Interval::Seconds(2));
        assert_eq!(timing.skew(100), Duration::from_micros(609_375));
        assert_eq!(timing.master_down(100), Duration::from_micros(6_609_375));
        assert_eq!(timing.skew(255), Duration::from_nanos(3_906_250));
    }

    #[test]
    fn version_3_skews_by_the_interval_and_keeps_what_is_below_a_centisecond() {
        let timing = Timing::of(Interval::Centiseconds(1));
        assert_eq!(timing.skew(254), Duration::from_nanos(78_125));
        assert_eq!(timing.skew(1), Duration::from_nanos(9_960_937));
        assert_eq!(timing.master_down(0), Duration::from_millis(40));
    }
}
