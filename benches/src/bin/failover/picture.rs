//! The outages as bars: for each event, what each setting makes of it.

use amphora_benches::{
    chart::{Axis, Bar, Chart, Group, Panel, milliseconds},
    report::machine,
};

use super::{Event, Outages};

/// A group for each event, in the order of the events' first appearance.
pub(super) fn of(all: &[Outages], rate: u32) -> Chart {
    let mut events: Vec<Event> = Vec::new();
    for outages in all {
        if !events.contains(&outages.event) {
            events.push(outages.event);
        }
    }
    let groups = events.into_iter().map(|event| Group {
        name: sentence(event).into(),
        bars: all.iter().filter(|outages| outages.event == event).map(bar).collect(),
    });
    let groups = groups.collect();
    let runs = all.iter().map(|outages| outages.runs.len()).max().unwrap_or(0);
    Chart {
        title: "A pair of amphorae: how long nobody answers at the VIP".into(),
        notes: vec![
            format!(
                "A client asks {rate} times a second, a connection each. Each event came {runs} times: a bar ends at the median, the \
                 whisker reaches from the shortest outage to the longest; lost are requests without an answer within 5 s, of all \
                 times together. Shorter is better."
            ),
            format!("{}.", machine()),
        ],
        panels: vec![Panel {
            caption: "Longest time without an answer, on a logarithmic axis".into(),
            axis: Axis::Logarithmic,
            tick: milliseconds,
            groups,
        }],
    }
}

fn bar(outages: &Outages) -> Bar {
    let range = outages.summary();
    let label = range.map_or("not measured".into(), |range| {
        let worst = if range.max > range.median {
            format!(", worst {}", milliseconds(range.max.round()))
        } else {
            String::new()
        };
        let median = milliseconds(range.median.round());
        format!("{median}{worst}; {} lost", outages.lost())
    });
    Bar { name: outages.choice.title().into(), range, label }
}

/// What happens, for those who have not read of it before.
fn sentence(event: Event) -> &'static str {
    match event {
        Event::MasterKilled => "The VRRP program of the master is killed",
        Event::ProxyKilled => "The proxy of the master is killed",
        Event::ProxyHung => "The proxy of the master hangs",
        Event::HandOver => "A planned hand-over (keepalived: stopped)",
        Event::LinkCut => "The link of the master is cut",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use amphora_tests::pair::Run;

    use super::*;
    use crate::Choice;

    fn outages(choice: Choice, event: Event, millis: &[u64], lost: usize) -> Outages {
        let run = |&outage| Run {
            outage: Duration::from_millis(outage),
            lost,
            requests: 1000,
            slowest: Duration::from_millis(outage),
        };
        Outages { choice, event, runs: millis.iter().map(run).collect() }
    }

    #[test]
    fn each_event_has_a_group_with_all_settings() {
        let chart = of(
            &[
                outages(Choice::Default, Event::ProxyKilled, &[6, 30, 5], 0),
                outages(Choice::Default, Event::LinkCut, &[3136], 7),
                outages(Choice::Keepalived, Event::ProxyKilled, &[6500, 6500], 20),
            ],
            1000,
        );
        let groups = &chart.panels[0].groups;
        let bars = |n: usize| {
            groups[n].bars.iter().map(|bar| (bar.name.as_str(), bar.label.as_str())).collect::<Vec<_>>()
        };
        assert_eq!(groups.len(), 2);
        assert_eq!(
            bars(0),
            [("amphora-vrrp, 1 s", "6 ms, worst 30 ms; 0 lost"), ("keepalived, 1 s", "6.5 s; 40 lost")]
        );
        assert_eq!(bars(1), [("amphora-vrrp, 1 s", "3.14 s; 7 lost")]);
    }
}
