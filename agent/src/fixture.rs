//! A small load balancer for tests: one HTTP listener, one pool, two members.
#![allow(clippy::unwrap_used, missing_docs)]

use amphora_ipc::proxy::{HistoryStats, ListenerStats, MemberStats, PoolStats, Responses, Stats, TimesStats};
use amphora_model::{CheckState, LoadBalancer};

pub(crate) const DOCUMENT: &str = r#"{"loadbalancer": {
    "id": "10000000-0000-4000-8000-000000000001", "name": "lb", "vip_address": "127.0.0.1",
    "listeners": [{
        "id": "20000000-0000-4000-8000-000000000001", "name": "web", "protocol": "HTTP", "protocol_port": 8080,
        "default_pool": {
            "id": "30000000-0000-4000-8000-000000000001", "name": "pool", "protocol": "HTTP",
            "lb_algorithm": "ROUND_ROBIN",
            "members": [
                {"id": "40000000-0000-4000-8000-000000000001", "name": "m1", "address": "127.0.0.1",
                    "protocol_port": 9001, "weight": 1},
                {"id": "40000000-0000-4000-8000-000000000002", "name": "m2", "address": "127.0.0.1",
                    "protocol_port": 9002, "weight": 1}
            ]
        }
    }]
}}"#;

pub(crate) fn load_balancer() -> LoadBalancer {
    crate::document::parse(DOCUMENT.as_bytes()).unwrap()
}

/// Statistics of [`DOCUMENT`], all zero, nobody checked.
pub(crate) fn stats() -> Stats {
    let model = load_balancer();
    let listeners = model.listeners.iter().map(|l| (l.id, ListenerStats::default())).collect();
    let pools = model.pools.iter().map(|pool| {
        let members = pool.members.iter().map(|m| (m.id, member_stats(CheckState::NoCheck))).collect();
        (pool.id, PoolStats { listeners: vec![model.listeners[0].id], members, ..PoolStats::default() })
    });
    Stats { instance: "one".to_owned(), generation: 1, listeners, pools: pools.collect(), ..Stats::default() }
}

pub(crate) fn member_stats(check: CheckState) -> MemberStats {
    MemberStats {
        check,
        admin_state_up: true,
        weight: 1,
        backup: false,
        bytes_in: 0,
        bytes_out: 0,
        active_sessions: 0,
        max_sessions: 0,
        total_sessions: 0,
        selected: 0,
        connects: 0,
        reuses: 0,
        idle: 0,
        idle_limit: 0,
        requests: 0,
        connect_errors: 0,
        response_errors: 0,
        retries: 0,
        redispatches: 0,
        client_aborts: 0,
        server_aborts: 0,
        responses: Responses::default(),
        connect_time_us: 0,
        response_time_us: 0,
        total_time_us: 0,
        times: TimesStats::default(),
        history: HistoryStats::default(),
        member_options: None,
    }
}
