//! Child processes that never outlive the demo.
//!
//! Each child leads a process group of its own: Ctrl-C in the terminal reaches the demo alone, which then stops its
//! children in order; and what a child started itself can be ended with it. Should the demo be killed before it can do
//! that, the kernel sends each child SIGTERM (see [`leashed`]).

use std::{
    env,
    ffi::OsString,
    fs::File,
    os::unix::process::CommandExt,
    path::Path,
    process::{self, Stdio},
    time::Duration,
};

use clap::Args;
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, killpg},
    },
    unistd::{Pid, getppid},
};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::error::{Error, Result};

/// The program that becomes another one, once it is sure to end with the process that started it.
#[derive(Args, Clone, Debug)]
pub struct LeashOptions {
    /// Process id of the one that starts it
    #[arg(long)]
    parent: i32,
    /// Program and arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// A command line for `program` that ends, by SIGTERM, with this process. What to run comes after it as arguments.
///
/// # Errors
/// [`Error::Local`]: this program cannot find itself.
pub(super) fn leashed(program: &Path) -> Result<Command> {
    let own = env::current_exe().map_err(|e| Error::local("this program", e))?;
    let mut command = Command::new(own);
    command.args(["demo-leash", "--parent", &process::id().to_string(), "--"]).arg(program);
    Ok(command)
}

/// Becomes the program that was asked for.
///
/// # Errors
/// [`Error::Local`]: it cannot be started, or the one that wanted it is gone already.
pub fn run_leashed(options: &LeashOptions) -> Result<()> {
    // Survives exec (prctl(2), PR_SET_PDEATHSIG): these programs are neither set-user-ID nor have capabilities.
    prctl::set_pdeathsig(Signal::SIGTERM).map_err(|e| Error::local("prctl", e))?;
    if getppid().as_raw() != options.parent {
        return Err(Error::Local("the process that wanted this is gone".to_owned()));
    }
    let [program, arguments @ ..] = options.command.as_slice() else {
        return Err(Error::Usage("no program".to_owned()));
    };
    let error = process::Command::new(program).args(arguments).exec();
    Err(Error::local(program.to_string_lossy(), error))
}

/// A running child. Dropping it kills its whole process group.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    group: Pid,
}

impl Process {
    /// Starts `command`, its output appended to `log`.
    ///
    /// # Errors
    /// [`Error::Local`]: the program cannot be started.
    pub(super) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let failed = |e: &dyn std::fmt::Display| Error::local(&program, e);
        let log = File::options().create(true).append(true).open(log).map_err(|e| failed(&e))?;
        let log_too = log.try_clone().map_err(|e| failed(&e))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too)
            .process_group(0)
            .spawn()
            .map_err(|e| failed(&e))?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        let group = Pid::from_raw(pid.ok_or_else(|| failed(&"it ended at once"))?);
        Ok(Self { child, group })
    }

    /// True once the child has ended by itself.
    pub(super) fn ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// SIGKILL, as a crash would be: nothing is said to anyone.
    pub(super) async fn kill(&mut self) {
        self.strike();
        let _ = self.child.wait().await;
    }

    /// SIGKILL without waiting for the end.
    pub(super) fn strike(&self) {
        let _ = killpg(self.group, Signal::SIGKILL);
    }

    /// SIGTERM, and `grace` to obey. Whatever is left of the group is killed when this is dropped.
    pub(super) async fn stop(&mut self, grace: Duration) {
        if !self.ended() {
            let _ = killpg(self.group, Signal::SIGTERM);
            let _ = timeout(grace, self.child.wait()).await;
        }
        // The leader is gone or late; its own children get what is left of a second to follow it.
        for _ in 0..20 {
            if killpg(self.group, None) == Err(Errno::ESRCH) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A group that is empty cannot be hit by mistake: its id stays taken until its last member was reaped.
        if !self.ended() || killpg(self.group, None).is_ok() {
            let _ = killpg(self.group, Signal::SIGKILL);
            let _ = self.child.try_wait();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_child_and_its_children_end_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        // The shell obeys SIGTERM, its own child does not.
        let mut process = Process::start(sh("(trap '' TERM; echo ready; sleep 60) & wait"), &log).unwrap();
        while !std::fs::read_to_string(&log).unwrap().contains("ready") {
            sleep(Duration::from_millis(5)).await;
        }
        let group = process.group;
        process.stop(Duration::from_millis(100)).await;
        drop(process);
        while killpg(group, None).is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error =
            Process::start(Command::new("/nonexistent/amphora"), &dir.path().join("log")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/amphora"));
    }
}
