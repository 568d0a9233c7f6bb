#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeSet, HashMap},
    io::Write,
    process::{Command, Stdio},
};

use amphora_ipc::proxy::{
    Handshakes, HandshakesFailed, HistoryStats, Http2Refused, Http2Stats, ListenerStats, MemberOptionsStats,
    MemberStats, Peers, PeersRejected, PeersState, PoolStats, ProcessStats, RateLimitStats, RateLimiterStats,
    Responses, TimeStats, TimesStats,
};
use amphora_model::{ListenerId, MemberId, PoolId, RateLimitPolicyId};
use uuid::Uuid;

use super::*;
use crate::{
    http2::guard::Excess,
    state::{CheckState, MemberStatus},
};

fn id(kind: u8, n: u16) -> Uuid {
    Uuid::from_u128(u128::from(kind) << 120 | u128::from(n))
}

fn info() -> Info {
    Info {
        version: "0.1.0".into(),
        instance: "a \"quoted\" \\ name\n".into(),
        pid: 1,
        workers: 2,
        uptime_ms: 1_234_567,
        loadbalancer: None,
        generation: 3,
        remarks: Vec::new(),
    }
}

fn member(n: u16) -> MemberStats {
    let responses = Responses { success: u64::from(n), ..Responses::default() };
    MemberStats {
        check: CheckState::Up,
        admin_state_up: true,
        weight: 1,
        backup: false,
        bytes_in: 100,
        bytes_out: u64::MAX / 100_000,
        active_sessions: 2,
        max_sessions: 3,
        total_sessions: 4,
        selected: 5,
        connects: 6,
        reuses: 7,
        idle: 8,
        idle_limit: 128,
        requests: 9,
        connect_errors: 10,
        response_errors: 11,
        retries: 12,
        redispatches: 13,
        client_aborts: 14,
        server_aborts: 15,
        responses,
        connect_time_us: 1_500_000,
        response_time_us: 20,
        total_time_us: 30_000_001,
        times: TimesStats {
            weight: 4,
            connect: TimeStats { sum_us: 4 * (u64::from(n) + 1) * 1000, max_us: 5000 + u64::from(n) },
            response: TimeStats { sum_us: 10, max_us: 9 },
            total: TimeStats { sum_us: 8_000_000, max_us: 3_000_000 },
        },
        history: HistoryStats {
            check_failures: 3,
            went_down: 1,
            unchanged_ms: 60_500,
            downtime_ms: 1_250,
            last_session_s: (n > 0).then_some(7),
            max_session_rate: 99,
        },
        // Not every pool grants its members something.
        member_options: (n == 1).then_some(MemberOptionsStats {
            weight_share: 4,
            ejections: 7,
            ejected: true,
            draining: false,
        }),
    }
}

fn stats(members: u16) -> Stats {
    let listener = ListenerId(id(1, 1));
    let pool = PoolStats {
        listeners: vec![listener],
        max_sessions: 6,
        total_sessions: 17,
        connect_errors: 1,
        responses: Responses { success: 20, server_error: 5, ..Responses::default() },
        handshakes: Handshakes::default(),
        http2: Http2Stats::default(),
        history: HistoryStats { went_down: 2, downtime_ms: 500, ..HistoryStats::default() },
        members: (0..members).map(|n| (MemberId(id(3, n)), member(n))).collect(),
        departed: MemberStats::default(),
    };
    Stats {
        instance: "x".into(),
        generation: 3,
        process: ProcessStats { connection_rate: 5, max_connections: 1000, ..ProcessStats::default() },
        listeners: [(
            listener,
            ListenerStats {
                bytes_in: 42,
                total_connections: 10,
                denied_connections: 1,
                ..ListenerStats::default()
            },
        )]
        .into(),
        pools: [(PoolId(id(2, 1)), pool)].into(),
        rate_limits: [(
            RateLimitPolicyId(id(4, 1)),
            RateLimitStats { listener, limited: 7, queued: 3, waited_ms: 1250, waiting: 2 },
        )]
        .into(),
        rate_limiter: Some(RateLimiterStats { places: 131_072, used: 5, forgotten: 1 }),
    }
}

fn peers() -> Peers {
    Peers {
        state: PeersState::Connected,
        tables: 2,
        connections: 3,
        entries_taken: 4,
        rejected: PeersRejected { key: 5, silent: 6, ..PeersRejected::default() },
        ..Peers::default()
    }
}

const USAGE: Usage =
    Usage { resident_bytes: Some(34_567_168), open_descriptors: Some(123), max_descriptors: Some(1_048_576) };

fn text(stats: &Stats) -> String {
    text_with(stats, Some(&peers()))
}

fn text_with(stats: &Stats, peers: Option<&Peers>) -> String {
    let mut out = String::new();
    let host = Some(Host { cpu_percent: 12.5, memory_percent: 50.0 });
    let (info, expiry) = (info(), HashMap::new());
    let input =
        MetricsInput { info: &info, stats, loadbalancer: None, expiry: &expiry, peers, host, usage: USAGE };
    render(&input, &mut out);
    out
}

fn value<'a>(text: &'a str, series: &str) -> &'a str {
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

const POOL: &str = r#"pool="02000000-0000-0000-0000-000000000001""#;

fn of_pool(name: &str, more: &str) -> String {
    format!("{name}{{{POOL}{more}}}")
}

fn of_member(name: &str, n: u16, more: &str) -> String {
    of_pool(name, &format!(",member=\"{}\"{more}", id(3, n)))
}

#[test]
fn what_a_pool_grants_a_member_is_told_of_those_of_such_pools() {
    let text = text(&stats(3));
    let of = |name: &str| value(&text, &of_member(name, 1, "")).to_owned();
    assert_eq!(of("amphora_member_weight_ratio"), "0.25");
    assert_eq!(of("amphora_member_ejections_total"), "7");
    assert_eq!([of("amphora_member_ejected"), of("amphora_member_draining")], ["1", "0"]);
    assert!(!text.contains(&of_member("amphora_member_ejected", 0, "")));
}

#[test]
fn samples_have_their_values_and_labels() {
    let text = text(&stats(3));
    assert_eq!(value(&text, "octavia_loadbalancer_cpu"), "12.5");
    assert_eq!(value(&text, "octavia_loadbalancer_memory"), "50");
    assert_eq!(value(&text, "amphora_proxy_uptime_seconds"), "1234.567000");
    assert_eq!(value(&text, "amphora_proxy_resident_memory_bytes"), "34567168");
    assert_eq!(value(&text, "amphora_proxy_open_fds"), "123");
    assert_eq!(value(&text, "amphora_proxy_max_fds"), "1048576");
    assert_eq!(value(&text, r#"amphora_proxy_info{version="0.1.0",instance="a \"quoted\" \\ name\n"}"#), "1");
    let listener = r#"listener="01000000-0000-0000-0000-000000000001""#;
    assert_eq!(value(&text, &format!("octavia_listener_bytes_in_total{{{listener}}}")), "42");
    assert_eq!(value(&text, &format!("octavia_listener_status{{{listener},state=\"UP\"}}")), "1");
    assert_eq!(value(&text, &of_pool("octavia_pool_bytes_in_total", "")), "300");
    assert_eq!(value(&text, &of_pool("octavia_pool_http_responses_total", ",code=\"2xx\"")), "20");
    assert_eq!(value(&text, &of_pool("octavia_pool_http_requests_total", "")), "25");
    assert_eq!(value(&text, &of_member("octavia_member_http_responses_total", 2, ",code=\"2xx\"")), "2");
    assert_eq!(value(&text, &of_member("amphora_member_connect_time_seconds_total", 0, "")), "1.500000");
}

#[test]
fn the_other_amphora_is_spoken_of_where_there_is_one() {
    let stats = stats(1);
    let text = text(&stats);
    for (series, expected) in [
        ("amphora_peers_connected", "1"),
        ("amphora_peers_tables", "2"),
        ("amphora_peers_connections_total", "3"),
        ("amphora_peers_entries_taken_total", "4"),
        (r#"amphora_peers_rejected_total{reason="key"}"#, "5"),
        (r#"amphora_peers_rejected_total{reason="silent"}"#, "6"),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    let lost = Peers { state: PeersState::Disconnected, ..peers() };
    assert_eq!(value(&text_with(&stats, Some(&lost)), "amphora_peers_connected"), "0");
    assert!(!text_with(&stats, None).contains("amphora_peers_"));
}

#[test]
fn rate_limits_are_told_of_where_there_are_any() {
    let mut stats = stats(1);
    let text = text(&stats);
    let labels = format!("{{listener=\"{}\",policy=\"{}\"}}", id(1, 1), id(4, 1));
    for (name, expected) in [
        ("limited_total", "7"),
        ("queued_total", "3"),
        ("queue_seconds_total", "1.250"),
        ("queue_length", "2"),
    ] {
        assert_eq!(value(&text, &format!("amphora_rate_limit_{name}{labels}")), expected);
    }
    assert_eq!(value(&text, "amphora_proxy_rate_limit_places_used"), "5");
    (stats.rate_limits, stats.rate_limiter) = (std::collections::BTreeMap::new(), None);
    assert!(!self::text(&stats).contains("rate_limit"));
}

#[test]
fn histories_and_times_are_in_seconds() {
    let text = text(&stats(2));
    assert_eq!(value(&text, "octavia_loadbalancer_current_connection_rate"), "5");
    assert_eq!(value(&text, "octavia_loadbalancer_max_connections"), "1000");
    let listener = r#"listener="01000000-0000-0000-0000-000000000001""#;
    assert_eq!(value(&text, &format!("octavia_listener_connections_total{{{listener}}}")), "11");
    assert_eq!(value(&text, &format!("octavia_listener_sessions_total{{{listener}}}")), "10");
    for (name, expected) in [
        ("check_up_down_total", "2"),
        ("downtime_seconds_total", "0.500"),
        ("last_session_seconds", "-1"),
        ("max_sessions", "6"),
        ("connect_time_average_seconds", "0.001500"),
        ("max_connect_time_seconds", "0.005001"),
    ] {
        assert_eq!(value(&text, &of_pool(&format!("octavia_pool_{name}"), "")), expected, "{name}");
    }
    for (name, expected) in [
        ("check_failures_total", "3"),
        ("check_up_down_total", "1"),
        ("check_last_change_seconds", "60.500"),
        ("downtime_seconds_total", "1.250"),
        ("last_session_seconds", "7"),
        ("max_session_rate", "99"),
        ("idle_connections_limit", "128"),
        ("connect_time_average_seconds", "0.002000"),
        ("response_time_average_seconds", "0.000002"),
        ("total_time_average_seconds", "2.000000"),
        ("max_connect_time_seconds", "0.005001"),
        ("max_total_time_seconds", "3.000000"),
    ] {
        assert_eq!(value(&text, &of_member(&format!("octavia_member_{name}"), 1, "")), expected, "{name}");
    }
    assert_eq!(value(&text, &of_member("octavia_member_last_session_seconds", 0, "")), "-1", "never");
}

#[test]
fn statuses_are_haproxys() {
    let mut stats = stats(5);
    let pool = stats.pools.values_mut().next().unwrap();
    let mut change = |n: u16, change: fn(&mut MemberStats)| {
        change(pool.members.get_mut(&MemberId(id(3, n))).unwrap());
    };
    change(0, |m| m.check = CheckState::DownRising { passed: 1, of: 3 });
    change(1, |m| m.weight = 0);
    change(2, |m| m.admin_state_up = false);
    change(3, |m| m.backup = true);
    change(4, |m| m.check = CheckState::UpFailing { passed: 1, of: 2 });
    let text = text(&stats);
    for (n, expected) in ["DOWN", "DRAIN", "MAINT", "UP", "UP"].into_iter().enumerate() {
        for state in MemberStatus::ALL.map(MemberStatus::as_str) {
            let series = of_member("octavia_member_status", n as u16, &format!(",state=\"{state}\""));
            assert_eq!(value(&text, &series), if state == expected { "1" } else { "0" });
        }
    }
    assert_eq!(value(&text, &of_pool("octavia_pool_active_members", "")), "1");
    assert_eq!(value(&text, &of_pool("octavia_pool_backup_members", "")), "1");
    assert_eq!(value(&text, &of_pool("octavia_pool_status", ",state=\"UP\"")), "1");
}

#[test]
fn a_pool_without_members_is_up_and_one_without_a_usable_member_is_down() {
    let mut stats = stats(0);
    assert_eq!(value(&text(&stats), &of_pool("octavia_pool_status", ",state=\"UP\"")), "1");
    let down = MemberStats { check: CheckState::Down, ..member(0) };
    stats.pools.values_mut().next().unwrap().members.insert(MemberId(id(3, 0)), down);
    assert_eq!(value(&text(&stats), &of_pool("octavia_pool_status", ",state=\"DOWN\"")), "1");
}

#[test]
fn deleted_objects_leave_no_trace() {
    let mut stats = stats(2);
    let before = text(&stats);
    let pool = stats.pools.values_mut().next().unwrap();
    let (gone, _) = pool.members.pop_first().unwrap();
    let after = text(&stats);
    assert!(before.contains(&gone.to_string()) && !after.contains(&gone.to_string()));
    stats.pools.clear();
    assert!(!text(&stats).contains("octavia_member_"), "a metric without series has no head either");
}

#[test]
fn pieces_are_small_and_make_up_the_whole() {
    let stats = stats(5000);
    let whole = text(&stats);
    let info = info();
    let host = Some(Host { cpu_percent: 12.5, memory_percent: 50.0 });
    let peers = peers();
    let input = MetricsInput {
        info: &info,
        stats: &stats,
        loadbalancer: None,
        expiry: &HashMap::new(),
        peers: Some(&peers),
        host,
        usage: USAGE,
    };
    let mut exposition = Exposition::new(&input);
    let (mut piece, mut at) = (String::new(), 0);
    loop {
        piece.clear();
        let more = exposition.write_piece(&mut piece, 16 << 10);
        assert!(piece.len() < 20 << 10, "{} bytes", piece.len());
        assert!(piece.is_empty() || piece.ends_with('\n'));
        assert_eq!(piece, whole[at..at + piece.len()]);
        at += piece.len();
        if !more {
            break;
        }
    }
    assert_eq!(at, whole.len());
}

#[test]
fn every_metric_is_written() {
    let text = text(&stats(2));
    let written: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let declared: BTreeSet<_> = families::all().map(|family| family.name).collect();
    assert_eq!(declared.len(), families::all().count(), "a name occurs twice");
    let missing: Vec<_> = declared.difference(&written).collect();
    // What there is no document for: no listener is known to have a limit, or to speak TLS or HTTP/2.
    let (edge, missing): (Vec<_>, Vec<_>) =
        missing.into_iter().partition(|name| name.contains("_tls_") || name.contains("_http2_"));
    assert_eq!((edge.len(), missing), (17, vec![&"octavia_listener_limit_sessions"]));
}

/// One load balancer with a listener of each protocol, and a pool with TLS and one without.
fn document() -> LoadBalancer {
    let listener = |n: u16, protocol: &str| {
        let mut listener = serde_json::json!({
            "id": id(1, n), "protocol": protocol, "protocol_port": n, "default_pool_id": id(2, 1),
        });
        if protocol == "TERMINATED_HTTPS" {
            listener["default_tls_container_ref"] = "a".into();
        }
        listener
    };
    let document = serde_json::json!({"loadbalancer": {
        "id": id(9, 1),
        "vip_address": "192.0.2.1",
        "listeners": [listener(1, "HTTP"), listener(2, "TERMINATED_HTTPS"), listener(3, "TCP")],
        "pools": [
            {"id": id(2, 1), "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"},
            {"id": id(2, 2), "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "tls_enabled": true},
        ],
    }});
    LoadBalancer::from_value(&document).unwrap()
}

#[test]
fn tls_and_http2_are_told_of_where_they_are_spoken() {
    let mut stats = stats(0);
    let handshakes = Handshakes {
        completed: 9,
        resumed: 4,
        failed: HandshakesFailed { certificate: 2, ..HandshakesFailed::default() },
    };
    let http2 = Http2Stats {
        connections: 3,
        streams: 50,
        resets_received: 6,
        resets_sent: 7,
        refused: Http2Refused { resets: 1, frame_size: 2, ..Http2Refused::default() },
    };
    let listener = ListenerStats { handshakes, http2, ..ListenerStats::default() };
    for n in 1..=3 {
        stats.listeners.insert(ListenerId(id(1, n)), listener);
    }
    let pool = stats.pools.values().next().unwrap().clone();
    stats.pools.insert(PoolId(id(2, 2)), PoolStats { handshakes, http2, ..pool });
    let document = document();
    let shown = [("web", 1_900_000_000), ("before-1970", -1)].map(|(id, until)| (id.parse().unwrap(), until));
    let expiry = HashMap::from([(ListenerId(id(1, 2)), Arc::from(shown))]);
    let mut text = String::new();
    let input = MetricsInput {
        info: &info(),
        stats: &stats,
        loadbalancer: Some(&document),
        expiry: &expiry,
        peers: None,
        host: None,
        usage: USAGE,
    };
    render(&input, &mut text);
    let of = |object: &str, uuid: Uuid, more: &str| format!("{{{object}=\"{uuid}\"{more}}}");
    for (certificate, expected) in [("web", "1900000000"), ("before-1970", "-1")] {
        let name = "amphora_listener_tls_certificate_expiry_timestamp_seconds";
        let labels = of("listener", id(1, 2), &format!(",certificate=\"{certificate}\""));
        assert_eq!(value(&text, &format!("{name}{labels}")), expected);
    }
    for (family, more, expected) in [
        ("tls_handshakes_total", "", "9"),
        ("tls_handshakes_resumed_total", "", "4"),
        ("tls_handshakes_failed_total", ",reason=\"certificate\"", "2"),
        ("tls_handshakes_failed_total", ",reason=\"late\"", "0"),
    ] {
        let listener = format!("amphora_listener_{family}");
        assert_eq!(value(&text, &format!("{listener}{}", of("listener", id(1, 2), more))), expected);
        let pool = format!("amphora_pool_{family}");
        assert_eq!(value(&text, &format!("{pool}{}", of("pool", id(2, 2), more))), expected);
    }
    for (object, n) in [("listener", 1), ("listener", 2), ("pool", 2)] {
        let uuid = id(if object == "pool" { 2 } else { 1 }, n);
        for (family, more, expected) in [
            ("connections_total", "", "3"),
            ("streams_total", "", "50"),
            ("resets_received_total", "", "6"),
            ("resets_sent_total", "", "7"),
            ("refused_total", ",reason=\"resets\"", "1"),
            ("refused_total", ",reason=\"frame_size\"", "2"),
            ("refused_total", ",reason=\"pings\"", "0"),
        ] {
            let family = format!("amphora_{object}_http2_{family}");
            assert_eq!(value(&text, &format!("{family}{}", of(object, uuid, more))), expected);
        }
    }
    // Nor do others have any.
    for (name, objects) in [
        ("amphora_listener_tls_", 1),
        ("amphora_pool_tls_", 1),
        ("amphora_listener_http2_", 2),
        ("amphora_pool_http2_", 1),
    ] {
        let lines = text.lines().filter(|line| line.starts_with(name));
        let ids: BTreeSet<_> = lines.map(|line| line.split('"').nth(1).unwrap()).collect();
        assert_eq!(ids.len(), objects, "{name}: {ids:?}");
    }
    let names: BTreeSet<_> = Excess::ALL.iter().map(|excess| excess.name()).collect();
    let reasons = rows::refusals(&http2.refused);
    assert!(names.iter().all(|name| reasons.iter().any(|(reason, _)| reason == name)), "as in the log");
}

#[test]
fn the_documentation_lists_every_metric() {
    let doc = include_str!("../../../docs/metrics.md");
    let documented: BTreeSet<_> = doc
        .lines()
        .filter(|line| line.starts_with("| `") && !line.starts_with("| `amphora_agent_"))
        .filter(|line| !line.starts_with("| `amphora_controller_"))
        // Another table compares them with HAProxy's.
        .filter(|line| line.contains("` | counter | ") || line.contains("` | gauge | "))
        .map(str::to_owned)
        .collect();
    let declared: BTreeSet<_> =
        families::all().map(|f| format!("| `{}` | {} | {} |", f.name, f.kind.as_str(), f.help)).collect();
    assert_eq!(declared, documented);
}

/// What Octavia's own PROMETHEUS listener has: HELP and TYPE of each metric.
const OCTAVIA: &str = include_str!("octavia.txt");

#[test]
fn metrics_with_octavias_names_are_octavias() {
    for family in families::all().filter(|family| family.name.starts_with("octavia_")) {
        let (name, help, kind) = (family.name, family.help, family.kind.as_str());
        let head = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        assert!(OCTAVIA.contains(&head), "{head}");
    }
}

#[test]
fn the_documentation_says_why_a_metric_of_octavia_is_missing() {
    let doc = include_str!("../../../docs/metrics.md");
    let (_, section) = doc.split_once("## What Octavia has and this proxy does not").unwrap();
    let patterns: Vec<_> = section.split('`').skip(1).step_by(2).collect();
    let explained = |name: &str| patterns.iter().any(|pattern| matches(pattern, name));
    let present: BTreeSet<_> = families::all().map(|family| family.name).collect();
    for name in OCTAVIA.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert_ne!(explained(name), present.contains(name), "{name}");
    }
}

/// Whether a name is one that the pattern stands for, in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => {
            name.strip_prefix(start).is_some_and(|name| (0..=name.len()).any(|at| matches(rest, &name[at..])))
        }
    }
}

#[test]
fn promtool_finds_no_fault() {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("SKIPPED: promtool is not installed");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text(&stats(3)).as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let faults = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && faults.is_empty(), "{faults}");
}

#[test]
fn what_a_member_counted_stays_with_its_pool_when_it_is_gone() {
    let mut stats = stats(2);
    let series = of_pool("octavia_pool_connection_attempts_total", "");
    let before = value(&text(&stats), &series).to_owned();
    let pool = stats.pools.values_mut().next().unwrap();
    let (_, gone) = pool.members.pop_last().unwrap();
    pool.departed = MemberStats { connects: gone.connects, ..MemberStats::default() };
    let text = text(&stats);
    assert_eq!(value(&text, &series), before);
    assert_eq!(value(&text, &of_pool("octavia_pool_active_members", "")), "1");
}
