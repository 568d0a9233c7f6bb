//! What no safe wrapper in use here has, capset(2) and malloc_trim(3): the one place of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::io;

/// May bind ports below 1024 (capabilities(7)).
pub(crate) const CAP_NET_BIND_SERVICE: u32 = 10;
/// May open raw sockets (capabilities(7)).
pub(crate) const CAP_NET_RAW: u32 = 13;

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
pub(crate) fn set_capabilities(capabilities: &[u32]) -> io::Result<()> {
    let set = capabilities.iter().fold(0, |set, capability| set | 1 << capability);
    let mut header = Header { version: VERSION_3, pid: 0 };
    let data = [Data { effective: set, permitted: set, inheritable: 0 }, Data::default()];
    // SAFETY: version 3 reads a header and two data structures, which these are by layout and count; the kernel
    // writes to the header alone, and only when it does not know the version, so it is given as mutable memory.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the pages that the allocator keeps and nobody uses back to the system; whether there were any.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn trim_heap() -> bool {
    // SAFETY: it takes no pointer, and no memory that is in use is touched; glibc locks each arena while it looks through
    // it (malloc_trim(3): MT-Safe).
    unsafe { libc::malloc_trim(0) == 1 }
}

/// Other allocators are left to themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim_heap() -> bool {
    false
}
