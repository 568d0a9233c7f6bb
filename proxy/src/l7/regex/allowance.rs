//! What the expressions of one request may cost its worker, all together.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// CPU time after which expressions that backtrack do not match any more.
const BACKTRACKING: Duration = Duration::from_millis(3);

/// The same for those that an automaton decides. It is more, so that an expression that backtracks, and a client who
/// provokes it, does not take away the plain ones.
const AUTOMATA: Duration = Duration::from_millis(4);

/// Units of work until the clock is first read; typical requests need less.
const UNMEASURED: i64 = 5_000;

/// Units of work between two readings of the clock.
const SLICE: i64 = 25_000;

/// What a slice should take: a unit is about a nanosecond. After a slice that took longer the next is as much shorter.
const SLICE_TIME: Duration = Duration::from_micros(25);

/// Which part of the allowance.
#[derive(Clone, Copy, Debug)]
pub(super) enum Share {
    Backtracking,
    Automata,
}

/// The allowance of one evaluation after another; see [`Allowance::renew`].
///
/// Time is the thread's own: that others take the core away changes no outcome.
#[derive(Debug)]
pub(in crate::l7) struct Allowance {
    now: fn() -> Duration,
    /// Units until the clock is read again.
    credit: i64,
    /// When it was last read.
    read: Option<Duration>,
    spent: Duration,
    exceeded: bool,
}

impl Default for Allowance {
    fn default() -> Self {
        Self::with_clock(cpu_time)
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    // It fails on no Linux; time that stands still would only bound less.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

impl Allowance {
    pub(super) fn with_clock(now: fn() -> Duration) -> Self {
        Self { now, credit: UNMEASURED, read: None, spent: Duration::ZERO, exceeded: false }
    }

    /// Begins a request.
    pub(in crate::l7) fn renew(&mut self) {
        *self = Self::with_clock(self.now);
    }

    /// Whether an expression of this request did not match because it would have cost too much.
    pub(in crate::l7) fn is_exceeded(&self) -> bool {
        self.exceeded
    }

    /// Notes that one was given up.
    pub(super) fn exceed(&mut self) {
        self.exceeded = true;
    }

    /// What was measured of this request.
    pub(in crate::l7) fn spent(&self) -> Duration {
        self.spent
    }

    /// What backtracking has left.
    pub(super) fn left(&self) -> Duration {
        BACKTRACKING.saturating_sub(self.spent)
    }

    /// Asks for so much work; `false` when the share is used up, and the expression does not match.
    #[inline]
    pub(super) fn charge(&mut self, units: usize, share: Share) -> bool {
        self.credit -= units as i64;
        if self.credit < 0 && self.has(share) {
            self.measure();
        }
        self.exceeded |= !self.has(share);
        self.has(share)
    }

    /// Whether something of the share is left.
    #[inline]
    pub(super) fn has(&self, share: Share) -> bool {
        self.spent
            < match share {
                Share::Backtracking => BACKTRACKING,
                Share::Automata => AUTOMATA,
            }
    }

    /// Reads the clock.
    #[cold]
    pub(super) fn measure(&mut self) {
        let now = (self.now)();
        let took = match self.read.replace(now) {
            Some(before) => now.saturating_sub(before),
            None => SLICE_TIME,
        };
        self.spent += took;
        self.credit = (SLICE as f64 * (SLICE_TIME.as_secs_f64() / took.max(SLICE_TIME).as_secs_f64())) as i64;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });

    fn clock() -> Duration {
        Duration::from_micros(NOW.get())
    }

    #[test]
    fn work_is_measured_slice_by_slice_and_each_share_ends_at_its_time() {
        use Share::*;
        let micros = |allowance: &Allowance| allowance.left().as_micros();
        let mut allowance = Allowance::with_clock(clock);
        // The first 5,000 units are free; with the next one the clock is read, and a slice is taken for spent.
        assert!(allowance.charge(5_000, Automata));
        assert_eq!(micros(&allowance), 3_000);
        assert!(allowance.charge(1, Automata));
        assert_eq!(micros(&allowance), 2_975);
        // 25,000 units to the next reading, and a fourth of that after a slice that took four times as long.
        NOW.set(100);
        assert!(allowance.charge(25_000, Automata));
        assert_eq!(micros(&allowance), 2_975);
        assert!(allowance.charge(1, Backtracking));
        assert_eq!(micros(&allowance), 2_875);
        NOW.set(110);
        assert!(allowance.charge(6_250, Automata));
        assert_eq!(micros(&allowance), 2_875);
        assert!(allowance.charge(1, Automata));
        assert_eq!(micros(&allowance), 2_865);
        // A slice that took less is followed by a whole one.
        NOW.set(110 + 2_864);
        assert!(allowance.charge(25_000, Automata));
        assert_eq!(micros(&allowance), 2_865);
        assert!(allowance.charge(1, Backtracking));
        assert_eq!((micros(&allowance), allowance.is_exceeded()), (1, false));
        allowance.measure();
        NOW.set(110 + 2_865);
        allowance.measure();
        assert_eq!(
            (allowance.has(Backtracking), allowance.has(Automata), allowance.is_exceeded()),
            (false, true, false)
        );
        assert!(!allowance.charge(1, Backtracking) && allowance.charge(1, Automata));
        assert!(allowance.is_exceeded());
        NOW.set(110 + 3_864);
        allowance.measure();
        assert!(allowance.charge(1, Automata));
        NOW.set(110 + 3_865);
        allowance.measure();
        assert!(!allowance.charge(1, Automata));
        allowance.renew();
        assert!(allowance.charge(1, Backtracking) && !allowance.is_exceeded());
        allowance.exceed();
        assert!(allowance.is_exceeded() && allowance.charge(1, Backtracking));
    }

    #[test]
    fn the_clock_is_the_threads_own() {
        let before = cpu_time();
        while cpu_time() == before {
            std::hint::black_box(before);
        }
        assert!(cpu_time() > before);
    }
}
