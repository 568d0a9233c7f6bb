//! Bodies that members have sent and clients have not taken: what they are held back with when that is too much.

use std::cell::Cell;

use crate::conn::BUFFER_SIZE;

/// SETTINGS_INITIAL_WINDOW_SIZE while too much is held: what a stream takes then is what the [bound on
/// clients](crate::limits) reckons with.
const NARROW: u32 = BUFFER_SIZE as u32;

/// Bytes of bodies that the members of one worker have sent with HTTP/2, and that were not written onwards.
///
/// Streams have wide windows, because clients mostly read. Those that do not, on thousands of streams, would make the proxy hold more
/// than it has: when `bound` is reached, the windows of all streams, those that there are included (RFC 9113 section
/// 6.9.2), become those of one buffer, until no more than half of the bound is held.
#[derive(Debug)]
pub struct Backlog {
    bytes: Cell<usize>,
    bound: usize,
    narrow: Cell<bool>,
}

impl Backlog {
    /// Nothing is held yet.
    pub fn new(bound: usize) -> Self {
        Self { bytes: Cell::new(0), bound, narrow: Cell::new(false) }
    }

    /// What is held, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// So much has come.
    pub(in crate::http2) fn add(&self, bytes: usize) {
        self.set(self.bytes.get() + bytes);
    }

    /// So much was written onwards, or is not wanted any more.
    pub(in crate::http2) fn take(&self, bytes: usize) {
        self.set(self.bytes.get() - bytes);
    }

    fn set(&self, bytes: usize) {
        self.bytes.set(bytes);
        if bytes >= self.bound {
            self.narrow.set(true);
        } else if bytes <= self.bound / 2 {
            self.narrow.set(false);
        }
    }

    /// What the window of a stream should be, which is `wide` when there is room.
    pub(super) fn window(&self, wide: u32) -> u32 {
        if self.narrow.get() { wide.min(NARROW) } else { wide }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_narrow_from_the_bound_on_until_half_of_it_has_gone() {
        let backlog = Backlog::new(1000);
        let windows = |backlog: &Backlog| [backlog.window(65_536), backlog.window(100)];
        backlog.add(999);
        assert_eq!(windows(&backlog), [65_536, 100]);
        backlog.add(1);
        assert_eq!(windows(&backlog), [NARROW, 100]);
        backlog.take(499);
        assert_eq!(windows(&backlog), [NARROW, 100]);
        backlog.take(1);
        assert_eq!(windows(&backlog), [65_536, 100]);
        backlog.take(500);
        assert_eq!(backlog.bytes(), 0);
    }
}
