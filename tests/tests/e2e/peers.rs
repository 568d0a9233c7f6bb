//! The two amphorae of a pair: clients keep their member when they come to the other one.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use amphora_ipc::proxy::{PeersState, Refusal};
use amphora_model::{LoadBalancer, Pool as PoolModel};
use amphora_proxy::{
    peers::core::{Config, Session, Tables},
    persist::{PersistState, Persistence, StickKey},
};
use amphora_tests::{
    Backend, Client, Document, Listener, Member, Pool, Proxy, Step, free_port, in_time, loopback,
};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use uuid::Uuid;

pub(crate) const KEY: &str = "a key that both amphorae have";

/// Where an amphora of the pair is, and the file that says who the other one is.
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    pub(crate) file: PathBuf,
}

impl Place {
    fn write(&self, peer: &Self, key: &str) {
        fs::write(&self.file, told(self.address, peer.address, key)).unwrap();
    }

    async fn start(&self, document: &Document) -> Proxy {
        let file = self.file.display().to_string();
        Proxy::start_with(document.clone().on(self.address.ip()), &["--peers-file", &file]).await
    }
}

/// What a file says of the peer.
pub(crate) fn told(listen: SocketAddr, peer: SocketAddr, key: &str) -> String {
    json!({ "peers": { "listen": listen.to_string(), "peer": peer.to_string(), "key": key } }).to_string()
}

pub(crate) fn places(directory: &TempDir) -> [Place; 2] {
    let place = |name: &str| {
        let address = loopback();
        Place { address: SocketAddr::new(address, free_port(address)), file: directory.path().join(name) }
    };
    let [a, b] = [place("a"), place("b")];
    a.write(&b, KEY);
    b.write(&a, KEY);
    [a, b]
}

/// Members that say who they are, and set the application's cookie at `/login`.
async fn members() -> Vec<Backend> {
    let mut members = Vec::new();
    for name in ["m1", "m2", "m3", "m4"] {
        let script = move |request: &amphora_tests::Message| {
            // The value is the client's own, from the target.
            let lines = match request.target().strip_prefix("/login/") {
                Some(client) => format!("Set-Cookie: SID={client}; Path=/\r\n"),
                None => String::new(),
            };
            vec![Step::ReadBody, Step::response("200 OK", &lines, name)]
        };
        members.push(Backend::http(name, script).await);
    }
    members
}

/// A listener whose pool remembers addresses, and one whose pool remembers a cookie.
fn document(members: &[Backend]) -> Document {
    let source = Pool::http().members(members).with("session_persistence", json!({ "type": "SOURCE_IP" }));
    let cookie = json!({ "type": "APP_COOKIE", "cookie_name": "SID" });
    let cookie = Pool::http().members(members).with("session_persistence", cookie);
    Document::new()
        .pool(&source)
        .pool(&cookie)
        .listener(Listener::http().to(&source))
        .listener(Listener::http().to(&cookie))
}

fn client_address(client: u8) -> IpAddr {
    Ipv4Addr::new(127, 8, 9, client).into()
}

/// The member that answers a client, known by its address.
async fn by_address(proxy: &Proxy, client: u8) -> String {
    Client::connect_from(client_address(client), proxy.document.address_of(0)).await.get("/").await.text()
}

/// The member that answers a client, known by its cookie.
async fn by_cookie(proxy: &Proxy, client: u8) -> String {
    let lines = format!("Cookie: SID=client-{client}\r\n");
    Client::connect(proxy.document.address_of(1)).await.get_with("/", &lines).await.text()
}

async fn log_in(proxy: &Proxy, client: u8) -> String {
    let target = format!("/login/client-{client}");
    Client::connect(proxy.document.address_of(1)).await.get(&target).await.text()
}

/// Clients come to a proxy for the first time; which members they got.
async fn arrive(proxy: &Proxy, clients: std::ops::Range<u8>) -> BTreeMap<u8, [String; 2]> {
    let mut got = BTreeMap::new();
    for client in clients {
        let members = [by_address(proxy, client).await, log_in(proxy, client).await];
        assert!(members.iter().all(|name| name.starts_with('m')), "{members:?}");
        got.insert(client, members);
    }
    got
}

/// Each is still with its member, at this proxy.
async fn are_kept(proxy: &Proxy, got: &BTreeMap<u8, [String; 2]>) {
    for (client, members) in got {
        assert_eq!(
            [by_address(proxy, *client).await, by_cookie(proxy, *client).await],
            *members,
            "client {client}"
        );
    }
}

#[tokio::test]
async fn clients_keep_their_member_at_the_other_amphora() {
    let directory = tempfile::tempdir().unwrap();
    let [at_a, at_b] = places(&directory);
    let members = members().await;
    let document = document(&members);
    let (a, b) = (at_a.start(&document).await, at_b.start(&document).await);
    a.until_peers("a connection", |peers| peers.state == PeersState::Connected).await;
    let got = arrive(&a, 1..13).await;
    let peers = b.until_peers("the entries", |peers| peers.entries_taken >= 24).await;
    assert_eq!((peers.tables, peers.version, peers.last_error), (2, Some(2), None));
    are_kept(&b, &got).await;
    // The other way, on the same connection.
    let more = arrive(&b, 20..30).await;
    let peers = a.until_peers("the entries", |peers| peers.entries_taken >= 20).await;
    are_kept(&a, &more).await;
    are_kept(&a, &got).await;
    assert!(peers.entries_sent >= 24 && peers.connections >= 1);
    let [from, to] = [a.peers().await, b.peers().await];
    assert_eq!(
        (from.full_syncs_sent, from.full_syncs_received),
        (to.full_syncs_received, to.full_syncs_sent)
    );
    assert!(!a.request("GET", "/peers", "").await.unwrap().text().contains(KEY));
}

#[tokio::test]
async fn a_proxy_that_was_killed_gets_everything_back() {
    let directory = tempfile::tempdir().unwrap();
    let [at_a, at_b] = places(&directory);
    let members = members().await;
    let document = document(&members);
    let a = at_a.start(&document).await;
    // Before there is anybody to tell.
    let got = arrive(&a, 1..13).await;
    let mut b = at_b.start(&document).await;
    for _ in 0..2 {
        b.until_peers("everything", |peers| peers.full_syncs_received >= 1 && peers.entries_taken >= 24)
            .await;
        b.signal(Signal::SIGKILL);
        b.ended().await;
        b = at_b.start(&document).await;
    }
    b.until_peers("everything", |peers| peers.entries_taken >= 24).await;
    // And now from that one to the first.
    drop(a);
    are_kept(&b, &got).await;
    let a = at_a.start(&document).await;
    a.until_peers("everything", |peers| peers.entries_taken >= 24).await;
    are_kept(&a, &got).await;
}

#[tokio::test]
async fn with_another_key_nothing_is_taken_and_both_say_why() {
    let directory = tempfile::tempdir().unwrap();
    let [at_a, at_b] = places(&directory);
    at_b.write(&at_a, "a key that only one of them has");
    let members = members().await;
    let document = document(&members);
    let (a, b) = (at_a.start(&document).await, at_b.start(&document).await);
    let got = arrive(&a, 1..13).await;
    for proxy in [&a, &b] {
        let refused = |peers: &amphora_ipc::proxy::Peers| {
            peers.rejected.key > 1 && peers.last_error.as_deref().is_some_and(|error| error.contains("key"))
        };
        let peers = proxy.until_peers("the reason", refused).await;
        assert_eq!(peers.state, PeersState::Disconnected);
        assert_eq!((peers.connections, peers.entries_sent, peers.entries_received), (0, 0, 0));
        assert!(proxy.log().contains("key"), "{}", proxy.log());
    }
    // The file is put right.
    at_b.write(&at_a, KEY);
    b.signal(Signal::SIGHUP);
    b.until_peers("everything", |peers| peers.entries_taken >= 24).await;
    assert_eq!(b.peers().await.last_error, None);
    are_kept(&b, &got).await;
    // It is taken away.
    fs::remove_file(&at_b.file).unwrap();
    b.signal(Signal::SIGHUP);
    b.until_peers("nobody", |peers| peers.state == PeersState::Off).await;
    a.until_peers("nobody", |peers| peers.state == PeersState::Disconnected && peers.last_error.is_some())
        .await;
    are_kept(&b, &got).await;
}

#[tokio::test]
async fn the_peer_is_set_on_the_control_socket() {
    let directory = tempfile::tempdir().unwrap();
    let [at_a, at_b] = places(&directory);
    let members = members().await;
    let document = document(&members);
    let a = Proxy::start(document.clone().on(at_a.address.ip())).await;
    let b = at_b.start(&document).await;
    assert_eq!(a.peers().await.state, PeersState::Off);
    let put = async |text: &str| a.request("PUT", "/peers", text).await.unwrap();
    let answer = put(&told(at_a.address, at_b.address, "short")).await;
    let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status(), refusal.faults[0].path.as_str()), (400, "peers.key"));
    // The address of a listener.
    let answer = put(&told(a.address(), at_b.address, KEY)).await;
    let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status(), refusal.faults[0].path.as_str()), (409, "peers.listen"));
    assert_eq!(a.peers().await.state, PeersState::Off);
    let right = told(at_a.address, at_b.address, KEY);
    assert_eq!(put(&right).await.status(), 200);
    a.until_peers("a connection", |peers| peers.state == PeersState::Connected).await;
    let before = a.peers().await.connections;
    assert_eq!(put(&right).await.status(), 200);
    assert_eq!(a.peers().await.connections, before, "the same again changes nothing");
    // Another key here alone, on the same address, and back.
    assert_eq!(put(&told(at_a.address, at_b.address, "another key than over there")).await.status(), 200);
    a.until_peers("a refusal", |peers| peers.rejected.key > 0).await;
    assert_eq!(put(&right).await.status(), 200);
    a.until_peers("a connection", |peers| peers.state == PeersState::Connected).await;
    assert_eq!(a.request("DELETE", "/peers", "").await.unwrap().status(), 200);
    assert_eq!(a.peers().await.state, PeersState::Off);
    b.until_peers("nobody", |peers| peers.state == PeersState::Disconnected).await;
    assert!(TcpStream::connect(at_a.address).await.is_err());
}

#[tokio::test]
async fn a_pool_that_is_there_later_gets_what_it_missed() {
    let directory = tempfile::tempdir().unwrap();
    let [at_a, at_b] = places(&directory);
    let members = members().await;
    let document = document(&members);
    let a = at_a.start(&document).await;
    let mut earlier = document.clone();
    earlier.pools[0].members.truncate(1);
    earlier.listeners.truncate(1);
    earlier.pools.truncate(1);
    let mut b = at_b.start(&earlier).await;
    let got = arrive(&a, 1..13).await;
    b.until_peers("the entries", |peers| peers.entries_received >= 24 && peers.entries_unknown >= 12).await;
    b.apply(&document.clone().on(at_b.address.ip())).await;
    b.until_peers("everything", |peers| peers.entries_taken >= 24).await;
    are_kept(&b, &got).await;
}

#[tokio::test]
async fn strangers_on_the_peers_port_get_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let [at_a, at_b] = places(&directory);
    let a = at_a.start(&Document::new()).await;
    let mut stranger = TcpStream::connect(at_a.address).await.unwrap();
    let mut bytes = Vec::new();
    let _ = in_time("the connection is closed", stranger.read_to_end(&mut bytes)).await;
    assert!(bytes.is_empty());
    let from_the_peer = async || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(at_b.address.ip(), 0)).unwrap();
        socket.connect(at_a.address).await.unwrap()
    };
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0], &[0, 1, 3], &[0xff; 100]] {
        let mut stranger = from_the_peer().await;
        stranger.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = in_time("the connection is closed", stranger.read_to_end(&mut answer)).await;
        assert!(answer.is_empty());
    }
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(from_the_peer().await);
    }
    let peers = a.until_peers("refusals", |peers| peers.rejected.too_many >= 4).await;
    assert_eq!((peers.rejected.address, peers.rejected.malformed), (1, 4));
    for mut stranger in idle {
        let _ = in_time("the idle are let go", stranger.read_to_end(&mut Vec::new())).await;
    }
    assert_eq!(a.peers().await.entries_sent, 0);
}

/// Ten pools of 10,000 entries each: how long a full sync takes and what it costs, printed for `docs/specification.md`.
#[tokio::test]
async fn a_full_sync_of_100_000_entries() {
    let directory = tempfile::tempdir().unwrap();
    let [at_a, at_b] = places(&directory);
    let mut document = Document::new();
    for _ in 0..10 {
        let member = |port| Member::at(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        let pool = Pool::http().member(member(1)).member(member(2));
        document = document.pool(&pool.with("session_persistence", json!({ "type": "SOURCE_IP" })));
    }
    let a = at_a.start(&document).await;
    let before = a.resident_kib();

    // The other amphora's part is played here.
    let model = LoadBalancer::from_json(document.to_json().to_string().as_bytes()).unwrap();
    let mut tables = Tables::default();
    let fill = |pool: &PoolModel| {
        let state = PersistState::carry_over(None, pool.id, pool.session_persistence.as_ref()).unwrap();
        let Some(Persistence::Source(stick)) = Persistence::compile(pool, Some(&state)) else {
            panic!("a table")
        };
        for i in 0..10_000_u64 {
            stick.store(StickKey::new((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)), (i % 2) as usize, 0);
        }
        (pool.id, state)
    };
    let states: Vec<(_, Arc<PersistState>)> = model.pools.iter().map(fill).collect();
    let entries: usize = states.iter().map(|(_, state)| state.table().iter().count()).sum();
    tables.set(states);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(at_b.address.ip(), 0)).unwrap();
    let mut stream = socket.connect(at_a.address).await.unwrap();
    let config = Config { key: KEY.as_bytes().into(), instance: Uuid::new_v4(), epoch: Instant::now() };
    let mut session = Session::connect(
        config,
        *Uuid::new_v4().as_simple().to_string().as_bytes().first_chunk().unwrap(),
        Instant::now(),
    );
    let mut buffer = vec![0; 16 * 1024];
    let told = async {
        while a.peers().await.entries_taken < entries as u64 {
            session.handle_timeout(Instant::now()).unwrap();
            let output = session.poll_output(Instant::now(), &tables).to_vec();
            stream.write_all(&output).await.unwrap();
            session.sent(Instant::now(), output.len());
            let read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut buffer)).await;
            if let Ok(read) = read {
                let was_open = session.parties().is_some();
                session.handle_input(Instant::now(), &buffer[..read.unwrap()], &tables).unwrap();
                if !was_open && session.parties().is_some() {
                    session.tell_all(&tables);
                }
            }
        }
    };
    in_time("all entries", told).await;
    let after = a.resident_kib();
    drop(stream);

    let b = at_b.start(&document).await;
    let done = async {
        loop {
            let peers = b.peers().await;
            if peers.entries_taken >= entries as u64 {
                return peers.connected_ms.unwrap();
            }
        }
    };
    let took = in_time("all entries", done).await;
    println!(
        "{entries} entries in {took} ms, {} a second; a proxy's memory grew by {} KiB",
        entries as u64 * 1000 / took.max(1),
        after.saturating_sub(before),
    );
    assert!(entries >= 99_000, "{entries}");
    assert!(after < before + 6144, "{before} to {after} KiB");
}
