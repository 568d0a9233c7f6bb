//! The daemon's counters in Prometheus' text format.

use std::fmt::Write;

use super::api::{InstanceStatus, Status};
use crate::packet;

/// The `Content-Type` of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One value of an instance.
type Value = fn(&InstanceStatus) -> u64;

const COUNTERS: [(&str, &str, Value); 6] = [
    ("amphora_vrrp_advertisements_sent_total", "Advertisements sent.", |i| i.counters.sent),
    ("amphora_vrrp_advertisements_received_total", "Advertisements taken.", |i| i.counters.received),
    ("amphora_vrrp_priority_zero_sent_total", "Advertisements sent that say that this router stops.", |i| {
        i.counters.priority_zero_sent
    }),
    (
        "amphora_vrrp_priority_zero_received_total",
        "Advertisements taken that say that a master stops.",
        |i| i.counters.priority_zero_received,
    ),
    ("amphora_vrrp_became_master_total", "Times that this router became master.", |i| {
        i.counters.became_master
    }),
    ("amphora_vrrp_released_master_total", "Times that this router ceased to be master.", |i| {
        i.counters.released_master
    }),
];

const GAUGES: [(&str, &str, Value); 3] = [
    ("amphora_vrrp_priority", "The priority that this router advertises.", |i| u64::from(i.priority)),
    ("amphora_vrrp_fit", "Whether all that this router tracks is up.", |i| u64::from(i.fit)),
    ("amphora_vrrp_handed_over", "Whether this router has handed over.", |i| u64::from(i.handed_over)),
];

const STATES: [&str; 3] = ["INIT", "BACKUP", "MASTER"];

/// The whole text.
pub(super) fn text(status: &Status) -> String {
    let mut out = String::new();
    for (kind, table) in [("counter", &COUNTERS[..]), ("gauge", &GAUGES[..])] {
        for (name, help, value) in table {
            head(&mut out, name, help, kind);
            for instance in &status.instances {
                line(&mut out, name, instance, "", value(instance));
            }
        }
    }
    let name = "amphora_vrrp_state";
    head(&mut out, name, "The present state of this router is 1, the others are 0.", "gauge");
    for instance in &status.instances {
        for state in STATES {
            let more = format!(",state=\"{state}\"");
            line(&mut out, name, instance, &more, u64::from(instance.state == state));
        }
    }
    let name = "amphora_vrrp_advertisements_refused_total";
    head(&mut out, name, "Advertisements refused, by reason.", "counter");
    for instance in &status.instances {
        for reason in packet::Refusal::ALL {
            let count = instance.counters.refused.get(reason.as_str()).copied().unwrap_or_default();
            line(&mut out, name, instance, &format!(",reason=\"{}\"", reason.as_str()), count);
        }
    }
    out
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, instance: &InstanceStatus, more: &str, value: u64) {
    let label = instance.name.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let _ = writeln!(out, "{name}{{instance=\"{label}\"{more}}} {value}");
}
