//! What `serve` counts, for Prometheus. What the database knows is read when it is asked for.
//!
//! | file | what |
//! | --- | --- |
//! | [`rows`] | what the rows say: work, amphorae, load balancers |

pub mod rows;
#[cfg(test)]
mod tests;

use std::{sync::LazyLock, time::Duration};

use amphora_ipc::usage::Usage;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    TextEncoder, core::Collector, proto::MetricFamily,
};

use self::rows::Rows;

/// The content type of the text.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Seconds of a request, and of an apply.
const REQUEST: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Seconds until a load balancer is made.
const CREATE: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0];

/// Seconds of a commit.
const COMMIT: &[f64] =
    &[0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 5.0];

/// Of a name, a help and labels that stand in this room.
const SOUND: &str = "only what is no name, or no help, is refused";

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// The counters of this process.
pub fn metrics() -> &'static Metrics {
    &METRICS
}

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is so.
    Done,
    /// It is tried again.
    Failed,
}

impl Outcome {
    const ALL: [Self; 2] = [Self::Done, Self::Failed];

    /// As the label has it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// What is counted.
#[derive(Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    apply_seconds: HistogramVec,
    create_seconds: Histogram,
    failovers: IntCounterVec,
    /// Heartbeats that were believed.
    pub heartbeats: IntCounter,
    /// Heartbeats that were not.
    pub heartbeats_refused: IntCounter,
    /// Heartbeats that came later than half of `heartbeat_timeout` after the one before.
    pub heartbeats_late: IntCounter,
    /// Amphorae whose replacement was asked for because they were silent.
    pub silent: IntCounter,
    /// Seconds since 1970; 0 without TLS.
    certificate_ends: IntGauge,
    commits: IntCounter,
    commit_seconds: Histogram,
}

impl Metrics {
    fn new() -> Self {
        let new = Self {
            requests: counters(
                "amphora_controller_api_requests_total",
                "Requests that were answered, by method, resource and class of status.",
                &["method", "resource", "code"],
            ),
            request_seconds: histograms(
                "amphora_controller_api_request_duration_seconds",
                "Time from the whole request to its answer; of a stream, to its beginning.",
                REQUEST,
                &["method", "resource"],
            ),
            apply_seconds: histograms(
                "amphora_controller_apply_duration_seconds",
                "Time that an amphora took to be as it is to be, by outcome.",
                REQUEST,
                &["outcome"],
            ),
            create_seconds: histogram(
                "amphora_controller_load_balancer_create_duration_seconds",
                "Time from the request for a load balancer until it is ACTIVE.",
                CREATE,
            ),
            failovers: counters(
                "amphora_controller_failovers_total",
                "Replacements of amphorae: done, or failed and tried again.",
                &["outcome"],
            ),
            heartbeats: counter("amphora_controller_heartbeats_total", "Heartbeats that were believed."),
            heartbeats_refused: counter(
                "amphora_controller_heartbeats_refused_total",
                "Heartbeats that were not believed: of another key, repeated or broken.",
            ),
            heartbeats_late: counter(
                "amphora_controller_heartbeats_late_total",
                "Heartbeats that came more than half of heartbeat_timeout after the one before.",
            ),
            silent: counter(
                "amphora_controller_amphorae_silent_total",
                "Amphorae that were not heard for heartbeat_timeout and are replaced.",
            ),
            certificate_ends: IntGauge::new(
                "amphora_controller_api_certificate_expiry_timestamp_seconds",
                "When the API's certificate, or the first of its chain, expires; only with TLS.",
            )
            .expect(SOUND),
            commits: counter(
                "amphora_controller_database_commits_total",
                "Transactions that have changed something.",
            ),
            commit_seconds: histogram(
                "amphora_controller_database_commit_duration_seconds",
                "Time of a transaction from its begin until it is on the disk.",
                COMMIT,
            ),
        };
        for outcome in Outcome::ALL {
            new.apply_seconds.with_label_values(&[outcome.as_str()]);
            new.failovers.with_label_values(&[outcome.as_str()]);
        }
        new
    }

    /// A request was answered. `resource` is one of few words.
    pub fn answered(&self, method: &str, resource: &str, status: u16, took: Duration) {
        const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        let code = match status {
            ..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            500.. => "5xx",
        };
        self.requests.with_label_values(&[method, resource, code]).inc();
        self.request_seconds.with_label_values(&[method, resource]).observe(took.as_secs_f64());
    }

    /// An amphora was told what it is to be.
    pub fn applied(&self, outcome: Outcome, took: Duration) {
        self.apply_seconds.with_label_values(&[outcome.as_str()]).observe(took.as_secs_f64());
    }

    /// A load balancer is ACTIVE for the first time.
    pub fn created(&self, took: Duration) {
        self.create_seconds.observe(took.as_secs_f64());
    }

    /// An amphora was replaced, or not yet.
    pub fn failed_over(&self, outcome: Outcome) {
        self.failovers.with_label_values(&[outcome.as_str()]).inc();
    }

    /// The API is given a certificate that ends at this time, in seconds since 1970.
    pub fn api_certificate_ends(&self, at: Option<i64>) {
        self.certificate_ends.set(at.unwrap_or_default());
    }

    /// A transaction is on the disk.
    pub fn committed(&self, took: Duration) {
        self.commits.inc();
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// All of it as a text. `streams` of events are open.
    pub fn text(&self, rows: &Rows, streams: usize) -> String {
        let streams = i64::try_from(streams).unwrap_or(i64::MAX);
        let mut families = self.requests.collect();
        families.extend(self.request_seconds.collect());
        families.extend(gauge(
            "amphora_controller_event_streams",
            "Streams of events that are open.",
            streams,
        ));
        families.extend(rows.families());
        families.extend(self.apply_seconds.collect());
        families.extend(self.create_seconds.collect());
        families.extend(self.failovers.collect());
        for one in
            [&self.heartbeats, &self.heartbeats_refused, &self.heartbeats_late, &self.silent, &self.commits]
        {
            families.extend(one.collect());
        }
        families.extend(self.commit_seconds.collect());
        if self.certificate_ends.get() != 0 {
            families.extend(self.certificate_ends.collect());
        }
        families.extend(process(&Usage::read()));
        // A family without a row has no place in the text.
        families.retain(|family| !family.get_metric().is_empty());
        TextEncoder::new().encode_to_string(&families).expect(SOUND)
    }
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect(SOUND)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(SOUND)
}

fn histogram(name: &str, help: &str, bounds: &[f64]) -> Histogram {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec())).expect(SOUND)
}

fn histograms(name: &str, help: &str, bounds: &[f64], labels: &[&str]) -> HistogramVec {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), labels).expect(SOUND)
}

fn gauge(name: &str, help: &str, value: i64) -> Vec<MetricFamily> {
    let gauge = IntGauge::new(name, help).expect(SOUND);
    gauge.set(value);
    gauge.collect()
}

fn gauges<'a>(
    (name, help): (&str, &str),
    labels: &[&str],
    rows: impl IntoIterator<Item = (Vec<&'a str>, i64)>,
) -> Vec<MetricFamily> {
    let gauges = IntGaugeVec::new(Opts::new(name, help), labels).expect(SOUND);
    for (values, value) in rows {
        gauges.with_label_values(&values).set(value);
    }
    gauges.collect()
}

/// What the process has of the machine.
fn process(usage: &Usage) -> impl Iterator<Item = MetricFamily> {
    let rows = [
        (
            "amphora_controller_resident_memory_bytes",
            "Resident memory of the controller.",
            usage.resident_bytes,
        ),
        (
            "amphora_controller_open_fds",
            "Descriptors that the controller has open; with Linux 6.2 and newer.",
            usage.open_descriptors,
        ),
        (
            "amphora_controller_max_fds",
            "Descriptors that the controller may have open.",
            usage.max_descriptors,
        ),
    ];
    let row = |(name, help, value): (_, _, Option<u64>)| {
        value.map(|value| gauge(name, help, value.try_into().unwrap_or(i64::MAX)))
    };
    rows.into_iter().filter_map(row).flatten()
}
