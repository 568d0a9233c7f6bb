//! The commands of user data: one script, run once, within a time.

use std::{
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{remarks::Remarks, root::Root};

/// Where the script waits, and what it is called from the moment on that it is run: one that brings the machine down is not run again.
pub const SCRIPT: &str = "/var/lib/amphora-first-boot/runcmd";
const STARTED: &str = "runcmd.started";

/// How long it may take, and how long it has to end itself after that.
pub const MOST: Duration = Duration::from_secs(300);
const GRACE: Duration = Duration::from_secs(5);

/// How often it is asked whether it has ended.
const STEP: Duration = Duration::from_millis(20);

/// Runs the script that waits, if one does. `path` is the root's.
///
/// # Errors
/// When it could not be run, or has failed, or was ended.
pub fn run(root: &Root, path: &Path, most: Duration, remarks: &mut Remarks) -> Result<(), String> {
    if !root.is_file(SCRIPT) {
        remarks.info("no commands of user data are waiting");
        return Ok(());
    }
    root.rename(SCRIPT, STARTED).map_err(|e| format!("{SCRIPT}: {e}"))?;
    let script = path.join(&SCRIPT[1..]).with_file_name(STARTED);
    remarks.info("running the commands of user data");
    crate::run::tell(remarks);
    let mut command = Command::new("/bin/sh");
    command.arg(script).current_dir(path).stdin(Stdio::null()).process_group(0);
    let mut child = command.spawn().map_err(|e| format!("/bin/sh: {e}"))?;
    match wait(&mut child, most) {
        Ok(Some(status)) if status.success() => {
            remarks.info("the commands of user data were run");
            Ok(())
        }
        Ok(Some(status)) => Err(match status.signal() {
            Some(signal) => format!("the commands of user data were ended by signal {signal}"),
            None => format!("the commands of user data ended with {}", status.code().unwrap_or_default()),
        }),
        Ok(None) => {
            end(&mut child);
            Err(format!("the commands of user data were ended after {} s", most.as_secs()))
        }
        Err(error) => Err(format!("the commands of user data: {error}")),
    }
}

fn wait(child: &mut Child, most: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + most;
    loop {
        match child.try_wait()? {
            None if Instant::now() < deadline => std::thread::sleep(STEP),
            status => return Ok(status),
        }
    }
}

/// With all that it has started and that is of its process group.
fn end(child: &mut Child) {
    let Ok(group) = i32::try_from(child.id()).map(Pid::from_raw) else { return };
    let _ = killpg(group, Signal::SIGTERM);
    if !matches!(wait(child, GRACE), Ok(Some(_))) {
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    fn run_script(text: &str, most: Duration) -> (Result<(), String>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let waiting = directory.path().join(&SCRIPT[1..]);
        fs::create_dir_all(waiting.parent().unwrap()).unwrap();
        fs::write(&waiting, text).unwrap();
        let root = Root::open(directory.path()).unwrap();
        let mut remarks = Remarks::default();
        let result = run(&root, directory.path(), most, &mut remarks);
        assert!(!waiting.exists() && waiting.with_file_name(STARTED).exists());
        assert_eq!(run(&root, directory.path(), most, &mut remarks), Ok(()), "it is run once");
        (result, directory)
    }

    #[test]
    fn it_is_run_once_whole_by_a_shell() {
        let (result, directory) =
            run_script("#!/bin/sh\nfalse\ncd etc 2>/dev/null || mkdir etc && cd etc\necho hi >> x\n", MOST);
        assert_eq!(
            (result, fs::read_to_string(directory.path().join("etc/x")).unwrap().as_str()),
            (Ok(()), "hi\n")
        );
        assert_eq!(run_script("exit 3\n", MOST).0.unwrap_err(), "the commands of user data ended with 3");
        assert_eq!(
            run_script("kill -9 $$\n", MOST).0.unwrap_err(),
            "the commands of user data were ended by signal 9"
        );
    }

    #[test]
    fn it_does_not_hang() {
        let (result, directory) =
            run_script("sleep 1000 & echo $! > child\necho $$ > shell\nwait\n", Duration::from_secs(1));
        assert_eq!(result.unwrap_err(), "the commands of user data were ended after 1 s");
        for name in ["child", "shell"] {
            let pid = fs::read_to_string(directory.path().join(name)).unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
                if stat.is_empty() || stat.contains(") Z ") {
                    break;
                }
                assert!(Instant::now() < deadline, "{name}: {stat}");
                std::thread::sleep(STEP);
            }
        }
    }
}
