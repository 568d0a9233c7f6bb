//! Rates, from counters that the control thread looks at about once a second: requests pay nothing for them.

use std::time::Duration;

use super::Counter;

/// How fast a counter grows, per second. Written by the control thread alone.
#[derive(Debug, Default)]
pub struct Rate {
    seen: Counter,
    per_second: Counter,
    highest: Counter,
}

impl Rate {
    /// Takes the counter's value, `elapsed` after the last one was taken; says by how much it has grown. A counter that
    /// was not looked at before has grown from zero.
    pub fn sample(&self, value: u64, elapsed: Duration) -> u64 {
        let grown = value.saturating_sub(self.seen.get());
        self.seen.set(value);
        self.grown(grown, elapsed);
        grown
    }

    /// Takes by how much the counter has grown in the time `elapsed`.
    pub fn grown(&self, grown: u64, elapsed: Duration) {
        let micros = elapsed.as_micros().max(1);
        let rate = (u128::from(grown) * 1_000_000 + micros / 2) / micros;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        self.per_second.set(rate);
        self.highest.max(rate);
    }

    /// Per second, between the last two looks, to the nearest whole number.
    pub fn per_second(&self) -> u64 {
        self.per_second.get()
    }

    /// The highest that [`per_second`](Self::per_second) has been.
    pub fn highest(&self) -> u64 {
        self.highest.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_growth_over_time_and_its_maximum_stays() {
        let rate = Rate::default();
        let second = Duration::from_secs(1);
        assert_eq!(rate.sample(100, second), 100);
        assert_eq!((rate.per_second(), rate.highest()), (100, 100));
        // A look that comes late sees more, in more time.
        assert_eq!(rate.sample(400, second * 2), 300);
        assert_eq!((rate.per_second(), rate.highest()), (150, 150));
        rate.sample(400, second);
        assert_eq!((rate.per_second(), rate.highest()), (0, 150));
        // Slightly late is not slightly less.
        rate.sample(407, Duration::from_millis(1003));
        assert_eq!(rate.per_second(), 7);
        rate.sample(u64::MAX, Duration::ZERO);
        assert_eq!(rate.highest(), u64::MAX);
    }
}
