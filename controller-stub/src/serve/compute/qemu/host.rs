//! What this host has for machines. All of it blocks.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    sys::statvfs::statvfs,
    unistd::{Gid, Group, Uid, User},
};

use super::Accel;
use crate::{
    error::{Error, Result},
    serve::compute::processes,
};

/// MiB of the disk that are to be free before another machine is made: what one writes in its first weeks.
const DISK: u64 = 512;

/// Whom machines run as where the configuration does not say; `nobody` where there is no such user.
const USUAL: &str = "amphora-qemu";

/// The most of a console that is kept, twice: the last, and what was before.
const CONSOLE: u64 = 512 << 10;

/// Whom machines run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
}

impl Account {
    /// The user of a name. With KVM its group is the one that may use it, where there is one.
    pub(super) fn find(named: Option<&str>, accel: Accel) -> Result<Self> {
        let failed = |e: nix::Error| Error::local("users", e);
        let user = |name: &str| User::from_name(name).map_err(failed);
        let found = match named {
            Some(name) => user(name)?,
            None => user(USUAL)?.map_or_else(|| user("nobody"), |found| Ok(Some(found)))?,
        };
        let name = named.unwrap_or("nobody");
        let found = found.ok_or_else(|| Error::Local(format!("[compute] qemu_user: there is no {name}")))?;
        let kvm = match accel {
            Accel::Kvm => Group::from_name("kvm").map_err(failed)?,
            Accel::Tcg => None,
        };
        Ok(Self { uid: found.uid, gid: kvm.map_or(found.gid, |group| group.gid) })
    }

    /// Gives it a file.
    pub(super) fn own(self, path: &Path) -> Result<()> {
        nix::unistd::chown(path, Some(self.uid), Some(self.gid)).map_err(|e| Error::local(path.display(), e))
    }
}

/// Why this host does not start machines by itself, if so: `/dev/kvm` may be there and start none.
pub(super) fn no_kvm() -> Option<String> {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !processors.split_ascii_whitespace().any(|word| word == "vmx" || word == "svm") {
        return Some("the processor has neither vmx nor svm".to_owned());
    }
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    opened.err().map(|e| format!("/dev/kvm: {e}"))
}

/// Where taps are opened.
pub(super) const TUN: &str = "/dev/net/tun";

/// Looks whether machines get their taps: QEMU opens them as whom it runs as.
pub(super) fn opens_taps(account: Account, device: &Path) -> Result<()> {
    let tun = fs::metadata(device).map_err(|e| Error::local(device.display(), e))?;
    let class = match () {
        () if tun.uid() == account.uid.as_raw() => 6,
        () if tun.gid() == account.gid.as_raw() => 3,
        () => 0,
    };
    if tun.mode() >> class & 0o6 == 0o6 {
        return Ok(());
    }
    let (mode, user) = (tun.mode() & 0o777, account.uid);
    let text = format!("QEMU, which runs as user {user}, may not open it (mode {mode:o}): `chmod 666`");
    Err(Error::local(device.display(), text))
}

/// Where a program is, by its path or by `PATH`.
pub(super) fn program(name: &Path) -> Result<PathBuf> {
    let found = if name.components().count() > 1 {
        Some(name.to_owned()).filter(|path| path.is_file())
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
    };
    found.ok_or_else(|| Error::Local(format!("{} is not there", name.display())))
}

/// Runs a program to its end, as ourselves.
pub(super) fn run(program: &Path, arguments: &[&OsStr]) -> Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|e| Error::local(program.display(), e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::local(program.display(), format!("{}: {}", output.status, said.trim())))
}

/// The format of an image, by its first bytes.
pub(super) fn format(image: &Path) -> Result<&'static str> {
    let failed = |e: io::Error| Error::local(format!("[compute] image {}", image.display()), e);
    let mut magic = [0; 4];
    File::open(image).and_then(|mut file| file.read_exact(&mut magic)).map_err(failed)?;
    Ok(if magic == *b"QFI\xfb" { "qcow2" } else { "raw" })
}

/// Refuses a machine that there is no room for: `memory` MiB, and some of the disk that has `dir`.
pub(super) fn has_room(memory: u32, dir: &Path) -> Result<()> {
    let info = fs::read_to_string("/proc/meminfo").map_err(|e| Error::local("/proc/meminfo", e))?;
    let available = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available: Option<u64> =
        available.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
    // Where it does not say, QEMU will.
    if let Some(mib) = available.map(|kib| kib / 1024).filter(|mib| *mib < u64::from(memory)) {
        return Err(Error::NotDone(format!(
            "no memory for a machine of {memory} MiB: {mib} MiB are available"
        )));
    }
    let disk = statvfs(dir).map_err(|e| Error::local(dir.display(), e))?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size()) >> 20;
    if free < DISK {
        let text = format!("no room for a machine: {free} MiB are free, {DISK} are wanted");
        return Err(Error::local(dir.display(), text));
    }
    Ok(())
}

/// An empty file that a machine will write to, in a directory that it cannot change.
pub(super) fn prepare(path: &Path, account: Account) -> Result<()> {
    let failed = |e: io::Error| Error::local(path.display(), e);
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    account.own(path)
}

/// Keeps a console from growing without bound: what it has goes aside, and QEMU, which appends, begins anew.
pub(super) fn bound_console(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.len() <= CONSOLE {
        return Ok(());
    }
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut kept = Vec::new();
    io::Seek::seek(&mut file, io::SeekFrom::End(-i64::try_from(CONSOLE).unwrap_or(i64::MAX)))?;
    Read::by_ref(&mut file).take(CONSOLE).read_to_end(&mut kept)?;
    let old = path.with_extension("old");
    let old = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(old);
    io::Write::write_all(&mut old?, &kept)?;
    file.set_len(0)
}

/// The last of a text file, for a message.
pub(super) fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = &text[text.len().saturating_sub(500)..];
    let lines: Vec<String> =
        String::from_utf8_lossy(text).lines().map(|line| line.trim().to_owned()).collect();
    lines.join("; ")
}

/// Processes whose standard input is this lock: whoever was about to be QEMU, and QEMU.
pub(super) fn holders(lock: &Path) -> io::Result<Vec<i32>> {
    let lock = match fs::metadata(lock) {
        Ok(lock) => lock,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    processes::all(|pid| {
        let input = processes::if_there(fs::metadata(format!("/proc/{pid}/fd/0")))?;
        Ok(input.is_some_and(|input| (input.dev(), input.ino()) == (lock.dev(), lock.ino())))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_program_is_found_by_path_and_by_name() {
        let here = program(Path::new("sh")).unwrap();
        assert!(here.is_absolute());
        assert_eq!(program(&here).unwrap(), here);
        let gone = program(Path::new("/no/such/qemu")).unwrap_err();
        assert_eq!(gone.to_string(), "/no/such/qemu is not there");
        assert!(program(Path::new("no-such-program")).is_err());
    }

    #[test]
    fn a_machine_that_there_is_no_room_for_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        has_room(1, dir.path()).unwrap();
        let refused = has_room(u32::MAX, dir.path()).unwrap_err().to_string();
        assert!(refused.contains("no memory for a machine of 4294967295 MiB"), "{refused}");
    }

    #[test]
    fn an_image_is_known_by_its_first_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        assert!(format(&path).unwrap_err().to_string().contains("[compute] image"));
        fs::write(&path, b"QFI\xfb\0\0\0\x03").unwrap();
        assert_eq!(format(&path).unwrap(), "qcow2");
        fs::write(&path, [0; 512]).unwrap();
        assert_eq!(format(&path).unwrap(), "raw");
    }

    #[test]
    fn who_may_not_open_taps_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (owner, group) =
            (fs::metadata(file.path()).unwrap().uid(), fs::metadata(file.path()).unwrap().gid());
        let may = |uid: u32, gid: u32, mode: u32| {
            fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            opens_taps(Account { uid: uid.into(), gid: gid.into() }, file.path())
        };
        assert!(may(owner, group + 1, 0o600).is_ok());
        assert!(may(owner + 1, group, 0o660).is_ok());
        assert!(may(owner + 1, group + 1, 0o666).is_ok());
        for (uid, gid, mode) in [(1, 1, 0o660), (1, 0, 0o606), (1, 1, 0o664), (1, 0, 0o640)] {
            let refused = may(owner + uid, group + gid, mode).unwrap_err().to_string();
            assert!(refused.contains(&format!("may not open it (mode {mode:o})")), "{refused}");
        }
    }

    #[test]
    fn a_console_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let mut appending = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let line = "x".repeat(99) + "\n";
        for _ in 0..6000 {
            io::Write::write_all(&mut appending, line.as_bytes()).unwrap();
        }
        bound_console(&path).unwrap();
        io::Write::write_all(&mut appending, b"more\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "more\n");
        let old = fs::metadata(path.with_extension("old")).unwrap().len();
        assert_eq!(old, CONSOLE);
        bound_console(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "more\n", "it is short");
    }
}
