//! What a datagram costs that a UDP listener forwards, beside one that the kernel forwards plainly and one that nginx's stream module
//! relays, and what becomes of flows when their member dies; see docs/benchmarks.md.

// A benchmark has nobody to hand an error to: what goes wrong ends it.
#![allow(clippy::unwrap_used)]

use std::{
    io::Write as _,
    net::{SocketAddr, UdpSocket},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use amphora_tests::{
    Document, HealthMonitor, Listener, Member, Namespace, Pool, Proxy, cpu_time, eventually,
};
use clap::Parser;

/// Echoes of one client at a time, from a namespace through another to a third, as root. The processor time is that of client and
/// member together, in whose name the kernel forwards, and of nginx.
#[derive(Debug, Parser)]
#[command(name = "amphora-datagrams")]
struct Options {
    /// Bytes of a datagram.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 1200])]
    sizes: Vec<usize>,
    /// How long each is measured, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Times that each is measured, in turn.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Flows that there are when a member dies.
    #[arg(long, default_value_t = 200)]
    flows: usize,
    /// nginx; without its stream module it is left out.
    #[arg(long, default_value = "nginx")]
    nginx: String,
    /// Where that has it.
    #[arg(long, default_value = "/usr/lib/nginx/modules/ngx_stream_module.so")]
    stream_module: String,
}

const MEMBERS: [&str; 2] = ["10.9.0.2:5300", "10.9.0.3:5300"];
/// The first member's address.
const FIRST: &str = "10.9.0.2/24";
const VIP: &str = "203.0.113.50:53";
const NGINX: &str = "203.0.113.50:54";
/// Of flows, after their member has died.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    let namespaces = (Namespace::create(), Namespace::create(), Namespace::create());
    let (Some(amphora), Some(client), Some(members)) = namespaces else { return ExitCode::FAILURE };
    amphora.link("front", &client, "amphora");
    amphora.link("back", &members, "amphora");
    amphora.ip(&["address", "add", "203.0.113.50/24", "dev", "front"]);
    amphora.ip(&["address", "add", "10.9.0.1/24", "dev", "back"]);
    client.ip(&["address", "add", "203.0.113.7/24", "dev", "amphora"]);
    client.ip(&["route", "add", "10.9.0.0/24", "via", "203.0.113.50"]);
    // The first address of a network takes the others with it when it goes.
    members.ip(&["address", "add", "10.9.0.3/24", "dev", "amphora"]);
    members.ip(&["address", "add", FIRST, "dev", "amphora"]);
    members.ip(&["route", "add", "203.0.113.0/24", "via", "10.9.0.1"]);
    let one = Echo::start(&members, MEMBERS[0]).await;

    let pool = Pool::new("UDP").member(Member::at(MEMBERS[0].parse().unwrap()));
    let with = document(&pool);
    let mut without = with.clone();
    without.listeners.clear();
    let mut proxy = Proxy::start_with(with.clone(), &["--netns", amphora.name()]).await;
    let nginx = Nginx::start(&options, &amphora, &MEMBERS[..1]).await;
    let mut ways = vec![("plain", &without, MEMBERS[0]), ("UDP listener", &with, VIP)];
    if nginx.is_some() {
        ways.push(("nginx, stream", &without, NGINX));
    }
    println!(
        "| bytes | way | µs of processor time for an echo | datagrams per processor second | µs until the echo is there, p50 | p99 |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for size in options.sizes.iter().copied() {
        let mut measured = vec![Vec::new(); ways.len()];
        for _ in 0..options.repeats {
            for ((_, document, to), measured) in ways.iter().zip(&mut measured) {
                proxy.apply(document).await;
                let to: SocketAddr = to.parse().unwrap();
                let time = Duration::from_secs(options.seconds);
                let relay = nginx.as_ref().map(|nginx| nginx.0.id());
                measured.push(client.run(move || async move { echo(to, size, time, relay) }).await);
            }
        }
        for ((way, ..), measured) in ways.iter().zip(measured) {
            let of = |what: fn(&Measured) -> f64| median(measured.iter().map(what).collect());
            let each = of(|m| m.cost);
            println!(
                "| {size} | {way} | {each:.2} | {:.0} | {:.1} | {:.1} |",
                2e6 / each,
                of(|m| m.p50),
                of(|m| m.p99)
            );
        }
    }
    drop(nginx);

    println!();
    println!(
        "| way | flows of the member that dies | lost | s until one goes on at another, p50 | at most |"
    );
    println!("| --- | --- | --- | --- | --- |");
    let two = Echo::start(&members, MEMBERS[1]).await;
    let pool = pool.member(Member::at(MEMBERS[1].parse().unwrap())).monitored(&HealthMonitor::new("PING"));
    proxy.apply(&document(&pool)).await;
    for index in [0, 1] {
        proxy.until_member(index, "it is checked", |member| member.check.to_string() == "UP").await;
    }
    flows_of_a_dead_member("UDP listener", [&client, &members], VIP, options.flows).await;
    proxy.apply(&without).await;
    members.ip(&["address", "add", FIRST, "dev", "amphora"]);
    if let Some(_nginx) = Nginx::start(&options, &amphora, &MEMBERS).await {
        flows_of_a_dead_member("nginx, stream", [&client, &members], NGINX, options.flows).await;
    }
    one.end().await;
    two.end().await;
    ExitCode::SUCCESS
}

fn document(pool: &Pool) -> Document {
    Document::at("203.0.113.50".parse().unwrap()).listener(Listener::udp().port(53).to(pool)).pool(pool)
}

/// A member, which echoes until it is told to end, and is gone then.
struct Echo {
    ending: Arc<AtomicBool>,
    ended: tokio::sync::oneshot::Receiver<()>,
}

impl Echo {
    async fn start(namespace: &Namespace, address: &'static str) -> Self {
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let ending = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ending);
        let ended = namespace.spawn(move || async move {
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            ready.send(()).unwrap();
            let mut buffer = [0; 2048];
            while !told.load(Ordering::Relaxed) {
                // One byte asks who it is.
                match socket.recv_from(&mut buffer) {
                    Ok((1, from)) => drop(socket.send_to(address.as_bytes(), from)),
                    Ok((length, from)) => drop(socket.send_to(&buffer[..length], from)),
                    Err(_) => {}
                }
            }
        });
        is_ready.await.unwrap();
        Self { ending, ended }
    }

    async fn end(self) {
        self.ending.store(true, Ordering::Relaxed);
        self.ended.await.unwrap();
    }
}

struct Nginx(Child);

impl Nginx {
    async fn start(options: &Options, namespace: &Namespace, members: &[&str]) -> Option<Self> {
        if !std::path::Path::new(&options.stream_module).exists() {
            eprintln!("without nginx: there is no {}", options.stream_module);
            return None;
        }
        let servers: String = members.iter().map(|member| format!("server {member};")).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(
            file,
            "load_module {};\ndaemon off; master_process off; pid /dev/null; error_log stderr crit;\n\
             events {{}}\nstream {{ upstream members {{ {servers} }}\n\
             server {{ listen {NGINX} udp; proxy_pass members; proxy_timeout 60s; }} }}\n",
            options.stream_module
        )
        .unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", namespace.name(), &options.nginx, "-c"])
            .arg(file.path())
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let nginx = Self(child);
        eventually("nginx listens", async || {
            let listed = Command::new("ss").args(["-N", namespace.name(), "-Hlun"]).output().ok()?;
            String::from_utf8_lossy(&listed.stdout).contains(NGINX).then_some(())
        })
        .await;
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Of an echo, in microseconds.
#[derive(Clone, Copy)]
struct Measured {
    /// Processor time.
    cost: f64,
    p50: f64,
    p99: f64,
}

fn echo(to: SocketAddr, size: usize, time: Duration, relay: Option<u32>) -> Measured {
    let socket = UdpSocket::bind("203.0.113.7:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (payload, mut answer) = (vec![7; size], vec![0; size]);
    let mut once = || {
        socket.send(&payload).unwrap();
        assert_eq!(socket.recv(&mut answer).unwrap(), size);
    };
    (0..1000).for_each(|_| once());
    let used = || cpu_time(std::process::id()) + relay.map(cpu_time).unwrap_or_default();
    let (begun, before, mut took) = (Instant::now(), used(), Vec::new());
    while begun.elapsed() < time {
        let began = Instant::now();
        once();
        took.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let cost = (used() - before).as_secs_f64() * 1e6 / took.len() as f64;
    took.sort_by(f64::total_cmp);
    Measured { cost, p50: took[took.len() / 2], p99: took[took.len() * 99 / 100] }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Lets the host of the first member die, which has half of the flows, and asks each of these until another has it.
async fn flows_of_a_dead_member(way: &str, [client, members]: [&Namespace; 2], to: &str, count: usize) {
    let (to, whose): (SocketAddr, _) = (to.parse().unwrap(), MEMBERS[0]);
    let flows: Vec<UdpSocket> = client
        .run(move || async move {
            let made = (0..count).map(|_| {
                let socket = UdpSocket::bind("203.0.113.7:0").unwrap();
                socket.connect(to).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
                socket
            });
            made.collect()
        })
        .await;
    let ask = |flow: &UdpSocket| {
        let mut answer = [0; 64];
        // Refused by ICMP, or not answered yet.
        let length = flow.send(b"?").and_then(|_| flow.recv(&mut answer)).ok()?;
        Some(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    let first = |flow: &UdpSocket| (0..1000).find_map(|_| ask(flow)).expect("a flow that is answered");
    let mut left: Vec<UdpSocket> = flows.into_iter().filter(|flow| first(flow) == whose).collect();
    let all = left.len();
    members.ip(&["address", "del", FIRST, "dev", "amphora"]);
    let (died, mut took) = (Instant::now(), Vec::new());
    while !left.is_empty() && died.elapsed() < PATIENCE {
        left.retain(|flow| {
            let goes_on = ask(flow).is_some_and(|member| member != whose);
            if goes_on {
                took.push(died.elapsed().as_secs_f64());
            }
            !goes_on
        });
    }
    let (lost, most) = (left.len(), took.iter().copied().fold(0.0, f64::max));
    match took.is_empty() {
        true => println!("| {way} | {all} | {lost} | never | never |"),
        false => println!("| {way} | {all} | {lost} | {:.2} | {most:.2} |", median(took)),
    }
}
