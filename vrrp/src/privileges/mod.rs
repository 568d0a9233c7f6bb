//! What the process may do: its network namespace, its place among all that wants to run, its user,
//! capabilities, files and system calls.

use std::{error::Error, path::Path};

use amphora_netlink::Namespace;
use amphora_sandbox::{Account, Confinement, Files, SyscallList};
use caps::{CapSet, Capability};
use nix::{
    sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
    unistd::chown,
};

use crate::sys;

type Failure = Box<dyn Error>;

/// Moves the calling thread, and those it starts afterwards, into the network namespace that `ip netns add NAME` made.
///
/// # Errors
/// When there is no such namespace, or CAP_SYS_ADMIN is missing.
pub(crate) fn enter_network_namespace(name: &str) -> Result<(), Failure> {
    let entered = Namespace::named(name)?.enter();
    entered.map_err(|error| format!("cannot enter the network namespace {name}: {error}").into())
}

/// Lets the thread run before all that is not real-time (unless `priority` is 0), with memory that is not paged out, as far as it
/// is allowed to.
pub(crate) fn be_on_time(priority: u8) {
    if priority > 0
        && let Err(error) = sys::be_realtime(priority)
    {
        tracing::warn!(%error, "no real-time priority: under load advertisements may be late");
    }
    // Memory that is locked counts against a limit, and what goes beyond it is not given: the process would die of it.
    let raised = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let locked = if raised.is_err() && !locks_without_limit() {
        Err("neither CAP_IPC_LOCK nor RLIMIT_MEMLOCK without a limit".to_owned())
    } else {
        sys::lock_memory().map_err(|error| error.to_string())
    };
    if let Err(error) = locked {
        tracing::warn!(%error, "memory is not locked: it may be paged out");
    }
}

/// Gives up what VRRP does not take: root for `user`, if one is named, every capability except CAP_NET_RAW and CAP_NET_ADMIN
/// (and CAP_IPC_LOCK where locked memory depends on it), every file but those of `files`, and the system calls that are not
/// in `syscalls.json`. The socket becomes the user's. What the kernel lacks of this is told in the log.
///
/// # Errors
/// When the user does not exist, or one of the two is missing: nothing could be sent, or no address be moved.
pub(crate) fn confine(user: Option<&str>, socket: &Path, files: Files) -> Result<(), Failure> {
    let account = user.map(Account::named).transpose()?;
    let mut kept = vec![Capability::CAP_NET_RAW, Capability::CAP_NET_ADMIN];
    let permitted = caps::read(None, CapSet::Permitted)?;
    if let Some(missing) = kept.iter().find(|capability| !permitted.contains(capability)) {
        return Err(format!("{missing} is missing").into());
    }
    if !is_unlimited() {
        kept.push(Capability::CAP_IPC_LOCK);
    }
    if let Some(account) = &account {
        chown(socket, Some(account.uid()), None).map_err(|error| format!("{}: {error}", socket.display()))?;
    }
    let confinement = Confinement {
        account: account.as_ref(),
        capabilities: &kept,
        // Whether the data plane is starved is told by its threads' accounts; addresses come with settings of their interface.
        files: &files.read("/proc").write("/proc/sys/net").remove_beside(socket),
        syscalls: &SyscallList::from_json(include_str!("syscalls.json"))?,
    };
    for lacking in confinement.enter()? {
        tracing::info!("less confined: {lacking}");
    }
    Ok(())
}

fn locks_without_limit() -> bool {
    is_unlimited() || caps::has_cap(None, CapSet::Effective, Capability::CAP_IPC_LOCK).unwrap_or(false)
}

fn is_unlimited() -> bool {
    getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY)
}
