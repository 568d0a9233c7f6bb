//! What became of members and pools since they are known: when their state changed last, and how long they were down.
//! The control thread's alone; workers never look in here.

use std::time::{Duration, Instant};

use super::CheckState;

/// A member's state in HAProxy's words, from what is configured and what its checks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberStatus {
    /// Its checks fail.
    Down,
    /// It may be given new sessions.
    Up,
    /// `admin_state_up` is false.
    Maint,
    /// Its weight is 0: it keeps the sessions that are its own.
    Drain,
}

impl MemberStatus {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Down, Self::Up, Self::Maint, Self::Drain];

    /// The state of a member with this configuration and health.
    pub fn of(admin_state_up: bool, weight: u16, check: CheckState) -> Self {
        if !admin_state_up {
            Self::Maint
        } else if !check.is_up() {
            Self::Down
        } else if weight == 0 {
            Self::Drain
        } else {
            Self::Up
        }
    }

    /// HAProxy's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Down => "DOWN",
            Self::Up => "UP",
            Self::Maint => "MAINT",
            Self::Drain => "DRAIN",
        }
    }

    /// Whether HAProxy counts the time in this state as downtime: the server is stopped.
    fn is_stopped(self) -> bool {
        matches!(self, Self::Down | Self::Maint)
    }
}

/// What a history says at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Checks that failed, apart from those of a member that was down already (HAProxy `chkfail`); 0 for a pool.
    pub check_failures: u64,
    /// Times it went from up to down (HAProxy `chkdown`).
    pub went_down: u64,
    /// Time since its state changed (HAProxy `lastchg`).
    pub unchanged_for: Duration,
    /// Time that it was down, all together (HAProxy `downtime`).
    pub downtime: Duration,
}

/// How long one state lasts, and how long those of being down lasted together.
#[derive(Debug, Default)]
struct Timeline {
    /// When the present state began; `None` before anything was heard.
    since: Option<Instant>,
    down: bool,
    downtime: Duration,
}

impl Timeline {
    /// The state changes.
    fn change(&mut self, now: Instant, down: bool) {
        if self.down {
            self.downtime += self.unchanged_for(now);
        }
        (self.since, self.down) = (Some(now), down);
    }

    fn unchanged_for(&self, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn downtime(&self, now: Instant) -> Duration {
        if self.down { self.downtime + self.unchanged_for(now) } else { self.downtime }
    }
}

/// A member's history.
#[derive(Debug)]
pub struct MemberHistory {
    admin_state_up: bool,
    weight: u16,
    check: CheckState,
    check_failures: u64,
    went_down: u64,
    timeline: Timeline,
}

impl Default for MemberHistory {
    fn default() -> Self {
        Self {
            admin_state_up: true,
            weight: 1,
            check: CheckState::NoCheck,
            check_failures: 0,
            went_down: 0,
            timeline: Timeline::default(),
        }
    }
}

impl MemberHistory {
    /// A configuration went live in which the member stands like this. Nothing that it does is a failed check.
    pub fn configured(&mut self, now: Instant, admin_state_up: bool, weight: u16, check: CheckState) {
        let before = self.status();
        (self.admin_state_up, self.weight, self.check) = (admin_state_up, weight, check);
        if self.timeline.since.is_none() || self.status() != before {
            self.timeline.change(now, self.status().is_stopped());
        }
    }

    /// A check failed, whether or not that changed the state. `before` is the state until then.
    pub fn check_failed(&mut self, before: CheckState) {
        // HAProxy counts those of a server that is down but rising, too.
        self.check_failures += u64::from(before != CheckState::Down);
    }

    /// Checks changed the state.
    pub fn checked(&mut self, now: Instant, check: CheckState) {
        let before = (self.check, self.status());
        self.check = check;
        self.went_down += u64::from(before.0.is_up() && !check.is_up());
        if self.status() != before.1 {
            self.timeline.change(now, self.status().is_stopped());
        }
    }

    /// The present state.
    pub fn status(&self) -> MemberStatus {
        MemberStatus::of(self.admin_state_up, self.weight, self.check)
    }

    /// As of now.
    pub fn past(&self, now: Instant) -> Past {
        Past {
            check_failures: self.check_failures,
            went_down: self.went_down,
            unchanged_for: self.timeline.unchanged_for(now),
            downtime: self.timeline.downtime(now),
        }
    }
}

/// A pool's history. It is up as HAProxy's backend is: while one of its members is [`MemberStatus::Up`], or while it
/// has none.
#[derive(Debug, Default)]
pub struct PoolHistory {
    members: usize,
    usable: usize,
    went_down: u64,
    timeline: Timeline,
}

impl PoolHistory {
    /// A configuration went live in which the pool has members of these states.
    pub fn configured(&mut self, now: Instant, members: impl IntoIterator<Item = MemberStatus>) {
        let (mut all, mut usable) = (0, 0);
        for member in members {
            all += 1;
            usable += usize::from(member == MemberStatus::Up);
        }
        self.change(now, all, usable);
    }

    /// One member changed its state.
    pub fn member_changed(&mut self, now: Instant, before: MemberStatus, after: MemberStatus) {
        let usable = self.usable + usize::from(after == MemberStatus::Up);
        let usable = usable.saturating_sub(usize::from(before == MemberStatus::Up));
        self.change(now, self.members, usable);
    }

    fn change(&mut self, now: Instant, members: usize, usable: usize) {
        (self.members, self.usable) = (members, usable);
        let up = self.is_up();
        if self.timeline.since.is_none() || up == self.timeline.down {
            // What begins down has not gone down.
            self.went_down += u64::from(self.timeline.since.is_some() && !up);
            self.timeline.change(now, !up);
        }
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.members == 0 || self.usable > 0
    }

    /// As of now.
    pub fn past(&self, now: Instant) -> Past {
        Past {
            check_failures: 0,
            went_down: self.went_down,
            unchanged_for: self.timeline.unchanged_for(now),
            downtime: self.timeline.downtime(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: CheckState = CheckState::Up;
    const DOWN: CheckState = CheckState::Down;

    fn past(check_failures: u64, went_down: u64, unchanged_for: u64, downtime: u64) -> Past {
        let (unchanged_for, downtime) = (Duration::from_secs(unchanged_for), Duration::from_secs(downtime));
        Past { check_failures, went_down, unchanged_for, downtime }
    }

    struct Clock(Instant);

    impl Clock {
        fn at(&self, seconds: u64) -> Instant {
            self.0 + Duration::from_secs(seconds)
        }
    }

    fn clock() -> Clock {
        Clock(Instant::now())
    }

    #[test]
    fn a_member_goes_down_and_up_again() {
        let clock = clock();
        let mut member = MemberHistory::default();
        member.configured(clock.at(0), true, 1, CheckState::UpFailing { passed: 1, of: 2 });
        member.checked(clock.at(1), UP);
        assert_eq!(member.past(clock.at(10)), past(0, 0, 10, 0), "more or less up is up");
        member.check_failed(UP);
        member.checked(clock.at(10), CheckState::UpFailing { passed: 1, of: 2 });
        member.check_failed(CheckState::UpFailing { passed: 1, of: 2 });
        member.checked(clock.at(11), DOWN);
        member.check_failed(DOWN);
        assert_eq!(member.past(clock.at(15)), past(2, 1, 4, 4), "who is down fails no more");
        member.checked(clock.at(15), CheckState::DownRising { passed: 1, of: 2 });
        member.check_failed(CheckState::DownRising { passed: 1, of: 2 });
        member.checked(clock.at(16), DOWN);
        member.checked(clock.at(17), CheckState::DownRising { passed: 1, of: 2 });
        member.checked(clock.at(18), UP);
        assert_eq!(member.past(clock.at(20)), past(3, 1, 2, 7));
        member.checked(clock.at(30), DOWN);
        assert_eq!(member.past(clock.at(31)), past(3, 2, 1, 8));
    }

    #[test]
    fn changes_of_configuration_count_as_changes_but_not_as_failures() {
        let clock = clock();
        let mut member = MemberHistory::default();
        member.configured(clock.at(0), true, 1, UP);
        member.configured(clock.at(5), true, 9, UP);
        assert_eq!(member.past(clock.at(6)), past(0, 0, 6, 0));
        member.configured(clock.at(10), true, 0, UP);
        assert_eq!(member.past(clock.at(12)), past(0, 0, 2, 0), "draining is not being down");
        member.configured(clock.at(20), false, 1, CheckState::NoCheck);
        assert_eq!(member.past(clock.at(25)), past(0, 0, 5, 5), "maintenance is");
        member.configured(clock.at(30), true, 1, CheckState::UpFailing { passed: 1, of: 1 });
        assert_eq!(member.past(clock.at(31)), past(0, 0, 1, 10));
        member.checked(clock.at(40), DOWN);
        // Without its monitor it is thought to be up.
        member.configured(clock.at(50), true, 1, CheckState::NoCheck);
        assert_eq!(member.past(clock.at(51)), past(0, 1, 1, 20));
    }

    #[test]
    fn a_pool_is_down_while_no_member_is_usable() {
        use MemberStatus::{Down, Drain, Maint, Up};
        let clock = clock();
        let mut pool = PoolHistory::default();
        pool.configured(clock.at(0), []);
        assert!(pool.is_up(), "a pool without members is up");
        pool.configured(clock.at(1), [Up, Up, Drain]);
        pool.member_changed(clock.at(2), Up, Down);
        assert_eq!(pool.past(clock.at(3)), past(0, 0, 3, 0));
        pool.member_changed(clock.at(4), Up, Down);
        assert!(!pool.is_up());
        assert_eq!(pool.past(clock.at(6)), past(0, 1, 2, 2));
        // A member that drains keeps no pool up.
        pool.member_changed(clock.at(7), Drain, Down);
        pool.member_changed(clock.at(8), Down, Drain);
        pool.configured(clock.at(9), [Down, Down, Drain]);
        assert_eq!(pool.past(clock.at(10)), past(0, 1, 6, 6));
        pool.member_changed(clock.at(14), Down, Up);
        assert_eq!(pool.past(clock.at(15)), past(0, 1, 1, 10));
        pool.configured(clock.at(20), [Maint]);
        assert_eq!(pool.past(clock.at(21)), past(0, 2, 1, 11));
        pool.configured(clock.at(25), []);
        assert_eq!(pool.past(clock.at(26)), past(0, 2, 1, 15));
    }

    #[test]
    fn what_begins_down_has_not_gone_down() {
        let clock = clock();
        let mut pool = PoolHistory::default();
        pool.configured(clock.at(0), [MemberStatus::Maint]);
        assert_eq!(pool.past(clock.at(4)), past(0, 0, 4, 4));
        let mut member = MemberHistory::default();
        member.configured(clock.at(0), true, 1, DOWN);
        assert_eq!(member.past(clock.at(4)), past(0, 0, 4, 4));
    }
}
