//! Changes the configuration of a running proxy many times under load, and says how long each change took and what
//! the clients noticed. `docs/benchmarks.md` says what each number is.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use amphora_benches::{
    Result,
    backend::{Backend, Service},
    control::Control,
    document::{Document, L7Policy, L7Rule, Listener, Member, Pool, id, kind, member_address},
    exchange::Exchange,
    histogram::Histogram,
    load::{self, Command, Tally},
    peers::amphora_command,
    process::{self, Process},
    report::{self, Table},
    rng::Rng,
};
use amphora_proxy::{
    control::api::Stats,
    model::{ListenerId, MemberId, PoolId},
    state::CheckState,
};
use clap::Parser;

/// Members that no change removes, at the start of their pools; their states and counters are compared.
const KEPT: usize = 4;
/// How long health checks may take to have looked at every member.
const PATIENCE: Duration = Duration::from_secs(60);

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
    /// Milliseconds between the end of a change and the start of the next.
    #[arg(long, default_value_t = 10)]
    interval: u64,
    /// Concurrent keep-alive connections; a quarter as many carry a connection per request, and as many again TCP.
    #[arg(long, default_value_t = 32)]
    connections: usize,
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
    /// The proxy listens on this port of 127.0.0.1 and the three after it.
    #[arg(long, default_value_t = 22000)]
    base_port: u16,
    /// Where the Markdown goes.
    #[arg(long, default_value = "target/apply-latency.md")]
    output: PathBuf,
    /// This project's proxy; beside this program by default.
    #[arg(long)]
    amphora: Option<PathBuf>,
    /// Fewer changes of smaller pools, to see that everything works.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("apply-latency: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: Args) -> Result<bool> {
    if args.quick {
        (args.changes, args.members) = (100, vec![10, 100]);
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
         {load_core}. Seed {}.\n\n",
        report::machine(),
        args.workers,
        args.seed
    );
    let mut table =
        Table::new(["members", "changes", "document KiB", "apply p50 ms", "apply p99 ms", "apply max ms"]);
    let mut clients = Table::new(["members", "load", "exchanges", "p50 ms", "p99 ms", "max ms", "failures"]);
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
        for (name, tally) in &outcome.loads {
            good &= tally.failed() == 0;
            let failures = if tally.failed() == 0 { "0".into() } else { format!("{:?}", tally.failures) };
            clients.row([
                members.to_string(),
                (*name).to_owned(),
                tally.exchanges.to_string(),
                ms(tally.latency.quantile(0.50)),
                ms(tally.latency.quantile(0.99)),
                ms(tally.latency.max()),
                failures,
            ]);
        }
        let (before, after) = outcome.resident;
        notes += &format!(
            "\n* {members} members: resident memory {:.1} MiB before and {:.1} MiB after; kept connections closed by \
             announcement: {}; kept members and counters compared: {}.",
            before as f64 / 1_048_576.0,
            after as f64 / 1_048_576.0,
            outcome.loads.iter().map(|(_, t)| t.announced_closes).sum::<u64>(),
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

struct Outcome {
    /// From the connect to the control socket until the whole answer is there.
    apply: Histogram,
    /// Of the last document.
    document_bytes: usize,
    loads: Vec<(&'static str, Tally)>,
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
    let (file, socket, log) = (
        dir.path().join("load-balancer.json"),
        dir.path().join("control.sock"),
        dir.path().join("output.log"),
    );
    fs::write(&file, plan.document.to_json())?;
    let mut proxy = Process::start(amphora_command(program, &file, &socket, args.workers), proxy_core, &log)?;
    let control = Control::new(&socket);
    let at = |offset: u16| SocketAddr::from(([127, 0, 0, 1], args.base_port + offset));
    let (http, tcp) = (at(0), at(1));
    proxy.wait_ready(&log, || {
        load::once(http, &Exchange::http(1, false)).is_ok() && load::once(tcp, &Exchange::tcp(false)).is_ok()
    })?;
    wait_for_checks(&control)?;

    let before = control.stats()?;
    let resident = proxy.memory()?.resident;
    let stop = AtomicBool::new(false);
    let mut apply = Histogram::default();
    let mut document_bytes = 0;
    let loads = thread::scope(|scope| -> Result<Vec<(&'static str, Tally)>> {
        let few = (args.connections / 4).max(1);
        let kinds = [
            ("HTTP keep-alive", http, Exchange::http(128, true), args.connections),
            ("HTTP, a connection per request", http, Exchange::http(1024, false), few),
            ("TCP, one long session each", tcp, Exchange::tcp(true), few),
            ("TCP, short sessions", tcp, Exchange::tcp(false), few),
        ];
        let stop = &stop;
        let threads = kinds.map(|(name, target, exchange, connections)| {
            let run = move || {
                load::exchanges(target, &exchange, connections, &mut |_, _| {
                    if stop.load(Relaxed) { Command::Stop } else { Command::Continue }
                })
                .map(|tally| (name, tally))
                .map_err(|e| format!("{name}: {e}"))
            };
            scope.spawn(run)
        });
        let changed = apply_all(args, &control, &mut plan, &mut apply, &mut document_bytes);
        stop.store(true, Relaxed);
        let tallies = threads.map(|t| t.join().expect("the load does not panic"));
        changed?;
        Ok(tallies.into_iter().collect::<Result<Vec<_>, String>>()?)
    })?;
    let after = control.stats()?;
    let resident = (resident, proxy.memory()?.resident);
    let lost = lost(&before, &after, &loads);
    Ok(Outcome { apply, document_bytes, loads, resident, lost })
}

fn apply_all(
    args: &Args,
    control: &Control,
    plan: &mut Plan,
    apply: &mut Histogram,
    document_bytes: &mut usize,
) -> Result<()> {
    for n in 1..=args.changes {
        let what = plan.change();
        let document = plan.document.to_json();
        *document_bytes = document.len();
        let started = Instant::now();
        let applied = control.apply(&document).map_err(|e| format!("change {n} ({what}): {e}"))?;
        apply.record(started.elapsed());
        if !applied.changed {
            return Err(format!("change {n} ({what}) was taken for no change").into());
        }
        thread::sleep(Duration::from_millis(args.interval));
    }
    Ok(())
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
fn lost(before: &Stats, after: &Stats, loads: &[(&'static str, Tally)]) -> Vec<String> {
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
    // Each listener has two loads: in the order of `changes`.
    for (number, loads) in (1..).zip(loads.chunks(2)) {
        let listener = ListenerId(id(kind::LISTENER, number));
        let (Some(old), Some(new)) = (before.listeners.get(&listener), after.listeners.get(&listener)) else {
            lost.push(format!("listener {listener} has no statistics"));
            continue;
        };
        let sum = |count: fn(&Tally) -> u64| loads.iter().map(|(_, tally)| count(tally)).sum::<u64>();
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

/// The document, and what changes in it.
struct Plan {
    document: Document,
    rng: Rng,
    http_port: u16,
    base_port: u16,
    /// For ids that were never used.
    next: u64,
    size: usize,
}

impl Plan {
    /// An HTTP and a TCP listener that stay; pool 1, whose size is given, pool 2 and a TCP pool, all checked.
    fn new(size: usize, base_port: u16, backend_ports: &[u16], rng: Rng) -> Self {
        let [http_port, tcp_port] = *backend_ports else { unreachable!("two services, two ports") };
        let members = |n: usize, port: u16| -> Vec<SocketAddr> {
            (0..n as u64).map(|i| SocketAddr::new(member_address(i), port)).collect()
        };
        let listeners = vec![
            // Each pool is in use whatever the default pool is.
            Listener::new(1, "HTTP", base_port, 1).with_forwarded_for().with_l7policies(vec![
                L7Policy::to_pool(1, 1, L7Rule::new(1, "HEADER", "EQUAL_TO", Some("X-Pool"), "first")),
                L7Policy::to_pool(2, 2, L7Rule::new(2, "HEADER", "EQUAL_TO", Some("X-Pool"), "second")),
            ]),
            Listener::new(2, "TCP", base_port + 1, 3),
        ];
        let pools = vec![
            Pool::new(1, "HTTP", &members(size, http_port)).with_monitor(1),
            Pool::new(2, "HTTP", &members(2 * KEPT, http_port)).with_monitor(2),
            Pool::new(3, "TCP", &members(2 * KEPT, tcp_port)).with_monitor(3),
        ];
        Self { document: Document::new(listeners, pools), rng, http_port, base_port, next: 1 << 40, size }
    }

    /// Makes one change, and says which. Requests have a right answer before, during and after each.
    fn change(&mut self) -> &'static str {
        loop {
            let name = match self.rng.below(10) {
                0 | 1 => self.add_member(),
                2 | 3 => self.remove_member(),
                4 => self.change_weight(),
                5 => self.toggle_member(),
                6 => self.change_policies(),
                7 => self.switch_pool(),
                8 => self.change_pool_or_listener(),
                _ => self.toggle_listener(),
            };
            if let Some(name) = name {
                return name;
            }
        }
    }

    fn add_member(&mut self) -> Option<&'static str> {
        // The size stays about what was asked for.
        if self.document.loadbalancer.pools[0].members.len() > self.size {
            return None;
        }
        self.next += 1;
        let address = SocketAddr::new(member_address(100_000 + self.next % 100_000), self.http_port);
        self.document.loadbalancer.pools[0].members.push(Member::new(self.next, address));
        Some("add a member")
    }

    /// Some member of a pool that may go.
    fn removable(&mut self, pool: usize) -> Option<usize> {
        let others =
            self.document.loadbalancer.pools[pool].members.len().checked_sub(KEPT).filter(|&n| n > 0)?;
        Some(KEPT + self.rng.below(others))
    }

    fn remove_member(&mut self) -> Option<&'static str> {
        let pool = if self.rng.below(4) == 0 { 2 } else { 0 };
        let enough = if pool == 0 { self.size / 2 } else { KEPT };
        if self.document.loadbalancer.pools[pool].members.len() <= enough {
            return None;
        }
        let member = self.removable(pool)?;
        self.document.loadbalancer.pools[pool].members.remove(member);
        Some("remove a member")
    }

    fn change_weight(&mut self) -> Option<&'static str> {
        let pool = self.rng.below(3);
        let member = self.rng.below(self.document.loadbalancer.pools[pool].members.len());
        // Weight 0 drains; the kept members go on taking traffic.
        let least = usize::from(member < KEPT);
        let weight = (least + self.rng.below(10)) as u16;
        let member = &mut self.document.loadbalancer.pools[pool].members[member];
        (std::mem::replace(&mut member.weight, weight) != weight).then_some("change a weight")
    }

    fn toggle_member(&mut self) -> Option<&'static str> {
        let pool = self.rng.below(3);
        let member = self.removable(pool)?;
        let member = &mut self.document.loadbalancer.pools[pool].members[member];
        member.admin_state_up = !member.admin_state_up;
        Some("switch a member on or off")
    }

    fn change_policies(&mut self) -> Option<&'static str> {
        let policies = &mut self.document.loadbalancer.listeners[0].l7policies;
        if policies.len() > 5 {
            policies.remove(2 + self.rng.below(policies.len() - 2));
        } else {
            self.next += 1;
            let n = self.next;
            policies.push(match self.rng.below(3) {
                0 => L7Policy::reject(n, L7Rule::new(n, "PATH", "STARTS_WITH", None, "/reject")),
                // This one matches what the load asks for: traffic goes to the other pool at once.
                1 => L7Policy::to_pool(n, 2, L7Rule::new(n, "PATH", "STARTS_WITH", None, "/bytes")),
                _ => {
                    L7Policy::to_pool(n, 2, L7Rule::new(n, "COOKIE", "REGEX", Some("group"), "^(b|c)[0-9]+$"))
                }
            });
        }
        for (policy, position) in policies.iter_mut().zip(1..) {
            policy.position = position;
        }
        Some("change the policies")
    }

    fn switch_pool(&mut self) -> Option<&'static str> {
        let (one, two) = (id(kind::POOL, 1), id(kind::POOL, 2));
        let listener = &mut self.document.loadbalancer.listeners[0];
        listener.default_pool_id = if listener.default_pool_id == one { two } else { one };
        Some("switch the default pool")
    }

    fn change_pool_or_listener(&mut self) -> Option<&'static str> {
        if self.rng.below(2) == 0 {
            let algorithms = ["ROUND_ROBIN", "LEAST_CONNECTIONS", "SOURCE_IP"];
            let algorithm = algorithms[self.rng.below(algorithms.len())];
            let pool = self.rng.below(3);
            let pool = &mut self.document.loadbalancer.pools[pool];
            (std::mem::replace(&mut pool.lb_algorithm, algorithm) != algorithm)
                .then_some("change an algorithm")
        } else {
            let listener = self.rng.below(2);
            let timeout = 40_000 + self.rng.below(10_000) as u32;
            let listener = &mut self.document.loadbalancer.listeners[listener];
            (std::mem::replace(&mut listener.timeout_client_data, timeout) != timeout)
                .then_some("change a timeout")
        }
    }

    /// A third listener comes, on one of two ports, and goes.
    fn toggle_listener(&mut self) -> Option<&'static str> {
        let listeners = &mut self.document.loadbalancer.listeners;
        if listeners.len() > 2 {
            listeners.truncate(2);
            return Some("remove a listener");
        }
        let port = self.base_port + 2 + self.rng.below(2) as u16;
        listeners.push(Listener::new(3, "HTTP", port, 2));
        Some("add a listener")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_change_changes_the_document_and_keeps_what_is_compared() {
        let mut plan = Plan::new(10, 22000, &[1, 2], Rng::new(7));
        let mut kinds = BTreeMap::new();
        let mut last = plan.document.to_json();
        for _ in 0..2000 {
            *kinds.entry(plan.change()).or_insert(0) += 1;
            let document = plan.document.to_json();
            assert_ne!(document, last);
            last = document;
            for (pool, number) in plan.document.loadbalancer.pools.iter().zip(1u64..) {
                assert!(pool.members.len() <= 11.max(2 * KEPT));
                for (member, n) in pool.members.iter().zip(0..KEPT as u64) {
                    assert_eq!(member.id, id(kind::MEMBER, number << 32 | n));
                    assert!(member.weight > 0 && member.admin_state_up);
                }
            }
        }
        assert_eq!(kinds.len(), 10, "{kinds:?}");
    }
}
