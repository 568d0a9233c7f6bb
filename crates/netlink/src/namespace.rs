//! Named network namespaces, as ip-netns(8) has them: a file below `/run/netns` that the namespace is mounted on.

#![expect(clippy::disallowed_methods, reason = "/run is a tmpfs, which answers from memory")]

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::{AsFd, BorrowedFd},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{FsType, fstatfs},
};

/// Where they are.
const DIRECTORY: &str = "/run/netns";

/// The longest name, in octets (`NAME_MAX`).
const MAX_NAME: usize = 255;

/// The kind of file that a namespace is (`NSFS_MAGIC` of linux/magic.h).
const NSFS: FsType = FsType(0x6e73_6673);

/// A named namespace that exists.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Opens the namespace of this name, and makes it when there is none.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`, or when `/run` cannot be written.
    pub fn ensure(name: &str) -> io::Result<Self> {
        let path = path(name)?;
        if let Some(namespace) = Self::open(&path)? {
            return Ok(namespace);
        }
        make_directory()?;
        // It may be there, empty: whoever made it did not get to mount on it.
        OpenOptions::new().read(true).create(true).truncate(false).write(true).mode(0o444).open(&path)?;
        make(path.clone())?;
        Self::open(&path)?.ok_or_else(|| io::Error::other("the namespace was made, but is not there"))
    }

    /// Opens the namespace of this name.
    ///
    /// # Errors
    /// When there is none, or the name is none.
    pub fn named(name: &str) -> io::Result<Self> {
        let path = path(name)?;
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        Self::open(&path)
            .and_then(|found| {
                found.ok_or_else(|| {
                    io::Error::new(io::ErrorKind::NotFound, "there is no such network namespace")
                })
            })
            .map_err(failed)
    }

    /// `None` where nothing is, or only the empty file.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_namespace = fstatfs(&file)?.filesystem_type() == NSFS;
        Ok(is_namespace.then_some(Self { file }))
    }

    /// Moves the calling thread, and those that it starts afterwards, into it. Sockets that it opened before stay where they are.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.file, CloneFlags::CLONE_NEWNET)?)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The file of a name that ip-netns(8) takes: what stands in one directory, and is not that directory or the one above.
fn path(name: &str) -> io::Result<PathBuf> {
    let right = !name.is_empty()
        && name.len() <= MAX_NAME
        && !matches!(name, "." | "..")
        && !name.bytes().any(|octet| matches!(octet, b'/' | 0));
    if !right {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of a network namespace"));
    }
    Ok(Path::new(DIRECTORY).join(name))
}

/// Makes the directory a mount of its own that is shared with other mount namespaces, as `ip netns add` does: what is
/// mounted in it is seen, and can be removed, from a service that systemd gave a mount namespace of its own.
fn make_directory() -> io::Result<()> {
    const NONE: Option<&str> = None;
    fs::create_dir_all(DIRECTORY)?;
    let share = || mount(NONE, DIRECTORY, NONE, MsFlags::MS_SHARED | MsFlags::MS_REC, NONE);
    if share().is_ok() {
        return Ok(());
    }
    // Refused, because it is no mount yet.
    mount(Some(DIRECTORY), DIRECTORY, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    Ok(share()?)
}

/// On a thread of its own, which leaves the namespace that it was in.
fn make(path: PathBuf) -> io::Result<()> {
    let made = std::thread::spawn(move || -> io::Result<()> {
        const NONE: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(mount(Some("/proc/thread-self/ns/net"), &path, NONE, MsFlags::MS_BIND, NONE)?)
    });
    made.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes the namespace failed")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::MetadataExt;

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["", ".", "..", "a/b", "/proc/1/ns/net", "a\0b", &"x".repeat(256)] {
            for refused in [Namespace::named(name), Namespace::ensure(name)] {
                assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
            }
        }
    }

    /// On a thread with a `/run` of its own.
    #[test]
    fn it_is_made_once_whatever_is_there() {
        const NONE: Option<&str> = None;
        if !geteuid().is_root() {
            eprintln!("SKIPPED: network namespaces take root");
            return;
        }
        let made = std::thread::spawn(|| {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
                eprintln!("SKIPPED: no mount namespaces here: {error}");
                return;
            }
            mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
            mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
            let identity = |namespace: &Namespace| namespace.file.metadata().unwrap().ino();

            let first = Namespace::ensure("first").unwrap();
            assert_eq!(identity(&Namespace::ensure("first").unwrap()), identity(&first));

            // Its maker was killed before it mounted.
            fs::write("/run/netns/second", "").unwrap();
            let second = Namespace::ensure("second").unwrap();
            assert_ne!(identity(&second), identity(&first));

            assert_eq!(identity(&Namespace::named("first").unwrap()), identity(&first));
            let absent = Namespace::named("third").unwrap_err();
            assert_eq!(absent.kind(), io::ErrorKind::NotFound);
            assert_eq!(absent.to_string(), "/run/netns/third: there is no such network namespace");

            let here = || fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
            assert_ne!(here(), identity(&first));
            first.enter().unwrap();
            assert_eq!(here(), identity(&first));
        });
        made.join().unwrap();
    }
}
