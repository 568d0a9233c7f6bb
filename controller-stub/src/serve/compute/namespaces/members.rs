//! Which processes belong to a machine.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use crate::{
    error::{Error, Result},
    host::NAMESPACES,
    serve::compute::processes,
};

/// Processes in the machine's network namespace, and those of amphorae that were started with its directory, which have not entered
/// it (yet). Blocks.
///
/// # Errors
/// There may be others.
pub(super) fn of(machine: &str, dir: &Path) -> Result<Vec<i32>> {
    let failed = |e: io::Error| Error::local(format!("processes of {machine}"), e);
    let namespace = identity(&Path::new(NAMESPACES).join(machine)).map_err(failed)?;
    let own = identity(Path::new("/proc/self/ns/net")).map_err(failed)?;
    let namespace = namespace.filter(|found| Some(*found) != own);
    let directory = format!("{}/", dir.display());
    let belongs = |pid: i32| -> io::Result<bool> {
        let proc = Path::new("/proc").join(pid.to_string());
        let inside = namespace.is_some() && identity(&proc.join("ns/net"))? == namespace;
        Ok(inside || started_with(&proc, &directory)?)
    };
    processes::all(belongs).map_err(failed)
}

/// Which namespace a file stands for; `None` when it is not there, or of a process that is none of ours.
fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    let found = processes::if_there(fs::metadata(path))?;
    Ok(found.map(|metadata| (metadata.dev(), metadata.ino())))
}

/// Whether it is a program of an amphora that has a path of this directory on its command line. What has ended has none.
fn started_with(proc: &Path, directory: &str) -> io::Result<bool> {
    let Some(line) = processes::if_there(fs::read(proc.join("cmdline")))? else { return Ok(false) };
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split('\0');
    let program = words.next().and_then(|program| program.rsplit('/').next());
    let amphora = program.is_some_and(|program| program.starts_with("amphora-"));
    Ok(amphora && words.any(|word| word.starts_with(directory)))
}
