//! What was measured.

use std::collections::BTreeMap;

use amphora_benches::{Result, load::Tally, peers::Peer, report::Summary};
use clap::ValueEnum;
use serde::Serialize;

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Cell {
    KeepAlive128,
    KeepAlive10k,
    PerConnection128,
    TcpConnect,
    TcpBulk,
}

impl Cell {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::KeepAlive128 => "HTTP keep-alive, 128 B",
            Self::KeepAlive10k => "HTTP keep-alive, 10 KiB",
            Self::PerConnection128 => "HTTP, a connection per request, 128 B",
            Self::TcpConnect => "TCP, connections of 64 B each way",
            Self::TcpBulk => "TCP bulk",
        }
    }

    /// The ratio to HAProxy that this proxy is to reach: at most for CPU per request, at least for
    /// throughput per CPU.
    pub(crate) fn target(self) -> Option<f64> {
        match self {
            Self::KeepAlive128 => Some(0.80),
            Self::KeepAlive10k => Some(0.85),
            Self::PerConnection128 => Some(0.65),
            Self::TcpConnect => None,
            Self::TcpBulk => Some(1.0),
        }
    }

    pub(crate) fn meets_target(self, ratio: f64) -> bool {
        self.target()
            .is_none_or(|target| if self == Self::TcpBulk { ratio >= target } else { ratio <= target })
    }

    pub(crate) fn is_tcp(self) -> bool {
        matches!(self, Self::TcpConnect | Self::TcpBulk)
    }

    pub(crate) fn columns(self) -> [&'static str; 2] {
        match self {
            Self::TcpBulk => ["Gbit per CPU second", "Gbit/s"],
            Self::TcpConnect => ["CPU µs/connection", "connections/s"],
            _ => ["CPU µs/request", "requests/s"],
        }
    }
}

/// One run of one cell by one peer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) round: usize,
    /// CPU µs per exchange, or Gbit per CPU second.
    pub(crate) efficiency: f64,
    /// Exchanges per second, or Gbit/s.
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    /// CPU time of the peer per time.
    pub(crate) busy: f64,
    /// The kernel's part of it.
    pub(crate) system: f64,
    /// CPU time that others had on the core of the peer, the hypervisor included, per time.
    pub(crate) foreign: f64,
    pub(crate) failures: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct MemorySample {
    pub(crate) round: usize,
    /// Bytes.
    pub(crate) idle: f64,
    /// Bytes per idle connection.
    pub(crate) per_connection: f64,
}

#[derive(Default)]
pub(crate) struct Results {
    pub(crate) versions: Vec<(Peer, String)>,
    pub(crate) samples: BTreeMap<(Cell, Peer), Vec<Sample>>,
    pub(crate) memory: BTreeMap<Peer, Vec<MemorySample>>,
    /// What could not be done, and why.
    pub(crate) troubles: Vec<String>,
}

/// The ratio of a value to HAProxy's of the same round.
pub(crate) fn ratio(
    results: &Results,
    cell: Cell,
    peer: Peer,
    value: fn(&Sample) -> Option<f64>,
) -> Option<Summary> {
    let of = |peer| results.samples.get(&(cell, peer)).map(Vec::as_slice).unwrap_or_default();
    let reference = of(Peer::Haproxy);
    Summary::of(of(peer).iter().filter_map(|s| {
        let same_round = reference.iter().find(|r| r.round == s.round)?;
        Some(value(s)? / value(same_round)?)
    }))
}

/// Efficiency and rate; see [`Sample`].
pub(crate) fn per_cpu(cell: Cell, tally: &Tally, cpu: f64, elapsed: f64) -> Result<(f64, f64)> {
    if cell == Cell::TcpBulk {
        let gbit = tally.bytes as f64 * 8.0 / 1e9;
        return Ok((gbit / cpu, gbit / elapsed));
    }
    if tally.exchanges == 0 {
        return Err("nothing was answered".into());
    }
    let exchanges = tally.exchanges as f64;
    Ok((cpu * 1e6 / exchanges, exchanges / elapsed))
}

pub(crate) fn failures(tally: &Tally) -> BTreeMap<String, u64> {
    let kinds = tally.failures.iter().map(|(kind, n)| (format!("{kind:?}"), *n));
    let closes = (tally.announced_closes > 0).then(|| ("AnnouncedClose".to_owned(), tally.announced_closes));
    kinds.chain(closes).collect()
}

#[derive(Serialize)]
pub(crate) struct RawCell<'a> {
    pub(crate) cell: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) samples: &'a [Sample],
}

#[derive(Serialize)]
pub(crate) struct Raw<'a> {
    pub(crate) versions: Vec<(&'static str, &'a str)>,
    pub(crate) cells: Vec<RawCell<'a>>,
    pub(crate) memory: Vec<(&'static str, &'a [MemorySample])>,
    pub(crate) troubles: &'a [String],
}

pub(crate) fn raw(results: &Results) -> Raw<'_> {
    let cells = results.samples.iter().map(|((cell, peer), samples)| RawCell {
        cell: cell.title(),
        peer: peer.name(),
        samples,
    });
    Raw {
        versions: results.versions.iter().map(|(peer, version)| (peer.name(), version.as_str())).collect(),
        cells: cells.collect(),
        memory: results.memory.iter().map(|(peer, samples)| (peer.name(), samples.as_slice())).collect(),
        troubles: &results.troubles,
    }
}

/// What others had of the proxy's core, as a sentence: the more, the less the numbers mean.
pub(crate) fn foreign(results: &Results) -> Option<String> {
    let shares = Summary::of(results.samples.values().flatten().map(|s| s.foreign * 100.0))?;
    Some(format!(
        "Others had {:.1} % of the proxy's core in the median run and {:.1} % in the worst.",
        shares.median, shares.max
    ))
}
