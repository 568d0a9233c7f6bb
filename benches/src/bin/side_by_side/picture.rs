//! The CPU time per request as bars: for each kind of load, what each proxy takes.

use amphora_benches::{
    chart::{Axis, Bar, Chart, Group, Panel, plain},
    peers::Peer,
    report::{self, Summary},
};

use crate::{
    Bench,
    cells::{Cell, Work},
    samples::{Results, Sample, foreign},
};

impl Bench {
    /// Less is better in all of it: what is efficiency in the tables is turned around.
    pub(crate) fn picture(&self, results: &Results) -> Chart {
        let versions: Vec<String> =
            results.versions.iter().map(|(peer, version)| format!("{} {version}", peer.name())).collect();
        let a = &self.args;
        let mut notes = vec![
            format!(
                "{}, one after another on one core. Rounds of {} s: {}; a bar ends at their median, the whisker reaches from the \
                 least to the most. Shorter is better.",
                versions.join(", "),
                a.duration,
                a.rounds
            ),
            format!("{}. {}", report::machine(), foreign(results).unwrap_or_default()),
        ];
        notes.extend(results.troubles.iter().cloned());
        Chart { title: "What a request costs".into(), notes, panels: panels(&a.cells, results) }
    }
}

fn panels(cells: &[Cell], results: &Results) -> Vec<Panel> {
    let (bulk, others): (Vec<Cell>, Vec<Cell>) = cells.iter().partition(|cell| cell.work() == Work::Bulk);
    let (handshakes, requests): (Vec<Cell>, Vec<Cell>) = others.iter().partition(|cell| cell.is_handshake());
    let panel = |caption: &str, cells: Vec<Cell>| Panel {
        caption: caption.into(),
        axis: Axis::Linear,
        tick: plain,
        groups: cells.into_iter().map(|cell| group(cell, results)).collect(),
    };
    let all = [
        panel("Microseconds of CPU time per request, or per connection", requests),
        panel("The same with a TLS handshake each", handshakes),
        panel("Milliseconds of CPU time per gigabit", bulk),
    ];
    all.into_iter().filter(|panel| !panel.groups.is_empty()).collect()
}

fn group(cell: Cell, results: &Results) -> Group {
    let bar = |&(peer, _): &(Peer, String)| {
        let samples = results.samples.get(&(cell, peer)).map(Vec::as_slice).unwrap_or_default();
        let range = Summary::of(samples.iter().map(|sample| cost(cell, sample)));
        let failures: u64 = samples.iter().flat_map(|sample| sample.failures.values()).sum();
        let failed = if failures > 0 { format!(", {failures} failed") } else { String::new() };
        let shown = range.map_or("not measured".into(), |range| range.show());
        Bar { name: peer.name().into(), range, label: shown + &failed }
    };
    Group { name: cell.title().into(), bars: results.versions.iter().map(bar).collect() }
}

/// CPU µs per exchange, or CPU ms per gigabit.
fn cost(cell: Cell, sample: &Sample) -> f64 {
    if cell.work() == Work::Bulk { 1000.0 / sample.efficiency } else { sample.efficiency }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn sample(efficiency: f64, failures: u64) -> Sample {
        Sample {
            round: 0,
            efficiency,
            rate: 1.0,
            p50: None,
            p99: None,
            busy: 1.0,
            system: 0.5,
            foreign: 0.02,
            lines: None,
            failures: [("Reset".to_owned(), failures)].into(),
        }
    }

    #[test]
    fn costs_stand_beside_those_of_the_peers_and_bulk_has_an_axis_of_its_own() {
        let mut results = Results {
            versions: vec![(Peer::Amphora, "0.1.0".into()), (Peer::Pingora, "0.6".into())],
            ..Results::default()
        };
        results
            .samples
            .insert((Cell::KeepAlive128, Peer::Amphora), [11.0, 12.0, 14.0].map(|e| sample(e, 0)).into());
        results.samples.insert((Cell::KeepAlive128, Peer::Pingora), vec![sample(30.0, 3)]);
        results.samples.insert((Cell::TcpBulk, Peer::Amphora), vec![sample(50.0, 0)]);
        let panels = panels(&[Cell::KeepAlive128, Cell::TcpBulk], &results);
        let labels =
            |n: usize| panels[n].groups[0].bars.iter().map(|bar| bar.label.as_str()).collect::<Vec<_>>();
        assert_eq!(labels(0), ["12.0 (11.0–14.0)", "30.0, 3 failed"]);
        assert_eq!(labels(1), ["20.0", "not measured"]);
        assert_eq!(panels[0].groups[0].bars[0].range.unwrap().max, 14.0);
        assert_eq!(
            foreign(&results).unwrap(),
            "Others had 2.0 % of the proxy's core in the median run and 2.0 % in the worst."
        );
    }
}
