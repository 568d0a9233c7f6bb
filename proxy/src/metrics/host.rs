//! The machine's load and memory, as Octavia's PROMETHEUS listener reports them.

use std::{fs, io, thread};

/// How busy the machine is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Host {
    /// The load average of one minute over the number of CPUs, in percent.
    pub cpu_percent: f64,
    /// Memory that is not available, in percent of all.
    pub memory_percent: f64,
}

impl Host {
    /// Asks the kernel: two small files of procfs.
    ///
    /// # Errors
    /// When they cannot be read or make no sense.
    pub fn read() -> io::Result<Self> {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let (loadavg, meminfo) = (fs::read_to_string("/proc/loadavg")?, fs::read_to_string("/proc/meminfo")?);
        let invalid = |file| io::Error::new(io::ErrorKind::InvalidData, format!("{file} is not as expected"));
        Ok(Self {
            cpu_percent: cpu_percent(&loadavg, cpus).ok_or_else(|| invalid("/proc/loadavg"))?,
            memory_percent: memory_percent(&meminfo).ok_or_else(|| invalid("/proc/meminfo"))?,
        })
    }
}

fn cpu_percent(loadavg: &str, cpus: usize) -> Option<f64> {
    let load: f64 = loadavg.split(' ').next()?.parse().ok()?;
    Some(round(load / cpus as f64 * 100.0))
}

fn memory_percent(meminfo: &str) -> Option<f64> {
    let kib = |name: &str| -> Option<f64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let (total, available) = (kib("MemTotal")?, kib("MemAvailable")?);
    (total > 0.0).then(|| round((total - available) / total * 100.0))
}

/// To one decimal, as Octavia prints them.
fn round(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(cpu_percent("0.51 1.20 3.00 2/345 6789\n", 2), Some(25.5));
        let meminfo = "MemTotal:        8000000 kB\nMemFree:  1 kB\nMemAvailable:    6000000 kB\n";
        assert_eq!(memory_percent(meminfo), Some(25.0));
        assert_eq!(memory_percent("MemTotal: 0 kB\nMemAvailable: 0 kB\n"), None);
        let host = Host::read().unwrap();
        assert!(host.cpu_percent >= 0.0 && (0.0..=100.0).contains(&host.memory_percent), "{host:?}");
    }
}
