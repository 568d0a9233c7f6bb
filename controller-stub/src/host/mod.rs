//! What the demo and `serve` do to this host: the `ip` command, and the files of an amphora that runs here.

mod agent_file;

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use nix::unistd::geteuid;

pub(crate) use self::agent_file::AgentFile;
use crate::error::{Error, Result};

/// Where `ip netns` keeps namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";

/// Why namespaces are out of the question here, if they are.
pub(crate) fn obstacle() -> Option<&'static str> {
    if !geteuid().is_root() {
        return Some("not root");
    }
    let there = Command::new("ip").arg("-V").stdin(Stdio::null()).output().is_ok_and(|o| o.status.success());
    (!there).then_some("no `ip` command (package iproute2)")
}

/// Makes a directory that programs of other users pass through, and those above it that are not there, whatever our umask is; one that is
/// there stays as it is. Blocks.
///
/// # Errors
/// [`Error::Local`]: it cannot be made.
pub(crate) fn make_passage(path: &Path) -> Result<()> {
    let failed = |e: io::Error| Error::local(path.display(), e);
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        make_passage(above)?;
    }
    fs::create_dir(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o711)).map_err(failed)
}

/// Looks whether programs of other users pass through a directory that is there, and all above it. Blocks.
///
/// # Errors
/// [`Error::Local`]: one keeps them out.
pub(crate) fn is_passage(path: &Path) -> Result<()> {
    let path = path.canonicalize().map_err(|e| Error::local(path.display(), e))?;
    for above in path.ancestors() {
        let mode = fs::metadata(above).map_err(|e| Error::local(above.display(), e))?.permissions().mode();
        if mode & 0o001 == 0 {
            let text = format!("programs of other users do not pass (mode {:o}): `chmod o+x`", mode & 0o7777);
            return Err(Error::local(above.display(), text));
        }
    }
    Ok(())
}

/// Runs `ip`. Blocks for some milliseconds.
///
/// # Errors
/// [`Error::Local`]: it says no.
pub(crate) fn ip(args: &[&str]) -> Result<()> {
    ip_says(args).map(drop)
}

/// Runs `ip`, and returns what it says. Blocks for some milliseconds.
///
/// # Errors
/// [`Error::Local`]: it says no.
pub(crate) fn ip_says(args: &[&str]) -> Result<Vec<u8>> {
    let what = || format!("ip {}", args.join(" "));
    let output =
        Command::new("ip").args(args).stdin(Stdio::null()).output().map_err(|e| Error::local(what(), e))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::local(what(), String::from_utf8_lossy(&output.stderr).trim()))
}

/// How often a list is asked for that changes while it is made.
const LISTS: usize = 10;

/// Runs `ip -json`, and returns the list that it shows, whole. Blocks for some milliseconds.
///
/// # Errors
/// [`Error::Local`]: it says no, or what is listed does not come to rest.
pub(crate) fn ip_shows(args: &[&str]) -> Result<Vec<serde_json::Value>> {
    let what = || format!("ip -json {}", args.join(" "));
    for _ in 0..LISTS {
        let output = Command::new("ip").arg("-json").args(args).stdin(Stdio::null()).output();
        let output = output.map_err(|e| Error::local(what(), e))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(Error::local(what(), said.trim()));
        }
        // Something may be missing from it then, and it calls that a success.
        if !said.contains("interrupted") {
            // Of nothing it shows nothing.
            let text = if output.stdout.trim_ascii().is_empty() { b"[]" } else { output.stdout.as_slice() };
            return serde_json::from_slice(text).map_err(|e| Error::local(what(), e));
        }
    }
    Err(Error::local(what(), "the list changes all the time"))
}

/// The interfaces here, and of what `ip` says of them name and alias; `kind` alone, where one is given. Not by sysfs, which shows
/// those of the namespace that it was mounted in. Blocks for some milliseconds.
///
/// # Errors
/// [`Error::Local`]: it says no.
pub(crate) fn interfaces(kind: Option<&str>) -> Result<Vec<(String, String)>> {
    let mut args = vec!["link", "show"];
    args.extend(kind.iter().flat_map(|kind| ["type", kind]));
    let listed = ip_shows(&args)?;
    let text = |entry: &serde_json::Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    // An empty entry stands for each of another kind.
    let named = listed.iter().filter(|entry| entry["ifname"].is_string());
    Ok(named.map(|entry| (text(entry, "ifname"), text(entry, "ifalias"))).collect())
}

/// Runs several commands of `ip` in one process, up to the first that is refused. Blocks for some milliseconds.
///
/// # Errors
/// [`Error::Local`]: it says no to one of them.
pub(crate) fn ip_batch(commands: &[String]) -> Result<()> {
    batch(&["-batch", "-"], commands)
}

/// The same, with all of them, whichever is refused.
///
/// # Errors
/// [`Error::Local`]: it says no to some of them.
pub(crate) fn ip_each(commands: &[String]) -> Result<()> {
    if commands.is_empty() { Ok(()) } else { batch(&["-force", "-batch", "-"], commands) }
}

fn batch(args: &[&str], commands: &[String]) -> Result<()> {
    let what = || format!("ip: {}", commands.join("; "));
    let failed = |e: std::io::Error| Error::local(what(), e);
    let mut child = Command::new("ip")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // It reads as it goes, and says next to nothing; the pipe is closed with the value.
    let written = match child.stdin.take() {
        Some(mut input) => input.write_all((commands.join("\n") + "\n").as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output().map_err(failed)?;
    written.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::local(what(), String::from_utf8_lossy(&output.stderr).trim()))
}
