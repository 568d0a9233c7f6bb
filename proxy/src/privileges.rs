//! What the process may do: descriptors, its network namespace, its user.

use std::{io, path::Path};

use amphora_netlink::Namespace;
use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::sys;

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

/// Gives up root for `user`, but keeps the capabilities that serving takes: CAP_NET_BIND_SERVICE for
/// ports below 1024 that a later change may bring, CAP_NET_RAW for ICMP. The sockets become the user's; their group stays,
/// so that those who could connect by it still can.
///
/// Must be called before threads are started: they inherit what is set here.
///
/// # Errors
/// When the user does not exist, or the process may not change to it.
pub fn become_user(user: &str, sockets: &[&Path]) -> io::Result<()> {
    let account = nix::unistd::User::from_name(user)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no such user: {user}")))?;
    let steps: [(&str, &dyn Fn() -> io::Result<()>); 6] = [
        ("give it the control sockets", &|| {
            let own = |socket: &&Path| nix::unistd::chown(*socket, Some(account.uid), None);
            Ok(sockets.iter().try_for_each(own)?)
        }),
        ("keep capabilities", &|| Ok(nix::sys::prctl::set_keepcaps(true)?)),
        ("take on its group alone", &|| Ok(nix::unistd::setgroups(&[account.gid])?)),
        ("take on its group", &|| Ok(nix::unistd::setgid(account.gid)?)),
        ("take on its user id", &|| Ok(nix::unistd::setuid(account.uid)?)),
        ("keep CAP_NET_BIND_SERVICE and CAP_NET_RAW", &|| {
            let kept = [Capability::CAP_NET_BIND_SERVICE, Capability::CAP_NET_RAW].into();
            let set = |set| caps::set(None, set, &kept).map_err(io::Error::other);
            [CapSet::Effective, CapSet::Permitted].into_iter().try_for_each(set)
        }),
    ];
    for (what, step) in steps {
        step().map_err(|error| {
            let reason = format!("--user {user}, which takes root: cannot {what}: {error}");
            io::Error::new(error.kind(), reason)
        })?;
    }
    Ok(())
}
