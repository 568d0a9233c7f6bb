//! What a datagram costs that a UDP listener forwards, beside one that the kernel forwards plainly; see docs/benchmarks.md.

// A benchmark has nobody to hand an error to: what goes wrong ends it.
#![allow(clippy::unwrap_used)]

use std::{
    net::{SocketAddr, UdpSocket},
    process::ExitCode,
    time::{Duration, Instant},
};

use amphora_tests::{Document, Listener, Member, Namespace, Pool, Proxy};
use clap::Parser;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};

/// Echoes of one client at a time, from a namespace through another to a third, as root. The processor time is that of client and
/// member together, in whose name the kernel forwards.
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
}

const MEMBER: &str = "10.9.0.2:5300";
const VIP: &str = "203.0.113.50:53";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    let namespaces = (Namespace::create(), Namespace::create(), Namespace::create());
    let (Some(amphora), Some(client), Some(member)) = namespaces else { return ExitCode::FAILURE };
    amphora.link("front", &client, "amphora");
    amphora.link("back", &member, "amphora");
    amphora.ip(&["address", "add", "203.0.113.50/24", "dev", "front"]);
    amphora.ip(&["address", "add", "10.9.0.1/24", "dev", "back"]);
    client.ip(&["address", "add", "203.0.113.7/24", "dev", "amphora"]);
    client.ip(&["route", "add", "10.9.0.0/24", "via", "203.0.113.50"]);
    member.ip(&["address", "add", "10.9.0.2/24", "dev", "amphora"]);
    member.ip(&["route", "add", "203.0.113.0/24", "via", "10.9.0.1"]);
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let _echoing = member.spawn(move || async move {
        let socket = UdpSocket::bind(MEMBER).unwrap();
        ready.send(()).unwrap();
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    is_ready.await.unwrap();

    let pool = Pool::new("UDP").member(Member::at(MEMBER.parse().unwrap()));
    let with = Document::at("203.0.113.50".parse().unwrap())
        .listener(Listener::udp().port(53).to(&pool))
        .pool(&pool);
    let mut without = with.clone();
    without.listeners.clear();
    let mut proxy = Proxy::start_with(with.clone(), &["--netns", amphora.name()]).await;
    println!("| bytes | way | echoes | µs of processor time each | echoes per processor second |");
    println!("| --- | --- | --- | --- | --- |");
    for size in options.sizes {
        for _ in 0..options.repeats {
            for (way, document, to) in [("plain", &without, MEMBER), ("UDP listener", &with, VIP)] {
                proxy.apply(document).await;
                let to: SocketAddr = to.parse().unwrap();
                let time = Duration::from_secs(options.seconds);
                let (echoes, cost) = client.run(move || async move { echo(to, size, time) }).await;
                let each = cost.as_secs_f64() / echoes as f64;
                println!("| {size} | {way} | {echoes} | {:.2} | {:.0} |", each * 1e6, 1.0 / each);
            }
        }
    }
    ExitCode::SUCCESS
}

/// How many echoes came back, and the processor time of this process meanwhile.
fn echo(to: SocketAddr, size: usize, time: Duration) -> (u64, Duration) {
    let socket = UdpSocket::bind("203.0.113.7:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (payload, mut answer) = (vec![7; size], vec![0; size]);
    let mut once = || {
        socket.send(&payload).unwrap();
        assert_eq!(socket.recv(&mut answer).unwrap(), size);
    };
    (0..1000).for_each(|_| once());
    let (begun, before, mut echoes) = (Instant::now(), processor_time(), 0);
    while begun.elapsed() < time {
        (0..100).for_each(|_| once());
        echoes += 100;
    }
    (echoes, processor_time() - before)
}

fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}
