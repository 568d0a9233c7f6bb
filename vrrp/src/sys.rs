//! What the kernel offers that neither nix nor socket2 nor the standard library wraps: being on time, and a
//! promise that tokio asks for. The one place with `unsafe`.
#![allow(unsafe_code, reason = "nothing wraps sched_setscheduler(2); AsyncFd asks for a promise")]

use std::io;

use nix::{
    errno::Errno,
    libc,
    sys::mman::{MlockAllFlags, mlockall},
};
use socket2::Socket;
use tokio::io::unix::AsyncFd;

/// Lets the calling thread, and those that it starts, run before all that is not real-time: SCHED_RR with this
/// priority, 1 to 99.
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE` or a limit (`RLIMIT_RTPRIO`) that allows it.
pub(crate) fn be_realtime(priority: u8) -> Result<(), Errno> {
    let parameters = libc::sched_param { sched_priority: priority.into() };
    // SAFETY: `parameters` is a whole sched_param that outlives the call, which only reads it; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameters) };
    Errno::result(result).map(|_| ())
}

/// Keeps memory from being paged out, from its first use on: what was never touched takes no memory.
///
/// # Errors
/// `EPERM` or `ENOMEM` without `CAP_IPC_LOCK` or a limit (`RLIMIT_MEMLOCK`) that allows it.
pub(crate) fn lock_memory() -> Result<(), Errno> {
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)
}

/// Lets the runtime watch a socket.
///
/// # Errors
/// As epoll_ctl(2).
pub(crate) fn watch(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns its descriptor, which is open and the same one for as long as the socket lives, and nobody
    // exchanges it inside the `AsyncFd`.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}
