//! What the process may do: descriptors, its network namespace, its user, files and system calls.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use amphora_netlink::Namespace;
use amphora_sandbox::{Account, Confinement, Files, SyscallList};
use caps::Capability;
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::chown,
};

use crate::{net, sys};

/// Raises the soft limit of open descriptors to the hard one: each session takes two.
pub fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open descriptors stays as it is");
    }
}

/// Runs before all that is not real-time. Below the VRRP daemon, which asks.
const URGENT: u8 = 10;

/// The calling thread, and those that it starts meanwhile, run before all that is not real-time, if it may have that; it
/// alone takes its former place when this is dropped.
#[derive(Debug)]
pub struct Urgent {
    given: bool,
}

impl Urgent {
    /// Where it may not have that, it is as before, and a line of the log says so.
    pub fn for_now() -> Self {
        let given = sys::be_realtime(URGENT).inspect_err(|error| {
            tracing::debug!(%error, "no real-time priority: under load answers for fitness may be late");
        });
        Self { given: given.is_ok() }
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        // Everybody may give it up.
        if self.given
            && let Err(error) = sys::be_ordinary()
        {
            tracing::warn!(%error, "the priority stays as it is");
        }
    }
}

/// Moves the calling thread, and those it starts afterwards, into the network namespace that
/// `ip netns add NAME` made.
///
/// # Errors
/// When there is no such namespace, or CAP_SYS_ADMIN is missing.
pub fn enter_network_namespace(name: &str) -> io::Result<()> {
    let entered = Namespace::named(name)?.enter();
    entered.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot enter the network namespace {name}: {error}"))
    })
}

/// The sockets that others connect to.
#[derive(Clone, Copy, Debug)]
pub struct Sockets<'a> {
    /// Where documents come from.
    pub control: &'a Path,
    /// Where the VRRP daemon asks.
    pub fitness: &'a Path,
    /// Whom that daemon runs as: its own group may connect there, and nowhere else.
    pub fitness_user: Option<&'a str>,
}

impl Sockets<'_> {
    /// Gives them to those who are to have them.
    fn hand_over(&self, owner: Option<&Account>) -> io::Result<()> {
        let asker = self.fitness_user.map(Account::named).transpose()?;
        let uid = owner.map(Account::uid);
        let groups = [(self.control, None), (self.fitness, asker.as_ref().map(Account::gid))];
        for (socket, gid) in groups.into_iter().filter(|(_, gid)| uid.is_some() || gid.is_some()) {
            chown(socket, uid, gid).map_err(|error| {
                let reason = format!("--user and --fitness-user take root: {}: {error}", socket.display());
                io::Error::new(io::Error::from(error).kind(), reason)
            })?;
        }
        Ok(())
    }
}

/// Gives up what serving does not take: root for `user`, if one is named, all capabilities but two, every file but those
/// of `files`, and the system calls that are not in `syscalls.json`. Kept are CAP_NET_BIND_SERVICE for ports below 1024
/// that a later change may bring, CAP_NET_RAW for ICMP, and CAP_NET_ADMIN on the rare kernel that lets nobody else filter
/// what comes to a socket of one's own. The sockets become the user's; their group stays, but for the fitness socket's where
/// another user is to ask there, so that those who could connect by it still can. What the kernel lacks of this is told in the log.
///
/// Must be called before threads are started: they inherit what is set here.
///
/// # Errors
/// When a user does not exist, or the process may not change to it.
pub fn confine(user: Option<&str>, sockets: &Sockets<'_>, files: Files) -> io::Result<()> {
    let account = user.map(Account::named).transpose()?;
    sockets.hand_over(account.as_ref())?;
    let files = SYSTEM_FILES.iter().fold(files, |files, path| files.read(*path));
    let files = files.remove_beside(sockets.control).remove_beside(sockets.fitness);
    // Fitness looks at the accounts of the workers' threads.
    let files = own_threads().iter().fold(files, |files, path| files.read(path));
    let mut kept = vec![Capability::CAP_NET_BIND_SERVICE, Capability::CAP_NET_RAW];
    if !net::may_keep_out_without(Capability::CAP_NET_ADMIN)? {
        // A listener that goes, and a hand-over, would reset clients.
        kept.push(Capability::CAP_NET_ADMIN);
        tracing::info!(
            "less confined: this kernel lets only CAP_NET_ADMIN filter what comes to a socket of one's own"
        );
    }
    let confinement = Confinement {
        account: account.as_ref(),
        capabilities: &kept,
        files: &files,
        syscalls: &SyscallList::from_json(include_str!("syscalls.json")).map_err(io::Error::other)?,
    };
    for lacking in confinement.enter()? {
        tracing::info!("less confined: {lacking}");
    }
    Ok(())
}

/// The directory of this process's threads. It is held open: of a directory of proc(5) that nobody holds the kernel may make
/// another, which Landlock's rule would not know.
#[expect(clippy::disallowed_methods, reason = "procfs answers from memory")]
fn own_threads() -> Option<PathBuf> {
    static HELD: OnceLock<fs::File> = OnceLock::new();
    let path = PathBuf::from(format!("/proc/{}/task", std::process::id()));
    let opened = fs::File::open(&path).ok()?;
    HELD.get_or_init(|| opened);
    Some(path)
}

/// What metrics and listening read of the system.
const SYSTEM_FILES: [&str; 4] =
    ["/proc/loadavg", "/proc/meminfo", "/proc/sys/net/core/somaxconn", "/sys/devices/system/cpu"];
