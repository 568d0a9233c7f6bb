//! A clock that is set: what was to come in an hour may be over.

use std::time::{Duration, SystemTime};

use tokio::time::{self, Instant};

/// How often is looked.
const LOOK: Duration = Duration::from_secs(5);

/// By how much a clock may run fast or slow meanwhile.
const DRIFT: Duration = Duration::from_secs(60);

/// Sleeps for so long, or until the clock has been set by more than [`DRIFT`], or the machine was suspended: then it is true.
pub(super) async fn sleep(duration: Duration) -> bool {
    let (begun, clock) = (Instant::now(), SystemTime::now());
    loop {
        let left = duration.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return false;
        }
        time::sleep(left.min(LOOK)).await;
        if was_set(clock, SystemTime::now(), begun.elapsed()) {
            return true;
        }
    }
}

/// Whether a clock that stood at `before` stands at `now` by itself after so long.
fn was_set(before: SystemTime, now: SystemTime, after: Duration) -> bool {
    now.duration_since(before).map_or(true, |passed| passed.abs_diff(after) > DRIFT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_and_one_that_drifts_is_not() {
        let before = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let after = Duration::from_secs(3000);
        let at = |seconds: u64| was_set(before, before + Duration::from_secs(seconds), after);
        assert!(!at(3000) && !at(2941) && !at(3059));
        assert!(at(2900) && at(3100) && at(40 * 86_400));
        assert!(was_set(before, before - Duration::from_secs(1), Duration::from_secs(5)));
    }
}
