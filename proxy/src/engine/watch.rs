//! What the control thread finds out by looking: once a second at the counters, and at each change at what it makes of
//! members and pools.

use std::time::Instant;

use crate::{
    snapshot::Snapshot,
    state::{ListenerCounters, PerWorker, Rate},
};

/// Looks at counters, to say how fast they grow.
#[derive(Debug)]
pub(super) struct Watch {
    last: Instant,
    /// Connections of the whole process, refused ones included (HAProxy `ConnRate`, `MaxConnRate`).
    pub(super) connections: Rate,
    /// Connections of the whole process that were let in (HAProxy `SessRate`, `MaxSessRate`).
    pub(super) sessions: Rate,
    /// Handshakes with clients (HAProxy `SslRate`, `MaxSslRate`).
    pub(super) tls: Rate,
    /// Those that needed new keys (HAProxy `SslFrontendKeyRate`, `SslFrontendMaxKeyRate`).
    pub(super) client_keys: Rate,
    /// Those with members that did (HAProxy `SslBackendKeyRate`, `SslBackendMaxKeyRate`).
    pub(super) member_keys: Rate,
}

impl Watch {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last: now,
            connections: Rate::default(),
            sessions: Rate::default(),
            tls: Rate::default(),
            client_keys: Rate::default(),
            member_keys: Rate::default(),
        }
    }

    /// Takes every counter that has a rate.
    pub(super) fn sample(&mut self, now: Instant, snapshot: &Snapshot) {
        let elapsed = now.saturating_duration_since(self.last);
        self.last = now;
        let (mut all, mut let_in) = (0, 0);
        let (mut tls, mut client_keys, mut member_keys) = (0, 0, 0);
        for state in snapshot.listener_states() {
            let sessions = state.rates.sessions.sample(state.counters.sum(|c| &c.connections_total), elapsed);
            let denied = state.rates.denied.sample(state.counters.sum(|c| &c.connections_denied), elapsed);
            let failed = state.rates.failed.sample(handshakes_failed(&state.counters), elapsed);
            state.rates.connections.grown(sessions + denied + failed, elapsed);
            state.rates.requests.sample(state.counters.sum(|c| &c.requests), elapsed);
            all += sessions + denied + failed;
            let_in += sessions;
            let (completed, keys) = state.rates.handshakes.sample(
                state.counters.sum(|c| &c.handshakes.completed),
                state.counters.sum(|c| &c.handshakes.resumed),
                elapsed,
            );
            tls += completed + failed;
            client_keys += keys;
        }
        self.connections.grown(all, elapsed);
        self.sessions.grown(let_in, elapsed);
        self.tls.grown(tls, elapsed);
        self.client_keys.grown(client_keys, elapsed);
        for pool in &snapshot.pools {
            let members = pool.members.iter().map(|member| {
                let sessions = member.state.counters.sum(|c| &c.sessions_total);
                member.state.record.rate.sample(sessions, elapsed)
            });
            pool.state.rate.grown(members.sum(), elapsed);
            let counters = &pool.state.counters;
            let (_, keys) = pool.state.handshakes.sample(
                counters.sum(|c| &c.handshakes.completed),
                counters.sum(|c| &c.handshakes.resumed),
                elapsed,
            );
            member_keys += keys;
        }
        self.member_keys.grown(member_keys, elapsed);
    }
}

fn handshakes_failed(counters: &PerWorker<ListenerCounters>) -> u64 {
    counters.iter().flat_map(|c| &c.handshakes.failed).fold(0, |sum, c| sum.wrapping_add(c.get()))
}

/// Remembers how members and pools stand in a snapshot that went live.
pub(super) fn remember(now: Instant, snapshot: &Snapshot) {
    for pool in &snapshot.pools {
        let statuses = pool.members.iter().map(|member| {
            let mut history = member.state.history();
            history.configured(now, member.admin_state_up, member.weight, member.state.health.get());
            history.status()
        });
        // Members are looked at first, so that the two locks are never held together.
        let statuses: Vec<_> = statuses.collect();
        pool.state.history().configured(now, statuses);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{sync::Arc, time::Duration};

    use amphora_model::LoadBalancer;

    use super::*;
    use crate::{
        snapshot,
        state::{CheckState, Registry},
    };

    fn document(member: &str, more: &str) -> String {
        format!(
            r#"{{"loadbalancer": {{"id": "10000000-0000-4000-8000-000000000001", "vip_address": "127.0.0.1", "listeners": [
                {{"id": "20000000-0000-4000-8000-000000000001", "protocol": "TCP", "protocol_port": 1 {more},
                  "default_pool": {{"id": "30000000-0000-4000-8000-000000000001", "protocol": "TCP",
                    "lb_algorithm": "ROUND_ROBIN", "members": [{{"id": "40000000-0000-4000-8000-000000000001",
                      "address": "127.0.0.1", "weight": 1, {member}}}]}}}}]}}}}"#
        )
    }

    fn live(registry: &mut Registry, now: Instant, document: &str) -> Snapshot {
        let model = LoadBalancer::from_json(document.as_bytes()).unwrap();
        let snapshot =
            snapshot::compile(Arc::new(model), 1, registry, &snapshot::TlsSource::default()).unwrap();
        snapshot.hand_over(registry);
        remember(now, &snapshot);
        snapshot
    }

    #[test]
    fn rates_and_histories_outlive_changes() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut registry = Registry::new(2);
        let mut watch = Watch::new(begun);
        let first = live(&mut registry, begun, &document(r#""protocol_port": 9"#, ""));
        let listener = &first.listeners[0].state;
        let member = &first.pools[0].members[0].state;
        for worker in 0..2 {
            listener.counters.of(worker).connections_total.add(5);
            listener.counters.of(worker).connections_denied.add(1);
            member.counters.of(worker).sessions_total.add(4);
            // Of a client's three handshakes one failed, and of a member's four all came about; one each was resumed.
            let [client, of_member] = [
                &listener.counters.of(worker).handshakes,
                &first.pools[0].state.counters.of(worker).handshakes,
            ];
            client.completed.add(2);
            of_member.completed.add(4);
            for handshakes in [client, of_member] {
                handshakes.resumed.add(1);
            }
            client.failed[0].add(1);
        }
        watch.sample(at(1), &first);
        let Watch { tls, client_keys, member_keys, .. } = &watch;
        assert_eq!([tls, client_keys, member_keys].map(Rate::per_second), [6, 2, 6]);
        member.checked(at(2), CheckState::Down);
        let past = first.pools[0].state.history().past(at(4));
        assert_eq!((past.went_down, past.downtime), (1, Duration::from_secs(2)));

        // The listener is disabled, and the member moves: what was learned stays, and nothing is learned twice.
        let moved =
            live(&mut registry, at(5), &document(r#""protocol_port": 10"#, r#", "admin_state_up": false"#));
        watch.sample(at(6), &moved);
        let again = live(&mut registry, at(7), &document(r#""protocol_port": 10"#, ""));
        watch.sample(at(8), &again);
        let rates = &again.listeners[0].state.rates;
        assert_eq!((rates.sessions.highest(), rates.sessions.per_second()), (10, 0));
        assert_eq!((rates.connections.highest(), rates.denied.highest()), (14, 2));
        assert_eq!((watch.connections.highest(), watch.sessions.highest()), (14, 10));
        let Watch { tls, client_keys, member_keys, .. } = &watch;
        assert_eq!([tls, client_keys, member_keys].map(Rate::highest), [6, 2, 6]);
        assert_eq!([tls, client_keys, member_keys].map(Rate::per_second), [0, 0, 0]);
        let (pool, member) = (&again.pools[0].state, &again.pools[0].members[0].state);
        assert_eq!((pool.rate.highest(), member.record.rate.highest()), (8, 8));
        for past in [pool.history().past(at(9)), member.history().past(at(9))] {
            assert_eq!((past.went_down, past.downtime), (1, Duration::from_secs(3)));
            assert_eq!(past.unchanged_for, Duration::from_secs(4), "up again where it moved to");
        }
    }
}
