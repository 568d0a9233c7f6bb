//! A room for programs that are to outlive the one who starts them: all of it ends with the room.
//!
//! It has process ids, mounts and `/run/netns` of its own. Its first process waits for all others that end; when it ends itself, for one because
//! who wanted the room is gone, the kernel kills all that are left, and namespaces go with their names.

use std::{
    env,
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus},
};

use clap::Args;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        wait::{WaitStatus, waitpid},
    },
    unistd::{Pid, getppid},
};

use super::super::netns::Namespace;
use crate::{
    error::{Error, Result},
    host::NAMESPACES,
};

/// The program that makes a room and runs another one in it.
#[derive(Args, Clone, Debug)]
pub struct RoomOptions {
    /// Process id of the one that wants it; without it this is the room's first process
    #[arg(long)]
    parent: Option<i32>,
    /// Network namespace
    #[arg(long)]
    netns: Option<String>,
    /// Program and arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Runs the program in a room, until it ends.
///
/// # Errors
/// [`Error::Local`]: this host does not permit it, or the one that wanted it is gone already.
pub fn run_room(options: &RoomOptions) -> Result<()> {
    // Whatever this process is told by signals, the program is told as well, and decides.
    let failed = |e: nix::Error| Error::local("a room", e);
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed)?;
    let status = match options.parent {
        Some(parent) => {
            if getppid().as_raw() != parent {
                return Err(Error::Local("the process that wanted this is gone".to_owned()));
            }
            if let Some(netns) = &options.netns {
                Namespace::enter(netns)?;
            }
            SigSet::all().thread_block().map_err(failed)?;
            outside(options)?
        }
        None => inside(options)?,
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (code, signal) => Err(Error::Local(format!("the program ended: code {code:?}, signal {signal:?}"))),
    }
}

fn outside(options: &RoomOptions) -> Result<ExitStatus> {
    let failed = |e: nix::Error| Error::local("a room", e);
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID).map_err(failed)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed)?;
    mount(Some("tmpfs"), NAMESPACES, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).map_err(failed)?;
    let own = env::current_exe().map_err(|e| Error::local("this program", e))?;
    let status = Command::new(own).args(["demo-room", "--"]).args(&options.command).status();
    status.map_err(|e| Error::local("a room", e))
}

/// As the first process of the room.
fn inside(options: &RoomOptions) -> Result<ExitStatus> {
    let failed = |e: nix::Error| Error::local("a room", e);
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>).map_err(failed)?;
    SigSet::all().thread_unblock().map_err(failed)?;
    let [program, arguments @ ..] = options.command.as_slice() else {
        return Err(Error::Usage("no program".to_owned()));
    };
    let child = Command::new(program).args(arguments).spawn();
    let child = child.map_err(|e| Error::local(program.to_string_lossy(), e))?;
    let child = i32::try_from(child.id()).unwrap_or_default();
    loop {
        match waitpid(Pid::from_raw(-1), None).map_err(failed)? {
            WaitStatus::Exited(pid, code) if pid.as_raw() == child => {
                return Ok(ExitStatus::from_raw(code << 8));
            }
            WaitStatus::Signaled(pid, signal, _) if pid.as_raw() == child => {
                return Ok(ExitStatus::from_raw(signal as i32));
            }
            _ => {}
        }
    }
}
