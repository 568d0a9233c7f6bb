//! When to start, terminate and kill a process that should always run. Sans-IO: events and the time come in by
//! `handle_*`, actions and the next time of interest go out by `poll_*`. After each `handle_*` all actions are
//! polled, and carried out in order.

use std::time::{Duration, Instant};

/// The pause before the first restart.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest pause, reached after nine failures in a row.
pub const MAX_DELAY: Duration = Duration::from_secs(30);

/// A process that ran for so long was well: the next pause is the first one again.
pub const HEALTHY: Duration = Duration::from_secs(60);

/// How long a killed process may take to vanish until it is given up.
const REAP: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Find or start the process; answer with `handle_started`, `handle_deferred` or `handle_exited`.
    Start,
    /// Ask it to end (SIGTERM).
    Terminate,
    /// Make it end (SIGKILL).
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// [`Action::Start`] is due or under way.
    Starting,
    Running {
        since: Instant,
    },
    Waiting {
        until: Instant,
    },
    Terminating {
        until: Instant,
    },
    Killed {
        until: Instant,
    },
    Finished,
}

/// The decisions about one process.
#[derive(Debug)]
pub struct Restart {
    state: State,
    action: Option<Action>,
    delay: Duration,
    grace: Duration,
    stopping: bool,
}

impl Restart {
    /// Starts at once. `grace` is the time from [`Action::Terminate`] to [`Action::Kill`].
    pub fn new(grace: Duration) -> Self {
        Self {
            state: State::Starting,
            action: Some(Action::Start),
            delay: FIRST_DELAY,
            grace,
            stopping: false,
        }
    }

    /// The process runs.
    pub fn handle_started(&mut self, now: Instant) {
        if self.stopping {
            self.terminate(now);
        } else {
            self.state = State::Running { since: now };
        }
    }

    /// It is not known yet whether it runs: look again after `pause`.
    pub fn handle_deferred(&mut self, now: Instant, pause: Duration) {
        self.state = if self.stopping { State::Finished } else { State::Waiting { until: now + pause } };
    }

    /// The process ended, or could not be started.
    pub fn handle_exited(&mut self, now: Instant) {
        self.action = None;
        if self.stopping {
            self.state = State::Finished;
            return;
        }
        if matches!(self.state, State::Running { since } if now.duration_since(since) >= HEALTHY) {
            self.delay = FIRST_DELAY;
        }
        self.state = State::Waiting { until: now + self.delay };
        self.delay = (self.delay * 2).min(MAX_DELAY);
    }

    /// It shall end and not be started again.
    pub fn handle_stop(&mut self, now: Instant) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        match self.state {
            State::Running { .. } => self.terminate(now),
            State::Waiting { .. } => self.state = State::Finished,
            State::Starting if self.action.take().is_some() => self.state = State::Finished,
            // Under way: its answer decides.
            _ => {}
        }
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Waiting { until } if now >= until => {
                self.state = State::Starting;
                self.action = Some(Action::Start);
            }
            State::Terminating { until } if now >= until => {
                self.state = State::Killed { until: now + REAP };
                self.action = Some(Action::Kill);
            }
            State::Killed { until } if now >= until => self.state = State::Finished,
            _ => {}
        }
    }

    /// What is to be done now.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.action.take()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } | State::Terminating { until } | State::Killed { until } => Some(until),
            State::Starting | State::Running { .. } | State::Finished => None,
        }
    }

    /// Whether [`handle_stop`](Self::handle_stop) was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether there is nothing left to do, ever.
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    fn terminate(&mut self, now: Instant) {
        self.state = State::Terminating { until: now + self.grace };
        self.action = Some(Action::Terminate);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    /// Fails `count` times after running for `lifetime`; the pauses before each restart.
    fn pauses(count: usize, lifetime: Duration) -> Vec<Duration> {
        let mut now = Instant::now();
        let mut restart = Restart::new(GRACE);
        let mut pauses = Vec::new();
        for _ in 0..count {
            assert_eq!(restart.poll_action(), Some(Action::Start));
            restart.handle_started(now);
            now += lifetime;
            restart.handle_exited(now);
            let at = restart.poll_timeout().unwrap();
            pauses.push(at - now);
            now = at;
            restart.handle_timeout(now);
        }
        pauses
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_start_over_after_health() {
        let failing = pauses(12, Duration::ZERO);
        assert_eq!(failing[..3], [FIRST_DELAY, FIRST_DELAY * 2, FIRST_DELAY * 4]);
        assert_eq!(failing[11], MAX_DELAY);
        assert!(pauses(5, HEALTHY).iter().all(|pause| *pause == FIRST_DELAY));
    }

    #[test]
    fn stopping_terminates_and_then_kills() {
        let now = Instant::now();
        let mut restart = Restart::new(GRACE);
        restart.poll_action();
        restart.handle_started(now);
        restart.handle_stop(now);
        assert_eq!(restart.poll_action(), Some(Action::Terminate));
        assert_eq!(restart.poll_timeout(), Some(now + GRACE));
        restart.handle_timeout(now + GRACE);
        assert_eq!(restart.poll_action(), Some(Action::Kill));
        assert!(!restart.is_finished());
        restart.handle_exited(now + GRACE);
        assert!(restart.is_finished());
    }

    #[test]
    fn stopping_between_two_starts_ends_at_once() {
        let now = Instant::now();
        let mut restart = Restart::new(GRACE);
        restart.poll_action();
        restart.handle_exited(now);
        restart.handle_stop(now);
        assert!(restart.is_finished());
        assert_eq!(restart.poll_action(), None);
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Exit,
        Timer,
        Stop,
        Pass(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => Just(Event::Exit),
            4 => Just(Event::Timer),
            1 => Just(Event::Stop),
            4 => (0u64..100_000).prop_map(Event::Pass),
        ]
    }

    proptest! {
        /// Whatever happens, there is never a second process, none is started after a stop, and a stop ends.
        #[test]
        fn one_process_at_a_time(
            events in prop::collection::vec(event(), 1..60),
            starts in prop::collection::vec(0u8..3, 60),
        ) {
            let mut now = Instant::now();
            let mut restart = Restart::new(GRACE);
            let (mut running, mut stopped) = (false, false);
            let mut starts = starts.into_iter();
            for event in events.into_iter().chain([Event::Stop, Event::Timer, Event::Timer, Event::Timer]) {
                while let Some(action) = restart.poll_action() {
                    match action {
                        Action::Start => {
                            prop_assert!(!running && !stopped);
                            match starts.next() {
                                Some(0) => restart.handle_exited(now),
                                Some(1) => restart.handle_deferred(now, FIRST_DELAY),
                                _ => {
                                    running = true;
                                    restart.handle_started(now);
                                }
                            }
                        }
                        Action::Terminate | Action::Kill => prop_assert!(running && stopped),
                    }
                }
                prop_assert!(running || restart.poll_timeout().is_some() || restart.is_finished());
                match event {
                    Event::Exit if running => {
                        running = false;
                        restart.handle_exited(now);
                    }
                    Event::Exit => {}
                    Event::Timer => {
                        if let Some(at) = restart.poll_timeout() {
                            now = now.max(at);
                            restart.handle_timeout(now);
                        }
                    }
                    Event::Stop => {
                        stopped = true;
                        restart.handle_stop(now);
                    }
                    Event::Pass(ms) => now += Duration::from_millis(ms),
                }
            }
            prop_assert!(restart.is_finished());
        }
    }
}
