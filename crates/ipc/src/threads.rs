//! What the kernel says of the threads of a process: by that one who does not answer because others have the processors is
//! told from one who hangs.
//!
//! It reads `/proc/PID/task/TID/stat` and `schedstat`, which everybody may read of every process, whoever it belongs to and
//! whether or not it may be traced or dumped. Where `/proc` is mounted with `hidepid`, or is not there, nothing is known.

#![expect(clippy::disallowed_methods, reason = "procfs answers from memory")]

use std::{
    collections::HashMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// A thread that waited for a processor for this part of the time is not let run.
const PART: u32 = 4;

/// A thread at a moment (proc_pid_stat(5), sched-stats.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// It waits for somebody, or was stopped; it does not run, or want to, or wait for what the kernel does for it, such as
    /// to bring a page from a disk.
    pub waits: bool,
    /// How long it has had a processor, as of the last time that it was given one, or the kernel's last tick meanwhile.
    pub ran: Duration,
    /// How long it has waited for a processor, as of the last time that it got one.
    pub waited: Duration,
}

impl Account {
    /// Of a thread of a process, both by the kernel's numbers; `None` when there is none, or the kernel does not say.
    pub fn of(process: i32, thread: i32) -> Option<Self> {
        Self::read(Path::new(&format!("/proc/{process}/task/{thread}")))
    }

    fn read(thread: &Path) -> Option<Self> {
        let stat = fs::read_to_string(thread.join("stat")).ok()?;
        let times = fs::read_to_string(thread.join("schedstat")).ok()?;
        // The state follows the name, which is in parentheses and may have some of its own.
        let waits = !stat.rsplit_once(')')?.1.trim_start().starts_with(['R', 'D']);
        let mut times = times.split_ascii_whitespace().map(|field| field.parse().map(Duration::from_nanos));
        Some(Self { waits, ran: times.next()?.ok()?, waited: times.next()?.ok()? })
    }
}

/// The threads of a process as they were seen last.
#[derive(Clone, Debug, Default)]
pub struct Starvation {
    seen: Option<Instant>,
    threads: HashMap<String, Account>,
}

impl Starvation {
    /// What was seen is another story.
    pub fn forget(&mut self) {
        // Most have nothing to forget.
        if self.seen.is_some() {
            *self = Self::default();
        }
    }

    /// Whether a thread of the process, but one, wants to run and is not let. At the first look one that wants to run is enough: it
    /// is not known yet whether it is let.
    pub fn look(&mut self, process: i32, but: Option<i32>, now: Instant) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return false };
        let elapsed = self.seen.map(|seen| now.saturating_duration_since(seen));
        let but = but.map(|thread| thread.to_string());
        let mut starved = false;
        let mut seen = HashMap::new();
        for thread in threads.flatten() {
            let name = thread.file_name().to_string_lossy().into_owned();
            if Some(&name) == but.as_ref() {
                continue;
            }
            let Some(account) = Account::read(&thread.path()) else { continue };
            starved |= match self.threads.get(&name).zip(elapsed) {
                Some((before, elapsed)) => is_starved(*before, account, elapsed),
                None => !account.waits,
            };
            seen.insert(name, account);
        }
        *self = Self { seen: Some(now), threads: seen };
        starved
    }
}

fn is_starved(before: Account, now: Account, elapsed: Duration) -> bool {
    let waited = now.waited.saturating_sub(before.waited);
    waited >= elapsed / PART || (!now.waits && now.ran == before.ran)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn at(ran: u64, waited: u64, waits: bool) -> Account {
        Account { waits, ran: Duration::from_millis(ran), waited: Duration::from_millis(waited) }
    }

    #[test]
    fn who_is_let_run_is_not_starved() {
        let before = at(1000, 500, false);
        let starved = |now| is_starved(before, now, INTERVAL);
        assert!(!starved(at(1099, 501, false)), "it has a processor for itself");
        assert!(!starved(at(1000, 500, true)), "it waits for something else");
        assert!(starved(before), "it wants to run and did not at all");
        assert!(starved(at(1050, 550, false)), "it ran half of the time");
        assert!(starved(at(1010, 590, true)), "it ran in between");
    }

    #[test]
    fn this_very_thread_runs_and_nobody_else_is_known() {
        let (process, thread) = (i32::try_from(std::process::id()).unwrap(), own_thread());
        assert!(Starvation::default().look(process, None, Instant::now()));
        assert!(!Starvation::default().look(i32::MAX, None, Instant::now()));
        assert!(!Account::of(process, thread).unwrap().waits);
        assert_eq!(Account::of(process, i32::MAX), None);
    }

    #[test]
    fn one_that_waits_does_not_run() {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let waiting = thread::spawn(move || {
            tell.send(own_thread()).unwrap();
            let _ = ended.recv();
        });
        let (process, thread) = (i32::try_from(std::process::id()).unwrap(), told.recv().unwrap());
        while !Account::of(process, thread).unwrap().waits {
            thread::yield_now();
        }
        drop(end);
        waiting.join().unwrap();
    }

    /// The number of the calling thread.
    fn own_thread() -> i32 {
        let link = fs::read_link("/proc/thread-self").unwrap();
        link.file_name().unwrap().to_str().unwrap().parse().unwrap()
    }
}
