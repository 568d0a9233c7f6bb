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
