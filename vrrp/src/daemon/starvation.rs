//! Whether a process that does not answer is not let run, because others have the processors, or hangs.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// A thread that waited for a processor for this part of the time is not let run.
const PART: u32 = 4;

/// What the kernel has counted of a thread (`/proc/PID/task/TID/schedstat`, sched-stats.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    ran: Duration,
    /// Waited for a processor, as of the last time that it got one.
    waited: Duration,
}

/// The threads of a process as they were seen last.
#[derive(Debug, Default)]
pub(super) struct Starvation {
    seen: Option<Instant>,
    threads: HashMap<String, Times>,
}

impl Starvation {
    /// The process has answered: what comes is another story.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether a thread of the process wants to run and is not let. At the first look one that wants to run is enough: it is not known yet
    /// whether it is let.
    pub(super) fn look(&mut self, process: i32, now: Instant) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return false };
        let elapsed = self.seen.map(|seen| now.saturating_duration_since(seen));
        let mut starved = false;
        let mut seen = HashMap::new();
        for thread in threads.flatten() {
            let name = thread.file_name().to_string_lossy().into_owned();
            let times = times(&thread.path());
            let before = self.threads.get(&name).copied().zip(times).zip(elapsed);
            starved |= match before {
                Some(((before, times), elapsed)) => {
                    is_starved(before, times, is_runnable(&thread.path()), elapsed)
                }
                None => is_runnable(&thread.path()),
            };
            seen.extend(times.map(|times| (name, times)));
        }
        *self = Self { seen: Some(now), threads: seen };
        starved
    }
}

fn is_starved(before: Times, now: Times, runnable: bool, elapsed: Duration) -> bool {
    let waited = now.waited.saturating_sub(before.waited);
    waited >= elapsed / PART || (runnable && now.ran == before.ran)
}

/// `None` where the kernel does not count.
fn times(thread: &Path) -> Option<Times> {
    let text = fs::read_to_string(thread.join("schedstat")).ok()?;
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse().map(Duration::from_nanos));
    Some(Times { ran: fields.next()?.ok()?, waited: fields.next()?.ok()? })
}

/// Whether it runs or wants to; one that is stopped or waits for something does not.
fn is_runnable(thread: &Path) -> bool {
    let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may have some of its own.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('R'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn at(ran: u64, waited: u64) -> Times {
        Times { ran: Duration::from_millis(ran), waited: Duration::from_millis(waited) }
    }

    #[test]
    fn who_is_let_run_is_not_starved() {
        let before = at(1000, 500);
        assert!(!is_starved(before, at(1099, 501), true, INTERVAL), "it has a processor for itself");
        assert!(!is_starved(before, before, false, INTERVAL), "it waits for something else");
        assert!(is_starved(before, before, true, INTERVAL), "it wants to run and did not at all");
        assert!(is_starved(before, at(1050, 550), true, INTERVAL), "it ran half of the time");
        assert!(is_starved(before, at(1010, 590), false, INTERVAL), "it ran in between");
    }

    #[test]
    fn this_very_thread_runs_and_nobody_else_is_known() {
        let process = i32::try_from(std::process::id()).unwrap_or_default();
        let mut starvation = Starvation::default();
        assert!(starvation.look(process, Instant::now()));
        assert!(!starvation.look(i32::MAX, Instant::now()));
    }
}
