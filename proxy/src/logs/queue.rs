//! Lines on their way, without a socket and without a clock: a bounded number of them in one piece of memory.

use std::collections::VecDeque;

use super::line::MAX_LINE;

/// Bytes that wait, at most. A line that would exceed them is dropped; the oldest are not, for what is sent is in order.
const MOST_BYTES: usize = 512 * 1024;
/// What is kept when nothing waits, so that the next lines need no memory.
const KEEP_BYTES: usize = 32 * 1024;

/// Lines that wait, each with its head and its line feed: datagrams.
#[derive(Debug, Default)]
pub struct Queue {
    bytes: Vec<u8>,
    /// Where each line ends.
    ends: VecDeque<usize>,
    /// Where the first begins.
    start: usize,
}

impl Queue {
    /// Whether another line may be put behind.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.bytes.len() - self.start <= MOST_BYTES - (MAX_LINE + 1)
    }

    /// How many lines wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether none does.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Puts a line behind: `write` appends it. What is beyond [`MAX_LINE`] bytes is cut off, and a line feed follows.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.start > 0 && self.bytes.len() + MAX_LINE >= self.bytes.capacity() {
            self.close_up();
        }
        let from = self.bytes.len();
        write(&mut self.bytes);
        self.bytes.truncate(from + MAX_LINE);
        self.bytes.push(b'\n');
        self.ends.push_back(self.bytes.len());
    }

    /// The lines in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(self.start).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    /// The first `lines` have gone.
    pub fn pop(&mut self, lines: usize) {
        if let Some(end) = self.ends.drain(..lines.min(self.ends.len())).next_back() {
            self.start = end;
        }
        if self.ends.is_empty() {
            self.start = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEEP_BYTES {
                self.bytes = Vec::new();
                self.ends = VecDeque::new();
            }
        }
    }

    /// Moves what waits to the beginning of the memory.
    fn close_up(&mut self) {
        self.bytes.drain(..self.start);
        self.ends.iter_mut().for_each(|end| *end -= self.start);
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn line(number: usize, length: usize) -> Vec<u8> {
        format!("{number:04}").bytes().cycle().take(length).collect()
    }

    #[test]
    fn a_line_is_cut_off_and_ends() {
        let mut queue = Queue::default();
        queue.push(|out| out.extend(line(1, 5000)));
        queue.push(|out| out.extend(b"<134>a"));
        let lines: Vec<_> = queue.iter().collect();
        assert_eq!(lines[0].len(), MAX_LINE + 1);
        assert_eq!(lines[1], b"<134>a\n");
        assert!(lines[0].ends_with(b"\n"));
    }

    #[test]
    fn it_is_bounded_and_keeps_little() {
        let mut queue = Queue::default();
        let mut lines = 0;
        while queue.has_room() {
            queue.push(|out| out.extend(line(lines, 1024)));
            lines += 1;
        }
        assert_eq!(lines, MOST_BYTES / (MAX_LINE + 1));
        queue.pop(1);
        assert!(queue.has_room());
        queue.pop(lines);
        assert!(queue.is_empty() && queue.bytes.capacity() <= KEEP_BYTES);
        assert_eq!(queue.iter().count(), 0);
    }

    proptest! {
        /// Whatever comes and goes, what waits is what has come and not gone, in order.
        #[test]
        fn it_is_a_queue(steps in proptest::collection::vec((any::<bool>(), 0..600usize), 0..400)) {
            let (mut queue, mut model) = (Queue::default(), VecDeque::new());
            for (number, (push, size)) in steps.into_iter().enumerate() {
                if push {
                    if queue.has_room() {
                        queue.push(|out| out.extend(line(number, size)));
                        let mut expected = line(number, size);
                        expected.push(b'\n');
                        model.push_back(expected);
                    }
                } else {
                    queue.pop(size / 60);
                    model.drain(..(size / 60).min(model.len()));
                }
                prop_assert_eq!(queue.len(), model.len());
            }
            prop_assert!(queue.iter().eq(model.iter().map(|line| &line[..])));
        }
    }
}
