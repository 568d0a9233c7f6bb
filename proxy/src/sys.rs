//! What no safe wrapper in use here has, malloc_trim(3): the one place of this crate with `unsafe`.
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
