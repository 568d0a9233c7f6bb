//! A member that fails by a script is watched by a real HAProxy and by the health engine: both must tell the
//! same story, state by state, in HAProxy's own words, and count the same failures and falls.
#![allow(clippy::unwrap_used)]

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use amphora_model::{HealthCheck, HttpCheck, HttpMethod, HttpVersion, MemberId, PoolId};
use amphora_proxy::{
    health::{HealthEngine, Monitored, Target},
    state::{MemberState, Registry},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixStream},
    sync::watch,
    time::{sleep, timeout},
};
use uuid::Uuid;

const DELAY: Duration = Duration::from_millis(50);

/// `max_retries`, `max_retries_down`, and what the probes meet one after another: `+` 200, `-` 500, `0` a closed
/// connection. All after the end is 200.
const SCRIPTS: [(u8, u8, &str); 7] = [
    (1, 1, "++-+0-++-++"),
    (1, 1, "-+"),
    (2, 3, "+--+---+-++0--+0"),
    (2, 3, "-++---+"),
    (3, 2, "+-+--++-+++--"),
    (3, 1, "+0++-+"),
    (1, 4, "---+----+---+"),
];

/// A server that plays a script, waiting before each act until its watcher has looked twice: at least one look began
/// after the probe came, and saw what was made of the one before.
struct Actor {
    port: u16,
    script: usize,
    probes: Arc<AtomicUsize>,
}

impl Actor {
    async fn new(script: usize, mut looks: watch::Receiver<usize>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let probes = Arc::new(AtomicUsize::new(0));
        let counter = probes.clone();
        tokio::spawn(async move {
            let mut acts = SCRIPTS[script].2.bytes();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let looked = *looks.borrow();
                if looks.wait_for(|looks| *looks >= looked + 2).await.is_err() {
                    return;
                }
                let answer: &[u8] = match acts.next() {
                    Some(b'-') => b"HTTP/1.0 500 Not Today\r\n\r\n",
                    Some(b'0') => b"",
                    _ => b"HTTP/1.0 200 OK\r\n\r\n",
                };
                let _ = stream.write_all(answer).await;
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { port, script, probes }
    }

    /// Whether the script and the successes that bring the member up again have been played.
    fn done(&self) -> bool {
        let (rise, _, script) = SCRIPTS[self.script];
        self.probes.load(Ordering::Relaxed) > script.len() + usize::from(rise)
    }
}

async fn actors(looks: &watch::Sender<usize>) -> Vec<Actor> {
    let mut actors = Vec::new();
    for script in 0..SCRIPTS.len() {
        actors.push(Actor::new(script, looks.subscribe()).await);
    }
    actors
}

/// The states that were seen, without repetitions.
#[derive(Default)]
struct Story(Vec<String>);

impl Story {
    fn see(&mut self, state: String) {
        if !between_states(&state) && self.0.last() != Some(&state) {
            self.0.push(state);
        }
    }
}

/// HAProxy counts a result a moment before it moves the server: `UP 0/2` is about to be `DOWN`, `DOWN 2/2` or `DOWN 4/2`
/// to be `UP`.
fn between_states(state: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().unwrap();
    match state.split_once(' ') {
        Some(("UP", fraction)) => fraction.starts_with("0/"),
        Some(("DOWN", fraction)) => {
            fraction.split_once('/').is_some_and(|(passed, of)| number(passed) >= number(of))
        }
        _ => false,
    }
}

/// What was seen of a member.
#[derive(Default)]
struct Seen {
    story: Story,
    /// Failed checks, and times that the member went down, in the end.
    counts: (u64, u64),
}

struct HaProxy(Child);

impl HaProxy {
    fn start(dir: &Path, actors: &[Actor]) -> Option<Self> {
        let mut config = format!(
            "global\n stats socket {}\ndefaults\n mode http\n timeout connect 20s\n timeout server 20s\n timeout client 20s\n",
            dir.join("sock").display()
        );
        for actor in actors {
            let (rise, fall, _) = SCRIPTS[actor.script];
            let _ = write!(
                config,
                "backend b{}\n option httpchk GET / HTTP/1.0\n http-check expect rstatus 200\n timeout check 20s\n \
                 server s 127.0.0.1:{} check inter {}ms rise {rise} fall {fall}\n",
                actor.script,
                actor.port,
                DELAY.as_millis(),
            );
        }
        // A proxy must listen somewhere.
        let _ = writeln!(config, "frontend f\n bind unix@{}\n default_backend b0", dir.join("f").display());
        let file = dir.join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        let child = Command::new("haproxy").arg("-db").arg("-f").arg(file).stdout(Stdio::null()).spawn();
        child.ok().map(Self)
    }

    /// The states of the servers, by the number of their backend, and their `chkfail` and `chkdown`.
    async fn states(dir: &Path) -> Vec<(usize, String, (u64, u64))> {
        let Ok(mut socket) = UnixStream::connect(dir.join("sock")).await else { return Vec::new() };
        socket.write_all(b"show stat -1 4 -1\n").await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        let server = |line: &str| {
            let columns: Vec<_> = line.split(',').collect();
            let backend = columns.first()?.strip_prefix('b')?.parse().ok()?;
            let counts = (columns.get(21)?.parse().ok()?, columns.get(22)?.parse().ok()?);
            Some((backend, columns.get(17)?.to_string(), counts))
        };
        text.lines().filter_map(server).collect()
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn watch_haproxy() -> Option<Vec<Seen>> {
    let looks = watch::Sender::new(0);
    let actors = actors(&looks).await;
    let dir = tempfile::tempdir().unwrap();
    let _haproxy = HaProxy::start(dir.path(), &actors)?;
    let mut stories: Vec<Seen> = actors.iter().map(|_| Seen::default()).collect();
    let watch = async {
        while !actors.iter().all(Actor::done)
            || stories.iter().any(|s| s.story.0.last().is_none_or(|s| s != "UP"))
        {
            for (actor, state, counts) in HaProxy::states(dir.path()).await {
                stories[actor].story.see(state);
                stories[actor].counts = counts;
            }
            looks.send_modify(|looks| *looks += 1);
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), watch).await.expect("HAProxy plays the scripts in time");
    Some(stories)
}

async fn watch_engine() -> Vec<Seen> {
    let looks = watch::Sender::new(0);
    let actors = actors(&looks).await;
    let registry = Registry::new(1);
    let pool = registry.pool(PoolId(Uuid::from_u128(1)));
    let mut engine = HealthEngine::start(1, 1024).unwrap();
    let members: Vec<Arc<MemberState>> = actors
        .iter()
        .map(|actor| {
            let id = MemberId(Uuid::from_u128(actor.script as u128));
            registry.member(&pool, id, Ipv4Addr::LOCALHOST.into(), actor.port)
        })
        .collect();
    engine.update(members.iter().zip(&actors).map(|(member, actor)| {
        Monitored {
            member: member.clone(),
            target: Target {
                address: member.address,
                port: member.port,
                check: HealthCheck::Http(HttpCheck {
                    method: HttpMethod::Get,
                    url_path: "/".into(),
                    version: HttpVersion::Http10,
                    domain_name: None,
                    expected_codes: vec![(200, 200)],
                })
                .into(),
                delay: DELAY,
                proxy_protocol: None,
                tls: None,
                timeout: Duration::from_secs(20),
                rise: SCRIPTS[actor.script].0,
                fall: SCRIPTS[actor.script].1,
                first_check: false,
            },
        }
    }));
    let mut stories: Vec<Seen> = actors.iter().map(|_| Seen::default()).collect();
    let watch = async {
        while !actors.iter().all(Actor::done)
            || stories.iter().any(|s| s.story.0.last().is_none_or(|s| s != "UP"))
        {
            for (seen, member) in stories.iter_mut().zip(&members) {
                seen.story.see(member.health.get().to_string());
                let past = member.history().past(Instant::now());
                seen.counts = (past.check_failures, past.went_down);
            }
            looks.send_modify(|looks| *looks += 1);
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), watch).await.expect("the engine plays the scripts in time");
    stories
}

#[tokio::test]
async fn states_follow_each_other_as_in_haproxy() {
    let (Some(haproxy), engine) = tokio::join!(watch_haproxy(), watch_engine()) else {
        eprintln!("NOT TESTED: there is no haproxy to compare with");
        return;
    };
    for (i, (haproxy, engine)) in haproxy.iter().zip(&engine).enumerate() {
        let (rise, fall, script) = SCRIPTS[i];
        assert_eq!(engine.story.0, haproxy.story.0, "rise {rise} fall {fall} script {script}");
        assert_eq!(engine.counts, haproxy.counts, "rise {rise} fall {fall} script {script}");
        let (failures, falls) = engine.counts;
        println!("rise {rise} fall {fall} {script}: {}", engine.story.0.join(", "));
        println!("  {failures} failed checks, {falls} times down");
    }
}

/// What the first probe to this listener says, in hexadecimal, with the port that it comes from taken out.
async fn first_words(listener: &TcpListener) -> String {
    let read = async {
        loop {
            let (mut stream, client) = listener.accept().await.unwrap();
            let mut said = Vec::new();
            while !said.ends_with(b"HTTP/1.0\r\n\r\n") {
                if stream.read_buf(&mut said).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await;
            if !said.is_empty() {
                return said.escape_ascii().to_string().replace(&format!(" {} ", client.port()), " PORT ");
            }
        }
    };
    timeout(Duration::from_secs(20), read).await.expect("a probe comes in time")
}

#[tokio::test]
async fn probes_begin_with_the_proxy_header_of_haproxy() {
    use amphora_proxy::conn::proxy_protocol::Version;
    let cases = [
        ("127.0.0.1:0", "send-proxy", Some(Version::V1)),
        ("127.0.0.1:0", "send-proxy-v2", Some(Version::V2)),
        ("[::1]:0", "send-proxy", Some(Version::V1)),
        ("[::1]:0", "send-proxy-v2", Some(Version::V2)),
        ("127.0.0.1:0", "send-proxy addr 127.0.0.1", None),
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut listeners = Vec::new();
    let mut config = String::from(
        "defaults\n mode http\n timeout connect 20s\n timeout server 20s\n timeout client 20s\n",
    );
    let _ = writeln!(config, "frontend f\n bind unix@{}\n default_backend b", dir.path().join("f").display());
    config.push_str("backend b\n option httpchk GET / HTTP/1.0\n http-check expect rstatus 200\n");
    for (n, (address, options, _)) in cases.iter().enumerate() {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let _ = writeln!(config, " server s{n} {address} check inter 50ms {options}");
        listeners.push(listener);
    }
    let file = dir.path().join("haproxy.cfg");
    std::fs::write(&file, config).unwrap();
    let quiet = || Stdio::null();
    let child =
        Command::new("haproxy").arg("-db").arg("-f").arg(file).stdout(quiet()).stderr(quiet()).spawn();
    let Ok(haproxy) = child.map(HaProxy) else {
        eprintln!("SKIPPED: there is no haproxy to compare with");
        return;
    };
    let mut theirs = Vec::new();
    for listener in &listeners {
        theirs.push(first_words(listener).await);
    }
    drop(haproxy);

    let registry = Registry::new(1);
    let pool = registry.pool(PoolId(Uuid::from_u128(1)));
    let mut engine = HealthEngine::start(1, 1024).unwrap();
    let check = HttpCheck {
        method: HttpMethod::Get,
        url_path: "/".into(),
        version: HttpVersion::Http10,
        domain_name: None,
        expected_codes: vec![(200, 200)],
    };
    // What HAProxy left in the queues is gone once new listeners have the ports.
    let mut again = Vec::new();
    for listener in listeners {
        let address = listener.local_addr().unwrap();
        drop(listener);
        let socket =
            if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() };
        let socket = socket.unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        again.push(socket.listen(64).unwrap());
    }
    engine.update(again.iter().zip(cases).enumerate().map(|(n, (listener, (.., proxy_protocol)))| {
        let address = listener.local_addr().unwrap();
        let id = MemberId(Uuid::from_u128(n as u128));
        let target = Target {
            address: address.ip(),
            port: address.port(),
            check: HealthCheck::Http(check.clone()).into(),
            delay: DELAY,
            proxy_protocol,
            tls: None,
            timeout: Duration::from_secs(20),
            rise: 1,
            fall: 1,
            first_check: false,
        };
        Monitored { member: registry.member(&pool, id, address.ip(), address.port()), target }
    }));
    for ((listener, theirs), (address, options, _)) in again.iter().zip(theirs).zip(cases) {
        assert_eq!(first_words(listener).await, theirs, "{address} {options}");
    }
}
