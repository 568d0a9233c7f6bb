//! What a program gives up once it has all that it needs: root, capabilities, files, system calls.
//!
//! A program opens its sockets, reads what root alone may read, and then calls [`Confinement::enter`], before it starts
//! a thread: threads inherit what is given up here. From then on whoever takes the program over can do what it was made
//! for, and little else.
//!
//! | what | by | where the kernel lacks it |
//! | --- | --- | --- |
//! | user and groups | setuid(2), setgid(2), setgroups(2) | it does not start |
//! | capabilities, the bounding set | capabilities(7) | a bounding set that may not be emptied is told |
//! | privileges by execve(2) | `no_new_privs`, prctl(2) | it does not start: every kernel since 3.5 has it |
//! | core dumps, ptrace(2) by the same user | `PR_SET_DUMPABLE`, prctl(2) | it does not start, likewise |
//! | files, signals to others, abstract sockets | landlock(7) | told, and done without |
//! | system calls | seccomp(2), by a list that is data | told, and done without |

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests may block"))]

mod files;
mod syscalls;
mod user;

use std::io;

use caps::{CapSet, Capability};
use nix::sys::prctl;

pub use self::{files::Files, syscalls::SyscallList, user::Account};

/// What is left to a program.
#[derive(Clone, Copy, Debug)]
pub struct Confinement<'a> {
    /// Whom it runs as from now on; `None` leaves the user as it is.
    pub account: Option<&'a Account>,
    /// The capabilities that it keeps, of those that it has.
    pub capabilities: &'a [Capability],
    /// The files that it may open.
    pub files: &'a Files,
    /// The system calls that it may make.
    pub syscalls: &'a SyscallList,
}

/// What the kernel, or the program's own rights, did not allow to be given up; each a sentence for the log.
pub type Lacking = Vec<String>;

impl Confinement<'_> {
    /// Gives everything else up, for the calling thread and all that it starts afterwards.
    ///
    /// # Errors
    /// What the program must not run without: another user, capabilities, `no_new_privs`.
    pub fn enter(&self) -> io::Result<Lacking> {
        let mut lacking = Lacking::new();
        // The bounding set first: emptying it takes CAP_SETPCAP.
        if let Err(error) = empty_bounding_set() {
            lacking.push(format!("the bounding set of capabilities stays as it is: {error}"));
        }
        if let Some(account) = self.account {
            account.assume()?;
        }
        self.keep_capabilities().map_err(failed("give up capabilities"))?;
        prctl::set_no_new_privs().map_err(failed("set no_new_privs"))?;
        prctl::set_dumpable(false).map_err(failed("forbid core dumps"))?;
        lacking.extend(self.files.restrict());
        // Last, since the steps before are not on the list.
        lacking.extend(self.syscalls.restrict());
        Ok(lacking)
    }

    fn keep_capabilities(&self) -> Result<(), caps::errors::CapsError> {
        let permitted = caps::read(None, CapSet::Permitted)?;
        let kept = self.capabilities.iter().copied().filter(|kept| permitted.contains(kept)).collect();
        caps::clear(None, CapSet::Ambient)?;
        caps::clear(None, CapSet::Inheritable)?;
        caps::set(None, CapSet::Effective, &kept)?;
        caps::set(None, CapSet::Permitted, &kept)
    }
}

fn empty_bounding_set() -> Result<(), caps::errors::CapsError> {
    let bounding = caps::read(None, CapSet::Bounding)?;
    bounding.into_iter().try_for_each(|capability| caps::drop(None, CapSet::Bounding, capability))
}

fn failed<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> io::Error {
    move |error| io::Error::other(format!("cannot {what}: {error}"))
}
