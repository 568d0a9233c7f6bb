//! The longest time between two answers of the data plane to whether it is fit, while other things go on; see
//! `docs/benchmarks.md`.

// A benchmark has nobody to hand an error to: what goes wrong ends it.
#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    hint::spin_loop,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use amphora_benches::{
    backend::{Backend, Service},
    control::Control,
    document::member_address,
    process,
    report::{self, Table},
};
use clap::Parser;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

/// No answer may come later than this after the one before.
const TARGET: Duration = Duration::from_millis(20);
/// Between an answer and the next question.
const INTERVAL: Duration = Duration::from_millis(2);
/// How long what has no end of its own goes on.
const WHILE: Duration = Duration::from_secs(5);
/// As the VRRP daemon, so that the one who asks is not the one who is late.
const PRIORITY: &str = "15";

/// Measures how long the data plane does not say whether it is fit.
#[derive(Parser)]
#[command(name = "amphora-fitness")]
struct Args {
    /// The proxy listens on this port of 127.0.0.1, and on the one after it.
    #[arg(long, default_value_t = 23100)]
    base_port: u16,
    /// This project's proxy; beside this program by default.
    #[arg(long)]
    amphora: Option<PathBuf>,
    /// Where the Markdown goes.
    #[arg(long, default_value = "target/fitness.md")]
    output: PathBuf,
    /// Also fail when an answer comes too late, or says that the data plane is not fit.
    #[arg(long)]
    check: bool,
    /// Asks on this socket until the input ends, and says what came of it at each line of it. For this program itself.
    #[arg(long, hide = true)]
    ask: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(socket) = &args.ask {
        ask(socket);
        return ExitCode::SUCCESS;
    }
    let good = Bench::start(&args).run(&args);
    if good || !args.check { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What has come of the questions since it was last asked.
struct Answers {
    answers: u64,
    unfit: u64,
    longest: Duration,
}

fn ask(socket: &Path) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let wanted = Arc::new(AtomicBool::new(false));
    let reader = Arc::clone(&wanted);
    thread::spawn(move || {
        for _ in std::io::stdin().lines() {
            reader.store(true, Ordering::Relaxed);
        }
        std::process::exit(0);
    });
    let (mut answers, mut unfit, mut longest, mut last) = (0, 0, Duration::ZERO, Instant::now());
    loop {
        thread::sleep(INTERVAL);
        let mut answer = [0];
        let answered = stream.write_all(b"?").and_then(|()| stream.read_exact(&mut answer));
        if let Err(error) = answered {
            eprintln!("fitness: the proxy is gone: {error}");
            return;
        }
        answers += 1;
        unfit += u64::from(answer != *b"+");
        longest = longest.max(last.elapsed());
        last = Instant::now();
        if wanted.swap(false, Ordering::Relaxed) {
            println!("{answers} {unfit} {}", longest.as_micros());
            (answers, unfit, longest, last) = (0, 0, Duration::ZERO, Instant::now());
        }
    }
}

/// Another process that asks, at real-time priority where that may be had.
struct Asker {
    child: Child,
    tell: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Asker {
    fn start(socket: &Path) -> Self {
        let this = env::current_exe().unwrap();
        let may = Command::new("chrt").args(["-r", PRIORITY, "true"]).stderr(Stdio::null()).status();
        let mut command = if may.is_ok_and(|status| status.success()) {
            let mut command = Command::new("chrt");
            command.args(["-r", PRIORITY]).arg(this);
            command
        } else {
            eprintln!("fitness: no real-time priority for who asks: it may be late itself");
            Command::new(this)
        };
        command.arg("--ask").arg(socket).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tell, told) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, tell, told }
    }

    fn answers(&mut self) -> Answers {
        self.tell.write_all(b"\n").unwrap();
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let [answers, unfit, longest] = numbers[..] else { panic!("{line}") };
        Answers { answers, unfit, longest: Duration::from_micros(longest) }
    }
}

struct Bench {
    proxy: Child,
    asker: Asker,
    control: Control,
    member: SocketAddr,
    port: u16,
    _backend: Backend,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn start(args: &Args) -> Self {
        process::raise_open_files().unwrap();
        let here = env::current_exe().unwrap().parent().map(Path::to_owned).unwrap_or_default();
        let program = args.amphora.clone().unwrap_or_else(|| here.join("amphora-proxy"));
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("proxy.sock");
        let peers = directory.path().join("peers.json");
        let log = fs::File::create(directory.path().join("log")).unwrap();
        // A worker for each core, as in an amphora.
        let mut command = Command::new(program);
        command.args(["--log-level", "warn", "--control-socket"]).arg(&socket).arg("--peers-file").arg(peers);
        let proxy = command.stderr(log).spawn().unwrap();
        let control = Control::new(&socket);
        let begun = Instant::now();
        while control.info().is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the proxy does not answer");
            thread::sleep(Duration::from_millis(10));
        }
        let backend = Backend::start(&[Service::Http], process::cores().unwrap()[0]).unwrap();
        let member = SocketAddr::from((Ipv4Addr::LOCALHOST, backend.ports()[0]));
        let asker = Asker::start(&directory.path().join("proxy.sock.fitness"));
        Self { proxy, asker, control, member, port: args.base_port, _backend: backend, _directory: directory }
    }

    fn run(mut self, args: &Args) -> bool {
        let cores = process::cores().unwrap().len();
        let mut table = Table::new(["while", "took s", "answers", "longest between two ms", "not fit"]);
        let mut good = true;
        let mut case = |bench: &mut Self, name: &str, work: &dyn Fn(&Self)| {
            bench.asker.answers();
            let begun = Instant::now();
            work(bench);
            let took = begun.elapsed();
            let Answers { answers, unfit, longest } = bench.asker.answers();
            good &= unfit == 0 && longest <= TARGET;
            let row = [
                name.to_owned(),
                report::digits(took.as_secs_f64()),
                answers.to_string(),
                format!("{:.1}", longest.as_secs_f64() * 1e3),
                unfit.to_string(),
            ];
            eprintln!("fitness: {}", row.join(" | "));
            table.row(row);
        };
        self.apply(&self.document(1, &[]));
        case(&mut self, "nothing", &|_| thread::sleep(WHILE));
        let _busy = Busy::start(2 * cores);
        case(&mut self, "every core busy", &|_| thread::sleep(WHILE));
        case(&mut self, "and 32 clients ask without a pause", &|bench| {
            bench.clients(32, "/bytes/128", WHILE);
        });
        let rules: Vec<_> = (0..1000).map(|n| format!("^/[a-z]{{1,40}}/{n}/[^/]+[.](php|asp)$")).collect();
        case(&mut self, "three changes to 1,000 regexes and back", &|bench| {
            for _ in 0..3 {
                bench.apply(&bench.document(1, &rules));
                bench.apply(&bench.document(1, &[]));
            }
        });
        case(&mut self, "three changes to 10,000 members and back", &|bench| {
            for _ in 0..3 {
                bench.apply(&bench.document(10_000, &[]));
                bench.apply(&bench.document(1, &[]));
            }
        });
        for members in [1000, 3000] {
            self.apply(&self.document(members, &[]));
            let name = format!("1,000 scrapes at once of {members} members");
            case(&mut self, &name, &|bench| bench.scrapes(1000));
        }
        let slow: Vec<_> =
            ["a.{999}Z", "b.{999}Z", "[ab].{999}Z", "a.{998}Z", "(a|b).{999}Z"].map(Into::into).into();
        self.apply(&self.document(1, &slow));
        let target = format!("/{}", "a".repeat(15_000));
        case(&mut self, "requests of 15 KB against five slow regexes", &|bench| {
            bench.clients(8, &target, WHILE);
        });
        case(&mut self, "SIGHUP each 10 ms", &|bench| {
            for _ in 0..100 {
                kill(Pid::from_raw(i32::try_from(bench.proxy.id()).unwrap()), Signal::SIGHUP).unwrap();
                thread::sleep(Duration::from_millis(10));
            }
        });
        let text = format!(
            "# Fitness\n\n{}, {cores} cores, each with two busy loops from the second line on; a question each {} ms. Target: \
             an answer at most {} ms after the one before, and fit: {}.\n\n{}",
            report::machine(),
            INTERVAL.as_millis(),
            TARGET.as_millis(),
            if good { "met" } else { "missed" },
            table.markdown()
        );
        if let Some(directory) = args.output.parent() {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(&args.output, &text).unwrap();
        println!("{text}");
        good
    }

    fn document(&self, members: u64, paths: &[String]) -> Value {
        let id = |kind: u32, n: u64| format!("{kind:08}-0000-4000-8000-{n:012}");
        let members: Vec<_> = (1..=members)
            .map(|n| json!({"id": id(4, n), "address": member_address(n), "protocol_port": self.member.port(), "weight": 1 + n % 200}))
            .collect();
        let policies: Vec<_> = paths
            .iter()
            .zip(1..)
            .map(|(path, n)| {
                json!({"id": id(6, n), "action": "REJECT", "position": n, "rules": [
                    {"id": id(7, n), "type": "PATH", "compare_type": "REGEX", "value": path}]})
            })
            .collect();
        json!({"loadbalancer": {"id": id(1, 1), "vip_address": "127.0.0.1", "listeners": [
            {"id": id(2, 1), "protocol": "HTTP", "protocol_port": self.port, "l7policies": policies,
             "default_pool": {"id": id(3, 1), "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": members}},
            {"id": id(2, 2), "protocol": "PROMETHEUS", "protocol_port": self.port + 1}]}})
    }

    fn apply(&self, document: &Value) {
        self.control.apply(&serde_json::to_vec(document).unwrap()).unwrap();
    }

    /// So many clients that ask one thing after another.
    fn clients(&self, clients: usize, target: &str, time: Duration) {
        let until = Instant::now() + time;
        thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(move || {
                    while Instant::now() < until {
                        get(self.port, target).unwrap();
                    }
                });
            }
        });
    }

    fn scrapes(&self, scrapers: usize) {
        thread::scope(|scope| {
            for _ in 0..scrapers {
                let scrape = || get(self.port + 1, "/metrics").unwrap();
                thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, scrape).unwrap();
            }
        });
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for child in [&mut self.asker.child, &mut self.proxy] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A request on a connection of its own, and whatever comes of it.
fn get(port: u16, target: &str) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let (mut piece, mut length) = (vec![0; 16 * 1024], 0);
    loop {
        match stream.read(&mut piece) {
            // It may be refused before all of it was read.
            Ok(0) | Err(_) => return Ok(length),
            Ok(read) => length += read,
        }
    }
}

/// Loops that never wait, until dropped.
struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Busy {
    fn start(threads: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..threads).map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    spin_loop();
                }
            })
        });
        Self { threads: threads.collect(), stop }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
