//! Child processes that never outlive the demo.
//!
//! Each child leads a process group of its own: Ctrl-C in the terminal reaches the demo alone, which then stops its
//! children in order; and what a child started itself can be ended with it.

use std::{fs::File, path::Path, process::Stdio, time::Duration};

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::error::{Error, Result};

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
        let _ = killpg(self.group, Signal::SIGKILL);
        let _ = self.child.wait().await;
    }

    /// SIGTERM, `grace` to obey, then SIGKILL for whatever is left of the group.
    pub(super) async fn stop(mut self, grace: Duration) {
        let _ = killpg(self.group, Signal::SIGTERM);
        let _ = timeout(grace, self.child.wait()).await;
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
        let process = Process::start(sh("(trap '' TERM; echo ready; sleep 60) & wait"), &log).unwrap();
        while !std::fs::read_to_string(&log).unwrap().contains("ready") {
            sleep(Duration::from_millis(5)).await;
        }
        let group = process.group;
        process.stop(Duration::from_millis(100)).await;
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
