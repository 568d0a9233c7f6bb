//! A queue in which there is mostly one, or none: memory is allocated for those beyond the first alone.

use std::collections::VecDeque;

/// First in, first out.
#[derive(Debug)]
pub(super) struct Few<T> {
    /// There is one if there are any.
    first: Option<T>,
    rest: VecDeque<T>,
}

impl<T> Few<T> {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self { first: None, rest: VecDeque::new() }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[inline]
    pub(super) fn push(&mut self, item: T) {
        match self.first {
            None => self.first = Some(item),
            Some(_) => self.rest.push_back(item),
        }
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        let first = self.first.take();
        self.first = self.rest.pop_front();
        first
    }

    pub(super) fn clear(&mut self) {
        self.first = None;
        self.rest.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_in_order_and_one_takes_no_memory() {
        let mut few = Few::new();
        assert_eq!((few.is_empty(), few.pop()), (true, None));
        few.push(1);
        assert_eq!((few.is_empty(), few.rest.capacity()), (false, 0));
        few.push(2);
        few.push(3);
        assert_eq!((few.pop(), few.pop()), (Some(1), Some(2)));
        few.push(4);
        assert_eq!((few.pop(), few.is_empty(), few.pop(), few.pop()), (Some(3), false, Some(4), None));
        few.push(5);
        few.push(6);
        few.clear();
        assert_eq!((few.is_empty(), few.pop()), (true, None));
    }
}
