//! Runs this proxy, HAProxy, nginx and pingora-proxy one after another on one core against the same backend, and
//! writes what each costs as Markdown. `docs/benchmarks.md` says what each number is.

mod picture;
mod samples;
mod tables;

use std::{
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
    load,
    peers::{Members, Peer, Programs, Running},
    process::{self, CoreTime, Cpu},
    report,
};
use clap::Parser;

use self::samples::{Cell, MemorySample, Results, Sample, failures, per_cpu, ratio, raw};

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
    /// Where a picture of the CPU time per request goes, as SVG.
    #[arg(long)]
    svg: Option<PathBuf>,
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
    if let Some(path) = &bench.args.svg {
        fs::write(path, bench.picture(&results).svg())?;
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
                _ => load::exchanges(target, &exchange, connections, None, conduct),
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
