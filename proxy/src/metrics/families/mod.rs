//! Every metric, as a table: its name, its type, its help text (Octavia's where the name is Octavia's) and where its
//! samples come from.

mod listener;
mod member;
mod peers;
mod pool;
mod process;
mod rate_limit;

use amphora_ipc::proxy::{
    HandshakesFailed, HistoryStats, Http2Refused, Peers, Responses, TimeStats, TimesStats,
};

use super::{
    rows::{ListenerRow, MemberRow, PoolRow, ProcessRow, RateLimitRow, codes, reasons, refusals},
    sink::Sink,
};

/// A metric.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) series: Series,
}

/// A metric's type.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// Writes what one object has.
type Write<Row> = fn(&Row, &mut Sink<'_>);

/// The objects that a metric speaks of.
#[derive(Clone, Copy)]
pub(super) enum Series {
    Process(Write<ProcessRow>),
    Peers(Write<Peers>),
    Listener(Write<ListenerRow>),
    RateLimit(Write<RateLimitRow>),
    Pool(Write<PoolRow>),
    Member(Write<MemberRow>),
}

fn put_states(sink: &mut Sink<'_>, states: &[&str], present: &str) {
    for state in states {
        sink.put_with("state", state, u64::from(*state == present));
    }
}

fn put_codes(sink: &mut Sink<'_>, responses: &Responses) {
    for (code, count) in codes(responses) {
        sink.put_with("code", code, count);
    }
}

fn put_reasons(sink: &mut Sink<'_>, failed: &HandshakesFailed) {
    for (reason, count) in reasons(failed) {
        sink.put_with("reason", reason, count);
    }
}

fn put_refusals(sink: &mut Sink<'_>, refused: &Http2Refused) {
    for (reason, count) in refusals(refused) {
        sink.put_with("reason", reason, count);
    }
}

/// HAProxy's -1 is never.
fn put_last_session(sink: &mut Sink<'_>, history: &HistoryStats) {
    match history.last_session_s {
        Some(seconds) => sink.put(seconds),
        None => sink.put_float(-1.0),
    }
}

/// The mean of one of these times, µs.
fn mean(times: &TimesStats, time: TimeStats) -> u64 {
    time.sum_us.checked_div(times.weight).unwrap_or(0)
}

/// Every metric, in the order of the text.
pub(super) fn all() -> impl Iterator<Item = &'static Family> {
    [
        process::FAMILIES,
        peers::FAMILIES,
        listener::FAMILIES,
        rate_limit::FAMILIES,
        pool::FAMILIES,
        member::FAMILIES,
    ]
    .into_iter()
    .flatten()
}
