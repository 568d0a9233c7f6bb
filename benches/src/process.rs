//! The kernel's accounting of a process and all its children, pinning, and starting and stopping peers.

use std::{
    fs, io,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
    },
    time::ClockId,
    unistd::Pid,
};

use crate::Result;

/// How long a peer has to accept connections after its start, and to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pins the calling thread, and every process and thread that it starts from now on, to one core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).map_err(|e| format!("cannot pin to core {core}: {e}"))?;
    Ok(())
}

/// The cores that this process may use.
pub fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&c| set.is_set(c).unwrap_or(false)).collect())
}

/// Raises the soft limit of open files to the hard one, and says what it is. Children inherit it.
pub fn raise_open_files() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// A running peer. Dropping it stops it.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` on `core`, its output in `log`.
    pub fn start(mut command: Command, core: usize, log: &Path) -> Result<Self> {
        let out = fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let program = command.get_program().to_string_lossy().into_owned();
        // The child inherits the affinity of the thread that starts it, so a thread of its own starts it.
        let child = thread::scope(|s| {
            s.spawn(|| -> Result<Child> {
                pin(core)?;
                command.spawn().map_err(|e| format!("cannot start {program}: {e}").into())
            })
            .join()
            .expect("starting a process does not panic")
        })?;
        Ok(Self { child })
    }

    /// Waits until `ready` is true. An error when the process ends before, or does not get there in time.
    pub fn wait_ready(&mut self, log: &Path, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if ready() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let output = fs::read_to_string(log).unwrap_or_default();
                return Err(format!("ended at once with {status}: {}", output.trim()).into());
            }
            if Instant::now() > deadline {
                return Err(format!("not ready after {PATIENCE:?}").into());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process and all its descendants.
    pub fn tree(&self) -> io::Result<Vec<u32>> {
        tree(self.pid())
    }

    /// The memory that the tree holds now.
    pub fn memory(&self) -> Result<Memory> {
        Memory::of_tree(self.pid())
    }

    /// An error when a thread of the tree may run on another core than `core`: it would not be measured as said.
    pub fn runs_only_on(&self, core: usize) -> Result<()> {
        for pid in self.tree()? {
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                let tid: i32 = task?.file_name().to_string_lossy().parse()?;
                let set = sched_getaffinity(Pid::from_raw(tid))?;
                if (0..CpuSet::count()).any(|c| set.is_set(c).unwrap_or(false) != (c == core)) {
                    return Err(format!("thread {tid} of process {pid} is not pinned to core {core}").into());
                }
            }
        }
        Ok(())
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends the process with SIGTERM, and with SIGKILL when that is not heard in time.
    pub fn stop(&mut self) {
        let Ok(None) = self.child.try_wait() else { return };
        let children = self.tree().unwrap_or_default();
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                for pid in children {
                    let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
                }
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The CPU time that some processes have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// User and system, of all threads, dead ones included.
    pub time: Duration,
    user_ticks: u64,
    system_ticks: u64,
}

impl Cpu {
    /// Of these processes, now.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut total = Self::default();
        for &pid in pids {
            total.time += cpu_time(pid)?;
            let (user, system) = ticks(pid)?;
            total.user_ticks += user;
            total.system_ticks += system;
        }
        Ok(total)
    }

    /// The time used since `earlier`.
    pub fn since(&self, earlier: &Self) -> Duration {
        self.time.saturating_sub(earlier.time)
    }

    /// The kernel's share of the time used since `earlier`, by ticks of 10 ms; 0 when there was none.
    pub fn system_share_since(&self, earlier: &Self) -> f64 {
        let system = self.system_ticks.saturating_sub(earlier.system_ticks) as f64;
        let user = self.user_ticks.saturating_sub(earlier.user_ticks) as f64;
        if system + user == 0.0 { 0.0 } else { system / (system + user) }
    }
}

/// The memory that processes hold, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident pages, summed over the processes: one that two of them share counts twice.
    pub resident: u64,
    /// Resident pages, each divided by the number of processes that share it.
    pub proportional: u64,
}

impl Memory {
    /// Of a process and all its descendants.
    pub fn of_tree(pid: u32) -> Result<Self> {
        Self::of(&tree(pid)?)
    }

    /// Of some processes.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut total = Self::default();
        for pid in pids {
            // The counters of /proc/PID/status are off by some pages per core since Linux 6.2; a walk of the page
            // tables is exact.
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            total.resident += kib(&rollup, "Rss:").ok_or("no Rss")? * 1024;
            total.proportional += kib(&rollup, "Pss:").ok_or("no Pss")? * 1024;
        }
        Ok(total)
    }
}

/// Lets [`peak`] begin anew. For who may write to the process's `clear_refs`, as root may.
///
/// # Errors
/// When that is not permitted, or the process is gone.
pub fn forget_peak(pid: u32) -> Result<()> {
    // See proc_pid_clear_refs(5).
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// The most that a process was resident in, in bytes, since [`forget_peak`].
///
/// # Errors
/// When the process is gone.
pub fn peak(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(kib(&status, "VmHWM:").ok_or("no VmHWM")? * 1024)
}

/// A core's idle and total time in ticks since boot (`/proc/stat`): tells whether somebody else ran on it.
#[derive(Clone, Copy, Debug)]
pub struct CoreTime {
    busy: u64,
    steal: u64,
}

impl CoreTime {
    /// Of one core, now.
    pub fn now(core: usize) -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let name = format!("cpu{core} ");
        let line = stat.lines().find(|l| l.starts_with(&name)).ok_or("no such core in /proc/stat")?;
        let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal guest guest_nice, proc_stat(5)
        let at = |i: usize| fields.get(i).copied().unwrap_or(0);
        Ok(Self { busy: at(0) + at(1) + at(2) + at(5) + at(6), steal: at(7) })
    }

    /// The time since `earlier` that the core was busy, and that the hypervisor took from it.
    pub fn since(&self, earlier: &Self) -> (Duration, Duration) {
        let time = |ticks: u64| Duration::from_millis(ticks * 10);
        (time(self.busy.saturating_sub(earlier.busy)), time(self.steal.saturating_sub(earlier.steal)))
    }
}

/// The scheduler's nanosecond count of all threads of a process (`sum_exec_runtime`), by its CPU clock, which anyone
/// may read (clock_getcpuclockid(3)). `/proc/PID/stat` has the same sum cut to ticks of 10 ms.
fn cpu_time(pid: u32) -> Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid as i32))?;
    Ok(Duration::from(clock.now()?))
}

fn tree(root: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        // One that has just ended is no longer of interest.
        if let Ok(fields) = stat_fields(pid) {
            parents.push((pid, fields.get(1).and_then(|f| f.parse::<u32>().ok()).unwrap_or(0)));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(found)
}

/// The fields of `/proc/PID/stat` after the name in parentheses: state, ppid, ...
fn stat_fields(pid: u32) -> io::Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

fn ticks(pid: u32) -> io::Result<(u64, u64)> {
    let fields = stat_fields(pid)?;
    let at = |i: usize| fields.get(i).and_then(|f| f.parse().ok()).unwrap_or(0);
    // utime and stime are fields 14 and 15 of proc_pid_stat(5), the state being 3.
    Ok((at(11), at(12)))
}

/// The value of a line such as `Rss:   1234 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_busy_thread_is_accounted() {
        let pids = [std::process::id()];
        let before = Cpu::of(&pids).unwrap();
        let started = Instant::now();
        while Cpu::of(&pids).unwrap().since(&before) < Duration::from_millis(5) {
            assert!(started.elapsed() < Duration::from_secs(20));
        }
        let memory = Memory::of_tree(pids[0]).unwrap();
        assert!(memory.resident > 100_000 && memory.proportional <= memory.resident);
    }

    #[test]
    fn children_belong_to_the_tree_and_stop_ends_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & sleep 61; wait"]);
        let mut process = Process::start(command, cores().unwrap()[0], &dir.path().join("log")).unwrap();
        process.wait_ready(&dir.path().join("log"), || true).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while process.tree().unwrap().len() < 3 {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(5));
        }
        let children = process.tree().unwrap();
        process.stop();
        assert!(!process.is_running());
        for pid in children.into_iter().skip(1) {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    }
}
