//! Beside Octavia's own agent, HAProxy and all that belongs to them, in one run and by the same requests: how long changes take, what
//! the processes weigh, and what becomes of clients. `benches/beside-octavia` runs it with programs as they are shipped.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use amphora_tests::{Certificates, Namespace, PATIENCE, eventually, read_message};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::{
    controller::{CONFIG, Driver, LB, Lan, Machine, load_balancer, member, web},
    ground::{AMPHORA, Client, Ground, hot_plug},
    reference::Reference,
};

const MAC: &str = "fa:16:3e:00:21:01";

/// How many changes are measured, of which each is an upload and a reload.
const CHANGES: usize = 10;

/// How many clients ask without a pause while they are.
const CLIENTS: usize = 4;

/// How long all of it may take of either amphora, on a machine that has other things to do: with nothing else it is half a minute.
const LIMIT: Duration = Duration::from_secs(400);

#[derive(Debug)]
struct Measured {
    ready: Duration,
    plug: Duration,
    /// Medians, idle and under load.
    changes: [Duration; 2],
    /// KiB, proportional and resident.
    memory: [u64; 2],
    requests: u64,
    errors: u64,
}

/// What is to be asked and weighed.
struct Subject<'a> {
    client: Client,
    management: &'a Namespace,
    certificates: &'a Certificates,
    base_path: &'a Path,
    ready: Duration,
    /// The processes that are its own.
    processes: Box<dyn Fn() -> Vec<i32> + 'a>,
}

async fn put(client: &Client, path: &str, text: &str) -> Duration {
    let begun = Instant::now();
    let answer = client.request("PUT", path, Some("text/plain"), text.as_bytes()).await.unwrap();
    assert_eq!(answer.status(), 202, "{path}: {}", answer.text());
    begun.elapsed()
}

/// Uploads and reloads these texts in turn; the median.
async fn change(client: &Client, texts: &[String; 2]) -> Duration {
    let upload = format!("/1.0/loadbalancer/{AMPHORA}/{LB}/haproxy");
    let reload = format!("/1.0/loadbalancer/{LB}/reload");
    let mut took = Vec::new();
    for text in texts.iter().cycle().take(CHANGES) {
        took.push(put(client, &upload, text).await + put(client, &reload, "").await);
    }
    took.sort();
    took[took.len() / 2]
}

/// KiB of these processes, proportional and resident (proc_pid_smaps_rollup(5)).
fn weigh(processes: &[i32]) -> [u64; 2] {
    let mut sums = [0; 2];
    for pid in processes {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        for (sum, name) in sums.iter_mut().zip(["Pss:", "Rss:"]) {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0 kB");
            *sum += line.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
        }
    }
    sums
}

/// Clients that keep their connections for as long as they may.
#[derive(Default)]
struct Load {
    requests: AtomicU64,
    errors: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    async fn client(&self) {
        let mut connection = None;
        while !self.stop.load(Ordering::Relaxed) {
            let (stream, buffer) = match &mut connection {
                Some(kept) => kept,
                None => match timeout(PATIENCE, TcpStream::connect("10.77.0.100:80")).await {
                    Ok(Ok(stream)) => connection.insert((stream, Vec::new())),
                    _ => {
                        self.errors.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        continue;
                    }
                },
            };
            self.requests.fetch_add(1, Ordering::Relaxed);
            let ask = async {
                stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await?;
                read_message(stream, buffer, true).await
            };
            match timeout(PATIENCE, ask).await {
                Ok(Ok(Some(answer))) if answer.status() == 200 => {
                    if answer.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                        connection = None;
                    }
                }
                _ => {
                    self.errors.fetch_add(1, Ordering::Relaxed);
                    connection = None;
                }
            }
        }
    }
}

async fn measure(subject: Subject<'_>) -> Measured {
    let Subject { client, management, certificates, base_path, ready, processes } = subject;
    let lan = Namespace::create().unwrap();
    hot_plug(management, &lan, "lan1", MAC);
    let _members = Lan::on(&lan, certificates, "lan1").await;
    let mut driver =
        Driver::start_for(&Machine { management, certificates, base_path, role: "STANDALONE" }).unwrap();

    let port = json!({
        "subnet_cidr": "10.77.0.0/24", "gateway": "10.77.0.1", "mac_address": MAC, "vrrp_ip": "10.77.0.101", "mtu": 1500,
        "host_routes": [], "additional_vips": [], "is_sriov": false,
    });
    let begun = Instant::now();
    let body = port.to_string();
    let plugged = client
        .request("POST", "/1.0/plug/vip/10.77.0.100", Some("application/json"), body.as_bytes())
        .await
        .unwrap();
    let plug = begun.elapsed();
    assert_eq!(plugged.status(), 202, "{}", plugged.text());

    let texts = [1, 3].map(|weight| {
        let (mut listener, mut first) = (web(), member(1));
        // HAProxy wants two descriptors for each, and more than a container may have for what is usual.
        listener["connection_limit"] = 2000.into();
        first["weight"] = weight.into();
        let lb = load_balancer(json!([listener]), json!([first, member(2)]));
        let Value::String(text) = driver.does("render", json!({ "lb": lb })) else { panic!("a text") };
        text
    });
    // The first one starts it.
    change(&client, &texts).await;
    let idle = change(&client, &texts).await;
    let memory = weigh(&processes());

    let load = Arc::new(Load::default());
    let running = {
        let load = Arc::clone(&load);
        lan.spawn(move || async move {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    let load = Arc::clone(&load);
                    tokio::spawn(async move { load.client().await })
                })
                .collect();
            for client in clients {
                client.await.unwrap();
            }
        })
    };
    eventually("traffic", async || (load.requests.load(Ordering::Relaxed) > 100).then_some(())).await;
    let loaded = change(&client, &texts).await;
    load.stop.store(true, Ordering::Relaxed);
    running.await.unwrap();
    Measured {
        ready,
        plug,
        changes: [idle, loaded],
        memory,
        requests: load.requests.load(Ordering::Relaxed),
        errors: load.errors.load(Ordering::Relaxed),
    }
}

async fn ours() -> Option<Measured> {
    let begun = Instant::now();
    let ground = Ground::start(CONFIG).await?;
    let whole = begun.elapsed();
    let ready = ground.ready_after.unwrap_or(whole);
    Some(
        measure(Subject {
            client: ground.client(),
            management: &ground.management,
            certificates: &ground.certificates,
            base_path: &ground.path("state"),
            ready,
            processes: Box::new(|| ground.processes()),
        })
        .await,
    )
}

async fn octavias() -> Option<Measured> {
    let begun = Instant::now();
    let reference = Reference::start_as(AMPHORA, CONFIG)?;
    let client = Client::of(&reference.management, AMPHORA, &reference.certificates);
    client.answered().await;
    let ready = begun.elapsed();
    Some(
        measure(Subject {
            client,
            management: &reference.management,
            certificates: &reference.certificates,
            base_path: Path::new("/var/lib/octavia"),
            ready,
            processes: Box::new(|| reference.processes()),
        })
        .await,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: benches/beside-octavia"]
async fn beside_octavias_own() {
    let Some(ours) = timeout(LIMIT, ours()).await.expect("ours is measured in time") else { return };
    println!("{ours:?}");
    let octavias = timeout(LIMIT, octavias()).await.expect("Octavia's own is measured in time");
    let Some(octavias) = octavias else { return };
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let row = |what: &str, ours: f64, octavias: f64, unit: &str| {
        println!("| {what} | {ours:.1} {unit} | {octavias:.1} {unit} | {:.1} |", octavias / ours);
    };
    println!("| | ours | Octavia's own | ratio |\n| --- | --- | --- | --- |");
    row("agent ready after start", ms(ours.ready), ms(octavias.ready), "ms");
    row("plug vip", ms(ours.plug), ms(octavias.plug), "ms");
    row("upload and reload, idle, median", ms(ours.changes[0]), ms(octavias.changes[0]), "ms");
    row("upload and reload, under load, median", ms(ours.changes[1]), ms(octavias.changes[1]), "ms");
    let mib = |kib: u64| kib as f64 / 1024.0;
    row("memory of all processes, proportional", mib(ours.memory[0]), mib(octavias.memory[0]), "MiB");
    row("memory of all processes, resident", mib(ours.memory[1]), mib(octavias.memory[1]), "MiB");
    println!(
        "| failed of requests over {CHANGES} reloads | {} of {} | {} of {} | |",
        ours.errors, ours.requests, octavias.errors, octavias.requests
    );
    assert_eq!(ours.errors, 0);
}
