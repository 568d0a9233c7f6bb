//! What no safe wrapper in use here has, mimalloc and its options, setpriority(2), sched_setscheduler(2), connect(2) to nowhere, recv(2),
//! send(2), sendmsg(2) and sendmmsg(2) that are no cancellation points, localtime_r(3), `TCP_DEFER_ACCEPT`, and PCRE2 with
//! callouts: the one place of this crate with `unsafe`.
#![allow(unsafe_code)]

pub(crate) mod allocator;
#[cfg(test)]
pub(crate) mod counted;
pub(crate) mod pcre2;

use std::{
    io::IoSlice,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::errno::Errno;

/// recv(2) without flags.
///
/// glibc's own, in a process with threads, lets the thread be cancelled meanwhile and takes that back: four locked
/// instructions around each call for what nobody here does (pthread_cancel(3)).
///
/// # Errors
/// As recv(2).
#[inline]
pub(crate) fn recv(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the kernel writes to `buffer` alone, no more than its length and before the call returns; it is told of no
    // room for an address. Each argument is as wide as a register.
    let result = unsafe {
        libc::syscall(
            libc::SYS_recvfrom,
            libc::c_long::from(socket.as_raw_fd()),
            buffer.as_mut_ptr(),
            buffer.len(),
            libc::c_long::from(0),
            none,
            none,
        )
    };
    Errno::result(result).map(|n| n as usize)
}

/// send(2) without SIGPIPE, with these flags besides; see [`recv`].
///
/// # Errors
/// As send(2).
#[inline]
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], flags: libc::c_int) -> Result<usize, Errno> {
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads `bytes` alone, no more than their length and before the call returns; it is given no address.
    // Each argument is as wide as a register.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sendto,
            libc::c_long::from(socket.as_raw_fd()),
            bytes.as_ptr(),
            bytes.len(),
            libc::c_long::from(flags),
            std::ptr::null::<libc::c_void>(),
            libc::c_long::from(0),
        )
    };
    Errno::result(result).map(|n| n as usize)
}

/// The same of several slices, one behind the other: sendmsg(2).
///
/// # Errors
/// As sendmsg(2).
#[inline]
pub(crate) fn send_slices(
    socket: BorrowedFd<'_>,
    slices: &[IoSlice<'_>],
    flags: libc::c_int,
) -> Result<usize, Errno> {
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: all of a msghdr may be zero: no address, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // An IoSlice is an iovec to the last bit (std promises so); the kernel does not write to them.
    message.msg_iov = slices.as_ptr().cast_mut().cast();
    message.msg_iovlen = slices.len();
    // SAFETY: the kernel reads `message`, the iovecs that it points to and what these point to, no more than their
    // lengths and before the call returns. Each argument is as wide as a register.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sendmsg,
            libc::c_long::from(socket.as_raw_fd()),
            &raw const message,
            libc::c_long::from(flags),
        )
    };
    Errno::result(result).map(|n| n as usize)
}

/// Sends each of up to `N` datagrams on a connected socket, without waiting and without SIGPIPE; how many have gone: sendmmsg(2).
///
/// # Errors
/// As sendmmsg(2), when not even the first has.
pub(crate) fn send_each<'a, const N: usize>(
    socket: BorrowedFd<'_>,
    datagrams: impl Iterator<Item = &'a [u8]>,
) -> Result<usize, Errno> {
    // SAFETY: all of a mmsghdr may be zero: no address, no data, no control data.
    let mut messages: [libc::mmsghdr; N] = unsafe { std::mem::zeroed() };
    let mut slices = [IoSlice::new(&[]); N];
    let mut count = 0;
    for (slice, datagram) in slices.iter_mut().zip(datagrams) {
        *slice = IoSlice::new(datagram);
        count += 1;
    }
    for (message, slice) in messages.iter_mut().zip(&slices) {
        // An IoSlice is an iovec to the last bit (std promises so); the kernel does not write to it.
        message.msg_hdr.msg_iov = std::ptr::from_ref(slice).cast_mut().cast();
        message.msg_hdr.msg_iovlen = 1;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads the first `count` messages, the iovec that each points to and what that points to, and writes
    // the length of each message into it; all of it before the call returns. Each argument is as wide as a register.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sendmmsg,
            libc::c_long::from(socket.as_raw_fd()),
            messages.as_mut_ptr(),
            libc::c_long::from(count as libc::c_uint),
            libc::c_long::from(flags),
        )
    };
    Errno::result(result).map(|n| n as usize)
}

/// How many seconds local time is ahead of UTC at a moment in seconds since 1970; 0 when that cannot be found out. The zone is
/// the one that the process has found at the first call.
pub(crate) fn local_offset(seconds: i64) -> i32 {
    let seconds: libc::time_t = seconds;
    // SAFETY: all of a tm may be zero, its pointer to a name included.
    let mut broken_down: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to what outlives the call; it is localtime_r(3), which keeps neither.
    let found = unsafe { libc::localtime_r(&raw const seconds, &raw mut broken_down) };
    if found.is_null() { 0 } else { i32::try_from(broken_down.tm_gmtoff).unwrap_or(0) }
}

/// Lets the calling thread, and those that it starts, run before all that is not real-time: SCHED_RR with this
/// priority, 1 to 99.
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE` or a limit (`RLIMIT_RTPRIO`) that allows it.
pub(crate) fn be_realtime(priority: u8) -> Result<(), Errno> {
    schedule(libc::SCHED_RR, priority.into())
}

/// Gives that up for the calling thread.
///
/// # Errors
/// None that is known.
pub(crate) fn be_ordinary() -> Result<(), Errno> {
    schedule(libc::SCHED_OTHER, 0)
}

fn schedule(policy: libc::c_int, priority: libc::c_int) -> Result<(), Errno> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: `parameters` is a whole sched_param that outlives the call, which only reads it; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    Errno::result(result).map(|_| ())
}

/// Lets mimalloc give pages back so many milliseconds after they were freed; 0 is at once. Any other waits for an allocation
/// after that time, or for [`collect`]: a thread that has nothing more to do does not allocate again.
pub(crate) fn purge_at(delay: libc::c_long) {
    // mi_option_purge_delay, not among the crate's constants (mimalloc.h).
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: it takes no pointer. It stores an aligned word that other threads may be reading in C code, which see the old or the
    // new: either is a delay.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, delay) };
}

/// Lets mimalloc give back what the calling thread keeps of its empty pages, and what any has freed and not given back yet.
pub(crate) fn collect() {
    // SAFETY: it takes no pointer, and no memory that is in use is touched. It is of no effect where mimalloc is not the
    // allocator.
    unsafe { libmimalloc_sys::mi_collect(true) };
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

/// On a TCP socket that is to connect: the last packet of the handshake is held back until there is something to send, for
/// 200 ms at the most. Unlike `TCP_QUICKACK` that holds for all its connections. tcp(7) tells of `TCP_DEFER_ACCEPT` on
/// sockets that listen alone; for those that connect see tcp_rcv_synsent_state_process() of Linux.
///
/// # Errors
/// What setsockopt(2) lists; none of it is known for TCP sockets.
pub(crate) fn hold_back_handshake(socket: &impl AsFd) -> Result<(), Errno> {
    let seconds: libc::c_int = 1;
    let len = size_of_val(&seconds) as libc::socklen_t;
    // SAFETY: the descriptor is open as long as it is borrowed, and the call reads `len` bytes of `seconds`, which it has.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            len,
        )
    };
    Errno::result(result).map(|_| ())
}

/// Ends the connection of a TCP socket, with a reset unless both sides have closed it, and leaves the socket as a new one to
/// connect again: connect(2) to `AF_UNSPEC`. Options stay, all but `TCP_QUICKACK`.
///
/// # Errors
/// What connect(2) lists; none of it is known for TCP sockets.
pub(crate) fn disconnect(socket: &impl AsFd) -> Result<(), Errno> {
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let len = size_of_val(&nowhere) as libc::socklen_t;
    // SAFETY: the descriptor is open as long as it is borrowed, and the call reads `len` bytes of `nowhere`, which it has.
    let result = unsafe { libc::connect(socket.as_fd().as_raw_fd(), &raw const nowhere, len) };
    Errno::result(result).map(|_| ())
}
