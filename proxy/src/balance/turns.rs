//! Which of a few that share by weight is next, such that nobody's share is ever off by one.
//!
//! After any number of choices among the same, each was chosen its share of them, rounded up or down: Tijdeman's solution of
//! the chairman assignment problem (Discrete Mathematics 32, 1980). Of those that are owed enough, the one goes first that would
//! be owed too much soonest. (Smooth weighted round robin has no such bound for more than two.)

use std::sync::atomic::{AtomicI32, Ordering};

/// What each of them is owed: its weight for every choice, less the sum of all weights when it was chosen. One thread chooses.
#[derive(Debug)]
pub struct Turns(Box<[AtomicI32]>);

impl Turns {
    /// For so many, of which none was chosen.
    pub fn new(shares: usize) -> Self {
        Self((0..shares).map(|_| AtomicI32::new(0)).collect())
    }

    /// The next of those that have a weight and are `able`; `None` when there are none.
    pub fn next(&self, weight: impl Fn(usize) -> u16, able: impl Fn(usize) -> bool) -> Option<usize> {
        let (mut count, mut total) = (0, 0);
        for (index, owed) in self.0.iter().enumerate() {
            let weight = i32::from(weight(index));
            if weight > 0 && able(index) {
                owed.store(owed.load(Ordering::Relaxed) + weight, Ordering::Relaxed);
                (count, total) = (count + 1, total + weight);
            } else {
                owed.store(0, Ordering::Relaxed);
            }
        }
        let scale = (2 * count - 2).max(1);
        let mut best: Option<(usize, bool, i64, i64)> = None;
        for (index, owed) in self.0.iter().enumerate() {
            let weight = i64::from(weight(index));
            if weight == 0 || !able(index) {
                continue;
            }
            let owed = i64::from(owed.load(Ordering::Relaxed)) * scale;
            let due = owed >= i64::from(total);
            let left = (scale - 1) * i64::from(total) - owed;
            let is_first = best.is_none_or(|(_, other_due, other_left, other_weight)| {
                (due, other_left * weight) > (other_due, left * other_weight)
            });
            if is_first {
                best = Some((index, due, left, weight));
            }
        }
        let (index, ..) = best?;
        let owed = &self.0[index];
        owed.store(owed.load(Ordering::Relaxed) - total, Ordering::Relaxed);
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use amphora_model::arbitrary::Generator;

    use super::*;

    #[test]
    fn no_share_is_ever_off_by_one() {
        for seed in 0..300 {
            let mut dice = Generator::new(seed);
            let count = dice.within(1..=16);
            let mut weights: Vec<u16> = (0..count).map(|_| dice.within(0..=256) as u16).collect();
            weights[0] = weights[0].max(1);
            let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
            let turns = Turns::new(count);
            let mut chosen = vec![0_i64; count];
            for n in 1..=2000_i64 {
                chosen[turns.next(|i| weights[i], |_| true).unwrap()] += 1;
                for (weight, chosen) in weights.iter().zip(&chosen) {
                    let off = n * i64::from(*weight) - chosen * total;
                    assert!(off.abs() < total, "seed {seed}: {weights:?}, {n} choices, {chosen:?}");
                }
            }
        }
    }

    #[test]
    fn the_share_of_who_is_not_able_goes_to_the_others() {
        let (weights, turns) = ([2, 1, 1], Turns::new(3));
        let counts = |able: &dyn Fn(usize) -> bool| {
            let mut chosen = [0; 3];
            (0..300).for_each(|_| chosen[turns.next(|i| weights[i], able).unwrap()] += 1);
            chosen
        };
        assert_eq!(counts(&|_| true), [150, 75, 75]);
        assert_eq!(counts(&|i| i != 0), [0, 150, 150]);
        assert_eq!(counts(&|i| i == 2), [0, 0, 300]);
        assert_eq!(counts(&|_| true), [150, 75, 75]);
        assert_eq!(turns.next(|i| weights[i], |_| false), None);
        assert_eq!(turns.next(|_| 0, |_| true), None);
    }
}
