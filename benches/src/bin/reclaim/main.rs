//! Memory that was needed once and is no more: how much of it there is, whether it goes back, and whether requests notice.
//! `docs/benchmarks.md` says what each number is.

mod documents;
mod pauses;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use amphora_benches::{
    Result,
    control::Control,
    document::Document,
    exchange::Exchange,
    load,
    peers::amphora_command,
    process::{self, Memory, Process},
    report,
};
use clap::Parser;

const MIB: f64 = 1_048_576.0;

/// Which half is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    /// What requests notice.
    Pauses,
    /// What documents take.
    Documents,
}

/// Lets bursts of connections and large documents come and go.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Nothing but this half.
    #[arg(long)]
    only: Option<Only>,
    /// Connections of a burst; fewer where the limit of open files has no room for so many.
    #[arg(long, default_value_t = 5000)]
    connections: usize,
    /// Requests per second of the load that is measured.
    #[arg(long, default_value_t = 3000.0)]
    rate: f64,
    /// How often each thing comes and goes while requests are measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How often a document that is refused is sent, and how often two documents take turns.
    #[arg(long, default_value_t = 50)]
    repeats: usize,
    /// Worker threads of the proxy.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// The core of the proxy; the last one by default.
    #[arg(long)]
    proxy_core: Option<usize>,
    /// The core of everything else; the first one by default.
    #[arg(long)]
    load_core: Option<usize>,
    /// The proxy listens on this port of 127.0.0.1 and those after it, a hundred at most.
    #[arg(long, default_value_t = 24000)]
    base_port: u16,
    /// Where the Markdown goes.
    #[arg(long, default_value = "target/reclaim.md")]
    output: PathBuf,
    /// This project's proxy; beside this program by default.
    #[arg(long)]
    amphora: Option<PathBuf>,
    /// Also fail when a target is missed.
    #[arg(long)]
    check: bool,
    /// Once each and few of all, to see that everything works.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    amphora_benches::exit_code("reclaim", run(Args::parse()))
}

fn run(mut args: Args) -> Result<bool> {
    if args.quick {
        (args.connections, args.rounds, args.repeats) = (args.connections.min(1000), 1, 3);
    }
    let limit = process::raise_open_files()?;
    // The proxy sets descriptors aside for itself, and two for each client.
    let fit = usize::try_from(limit.saturating_sub(3000) / 3)?;
    if fit < args.connections {
        eprintln!(
            "reclaim: {fit} connections, because {} do not fit in {limit} open files",
            args.connections
        );
        args.connections = fit;
    }
    let cores = process::cores()?;
    let bench = Bench {
        program: match &args.amphora {
            Some(program) => program.clone(),
            None => std::env::current_exe()?.with_file_name("amphora-proxy"),
        },
        proxy_core: args.proxy_core.unwrap_or(cores[cores.len() - 1]),
        load_core: args.load_core.unwrap_or(cores[0]),
        args,
    };
    process::pin(bench.load_core)?;
    let args = &bench.args;

    let mut text = format!(
        "# Memory that goes back\n\n{}. Proxy on core {} with {} worker(s), everything else on core {}.\n",
        report::machine(),
        bench.proxy_core,
        args.workers,
        bench.load_core
    );
    let mut good = true;
    for (only, part) in [
        (Only::Pauses, pauses::measure as fn(&Bench) -> Result<(String, bool)>),
        (Only::Documents, documents::measure),
    ] {
        if args.only.is_none_or(|wanted| wanted == only) {
            let (part, met) = part(&bench)?;
            text += &format!("\n{part}");
            good &= met || !args.check;
        }
    }
    if let Some(dir) = args.output.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(&args.output, &text)?;
    println!("{text}");
    eprintln!("reclaim: written to {}", args.output.display());
    Ok(good)
}

/// What both halves go by.
struct Bench {
    args: Args,
    program: PathBuf,
    proxy_core: usize,
    load_core: usize,
}

/// A proxy that runs, stopped when dropped.
struct Proxy {
    control: Control,
    process: Process,
    http: SocketAddr,
    dir: tempfile::TempDir,
}

impl Bench {
    /// Starts a proxy with a document whose first listener is HTTP on the first port.
    fn start(&self, document: &Document) -> Result<Proxy> {
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        fs::write(at("load-balancer.json"), document.to_json())?;
        let command =
            amphora_command(&self.program, &at("load-balancer.json"), &at("control.sock"), self.args.workers);
        let process = Process::start(command, self.proxy_core, &at("output.log"))?;
        let http = SocketAddr::from(([127, 0, 0, 1], self.args.base_port));
        let mut proxy = Proxy { control: Control::new(&at("control.sock")), process, http, dir };
        let (control, log): (_, &Path) = (proxy.control.clone(), &proxy.dir.path().join("output.log"));
        proxy.process.wait_ready(log, || {
            control.info().is_ok() && load::once(http, &Exchange::http(1, false)).is_ok()
        })?;
        Ok(proxy)
    }
}

impl Proxy {
    fn resident(&self) -> Result<u64> {
        Ok(Memory::of_tree(self.process.pid())?.resident)
    }
}

/// MiB.
fn mib(bytes: u64) -> String {
    report::digits(bytes as f64 / MIB)
}
