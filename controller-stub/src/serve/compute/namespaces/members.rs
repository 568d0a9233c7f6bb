//! Which processes belong to a machine.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use crate::{
    error::{Error, Result},
    host::NAMESPACES,
    serve::compute::processes,
};

/// Processes in the machine's network namespace, and those of amphorae that were started with its directory, which have not entered
/// it (yet). Where that was then is of no account: a database that was brought back elsewhere knows of machines whose agents run with
/// the directory that they were made in, and such an agent would start all others again. Blocks.
///
/// # Errors
/// There may be others.
pub(super) fn of(machine: &str, dir: &Path) -> Result<Vec<i32>> {
    let failed = |e: io::Error| Error::local(format!("processes of {machine}"), e);
    let namespace = identity(&Path::new(NAMESPACES).join(machine)).map_err(failed)?;
    let own = identity(Path::new("/proc/self/ns/net")).map_err(failed)?;
    let namespace = namespace.filter(|found| Some(*found) != own);
    let directory = component(dir);
    let belongs = |pid: i32| -> io::Result<bool> {
        let proc = Path::new("/proc").join(pid.to_string());
        let inside = namespace.is_some() && identity(&proc.join("ns/net"))? == namespace;
        Ok(inside || words(&proc)?.iter().any(|word| word.contains(&directory)))
    };
    processes::all(belongs).map_err(failed)
}

/// Which namespace a file stands for; `None` when it is not there, or of a process that is none of ours.
fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    let found = processes::if_there(fs::metadata(path))?;
    Ok(found.map(|metadata| (metadata.dev(), metadata.ino())))
}

/// Whether a process of a machine has the files that are there now. Who has moved the data directory, or brought a copy of it back, has
/// left those that run with paths at which nothing is, or something else: they can keep nothing that they are told. Blocks.
///
/// # Errors
/// It cannot be found out.
pub(super) fn has_its_files(pid: u32, dir: &Path) -> io::Result<bool> {
    let words = words(&Path::new("/proc").join(pid.to_string()))?;
    let directory = component(dir);
    let Some(path) = words.iter().find(|word| word.contains(&directory)).map(Path::new) else {
        return Ok(true);
    };
    if path.starts_with(dir) {
        return Ok(true);
    }
    let named = path.file_name().map(|name| dir.join(name));
    Ok(identity(path)? == named.as_deref().map_or(Ok(None), identity)?)
}

/// The last part of a directory's path, which no other machine has, as it stands in paths below it.
fn component(dir: &Path) -> String {
    format!("/{}/", dir.file_name().unwrap_or_default().display())
}

/// The command line of a program of an amphora; what is another program, or has ended, has none.
fn words(proc: &Path) -> io::Result<Vec<String>> {
    let Some(line) = processes::if_there(fs::read(proc.join("cmdline")))? else { return Ok(Vec::new()) };
    let line = String::from_utf8_lossy(&line);
    let words: Vec<String> = line.split('\0').map(str::to_owned).collect();
    let program = words.first().and_then(|program| program.rsplit('/').next());
    let amphora = program.is_some_and(|program| program.starts_with("amphora-"));
    Ok(if amphora { words } else { Vec::new() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        os::unix::{fs::symlink, process::CommandExt},
        process::{Command, Stdio},
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn one_whose_directory_was_moved_is_the_machines_and_has_not_its_files() {
        let top = tempfile::tempdir().unwrap();
        let [before, after, copy] = ["before", "after", "copy"].map(|name| top.path().join(name));
        let own = "5d0e6f3a7b1c4e92";
        fs::create_dir_all(before.join(own)).unwrap();
        let file = before.join(own).join("amphora-agent.conf");
        fs::write(&file, "").unwrap();
        // What stands for the agent reads its file, and goes on.
        let mut agent = Command::new("tail");
        agent.arg0("/usr/bin/amphora-agent").arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let mut agent = agent.spawn().unwrap();
        let pid = agent.id();
        let found = |place: &Path| {
            let dir = place.join(own);
            let here = of("amphora-00000000-5d0e6f3a7b1c4e92", &dir).unwrap().contains(&pid.cast_signed());
            (here, has_its_files(pid, &dir).unwrap())
        };
        // A process has no command line for a moment after it is another program.
        let deadline = Instant::now() + Duration::from_secs(30);
        while words(&Path::new("/proc").join(pid.to_string())).unwrap().is_empty() {
            assert!(Instant::now() < deadline, "it does not become another program");
            thread::yield_now();
        }
        let at_first = found(&before);
        fs::create_dir_all(copy.join(own)).unwrap();
        fs::copy(&file, copy.join(own).join("amphora-agent.conf")).unwrap();
        let copied = found(&copy);
        fs::rename(&before, &after).unwrap();
        let moved = found(&after);
        symlink(&after, &before).unwrap();
        let linked = found(&after);
        agent.kill().unwrap();
        agent.wait().unwrap();
        assert_eq!(
            (at_first, copied, moved, linked),
            ((true, true), (true, false), (true, false), (true, true))
        );
        assert_eq!(found(&after), (false, true), "who has ended is nobody's");
    }
}
