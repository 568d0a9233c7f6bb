//! When an authority is exchanged for the next one. No I/O and no memory: whoever is killed on the way begins here again.
//!
//! First everybody is told to trust both, then the next one issues, and once all that the previous one has issued is replaced, nobody trusts
//! that one any more. What has not been told until late cannot be reached, and is replaced.

use time::{Duration, OffsetDateTime};

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// When the authority that issues ends.
    pub ends: OffsetDateTime,
    /// There is one that is to follow it.
    pub next: bool,
    /// There is one that it has followed, and that is trusted still.
    pub previous: bool,
    /// Every amphora has been told whom to trust, and has a certificate of the one that issues.
    pub told: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until time has passed or amphorae have been told.
    Wait,
    /// The next one is made: all are told to trust it as well.
    Prepare,
    /// The next one issues from now on: all are given other certificates.
    Promote,
    /// The previous one is trusted no more: all are told.
    Drop,
    /// Those that have not been told are replaced.
    Replace,
}

/// What is to be done next. `buffer` is how long before its end an authority is exchanged.
pub fn next(view: View, now: OffsetDateTime, buffer: Duration) -> Step {
    let left = view.ends - now;
    match view {
        View { next: true, told: true, .. } => Step::Promote,
        // Nobody trusts it any more.
        View { next: true, .. } if left <= Duration::ZERO => Step::Promote,
        View { next: true, .. } if left < buffer / 4 => Step::Replace,
        View { next: true, .. } => Step::Wait,
        View { previous: true, told: true, .. } => Step::Drop,
        View { previous: true, .. } if left >= buffer => Step::Wait,
        // Also where the last exchange has not come to its end.
        _ if left < buffer => Step::Prepare,
        _ => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_step_follows_the_other_when_all_have_been_told() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(1000);
        let buffer = Duration::days(14);
        let step = |days: i64, next: bool, previous: bool, told: bool| {
            super::next(View { ends: now + Duration::days(days), next, previous, told }, now, buffer)
        };
        assert_eq!(step(15, false, false, true), Step::Wait);
        assert_eq!(step(13, false, false, false), Step::Prepare);
        assert_eq!(step(13, true, false, false), Step::Wait);
        assert_eq!(step(13, true, false, true), Step::Promote);
        assert_eq!(step(3, true, false, false), Step::Replace);
        assert_eq!(step(-1, true, false, false), Step::Promote, "serve was away");
        assert_eq!(step(-1, false, false, true), Step::Prepare);
        assert_eq!(step(100, false, true, false), Step::Wait);
        assert_eq!(step(100, false, true, true), Step::Drop);
        assert_eq!(step(13, false, true, false), Step::Prepare, "validity is shorter than an exchange takes");
    }
}
