//! Which processes belong to a machine.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use crate::host::NAMESPACES;

/// Processes in the machine's network namespace, and those of amphorae that were started with its directory, which have not entered
/// it (yet). Blocks.
pub(super) fn of(machine: &str, dir: &Path) -> Vec<i32> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let namespace = identity(&Path::new(NAMESPACES).join(machine)).filter(|found| Some(*found) != own());
    let directory = format!("{}/", dir.display());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let belongs = |pid: &i32| {
        let proc = Path::new("/proc").join(pid.to_string());
        let inside = namespace.is_some() && identity(&proc.join("ns/net")) == namespace;
        inside || started_with(&proc, &directory)
    };
    numbers.filter(belongs).collect()
}

/// The namespace that this program is in.
fn own() -> Option<(u64, u64)> {
    fs::metadata("/proc/self/ns/net").ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Whether it is a program of an amphora that has a path of this directory on its command line. What has ended has none.
fn started_with(proc: &Path, directory: &str) -> bool {
    let Ok(line) = fs::read(proc.join("cmdline")) else { return false };
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split('\0');
    let program = words.next().and_then(|program| program.rsplit('/').next());
    program.is_some_and(|program| program.starts_with("amphora-"))
        && words.any(|word| word.starts_with(directory))
}
