//! The agent's own series. Those of the proxy and of the VRRP daemon are passed on in front of them.

use amphora_ipc::usage::Usage;
use bytes::Bytes;
use prometheus::{
    IntCounter, IntGauge, IntGaugeVec, Opts, TextEncoder, core::Collector, proto::MetricFamily,
};

use crate::tls::Expiry;

macro_rules! series {
    ($($(#[$doc:meta])* $field:ident: $kind:ident, $name:literal, $help:literal;)+) => {
        /// What the agent counts.
        #[derive(Debug)]
        pub struct Metrics {
            $($(#[$doc])* pub $field: $kind,)+
        }

        impl Default for Metrics {
            fn default() -> Self {
                Self { $($field: $kind::new($name, $help).expect(SOUND),)+ }
            }
        }

        impl Metrics {
            /// In the order above, which a registry would not keep.
            fn families(&self) -> impl Iterator<Item = MetricFamily> {
                [$(self.$field.collect(),)+].into_iter().flatten()
            }
        }
    };
}

/// Of a name and a help that stand in this file.
const SOUND: &str = "only what is no name, or no help, is refused";

series! {
    /// Connections at present, handshakes included.
    connections: IntGauge, "amphora_agent_connections", "REST connections that are open.";
    /// Peers that did not get through the handshake.
    handshakes_failed: IntCounter, "amphora_agent_handshakes_failed_total",
        "TLS handshakes that failed or took too long.";
    /// Answers with 2xx.
    requests_ok: IntCounter, "amphora_agent_requests_succeeded_total", "REST requests answered with 2xx.";
    /// Answers with 4xx.
    requests_client_error: IntCounter, "amphora_agent_requests_refused_total", "REST requests answered with 4xx.";
    /// Answers with 5xx.
    requests_server_error: IntCounter, "amphora_agent_requests_failed_total", "REST requests answered with 5xx.";
    /// Changes that came about.
    changes: IntCounter, "amphora_agent_configuration_changes_total", "Documents that were made to run.";
    /// Heartbeats that left.
    heartbeats: IntCounter, "amphora_agent_heartbeats_sent_total", "Heartbeats sent.";
    /// Heartbeats that the kernel did not take.
    heartbeats_failed: IntCounter, "amphora_agent_heartbeats_failed_total", "Heartbeats that could not be sent.";
    /// Heartbeats without the proxy's own word.
    heartbeats_blind: IntCounter, "amphora_agent_heartbeats_without_proxy_total",
        "Heartbeats for which the proxy did not answer.";
    /// Heartbeats that did not leave because the VRRP daemon was dead, or the proxy did not answer.
    heartbeats_withheld: IntCounter, "amphora_agent_heartbeats_withheld_total",
        "Heartbeats that did not leave: the VRRP daemon was dead, or the proxy did not answer.";
    /// Times that `--supervise` started a proxy.
    proxy_starts: IntCounter, "amphora_agent_proxy_starts_total", "Proxy processes started.";
    /// Times that `--supervise` started a VRRP daemon.
    vrrp_starts: IntCounter, "amphora_agent_vrrp_starts_total", "VRRP processes started.";
}

impl Metrics {
    /// The texts of the proxy and of the VRRP daemon, of those that gave one, and the agent's own series. `kept` are the certificates
    /// that documents may name: id, kind, and when they expire.
    pub fn text(
        &self,
        proxy: Option<Bytes>,
        vrrp: Option<Bytes>,
        has_vrrp: bool,
        expiry: &Expiry,
        kept: &[(String, &'static str, i64)],
    ) -> Vec<u8> {
        let mut families =
            gauge("amphora_agent_proxy_up", "Whether the proxy answers.", proxy.is_some().into());
        if has_vrrp {
            let help = "Whether the VRRP daemon answers; only with VRRP configured.";
            families.extend(gauge("amphora_agent_vrrp_up", help, vrrp.is_some().into()));
        }
        families.extend(self.families());
        families.extend(expiry_families(expiry));
        families.extend(kept_families(kept));
        families.extend(process_families(&Usage::read()));
        let mut all = Vec::new();
        for part in proxy.into_iter().chain(vrrp) {
            all.extend_from_slice(&part);
            if !all.is_empty() && !all.ends_with(b"\n") {
                all.push(b'\n');
            }
        }
        let own = TextEncoder::new().encode_to_string(&families).expect(SOUND);
        all.extend_from_slice(own.as_bytes());
        all
    }
}

/// A series that is asked for when it is written.
fn gauge(name: &str, help: &str, value: i64) -> Vec<MetricFamily> {
    let gauge = IntGauge::new(name, help).expect(SOUND);
    gauge.set(value);
    gauge.collect()
}

/// As seconds since 1970, which `time()` can be taken from.
fn expiry_families(expiry: &Expiry) -> impl Iterator<Item = MetricFamily> {
    let rows = [
        (
            "amphora_agent_certificate_expiry_timestamp_seconds",
            "When the agent's certificate, or the first of its chain, expires.",
            expiry.server,
        ),
        (
            "amphora_agent_client_ca_expiry_timestamp_seconds",
            "When the first of the authorities that sign controllers' certificates expires.",
            expiry.authorities,
        ),
        (
            "amphora_agent_crl_next_update_timestamp_seconds",
            "When the first revocation list expires and nobody gets in any more; only with agent_client_crl.",
            expiry.lists,
        ),
    ];
    rows.into_iter()
        .flat_map(|(name, help, at)| at.map(|at| gauge(name, help, at.unix_timestamp())))
        .flatten()
}

/// A row for each certificate; nothing without one.
fn kept_families(kept: &[(String, &'static str, i64)]) -> Vec<MetricFamily> {
    if kept.is_empty() {
        return Vec::new();
    }
    let options = Opts::new(
        "amphora_agent_kept_certificate_expiry_timestamp_seconds",
        "When a certificate that documents may name, the first of its chain or list, expires.",
    );
    let rows = IntGaugeVec::new(options, &["certificate", "kind"]).expect(SOUND);
    for (id, kind, at) in kept {
        rows.with_label_values(&[id.as_str(), kind]).set(*at);
    }
    rows.collect()
}

/// What the process has of the machine.
fn process_families(usage: &Usage) -> impl Iterator<Item = MetricFamily> {
    let rows = [
        ("amphora_agent_resident_memory_bytes", "Resident memory of the agent.", usage.resident_bytes),
        (
            "amphora_agent_open_fds",
            "Descriptors that the agent has open; with Linux 6.2 and newer.",
            usage.open_descriptors,
        ),
        ("amphora_agent_max_fds", "Descriptors that the agent may have open.", usage.max_descriptors),
    ];
    let row = |(name, help, value): (_, _, Option<u64>)| {
        value.map(|value| gauge(name, help, value.try_into().unwrap_or(i64::MAX)))
    };
    rows.into_iter().filter_map(row).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use time::OffsetDateTime;

    use super::*;

    fn expiry() -> Expiry {
        let at = |seconds| Some(OffsetDateTime::from_unix_timestamp(seconds).unwrap());
        Expiry { server: at(1_900_000_000), authorities: at(2_000_000_000), lists: at(-1) }
    }

    fn kept() -> Vec<(String, &'static str, i64)> {
        vec![("web.example.com".to_owned(), "identity", 1_950_000_000)]
    }

    #[test]
    fn the_documentation_lists_every_series() {
        let doc = include_str!("../../docs/metrics.md");
        let documented: BTreeSet<_> =
            doc.lines().filter(|line| line.starts_with("| `amphora_agent_")).map(str::to_owned).collect();
        let text = String::from_utf8(Metrics::default().text(None, None, true, &expiry(), &kept())).unwrap();
        let helps = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
        let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let written: BTreeSet<_> = helps
            .zip(kinds)
            .map(|((name, help), (_, kind))| format!("| `{name}` | {kind} | {help} |"))
            .collect();
        assert_eq!(written, documented);
    }

    #[test]
    fn the_text_is_this_to_the_letter() {
        let metrics = Metrics::default();
        metrics.connections.add(3);
        metrics.connections.dec();
        metrics.requests_ok.inc_by(12_345_678_901);
        metrics.changes.inc();
        let text =
            String::from_utf8(metrics.text(None, Some(Bytes::new()), true, &expiry(), &kept())).unwrap();
        let (text, resident) = text.split_once("amphora_agent_resident_memory_bytes ").unwrap();
        assert!(resident.starts_with("Resident memory of the agent.\n# TYPE "), "{resident}");
        assert_eq!(text, concat!(include_str!("metrics.golden"), "# HELP "));
    }

    #[test]
    fn every_series_is_written_once_behind_those_of_the_others() {
        let metrics = Metrics::default();
        metrics.changes.inc();
        let (proxy, vrrp) = (Bytes::from_static(b"haproxy_up 1"), Bytes::from_static(b"amphora_vrrp_fit 1"));
        let text =
            String::from_utf8(metrics.text(Some(proxy), Some(vrrp), true, &Expiry::default(), &[])).unwrap();
        let start = "haproxy_up 1\namphora_vrrp_fit 1\n# HELP amphora_agent_proxy_up ";
        assert!(text.starts_with(start), "{text}");
        assert!(text.contains("\namphora_agent_vrrp_up 1\n"), "{text}");
        assert!(text.contains("\namphora_agent_configuration_changes_total 1\n"), "{text}");
        let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let mut unique = names.clone();
        unique.dedup();
        assert_eq!(names, unique);
        let alone = String::from_utf8(metrics.text(None, None, false, &Expiry::default(), &[])).unwrap();
        assert!(alone.starts_with("# HELP amphora_agent_proxy_up") && !alone.contains("vrrp_up"), "{alone}");
        assert!(!alone.contains("timestamp"), "{alone}");
    }
}
