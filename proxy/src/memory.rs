//! The memory of the process: whose it is when nobody uses it.
//!
//! The program allocates with mimalloc. What a worker allocates and frees it finds without a lock that another thread could
//! hold, and a page that is empty goes back to the system by who has emptied it: some microseconds each, spread
//! over the ends of a burst's sessions. glibc keeps nearly all that is freed between allocations that live on until
//! malloc_trim(3) is called, which holds the lock of a worker's arena while it gives back all of it: 5 to 12 ms
//! for 5,000 connections, and whenever it is not let run meanwhile, far more.

pub use mimalloc::MiMalloc as Allocator;
use nix::sys::prctl;

use crate::sys;

/// To be called before threads are made, by a program whose allocator is [`Allocator`].
pub fn prepare() {
    sys::purge_at_once();
    // Pages of 2 MiB would be resident as a whole for the few KiB that are used of one. Without this call there is more
    // memory resident where the system has them always, no more.
    let _ = prctl::set_thp_disable(true);
}

/// Gives back what the calling thread has emptied but kept for its next allocations. For a thread that has done something
/// large.
pub(crate) fn give_back() {
    sys::collect();
}
