//! Which amphorae are silent. No clock, no socket.
//!
//! Silence is what was listened to: when this program was stopped, or its machine slept, it has heard nobody, which says nothing of them.
//!
//! Whoever falls silent together is not found to be so together: each has sent its last heartbeat at another time, up to an interval before. So those
//! count for the threshold that are about to be stale, and those that were taken out for it lately. Octavia counts those that are stale and not taken
//! out at one look (`AmphoraHealthRepository.get_stale_amphora`): where that many are, so many are here.

use std::{
    collections::HashMap,
    sync::Arc,
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
    /// `listened` when those were taken out that were so within a `timeout`.
    taken: HashMap<String, Duration>,
    /// With which document each had listeners when it was heard last.
    serving: HashMap<String, Arc<str>>,
}

/// What is to be done about those that are silent.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// These are to be replaced.
    Stale(Vec<String>),
    /// So many are silent for three quarters of the timeout, or were taken out for silence within the last timeout, that something else must be wrong,
    /// as the network of the controller: none is replaced.
    TooMany(usize),
}

impl Watch {
    /// `timeout` is `[health_manager] heartbeat_timeout`, `threshold` its `failover_threshold`, `every` its `health_check_interval`.
    pub fn new(timeout: Duration, threshold: Option<usize>, every: Duration) -> Self {
        let awake = every * 2 + Duration::from_secs(1);
        let (listened, not_before) = (Duration::ZERO, Duration::ZERO);
        let (heard, taken, serving) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { timeout, threshold, awake, looked: None, listened, not_before, heard, taken, serving }
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

    /// An amphora says that it has listeners, with this document.
    pub fn serves(&mut self, amphora: &str, document: Option<&Arc<str>>) {
        match document {
            Some(document) if self.serving.get(amphora) != Some(document) => {
                self.serving.insert(amphora.to_owned(), Arc::clone(document));
            }
            _ => {}
        }
    }

    /// Whether an amphora that says that it has none has had some with this very document: its proxy does not run.
    pub fn has_served(&self, amphora: &str, document: Option<&Arc<str>>) -> bool {
        document.is_some() && self.serving.get(amphora) == document
    }

    /// Looks at the amphorae that carry a load balancer, or wait for one; others are forgotten. One that is seen here for the first time, as all are after
    /// a start of the controller, has the whole timeout from now on.
    pub fn check<'a>(&mut self, allocated: impl IntoIterator<Item = &'a str>, now: Instant) -> Verdict {
        self.listen(now);
        self.taken.retain(|_, at| self.listened.saturating_sub(*at) <= self.timeout);
        let mut heard = HashMap::new();
        let mut stale = Vec::new();
        let mut silent = self.taken.len();
        for amphora in allocated {
            let at = self.heard.remove(amphora).unwrap_or(self.listened);
            let silence = self.listened.saturating_sub(at);
            if silence > self.timeout && self.listened >= self.not_before {
                stale.push(amphora.to_owned());
            }
            // It was to be taken out, and is there still: it counts once.
            silent += usize::from(silence > self.timeout * 3 / 4 && !self.taken.contains_key(amphora));
            heard.insert(amphora.to_owned(), at);
        }
        self.heard = heard;
        self.serving.retain(|amphora, _| self.heard.contains_key(amphora));
        if !stale.is_empty() && self.threshold.is_some_and(|threshold| silent >= threshold) {
            return Verdict::TooMany(silent);
        }
        self.taken.extend(stale.iter().map(|one| (one.clone(), self.listened)));
        Verdict::Stale(stale)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

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
        assert_eq!(lab.until(12, &["a", "b", "c"]), stale(&["b"]));
        assert_eq!(lab.until(18, &["a", "c"]), Verdict::TooMany(2), "b was taken out");
        lab.heard("a");
        assert_eq!(lab.until(23, &["a", "c"]), stale(&["c"]), "long ago");
    }

    /// Amphorae that send a heartbeat every `every` ms, each until its time, and a look every second, in simulated time.
    struct Phases {
        watch: Watch,
        every: u64,
        /// When each sends its first and its last, in milliseconds; those that are taken out are none any more.
        amphorae: Vec<(String, u64, u64)>,
        begin: Instant,
        now: u64,
    }

    impl Phases {
        fn new(threshold: usize, every: u64, amphorae: &[(u64, u64)]) -> Self {
            let watch = Watch::new(Duration::from_secs(12), Some(threshold), Duration::from_secs(1));
            let amphorae = amphorae
                .iter()
                .enumerate()
                .map(|(n, (first, last))| (n.to_string(), *first, *last))
                .collect();
            Self { watch, every, amphorae, begin: Instant::now(), now: 0 }
        }

        /// One second, and what was found after it. Those that are stale are taken out.
        fn second(&mut self) -> Verdict {
            for _ in 0..10 {
                self.now += 100;
                let at = self.begin + Duration::from_millis(self.now);
                for (id, first, last) in &self.amphorae {
                    if self.now >= *first
                        && self.now <= *last
                        && (self.now - first).is_multiple_of(self.every)
                    {
                        self.watch.heard(id, at);
                    }
                }
            }
            let at = self.begin + Duration::from_millis(self.now);
            let verdict = self.watch.check(self.amphorae.iter().map(|(id, ..)| id.as_str()), at);
            if let Verdict::Stale(stale) = &verdict {
                self.amphorae.retain(|(id, ..)| !stale.contains(id));
            }
            verdict
        }
    }

    #[test]
    fn phases_of_heartbeats_do_not_defeat_the_threshold() {
        let cut = |phase: u64| (phase, 30_000);
        let mut phases = Phases::new(3, 3000, &[500, 1000, 1500, 2000, 2500, 3000].map(cut));
        for second in 0..90 {
            let verdict = phases.second();
            assert!(
                matches!(&verdict, Verdict::TooMany(_)) || verdict == stale(&[]),
                "{second}: {verdict:?}"
            );
        }
        assert_eq!(phases.second(), Verdict::TooMany(6));
        // Whoever is heard again is well; those that are not are fewer now.
        for (_, _, last) in &mut phases.amphorae[..4] {
            *last = u64::MAX;
        }
        let replaced: Vec<_> =
            (0..5).map(|_| phases.second()).filter(|verdict| *verdict != stale(&[])).collect();
        assert!(replaced.ends_with(&[stale(&["4", "5"])]), "{replaced:?}");
        assert_eq!(phases.amphorae.len(), 4);
        for _ in 0..60 {
            assert_eq!(phases.second(), stale(&[]));
        }
    }

    #[test]
    fn those_that_were_taken_out_lately_count() {
        // One every four seconds.
        let of = |every: u64| (0..6).map(|n| (100, 30_000 + n * every)).collect::<Vec<_>>();
        let mut phases = Phases::new(3, 1000, &of(4000));
        let mut too_many = 0;
        for _ in 0..200 {
            too_many += usize::from(matches!(phases.second(), Verdict::TooMany(_)));
        }
        assert_eq!(phases.amphorae.len(), 4, "one less than the threshold is taken out");
        assert_eq!(too_many, 151, "from the third on");
        let mut phases = Phases::new(2, 1000, &of(15_000));
        for _ in 0..200 {
            phases.second();
        }
        assert_eq!(phases.amphorae.len(), 0, "each was alone");
    }

    /// `AmphoraHealthRepository.get_stale_amphora` of Octavia 19.0.0, as `health_check` calls it.
    #[test]
    fn where_octavia_stops_this_stops() {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut below = |most: u64| {
            random ^= random >> 12;
            random ^= random << 25;
            random ^= random >> 27;
            (random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % most
        };
        let mut stops = 0;
        for _ in 0..200 {
            let (threshold, spread) = (1 + below(4), 1 + below(150));
            let amphorae: Vec<_> =
                (0..8).map(|_| (100 * (1 + below(30)), 20_000 + 100 * below(spread))).collect();
            let mut phases = Phases::new(usize::try_from(threshold).unwrap(), 3000, &amphorae);
            let mut busy = [false; 8];
            for _ in 0..60 {
                let verdict = phases.second();
                let updated = |&(first, last): &(u64, u64)| {
                    let end = phases.now.min(last);
                    end.checked_sub(first).map_or(0, |since| first + since / 3000 * 3000)
                };
                let is_expired = |n: usize| phases.now - updated(&amphorae[n]) > 12_000;
                let expired: Vec<_> = (0..8).filter(|n| !busy[*n] && is_expired(*n)).collect();
                if expired.len() >= usize::try_from(threshold).unwrap() {
                    stops += 1;
                    let none = matches!(verdict, Verdict::TooMany(_)) || verdict == stale(&[]);
                    assert!(none, "{threshold} {amphorae:?} at {}: {verdict:?}", phases.now);
                } else {
                    expired.into_iter().for_each(|n| busy[n] = true);
                }
            }
        }
        assert!(stops > 1000, "{stops}");
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

    #[test]
    fn who_has_had_listeners_with_a_document_has_them_as_long_as_it_has_that() {
        let mut lab = Lab::new(None);
        let [one, other] = ["one", "other"].map(Arc::from);
        let has_served = |lab: &Lab, document| lab.watch.has_served("a", document);
        assert!(!has_served(&lab, Some(&one)) && !has_served(&lab, None));
        lab.watch.serves("a", Some(&one));
        lab.heard("a");
        lab.check(&["a"]);
        assert!(has_served(&lab, Some(&one)) && !has_served(&lab, Some(&other)) && !has_served(&lab, None));
        lab.watch.serves("a", Some(&other));
        assert!(!has_served(&lab, Some(&one)) && has_served(&lab, Some(&other)));
        lab.check(&[]);
        assert!(!has_served(&lab, Some(&other)), "it is gone");
    }
}
