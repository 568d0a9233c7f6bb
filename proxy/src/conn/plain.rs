//! A plain connection: reads and writes that look at the runtime's readiness once, and whether it has something to say.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd},
    task::{Context, Poll, ready},
};

use nix::{
    errno::Errno,
    libc::POLLRDHUP,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, Shutdown, recv, shutdown},
};
use tokio::{io::Interest, net::TcpStream};

use super::{Buffer, BufferPool};
use crate::sys;

/// Reads once, when the runtime has seen the socket become readable: after
/// [`poll_read_ready`](TcpStream::poll_read_ready), as [`AsyncRead`](tokio::io::AsyncRead) does it in one. `Ok(0)` is the end of the stream, or an
/// empty `buffer`.
///
/// # Errors
/// As recv(2): `WouldBlock` when there is nothing to read after all, and the runtime is to be asked again.
#[inline]
pub(super) fn read_ready(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    once(stream, Interest::READABLE, buffer.len(), || sys::recv(stream.as_fd(), buffer))
}

/// See [`Conn::take_early`](super::Conn::take_early).
pub(super) fn take_early(stream: &TcpStream, buffers: &BufferPool) -> io::Result<Option<Buffer>> {
    let mut buffer = buffers.get();
    match sys::recv(stream.as_fd(), buffer.spare()) {
        // The end, if it is one, is met again.
        Ok(0) | Err(Errno::EAGAIN) => Ok(None),
        Ok(n) => {
            buffer.commit(n);
            Ok(Some(buffer))
        }
        Err(error) => Err(error.into()),
    }
}

/// See [`Conn::seems_read_to_its_end`](super::Conn::seems_read_to_its_end).
#[inline]
pub(super) fn seems_read_to_its_end(stream: &TcpStream) -> bool {
    // The runtime has forgotten by then that there was something to read, but not that there will be no more.
    let is_ready = |interest| stream.try_io(interest, || Ok(())).is_ok();
    is_ready(Interest::READABLE) && !is_ready(Interest::ERROR)
}

/// What comes behind what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Something that this does not wait for, or nothing.
    More,
    /// The end of what is sent, at once ([`Conn::end`](super::Conn::end)): it goes in the same packet. On its own it is a packet
    /// more for either side to look at, and costs us a third of all that a short connection does.
    End,
}

impl Then {
    fn flags(self) -> libc::c_int {
        match self {
            Self::More => 0,
            Self::End => libc::MSG_MORE,
        }
    }
}

/// Writes once, as [`AsyncWrite`](tokio::io::AsyncWrite) does. The runtime is asked to wake the task only when it has not seen the socket become
/// writable.
#[inline]
pub(super) fn poll_write(
    cx: &mut Context<'_>,
    stream: &TcpStream,
    bytes: &[u8],
    then: Then,
) -> Poll<io::Result<usize>> {
    poll_send(cx, stream, bytes.len(), || sys::send(stream.as_fd(), bytes, then.flags()))
}

/// The same of two slices, one behind the other.
#[inline]
pub(super) fn poll_write_two(
    cx: &mut Context<'_>,
    stream: &TcpStream,
    first: &[u8],
    second: &[u8],
    then: Then,
) -> Poll<io::Result<usize>> {
    if second.is_empty() {
        return poll_write(cx, stream, first, then);
    }
    let slices = [IoSlice::new(first), IoSlice::new(second)];
    poll_send(cx, stream, first.len() + second.len(), || {
        sys::send_slices(stream.as_fd(), &slices, then.flags())
    })
}

/// Writes slices, one behind the other, once: what the kernel takes now of them.
///
/// # Errors
/// As sendmsg(2): `WouldBlock` when it takes nothing, and the runtime is to be asked again.
pub(super) fn write_ready(stream: &TcpStream, slices: &[IoSlice<'_>], then: Then) -> io::Result<usize> {
    let length = slices.iter().map(|slice| slice.len()).sum();
    once(stream, Interest::WRITABLE, length, || match slices {
        [one] => sys::send(stream.as_fd(), one, then.flags()),
        _ => sys::send_slices(stream.as_fd(), slices, then.flags()),
    })
}

#[inline]
fn poll_send(
    cx: &mut Context<'_>,
    stream: &TcpStream,
    length: usize,
    mut call: impl FnMut() -> Result<usize, Errno>,
) -> Poll<io::Result<usize>> {
    loop {
        match once(stream, Interest::WRITABLE, length, &mut call) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready!(stream.poll_write_ready(cx))?;
            }
            written => return Poll::Ready(written),
        }
    }
}

/// What the kernel may hold of a peer that has sent all it could at once.
pub(super) const MOST_UNREAD: usize = 256 * 1024;

/// Takes what has come from the peer and was not read, `most` bytes of it; says how much that was. The kernel resets a connection that is closed with bytes unread (RFC 1122
/// section 4.2.2.13), and a peer that is reset may never see what it was told last: HAProxy drains in the same place.
pub(super) fn discard(stream: &TcpStream, most: usize) -> usize {
    // With MSG_TRUNC nothing is copied.
    let mut nothing = [0; 4096];
    let mut taken = 0;
    while taken + nothing.len() <= most {
        match recv(stream.as_raw_fd(), &mut nothing, MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT) {
            Ok(n) if n > 0 => taken += n,
            _ => break,
        }
    }
    taken
}

/// Finishes what is sent.
pub(super) fn shut_down(stream: &TcpStream) -> io::Result<()> {
    Ok(shutdown(stream.as_raw_fd(), Shutdown::Write)?)
}

/// See [`Conn::is_quiet`](super::Conn::is_quiet).
pub(super) fn is_quiet(stream: &TcpStream) -> bool {
    peek(stream) == Err(Errno::EAGAIN)
}

/// See [`Conn::is_quiet_so_far`](super::Conn::is_quiet_so_far).
#[inline]
pub(super) fn is_quiet_so_far(stream: &TcpStream) -> bool {
    let peeked = stream.try_io(Interest::READABLE, || peek(stream).map_err(io::Error::from));
    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// See [`Conn::end_has_come`](super::Conn::end_has_come).
pub(super) fn end_has_come(stream: &TcpStream) -> bool {
    // Of a failure it tells unasked.
    let mut asked = [PollFd::new(stream.as_fd(), PollFlags::from_bits_retain(POLLRDHUP))];
    poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ended| ended > 0)
}

fn peek(stream: &TcpStream) -> Result<usize, Errno> {
    let mut byte = [0];
    recv(stream.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)
}

/// A system call on a socket that is ready for it, with `length` bytes. One that moves some but not all of them has emptied
/// the socket, or filled it: the runtime is told so, as it is told of one that would block, and the next does not
/// ask the kernel before there is something new.
#[inline]
fn once(
    stream: &TcpStream,
    interest: Interest,
    length: usize,
    call: impl FnOnce() -> Result<usize, Errno>,
) -> io::Result<usize> {
    let mut moved = 0;
    let done = stream.try_io(interest, || {
        moved = call()?;
        if 0 < moved && moved < length { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match done {
        Err(error) if moved == 0 => Err(error),
        _ => Ok(moved),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ours, listener.accept().await.unwrap().0)
    }

    fn would_block<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    #[tokio::test]
    async fn a_read_that_empties_the_socket_is_the_last_until_there_is_more() {
        let (ours, mut theirs) = pair().await;
        let mut buffer = [0; 8];
        for text in [&b"abc"[..], b"defg"] {
            theirs.write_all(text).await.unwrap();
            poll_fn(|cx| ours.poll_read_ready(cx)).await.unwrap();
            assert_eq!(read_ready(&ours, &mut buffer).unwrap(), text.len());
            assert_eq!(&buffer[..text.len()], text);
            // Told by the runtime, not by the kernel: what comes meanwhile is not seen before the event loop turns.
            theirs.try_write(b"x").unwrap();
            assert!(would_block(read_ready(&ours, &mut buffer)));
            poll_fn(|cx| ours.poll_read_ready(cx)).await.unwrap();
            assert_eq!(read_ready(&ours, &mut buffer).unwrap(), 1);
        }
        theirs.write_all(b"12345678").await.unwrap();
        drop(theirs);
        poll_fn(|cx| ours.poll_read_ready(cx)).await.unwrap();
        assert_eq!(read_ready(&ours, &mut buffer).unwrap(), 8);
        poll_fn(|cx| ours.poll_read_ready(cx)).await.unwrap();
        assert_eq!(read_ready(&ours, &mut buffer).unwrap(), 0, "the end");
    }

    #[tokio::test]
    async fn a_write_that_fills_the_socket_waits_for_room() {
        let (ours, mut theirs) = pair().await;
        let bytes: Vec<u8> = (0..8 << 20).map(|i| (i % 251) as u8).collect();
        let all = bytes.clone();
        let writing = async move {
            let mut at = 0;
            let mut waited = 0;
            while at < all.len() {
                let mut polls = 0;
                at += poll_fn(|cx| {
                    polls += 1;
                    poll_write(cx, &ours, &all[at..], Then::More)
                })
                .await
                .unwrap();
                waited += polls - 1;
            }
            waited
        };
        let reading = async move {
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).await.unwrap();
            got
        };
        let (waited, got) = tokio::join!(writing, reading);
        assert!(waited > 0 && got == bytes);
    }

    #[tokio::test]
    async fn a_write_to_who_is_gone_fails_without_a_signal() {
        let (ours, theirs) = pair().await;
        drop(theirs);
        let failed = poll_fn(|cx| {
            loop {
                if let Err(error) = ready!(poll_write(cx, &ours, b"x", Then::More)) {
                    return Poll::Ready(error);
                }
            }
        });
        assert!(matches!(failed.await.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset));
    }

    #[tokio::test]
    async fn who_is_told_something_last_hears_it_though_much_of_what_it_said_was_not_read() {
        for unread in [0, 1, 4096, 100_000] {
            let (ours, mut theirs) = pair().await;
            theirs.write_all(&vec![0; unread]).await.unwrap();
            poll_fn(|cx| poll_write(cx, &ours, b"last", Then::More)).await.unwrap();
            let taken = discard(&ours, MOST_UNREAD);
            assert!(taken == unread || unread > 4096, "{taken} of {unread}");
            drop(ours);
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"last", "{unread}");
        }
    }

    #[tokio::test]
    async fn two_slices_are_one_text() {
        let (ours, mut theirs) = pair().await;
        let second: Vec<u8> = (0..8 << 20).map(|i| (i % 251) as u8).collect();
        let all = [b"first", &second[..]].concat();
        let writing = async {
            let mut at =
                poll_fn(|cx| poll_write_two(cx, &ours, b"first", &second, Then::More)).await.unwrap();
            while at < all.len() {
                at += poll_fn(|cx| poll_write_two(cx, &ours, &all[at..], &[], Then::End)).await.unwrap();
            }
            shut_down(&ours).unwrap();
        };
        let reading = async {
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).await.unwrap();
            got
        };
        let ((), got) = tokio::join!(writing, reading);
        assert!(got == all);
    }

    #[tokio::test]
    async fn what_comes_with_the_end_is_one_packet_whatever_was_not_read() {
        let (ours, mut theirs) = pair().await;
        theirs.write_all(b"more than is read").await.unwrap();
        poll_fn(|cx| ours.poll_read_ready(cx)).await.unwrap();
        assert_eq!(poll_fn(|cx| poll_write(cx, &ours, b"last", Then::End)).await.unwrap(), 4);
        let mut got = [0; 8];
        // Loopback delivers before send(2) returns.
        assert_eq!(sys::recv(theirs.as_fd(), &mut got), Err(Errno::EAGAIN));
        shut_down(&ours).unwrap();
        assert_eq!(sys::recv(theirs.as_fd(), &mut got), Ok(4));
        assert_eq!(sys::recv(theirs.as_fd(), &mut got), Ok(0));
        drop(ours);
        assert_eq!(&got[..4], b"last");
    }
}
