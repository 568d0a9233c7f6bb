//! What is made of a worker that does not turn: it hangs, it is busy, or it is not let run. Without a clock and a kernel.

use std::{
    fmt,
    time::{Duration, Instant},
};

use amphora_ipc::threads::Account;

/// A worker that does not turn is not looked at more closely before.
const PATIENCE: Duration = Duration::from_millis(20);
/// One that neither runs nor wants to for so long waits for something that does not come.
const WAITS: Duration = Duration::from_millis(45);
/// One that has run for so long does not come to an end: what a request or a change may take is far less.
const RUNS: Duration = Duration::from_secs(1);
/// Whatever the reason, nobody was served for so long.
const LATE: Duration = Duration::from_secs(2);
/// The same where the kernel does not say what a thread does.
const LATE_UNKNOWN: Duration = Duration::from_millis(200);
/// Looks that follow one another faster find what the last has found: nothing can be told of so short a time.
const SOON: Duration = Duration::from_millis(8);
/// No more than this counts between two looks: a machine that stood still stands still for everybody.
const BETWEEN: Duration = Duration::from_millis(100);

/// A worker that was woken at a time and has not turned since.
#[derive(Clone, Debug)]
pub(super) struct Stall {
    looked: Instant,
    late: Duration,
    /// What it had run when that was looked at first, and last.
    ran: Option<(Duration, Duration)>,
    /// Looks in a row that found it waiting.
    waits: u32,
    found: Option<Lateness>,
}

/// How a worker is late that does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lateness {
    /// It has not turned for so long.
    pub late: Duration,
    /// Of that it ran for so long, as far as that is known.
    pub ran: Duration,
}

impl fmt::Display for Lateness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing for {} ms, of which it ran {} ms", self.late.as_millis(), self.ran.as_millis())
    }
}

impl Stall {
    pub(super) fn new(since: Instant) -> Self {
        Self { looked: since, late: Duration::ZERO, ran: None, waits: 0, found: None }
    }

    /// Says how late the worker is, if it does not serve. `account` is what the kernel says of its thread; `starved`, whether
    /// another thread of the process, which may have what it waits for, wants to run and is not let.
    pub(super) fn look(
        &mut self,
        now: Instant,
        account: impl FnOnce() -> Option<Account>,
        starved: impl FnOnce() -> bool,
    ) -> Option<Lateness> {
        let elapsed = now.saturating_duration_since(self.looked);
        if elapsed < SOON {
            return self.found;
        }
        self.late += elapsed.min(BETWEEN);
        self.looked = now;
        self.found = self.find(account, starved);
        self.found
    }

    fn find(
        &mut self,
        account: impl FnOnce() -> Option<Account>,
        starved: impl FnOnce() -> bool,
    ) -> Option<Lateness> {
        let late = self.late;
        if late < PATIENCE {
            return None;
        }
        let Some(account) = account() else {
            return (late >= LATE_UNKNOWN).then_some(Lateness { late, ran: Duration::ZERO });
        };
        let (first, last) = self.ran.unwrap_or((account.ran, account.ran));
        self.ran = Some((first, account.ran));
        let ran = account.ran.saturating_sub(first);
        let waits = account.waits && account.ran == last;
        self.waits = if waits { self.waits + 1 } else { 0 };
        // Twice, so that it was there all the time; and the second look knows how the others have fared since the first.
        let hangs = waits && !starved() && self.waits > 1 && late >= WAITS;
        (hangs || ran >= RUNS || late >= LATE).then_some(Lateness { late, ran })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(25);

    /// The look that finds out, counted from the one that woke it; `None` when a hundred do not.
    fn found(mut account: impl FnMut(u32) -> Option<Account>, starved: bool) -> Option<u32> {
        let begun = Instant::now();
        let mut stall = Stall::new(begun);
        (1..=100).find(|n| stall.look(begun + *n * LOOK, || account(*n), || starved).is_some())
    }

    fn at(waits: bool, ran: u32) -> Account {
        Account { waits, ran: Duration::from_millis(ran.into()), waited: Duration::ZERO }
    }

    #[test]
    fn one_that_waits_for_what_does_not_come_hangs() {
        let waits = |_| Some(at(true, 7));
        assert_eq!(found(waits, false), Some(2), "50 ms");
        assert_eq!(found(waits, true), Some(80), "who has what it waits for is not let run: 2 s");
    }

    #[test]
    fn one_that_is_busy_is_not_hung_until_it_has_run_for_a_second() {
        assert_eq!(found(|n| Some(at(false, 25 * n)), false), Some(41));
        assert_eq!(found(|n| Some(at(false, 5 * n)), false), Some(80), "it shares its core");
    }

    #[test]
    fn one_that_is_not_let_run_has_two_seconds() {
        assert_eq!(found(|_| Some(at(false, 7)), false), Some(80));
    }

    #[test]
    fn one_that_runs_in_between_does_not_wait() {
        assert_eq!(found(|n| Some(at(true, n)), false), Some(80));
        let at_first = |n: u32| Some(at(n != 2, n.min(2)));
        assert_eq!(found(at_first, false), Some(4));
    }

    #[test]
    fn where_the_kernel_says_nothing_time_alone_counts() {
        assert_eq!(found(|_| None, false), Some(8));
    }

    #[test]
    fn a_machine_that_stood_still_is_no_worker_that_hangs() {
        let begun = Instant::now();
        let mut stall = Stall::new(begun);
        let paused = begun + Duration::from_secs(10);
        let waking = || Some(at(false, 7));
        assert_eq!(stall.look(paused, waking, || false), None);
        // Not even when it found it asleep.
        let mut stall = Stall::new(begun);
        assert_eq!(stall.look(paused, || Some(at(true, 7)), || false), None);
    }

    #[test]
    fn it_is_not_looked_at_more_closely_too_soon() {
        let begun = Instant::now();
        let mut stall = Stall::new(begun);
        let asked_often = (1..=30).map(|n| begun + n * Duration::from_millis(1)).find_map(|now| {
            let account = || if now < begun + PATIENCE { unreachable!("too soon") } else { None };
            stall.look(now, account, || unreachable!("nobody waits"))
        });
        assert_eq!(asked_often, None);
    }
}
