//! The machine's load and memory, as Octavia's PROMETHEUS listener reports them.

use std::{fs, io};

/// How busy the machine is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Host {
    /// The load average of one minute over the number of CPUs, in percent, as Octavia's own exporter computes it:
    /// it says how much work there is, and is above 100 where work waits for a CPU.
    pub cpu_percent: f64,
    /// Memory that is not available, in percent of all.
    pub memory_percent: f64,
}

impl Host {
    /// Asks the kernel: three small files of procfs and sysfs.
    ///
    /// # Errors
    /// When they cannot be read or make no sense.
    #[expect(clippy::disallowed_methods, reason = "procfs and sysfs answer from memory")]
    pub fn read() -> io::Result<Self> {
        let (loadavg, meminfo) = (fs::read_to_string("/proc/loadavg")?, fs::read_to_string("/proc/meminfo")?);
        let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
        let invalid = |file| io::Error::new(io::ErrorKind::InvalidData, format!("{file} is not as expected"));
        Ok(Self {
            cpu_percent: cpus(&online)
                .and_then(|cpus| cpu_percent(&loadavg, cpus))
                .ok_or_else(|| invalid("/proc/loadavg or /sys/devices/system/cpu/online"))?,
            memory_percent: memory_percent(&meminfo).ok_or_else(|| invalid("/proc/meminfo"))?,
        })
    }
}

/// How many CPUs a list of ranges (`0-3,8`) has. The load average is of the machine, and so must these be: neither
/// the process's affinity nor its control group counts.
fn cpus(online: &str) -> Option<u32> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)
    };
    online.trim().split(',').map(range).try_fold(0u32, |sum, n| sum.checked_add(n?)).filter(|&cpus| cpus > 0)
}

fn cpu_percent(loadavg: &str, cpus: u32) -> Option<f64> {
    let load: f64 = loadavg.split(' ').next()?.parse().ok()?;
    Some(round(load / f64::from(cpus) * 100.0))
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
        assert_eq!(cpu_percent("11.88 1.20 3.00 2/345 6789\n", 2), Some(594.0));
        assert_eq!((cpus("0\n"), cpus("0-1\n"), cpus("0,2-5,7\n")), (Some(1), Some(2), Some(6)));
        assert_eq!((cpus("\n"), cpus("3-1"), cpus("0-4294967295"), cpus("x")), (None, None, None, None));
        let meminfo = "MemTotal:        8000000 kB\nMemFree:  1 kB\nMemAvailable:    6000000 kB\n";
        assert_eq!(memory_percent(meminfo), Some(25.0));
        assert_eq!(memory_percent("MemTotal: 0 kB\nMemAvailable: 0 kB\n"), None);
        let host = Host::read().unwrap();
        assert!(host.cpu_percent >= 0.0 && (0.0..=100.0).contains(&host.memory_percent), "{host:?}");
    }
}
