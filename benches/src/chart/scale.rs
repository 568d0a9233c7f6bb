//! Which value is where.

use super::Axis;
use crate::report::Summary;

/// Beyond these a value is as good as zero, and as this: arithmetic with it stays finite.
const SMALLEST: f64 = 1e-200;
const LARGEST: f64 = 1e200;

/// From values to places between two edges.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    axis: Axis,
    /// Values at the edges.
    from: f64,
    to: f64,
    /// Places of the edges.
    left: f64,
    right: f64,
}

impl Scale {
    /// One that has room for all of the ranges. The values are finite.
    pub(super) fn of(axis: Axis, ranges: impl Iterator<Item = Summary>, left: f64, right: f64) -> Self {
        let values: Vec<f64> = ranges
            .flat_map(|range| [range.min, range.median, range.max])
            .filter(|value| *value >= SMALLEST)
            .map(|value| value.min(LARGEST))
            .collect();
        let of = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick).unwrap_or(1.0);
        let to = of(f64::max);
        let from = match axis {
            Axis::Linear => 0.0,
            // The shortest bar is to be seen, too.
            Axis::Logarithmic => power(exponent(of(f64::min) / 1.5)),
        };
        Self { axis, from, to, left, right }
    }

    /// Where a value is; at the edge when it is beyond it.
    pub(super) fn x(&self, value: f64) -> f64 {
        let share = match self.axis {
            Axis::Linear => value / self.to,
            Axis::Logarithmic if value <= self.from => 0.0,
            Axis::Logarithmic => decades(self.from, value) / decades(self.from, self.to),
        };
        self.left + share.clamp(0.0, 1.0) * (self.right - self.left)
    }

    /// Round values and their places, as many as `room` leaves place for.
    pub(super) fn ticks(&self, room: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        let mut ticks = Vec::new();
        for candidate in 0..8 {
            ticks = match self.axis {
                Axis::Linear => self.steps(7.0 / f64::from(1 << candidate)),
                Axis::Logarithmic => self.decades(1 << candidate),
            };
            let apart = |pair: &[(f64, f64)]| {
                pair[1].1 - pair[0].1 >= f64::midpoint(room(pair[0].0), room(pair[1].0))
            };
            if ticks.windows(2).all(apart) {
                break;
            }
        }
        ticks
    }

    /// Multiples of 1, 2 or 5 times a power of ten, about `count` of them.
    fn steps(&self, count: f64) -> Vec<(f64, f64)> {
        let rough = self.to / count;
        let power = power(exponent(rough));
        let step = [1.0, 2.0, 5.0].map(|m| m * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let last = (self.to / step * 1.000_001).floor() as u32;
        (0..=last).map(|n| f64::from(n) * step).map(|value| (value, self.x(value))).collect()
    }

    /// Each `every`th power of ten.
    fn decades(&self, every: usize) -> Vec<(f64, f64)> {
        let powers = exponent(self.from * 1.000_001)..=exponent(self.to * 1.000_001);
        powers.step_by(every).map(power).map(|value| (value, self.x(value))).collect()
    }
}

/// So many powers of ten are from one value to another.
fn decades(from: f64, to: f64) -> f64 {
    to.log10() - from.log10()
}

/// The power of ten that is not above a value.
fn exponent(value: f64) -> i32 {
    value.log10().floor() as i32
}

fn power(exponent: i32) -> f64 {
    10f64.powi(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(axis: Axis, values: &[f64]) -> Scale {
        let ranges = values.iter().map(|&v| Summary { median: v, min: v, max: v });
        Scale::of(axis, ranges, 100.0, 500.0)
    }

    fn values(scale: &Scale, room: f64) -> Vec<f64> {
        scale.ticks(|_| room).into_iter().map(|(value, _)| value).collect()
    }

    #[test]
    fn a_linear_scale_starts_at_zero_and_ends_at_the_most() {
        let scale = of(Axis::Linear, &[12.0, 48.0]);
        assert_eq!([0.0, 12.0, 24.0, 48.0].map(|v| scale.x(v)), [100.0, 200.0, 300.0, 500.0]);
        assert_eq!(values(&scale, 40.0), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(values(&scale, 120.0), [0.0, 20.0, 40.0]);
        assert_eq!([-5.0, 99.0].map(|v| scale.x(v)), [100.0, 500.0]);
    }

    #[test]
    fn a_logarithmic_scale_has_as_much_for_each_decade() {
        let scale = of(Axis::Logarithmic, &[6.0, 30.0, 10_000.0]);
        assert_eq!(
            [1.0, 10.0, 100.0, 1000.0, 10_000.0].map(|v| scale.x(v)),
            [100.0, 200.0, 300.0, 400.0, 500.0]
        );
        assert_eq!(values(&scale, 40.0), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(values(&scale, 150.0), [1.0, 100.0, 10_000.0]);
        assert_eq!([0.0, -1.0, 0.5, 1e9].map(|v| scale.x(v)), [100.0, 100.0, 100.0, 500.0]);
        // The least is longer than nothing, and the most is the end.
        assert_eq!(values(&of(Axis::Logarithmic, &[10.0, 99.0]), 10.0), [1.0, 10.0]);
        assert_eq!(values(&of(Axis::Logarithmic, &[101.0]), 10.0), [10.0, 100.0]);
    }

    #[test]
    fn values_that_nobody_measures_have_a_place_and_no_tick_comes_over_another() {
        let odd = [0.0, -3.0, f64::MIN_POSITIVE, 5e-324, 1e-199, 1e-9, 1.0, 1e15, 1e199, f64::MAX];
        for axis in [Axis::Linear, Axis::Logarithmic] {
            for a in odd {
                for b in odd {
                    let scale = of(axis, &[a, b]);
                    let ticks = scale.ticks(|_| 90.0);
                    assert!(ticks.len() <= 5, "{a} {b}: {ticks:?}");
                    for x in [a, b].into_iter().map(|v| scale.x(v)).chain(ticks.iter().map(|t| t.1)) {
                        assert!((100.0..=500.001).contains(&x), "{axis:?} of {a} and {b}: {x}, {scale:?}");
                    }
                    assert!(
                        ticks.windows(2).all(|t| t[1].1 - t[0].1 >= 90.0),
                        "{axis:?} of {a} and {b}: {ticks:?}"
                    );
                }
            }
        }
    }
}
