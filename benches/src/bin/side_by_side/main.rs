//! Runs this proxy, HAProxy, nginx and pingora-proxy one after another on one core against the same backend, and
//! writes what each costs as Markdown. `docs/benchmarks.md` says what each number is.

mod cells;
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
    load::{self, Tally, Target, http2::Width},
    peers::{Door, HttpMembers, Members, Peer, Place, Programs, Running, Setup},
    process::{self, CoreTime, Cpu},
    report,
    syslog::Syslog,
    tls::{Identities, Offer},
};
use clap::{Parser, ValueEnum as _};

use self::{
    cells::{Cell, LINE_TARGET, Work},
    samples::{MemorySample, Results, Sample, failures, line_ratio, per_cpu, ratio, raw},
};

/// Compares this proxy with HAProxy, nginx and pingora-proxy on one core.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Proxies to run.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "amphora,haproxy,nginx,pingora")]
    peers: Vec<Peer>,
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Cell::value_variants().to_vec())]
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
    /// Concurrent connections of HTTP/2, which have as many streams under way together as there are other connections.
    #[arg(long, default_value_t = 8)]
    http2_connections: usize,
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
    identities: Identities,
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

    let identities = Identities::new()?;
    let (http, https) = (Service::Http, Service::Https);
    let services = [http, http, http, https, https, https, Service::Tcp];
    let backend = Backend::with_tls(&services, Some(identities.member()?), load_core)?;
    let at = |i: usize| SocketAddr::from(([127, 0, 0, 1], backend.ports()[i]));
    let of_http = |i| HttpMembers { first: [at(i), at(i + 1)], second: at(i + 2) };
    let members = Members { plain: of_http(0), tls: of_http(3), tcp: at(6) };
    let here = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let programs = Programs {
        amphora: args.amphora.clone().unwrap_or_else(|| here.join("amphora-proxy")),
        haproxy: args.haproxy.clone(),
        nginx: args.nginx.clone(),
        pingora: args.pingora.clone().unwrap_or_else(|| here.join("amphora-bench-pingora")),
    };
    let bench = Bench { args, programs, members, identities, proxy_core, load_core };
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
        let syslog = Syslog::start(&dir.path().join("log"), self.load_core)?;
        let mut setups: Vec<Setup> = self.args.cells.iter().map(|cell| cell.setup()).collect();
        setups.sort();
        setups.dedup();
        for round in 0..self.args.rounds {
            // Each round has another order, so that no peer always follows the same one.
            let mut peers: Vec<Peer> = results.versions.iter().map(|(peer, _)| *peer).collect();
            let shift = round % peers.len().max(1);
            peers.rotate_left(shift);
            for &setup in &setups {
                self.measure_setup(setup, round, &peers, dir.path(), &syslog, &mut results);
            }
        }
        if results.samples.keys().any(|(cell, _)| *cell == Cell::FlowLog128) {
            eprintln!("side-by-side: a line of the flow log: {}", syslog.sample());
        }
        Ok(results)
    }

    /// All that is set up so, in one round.
    fn measure_setup(
        &self,
        setup: Setup,
        round: usize,
        peers: &[Peer],
        dir: &Path,
        syslog: &Syslog,
        results: &mut Results,
    ) {
        let mut running = Vec::new();
        for &peer in peers {
            let dir = dir.join(format!("{}-{setup:?}-{round}", peer.name()));
            let place = Place {
                programs: &self.programs,
                members: &self.members,
                identities: &self.identities,
                setup,
                syslog: Some(syslog.path()),
                dir: &dir,
                port: self.args.base_port + 10 * peer as u16,
                core: self.proxy_core,
            };
            if let Some(why) = peer.lacks(&place) {
                results.lacking.insert(format!("{}, {setup:?}: not available: {why}", peer.name()));
                continue;
            }
            match self.start(peer, round, &place, results) {
                Ok(started) => running.push((peer, started)),
                Err(e) => results.troubles.push(format!("round {}: {e}", round + 1)),
            }
        }
        for &cell in self.args.cells.iter().filter(|cell| cell.setup() == setup) {
            for (peer, running) in &running {
                let Some(address) = running.door(cell.door()) else { continue };
                match self.sample(cell, round, running, address, syslog) {
                    Ok(sample) => {
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
                    Err(e) => {
                        let what = format!("round {}, {}, {}: {e}", round + 1, cell.title(), peer.name());
                        eprintln!("{what}");
                        results.troubles.push(what);
                    }
                }
            }
        }
    }

    /// Starts a peer and takes its memory, before any load and with idle connections.
    fn start(&self, peer: Peer, round: usize, place: &Place<'_>, results: &mut Results) -> Result<Running> {
        let running = peer.start(place)?;
        let connections = self.args.idle_connections;
        if connections > 0
            && place.setup == Setup::Plain
            && let Some(http) = running.door(Door::Http)
        {
            let before = running.process.memory()?.resident as f64;
            let idle = load::idle(http, &Exchange::http(128, true), connections)
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

    fn sample(
        &self,
        cell: Cell,
        round: usize,
        running: &Running,
        address: SocketAddr,
        syslog: &Syslog,
    ) -> Result<Sample> {
        let pids = running.process.tree()?;
        let connections = self.args.connections;
        let work = cell.work();
        let offer = if matches!(work, Work::Streams(_)) { Offer::Http2 } else { Offer::Http1 };
        let tls = match cell.door() {
            Door::Http | Door::Tcp | Door::H2c => None,
            Door::Ecdsa | Door::Rsa | Door::Reencrypt => Some(self.identities.client(offer)?),
        };
        let target = &Target { address, tls, resumes: matches!(work, Work::Resumptions(_)) };
        let width = Width {
            connections: self.args.http2_connections,
            streams: connections.div_ceil(self.args.http2_connections.max(1)),
        };
        let window = load::measure(
            Duration::from_secs_f64(self.args.warm_up),
            Duration::from_secs_f64(self.args.duration),
            || Ok((Cpu::of(&pids)?, CoreTime::now(self.proxy_core)?, syslog.lines())),
            |conduct| match work {
                Work::Bulk => load::bulk(address, self.args.bulk_connections, conduct),
                Work::Tcp => load::exchanges(target, &Exchange::tcp(false), connections, None, conduct),
                Work::KeepAlive(length) => {
                    load::exchanges(target, &Exchange::http(length, true), connections, None, conduct)
                }
                Work::Connections(length) | Work::Resumptions(length) => {
                    load::exchanges(target, &Exchange::http(length, false), connections, None, conduct)
                }
                Work::Streams(length) => {
                    load::http2::exchanges(target, &Exchange::http(length, true), width, None, conduct)
                }
            },
        )?;
        if cell.is_handshake() {
            check_handshakes(work, &window.tally, connections)?;
        }
        let (before, after) = (&window.before, &window.after);
        let cpu = after.0.since(&before.0).as_secs_f64();
        let elapsed = window.elapsed.as_secs_f64();
        let (core_busy, stolen) = after.1.since(&before.1);
        let (efficiency, rate) = per_cpu(cell, &window.tally, cpu, elapsed)?;
        let micros = |q: f64| {
            let latency = &window.tally.latency;
            (latency.count() > 0).then(|| latency.quantile(q).as_secs_f64() * 1e6)
        };
        let lines = (after.2 - before.2) as f64 / window.tally.exchanges as f64;
        Ok(Sample {
            round,
            efficiency,
            rate,
            p50: micros(0.50),
            p99: micros(0.99),
            busy: cpu / elapsed,
            system: after.0.system_share_since(&before.0),
            foreign: ((core_busy + stolen).as_secs_f64() - cpu).max(0.0) / elapsed,
            failures: failures(&window.tally),
            lines: (cell.setup() == Setup::Logged).then_some(lines),
        })
    }

    fn verdict(&self, results: &Results) -> ExitCode {
        let failures: u64 = results.samples.values().flatten().flat_map(|s| s.failures.values()).sum();
        let mut good = failures == 0 && results.troubles.is_empty();
        if failures > 0 {
            eprintln!("side-by-side: {failures} exchanges failed");
        }
        if self.args.check {
            for &cell in &self.args.cells {
                let Some(target) = cell.target() else { continue };
                let ratio = ratio(results, cell, Peer::Amphora, target.peer(), |s| Some(s.efficiency));
                if !ratio.is_some_and(|r| target.is_met(r.median)) {
                    eprintln!("side-by-side: {}: the target is missed", cell.title());
                    good = false;
                }
            }
            let logged = self.args.cells.contains(&Cell::FlowLog128);
            if logged && !line_ratio(results, Peer::Amphora).is_some_and(|r| r.median <= LINE_TARGET) {
                eprintln!("side-by-side: a line of the flow log: the target is missed");
                good = false;
            }
        }
        if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// That the handshakes were those of the row. The first of each client that resumes is a full one.
fn check_handshakes(work: Work, tally: &Tally, connections: usize) -> Result<()> {
    let [full, resumed] = tally.handshakes;
    let right = match work {
        Work::Resumptions(_) => full <= connections as u64,
        _ => resumed == 0,
    };
    if !right {
        let all = tally.exchanges;
        return Err(
            format!("of {all} answers {full} after full handshakes, {resumed} after resumed ones").into()
        );
    }
    Ok(())
}
