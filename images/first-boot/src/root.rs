//! The file system that is written to: `/`, or a directory that stands for it, which nothing leaves.
//!
//! A file is written beside its place and then renamed to it, so that there is the old one or the new one, whole, whenever
//! the machine loses its power.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use nix::{
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat, renameat},
    sys::stat::{Mode, fchmod, fstatat, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, symlinkat, unlinkat},
};

use crate::plan::FileMode;

/// The name of a file that is not yet whole.
const UNFINISHED: &str = ".amphora-first-boot.new";

/// An open root. Every path is absolute, and a link in it leads to where it would if this were `/`.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    /// `/` itself, in which every link leads to where it is to lead. So openat2(2) is not asked for, which systemd's
    /// `RestrictSUIDSGID=` takes away.
    is_machine: bool,
}

impl Root {
    /// Opens a directory as the root.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { directory: open(path, flags, Mode::empty())?, is_machine: path == Path::new("/") })
    }

    /// Writes a file with its permissions and its owner; one that is like that already is left alone. Directories that are missing
    /// are made.
    ///
    /// # Errors
    /// When it cannot be written; what was there before is there still.
    pub fn write(&self, path: &str, content: &[u8], mode: FileMode, owner: (u32, u32)) -> io::Result<()> {
        if self.has(path, content, mode, owner) {
            return Ok(());
        }
        let (directory, name) = split(path);
        let directory = self.make_directory(directory, 0o755)?;
        self.finish(&directory, name, || {
            let flags =
                OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mut file =
                File::from(openat(&directory, UNFINISHED, flags, Mode::from_bits_truncate(0o600))?);
            file.write_all(content)?;
            // The owner first: a change of owner takes set-user-ID away.
            let known = file.metadata()?;
            if (known.uid(), known.gid()) != owner {
                fchown(&file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
            }
            fchmod(&file, Mode::from_bits_truncate(mode.bits()))?;
            file.sync_all()
        })
    }

    /// Makes a symbolic link, in place of what was there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn link(&self, path: &str, target: &str) -> io::Result<()> {
        let (directory, name) = split(path);
        let directory = self.make_directory(directory, 0o755)?;
        if readlinkat(&directory, name).is_ok_and(|known| known.to_str() == Some(target)) {
            return Ok(());
        }
        self.finish(&directory, name, || Ok(symlinkat(target, &directory, UNFINISHED)?))
    }

    /// A file's content, `None` when there is none.
    ///
    /// # Errors
    /// When it is no file, is larger, or cannot be read.
    pub fn read(&self, path: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(path)? else { return Ok(None) };
        let mut content = Vec::new();
        file.take(most.saturating_add(1)).read_to_end(&mut content)?;
        if content.len() as u64 > most {
            return Err(io::Error::other(format!("{path} has more than {most} bytes")));
        }
        Ok(Some(content))
    }

    /// Whether there is anything, a link for itself.
    pub fn is_there(&self, path: &str) -> bool {
        let (directory, name) = split(path);
        self.directory(directory)
            .is_ok_and(|directory| fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok())
    }

    /// Whether there is a file, be it by a link.
    pub fn is_file(&self, path: &str) -> bool {
        self.open_file(path).is_ok_and(|file| file.is_some())
    }

    /// Whether there is a symbolic link.
    pub fn is_link(&self, path: &str) -> bool {
        let (directory, name) = split(path);
        self.directory(directory).is_ok_and(|directory| readlinkat(directory, name).is_ok())
    }

    /// Removes a file or a link, if there is one.
    ///
    /// # Errors
    /// When it is there and stays.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let (directory, name) = split(path);
        let directory = match self.directory(directory) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => Ok(fsync(&directory)?),
            Err(nix::Error::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Renames a file within its directory.
    ///
    /// # Errors
    /// As rename(2).
    pub fn rename(&self, path: &str, new: &str) -> io::Result<()> {
        let (directory, name) = split(path);
        let directory = self.directory(directory)?;
        renameat(&directory, name, &directory, new)?;
        Ok(fsync(&directory)?)
    }

    /// The names in a directory; none when it is missing.
    pub fn names(&self, path: &str) -> Vec<String> {
        let Ok(directory) = self.directory(path) else { return Vec::new() };
        let entries = fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let names = entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.collect()
    }

    /// Opens a directory, which is made where it is missing, with those above it. `mode` is for itself alone.
    ///
    /// # Errors
    /// When it cannot be made, or is something else.
    pub fn make_directory(&self, path: &str, mode: u32) -> io::Result<OwnedFd> {
        match self.directory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (above, name) = split(path);
        let above = self.make_directory(above, 0o755)?;
        match mkdirat(&above, name, Mode::from_bits_truncate(0o700)) {
            Ok(()) => {
                let made = self.directory(path)?;
                // Whatever the umask is.
                fchmod(&made, Mode::from_bits_truncate(mode))?;
                fsync(&above)?;
                Ok(made)
            }
            Err(nix::Error::EEXIST) => self.directory(path),
            Err(error) => Err(error.into()),
        }
    }

    fn directory(&self, path: &str) -> io::Result<OwnedFd> {
        self.open_at(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    }

    fn open_file(&self, path: &str) -> io::Result<Option<File>> {
        match self.open_at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
            Ok(file) => {
                let file = File::from(file);
                if file.metadata()?.is_file() { Ok(Some(file)) } else { Err(io::Error::other("not a file")) }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open_at(&self, path: &str, flags: OFlag) -> io::Result<OwnedFd> {
        let flags = flags | OFlag::O_CLOEXEC;
        if self.is_machine {
            return Ok(open(path, flags, Mode::empty())?);
        }
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        Ok(openat2(&self.directory, path, how)?)
    }

    /// Whether a file is as it is to be, and no link.
    fn has(&self, path: &str, content: &[u8], mode: FileMode, owner: (u32, u32)) -> bool {
        if self.is_link(path) {
            return false;
        }
        let Ok(Some(file)) = self.open_file(path) else { return false };
        let Ok(known) = file.metadata() else { return false };
        known.mode() & 0o7777 == mode.bits()
            && (known.uid(), known.gid()) == owner
            && known.len() == content.len() as u64
            && known.nlink() == 1
            && self.read(path, known.len()).is_ok_and(|read| read.as_deref() == Some(content))
    }

    /// Makes something under the name of what is unfinished, and gives it its own.
    fn finish(&self, directory: impl AsFd, name: &str, make: impl Fn() -> io::Result<()>) -> io::Result<()> {
        // What a boot that was cut off has left.
        match unlinkat(&directory, UNFINISHED, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let made = make().and_then(|()| Ok(renameat(&directory, UNFINISHED, &directory, name)?));
        if made.is_err() {
            let _ = unlinkat(&directory, UNFINISHED, UnlinkatFlags::NoRemoveDir);
        }
        made?;
        Ok(fsync(&directory)?)
    }
}

/// The directory and the name in it.
fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(both) => both,
        None => ("/", path),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::symlink;

    use nix::unistd::{getegid, geteuid};

    use super::*;

    fn own() -> (u32, u32) {
        (geteuid().as_raw(), getegid().as_raw())
    }

    fn mode(bits: u32) -> FileMode {
        FileMode::new(bits).unwrap()
    }

    #[test]
    fn files_are_written_whole_and_once() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        let path = directory.path().join("etc/octavia/certs/server.pem");
        root.write("/etc/octavia/certs/server.pem", b"one", mode(0o600), own()).unwrap();
        let first = fs::metadata(&path).unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), first.mode() & 0o7777), (&b"one"[..], 0o600));
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o755);
        root.write("/etc/octavia/certs/server.pem", b"one", mode(0o600), own()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), first.ino(), "what is there already is left alone");
        root.write("/etc/octavia/certs/server.pem", b"one", mode(0o4711), own()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o4711);
        // What a boot left that was cut off.
        fs::write(path.with_file_name(UNFINISHED), "half").unwrap();
        root.write("/etc/octavia/certs/server.pem", b"two", mode(0o600), own()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(root.names("/etc/octavia/certs"), ["server.pem"]);
        // In the way.
        assert!(root.write("/etc/octavia", b"x", mode(0o600), own()).is_err());
        assert!(root.write("/etc/octavia/certs/server.pem/x", b"x", mode(0o600), own()).is_err());
        assert_eq!(root.names("/etc"), ["octavia"], "nothing unfinished is left");
        assert_eq!(root.read("/etc/octavia/certs/server.pem", 3).unwrap().unwrap(), b"two");
        assert!(root.read("/etc/octavia/certs/server.pem", 2).is_err() && root.read("/etc", 2).is_err());
        assert!(root.read("/etc/none", 2).unwrap().is_none());
        root.rename("/etc/octavia/certs/server.pem", "old.pem").unwrap();
        assert!(
            root.is_there("/etc/octavia/certs/old.pem") && !root.is_there("/etc/octavia/certs/server.pem")
        );
        root.remove("/etc/octavia/certs/old.pem").unwrap();
        root.remove("/etc/octavia/certs/old.pem").unwrap();
        root.remove("/none/old.pem").unwrap();
        assert!(root.names("/etc/octavia/certs").is_empty());
    }

    #[test]
    fn in_the_machines_own_root_links_lead_where_they_lead() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir(at("run")).unwrap();
        symlink(at("run"), at("link")).unwrap();
        let root = Root::open(Path::new("/")).unwrap();
        root.write(&at("link/a/b"), b"x", mode(0o600), own()).unwrap();
        assert_eq!(
            (fs::read(at("run/a/b")).unwrap(), root.read(&at("link/a/b"), 1).unwrap().unwrap()),
            (b"x".to_vec(), b"x".to_vec())
        );
        assert!(root.is_link(&at("link")) && root.names(&at("run/a")) == ["b"]);
        root.remove(&at("run/a/b")).unwrap();
        assert!(root.names(&at("run/a")).is_empty());
    }

    #[test]
    fn links_do_not_lead_out_of_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let (inside, outside) = (directory.path().join("root"), directory.path().join("outside"));
        fs::create_dir_all(inside.join("run")).unwrap();
        fs::create_dir_all(inside.join("var")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "old").unwrap();
        symlink("/run", inside.join("var/run")).unwrap();
        symlink(&outside, inside.join("away")).unwrap();
        symlink("../../..", inside.join("up")).unwrap();
        symlink(outside.join("file"), inside.join("link")).unwrap();
        let root = Root::open(&inside).unwrap();
        root.write("/var/run/x", b"x", mode(0o644), own()).unwrap();
        assert_eq!(fs::read(inside.join("run/x")).unwrap(), b"x");
        assert!(root.write("/away/file", b"x", mode(0o644), own()).is_err(), "where it leads is not there");
        root.write("/up/y", b"y", mode(0o644), own()).unwrap();
        assert_eq!(fs::read(inside.join("y")).unwrap(), b"y");
        // A link in the place of a file is replaced, and not followed.
        root.write("/link", b"old", mode(0o644), own()).unwrap();
        assert!(!root.is_link("/link") && fs::read(inside.join("link")).unwrap() == b"old");
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"old");
        root.link("/etc/localtime", "/usr/share/zoneinfo/UTC").unwrap();
        root.link("/etc/localtime", "/usr/share/zoneinfo/Europe/Berlin").unwrap();
        assert_eq!(
            fs::read_link(inside.join("etc/localtime")).unwrap(),
            Path::new("/usr/share/zoneinfo/Europe/Berlin")
        );
        assert!(
            root.is_link("/etc/localtime")
                && root.is_there("/etc/localtime")
                && !root.is_file("/etc/localtime")
        );
    }
}
