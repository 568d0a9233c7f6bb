//! `amphora-controller serve`: how long it takes until something is so, and what it costs. `docs/benchmarks.md` says what each number is.

mod api;
mod ground;

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use amphora_benches::{Result, exit_code, histogram::Histogram, process, report::Table};
use clap::Parser;
use serde_json::{Value, json};

use self::{
    api::{Api, Made, member, wait, who},
    ground::{Serve, cpu, members, proportional, resident},
};

/// Measures `amphora-controller serve`, as root, in namespaces of its own (`benches/serve`).
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Load balancers that are made one after another.
    #[arg(long, default_value_t = 50)]
    creations: usize,
    /// Changes of members.
    #[arg(long, default_value_t = 300)]
    changes: usize,
    /// Load balancers that are there at the same time.
    #[arg(long, default_value_t = 300)]
    many: usize,
    /// Seconds of what is measured over time.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Where the Markdown goes.
    #[arg(long, default_value = "target/serve.md")]
    output: PathBuf,
    /// The controller; beside this program by default.
    #[arg(long)]
    controller: Option<PathBuf>,
    /// Also fail when a target is missed.
    #[arg(long)]
    check: bool,
}

/// What is measured, and its targets.
struct Findings {
    table: Table,
    good: bool,
}

impl Findings {
    fn say(&mut self, what: &str, found: String, target: &str, met: Option<bool>) {
        let verdict = met.map_or("", |met| if met { "met" } else { "missed" });
        eprintln!("{what}: {found} {target} {verdict}");
        self.good &= met.unwrap_or(true);
        self.table.row([what.to_owned(), found, target.to_owned(), verdict.to_owned()]);
    }

    /// Times, of which a quantile has a target.
    fn times(&mut self, what: &str, times: &Histogram, quantile: f64, target: Duration) {
        let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
        let (p50, p99) = (times.quantile(0.5), times.quantile(0.99));
        let found = format!("p50 {} ms, p99 {} ms, longest {} ms", ms(p50), ms(p99), ms(times.max()));
        let met = times.quantile(quantile) < target;
        let name = if quantile > 0.9 { "p99" } else { "p50" };
        self.say(what, found, &format!("{name} below {} ms", target.as_millis()), Some(met));
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    exit_code("amphora-serve", run(&args).map(|good| good || !args.check))
}

fn run(args: &Args) -> Result<bool> {
    process::raise_open_files()?;
    let controller = match &args.controller {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("amphora-controller"),
    };
    let dir = tempfile::Builder::new().prefix("as").permissions(passage()).tempdir()?;
    let mut findings = Findings { table: Table::new(["what", "found", "target", ""]), good: true };
    members(162)?;
    let mut serve = Serve::start(&controller, dir.path())?;
    let mut api = Api::connect()?;
    let subnet = api.ask("GET", "subnets", &Value::Null)?["subnets"][0]["id"].clone();
    rest(&serve, args.seconds, &mut findings)?;
    let times = creations(&mut api, &subnet, args.creations, |_| Ok(()))?;
    findings.times("create to ACTIVE", &times, 0.99, Duration::from_secs(1));
    changes(&mut api, &subnet, args.changes, &mut findings)?;
    requests(&mut api, &subnet, args.seconds, &mut findings)?;
    serve.with_spares(2)?;
    api = Api::connect()?;
    let times = creations(&mut api, &subnet, args.creations, |api| {
        // Those that the last one has taken are made again, and nothing else is under way.
        wait(|| {
            let listed = api.ask("GET", "octavia/amphorae", &Value::Null)?;
            let listed = listed["amphorae"].as_array().ok_or("no list of amphorae")?;
            Ok(listed.len() == 2 && listed.iter().all(|one| one["status"] == "READY"))
        })
    })?;
    findings.times("create to ACTIVE, with a spare", &times, 0.99, Duration::from_millis(200));
    serve.with_spares(0)?;
    many(&serve, &subnet, args, &mut findings)?;
    serve.end()?;
    let markdown = findings.table.markdown();
    if let Some(parent) = args.output.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&args.output, &markdown)?;
    println!("{markdown}");
    Ok(findings.good)
}

fn passage() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o711)
}

/// Nothing is there, and nothing is asked.
fn rest(serve: &Serve, seconds: u64, findings: &mut Findings) -> Result<()> {
    thread::sleep(Duration::from_secs(3));
    let before = cpu(&[serve.pid()]);
    thread::sleep(Duration::from_secs(seconds));
    let used = (cpu(&[serve.pid()]) - before) / seconds as f64 * 100.0;
    let memory = resident(serve.pid())?;
    findings.say("memory at rest", format!("{memory:.1} MiB"), "below 30 MiB", Some(memory < 30.0));
    findings.say("CPU at rest", format!("{used:.2} % of a core"), "", None);
    Ok(())
}

/// From the request until the load balancer is ACTIVE, which is deleted then.
fn creations(
    api: &mut Api,
    subnet: &Value,
    count: usize,
    ready: impl Fn(&mut Api) -> Result<()>,
) -> Result<Histogram> {
    let mut times = Histogram::default();
    for n in 0..count {
        ready(api)?;
        let begin = Instant::now();
        let made = api.create(subnet, &format!("creation {n}"))?;
        api.active(&made)?;
        times.record(begin.elapsed());
        wait(|| Ok(who(made.vip) == Some(0)))?;
        api.delete(&made)?;
    }
    Ok(times)
}

/// From the answer to a change of members until a new request is answered by the new one.
fn changes(api: &mut Api, subnet: &Value, count: usize, findings: &mut Findings) -> Result<()> {
    let made = api.create(subnet, "changes")?;
    api.active(&made)?;
    wait(|| Ok(who(made.vip) == Some(0)))?;
    let path = format!("lbaas/pools/{}/members", made.pool);
    let (mut answered, mut live) = (Histogram::default(), Histogram::default());
    for n in 1..=count {
        let body = json!({"members": [member(n % 2)]});
        let begin = Instant::now();
        api.ask("PUT", &path, &body)?;
        answered.record(begin.elapsed());
        let begin = Instant::now();
        while who(made.vip) != Some(n % 2) {
            if begin.elapsed() > Duration::from_secs(30) {
                return Err("a change is not live after 30 s".into());
            }
        }
        live.record(begin.elapsed());
        api.active(&made)?;
    }
    findings.times("the answer to a change of members", &answered, 0.99, Duration::from_millis(100));
    findings.times("from that answer until it is live", &live, 0.99, Duration::from_millis(20));
    let mut batches = Histogram::default();
    for n in 0..20 {
        let members: Vec<Value> = (0..160).map(|m| member(m + n % 2)).collect();
        let begin = Instant::now();
        api.ask("PUT", &path, &json!({"members": members}))?;
        api.active(&made)?;
        batches.record(begin.elapsed());
    }
    findings.times("160 members in one request, until ACTIVE", &batches, 0.99, Duration::from_millis(100));
    api.delete(&made)
}

/// Requests per second of clients with a connection each.
fn requests(api: &mut Api, subnet: &Value, seconds: u64, findings: &mut Findings) -> Result<()> {
    const CLIENTS: usize = 16;
    let made = api.create(subnet, "requests")?;
    api.active(&made)?;
    let path = format!("lbaas/loadbalancers/{}", made.id);
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let result: Result<()> = thread::scope(|scope| {
        let client = || -> Result<()> {
            let mut api = Api::connect()?;
            while !stop.load(Ordering::Relaxed) {
                match api.exchange("GET", &path, "")? {
                    (200, _) => count.fetch_add(1, Ordering::Relaxed),
                    (status, _) => return Err(format!("GET: {status}").into()),
                };
            }
            Ok(())
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        thread::sleep(Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().try_for_each(|one| one.join().map_err(|_| "a client panicked")?)
    });
    result?;
    let rate = count.load(Ordering::Relaxed) as f64 / seconds as f64;
    findings.say(&format!("GET of a load balancer, {CLIENTS} clients"), format!("{rate:.0}/s"), "", None);
    api.delete(&made)
}

/// So many at the same time, and what becomes of one whose amphora dies.
fn many(serve: &Serve, subnet: &Value, args: &Args, findings: &mut Findings) -> Result<()> {
    const AT_ONCE: usize = 8;
    let begin = Instant::now();
    let (next, made) = (AtomicU64::new(0), Mutex::new(Vec::<Made>::new()));
    thread::scope(|scope| {
        let maker = || -> Result<()> {
            let mut api = Api::connect()?;
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= args.many as u64 {
                    return Ok(());
                }
                let one = api.create(subnet, &format!("one of many {n}"))?;
                api.active(&one)?;
                made.lock().unwrap_or_else(PoisonError::into_inner).push(one);
            }
        };
        let makers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(maker)).collect();
        makers.into_iter().try_for_each(|one| one.join().map_err(|_| "a maker panicked")?)
    })?;
    let made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
    let took = begin.elapsed().as_secs_f64();
    let many = args.many;
    findings.say(&format!("{many} made, {AT_ONCE} at a time"), format!("{took:.1} s"), "", None);
    thread::sleep(Duration::from_secs(5));
    let all = serve.amphorae();
    let each = proportional(&all) / many as f64;
    findings.say("memory of each of them", format!("{each:.1} MiB"), "", None);
    let memory = resident(serve.pid())?;
    findings.say("memory of serve meanwhile", format!("{memory:.1} MiB"), "", None);
    let before = [cpu(&[serve.pid()]), cpu(&all)];
    thread::sleep(Duration::from_secs(args.seconds));
    let used = [cpu(&[serve.pid()]) - before[0], cpu(&all) - before[1]];
    let share = |used: f64| used / args.seconds as f64 * 100.0;
    findings.say(
        "CPU while they idle",
        format!("serve {:.1} %, all amphorae {:.1} % of a core", share(used[0]), share(used[1])),
        "",
        None,
    );
    let mut api = Api::connect()?;
    let mut times = Histogram::default();
    for one in made.iter().take(10) {
        let path = format!("octavia/amphorae?loadbalancer_id={}", one.id);
        let of =
            |api: &mut Api| -> Result<Value> { Ok(api.ask("GET", &path, &Value::Null)?["amphorae"].clone()) };
        let old = of(&mut api)?[0]["id"].as_str().ok_or("no amphora")?.to_owned();
        serve.kill_one(&old)?;
        let begin = Instant::now();
        wait(|| {
            let now = of(&mut api)?;
            Ok(now.as_array().is_some_and(|all| all.len() == 1)
                && now[0]["id"] != old.as_str()
                && now[0]["status"] == "ALLOCATED")
        })?;
        wait(|| Ok(who(one.vip) == Some(0)))?;
        times.record(begin.elapsed());
    }
    findings.times("one of them killed, until traffic", &times, 0.99, Duration::from_secs(2));
    let begin = Instant::now();
    for one in &made {
        api.ask("DELETE", &format!("lbaas/loadbalancers/{}?cascade=true", one.id), &Value::Null)?;
    }
    wait(|| Ok(serve.amphorae().is_empty()))?;
    findings.say("all deleted", format!("{:.1} s", begin.elapsed().as_secs_f64()), "", None);
    Ok(())
}
