//! Pipes that a worker lends out and takes back, through which splice(2) moves bytes between sockets without
//! copying them.

use std::{
    cell::{Cell, RefCell},
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

use nix::{
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::pipe2,
};

/// Bytes that a pipe is asked to hold: the kernel's default for `fs.pipe-max-size`, what any user may ask for.
pub const PIPE_SIZE: usize = 1 << 20;

/// The least that makes a pipe worth having: the kernel's default size. Beyond `fs.pipe-user-pages-soft` a user
/// gets pipes of two pages, through which splicing is slower than copying.
const LEAST_SIZE: usize = 64 << 10;

/// Idle pipes that a pool keeps by default: a pipe is lent only while it holds bytes, so a few serve many
/// sessions. An idle pipe costs two descriptors and no buffer memory.
const DEFAULT_KEEP: usize = 32;

/// Pipes that a pool lends at once by default. Sessions beyond that copy: kernel memory in pipes stays below
/// 128 MiB for a worker even when each of them waits for a peer that does not read.
const DEFAULT_LIMIT: usize = 128;

/// Requests that the pool turns down without asking the kernel again, after the kernel refused a pipe.
const BACK_OFF: usize = 1024;

/// A worker's pool of pipes; cloning shares it.
#[derive(Clone)]
pub struct PipePool(Rc<Shelf>);

struct Shelf {
    idle: RefCell<Vec<Ends>>,
    keep: usize,
    limit: usize,
    lent: Cell<usize>,
    back_off: Cell<usize>,
}

struct Ends {
    reader: OwnedFd,
    writer: OwnedFd,
    capacity: usize,
}

impl PipePool {
    /// A pool that lends at most `limit` pipes at once and keeps at most `keep` idle ones. A pipe is made when none is idle:
    /// there are never more than `limit`.
    pub fn new(keep: usize, limit: usize) -> Self {
        Self(Rc::new(Shelf {
            idle: RefCell::new(Vec::new()),
            keep,
            limit,
            lent: Cell::new(0),
            back_off: Cell::new(0),
        }))
    }

    /// One of the default size, or smaller: there are at most `pipes` altogether, of two descriptors each.
    pub fn at_most(pipes: usize) -> Self {
        Self::new(DEFAULT_KEEP.min(pipes), DEFAULT_LIMIT.min(pipes))
    }

    /// An empty pipe. `None` when `limit` are lent or the kernel has none to give (descriptors,
    /// `fs.pipe-user-pages-soft`): the caller copies instead.
    #[inline]
    pub fn get(&self) -> Option<Pipe> {
        let shelf = &self.0;
        if shelf.lent.get() >= shelf.limit {
            return None;
        }
        let idle = shelf.idle.borrow_mut().pop();
        let ends = match idle {
            Some(ends) => ends,
            None => self.make()?,
        };
        shelf.lent.set(shelf.lent.get() + 1);
        Some(Pipe { ends: Some(ends), held: 0, shelf: Rc::clone(shelf) })
    }

    #[cold]
    fn make(&self) -> Option<Ends> {
        let back_off = &self.0.back_off;
        if back_off.get() > 0 {
            back_off.set(back_off.get() - 1);
            return None;
        }
        let ends = make_pipe().ok().filter(|ends| ends.capacity >= LEAST_SIZE);
        if ends.is_none() {
            back_off.set(BACK_OFF);
        }
        ends
    }

    /// How many pipes wait to be lent.
    pub fn idle(&self) -> usize {
        self.0.idle.borrow().len()
    }

    /// How many pipes are lent.
    pub fn lent(&self) -> usize {
        self.0.lent.get()
    }
}

impl Default for PipePool {
    fn default() -> Self {
        Self::new(DEFAULT_KEEP, DEFAULT_LIMIT)
    }
}

impl fmt::Debug for PipePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipePool").field("idle", &self.idle()).field("lent", &self.lent()).finish()
    }
}

fn make_pipe() -> nix::Result<Ends> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // Past the soft limit a larger pipe is refused with EPERM; the one there is may still do.
    let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE as i32));
    let capacity = fcntl(&writer, FcntlArg::F_GETPIPE_SZ)?;
    Ok(Ends { reader, writer, capacity: usize::try_from(capacity).unwrap_or(0) })
}

/// A pipe, on loan. Dropping it gives it back to its pool; one that still holds bytes is closed instead, so that
/// no session ever sees another's bytes.
pub struct Pipe {
    /// `None` only while it is being dropped.
    ends: Option<Ends>,
    held: usize,
    shelf: Rc<Shelf>,
}

impl Pipe {
    /// Moves up to `max` bytes from a socket into the pipe, without blocking. 0 is the end of the stream.
    ///
    /// # Errors
    /// What splice(2) says. `WouldBlock` means that the socket has nothing to read *if the pipe was empty*; with
    /// bytes in it, it may be the pipe that has no room, however few the bytes are: each fragment of a packet
    /// takes a slot.
    #[inline]
    pub fn fill_from(&mut self, source: impl AsFd, max: usize) -> io::Result<usize> {
        let n = splice(source, None, &self.ends().writer, None, max, flags())?;
        self.held += n;
        Ok(n)
    }

    /// Moves bytes out of the pipe into a socket, as many as it takes without blocking.
    ///
    /// # Errors
    /// What splice(2) says. `WouldBlock` with bytes in the pipe means that the socket takes none.
    #[inline]
    pub fn drain_to(&mut self, destination: impl AsFd) -> io::Result<usize> {
        let n = splice(&self.ends().reader, None, destination, None, self.held, flags())?;
        self.held -= n;
        Ok(n)
    }

    /// How many bytes are in the pipe.
    #[inline]
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether the pipe holds no byte.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// How many bytes fit, if they come in whole pages.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.ends().capacity
    }

    #[inline]
    fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("taken only by drop")
    }
}

impl Drop for Pipe {
    #[inline]
    fn drop(&mut self) {
        self.shelf.lent.set(self.shelf.lent.get() - 1);
        let mut idle = self.shelf.idle.borrow_mut();
        if self.held == 0 && idle.len() < self.shelf.keep {
            idle.extend(self.ends.take());
        }
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").field("held", &self.held).finish_non_exhaustive()
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    fn nonblocking_pair() -> (UnixStream, UnixStream) {
        let (a, b) = UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        b.set_nonblocking(true).unwrap();
        (a, b)
    }

    #[test]
    fn bytes_pass_and_the_pipe_comes_back() {
        let pool = PipePool::default();
        let (mut from, source) = nonblocking_pair();
        let (destination, mut to) = nonblocking_pair();
        let mut pipe = pool.get().unwrap();
        assert!(pipe.capacity() >= LEAST_SIZE);

        assert_eq!(pipe.fill_from(&source, 100).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        from.write_all(b"hello").unwrap();
        assert_eq!(pipe.fill_from(&source, 3).unwrap(), 3);
        assert_eq!(pipe.len(), 3);
        assert_eq!(pipe.drain_to(&destination).unwrap(), 3);
        assert!(pipe.is_empty());
        let mut got = [0; 8];
        assert_eq!(to.read(&mut got).unwrap(), 3);
        assert_eq!(&got[..3], b"hel");

        drop(pipe);
        assert_eq!((pool.idle(), pool.lent()), (1, 0));
        drop(pool.get().unwrap());
        assert_eq!(pool.idle(), 1, "the idle one was lent again");
    }

    #[test]
    fn a_pipe_that_holds_bytes_is_closed_not_kept() {
        let pool = PipePool::default();
        let (mut from, source) = nonblocking_pair();
        let mut pipe = pool.get().unwrap();
        from.write_all(b"secret").unwrap();
        pipe.fill_from(&source, 100).unwrap();
        drop(pipe);
        assert_eq!((pool.idle(), pool.lent()), (0, 0));
    }

    #[test]
    fn lends_no_more_than_its_limit_and_keeps_no_more_than_it_may() {
        let pool = PipePool::at_most(0);
        assert!(pool.get().is_none(), "none is made");
        let pool = PipePool::new(1, 2);
        let pipes = (pool.get().unwrap(), pool.get().unwrap());
        assert!(pool.get().is_none());
        drop(pipes);
        assert_eq!(pool.idle(), 1);
        assert!(pool.get().is_some());
    }
}
