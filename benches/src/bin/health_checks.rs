//! What a health check costs, here and in HAProxy: the CPU time of the whole process by the number of checks that its
//! members answered. `docs/benchmarks.md` says how it is measured.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use amphora_benches::{
    Result,
    document::{self, Document, HealthMonitor, Listener, Pool, kind, member_address},
    peers::amphora_command,
    process::{self, Cpu, Memory, Process},
    report::{self, Summary, Table, show},
};
use clap::Parser;

/// Of HAProxy's CPU time per check at the most.
const TARGET: f64 = 0.8;
/// CPU time per check with the most members, by that with the fewest, at the most: it is to grow with them and no faster.
const LINEAR: f64 = 1.2;
/// Between two checks of a member.
const DELAY: Duration = Duration::from_secs(5);
/// For the first checks, which come faster than later ones.
const SETTLE: Duration = Duration::from_secs(9);

/// Measures what a health check costs.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Members, each checked by HTTP every 5 seconds.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 5000])]
    members: Vec<u64>,
    /// How often each is measured, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// For how many delays each is measured.
    #[arg(long, default_value_t = 2)]
    delays: u32,
    /// Ports of 127.0.0.1 from here on.
    #[arg(long, default_value_t = 23200)]
    base_port: u16,
    /// Where the Markdown goes.
    #[arg(long, default_value = "target/health-checks.md")]
    output: PathBuf,
    /// This project's proxy; beside this program by default.
    #[arg(long)]
    amphora: Option<PathBuf>,
    /// HAProxy.
    #[arg(long, default_value = "haproxy")]
    haproxy: PathBuf,
    /// Also fail when a target is missed.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    amphora_benches::exit_code("health-checks", run(&Args::parse()))
}

/// One measurement.
struct Measured {
    micros_per_check: f64,
    system_share: f64,
    resident: u64,
}

fn run(args: &Args) -> Result<bool> {
    let limit = process::raise_open_files()?;
    let cores = process::cores()?;
    process::pin(cores[0])?;
    let core = cores[cores.len() - 1];
    let here = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let amphora = args.amphora.clone().unwrap_or_else(|| here.join("amphora-proxy"));
    let answers = Arc::new(AtomicU64::new(0));
    let members = members(Arc::clone(&answers))?;

    let mut table = Table::new([
        "members",
        "this proxy, CPU µs/check",
        "HAProxy, CPU µs/check",
        "ratio",
        "in kernel",
        "this proxy, MiB",
        "HAProxy, MiB",
    ]);
    let mut good = true;
    let mut medians = Vec::new();
    for &count in &args.members {
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..args.rounds {
            let dir = tempfile::tempdir()?;
            let addresses: Vec<_> =
                (0..count).map(|n| SocketAddr::new(member_address(n), members.port())).collect();
            let mut measure = |haproxy: bool| -> Result<()> {
                let command = match haproxy {
                    true => {
                        haproxy_command(&args.haproxy, &addresses, dir.path(), args.base_port + 1, limit)?
                    }
                    false => command(&amphora, &addresses, dir.path(), args.base_port)?,
                };
                let found = measured(command, core, dir.path(), &answers, count, args.delays)?;
                if haproxy { &mut theirs } else { &mut ours }.push(found);
                Ok(())
            };
            measure(round % 2 == 1)?;
            measure(round % 2 == 0)?;
            if let (Some(ours), Some(theirs)) = (ours.last(), theirs.last()) {
                ratios.push(ours.micros_per_check / theirs.micros_per_check);
            }
        }
        let micros = |all: &[Measured]| Summary::of(all.iter().map(|m| m.micros_per_check));
        let mib = |all: &[Measured]| Summary::of(all.iter().map(|m| m.resident as f64 / 1_048_576.0));
        let kernel = Summary::of(ours.iter().map(|m| m.system_share)).map_or(0.0, |s| s.median);
        let ratio = Summary::of(ratios);
        good &= ratio.is_some_and(|ratio| ratio.median <= TARGET);
        medians.extend(micros(&ours).map(|s| s.median));
        table.row([
            count.to_string(),
            show(micros(&ours)),
            show(micros(&theirs)),
            show(ratio),
            format!("{:.0} %", kernel * 100.0),
            show(mib(&ours)),
            show(mib(&theirs)),
        ]);
    }
    let growth = medians.last().unwrap_or(&0.0) / medians.first().unwrap_or(&1.0);
    good &= growth <= LINEAR;
    let text = format!(
        "# Health checks\n\n{}. HTTP checks each {} s, one worker, one core.\n\nTargets: at most {TARGET} of HAProxy's CPU time \
         per check; no more per check with many members than with few (here {}): {}.\n\n{}",
        report::machine(),
        DELAY.as_secs(),
        report::digits(growth),
        if good { "met" } else { "missed" },
        table.markdown()
    );
    if let Some(dir) = args.output.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(&args.output, &text)?;
    println!("{text}");
    eprintln!("health-checks: written to {}", args.output.display());
    Ok(good || !args.check)
}

/// All members: one port on every loopback address, whose thread answers one request after the other and counts them.
fn members(answers: Arc<AtomicU64>) -> Result<SocketAddr> {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    listener.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into())?;
    listener.listen(4096)?;
    let listener = TcpListener::from(listener);
    let address = listener.local_addr()?;
    thread::Builder::new().name("members".into()).spawn(move || {
        let mut request = [0; 1024];
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
            if matches!(stream.read(&mut request), Ok(n) if n > 0)
                && stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n").is_ok()
            {
                answers.fetch_add(1, Ordering::Relaxed);
            }
        }
    })?;
    Ok(address)
}

fn measured(
    command: Command,
    core: usize,
    dir: &Path,
    answers: &AtomicU64,
    members: u64,
    delays: u32,
) -> Result<Measured> {
    let log = dir.join("output.log");
    let before = answers.load(Ordering::Relaxed);
    let mut process = Process::start(command, core, &log)?;
    let answered = || answers.load(Ordering::Relaxed);
    process.wait_ready(&log, || answered() >= before + members)?;
    thread::sleep(SETTLE);
    process.runs_only_on(core)?;
    let pids = process.tree()?;
    let (cpu, count, begun) = (Cpu::of(&pids)?, answered(), Instant::now());
    thread::sleep(DELAY * delays);
    let (cpu_then, count_then, took) = (Cpu::of(&pids)?, answered(), begun.elapsed());
    let checks = (count_then - count) as f64;
    let expected = members as f64 * took.as_secs_f64() / DELAY.as_secs_f64();
    if !(0.85..=1.15).contains(&(checks / expected)) {
        return Err(format!("{checks} checks in {took:?} where {expected:.0} were due").into());
    }
    let memory = Memory::of_tree(process.pid())?;
    process.stop();
    Ok(Measured {
        micros_per_check: cpu_then.since(&cpu).as_secs_f64() * 1e6 / checks,
        system_share: cpu_then.system_share_since(&cpu),
        resident: memory.resident,
    })
}

fn command(program: &Path, members: &[SocketAddr], dir: &Path, port: u16) -> Result<Command> {
    let mut pool = Pool::new(1, "HTTP", members);
    pool.healthmonitor = Some(HealthMonitor {
        id: document::id(kind::HEALTH_MONITOR, 1),
        kind: "HTTP",
        delay: DELAY.as_secs() as u32,
        timeout: 3,
        max_retries: 3,
    });
    let document = Document::new(vec![Listener::new(1, "HTTP", port, 1)], vec![pool]);
    let file = dir.join("load-balancer.json");
    fs::write(&file, document.to_json())?;
    Ok(amphora_command(program, &file, &dir.join("control.sock"), 1))
}

/// The text that Octavia renders for such a pool, with one thread.
fn haproxy_command(
    program: &Path,
    members: &[SocketAddr],
    dir: &Path,
    port: u16,
    limit: u64,
) -> Result<Command> {
    let maxconn = (limit.saturating_sub(6000) * 2 / 5).clamp(100, 50_000);
    let mut text = format!(
        "global
    stats socket {} mode 0666 level user
    nbthread 1
    maxconn {maxconn}

defaults
    no log
    retries 3
    option redispatch
    option splice-request
    option splice-response
    option http-keep-alive

frontend http
    maxconn {maxconn}
    bind {}:{port}
    mode http
    default_backend pool:http
    timeout client 50000

backend pool:http
    mode http
    http-reuse safe
    balance roundrobin
    timeout check 3s
    option httpchk GET / HTTP/1.0
    http-check expect rstatus 200
    fullconn {maxconn}
    option allbackups
    timeout connect 5000
    timeout server 50000
",
        dir.join("stats.sock").display(),
        IpAddr::from([127, 0, 0, 1]),
    );
    for (n, member) in members.iter().enumerate() {
        let _ = writeln!(
            text,
            "    server member{n} {member} weight 1 check inter {}s fall 3 rise 3",
            DELAY.as_secs()
        );
    }
    let file = dir.join("haproxy.cfg");
    fs::write(&file, text)?;
    let mut command = Command::new(program);
    command.args(["-db", "-f"]).arg(file);
    Ok(command)
}
