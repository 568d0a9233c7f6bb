//! Runs this proxy, HAProxy, nginx and pingora-proxy one after another on one core against the same backend, and
//! writes what each costs as Markdown. `docs/benchmarks.md` says what each number is.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use amphora_benches::{
    Result,
    backend::{Backend, Service},
    exchange::Exchange,
    load::{self, Tally},
    peers::{Members, Peer, Programs, Running},
    process::{self, CoreTime, Cpu},
    report::{self, Summary, Table},
};
use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Compares this proxy with HAProxy, nginx and pingora-proxy on one core.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Proxies to run.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "amphora,haproxy,nginx,pingora")]
    peers: Vec<Peer>,
    /// What to measure.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "keep-alive128,keep-alive10k,per-connection128,tcp-connect,tcp-bulk"
    )]
    cells: Vec<Cell>,
    /// Times that every proxy runs every cell, in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured seconds of each run.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// Seconds of load before the measurement starts.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Concurrent client connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Concurrent bulk streams.
    #[arg(long, default_value_t = 8)]
    bulk_connections: usize,
    /// Idle keep-alive connections for the memory per connection.
    #[arg(long, default_value_t = 1000)]
    idle_connections: usize,
    /// The core of the proxy under test; the last one by default.
    #[arg(long)]
    proxy_core: Option<usize>,
    /// The core of load generator and backend; the first one by default.
    #[arg(long)]
    load_core: Option<usize>,
    /// The proxies listen on this port of 127.0.0.1 and those after it.
    #[arg(long, default_value_t = 21000)]
    base_port: u16,
    /// Where the Markdown goes.
    #[arg(long, default_value = "target/side-by-side.md")]
    output: PathBuf,
    /// Where every single measurement goes, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Also fail when this proxy misses a target.
    #[arg(long)]
    check: bool,
    /// One short round, to see that everything works; the numbers mean little.
    #[arg(long)]
    quick: bool,
    /// This project's proxy; beside this program by default.
    #[arg(long)]
    amphora: Option<PathBuf>,
    /// HAProxy.
    #[arg(long, default_value = "haproxy")]
    haproxy: PathBuf,
    /// nginx.
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    /// The proxy of benches/peers; beside this program by default.
    #[arg(long)]
    pingora: Option<PathBuf>,
}

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Cell {
    KeepAlive128,
    KeepAlive10k,
    PerConnection128,
    TcpConnect,
    TcpBulk,
}

impl Cell {
    fn title(self) -> &'static str {
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
    fn target(self) -> Option<f64> {
        match self {
            Self::KeepAlive128 => Some(0.80),
            Self::KeepAlive10k => Some(0.85),
            Self::PerConnection128 => Some(0.65),
            Self::TcpConnect => None,
            Self::TcpBulk => Some(1.0),
        }
    }

    fn meets_target(self, ratio: f64) -> bool {
        self.target()
            .is_none_or(|target| if self == Self::TcpBulk { ratio >= target } else { ratio <= target })
    }

    fn is_tcp(self) -> bool {
        matches!(self, Self::TcpConnect | Self::TcpBulk)
    }

    fn columns(self) -> [&'static str; 2] {
        match self {
            Self::TcpBulk => ["Gbit per CPU second", "Gbit/s"],
            Self::TcpConnect => ["CPU µs/connection", "connections/s"],
            _ => ["CPU µs/request", "requests/s"],
        }
    }
}

/// One run of one cell by one peer.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    round: usize,
    /// CPU µs per exchange, or Gbit per CPU second.
    efficiency: f64,
    /// Exchanges per second, or Gbit/s.
    rate: f64,
    /// Microseconds.
    p50: Option<f64>,
    p99: Option<f64>,
    /// CPU time of the peer per time.
    busy: f64,
    /// The kernel's part of it.
    system: f64,
    /// CPU time that others had on the core of the peer, the hypervisor included, per time.
    foreign: f64,
    failures: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Serialize)]
struct MemorySample {
    round: usize,
    /// Bytes.
    idle: f64,
    /// Bytes per idle connection.
    per_connection: f64,
}

#[derive(Default)]
struct Results {
    versions: Vec<(Peer, String)>,
    samples: BTreeMap<(Cell, Peer), Vec<Sample>>,
    memory: BTreeMap<Peer, Vec<MemorySample>>,
    /// What could not be done, and why.
    troubles: Vec<String>,
}

struct Bench {
    args: Args,
    programs: Programs,
    members: Members,
    proxy_core: usize,
    load_core: usize,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("side-by-side: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: Args) -> Result<ExitCode> {
    if args.quick {
        (args.rounds, args.duration, args.warm_up) = (1, 1.0, 0.2);
    }
    let cores = process::cores()?;
    let (first, last) = (cores[0], cores[cores.len() - 1]);
    let (proxy_core, load_core) = (args.proxy_core.unwrap_or(last), args.load_core.unwrap_or(first));
    if proxy_core == load_core {
        return Err("the proxy and the load need a core each".into());
    }
    process::raise_open_files()?;
    process::pin(load_core)?;

    let http = Service::Http;
    let backend = Backend::start(&[http, http, http, Service::Tcp], load_core)?;
    let at = |i: usize| SocketAddr::from(([127, 0, 0, 1], backend.ports()[i]));
    let members = Members { first: [at(0), at(1)], second: at(2), tcp: at(3) };
    let here = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let programs = Programs {
        amphora: args.amphora.clone().unwrap_or_else(|| here.join("amphora-proxy")),
        haproxy: args.haproxy.clone(),
        nginx: args.nginx.clone(),
        pingora: args.pingora.clone().unwrap_or_else(|| here.join("amphora-bench-pingora")),
    };
    let bench = Bench { args, programs, members, proxy_core, load_core };
    let results = bench.measure()?;
    let report = bench.report(&results);
    if let Some(dir) = bench.args.output.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(&bench.args.output, &report)?;
    if let Some(path) = &bench.args.json {
        fs::write(path, serde_json::to_vec_pretty(&raw(&results))?)?;
    }
    println!("{report}");
    eprintln!("side-by-side: written to {}", bench.args.output.display());
    Ok(bench.verdict(&results))
}

impl Bench {
    fn measure(&self) -> Result<Results> {
        let mut results = Results::default();
        for &peer in &self.args.peers {
            match peer.version(&self.programs) {
                Ok(version) => results.versions.push((peer, version)),
                Err(e) => results.troubles.push(format!("{} did not take part: {e}", peer.name())),
            }
        }
        let dir = tempfile::tempdir()?;
        for round in 0..self.args.rounds {
            // Each round has another order, so that no peer always follows the same one.
            let mut peers: Vec<Peer> = results.versions.iter().map(|(peer, _)| *peer).collect();
            let shift = round % peers.len().max(1);
            peers.rotate_left(shift);
            let mut running = Vec::new();
            for peer in peers {
                match self.start(peer, round, dir.path(), &mut results) {
                    Ok(started) => running.push((peer, started)),
                    Err(e) => results.troubles.push(format!("round {}: {e}", round + 1)),
                }
            }
            for &cell in &self.args.cells {
                for (peer, running) in &running {
                    match self.sample(cell, round, running) {
                        Ok(Some(sample)) => {
                            eprintln!(
                                "round {} {}: {}: {} {}, {} {}",
                                round + 1,
                                cell.title(),
                                peer.name(),
                                report::digits(sample.efficiency),
                                cell.columns()[0],
                                report::digits(sample.rate),
                                cell.columns()[1],
                            );
                            results.samples.entry((cell, *peer)).or_default().push(sample);
                        }
                        Ok(None) => {}
                        Err(e) => {
                            let what = format!("round {}, {}, {}: {e}", round + 1, cell.title(), peer.name());
                            eprintln!("{what}");
                            results.troubles.push(what);
                        }
                    }
                }
            }
        }
        Ok(results)
    }

    /// Starts a peer and takes its memory, before any load and with idle connections.
    fn start(&self, peer: Peer, round: usize, dir: &Path, results: &mut Results) -> Result<Running> {
        let port = self.args.base_port + 10 * peer as u16;
        let dir = dir.join(format!("{}-{round}", peer.name()));
        let running = peer.start(&self.programs, &self.members, &dir, port, self.proxy_core)?;
        let before = running.process.memory()?.resident as f64;
        let connections = self.args.idle_connections;
        if connections > 0 {
            let idle = load::idle(running.http, &Exchange::http(128, true), connections)
                .map_err(|e| format!("{}: {connections} idle connections: {e}", peer.name()))?;
            let after = running.process.memory()?.resident as f64;
            drop(idle);
            let per_connection = (after - before) / connections as f64;
            results.memory.entry(peer).or_default().push(MemorySample {
                round,
                idle: before,
                per_connection,
            });
        }
        Ok(running)
    }

    fn sample(&self, cell: Cell, round: usize, running: &Running) -> Result<Option<Sample>> {
        let target = if cell.is_tcp() { running.tcp } else { Some(running.http) };
        let Some(target) = target else { return Ok(None) };
        let pids = running.process.tree()?;
        let connections = self.args.connections;
        let exchange = match cell {
            Cell::KeepAlive128 => Exchange::http(128, true),
            Cell::KeepAlive10k => Exchange::http(10 * 1024, true),
            Cell::PerConnection128 => Exchange::http(128, false),
            Cell::TcpConnect | Cell::TcpBulk => Exchange::tcp(false),
        };
        let window = load::measure(
            Duration::from_secs_f64(self.args.warm_up),
            Duration::from_secs_f64(self.args.duration),
            || Ok((Cpu::of(&pids)?, CoreTime::now(self.proxy_core)?)),
            |conduct| match cell {
                Cell::TcpBulk => load::bulk(target, self.args.bulk_connections, conduct),
                _ => load::exchanges(target, &exchange, connections, conduct),
            },
        )?;
        let (before, after) = (&window.before, &window.after);
        let cpu = after.0.since(&before.0).as_secs_f64();
        let elapsed = window.elapsed.as_secs_f64();
        let (core_busy, stolen) = after.1.since(&before.1);
        let (efficiency, rate) = per_cpu(cell, &window.tally, cpu, elapsed)?;
        let micros = |q: f64| {
            let latency = &window.tally.latency;
            (latency.count() > 0).then(|| latency.quantile(q).as_secs_f64() * 1e6)
        };
        Ok(Some(Sample {
            round,
            efficiency,
            rate,
            p50: micros(0.50),
            p99: micros(0.99),
            busy: cpu / elapsed,
            system: after.0.system_share_since(&before.0),
            foreign: ((core_busy + stolen).as_secs_f64() - cpu).max(0.0) / elapsed,
            failures: failures(&window.tally),
        }))
    }

    fn report(&self, results: &Results) -> String {
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
        let foreign = results.samples.values().flatten().map(|s| s.foreign);
        if let Some(foreign) = Summary::of(foreign) {
            text += &format!(
                "\nOthers had {:.1} % of the proxy's core in the median run and {:.1} % in the worst.\n",
                foreign.median * 100.0,
                foreign.max * 100.0
            );
        }
        for trouble in &results.troubles {
            text += &format!("\n* {trouble}");
        }
        text
    }

    fn verdict(&self, results: &Results) -> ExitCode {
        let failures: u64 = results.samples.values().flatten().flat_map(|s| s.failures.values()).sum();
        let mut good = failures == 0 && results.troubles.is_empty();
        if failures > 0 {
            eprintln!("side-by-side: {failures} exchanges failed");
        }
        if self.args.check {
            for &cell in &self.args.cells {
                let ratio = ratio(results, cell, Peer::Amphora, |s| Some(s.efficiency));
                if cell.target().is_some() && !ratio.is_some_and(|r| cell.meets_target(r.median)) {
                    eprintln!("side-by-side: {}: the target is missed", cell.title());
                    good = false;
                }
            }
        }
        if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Efficiency and rate; see [`Sample`].
fn per_cpu(cell: Cell, tally: &Tally, cpu: f64, elapsed: f64) -> Result<(f64, f64)> {
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

fn failures(tally: &Tally) -> BTreeMap<String, u64> {
    let kinds = tally.failures.iter().map(|(kind, n)| (format!("{kind:?}"), *n));
    let closes = (tally.announced_closes > 0).then(|| ("AnnouncedClose".to_owned(), tally.announced_closes));
    kinds.chain(closes).collect()
}

/// The ratio of a value to HAProxy's of the same round.
fn ratio(results: &Results, cell: Cell, peer: Peer, value: fn(&Sample) -> Option<f64>) -> Option<Summary> {
    let of = |peer| results.samples.get(&(cell, peer)).map(Vec::as_slice).unwrap_or_default();
    let reference = of(Peer::Haproxy);
    Summary::of(of(peer).iter().filter_map(|s| {
        let same_round = reference.iter().find(|r| r.round == s.round)?;
        Some(value(s)? / value(same_round)?)
    }))
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

#[derive(Serialize)]
struct RawCell<'a> {
    cell: &'static str,
    peer: &'static str,
    samples: &'a [Sample],
}

#[derive(Serialize)]
struct Raw<'a> {
    versions: Vec<(&'static str, &'a str)>,
    cells: Vec<RawCell<'a>>,
    memory: Vec<(&'static str, &'a [MemorySample])>,
    troubles: &'a [String],
}

fn raw(results: &Results) -> Raw<'_> {
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
