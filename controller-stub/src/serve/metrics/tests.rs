#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
};

use super::*;
use crate::serve::{
    db,
    queue::{self, Kind},
};

/// Counters of this test alone, each with a row.
fn filled() -> Metrics {
    let metrics = Metrics::new();
    metrics.answered("GET", "loadbalancers", 200, Duration::from_millis(3));
    metrics.answered("BREW", "none", 405, Duration::from_millis(3));
    metrics.applied(Outcome::Done, Duration::from_millis(9));
    metrics.failed_over(Outcome::Failed);
    metrics.committed(Duration::from_millis(2));
    metrics.api_certificate_ends(Some(1_900_000_000));
    metrics.created(Duration::from_secs(1));
    metrics
}

fn rows() -> Rows {
    let (dir, connection) = db::scratch();
    let path = dir.path().join("serve.db");
    queue::enqueue(&connection, Kind::LoadBalancer, "a", 1000).unwrap();
    queue::enqueue(&connection, Kind::LoadBalancer, "b", 5000).unwrap();
    queue::failed(&connection, Kind::LoadBalancer, "b", "no room", 5000, 0.0).unwrap();
    connection
        .execute_batch(
            "INSERT INTO amphora (id, status, compute_driver, compute_id, lb_network_ip, agent_port, cert_expiration, created_at)
                VALUES ('a', 'READY', 'namespaces', 'c', '127.0.0.1', 1, 1900000000000, 0);
             INSERT INTO load_balancer (id, project_id, provisioning_status, operating_status, topology, compute_driver, provider,
                vip_address, vip_port_id, vip_subnet_id, vip_network_id, created_at)
                VALUES ('l', 'p', 'ERROR', 'ONLINE', 'SINGLE', 'namespaces', 'amphora', '192.0.2.1', '', '', '', 0);",
        )
        .unwrap();
    Rows::read(&connection, 8500, &path).unwrap()
}

#[test]
fn rows_are_counted_by_their_words() {
    let text = filled().text(&rows(), 2);
    for line in [
        "amphora_controller_api_requests_total{code=\"4xx\",method=\"other\",resource=\"none\"} 1",
        "amphora_controller_event_streams 2",
        "amphora_controller_work_items{kind=\"LOAD_BALANCER\",state=\"waiting\"} 1",
        "amphora_controller_work_items{kind=\"LOAD_BALANCER\",state=\"failing\"} 1",
        "amphora_controller_work_items{kind=\"AMPHORA_DELETE\",state=\"failing\"} 0",
        "amphora_controller_work_oldest_age_seconds{kind=\"LOAD_BALANCER\"} 7",
        "amphora_controller_amphorae{status=\"READY\"} 1",
        "amphora_controller_amphora_certificate_expiry_timestamp_seconds 1900000000",
        "amphora_controller_api_certificate_expiry_timestamp_seconds 1900000000",
        "amphora_controller_load_balancers_provisioning{provisioning_status=\"ERROR\"} 1",
        "amphora_controller_load_balancers_operating{operating_status=\"ONLINE\"} 1",
        "amphora_controller_failovers_total{outcome=\"done\"} 0",
        "amphora_controller_failovers_total{outcome=\"failed\"} 1",
        "amphora_controller_load_balancer_create_duration_seconds_bucket{le=\"1\"} 1",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
    }
    assert!(!text.contains("database_size_bytes 0\n"), "{text}");
}

#[test]
fn the_documentation_lists_every_series_with_its_labels() {
    let doc = include_str!("../../../../docs/metrics.md");
    let documented: BTreeSet<_> =
        doc.lines().filter(|line| line.starts_with("| `amphora_controller_")).map(str::to_owned).collect();
    let text = filled().text(&rows(), 0);
    let mut labels = BTreeMap::<&str, BTreeSet<&str>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once([' ', '{']).unwrap();
        let name =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let names = rest
            .split(['"', ',', '}'])
            .filter_map(|part| part.strip_suffix('='))
            .filter(|name| *name != "le");
        labels.entry(name).or_default().extend(names);
    }
    let helps = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let row = |((name, help), (_, kind)): ((&str, &str), (&str, &str))| {
        let labels: Vec<_> = labels[name].iter().map(|label| format!("`{label}`")).collect();
        format!("| `{name}` | {kind} | {} | {help} |", labels.join(", "))
    };
    let written: BTreeSet<_> = helps.zip(kinds).map(row).collect();
    assert_eq!(written, documented);
}

#[test]
fn promtool_finds_nothing_wrong() {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("SKIPPED: promtool (package prometheus) is not there");
        return;
    };
    promtool.stdin.take().unwrap().write_all(filled().text(&rows(), 1).as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}
