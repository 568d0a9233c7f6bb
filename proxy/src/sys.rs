//! What no safe wrapper in use here has, malloc_trim(3) and setpriority(2): the one place of this crate with `unsafe`.
#![allow(unsafe_code)]

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

/// How far a thread that works in the background stands back behind those that serve clients: with both busy on one core
/// it gets a quarter of it.
const NICENESS: libc::c_int = 6;

/// Lets the workers go first from now on. For the calling thread alone.
pub(crate) fn stand_back() {
    // SAFETY: no pointer is involved. On Linux 0 stands for the calling thread, not for its process (setpriority(2)).
    // Becoming nicer is always allowed; should it fail, the thread competes with the workers, no more.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}
