//! The memory of the process: whose it is when nobody uses it.
//!
//! The program allocates with mimalloc. What a worker allocates and frees it finds without a lock that another thread could
//! hold, and a page that is empty goes back to the system by who has emptied it: some microseconds each, spread
//! over the ends of a burst's sessions. glibc keeps nearly all that is freed between allocations that live on until
//! malloc_trim(3) is called, which holds the lock of a worker's arena while it gives back all of it: 5 to 12 ms
//! for 5,000 connections, and whenever it is not let run meanwhile, far more.

use libc::c_long;
use nix::sys::prctl;

use crate::sys;
pub use crate::sys::allocator::Allocator;

/// To be called before threads are made, by a program whose allocator is [`Allocator`].
pub fn prepare() {
    sys::purge_at(AT_ONCE);
    // Pages of 2 MiB would be resident as a whole for the few KiB that are used of one. Without this call there is more
    // memory resident where the system has them always, no more.
    let _ = prctl::set_thp_disable(true);
}

/// Keeps what is freed from now on for those who allocate next, until [`give_back`]: a change of the configuration frees and
/// allocates the same few MiB over and over, and a page that has gone back has to be faulted in again.
pub(crate) fn keep() {
    sys::purge_at(KEPT);
}

/// Gives back what has been kept since [`keep`], which takes some milliseconds for 100 MiB and no lock that a worker waits for.
/// From then on pages go back at once.
pub(crate) fn give_back() {
    sys::collect();
    sys::purge_at(AT_ONCE);
}

/// Purge delays of mimalloc, in milliseconds. A worker that meets an expired one would purge for all; `KEPT`, a day, never expires
/// while it holds.
const KEPT: c_long = 24 * 60 * 60 * 1000;
const AT_ONCE: c_long = 0;
