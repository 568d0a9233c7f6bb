//! The daemon's counters in Prometheus' text format.

use amphora_ipc::{
    usage::Usage,
    vrrp::{InstanceStatus, Status},
};
use prometheus::{
    TextEncoder,
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

use crate::packet;

/// The `Content-Type` of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One value of an instance.
type Value = fn(&InstanceStatus) -> u64;

/// One value of the daemon itself, where the kernel says it.
type Own = fn(&Usage) -> Option<u64>;

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

/// Of the daemon itself.
const PROCESS: [(&str, &str, Own); 3] = [
    ("amphora_vrrp_resident_memory_bytes", "Resident memory of the VRRP daemon.", |usage| {
        usage.resident_bytes
    }),
    (
        "amphora_vrrp_open_fds",
        "Descriptors that the VRRP daemon has open; with Linux 6.2 and newer.",
        |usage| usage.open_descriptors,
    ),
    ("amphora_vrrp_max_fds", "Descriptors that the VRRP daemon may have open.", |usage| {
        usage.max_descriptors
    }),
];

const STATES: [&str; 3] = ["INIT", "BACKUP", "MASTER"];

/// The whole text. What would have no series, because there is no virtual router or the kernel does not say, is not in it.
pub(super) fn text(status: &Status, usage: &Usage) -> String {
    let process = PROCESS.into_iter().map(|(name, help, value)| {
        let value = value(usage).map(|value| metric(MetricType::GAUGE, Vec::new(), value));
        family(name, help, MetricType::GAUGE, value.into_iter())
    });
    let families: Vec<_> = families(&status.instances)
        .into_iter()
        .chain(process)
        .filter(|family| !family.get_metric().is_empty())
        .collect();
    TextEncoder::new().encode_to_string(&families).expect("only a family without name or series is refused")
}

fn families(instances: &[InstanceStatus]) -> Vec<MetricFamily> {
    let by_kind = [(MetricType::COUNTER, &COUNTERS[..]), (MetricType::GAUGE, &GAUGES[..])];
    let plain = by_kind.into_iter().flat_map(|(kind, table)| table.iter().map(move |row| (kind, row)));
    let plain = plain.map(|(kind, (name, help, value))| {
        family(name, help, kind, instances.iter().map(|i| series(kind, i, None, value(i))))
    });
    let kind = MetricType::GAUGE;
    let state = instances.iter().flat_map(|i| {
        STATES.map(|state| series(kind, i, Some(("state", state)), u64::from(i.state == state)))
    });
    let help = "The present state of this router is 1, the others are 0.";
    let state = family("amphora_vrrp_state", help, kind, state);
    let kind = MetricType::COUNTER;
    let refused = instances.iter().flat_map(|i| {
        packet::Refusal::ALL.map(|reason| {
            let count = i.counters.refused.get(reason.as_str()).copied().unwrap_or_default();
            series(kind, i, Some(("reason", reason.as_str())), count)
        })
    });
    let help = "Advertisements refused, by reason.";
    let refused = family("amphora_vrrp_advertisements_refused_total", help, kind, refused);
    plain.chain([state, refused]).collect()
}

fn family(name: &str, help: &str, kind: MetricType, series: impl Iterator<Item = Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(series.collect());
    family
}

fn series(kind: MetricType, instance: &InstanceStatus, more: Option<(&str, &str)>, value: u64) -> Metric {
    let label = |(name, value): (&str, &str)| {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value.to_owned());
        label
    };
    let labels = [("instance", instance.name.as_str())].into_iter().chain(more).map(label);
    metric(kind, labels.collect(), value)
}

fn metric(kind: MetricType, labels: Vec<LabelPair>, value: u64) -> Metric {
    let mut metric = Metric::from_label(labels);
    // Exact below 2^53, as in Prometheus itself.
    let value = value as f64;
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use amphora_ipc::vrrp::{
        CountersStatus,
        examples::{instance, status},
    };

    use super::*;

    #[test]
    fn the_text_is_this_to_the_letter() {
        let counters = CountersStatus {
            sent: 12_345_678_901,
            received: 2,
            priority_zero_sent: 3,
            priority_zero_received: 4,
            became_master: 5,
            released_master: 6,
            refused: BTreeMap::from([("ttl".to_owned(), 7), ("own".to_owned(), 8)]),
        };
        let lb = InstanceStatus { vrid: 7, counters, ..instance("lb", "MASTER") };
        let other =
            InstanceStatus { vrid: 7, fit: false, handed_over: true, ..instance("a \"b\" \\ \n c", "INIT") };
        let usage = Usage {
            resident_bytes: Some(9_437_184),
            open_descriptors: Some(21),
            max_descriptors: Some(1_048_576),
        };
        assert_eq!(text(&status(vec![lb, other]), &usage), include_str!("metrics.golden"));
    }

    #[test]
    fn without_a_virtual_router_there_is_nothing_to_tell_of_one() {
        assert_eq!(text(&status(Vec::new()), &Usage::default()), "");
    }
}
