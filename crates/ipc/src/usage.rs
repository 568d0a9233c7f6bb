//! What a process has of the machine, as each of an amphora tells it in its own metrics: none can look into another.

use std::{fs, process};

use nix::sys::resource::{Resource, getrlimit};

/// Memory and descriptors of this process, as far as the kernel says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// Open descriptors. Linux counts them by itself since 6.2; with older ones it would take a look at each.
    pub open_descriptors: Option<u64>,
    /// How many there may be: the soft limit, which the kernel goes by.
    pub max_descriptors: Option<u64>,
}

impl Usage {
    /// Asks the kernel. That of a confined process answers, too: what it may read of itself is below `task`, and a size is told to
    /// everybody.
    #[expect(clippy::disallowed_methods, reason = "procfs answers from memory")]
    pub fn read() -> Self {
        let own = process::id();
        let status = fs::read_to_string(format!("/proc/{own}/task/{own}/status")).ok();
        let descriptors = fs::metadata(format!("/proc/{own}/fd")).ok().map(|directory| directory.len());
        Self {
            resident_bytes: status.as_deref().and_then(resident_bytes),
            open_descriptors: descriptors.filter(|count| *count > 0),
            max_descriptors: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        }
    }
}

/// `VmRSS` of proc_pid_status(5).
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn memory_is_told_in_bytes() {
        assert_eq!(resident_bytes("VmHWM:\t   99 kB\nVmRSS:\t   12 kB\nRssAnon:\t 1 kB\n"), Some(12288));
        for status in ["", "VmRSS:\n", "VmRSS:\t kB\n", "VmRSS:\t 99999999999999999 kB\n", "VmRSS:\t 1 MB\n"]
        {
            assert_eq!(resident_bytes(status), None, "{status}");
        }
    }

    #[test]
    fn the_kernel_counts_descriptors() {
        let before = Usage::read();
        assert!(before.resident_bytes.unwrap() > 1 << 20, "{before:?}");
        let Some(count) = before.open_descriptors else {
            eprintln!("SKIPPED: a kernel older than 6.2 does not count descriptors");
            return;
        };
        let held: Vec<_> = (0..200).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let after = Usage::read();
        // Other tests open and close theirs meanwhile.
        assert!(
            (count + 100..=after.max_descriptors.unwrap()).contains(&after.open_descriptors.unwrap()),
            "{after:?}"
        );
        drop(held);
    }
}
