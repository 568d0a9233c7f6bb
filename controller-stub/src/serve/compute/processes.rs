//! Processes of this host. All of it blocks.

use std::{fs, io};

/// Those that `wanted` says of.
///
/// # Errors
/// They cannot be listed, or something cannot be found out of one: there may be others.
pub(super) fn all(wanted: impl Fn(i32) -> io::Result<bool>) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if wanted(pid)? {
            found.push(pid);
        }
    }
    Ok(found)
}

/// What was asked of a process; `None` when it is gone, or hidden from us, as none is that we have started.
pub(super) fn if_there<T>(asked: io::Result<T>) -> io::Result<Option<T>> {
    match asked {
        Ok(found) => Ok(Some(found)),
        Err(e)
            if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
                || e.raw_os_error() == Some(nix::libc::ESRCH) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
