//! Latencies in buckets of at most 1 % width: constant memory, a few instructions per value.

use std::time::Duration;

/// Buckets per power of two.
const SUB: u64 = 128;
const SUB_BITS: u32 = SUB.trailing_zeros();

/// Counts of durations, in nanoseconds, in buckets of at most 1/128 of their value.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; index(u64::MAX) + 1], count: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, value: Duration) {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[index(nanos)] += 1;
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    /// Counts all that another has counted.
    pub fn add(&mut self, other: &Self) {
        for (here, there) in self.buckets.iter_mut().zip(&other.buckets) {
            *here += there;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest value, exactly; zero when nothing was counted.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// The value that a share `q` (0 to 1) of all values does not exceed, up to the width of its bucket; zero when
    /// nothing was counted.
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = ((self.count as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return Duration::from_nanos(upper(i).min(self.max));
            }
        }
        Duration::from_nanos(self.max)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
        self.max = 0;
    }
}

/// The bucket of a value: exact below 2 * [`SUB`], then [`SUB`] buckets per power of two.
fn index(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
    (u64::from(shift) * SUB + (value >> shift)) as usize
}

/// The largest value of a bucket.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index / SUB).saturating_sub(1);
    let mantissa = index - shift * SUB;
    (mantissa << shift) | ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_within_its_bucket() {
        for shift in 0..64u32 {
            for offset in [0u64, 1, 77] {
                let value = (1u64 << shift).saturating_add(offset << shift.saturating_sub(8));
                let i = index(value);
                assert!(value <= upper(i), "{value}");
                assert!(i == 0 || value > upper(i - 1), "{value}");
                assert!(upper(i) - value <= value / SUB, "{value}");
            }
        }
    }

    #[test]
    fn quantiles_of_a_ramp() {
        let mut h = Histogram::default();
        for us in 1..=1000 {
            h.record(Duration::from_micros(us));
        }
        let p50 = h.quantile(0.5).as_micros();
        assert!((495..=505).contains(&p50), "{p50}");
        let p99 = h.quantile(0.99).as_micros();
        assert!((980..=1000).contains(&p99), "{p99}");
        assert_eq!(h.quantile(1.0), Duration::from_millis(1));
        let mut sum = Histogram::default();
        sum.record(Duration::from_millis(2));
        sum.add(&h);
        assert_eq!((sum.count(), sum.max()), (1001, Duration::from_millis(2)));
        assert_eq!(sum.quantile(0.5), h.quantile(0.5));
        h.clear();
        assert_eq!(h.quantile(0.99), Duration::ZERO);
    }
}
