//! capset(2), which no safe wrapper in use here has: the one place of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::io;

/// May bind ports below 1024 (capabilities(7)).
pub(super) const CAP_NET_BIND_SERVICE: u32 = 10;
/// May open raw sockets (capabilities(7)).
pub(super) const CAP_NET_RAW: u32 = 13;

/// `_LINUX_CAPABILITY_VERSION_3`: 64 capabilities in two words.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Makes these capabilities, all below 32, the only ones of the calling thread.
///
/// # Errors
/// `PermissionDenied` for one that the thread does not have.
pub(super) fn set_capabilities(capabilities: &[u32]) -> io::Result<()> {
    let set = capabilities.iter().fold(0, |set, capability| set | 1 << capability);
    let mut header = Header { version: VERSION_3, pid: 0 };
    let data = [Data { effective: set, permitted: set, inheritable: 0 }, Data::default()];
    // SAFETY: version 3 reads a header and two data structures, which these are by layout and count; the kernel
    // writes to the header alone, and only when it does not know the version, so it is given as mutable memory.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
