//! Network namespaces through the `ip` command, named after this process and removed with the value.

use std::{fs::File, path::Path, process};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::signal::kill,
    unistd::Pid,
};

use crate::{
    error::{Error, Result},
    host::{self, NAMESPACES, ip},
};

/// What the names of all that a demo makes start with, namespaces and directories; the process id follows.
pub(super) const PREFIX: &str = "amphora-demo-";

/// A namespace of one's own. Dropping it removes it, and every interface in it.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with its loopback interface up. `role` keeps those of one process apart.
    ///
    /// # Errors
    /// [`Error::Local`]: this host does not permit it.
    pub(super) fn create(role: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{role}", process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, as in `/run/netns`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` inside.
    pub(super) fn ip(&self, args: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name], args].concat())
    }

    /// Runs `ip` inside, and returns what it says.
    pub(super) fn ask(&self, args: &[&str]) -> Result<Vec<u8>> {
        host::ip_says(&[&["-n", &self.name], args].concat())
    }

    /// Moves the calling thread, and the sockets that it makes from now on, into a namespace.
    ///
    /// # Errors
    /// [`Error::Local`]: there is none of that name, or it must not be entered.
    pub(super) fn enter(name: &str) -> Result<()> {
        let path = Path::new(NAMESPACES).join(name);
        let file = File::open(&path).map_err(|e| Error::local(path.display(), e))?;
        setns(file, CloneFlags::CLONE_NEWNET).map_err(|e| Error::local(path.display(), e))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            eprintln!("{error}");
        }
    }
}

/// Removes the namespaces of demos that were killed before they could: those whose process is gone.
pub(super) fn sweep() {
    for entry in std::fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_orphan(&name) {
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

/// Whether a name is that of something which a demo made, and the demo's process is gone.
pub(super) fn is_orphan(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')?.0.parse().ok());
    pid.is_some_and(|pid: i32| pid > 1 && kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}
