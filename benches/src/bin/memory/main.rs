//! The memory of a whole amphora, agent and proxy: idle, and per idle client connection; and that of the VRRP daemon.
//! `docs/benchmarks.md` says what each number is.

mod kinds;
mod members;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use amphora_benches::{
    Result,
    amphora::Amphora,
    backend::{Backend, Service},
    control::Control,
    document::{Document, Listener, Pool, member_address, two_policies},
    exchange::Exchange,
    load,
    process::{self, Memory, Process},
    report::{self, Table},
};
use amphora_tests::Namespace;
use clap::Parser;

const MIB: f64 = 1_048_576.0;
/// At most so much for agent and proxy together, idle: proportional, for the proxy and its two helpers are one program, whose pages
/// the sum of what is resident has three times.
const TARGET_IDLE: f64 = 20.0 * MIB;
/// At most so much per idle client connection.
const TARGET_CONNECTION: f64 = 2.9 * 1024.0;
/// At most so much for the VRRP daemon with one virtual router.
const TARGET_VRRP: f64 = 5.0 * MIB;
/// For what was only needed once to be given back.
const SETTLE: Duration = Duration::from_secs(3);
/// For what a burst of connections has left behind.
const AFTER_BURST: Duration = Duration::from_secs(10);

/// At most so much more while many scrape at once.
const TARGET_SCRAPES: f64 = 64.0 * MIB;

/// Measures the memory of agent, proxy and VRRP daemon.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Idle keep-alive connections; fewer where the limit of open files has no room for so many.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Worker threads of the proxy.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Clients that scrape a PROMETHEUS listener at once.
    #[arg(long, default_value_t = 1000)]
    scrapers: usize,
    /// Members of the pool meanwhile.
    #[arg(long, default_value_t = 3000)]
    scraped_members: u64,
    /// The proxy listens on this port of 127.0.0.1 and the second after it, the agent on the one between.
    #[arg(long, default_value_t = 23000)]
    base_port: u16,
    /// Where the Markdown goes.
    #[arg(long, default_value = "target/memory.md")]
    output: PathBuf,
    /// This project's agent; beside this program by default.
    #[arg(long)]
    agent: Option<PathBuf>,
    /// This project's proxy; beside this program by default.
    #[arg(long)]
    amphora: Option<PathBuf>,
    /// This project's VRRP daemon; beside this program by default.
    #[arg(long)]
    vrrp: Option<PathBuf>,
    /// HAProxy, beside which idle connections of TLS and HTTP/2 are measured.
    #[arg(long, default_value = "haproxy")]
    haproxy: PathBuf,
    /// Members of a pool, of which each is measured.
    #[arg(long, default_value_t = 10_000)]
    members: u64,
    /// Nothing but the VRRP daemon.
    #[arg(long, conflicts_with = "only_kinds")]
    only_vrrp: bool,
    /// Nothing but idle connections of TLS and HTTP/2.
    #[arg(long, conflicts_with = "only_members")]
    only_kinds: bool,
    /// Nothing but what each of many members takes.
    #[arg(long, conflicts_with = "only_vrrp")]
    only_members: bool,
    /// Also fail when a target is missed.
    #[arg(long)]
    check: bool,
    /// A tenth of the connections, to see that everything works.
    #[arg(long)]
    quick: bool,
}

impl Args {
    /// The agent and the proxy.
    fn programs(&self) -> Result<(PathBuf, PathBuf)> {
        let here = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
        let or_beside = |given: &Option<PathBuf>, name| given.clone().unwrap_or_else(|| here.join(name));
        Ok((or_beside(&self.agent, "amphora-agent"), or_beside(&self.amphora, "amphora-proxy")))
    }
}

fn main() -> ExitCode {
    amphora_benches::exit_code("memory", run(Args::parse()))
}

fn run(mut args: Args) -> Result<bool> {
    if args.quick {
        args.connections = args.connections.min(1000);
        (args.scrapers, args.scraped_members) = (args.scrapers.min(100), args.scraped_members.min(300));
        args.members = args.members.min(1000);
    }
    let limit = process::raise_open_files()?;
    // The proxy sets descriptors aside for itself, and two for each client. The clients' ends and the members' ends are both
    // in this process.
    let fit = usize::try_from(limit.saturating_sub(3000) / 3)?;
    if fit < args.connections {
        eprintln!("memory: {fit} connections, because {} do not fit in {limit} open files", args.connections);
        args.connections = fit;
    }
    let cores = process::cores()?;
    process::pin(cores[0])?;
    for (only, measure) in [
        (args.only_kinds, kinds::measure as fn(&Args, &[usize]) -> Result<(String, bool)>),
        (args.only_members, members::measure),
    ] {
        if only {
            let (table, good) = measure(&args, &cores)?;
            println!("{table}");
            return Ok(good || !args.check);
        }
    }
    let here = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let vrrp = args.vrrp.clone().unwrap_or_else(|| here.join("amphora-vrrp"));
    let router = virtual_router(&vrrp, cores[cores.len() - 1])?;
    let (router_row, router_good) = match router {
        Some(memory) => (
            [report::digits(memory.resident as f64 / MIB), report::digits(memory.proportional as f64 / MIB)],
            memory.resident as f64 <= TARGET_VRRP,
        ),
        None => (["–".to_owned(), "–".to_owned()], true),
    };
    if args.only_vrrp {
        println!("VRRP daemon: {} MiB resident, {} MiB proportional", router_row[0], router_row[1]);
        return Ok(router_good || !args.check);
    }
    let (agent, proxy) = args.programs()?;

    let http = Service::Http;
    let backend = Backend::start(&[http, http, http], cores[0])?;
    let at = |i: usize| SocketAddr::from(([127, 0, 0, 1], backend.ports()[i]));
    let target = SocketAddr::from(([127, 0, 0, 1], args.base_port));
    let rest = SocketAddr::from(([127, 0, 0, 1], args.base_port + 1));
    let controller = UdpSocket::bind("127.0.0.1:0")?;
    let dir = tempfile::tempdir()?;
    let core = cores[cores.len() - 1];
    let amphora =
        Amphora::start(&agent, &proxy, args.workers, dir.path(), rest, controller.local_addr()?, core)?;
    let listener = Listener::new(1, "HTTP", args.base_port, 1).with_l7policies(two_policies(1, 2));
    let pools = vec![
        Pool::new(1, "HTTP", &[at(0), at(1)]).with_monitor(1),
        Pool::new(2, "HTTP", &[at(2)]).with_monitor(2),
    ];
    amphora.apply(&Document::new(vec![listener], pools))?;
    load::once(target, &Exchange::http(128, false))?;
    thread::sleep(SETTLE);

    let proxy_pid = amphora.control.info()?.pid;
    let tree = Memory::of_tree(amphora.agent.pid())?;
    let proxy_idle = Memory::of_tree(proxy_pid)?;
    let is_child = amphora.agent.tree()?.contains(&proxy_pid);
    let both = if is_child { tree } else { sum(tree, proxy_idle) };
    let agent_idle = Memory {
        resident: both.resident - proxy_idle.resident,
        proportional: both.proportional - proxy_idle.proportional,
    };
    let mib = |bytes: u64| report::digits(bytes as f64 / MIB);
    let mut idle_table = Table::new(["idle", "resident MiB", "proportional MiB"]);
    for (name, memory) in [("agent", agent_idle), ("proxy", proxy_idle), ("together", both)] {
        idle_table.row([name.to_owned(), mib(memory.resident), mib(memory.proportional)]);
    }
    let [resident, proportional] = router_row;
    idle_table.row(["VRRP daemon".to_owned(), resident, proportional]);

    let exchange = Exchange::http(128, true);
    let mut idle = load::idle(target, &exchange, 0)?;
    let mut table = Table::new(["idle client connections", "proxy resident MiB", "KiB per connection"]);
    let mut per_connection = 0.0;
    for connections in [args.connections / 10, args.connections / 2, args.connections] {
        idle.grow(target, &exchange, connections)?;
        let open = idle.open();
        if open != connections {
            return Err(
                format!("{} of {connections} idle connections were closed", connections - open).into()
            );
        }
        let now = Memory::of_tree(proxy_pid)?.resident;
        per_connection = now.saturating_sub(proxy_idle.resident) as f64 / connections.max(1) as f64;
        table.row([connections.to_string(), mib(now), report::digits(per_connection / 1024.0)]);
    }
    drop(idle);
    thread::sleep(AFTER_BURST);
    let after = Memory::of_tree(proxy_pid)?.resident;
    table.row(["0, after all were closed".to_owned(), mib(after), "–".to_owned()]);

    let scraped = Document::new(
        vec![
            Listener::new(1, "HTTP", args.base_port, 1),
            Listener::new(2, "PROMETHEUS", args.base_port + 2, 1).without_pool(),
        ],
        vec![Pool::new(
            1,
            "HTTP",
            &(0..args.scraped_members).map(|n| SocketAddr::new(member_address(n), 80)).collect::<Vec<_>>(),
        )],
    );
    amphora.apply(&scraped)?;
    thread::sleep(SETTLE);
    let unscraped = Memory::of_tree(proxy_pid)?.resident;
    process::forget_peak(proxy_pid)?;
    let scraped = scrape(SocketAddr::from(([127, 0, 0, 1], args.base_port + 2)), args.scrapers)?;
    let peak = process::peak(proxy_pid)?;
    let more = peak.saturating_sub(unscraped);
    let mut scrapes = Table::new([
        "members",
        "scrapers",
        "whole expositions",
        "told to come again",
        "cut off",
        "MiB each",
        "proxy before MiB",
        "at most MiB",
        "more MiB",
    ]);
    scrapes.row([
        args.scraped_members.to_string(),
        args.scrapers.to_string(),
        scraped.whole.to_string(),
        scraped.later.to_string(),
        scraped.cut_off.to_string(),
        mib(scraped.bytes),
        mib(unscraped),
        mib(peak),
        mib(more),
    ]);

    drop(amphora);
    let (kinds, kinds_good) = kinds::measure(&args, &cores)?;
    let (members, members_good) = members::measure(&args, &cores)?;
    let good = kinds_good
        && members_good
        && both.proportional as f64 <= TARGET_IDLE
        && per_connection <= TARGET_CONNECTION
        && router_good
        && more as f64 <= TARGET_SCRAPES
        && scraped.whole > 0
        && scraped.cut_off == 0;
    let text = format!(
        "# Memory\n\n{}. Proxy with {} worker(s), one HTTP listener, two pools with health monitors, heartbeats every \
         second.\n\nTargets: agent and proxy together at most {:.0} MiB proportional, {:.1} KiB per idle client connection, {:.0} KiB with \
         TLS and {:.0} KiB with HTTP/2 over it, VRRP daemon {:.0} MiB, {:.0} MiB more while many scrape, of whom none is cut off, {:.1} KiB per member: {}.\n\n{}\n{}\n{kinds}\n{}\n{members}",
        report::machine(),
        args.workers,
        TARGET_IDLE / MIB,
        TARGET_CONNECTION / 1024.0,
        kinds::TARGET_TLS / 1024.0,
        kinds::TARGET_HTTP2 / 1024.0,
        TARGET_VRRP / MIB,
        TARGET_SCRAPES / MIB,
        members::TARGET_MEMBER / 1024.0,
        if good { "all met" } else { "missed" },
        idle_table.markdown(),
        table.markdown(),
        scrapes.markdown()
    );
    if let Some(dir) = args.output.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(&args.output, &text)?;
    println!("{text}");
    eprintln!("memory: written to {}", args.output.display());
    Ok(good || !args.check)
}

/// The VRRP daemon as master of one virtual router in a network namespace, once it has been asked for its state and its
/// metrics; `None` where there are no namespaces.
fn virtual_router(program: &Path, core: usize) -> Result<Option<Memory>> {
    let (Some(here), Some(peer)) = (Namespace::create(), Namespace::create()) else { return Ok(None) };
    here.link("eth1", &peer, "eth1");
    here.ip(&["addr", "add", "192.0.2.2/24", "dev", "eth1"]);
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name);
    fs::write(
        at("vrrp.json"),
        r#"{"instances": [{"name": "lb", "interface": "eth1", "vrid": 1, "interval_ms": 100,
            "unicast": {"source": "192.0.2.2", "peers": ["192.0.2.3"]},
            "addresses": [{"address": "192.0.2.100/32"}]}]}"#,
    )?;
    let mut command = Command::new(program);
    command.args(["--netns", here.name()]).arg("--config").arg(at("vrrp.json"));
    command.arg("--control-socket").arg(at("vrrp.sock")).arg("--fitness-socket").arg(at("fitness.sock"));
    let mut daemon = Process::start(command, core, &at("log"))?;
    let control = Control::new(&at("vrrp.sock"));
    daemon.wait_ready(&at("log"), || {
        control.vrrp().is_ok_and(|status| status.instances.iter().all(|router| router.state == "MASTER"))
    })?;
    control.metrics()?;
    thread::sleep(SETTLE);
    daemon.memory().map(Some)
}

/// What came of the scrapers.
#[derive(Default)]
struct Scraped {
    whole: usize,
    /// Told to come again, as who waits for too long is.
    later: usize,
    /// Anything else: an answer that broke off, or none.
    cut_off: usize,
    /// Of the longest exposition.
    bytes: u64,
}

/// Scrapes from so many connections at once.
fn scrape(target: SocketAddr, scrapers: usize) -> Result<Scraped> {
    thread::scope(|scope| {
        let start =
            || thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, move || one_scrape(target));
        let threads = (0..scrapers).map(|_| start()).collect::<std::io::Result<Vec<_>>>()?;
        let mut all = Scraped::default();
        for thread in threads {
            match thread.join() {
                Ok(Ok((200, bytes))) => {
                    all.whole += 1;
                    all.bytes = all.bytes.max(bytes);
                }
                Ok(Ok((503, _))) => all.later += 1,
                _ => all.cut_off += 1,
            }
        }
        Ok(all)
    })
}

/// The status of the answer and how long it is; 0 for one that breaks off.
fn one_scrape(target: SocketAddr) -> std::io::Result<(u16, u64)> {
    let mut stream = TcpStream::connect(target)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let (mut piece, mut length, mut begun, mut end) = (vec![0; 16 * 1024], 0, Vec::new(), Vec::new());
    loop {
        let n = stream.read(&mut piece)?;
        if n == 0 {
            break;
        }
        length += n as u64;
        if begun.len() < 12 {
            begun.extend_from_slice(&piece[..n.min(12)]);
        }
        end.extend_from_slice(&piece[..n]);
        end.drain(..end.len().saturating_sub(LAST_CHUNK.len()));
    }
    let status = match () {
        () if begun.starts_with(b"HTTP/1.1 200") && end == LAST_CHUNK => 200,
        () if begun.starts_with(b"HTTP/1.1 503") => 503,
        () => 0,
    };
    Ok((status, length))
}

/// What a chunked body ends with.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

fn sum(a: Memory, b: Memory) -> Memory {
    Memory { resident: a.resident + b.resident, proportional: a.proportional + b.proportional }
}
