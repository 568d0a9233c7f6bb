//! The helper: a process of its own, which alone keeps CAP_NET_ADMIN. It writes its one table, by plans, and ends flows of the
//! listeners in them; whoever has taken the proxy over can have datagrams forwarded, which a proxy may, and no more.

use std::{
    env, io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
};

use amphora_sandbox::{Account, Confinement, Files, SyscallList};
use caps::{CapSet, Capability};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, Signal},
};
use std::os::fd::AsFd as _;

use super::{
    steward::Steward,
    wire::{self, Reply, Request},
};
use crate::net;

/// The command line's word for it.
pub const OPTION: &str = "--forward-datagrams";

/// A helper that runs, until this is dropped.
#[derive(Debug)]
pub struct Helper {
    pub(super) stream: UnixStream,
    _child: Child,
}

impl Helper {
    /// Starts one, as `user` once it has what it needs, in the network namespace of the calling thread. `None` without
    /// CAP_NET_ADMIN: then no listener of datagrams can be had.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn start(user: Option<&str>) -> io::Result<Option<Self>> {
        let able = caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN);
        if !able.map_err(io::Error::other)? {
            return Ok(None);
        }
        let (stream, other) = UnixStream::pair()?;
        let mut command = Command::new(env::current_exe()?);
        command.arg(OPTION).stdin(Stdio::from(OwnedFd::from(other))).stdout(Stdio::null());
        if let Some(user) = user {
            command.args(["--user", user]);
        }
        Ok(Some(Self { stream, _child: command.spawn()? }))
    }
}

/// Runs as the helper: asked on standard input, until that ends.
///
/// # Errors
/// When it cannot be confined, or the kernel has no nfnetlink.
pub fn run(user: Option<&str>) -> io::Result<()> {
    // The proxy says when it ends, by ending: flows are moved on while it drains.
    let ignored = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    ignored.into_iter().collect::<SigSet>().thread_block()?;
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let steward = Steward::new(net::now()).map_err(io::Error::other)?;
    let account = user.map(Account::named).transpose()?;
    let confinement = Confinement {
        account: account.as_ref(),
        capabilities: &[Capability::CAP_NET_ADMIN],
        files: &Files::none(),
        syscalls: &SyscallList::from_json(include_str!("syscalls.json")).map_err(io::Error::other)?,
    };
    for lacking in confinement.enter()? {
        tracing::info!("less confined: {lacking}");
    }
    match serve(steward, stream) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        ended => ended,
    }
}

fn serve(mut steward: Steward, mut stream: UnixStream) -> io::Result<()> {
    loop {
        let now = net::now();
        let wait = match steward.due() {
            Some(due) if due <= now => {
                steward.turn(now);
                continue;
            }
            Some(due) => PollTimeout::try_from(due - now).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        let mut asked = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        match poll(&mut asked, wait) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let error = match wire::read(&mut stream)? {
            Request::Apply(plan) => steward.apply(plan).err(),
            Request::Count => steward.count().err().map(|error| error.to_string()),
        };
        wire::write(&mut stream, &Reply { error, counts: steward.counts() })?;
    }
}
