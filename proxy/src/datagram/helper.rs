//! The helpers: processes of their own, which alone keep CAP_NET_ADMIN. One works, and writes its one table, by plans, and ends flows
//! of the listeners in them; whoever has taken the proxy over can have datagrams forwarded, which a proxy may, and no more. The
//! other stands by: it does nothing until it is asked, and is asked when the first one has ended.

use std::{
    env, io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
    time::Duration,
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

/// A helper answers within milliseconds, but for the first rules of all: the kernel loads a dozen modules for them, by a process
/// each, which has taken 45 s on an emulated machine that was starved at its boot. Whoever does not wait serves nothing then.
const PATIENCE: Duration = Duration::from_secs(180);

/// The command line's word for it.
pub const OPTION: &str = "--forward-datagrams";

/// How many are started: one works, and the other stands by. Who has given up its privileges can start no more.
const COUNT: usize = 2;

/// The helpers that there are, each until it is dropped.
#[derive(Debug)]
pub struct Helpers(Vec<Helper>);

#[derive(Debug)]
pub(super) struct Helper {
    pub(super) stream: UnixStream,
    /// Not waited for, which whoever is confined may not: what has ended is put away with the proxy.
    _child: Child,
}

impl Helpers {
    /// Starts them, as `user` once they have what they need, in the network namespace of the calling thread. `None` without
    /// CAP_NET_ADMIN: then no listener of datagrams can be had.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn start(user: Option<&str>) -> io::Result<Option<Self>> {
        let able = caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN);
        if !able.map_err(io::Error::other)? {
            return Ok(None);
        }
        (0..COUNT).map(|_| Helper::start(user)).collect::<io::Result<_>>().map(|all| Some(Self(all)))
    }

    /// The next one, which takes over.
    pub(super) fn next(&mut self) -> Option<Helper> {
        self.0.pop()
    }
}

impl Helper {
    fn start(user: Option<&str>) -> io::Result<Self> {
        let (stream, other) = UnixStream::pair()?;
        let mut command = Command::new(env::current_exe()?);
        command.arg(OPTION).stdin(Stdio::from(OwnedFd::from(other))).stdout(Stdio::null());
        if let Some(user) = user {
            command.args(["--user", user]);
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, _child: command.spawn()? })
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
        let mut clients = Vec::new();
        let error = match wire::read(&mut stream)? {
            Request::Apply(plan) => steward.apply(plan).err(),
            Request::Count => steward.count().err().map(|error| error.to_string()),
            Request::Clients(of, learnt) => match steward.clients(net::now(), &of, &learnt) {
                Ok(told) => {
                    clients = told;
                    None
                }
                Err(error) => Some(error.to_string()),
            },
        };
        let (counts, limited) = (steward.counts(), steward.limited());
        wire::write(&mut stream, &Reply { error, counts, limited, clients })?;
    }
}
