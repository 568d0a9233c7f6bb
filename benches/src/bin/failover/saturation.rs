//! Whether a pair stays as it is while every core has more to do than it can.

use std::{fmt::Write, process::ExitCode, time::Duration};

use amphora_tests::pair::{Busy, Pair, Program, Setting};
use serde_json::Value;

use super::{Choice, start};

/// Runs a pair of ours for each setting, all at once.
pub(super) fn run(choices: &[Choice], time: Duration) -> (String, ExitCode) {
    let choices: Vec<_> = choices.iter().filter(|choice| choice.setting().program == Program::Ours).collect();
    // A worker for each core, as in an amphora.
    let settings = choices.iter().map(|choice| Setting { workers: None, ..choice.setting() });
    let pairs: Vec<Pair> = settings.clone().map(start).collect();
    let before: Vec<_> = pairs.iter().map(Pair::statuses).collect();
    let busy = Busy::start(&pairs);
    let captures: Vec<_> = pairs.iter().map(Pair::advertisements).collect();
    std::thread::sleep(time);
    let heard: Vec<_> = captures.into_iter().map(|capture| capture.finish()).collect();
    let (idle, answers) = (busy.idle(), busy.answers());
    let after: Vec<_> = pairs.iter().map(Pair::statuses).collect();
    drop(busy);

    let mut calm = true;
    let mut report = format!(
        "# Saturated\n\n{} s, {:.1} % of the cores' time idle, {answers} requests answered.\n\n",
        time.as_secs(),
        idle * 100.0
    );
    writeln!(report, "| setting | advertisements | interval ms | longest between two ms | changes of state | taken for hung |")
        .unwrap();
    writeln!(report, "| --- | ---: | ---: | ---: | ---: | ---: |").unwrap();
    for (n, choice) in choices.iter().enumerate() {
        let interval = choice.setting().centiseconds * 10;
        let (advertisements, longest) = heard[n];
        let changes = changes(&after[n]) - changes(&before[n]);
        let unfit = went_unfit(&after[n]) - went_unfit(&before[n]);
        calm &= changes == 0 && unfit == 0 && longest < Duration::from_millis(2 * u64::from(interval));
        writeln!(
            report,
            "| {} | {advertisements} | {interval} | {:.1} | {changes} | {unfit} |",
            choice.title(),
            longest.as_secs_f64() * 1e3
        )
        .unwrap();
    }
    eprint!("{report}");
    (report, if calm { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Times that a router of the pair became master or ceased to be.
fn changes(statuses: &[Value; 2]) -> u64 {
    let counters = statuses.iter().flat_map(|status| status["instances"].as_array().unwrap());
    counters
        .map(|instance| &instance["counters"])
        .map(|counters| {
            counters["became_master"].as_u64().unwrap() + counters["released_master"].as_u64().unwrap()
        })
        .sum()
}

/// Times that a data plane of the pair was taken for unfit.
fn went_unfit(statuses: &[Value; 2]) -> u64 {
    statuses.iter().map(|status| status["data_plane"]["went_unfit"].as_u64().unwrap()).sum()
}
