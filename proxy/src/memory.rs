//! Memory that a burst of connections or a large configuration has left behind goes back to the system.
//!
//! The allocator keeps what is freed between allocations that live on, and that is nearly all of it: a worker's lasting
//! allocations are spread among those of its sessions. It is asked for it once a burst is over, from the control thread,
//! so that no request pays for it and traffic that comes and goes by the second finds its memory still there.

use crate::sys;

/// A burst has at least so many connections more than what is left of it; below that it is not worth the work.
const BURST: u64 = 500;

/// For so many looks in a row it must be over.
const CALM: u32 = 5;

/// Sees when a burst is over. To be told the number of connections once a second; one that comes and goes between two
/// looks is not seen.
#[derive(Debug, Default)]
pub struct Bursts {
    highest: u64,
    calm: u32,
}

impl Bursts {
    /// Whether a burst has been over for some seconds: so many connections are open now.
    pub fn is_over(&mut self, connections: u64) -> bool {
        self.highest = self.highest.max(connections);
        // Half of it, or a busy proxy would never be left in peace.
        if self.highest - connections < BURST.max(self.highest / 2) {
            self.calm = 0;
            return false;
        }
        self.calm += 1;
        if self.calm < CALM {
            return false;
        }
        *self = Self { highest: connections, calm: 0 };
        true
    }
}

/// What a change must have left behind to be looked for: it takes a while, in which allocations may have to wait.
const LEFT_BEHIND: usize = 8 * 1024 * 1024;

/// Whether a configuration of so many bytes that has gone leaves enough behind once the present one has taken its place.
pub fn is_worth_it(left: usize, stays: usize) -> bool {
    left.saturating_sub(stays) >= LEFT_BEHIND
}

/// Gives back what the allocator keeps and nobody uses; false when there was nothing, or when this allocator cannot.
pub fn give_back() -> bool {
    sys::trim_heap()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of these numbers, seen once a second, says that a burst is over.
    fn over(numbers: &[u64]) -> Vec<usize> {
        let mut bursts = Bursts::default();
        (0..numbers.len()).filter(|&at| bursts.is_over(numbers[at])).collect()
    }

    #[test]
    fn a_burst_is_over_once() {
        assert_eq!(over(&[0, 10, 2000, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10]), [7]);
        assert_eq!(over(&[900, 200, 100, 50, 20, 0, 0, 0, 0, 0, 0, 0, 0]), [5]);
    }

    #[test]
    fn little_and_what_comes_back_is_left_alone() {
        assert_eq!(over(&[400, 0, 0, 0, 0, 0, 0, 0, 0]), [0; 0]);
        assert_eq!(over(&[10_000, 6000, 6000, 6000, 6000, 6000, 6000, 6000]), [0; 0]);
        assert_eq!(over(&[2000, 0, 0, 0, 0, 2000, 0, 0, 0, 0, 2000, 0, 0, 0, 0]), [0; 0]);
    }

    #[test]
    fn the_next_burst_counts_from_what_was_left() {
        assert_eq!(over(&[3000, 1000, 1000, 1000, 1000, 1000, 400, 0, 0, 0, 0, 0]), [5, 10]);
    }

    #[test]
    fn a_configuration_that_goes_is_looked_for_when_there_was_much_of_it() {
        assert!(is_worth_it(64 << 20, 10_000));
        assert!(
            !is_worth_it(10_000, 64 << 20) && !is_worth_it(64 << 20, 64 << 20) && !is_worth_it(1 << 20, 0)
        );
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_is_freed_between_what_lives_is_given_back() {
        let resident = || {
            let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
            pages.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or_default() * 4096
        };
        // Too small to be mapped on their own, as what belongs to a session is.
        let mut sessions: Vec<_> = (0..4000).map(|n| Some(vec![1u8; 16 * 1024 + n % 7])).collect();
        let full = resident();
        sessions.iter_mut().enumerate().filter(|(n, _)| n % 10 > 0).for_each(|(_, session)| *session = None);
        let before = resident();
        assert!(give_back());
        let after = resident();
        assert!(after + (32 << 20) < before, "{full} {before} {after}");
    }
}
