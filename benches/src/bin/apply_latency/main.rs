//! Changes the configuration of a running proxy many times under load, and says how long each change took and what
//! the clients noticed. `docs/benchmarks.md` says what each number is.

mod encrypted;
mod plan;

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use amphora_benches::{
    Result,
    amphora::Amphora,
    backend::{Backend, Service},
    control::Control,
    document::{id, kind},
    exchange::Exchange,
    histogram::Histogram,
    load::{self, Command, Tally, Target, http2::Width},
    peers::amphora_command,
    process::{self, Memory, Process},
    report::{self, Table},
    rng::Rng,
};
use amphora_ipc::proxy::Stats;
use amphora_model::{CheckState, ListenerId, MemberId, PoolId};
use clap::Parser;

use self::{
    encrypted::Encrypted,
    plan::{KEPT, Plan},
};

/// How long health checks may take to have looked at every member.
const PATIENCE: Duration = Duration::from_secs(60);

/// A change at most takes so long until it is live.
const TARGET_APPLY: Duration = Duration::from_millis(25);
/// The p99 of requests while changes are made is at most so many times that of the same load without any.
const TARGET_CALM: f64 = 2.0;

/// Which changes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    /// One weight in the pool whose size is given.
    Weight,
    /// The certificate of the listener, with `--tls`: no document changes.
    Certificate,
}

/// Changes the configuration under load.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Sizes of the pool that is changed.
    #[arg(long, value_delimiter = ',', default_value = "10,1000")]
    members: Vec<usize>,
    /// Changes for each size.
    #[arg(long, default_value_t = 1000)]
    changes: usize,
    /// Make changes of this kind alone.
    #[arg(long)]
    only: Option<Only>,
    /// The first listener terminates TLS, and has a load of HTTP/2 too.
    #[arg(long, conflicts_with = "agent")]
    tls: bool,
    /// Seconds of the same load without changes, before them.
    #[arg(long, default_value_t = 5)]
    calm: u64,
    /// Milliseconds between the end of a change and the start of the next.
    #[arg(long, default_value_t = 10)]
    interval: u64,
    /// Concurrent keep-alive connections; a quarter as many carry a connection per request, and as many again TCP.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Exchanges per second of all connections together; 0 for as many as can be.
    #[arg(long, default_value_t = 3000.0)]
    rate: f64,
    /// Worker threads of the proxy.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Of the choice of changes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The core of the proxy; the last one by default.
    #[arg(long)]
    proxy_core: Option<usize>,
    /// The core of everything else; the first one by default.
    #[arg(long)]
    load_core: Option<usize>,
    /// The proxy listens on this port of 127.0.0.1 and the three after it, an agent on the next.
    #[arg(long, default_value_t = 22000)]
    base_port: u16,
    /// Where the Markdown goes.
    #[arg(long, default_value = "target/apply-latency.md")]
    output: PathBuf,
    /// This project's proxy; beside this program by default.
    #[arg(long)]
    amphora: Option<PathBuf>,
    /// Change a whole amphora through the REST of this agent, instead of the proxy through its control socket.
    #[arg(long)]
    agent: Option<PathBuf>,
    /// Also fail when a change takes longer than 25 ms, or the p99 of requests is above twice that without changes.
    #[arg(long)]
    check: bool,
    /// Fewer changes of smaller pools, to see that everything works.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    amphora_benches::exit_code("apply-latency", run(Args::parse()))
}

fn run(mut args: Args) -> Result<bool> {
    if args.quick {
        (args.changes, args.members, args.calm) = (100, vec![10, 100], 1);
    }
    if args.only == Some(Only::Certificate) && !args.tls {
        return Err("certificates are changed with --tls".into());
    }
    if args.members.iter().any(|&n| n < 2 * KEPT) {
        return Err(format!("at least {} members", 2 * KEPT).into());
    }
    let cores = process::cores()?;
    let proxy_core = args.proxy_core.unwrap_or(cores[cores.len() - 1]);
    let load_core = args.load_core.unwrap_or(cores[0]);
    process::raise_open_files()?;
    process::pin(load_core)?;
    let here = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let program = args.amphora.clone().unwrap_or_else(|| here.join("amphora-proxy"));

    let mut text = format!(
        "# Changes under load\n\n{}. Proxy on core {proxy_core} with {} worker(s), load, backend and changes on core \
         {load_core}. Seed {}, {} ms between changes, {}.\n\n",
        report::machine(),
        args.workers,
        args.seed,
        args.interval,
        if args.rate > 0.0 {
            format!("at most {} exchanges/s", args.rate)
        } else {
            "as much load as there can be".into()
        },
    );
    let mut table =
        Table::new(["members", "changes", "document KiB", "apply p50 ms", "apply p99 ms", "apply max ms"]);
    let mut clients =
        Table::new(["members", "load", "exchanges", "p50 ms", "p99 ms", "calm p99 ms", "max ms", "failures"]);
    let mut good = true;
    let mut notes = String::new();
    for &members in &args.members {
        let outcome = changes(&args, members, &program, proxy_core, load_core)?;
        let ms = |d: Duration| report::digits(d.as_secs_f64() * 1e3);
        table.row([
            members.to_string(),
            outcome.apply.count().to_string(),
            report::digits(outcome.document_bytes as f64 / 1024.0),
            ms(outcome.apply.quantile(0.50)),
            ms(outcome.apply.quantile(0.99)),
            ms(outcome.apply.max()),
        ]);
        let mut missed = outcome.apply.max() > TARGET_APPLY;
        for (Load { name, tally, .. }, Load { tally: calm, .. }) in outcome.loads.iter().zip(&outcome.calm) {
            good &= tally.failed() == 0 && calm.failed() == 0;
            let calm = calm.latency.quantile(0.99);
            missed |= tally.latency.quantile(0.99) > calm.mul_f64(TARGET_CALM);
            let failures = if tally.failed() == 0 { "0".into() } else { format!("{:?}", tally.failures) };
            clients.row([
                members.to_string(),
                (*name).to_owned(),
                tally.exchanges.to_string(),
                ms(tally.latency.quantile(0.50)),
                ms(tally.latency.quantile(0.99)),
                ms(calm),
                ms(tally.latency.max()),
                failures,
            ]);
        }
        good &= !(args.check && missed);
        let (before, after) = outcome.resident;
        notes += &format!(
            "\n* {members} members: resident memory {:.1} MiB before and {:.1} MiB after; kept connections closed by \
             announcement: {}; kept members and counters compared: {}.",
            before as f64 / 1_048_576.0,
            after as f64 / 1_048_576.0,
            outcome.loads.iter().map(|load| load.tally.announced_closes).sum::<u64>(),
            if outcome.lost.is_empty() { "nothing lost" } else { "something lost" },
        );
        for lost in &outcome.lost {
            good = false;
            notes += &format!("\n    * {lost}");
        }
    }
    text += &format!("{}\n{}{notes}\n", table.markdown(), clients.markdown());
    if let Some(dir) = args.output.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(&args.output, &text)?;
    println!("{text}");
    eprintln!("apply-latency: written to {}", args.output.display());
    Ok(good)
}

/// What came of a load.
struct Load {
    name: &'static str,
    /// The number of the listener that it went to.
    listener: u64,
    tally: Tally,
}

struct Outcome {
    /// From the connect, to the control socket or the agent, until the whole answer is there.
    apply: Histogram,
    /// Of the last document.
    document_bytes: usize,
    loads: Vec<Load>,
    /// The same before the changes.
    calm: Vec<Load>,
    /// Resident bytes before and after.
    resident: (u64, u64),
    /// What should have survived and did not.
    lost: Vec<String>,
}

fn changes(
    args: &Args,
    members: usize,
    program: &Path,
    proxy_core: usize,
    load_core: usize,
) -> Result<Outcome> {
    let backend = Backend::start(&[Service::Http, Service::Tcp], load_core)?;
    let mut plan = Plan::new(members, args.base_port, backend.ports(), Rng::new(args.seed));
    let dir = tempfile::tempdir()?;
    let encrypted = if args.tls { Some(Encrypted::new(dir.path(), &mut plan)?) } else { None };
    let subject = Subject::start(args, program, &plan, encrypted.as_ref(), dir.path(), proxy_core)?;
    let control = subject.control();
    let at = |offset: u16| SocketAddr::from(([127, 0, 0, 1], args.base_port + offset));
    let (http, tcp) = (Target { tls: Encrypted::http1(encrypted.as_ref())?, ..at(0).into() }, at(1));
    load::once(&http, &Exchange::http(1, false))?;
    load::once(tcp, &Exchange::tcp(false))?;
    wait_for_checks(control)?;

    // Without TLS by prior knowledge, on the port of HTTP/1.1.
    let http2 = encrypted.as_ref().map_or_else(|| Ok(at(0).into()), |tls| tls.http2(at(0)))?;
    let targets = Targets { http, tcp, http2 };
    let calm = under_load(args, &targets, || {
        thread::sleep(Duration::from_secs(args.calm));
        Ok(())
    })?;
    // The last of them is counted a moment after it was answered.
    thread::sleep(Duration::from_millis(500));

    let before = control.stats()?;
    let proxy = control.info()?.pid;
    let resident = Memory::of_tree(proxy)?.resident;
    let mut apply = Histogram::default();
    let mut document_bytes = 0;
    let mut loads = under_load(args, &targets, || match (args.only, &encrypted) {
        (Some(Only::Certificate), Some(tls)) => {
            document_bytes = plan.document.to_json().len();
            tls.replace_all(args.changes, args.interval, control, &plan, &targets.http, &mut apply)
        }
        _ => apply_all(args, &subject, &mut plan, &mut apply, &mut document_bytes),
    })?;
    if args.only == Some(Only::Certificate) {
        // Each was looked at by a client of its own.
        let looks = args.changes as u64;
        let tally = Tally { exchanges: looks, connections: looks, ..Tally::default() };
        loads.push(Load { name: "looks at certificates", listener: 1, tally });
    }
    let resident = (resident, Memory::of_tree(proxy)?.resident);
    // What the last answers were counted as may be told a moment after they have come.
    let deadline = Instant::now() + Duration::from_secs(5);
    let lost = loop {
        let lost = lost(&before, &control.stats()?, &loads);
        if lost.is_empty() || Instant::now() > deadline {
            break lost;
        }
        thread::sleep(Duration::from_millis(50));
    };
    Ok(Outcome { apply, document_bytes, loads, calm, resident, lost })
}

/// Where the loads go.
struct Targets {
    http: Target,
    tcp: SocketAddr,
    http2: Target,
}

/// Does something while every load is on.
fn under_load(args: &Args, targets: &Targets, meanwhile: impl FnOnce() -> Result<()>) -> Result<Vec<Load>> {
    let stop = AtomicBool::new(false);
    let few = (args.connections / 4).max(1);
    let tcp = Target::from(targets.tcp);
    let (kept, short) = match targets.http.tls {
        None => ("HTTP keep-alive", "HTTP, a connection per request"),
        Some(_) => ("HTTPS keep-alive", "HTTPS, a full handshake per request"),
    };
    let kinds = [
        (kept, 1, &targets.http, Exchange::http(128, true), args.connections),
        (short, 1, &targets.http, Exchange::http(1024, false), few),
        ("TCP, one long session each", 2, &tcp, Exchange::tcp(true), few),
        ("TCP, short sessions", 2, &tcp, Exchange::tcp(false), few),
    ];
    thread::scope(|scope| -> Result<Vec<Load>> {
        let stop = &stop;
        // Each connection its share.
        let all = (args.connections + 4 * few) as f64;
        let rate = |connections: usize| (args.rate > 0.0).then(|| args.rate * connections as f64 / all);
        let conduct = || |_, _: &Tally| if stop.load(Relaxed) { Command::Stop } else { Command::Continue };
        let mut threads: Vec<_> = kinds
            .iter()
            .map(|(name, listener, target, exchange, connections)| {
                let rate = rate(*connections);
                scope.spawn(move || {
                    let tally = load::exchanges(*target, exchange, *connections, rate, &mut conduct());
                    tally
                        .map(|tally| Load { name, listener: *listener, tally })
                        .map_err(|e| format!("{name}: {e}"))
                })
            })
            .collect();
        let (width, rate) = (Width { connections: 2, streams: few.div_ceil(2) }, rate(few));
        threads.push(scope.spawn(move || {
            let exchange = Exchange::http(128, true);
            let tally = load::http2::exchanges(&targets.http2, &exchange, width, rate, &mut conduct());
            tally.map(|tally| Load { name: "HTTP/2", listener: 1, tally }).map_err(|e| format!("HTTP/2: {e}"))
        }));
        let done = meanwhile();
        stop.store(true, Relaxed);
        let loads: Vec<_> = threads.into_iter().map(|t| t.join().expect("the load does not panic")).collect();
        done?;
        Ok(loads.into_iter().collect::<Result<Vec<_>, String>>()?)
    })
}

fn apply_all(
    args: &Args,
    subject: &Subject,
    plan: &mut Plan,
    apply: &mut Histogram,
    document_bytes: &mut usize,
) -> Result<()> {
    for n in 1..=args.changes {
        let what = match args.only {
            None => plan.change(),
            // Certificates are changed elsewhere.
            Some(Only::Weight | Only::Certificate) => plan.change_one_weight(),
        };
        let document = plan.document.to_json();
        *document_bytes = document.len();
        let started = Instant::now();
        subject.apply(&document).map_err(|e| format!("change {n} ({what}): {e}"))?;
        apply.record(started.elapsed());
        thread::sleep(Duration::from_millis(args.interval));
    }
    Ok(())
}

/// What is changed: a proxy alone, or a whole amphora through its agent.
enum Subject {
    Proxy(Control, #[allow(dead_code, reason = "runs until it is dropped")] Process),
    Amphora(Box<Amphora>, #[allow(dead_code, reason = "heartbeats need somewhere to go")] UdpSocket),
}

impl Subject {
    /// Starts it with the first document.
    fn start(
        args: &Args,
        program: &Path,
        plan: &Plan,
        encrypted: Option<&Encrypted>,
        dir: &Path,
        core: usize,
    ) -> Result<Self> {
        let document = plan.document.to_json();
        if let Some(agent) = &args.agent {
            let controller = UdpSocket::bind("127.0.0.1:0")?;
            let rest = SocketAddr::from(([127, 0, 0, 1], args.base_port + 4));
            let amphora =
                Amphora::start(agent, program, args.workers, dir, rest, controller.local_addr()?, core)?;
            amphora.apply(&plan.document)?;
            return Ok(Self::Amphora(Box::new(amphora), controller));
        }
        let (file, socket, log) =
            (dir.join("load-balancer.json"), dir.join("control.sock"), dir.join("output.log"));
        fs::write(&file, document)?;
        let mut command = amphora_command(program, &file, &socket, args.workers);
        if let Some(tls) = encrypted {
            command.arg("--certificates").arg(tls.directory());
        }
        let mut proxy = Process::start(command, core, &log)?;
        let control = Control::new(&socket);
        let http = SocketAddr::from(([127, 0, 0, 1], args.base_port));
        let http = Target { tls: Encrypted::http1(encrypted)?, ..http.into() };
        proxy.wait_ready(&log, || {
            control.info().is_ok() && load::once(&http, &Exchange::http(1, false)).is_ok()
        })?;
        Ok(Self::Proxy(control, proxy))
    }

    fn control(&self) -> &Control {
        match self {
            Self::Proxy(control, _) => control,
            Self::Amphora(amphora, _) => &amphora.control,
        }
    }

    /// Returns when the document runs.
    fn apply(&self, document: &[u8]) -> Result<()> {
        match self {
            Self::Amphora(amphora, _) => amphora.put(&id(kind::LOAD_BALANCER, 1).to_string(), document),
            Self::Proxy(control, _) if control.apply(document)?.changed => Ok(()),
            Self::Proxy(..) => Err("it was taken for no change".into()),
        }
    }
}

/// Waits until the health checks of the kept members have passed.
fn wait_for_checks(control: &Control) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stats = control.stats()?;
        if kept_members().all(|(pool, member)| check(&stats, pool, member) == Some(CheckState::Up)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("members are not up after {PATIENCE:?}").into());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn kept_members() -> impl Iterator<Item = (PoolId, MemberId)> {
    let in_pool = |pool: u64| (0..KEPT as u64).map(move |n| (pool, n));
    [1, 2, 3]
        .into_iter()
        .flat_map(in_pool)
        .map(|(pool, n)| (PoolId(id(kind::POOL, pool)), MemberId(id(kind::MEMBER, pool << 32 | n))))
}

fn check(stats: &Stats, pool: PoolId, member: MemberId) -> Option<CheckState> {
    Some(stats.pools.get(&pool)?.members.get(&member)?.check)
}

/// What both the first and the last document have, and what has not survived between them: a health state that was
/// reset, a counter that went back, requests and connections that were not counted.
fn lost(before: &Stats, after: &Stats, loads: &[Load]) -> Vec<String> {
    let mut lost = Vec::new();
    if before.instance != after.instance {
        lost.push("the process was replaced".to_owned());
    }
    for (pool, member) in kept_members() {
        let at = |stats: &Stats| stats.pools.get(&pool).and_then(|p| p.members.get(&member)).cloned();
        let (Some(old), Some(new)) = (at(before), at(after)) else {
            lost.push(format!("member {member} has no statistics"));
            continue;
        };
        if new.check != CheckState::Up {
            lost.push(format!("member {member} was up and is {:?}", new.check));
        }
        if new.total_sessions < old.total_sessions
            || new.bytes_out < old.bytes_out
            || new.requests < old.requests
        {
            lost.push(format!("a counter of member {member} went back"));
        }
    }
    for number in [1, 2] {
        let loads = loads.iter().filter(|load| load.listener == number);
        let listener = ListenerId(id(kind::LISTENER, number));
        let (Some(old), Some(new)) = (before.listeners.get(&listener), after.listeners.get(&listener)) else {
            lost.push(format!("listener {listener} has no statistics"));
            continue;
        };
        let sum = |count: fn(&Tally) -> u64| loads.clone().map(|load| count(&load.tally)).sum::<u64>();
        let mut compare = |what: &str, counted: u64, made: u64| {
            if counted != made {
                lost.push(format!("listener {listener} counted {counted} {what} of {made}"));
            }
        };
        compare("connections", new.total_connections - old.total_connections, sum(|t| t.connections));
        if number == 1 {
            compare("requests", new.requests - old.requests, sum(|t| t.exchanges + t.failed()));
        }
    }
    lost
}
