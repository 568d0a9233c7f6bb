//! How long a client of the VIP notices that an amphora of a pair fails, in network namespaces; see docs/benchmarks.md.

// A benchmark has nobody to hand an error to: what goes wrong ends it.
#![allow(clippy::unwrap_used)]

mod picture;
mod saturation;

use std::{fs, num::NonZeroUsize, path::PathBuf, process::ExitCode, time::Duration};

use amphora_benches::report::{Summary, Table, machine};
use amphora_tests::pair::{Client, Pair, Program, Run, Setting};
use clap::{Parser, ValueEnum};

/// Measures outages of a VIP as a client sees them: 1,000 requests a second, a connection each.
#[derive(Debug, Parser)]
#[command(name = "amphora-failover")]
struct Options {
    /// Settings to run.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Choice::Default, Choice::V3100ms, Choice::V310ms, Choice::Keepalived])]
    settings: Vec<Choice>,
    /// What happens.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Event::ALL)]
    events: Vec<Event>,
    /// Times that each happens in each setting.
    #[arg(long, default_value = "20")]
    repeats: NonZeroUsize,
    /// Requests per second.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Instead: keep every core busy for so many seconds, with a pair for each setting, and fail if one fails over.
    #[arg(long, value_name = "SECONDS")]
    saturate: Option<u64>,
    /// Where the Markdown goes.
    #[arg(long, default_value = "target/failover.md")]
    output: PathBuf,
    /// Where a picture of the outages goes, as SVG.
    #[arg(long, conflicts_with = "saturate")]
    svg: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// amphora-vrrp with Octavia's own text: version 2, an advertisement a second.
    Default,
    /// amphora-vrrp, version 3, each 100 ms.
    #[value(name = "100ms")]
    V3100ms,
    /// amphora-vrrp, version 3, each 10 ms.
    #[value(name = "10ms")]
    V310ms,
    /// keepalived with Octavia's own text and a check script.
    Keepalived,
}

impl Choice {
    fn setting(self) -> Setting {
        let of =
            |program, version, centiseconds| Setting { program, version, centiseconds, workers: Some(1) };
        match self {
            Self::Default => of(Program::Ours, 2, 100),
            Self::V3100ms => of(Program::Ours, 3, 10),
            Self::V310ms => of(Program::Ours, 3, 1),
            Self::Keepalived => of(Program::Keepalived, 2, 100),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Default => "amphora-vrrp, 1 s",
            Self::V3100ms => "amphora-vrrp, 100 ms",
            Self::V310ms => "amphora-vrrp, 10 ms",
            Self::Keepalived => "keepalived, 1 s",
        }
    }
}

/// What happens to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Event {
    /// Its VRRP program is killed.
    MasterKilled,
    /// Its proxy is killed.
    ProxyKilled,
    /// Its proxy is stopped by SIGSTOP.
    ProxyHung,
    /// It hands over as planned. keepalived has no such thing: it is stopped.
    HandOver,
    /// Its link is cut.
    LinkCut,
}

impl Event {
    const ALL: [Self; 5] =
        [Self::MasterKilled, Self::ProxyKilled, Self::ProxyHung, Self::HandOver, Self::LinkCut];

    fn title(self) -> &'static str {
        match self {
            Self::MasterKilled => "VRRP killed",
            Self::ProxyKilled => "proxy killed",
            Self::ProxyHung => "proxy hung",
            Self::HandOver => "hand-over",
            Self::LinkCut => "link cut",
        }
    }
}

/// The longest that is waited for the VIP to be served again.
const PATIENCE: Duration = Duration::from_secs(40);

fn main() -> ExitCode {
    let options = Options::parse();
    let (report, code) = match options.saturate {
        Some(seconds) => saturation::run(&options.settings, Duration::from_secs(seconds)),
        None => {
            let outages = measure(&options);
            if let Some(path) = &options.svg {
                fs::write(path, picture::of(&outages, options.rate).svg()).unwrap();
            }
            (report(&outages), ExitCode::SUCCESS)
        }
    };
    if let Some(directory) = options.output.parent() {
        fs::create_dir_all(directory).unwrap();
    }
    fs::write(&options.output, report).unwrap();
    eprintln!("failover: written to {}", options.output.display());
    code
}

/// What came of one event in one setting, each time.
struct Outages {
    choice: Choice,
    event: Event,
    runs: Vec<Run>,
}

impl Outages {
    /// Milliseconds.
    fn summary(&self) -> Option<Summary> {
        Summary::of(self.runs.iter().map(|run| millis(run.outage)))
    }

    fn lost(&self) -> usize {
        self.runs.iter().map(|run| run.lost).sum()
    }

    fn row(&self) -> [String; 7] {
        let outage =
            |of: fn(Summary) -> f64| self.summary().map_or("–".into(), |s| format!("{:.0}", of(s)));
        let slowest = self.runs.iter().map(|run| run.slowest).max().unwrap_or_default();
        [
            format!("{}: {}", self.choice.title(), self.event.title()),
            self.runs.len().to_string(),
            outage(|s| s.median),
            outage(|s| s.max),
            format!("{:.0}", millis(slowest)),
            self.lost().to_string(),
            self.runs.iter().map(|run| run.requests).sum::<usize>().to_string(),
        ]
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn measure(options: &Options) -> Vec<Outages> {
    let mut all = Vec::new();
    for &choice in &options.settings {
        for &event in &options.events {
            let runs =
                (0..options.repeats.get()).map(|_| run(choice.setting(), event, options.rate)).collect();
            let outages = Outages { choice, event, runs };
            eprintln!("{}", outages.row().join(" | "));
            all.push(outages);
        }
    }
    all
}

fn report(outages: &[Outages]) -> String {
    let mut table = Table::new([
        "setting: event",
        "runs",
        "outage median ms",
        "outage worst ms",
        "slowest answer ms",
        "lost",
        "requests",
    ]);
    outages.iter().for_each(|outages| table.row(outages.row()));
    format!(
        "# Failover\n\n{}. Milliseconds without an answer, median and worst; the longest that an answer took; requests lost, all \
         together.\n\n{}",
        machine(),
        table.markdown()
    )
}

fn run(setting: Setting, event: Event, rate: u32) -> Run {
    let mut pair = start(setting);
    let client = Client::start(pair.client(), pair.vip(), rate);
    client.more(rate as usize / 2, PATIENCE);
    match event {
        Event::MasterKilled => pair.kill_vrrp(),
        Event::ProxyKilled => pair.kill_proxy(),
        Event::ProxyHung => pair.stop_proxy(),
        Event::HandOver => pair.hand_over(),
        Event::LinkCut => pair.cut(),
    }
    pair.await_takeover(PATIENCE);
    client.more(rate as usize, PATIENCE);
    let run = client.finish();
    drop(pair);
    run
}

fn start(setting: Setting) -> Pair {
    Pair::start(setting).expect("network namespaces take root")
}
