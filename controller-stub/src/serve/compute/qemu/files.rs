//! A machine's directory. All of it blocks.
//!
//! | file | of | what |
//! | --- | --- | --- |
//! | `qemu.lock` | root | QEMU's standard input, with its process id |
//! | `qemu.log` | root | what QEMU says |
//! | `config.iso` | the machine | its config drive |
//! | `disk` | the machine | what it has written, over the image |
//! | `console` | the machine | its serial console; `console.old` has what was before |
//! | `ports/` | root | a file for each port, with the number of its slot |
//! | `run/` | the machine | the socket of QEMU's monitor |
//!
//! The directory itself is root's, so that a machine which has broken out of QEMU puts nothing in the place of what root opens.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::{
    command::SLOTS,
    drive::LABEL,
    host::{self, Account},
};
use crate::{
    certs::write,
    error::{Error, Result},
    failpoint::reach,
    host::make_passage,
};

pub(super) const LOG: &str = "qemu.log";
pub(super) const DRIVE: &str = "config.iso";
pub(super) const DISK: &str = "disk";
pub(super) const CONSOLE: &str = "console";
pub(super) const PORTS: &str = "ports";

/// A machine's directory, with nothing in it yet.
pub(super) fn make_directory(dir: &Path) -> Result<()> {
    let ports = dir.join(PORTS);
    dir.parent().into_iter().chain([dir, &ports]).try_for_each(make_passage)
}

/// Makes what a machine starts with; what an attempt before has left is made anew.
pub(super) fn make(
    dir: &Path,
    drive: &[(String, String)],
    [qemu_img, mkisofs]: [&PathBuf; 2],
    image: &Path,
    account: Account,
) -> Result<()> {
    let run = dir.join("run");
    remove(&run)?;
    DirBuilder::new().mode(0o700).create(&run).map_err(|e| Error::local(run.display(), e))?;
    account.own(&run)?;
    host::prepare(&dir.join(CONSOLE), account)?;

    // Keys are in it: nobody else may look.
    let tree = dir.join("drive");
    remove(&tree)?;
    for (path, text) in drive {
        let path = tree.join(path);
        let parent = path.parent().unwrap_or(&tree);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(|e| Error::local(parent.display(), e))?;
        write(&path, text, 0o600).map_err(|e| Error::local(path.display(), e))?;
    }
    let iso = dir.join(DRIVE);
    host::prepare(&iso, account)?;
    let words = ["-quiet", "-J", "-r", "-V", LABEL, "-o"].map(AsRef::as_ref).into_iter();
    let words: Vec<_> = words.chain([iso.as_os_str(), tree.as_os_str()]).collect();
    host::run(&host::program(mkisofs)?, &words)?;
    reach("machine.create.drive");
    remove(&tree)?;

    let image = std::path::absolute(image).map_err(|e| Error::local(image.display(), e))?;
    let disk = dir.join(DISK);
    host::prepare(&disk, account)?;
    let words =
        ["create", "-q", "-f", "qcow2", "-F", host::format(&image)?, "-b"].map(AsRef::as_ref).into_iter();
    let words: Vec<_> = words.chain([image.as_os_str(), disk.as_os_str()]).collect();
    host::run(&host::program(qemu_img)?, &words)?;
    reach("machine.create.disk");
    Ok(())
}

/// The slot of a port: the one that it has, or the first that is free, which it has from now on.
pub(super) fn slot(dir: &Path, port: &str) -> Result<u32> {
    let ports = dir.join(PORTS);
    let failed = |e: io::Error| Error::local(ports.display(), e);
    let mut taken = Vec::new();
    for entry in fs::read_dir(&ports).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let text = fs::read_to_string(entry.path()).map_err(failed)?;
        let number = text.trim().parse::<u32>().ok();
        if entry.file_name() == *port
            && let Some(number) = number
        {
            return Ok(number);
        }
        taken.extend(number);
    }
    let free = (0..SLOTS).find(|number| !taken.contains(number));
    let free = free.ok_or_else(|| {
        Error::NotDone(format!("an amphora in a virtual machine has {SLOTS} interfaces at most"))
    })?;
    write(&ports.join(port), &free.to_string(), 0o644).map_err(failed)?;
    Ok(free)
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::local(dir.display(), e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_port_keeps_its_slot() {
        let dir = tempfile::tempdir().unwrap();
        make_directory(dir.path()).unwrap();
        assert_eq!(slot(dir.path(), "a").unwrap(), 0);
        assert_eq!(slot(dir.path(), "b").unwrap(), 1);
        assert_eq!(slot(dir.path(), "a").unwrap(), 0);
        fs::remove_file(dir.path().join("ports/a")).unwrap();
        assert_eq!(slot(dir.path(), "c").unwrap(), 0);
        for n in 2..SLOTS {
            assert_eq!(slot(dir.path(), &n.to_string()).unwrap(), n);
        }
        let full = slot(dir.path(), "x").unwrap_err().to_string();
        assert!(full.contains("16 interfaces at most"), "{full}");
    }
}
