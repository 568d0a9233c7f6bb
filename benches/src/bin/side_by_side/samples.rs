//! What was measured.

use std::collections::{BTreeMap, BTreeSet};

use amphora_benches::{Result, load::Tally, peers::Peer, report::Summary};
use serde::Serialize;

use crate::cells::Cell;

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
    /// Lines of the flow log by exchange, where there is one.
    pub(crate) lines: Option<f64>,
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
    /// What a peer does not have, and why.
    pub(crate) lacking: BTreeSet<String>,
    /// What could not be done, and why.
    pub(crate) troubles: Vec<String>,
}

/// The ratio of a value to that of another peer in the same round.
pub(crate) fn ratio(
    results: &Results,
    cell: Cell,
    peer: Peer,
    to: Peer,
    value: fn(&Sample) -> Option<f64>,
) -> Option<Summary> {
    let of = |peer| results.samples.get(&(cell, peer)).map(Vec::as_slice).unwrap_or_default();
    let reference = of(to);
    Summary::of(of(peer).iter().filter_map(|s| {
        let same_round = reference.iter().find(|r| r.round == s.round)?;
        Some(value(s)? / value(same_round)?)
    }))
}

/// What a line of the flow log costs: CPU µs of a request with one, less that of a request without in the same round.
pub(crate) fn line_cost(results: &Results, peer: Peer) -> Vec<(usize, f64)> {
    let of = |cell| results.samples.get(&(cell, peer)).map(Vec::as_slice).unwrap_or_default();
    let cost = |logged: &Sample| {
        let plain = of(Cell::KeepAlive128).iter().find(|plain| plain.round == logged.round)?;
        Some((logged.round, logged.efficiency - plain.efficiency))
    };
    of(Cell::FlowLog128).iter().filter_map(cost).collect()
}

/// The same by HAProxy's.
pub(crate) fn line_ratio(results: &Results, peer: Peer) -> Option<Summary> {
    let reference = line_cost(results, Peer::Haproxy);
    Summary::of(line_cost(results, peer).iter().filter_map(|(round, cost)| {
        reference.iter().find(|(of, _)| of == round).map(|(_, theirs)| cost / theirs)
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
    pub(crate) lacking: Vec<&'a String>,
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
        lacking: results.lacking.iter().collect(),
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
