//! A worker with clients and members of its own: what lasting sessions hold on to while the configuration changes, and when
//! an address that comes back is served.
#![allow(clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    rc::Rc,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use amphora_model::{Binding, LoadBalancer};
use tokio::{sync::oneshot, time::Instant};

use super::{Command, Listeners, WorkerHandle};
use crate::{
    limits::{Bounds, Clients, Resources},
    local::{LocalSnapshot, Worker},
    logs::{FlowLogs, Share, Syslog},
    metrics::Scrapes,
    net::{self, NewListener},
    snapshot::{ListenerPlan, PoolPlan, Snapshot, TlsSource, compile_after},
    state::Registry,
};

const PATIENCE: Duration = Duration::from_secs(30);
const GENERATIONS: usize = 100;

fn syslog() -> Share {
    Syslog::new(Path::new("/nonexistent/log"), 1).unwrap().shares().next().unwrap()
}

/// A member that begins to answer everything and never ends.
fn member() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let request = read_head(&mut stream);
                let answer = if request.starts_with("GET /socket ") {
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: x\r\n\r\n"
                } else if request.starts_with("GET /events ") {
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
                     8\r\ndata: 1\n\r\n"
                } else {
                    "hello\r\n\r\n"
                };
                stream.write_all(answer.as_bytes()).unwrap();
                let _ = stream.read(&mut [0; 1]);
            });
        }
    });
    address
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// A session that has begun, and lasts for as long as this is kept.
fn session(to: SocketAddr, request: &str, answer: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with(answer), "{head}");
    stream
}

/// Both listeners, their pools and a policy differ from generation to generation.
fn load_balancer(vip: IpAddr, member: SocketAddr, generation: usize) -> Arc<LoadBalancer> {
    let id = |kind: usize, n: usize| format!("{kind}0000000-0000-4000-8000-{n:012}");
    let pool = |protocol: &str, n: usize| {
        let drained = (0..20).map(|other| {
            format!(
                r#"{{"id": "{}", "address": "127.9.{}.{other}", "protocol_port": 1, "weight": 0}}"#,
                id(4, 100 * n + other),
                generation % 200,
            )
        });
        let members = drained.collect::<Vec<_>>().join(", ");
        format!(
            r#"{{"id": "{}", "protocol": "{protocol}", "lb_algorithm": "ROUND_ROBIN", "members": [
                {{"id": "{}", "address": "{}", "protocol_port": {}}}, {members}]}}"#,
            id(3, n),
            id(4, 1000 + n),
            member.ip(),
            member.port(),
        )
    };
    let listener = |protocol: &str, n: usize, policies: &str| {
        format!(
            r#"{{"id": "{}", "protocol": "{protocol}", "protocol_port": {}, "timeout_client_data": {},
                "l7policies": [{policies}], "default_pool": {}}}"#,
            id(2, n),
            8080 + n,
            50_000 + generation,
            pool(protocol, n),
        )
    };
    let policy = format!(
        r#"{{"id": "{}", "action": "REJECT", "position": 1, "rules": [
            {{"id": "{}", "type": "PATH", "compare_type": "REGEX", "value": "/{generation}(a|b)+$"}}]}}"#,
        id(5, 1),
        id(6, 1)
    );
    let document = format!(
        r#"{{"loadbalancer": {{"id": "{}", "vip_address": "{vip}", "listeners": [{}, {}]}}}}"#,
        id(1, 1),
        listener("HTTP", 1, &policy),
        listener("TCP", 2, ""),
    );
    Arc::new(LoadBalancer::from_json(document.as_bytes()).unwrap())
}

/// An address that no other test listens on.
fn vip(nth: u8) -> IpAddr {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | nth << 4 | a, b, c).into()
}

fn enough() -> Bounds {
    Resources { descriptors: 4096, memory: 1 << 30, set_aside: 64, workers: 1 }.share_out().unwrap()
}

fn bound(snapshot: &Snapshot) -> Vec<(Binding, NewListener)> {
    let bind = |binding: Binding| NewListener::Bound(net::bind(binding.address).unwrap());
    snapshot.bindings().map(|(binding, _)| (binding, bind(binding))).collect()
}

#[test]
fn sessions_that_last_hold_no_configuration() {
    let vip = vip(0);
    let member = member();
    let (_, scrapes) = Scrapes::start(|| None).unwrap();
    let enough = enough();
    let clients = Arc::new(Clients::new(enough.clients));
    let worker = WorkerHandle::start(0, &enough, clients, Instant::now(), scrapes, syslog()).unwrap();
    let mut registry = Registry::new(1);
    let mut present = Arc::new(Snapshot::empty(0));
    let mut snapshots: Vec<Weak<Snapshot>> = Vec::new();
    let mut listeners: Vec<Weak<ListenerPlan>> = Vec::new();
    let mut pools: Vec<Weak<PoolPlan>> = Vec::new();
    let mut sessions = Vec::new();
    for generation in 1..=GENERATIONS {
        let model = load_balancer(vip, member, generation);
        let snapshot = Arc::new(compile_after(model, &present, &registry, &TlsSource::default()).unwrap());
        let sockets = match generation {
            1 => bound(&snapshot),
            _ => Vec::new(),
        };
        let (done, live) = oneshot::channel();
        assert!(worker.send(Command::Apply { snapshot: Arc::clone(&snapshot), sockets, done }));
        live.blocking_recv().unwrap();
        snapshot.hand_over(&mut registry);
        snapshots.push(Arc::downgrade(&snapshot));
        listeners.extend(snapshot.listeners.iter().map(Arc::downgrade));
        pools.extend(snapshot.pools.iter().map(Arc::downgrade));
        present = snapshot;
        if generation % 10 == 1 {
            let (http, tcp) = (SocketAddr::new(vip, 8081), SocketAddr::new(vip, 8082));
            sessions.push(session(tcp, "anything\r\n\r\n", "hello"));
            sessions.push(session(http, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK"));
            let upgrade = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
            sessions.push(session(http, upgrade, "HTTP/1.1 101"));
        }
    }

    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let held = (alive(&snapshots), alive(&listeners), alive(&pools));
        if held == (1, 2, 2) {
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "snapshots, listeners and pools that are held: {held:?}"
        );
        thread::sleep(Duration::from_millis(10));
    }
    // All of them are still there.
    for stream in &sessions {
        stream.set_nonblocking(true).unwrap();
        let peeked = stream.peek(&mut [0]);
        assert!(
            matches!(&peeked, Ok(1..)) || peeked.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
        );
    }
    drop(sessions);
    worker.send(Command::Drain);
}

fn alive<T>(held: &[Weak<T>]) -> usize {
    held.iter().filter(|held| held.strong_count() > 0).count()
}

/// The answer to the change may be there before anything else of the worker has its turn.
#[test]
fn an_address_that_comes_back_lets_clients_in_with_the_change() {
    let address = SocketAddr::new(vip(1), 8081);
    let (_, scrapes) = Scrapes::start(|| None).unwrap();
    let clients = Arc::new(Clients::new(enough().clients));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let logs = FlowLogs::new(syslog()).unwrap();
        let worker = Worker::new(0, enough(), clients, Instant::now(), scrapes, Arc::default(), logs);
        let worker = Rc::new(worker);
        let local = |snapshot| Rc::new(LocalSnapshot::new(0, &worker.idle, snapshot, None));
        let nothing = Arc::new(Snapshot::empty(0));
        let model = load_balancer(address.ip(), member(), 1);
        let snapshot =
            Arc::new(compile_after(model, &nothing, &Registry::new(1), &TlsSource::default()).unwrap());
        let mut listeners = Listeners::default();
        listeners.apply(&worker, &local(Arc::clone(&snapshot)), bound(&snapshot));
        listeners.apply(&worker, &local(nothing), Vec::new());
        // Until the socket that is given up lets nobody in.
        while TcpStream::connect_timeout(&address, Duration::from_millis(10)).is_ok() {
            tokio::task::yield_now().await;
        }
        listeners.apply(&worker, &local(Arc::clone(&snapshot)), bound(&snapshot));
        // A request to connect that is dropped is repeated after a second.
        TcpStream::connect_timeout(&address, Duration::from_millis(900)).unwrap();
    });
}
