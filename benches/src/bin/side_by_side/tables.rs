//! The report.

use std::collections::BTreeMap;

use amphora_benches::{
    peers::Peer,
    report::{self, Summary, Table},
};

use crate::{
    Bench,
    cells::{Cell, LINE_TARGET, Work},
    samples::{MemorySample, Results, Sample, foreign, line_cost, line_ratio, ratio},
};

impl Bench {
    /// All of it, as Markdown.
    pub(crate) fn report(&self, results: &Results) -> String {
        let a = &self.args;
        let mut text = format!(
            "# Side by side\n\n{}. Proxy on core {}, load and backend on core {}. {} rounds of {} s after {} s of warm-up, \
             {} connections ({} bulk streams; {} connections of HTTP/2 with as many streams under way in all). TLS is 1.3 with \
             TLS_AES_128_GCM_SHA256 and X25519, which is what all offered choose. Each number is the median of the rounds, with the range in \
             parentheses; each ratio is to HAProxy in the same round.\n\n",
            report::machine(),
            self.proxy_core,
            self.load_core,
            a.rounds,
            a.duration,
            a.warm_up,
            a.connections,
            a.bulk_connections,
            a.http2_connections
        );
        let mut table = Table::new(["proxy", "version"]);
        for (peer, version) in &results.versions {
            table.row([peer.name(), version]);
        }
        text += &table.markdown();
        for &cell in &a.cells {
            text += &format!("\n## {}\n\n", cell.title());
            if let Some(target) = cell.target() {
                text += &format!("{}\n\n", target.sentence());
            }
            text += &cell_table(cell, results).markdown();
        }
        if a.cells.contains(&Cell::FlowLog128) {
            text += &format!(
                "\n## A line of the flow log\n\nWhat it adds to a request of 128 B. Target for amphora-proxy: at most {LINE_TARGET:.2} of \
                 HAProxy's.\n\n"
            );
            text += &line_table(results).markdown();
        }
        text += "\n## Memory\n\n";
        text += &memory_table(results).markdown();
        if let Some(foreign) = foreign(results) {
            text += &format!("\n{foreign}\n");
        }
        for what in results.lacking.iter().chain(&results.troubles) {
            text += &format!("\n* {what}");
        }
        text
    }
}

fn cell_table(cell: Cell, results: &Results) -> Table {
    let [efficiency, rate] = cell.columns();
    let mut columns = vec!["proxy", efficiency, "ratio", rate, "ratio", "p50 µs", "ratio", "p99 µs", "ratio"];
    columns.extend(["core busy %", "in kernel %", "failures"]);
    let is_bulk = cell.work() == Work::Bulk;
    if is_bulk {
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
            row.push(report::show(ratio(results, cell, *peer, Peer::Haproxy, value)));
        };
        measure(|s| Some(s.efficiency));
        measure(|s| Some(s.rate));
        if !is_bulk {
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

fn line_table(results: &Results) -> Table {
    let mut table = Table::new(["proxy", "CPU µs/line", "ratio", "lines read by request"]);
    for (peer, _) in &results.versions {
        let samples = results.samples.get(&(Cell::FlowLog128, *peer)).map(Vec::as_slice).unwrap_or_default();
        table.row([
            peer.name().to_owned(),
            report::show(Summary::of(line_cost(results, *peer).into_iter().map(|(_, cost)| cost))),
            report::show(line_ratio(results, *peer)),
            report::show(Summary::of(samples.iter().filter_map(|sample| sample.lines))),
        ]);
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
