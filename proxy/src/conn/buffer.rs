//! Buffers that a worker lends out and takes back, so that carrying bytes allocates nothing in the steady state
//! and a connection that has nothing in flight holds no buffer.

use std::{
    cell::{Cell, RefCell},
    fmt, mem,
    rc::Rc,
};

/// Bytes in a [`Buffer`]: HAProxy's `tune.bufsize`, and large enough that a read is not the cost of a transfer.
pub const BUFFER_SIZE: usize = 16 * 1024;

/// Idle buffers that a pool keeps by default (1 MiB of them). Buffers are held only while bytes wait in them,
/// so this covers a worker whose members or clients are briefly slow; more are made and freed as needed.
const DEFAULT_KEEP: usize = 64;

/// A worker's pool of buffers; cloning shares it.
#[derive(Clone)]
pub struct BufferPool(Rc<Shelf>);

struct Shelf {
    idle: RefCell<Vec<Box<[u8]>>>,
    keep: usize,
    lent: Cell<usize>,
}

impl BufferPool {
    /// A pool that keeps at most `keep` idle buffers; what comes back beyond that is freed.
    pub fn new(keep: usize) -> Self {
        Self(Rc::new(Shelf { idle: RefCell::new(Vec::new()), keep, lent: Cell::new(0) }))
    }

    /// An empty buffer, recycled if there is one. Recycled buffers still have old bytes in their spare part:
    /// [`Buffer::spare`] is for writing only.
    #[inline]
    pub fn get(&self) -> Buffer {
        let bytes = self.0.idle.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER_SIZE].into_boxed_slice());
        self.0.lent.set(self.0.lent.get() + 1);
        Buffer { bytes, start: 0, end: 0, shelf: Rc::clone(&self.0) }
    }

    /// How many buffers wait to be lent.
    pub fn idle(&self) -> usize {
        self.0.idle.borrow().len()
    }

    /// How many buffers are lent.
    pub fn lent(&self) -> usize {
        self.0.lent.get()
    }
}

impl Default for BufferPool {
    fn default() -> Self {
        Self::new(DEFAULT_KEEP)
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool").field("idle", &self.idle()).field("lent", &self.lent()).finish()
    }
}

/// [`BUFFER_SIZE`] bytes in three parts: consumed, filled, spare. Bytes are put into the spare part and
/// [committed](Self::commit), then read from the filled part and [consumed](Self::consume). Dropping it gives it
/// back to its pool.
pub struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    shelf: Rc<Shelf>,
}

impl Buffer {
    /// The bytes committed and not yet consumed.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Where the next bytes go; empty when the buffer [is full](Self::is_full).
    #[inline]
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    /// Makes the first `n` bytes of the spare part filled.
    ///
    /// # Panics
    /// When the spare part is shorter.
    #[inline]
    pub fn commit(&mut self, n: usize) {
        assert!(n <= self.bytes.len() - self.end, "committed more bytes than the buffer has room for");
        self.end += n;
    }

    /// Drops the first `n` filled bytes. When none is left, all of the buffer is spare again.
    ///
    /// # Panics
    /// When fewer are filled.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len(), "consumed more bytes than the buffer holds");
        self.start += n;
        if self.start == self.end {
            self.clear();
        }
    }

    /// Moves the filled bytes to the front, so that what was consumed becomes spare.
    #[inline]
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Drops all filled bytes.
    #[inline]
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Appends as much of `data` as fits and says how much that was.
    pub fn put(&mut self, data: &[u8]) -> usize {
        let spare = self.spare();
        let n = spare.len().min(data.len());
        spare[..n].copy_from_slice(&data[..n]);
        self.commit(n);
        n
    }

    /// How many bytes are filled.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether no byte is filled.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether there is no spare part; [`compact`](Self::compact) may make one.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.end == self.bytes.len()
    }

    /// [`BUFFER_SIZE`].
    #[inline]
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        self.shelf.lent.set(self.shelf.lent.get() - 1);
        let mut idle = self.shelf.idle.borrow_mut();
        if idle.len() < self.shelf.keep {
            idle.push(mem::take(&mut self.bytes));
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("start", &self.start).field("end", &self.end).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_idle_buffer_is_lent_again_and_the_pool_stays_bounded() {
        let pool = BufferPool::new(2);
        let address = pool.get().filled().as_ptr();
        assert_eq!((pool.idle(), pool.lent()), (1, 0));
        let again = pool.get();
        assert_eq!(again.filled().as_ptr(), address);
        assert_eq!((pool.idle(), pool.lent()), (0, 1));

        let many: Vec<_> = (0..5).map(|_| pool.get()).collect();
        assert_eq!(pool.lent(), 6);
        drop(many);
        drop(again);
        assert_eq!((pool.idle(), pool.lent()), (2, 0));
    }

    #[test]
    fn a_recycled_buffer_is_empty() {
        let pool = BufferPool::default();
        assert_eq!(pool.get().put(b"left over"), 9);
        assert!(pool.get().is_empty());
    }

    #[test]
    fn a_buffer_outlives_its_pool() {
        let pool = BufferPool::default();
        let mut buffer = pool.get();
        drop(pool);
        assert_eq!(buffer.put(b"x"), 1);
    }

    proptest! {
        /// Whatever the order of operations, bytes come out as they went in.
        #[test]
        fn is_a_queue(steps in proptest::collection::vec((0..4u8, 0..9000usize), 0..40)) {
            let mut buffer = BufferPool::new(0).get();
            let mut model = std::collections::VecDeque::new();
            let mut next = 0u8;
            for (step, n) in steps {
                match step {
                    0 | 1 => {
                        let n = n.min(buffer.spare().len());
                        for byte in &mut buffer.spare()[..n] {
                            *byte = next;
                            model.push_back(next);
                            next = next.wrapping_add(1);
                        }
                        buffer.commit(n);
                    }
                    2 => {
                        let n = n.min(buffer.len());
                        buffer.consume(n);
                        model.drain(..n);
                    }
                    _ => {
                        buffer.compact();
                        prop_assert_eq!(buffer.spare().len(), BUFFER_SIZE - model.len());
                    }
                }
                prop_assert!(buffer.filled().iter().eq(model.iter()));
                prop_assert_eq!(buffer.is_empty(), model.is_empty());
            }
        }
    }
}
