//! Which amphorae are silent. No clock, no socket.
//!
//! Silence is what was listened to: when this program was stopped, or its machine slept, it has heard nobody, which says nothing of them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// When each amphora was heard last.
#[derive(Debug)]
pub struct Watch {
    timeout: Duration,
    threshold: Option<usize>,
    /// The longest time between two looks at anything in which it counts as listening.
    awake: Duration,
    /// When something was looked at last.
    looked: Option<Instant>,
    /// For how long was listened.
    listened: Duration,
    /// Nobody is stale before so long was listened: there was a pause, in which heartbeats were lost.
    not_before: Duration,
    /// `listened` when each was heard.
    heard: HashMap<String, Duration>,
}

/// What is to be done about those that are silent.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// These are to be replaced.
    Stale(Vec<String>),
    /// So many are silent that something else must be wrong, as the network of the controller: none is replaced.
    TooMany(usize),
}

impl Watch {
    /// `timeout` is `[health_manager] heartbeat_timeout`, `threshold` its `failover_threshold`, `every` its `health_check_interval`.
    pub fn new(timeout: Duration, threshold: Option<usize>, every: Duration) -> Self {
        let awake = every * 2 + Duration::from_secs(1);
        let (listened, not_before) = (Duration::ZERO, Duration::ZERO);
        Self { timeout, threshold, awake, looked: None, listened, not_before, heard: HashMap::new() }
    }

    /// Lets time pass.
    fn listen(&mut self, now: Instant) {
        let passed = self.looked.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.looked = Some(self.looked.map_or(now, |at| at.max(now)));
        self.listened += passed.min(self.awake);
        if passed > self.awake {
            // Of the heartbeats that came meanwhile the kernel has kept only so many.
            let grace = self.timeout / 2;
            tracing::warn!(
                seconds = passed.as_secs(),
                "heartbeats were not listened to: nobody is called silent for a while"
            );
            self.not_before = self.listened + grace;
        }
    }

    /// A heartbeat of an amphora was believed. Tells whether it was late: by more than half of the timeout after the one before.
    pub fn heard(&mut self, amphora: &str, now: Instant) -> bool {
        self.listen(now);
        let Some(at) = self.heard.get_mut(amphora) else {
            self.heard.insert(amphora.to_owned(), self.listened);
            return false;
        };
        let since = self.listened.saturating_sub(*at);
        *at = self.listened;
        since > self.timeout / 2
    }

    /// Looks at the amphorae that carry a load balancer, or wait for one; others are forgotten. One that is seen here for the first time, as all are after
    /// a start of the controller, has the whole timeout from now on.
    pub fn check<'a>(&mut self, allocated: impl IntoIterator<Item = &'a str>, now: Instant) -> Verdict {
        self.listen(now);
        let mut heard = HashMap::new();
        let mut stale = Vec::new();
        for amphora in allocated {
            let at = self.heard.remove(amphora).unwrap_or(self.listened);
            if self.listened.saturating_sub(at) > self.timeout && self.listened >= self.not_before {
                stale.push(amphora.to_owned());
            }
            heard.insert(amphora.to_owned(), at);
        }
        self.heard = heard;
        if self.threshold.is_some_and(|threshold| stale.len() >= threshold) {
            return Verdict::TooMany(stale.len());
        }
        Verdict::Stale(stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A watch that looks every second.
    struct Lab {
        watch: Watch,
        now: Instant,
        seconds: u64,
    }

    impl Lab {
        fn new(threshold: Option<usize>) -> Self {
            let watch = Watch::new(Duration::from_secs(10), threshold, Duration::from_secs(1));
            Self { watch, now: Instant::now(), seconds: 0 }
        }

        /// Time passes, and nobody looks.
        fn stopped(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }

        fn heard(&mut self, amphora: &str) -> bool {
            self.watch.heard(amphora, self.now)
        }

        fn check(&mut self, amphorae: &[&str]) -> Verdict {
            self.watch.check(amphorae.iter().copied(), self.now)
        }

        /// Looks every second until so many have passed since the begin, and tells of the last look.
        fn until(&mut self, seconds: u64, amphorae: &[&str]) -> Verdict {
            while self.seconds + 1 < seconds {
                self.seconds += 1;
                self.stopped(1);
                let _ = self.check(amphorae);
            }
            self.seconds += 1;
            self.stopped(1);
            self.check(amphorae)
        }
    }

    fn stale(amphorae: &[&str]) -> Verdict {
        Verdict::Stale(amphorae.iter().map(|&one| one.to_owned()).collect())
    }

    #[test]
    fn who_is_silent_for_the_timeout_is_stale() {
        let mut lab = Lab::new(None);
        assert_eq!(lab.check(&["a", "b"]), stale(&[]), "a start is no reason");
        lab.until(8, &["a", "b"]);
        assert!(lab.heard("a"), "late");
        assert!(!lab.heard("a"), "not late");
        assert_eq!(lab.until(10, &["a", "b"]), stale(&[]));
        assert_eq!(lab.until(11, &["a", "b"]), stale(&["b"]));
        assert_eq!(lab.until(12, &["a"]), stale(&[]), "b is replaced");
        assert_eq!(lab.check(&["a", "b"]), stale(&[]), "and forgotten");
        lab.heard("c");
        assert_eq!(lab.until(19, &["a"]), stale(&["a"]));
        assert_eq!(lab.watch.heard.len(), 1, "what carries nothing is not remembered");
    }

    #[test]
    fn when_too_many_are_silent_none_is_replaced() {
        let mut lab = Lab::new(Some(2));
        lab.check(&["a", "b", "c"]);
        lab.until(5, &["a", "b", "c"]);
        lab.heard("c");
        assert_eq!(lab.until(11, &["a", "b", "c"]), Verdict::TooMany(2));
        lab.heard("a");
        assert_eq!(lab.until(13, &["a", "b", "c"]), stale(&["b"]));
    }

    #[test]
    fn who_was_stopped_itself_calls_nobody_silent() {
        for first_heard in [false, true] {
            let mut lab = Lab::new(None);
            lab.check(&["a", "b"]);
            lab.until(9, &["a", "b"]);
            lab.stopped(60);
            // Whatever is done first after it.
            if first_heard {
                lab.heard("a");
            }
            assert_eq!(lab.check(&["a", "b"]), stale(&[]));
            assert_eq!(lab.until(13, &["a", "b"]), stale(&[]), "their next heartbeats are waited for");
            if !first_heard {
                lab.heard("a");
            }
            assert_eq!(lab.until(14, &["a", "b"]), stale(&["b"]), "and who is silent then is stale");
        }
    }

    #[test]
    fn a_look_that_is_late_is_none_that_was_stopped() {
        let mut lab = Lab::new(None);
        lab.check(&["a"]);
        for seconds in [3, 3, 3] {
            lab.stopped(seconds);
            assert_eq!(lab.check(&["a"]), stale(&[]));
        }
        lab.stopped(2);
        assert_eq!(lab.check(&["a"]), stale(&["a"]));
    }
}
