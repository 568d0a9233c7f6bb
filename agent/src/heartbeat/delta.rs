//! Counters as heartbeats carry them: what was added since the last one that left.
//!
//! The state is small and goes to `stats_counters.json`, so that a restarted agent neither reports bytes twice nor
//! forgets them. A new [`Summary::instance`](amphora_ipc::proxy::Summary::instance) means that the proxy's
//! counters started at zero again, and a new
//! [`ListenerSummary::incarnation`](amphora_ipc::proxy::ListenerSummary::incarnation) the same of one listener.

use std::collections::BTreeMap;

use amphora_ipc::proxy::ListenerSummary;
use amphora_model::ListenerId;
use serde::{Deserialize, Serialize};

/// The counters that were reported so far, of one proxy process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deltas {
    /// The proxy process that the counters are of.
    instance: String,
    /// The counters at the last heartbeat that told of the listener.
    listeners: BTreeMap<ListenerId, Reported>,
}

/// Listeners that are gone, or disabled, and are remembered all the same: one that comes back goes on counting.
const REMEMBERED: usize = 1000;

/// What was reported of one listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Reported {
    #[serde(default)]
    incarnation: u64,
    #[serde(flatten)]
    counters: Counters,
}

/// The counters of which heartbeats carry differences, under HAProxy's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Bytes from clients.
    pub bin: u64,
    /// Bytes to clients.
    pub bout: u64,
    /// Requests that were in error.
    pub ereq: u64,
    /// Connections accepted.
    pub stot: u64,
}

impl Counters {
    /// What was added since `before`; a counter that went back started at zero again.
    fn since(self, before: Self) -> Self {
        let since = |now: u64, before| now.checked_sub(before).unwrap_or(now);
        Self {
            bin: since(self.bin, before.bin),
            bout: since(self.bout, before.bout),
            ereq: since(self.ereq, before.ereq),
            stot: since(self.stot, before.stot),
        }
    }
}

impl From<&ListenerSummary> for Counters {
    fn from(stats: &ListenerSummary) -> Self {
        Self {
            bin: stats.bytes_in,
            bout: stats.bytes_out,
            ereq: stats.request_errors,
            stot: stats.total_connections,
        }
    }
}

impl Deltas {
    /// What each listener added since the last heartbeat, and the state once that is reported.
    pub fn advance<'a>(
        &self,
        instance: &str,
        now: impl IntoIterator<Item = (ListenerId, &'a ListenerSummary)>,
    ) -> (BTreeMap<ListenerId, Counters>, Self) {
        let before = (self.instance == instance).then_some(&self.listeners);
        let mut listeners = BTreeMap::new();
        let mut added = BTreeMap::new();
        for (id, stats) in now {
            let now = Reported { incarnation: stats.incarnation, counters: Counters::from(stats) };
            let before = before
                .and_then(|before| before.get(&id))
                .filter(|before| before.incarnation == now.incarnation)
                .map_or_else(Counters::default, |before| before.counters);
            added.insert(id, now.counters.since(before));
            listeners.insert(id, now);
        }
        let absent = before.into_iter().flatten().filter(|(id, _)| !added.contains_key(id));
        listeners.extend(absent.take(REMEMBERED).map(|(id, reported)| (*id, *reported)));
        (added, Self { instance: instance.to_owned(), listeners })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn stats(bytes_in: u64) -> ListenerSummary {
        ListenerSummary { bytes_in, bytes_out: 2 * bytes_in, ..ListenerSummary::default() }
    }

    const ID: ListenerId = ListenerId(Uuid::from_u128(1));

    fn step(deltas: &mut Deltas, instance: &str, bytes_in: u64) -> u64 {
        let (added, next) = deltas.advance(instance, [(ID, &stats(bytes_in))]);
        *deltas = next;
        added[&ID].bin
    }

    #[test]
    fn restarts_of_either_side_lose_and_repeat_nothing() {
        let mut deltas = Deltas::default();
        assert_eq!(step(&mut deltas, "a", 100), 100);
        let text = serde_json::to_string(&deltas).unwrap();
        let mut deltas: Deltas = serde_json::from_str(&text).unwrap();
        assert_eq!(step(&mut deltas, "a", 130), 30);
        assert_eq!(step(&mut deltas, "b", 140), 140);
        assert_eq!(step(&mut deltas, "b", 7), 7);
    }

    #[test]
    fn a_listener_that_is_enabled_again_goes_on_and_one_that_is_made_again_starts_at_zero() {
        let mut deltas = Deltas::default();
        step(&mut deltas, "a", 100);
        deltas = deltas.advance("a", []).1;
        assert_eq!(step(&mut deltas, "a", 150), 50);
        let again = ListenerSummary { incarnation: 1, ..stats(160) };
        assert_eq!(deltas.advance("a", [(ID, &again)]).0[&ID].bin, 160);
        let state = serde_json::to_string(&deltas).unwrap();
        assert_eq!(serde_json::from_str::<Deltas>(&state).unwrap(), deltas);
    }

    #[test]
    fn what_is_gone_is_remembered_within_bounds() {
        let some = stats(1);
        let many = |from: u128| (from..from + 1500).map(|n| (ListenerId(Uuid::from_u128(n)), &some));
        let deltas = Deltas::default().advance("a", many(0)).1;
        let deltas = deltas.advance("a", many(5000)).1;
        assert_eq!(deltas.listeners.len(), 1500 + REMEMBERED);
    }

    proptest! {
        /// Whatever restarts in between, the sum of what is reported is the sum of what was counted.
        #[test]
        fn deltas_sum_to_the_traffic(steps in prop::collection::vec((0u64..1 << 40, any::<bool>(), any::<bool>()), 1..40)) {
            let (mut deltas, mut instance, mut counter) = (Deltas::default(), 0, 0);
            let (mut reported, mut counted) = (0, 0);
            for (traffic, proxy_restarts, agent_restarts) in steps {
                if proxy_restarts {
                    (instance, counter) = (instance + 1, 0);
                }
                if agent_restarts {
                    deltas = serde_json::from_str(&serde_json::to_string(&deltas).unwrap()).unwrap();
                }
                counter += traffic;
                counted += traffic;
                reported += step(&mut deltas, &instance.to_string(), counter);
            }
            prop_assert_eq!(reported, counted);
        }
    }
}
