//! Which amphorae are silent. No clock, no socket.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// When each amphora was heard last.
#[derive(Debug)]
pub struct Watch {
    timeout: Duration,
    threshold: Option<usize>,
    heard: HashMap<String, Instant>,
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
    /// `timeout` is `[health_manager] heartbeat_timeout`, `threshold` its `failover_threshold`.
    pub fn new(timeout: Duration, threshold: Option<usize>) -> Self {
        Self { timeout, threshold, heard: HashMap::new() }
    }

    /// A heartbeat of an amphora was believed. Tells whether it was late: by more than half of the timeout after the one before.
    pub fn heard(&mut self, amphora: &str, now: Instant) -> bool {
        let Some(at) = self.heard.get_mut(amphora) else {
            self.heard.insert(amphora.to_owned(), now);
            return false;
        };
        let since = now.saturating_duration_since(*at);
        *at = now;
        since > self.timeout / 2
    }

    /// Looks at the amphorae that carry a load balancer, or wait for one; others are forgotten. One that is seen here for the first time, as all are after
    /// a start of the controller, has the whole timeout from now on.
    pub fn check<'a>(&mut self, allocated: impl IntoIterator<Item = &'a str>, now: Instant) -> Verdict {
        let mut heard = HashMap::new();
        let mut stale = Vec::new();
        for amphora in allocated {
            let at = self.heard.remove(amphora).unwrap_or(now);
            if now.saturating_duration_since(at) > self.timeout {
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

    #[test]
    fn who_is_silent_for_the_timeout_is_stale() {
        let mut watch = Watch::new(Duration::from_secs(10), None);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(watch.check(["a", "b"], after(0)), Verdict::Stale(vec![]), "a start is no reason");
        assert!(watch.heard("a", after(8)), "late");
        assert!(!watch.heard("a", after(8)), "not late");
        assert_eq!(watch.check(["a", "b"], after(10)), Verdict::Stale(vec![]));
        assert_eq!(watch.check(["a", "b"], after(11)), Verdict::Stale(vec!["b".to_owned()]));
        assert_eq!(watch.check(["a"], after(12)), Verdict::Stale(vec![]), "b is replaced");
        assert_eq!(watch.check(["a", "b"], after(12)), Verdict::Stale(vec![]), "and forgotten");
        watch.heard("c", after(13));
        assert_eq!(watch.check(["a"], after(19)), Verdict::Stale(vec!["a".to_owned()]));
        assert_eq!(watch.heard.len(), 1, "what carries nothing is not remembered");
    }

    #[test]
    fn when_too_many_are_silent_none_is_replaced() {
        let mut watch = Watch::new(Duration::from_secs(10), Some(2));
        let start = Instant::now();
        watch.check(["a", "b", "c"], start);
        watch.heard("c", start + Duration::from_secs(5));
        assert_eq!(watch.check(["a", "b", "c"], start + Duration::from_secs(11)), Verdict::TooMany(2));
        watch.heard("a", start + Duration::from_secs(12));
        let expected = Verdict::Stale(vec!["b".to_owned()]);
        assert_eq!(watch.check(["a", "b", "c"], start + Duration::from_secs(13)), expected);
    }
}
