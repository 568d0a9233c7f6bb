//! The report.

use std::collections::BTreeMap;

use amphora_benches::{
    peers::Peer,
    report::{self, Summary, Table},
};

use crate::{
    Bench,
    samples::{Cell, MemorySample, Results, Sample, foreign, ratio},
};

impl Bench {
    /// All of it, as Markdown.
    pub(crate) fn report(&self, results: &Results) -> String {
        let a = &self.args;
        let mut text = format!(
            "# Side by side\n\n{}. Proxy on core {}, load and backend on core {}. {} rounds of {} s after {} s of warm-up, \
             {} connections ({} bulk streams). Each number is the median of the rounds, with the range in \
             parentheses; each ratio is to HAProxy in the same round.\n\n",
            report::machine(),
            self.proxy_core,
            self.load_core,
            a.rounds,
            a.duration,
            a.warm_up,
            a.connections,
            a.bulk_connections
        );
        let mut table = Table::new(["proxy", "version"]);
        for (peer, version) in &results.versions {
            table.row([peer.name(), version]);
        }
        text += &table.markdown();
        for &cell in &a.cells {
            text += &format!("\n## {}\n\n", cell.title());
            if let Some(target) = cell.target() {
                let bound = if cell == Cell::TcpBulk { "at least" } else { "at most" };
                text += &format!("Target for amphora-proxy: {bound} {target:.2} of HAProxy's.\n\n");
            }
            text += &cell_table(cell, results).markdown();
        }
        text += "\n## Memory\n\n";
        text += &memory_table(results).markdown();
        if let Some(foreign) = foreign(results) {
            text += &format!("\n{foreign}\n");
        }
        for trouble in &results.troubles {
            text += &format!("\n* {trouble}");
        }
        text
    }
}

fn cell_table(cell: Cell, results: &Results) -> Table {
    let [efficiency, rate] = cell.columns();
    let mut columns = vec!["proxy", efficiency, "ratio", rate, "ratio", "p50 µs", "ratio", "p99 µs", "ratio"];
    columns.extend(["core busy %", "in kernel %", "failures"]);
    if cell == Cell::TcpBulk {
        columns.drain(5..9);
    }
    let mut table = Table::new(columns.iter().copied());
    for (peer, _) in &results.versions {
        let Some(samples) = results.samples.get(&(cell, *peer)) else {
            let mut row = vec!["–"; columns.len()];
            row[0] = peer.name();
            table.row(row);
            continue;
        };
        let mut row = vec![peer.name().to_owned()];
        let mut measure = |value: fn(&Sample) -> Option<f64>| {
            row.push(report::show(Summary::of(samples.iter().filter_map(value))));
            row.push(report::show(ratio(results, cell, *peer, value)));
        };
        measure(|s| Some(s.efficiency));
        measure(|s| Some(s.rate));
        if cell != Cell::TcpBulk {
            measure(|s| s.p50);
            measure(|s| s.p99);
        }
        for share in [|s: &Sample| s.busy, |s: &Sample| s.system] {
            let median = Summary::of(samples.iter().map(share)).map_or(0.0, |s| s.median);
            row.push(format!("{:.0}", median * 100.0));
        }
        let mut kinds = BTreeMap::new();
        for (kind, n) in samples.iter().flat_map(|s| &s.failures) {
            *kinds.entry(kind).or_insert(0) += n;
        }
        let kinds: Vec<String> = kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        row.push(if kinds.is_empty() { "0".into() } else { kinds.join(", ") });
        table.row(row);
    }
    table
}

fn memory_table(results: &Results) -> Table {
    let mut table = Table::new([
        "proxy",
        "resident idle MiB",
        "ratio",
        "resident MiB per 1,000 idle connections",
        "ratio",
    ]);
    for (peer, _) in &results.versions {
        let of = |peer| results.memory.get(peer).map(Vec::as_slice).unwrap_or_default();
        let mut row = vec![peer.name().to_owned()];
        let mut measure = |value: fn(&MemorySample) -> f64| {
            row.push(report::show(Summary::of(of(peer).iter().map(value))));
            let reference = of(&Peer::Haproxy);
            row.push(report::show(Summary::of(of(peer).iter().filter_map(|s| {
                let same_round = reference.iter().find(|r| r.round == s.round)?;
                Some(value(s) / value(same_round))
            }))));
        };
        measure(|s| s.idle / 1_048_576.0);
        measure(|s| s.per_connection * 1000.0 / 1_048_576.0);
        table.row(row);
    }
    table
}
