//! What neither std nor nix, as it is built here, has.
#![allow(unsafe_code)]

use std::io;

/// sethostname(2), which works where `/proc/sys` is read-only.
pub(crate) fn set_host_name(name: &str) -> io::Result<()> {
    // SAFETY: the kernel reads that many bytes of the name, and keeps no pointer.
    match unsafe { nix::libc::sethostname(name.as_ptr().cast(), name.len()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
