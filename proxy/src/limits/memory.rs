//! How much memory the process may use.

use std::{fs, path::Path};

/// Bytes of memory that there are for this process: what its control groups allow, or what the machine has when that is
/// less. What cannot be found out bounds nothing. To be asked before the process is confined: the files are out of its
/// sight afterwards.
#[expect(clippy::disallowed_methods, reason = "procfs answers from memory, and so does cgroupfs")]
pub fn available() -> u64 {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let groups = of_control_groups(&read("/proc/self/cgroup"), |file| {
        fs::read_to_string(Path::new("/sys/fs/cgroup").join(file)).ok()
    });
    groups.min(of_machine(&read("/proc/meminfo")))
}

/// `MemTotal`.
fn of_machine(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib.saturating_mul(1024))
}

/// The least of what a process's groups, and all above them, may use: `memory.max`, and `memory.high`, beyond which it
/// is put to sleep; or `memory.limit_in_bytes` of version 1. `groups` is its cgroup file (cgroups(7)); `read` reads below
/// where they are mounted.
fn of_control_groups(groups: &str, read: impl Fn(&str) -> Option<String>) -> u64 {
    let mut least = u64::MAX;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (mounts, names): (&[&str], &[&str]) = if controllers.is_empty() {
            // Where both versions are in use, the second has a place of its own.
            (&["", "unified/"], &["memory.max", "memory.high"])
        } else if controllers.split(',').any(|name| name == "memory") {
            (&["memory/"], &["memory.limit_in_bytes"])
        } else {
            continue;
        };
        // A path that leads out of the namespace of groups cannot be followed; what is mounted is its own.
        let path = if path.contains("..") { "" } else { path.trim_matches('/') };
        for above in Path::new(path).ancestors() {
            let above = above.to_string_lossy();
            let separator = if above.is_empty() { "" } else { "/" };
            for (mount, name) in mounts.iter().flat_map(|mount| names.iter().map(move |name| (mount, name))) {
                let limit = read(&format!("{mount}{above}{separator}{name}"));
                // "max" is no number, and no limit.
                least =
                    limit.and_then(|limit| limit.trim().parse().ok()).map_or(least, |limit| least.min(limit));
            }
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(groups: &str, files: &[(&str, &str)]) -> u64 {
        of_control_groups(groups, |file| {
            files.iter().find(|(name, _)| *name == file).map(|(_, content)| (*content).to_owned())
        })
    }

    #[test]
    fn the_tightest_group_counts() {
        let unified = "0::/system.slice/amphora.service\n";
        let service = ("system.slice/amphora.service/memory.max", "536870912\n");
        assert_eq!(groups(unified, &[service, ("system.slice/memory.max", "max\n")]), 512 << 20);
        assert_eq!(groups(unified, &[service, ("system.slice/memory.max", "1000\n")]), 1000);
        assert_eq!(groups(unified, &[service, ("system.slice/amphora.service/memory.high", "77\n")]), 77);
        // In a container its own group is the root.
        assert_eq!(groups("0::/\n", &[("memory.max", "4096\n")]), 4096);
        assert_eq!(groups("0::/../../other\n", &[("memory.max", "4096\n")]), 4096);
        let first = "12:cpu,cpuacct:/a\n9:memory:/docker/1\n1:name=systemd:/docker/1\n0::/docker/1\n";
        assert_eq!(groups(first, &[("memory/docker/1/memory.limit_in_bytes", "8192\n")]), 8192);
        assert_eq!(groups(first, &[("unified/docker/1/memory.max", "5\n")]), 5);
        assert_eq!(groups("nonsense\n", &[("memory.max", "4096\n")]), u64::MAX);
        assert_eq!(groups(unified, &[]), u64::MAX);
    }

    #[test]
    fn the_machine_has_what_it_says() {
        assert_eq!(of_machine("MemTotal:       16384 kB\nMemFree: 1 kB\n"), 16384 * 1024);
        assert_eq!(of_machine("MemFree: 1 kB\n"), u64::MAX);
        assert!(available() > 1 << 20);
    }
}
