//! When something is due.

use std::time::{Duration, Instant};

use crate::core::Reason;

/// What a backup waits for before it takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// One interval of its own, for another master: it was one before.
    Soon,
    /// Active_Down_Interval.
    Missed,
    /// The skew: the master said that it stops.
    Stopped,
    /// Nothing: the master said that it stops, and there is no other.
    StoppedAlone,
}

impl Wait {
    /// Why it is master when the wait is over.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Soon | Self::Missed => Reason::MasterDown,
            Self::Stopped | Self::StoppedAlone => Reason::MasterStopped,
        }
    }
}

/// Active_Down_Timer, with what it was made of: a new configuration makes it again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Down {
    /// When the wait began: at the last that was heard.
    pub(super) since: Instant,
    pub(super) wait: Wait,
    pub(super) at: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Adver_Timer.
    pub(super) advertise: Option<Instant>,
    pub(super) down: Option<Down>,
    pub(super) hand_over: Option<Instant>,
    pub(super) announce: Option<Instant>,
    pub(super) announce_lower: Option<Instant>,
    pub(super) refresh: Option<Instant>,
}

impl Timers {
    pub(super) fn next(&self) -> Option<Instant> {
        let down = self.down.map(|down| down.at);
        [self.advertise, down, self.hand_over, self.announce, self.announce_lower, self.refresh]
            .into_iter()
            .flatten()
            .min()
    }
}

/// The time that the timer was set to, if that has come; the timer does not run any more.
pub(super) fn take_due(timer: &mut Option<Instant>, now: Instant) -> Option<Instant> {
    timer.take_if(|at| *at <= now)
}

/// So long from now; never, when that is 0.
pub(super) fn after(now: Instant, delay: Duration) -> Option<Instant> {
    (!delay.is_zero()).then(|| now + delay)
}

/// The next time of what was due at `due` and comes this often. Counted from when it was due, so that being a little
/// late each time does not add up; who was late by all of an interval begins anew instead of catching up in a burst.
pub(super) fn again(due: Instant, interval: Duration, now: Instant) -> Instant {
    let next = due + interval;
    if next > now { next } else { now + interval }
}
