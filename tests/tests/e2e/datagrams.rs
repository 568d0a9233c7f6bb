//! Listeners of UDP, in network namespaces: a client's, the amphora's, the members'. As root, where the kernel has nf_tables.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use amphora_tests::{
    Document, HealthMonitor, Listener, Member, Namespace, PATIENCE, Pool, Proxy, eventually, in_time,
};
use serde_json::json;
use tokio::sync::oneshot;

pub(super) const VIP: &str = "203.0.113.50";
pub(super) const VIP6: &str = "2001:db8:50::50";
pub(super) const CLIENT: &str = "203.0.113.7";
pub(super) const NEIGHBOUR: &str = "203.0.113.200";
pub(super) const CLIENT6: &str = "2001:db8:50::7";
const PORT: u16 = 53;

/// A client, an amphora and members, each in a namespace of its own.
pub(super) struct Network {
    pub(super) amphora: Namespace,
    pub(super) client: Namespace,
    pub(super) members: Namespace,
}

impl Network {
    pub(super) fn create() -> Option<Self> {
        let (amphora, client) = (Namespace::create()?, Namespace::create()?);
        let members = Namespace::create()?;
        let nft = ["netns", "exec", amphora.name(), "nft", "list", "tables"];
        if !Command::new("ip").args(nft).output().is_ok_and(|listed| listed.status.success()) {
            eprintln!("SKIPPED: no nft(8), or a kernel without nf_tables");
            return None;
        }
        amphora.link("front", &client, "amphora");
        amphora.link("back", &members, "amphora");
        let add = |namespace: &Namespace, interface: &str, address: &str| {
            let mut args = vec!["address", "add", address, "dev", interface];
            if address.contains(':') {
                args.push("nodad");
            }
            namespace.ip(&args);
        };
        add(&amphora, "front", "203.0.113.50/24");
        add(&amphora, "front", "2001:db8:50::50/64");
        for address in ["203.0.113.7/24", "203.0.113.200/24", "2001:db8:50::7/64"] {
            add(&client, "amphora", address);
        }
        add(&amphora, "back", "10.9.0.1/24");
        add(&amphora, "back", "2001:db8:9::1/64");
        for member in 2..6 {
            add(&members, "amphora", &format!("10.9.0.{member}/24"));
            add(&members, "amphora", &format!("2001:db8:9::{member}/64"));
        }
        Some(Self { amphora, client, members })
    }

    /// A member that answers every datagram with its number and who has sent it, in front of what it was; until the value is
    /// dropped.
    async fn member(&self, number: u8, v4: bool) -> Echo {
        let ip: IpAddr = match v4 {
            true => format!("10.9.0.{number}"),
            false => format!("2001:db8:9::{number}"),
        }
        .parse()
        .unwrap();
        let address = SocketAddr::new(ip, 5300);
        let (stop, mut stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let ended = self.members.spawn(move || async move {
            let socket = tokio::net::UdpSocket::bind(address).await.unwrap();
            ready.send(()).unwrap();
            let mut buffer = vec![0; 65536];
            loop {
                tokio::select! {
                    _ = &mut stopped => return,
                    received = socket.recv_from(&mut buffer) => {
                        // What could not be delivered is told here, too.
                        let Ok((length, from)) = received else { continue };
                        let mut answer = format!("{number} {} ", from.ip()).into_bytes();
                        answer.extend(&buffer[..length]);
                        let _ = socket.send_to(&answer, from).await;
                    }
                }
            }
        });
        in_time("the member is there", is_ready).await.unwrap();
        Echo { address, _stop: stop, ended }
    }

    pub(super) async fn proxy(&self, document: Document) -> Proxy {
        Proxy::start_with(document, &["--netns", self.amphora.name()]).await
    }

    /// A socket of a client at this address, from which alone the VIP is heard.
    async fn flow(&self, from: &str) -> Flow {
        let from: IpAddr = from.parse().unwrap();
        let vip: IpAddr = if from.is_ipv4() { VIP } else { VIP6 }.parse().unwrap();
        let socket = self.client.run(move || async move {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            socket.connect((vip, PORT)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        });
        Flow(socket.await)
    }

    /// Which member each of so many new flows comes to.
    async fn spread(&self, from: &str, flows: usize) -> (BTreeMap<u8, usize>, Vec<Flow>) {
        let (mut spread, mut kept) = (BTreeMap::new(), Vec::new());
        for _ in 0..flows {
            let flow = self.flow(from).await;
            *spread.entry(flow.member()).or_default() += 1;
            kept.push(flow);
        }
        (spread, kept)
    }

    pub(super) fn nft(&self, args: &[&str]) -> String {
        let command = [&["netns", "exec", self.amphora.name(), "nft"], args].concat();
        let output = Command::new("ip").args(command).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

struct Echo {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Echo {
    async fn end(self) {
        let Self { _stop, ended, .. } = self;
        drop(_stop);
        in_time("the member has ended", ended).await.unwrap();
    }
}

struct Flow(UdpSocket);

impl Flow {
    /// The member's number, who it says has asked, and what.
    fn ask(&self, payload: &[u8]) -> io::Result<(u8, String, Vec<u8>)> {
        self.0.send(payload)?;
        let mut answer = vec![0; 65536];
        let length = self.0.recv(&mut answer)?;
        let mut parts = answer[..length].splitn(3, |byte| *byte == b' ');
        let mut text = || String::from_utf8(parts.next().unwrap().to_vec()).unwrap();
        let (number, from) = (text().parse().unwrap(), text());
        Ok((number, from, parts.next().unwrap().to_vec()))
    }

    fn member(&self) -> u8 {
        self.ask(b"who").unwrap().0
    }

    /// That nobody is there is told by ICMP, of which hosts send no more than so many.
    async fn is_refused(&self) -> bool {
        self.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        eventually("there is an answer", async || match self.ask(b"who") {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Some(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
            Ok(_) => Some(false),
        })
        .await
    }
}

fn listener(pool: &Pool) -> Listener {
    Listener::udp().port(PORT).to(pool)
}

fn document(pool: &Pool) -> Document {
    both(listener(pool), pool)
}

fn both(listener: Listener, pool: &Pool) -> Document {
    Document::at(VIP.parse().unwrap())
        .with("additional_vips", json!([{ "ip_address": VIP6 }]))
        .listener(listener)
        .pool(pool)
}

fn pool<'a>(members: impl IntoIterator<Item = (&'a Echo, u16)>) -> Pool {
    let member = |(echo, weight): (&Echo, u16)| Member::at(echo.address).weight(weight);
    members.into_iter().map(member).fold(Pool::new("UDP"), Pool::member)
}

#[tokio::test]
async fn flows_go_by_weights_and_are_answered_from_the_vip() {
    let Some(network) = Network::create() else { return };
    let members =
        [network.member(2, true).await, network.member(3, true).await, network.member(4, true).await];
    let six = [network.member(2, false).await, network.member(3, false).await];
    let weighted = pool(members.iter().zip([1, 3, 0]).chain(six.iter().zip([1, 1])));
    let proxy = network.proxy(document(&weighted)).await;

    let (spread, flows) = network.spread(CLIENT, 12).await;
    assert_eq!(spread, BTreeMap::from([(2, 3), (3, 9)]));
    let (spread, _six) = network.spread(CLIENT6, 8).await;
    assert_eq!(spread, BTreeMap::from([(2, 4), (3, 4)]));
    for flow in &flows {
        let member = flow.member();
        for payload in [&b""[..], b"x", &[7; 1200]] {
            // The member sees the amphora, and the flow stays.
            assert_eq!(flow.ask(payload).unwrap(), (member, "10.9.0.1".to_owned(), payload.to_vec()));
        }
    }
    // Of each datagram the kernel counts the headers, too.
    let asked = (12 * 2 * (3 + 28) + 12 * (28 + 29 + 1228) + 8 * (3 + 48)) as u64;
    let answered = asked + 12 * 5 * "2 10.9.0.1 ".len() as u64 + 8 * "2 2001:db8:9::1 ".len() as u64;
    let stats = proxy
        .until_listener("all is counted", |listener| {
            listener.bytes_in >= asked && listener.active_connections == 20
        })
        .await;
    let listener = stats.listeners.values().next().unwrap();
    assert_eq!((listener.bytes_in, listener.bytes_out), (asked, answered));
    assert_eq!(listener.total_connections, 20);
    let totals: Vec<_> =
        stats.pools.values().next().unwrap().members.values().map(|m| m.total_sessions).collect();
    assert_eq!(totals.iter().sum::<u64>(), 20, "{totals:?}");
}

#[tokio::test]
async fn large_datagrams_and_icmp_errors_come_through() {
    let Some(network) = Network::create() else { return };
    let member = network.member(2, true).await;
    let _proxy = network.proxy(document(&pool([(&member, 1)]))).await;
    let flow = network.flow(CLIENT).await;
    let large: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
    assert_eq!(flow.ask(&large).unwrap().2, large, "in fragments, both ways");

    // The way to the member is narrower than the client knows, which learns of it by ICMP.
    network.amphora.ip(&["link", "set", "back", "mtu", "1300"]);
    network.members.ip(&["link", "set", "amphora", "mtu", "1300"]);
    flow.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    eventually("the client has learned of the path", async || {
        flow.ask(&large[..1400]).ok().filter(|(_, _, payload)| payload[..] == large[..1400])
    })
    .await;
    flow.0.set_read_timeout(Some(PATIENCE)).unwrap();

    member.end().await;
    assert!(flow.is_refused().await, "the member's error is the VIP's");
}

#[tokio::test]
async fn flows_of_a_member_that_fails_go_to_others_at_once() {
    let Some(network) = Network::create() else { return };
    let (one, other) = (network.member(2, true).await, network.member(3, true).await);
    let pool = pool([(&one, 1), (&other, 1)]).monitored(&HealthMonitor::new("UDP-CONNECT"));
    let proxy = network.proxy(document(&pool)).await;
    let (spread, flows) = network.spread(CLIENT, 4).await;
    assert_eq!(spread, BTreeMap::from([(2, 2), (3, 2)]));
    proxy.until_member(0, "it is checked", |member| member.check.to_string() == "UP").await;
    one.end().await;
    proxy.until_member(0, "it is down", |member| member.check.to_string() == "DOWN").await;
    for flow in &flows {
        flow.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        eventually("the other has it", async || flow.ask(b"who").ok().filter(|(member, ..)| *member == 3))
            .await;
        flow.0.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(flow.member(), 3);
    }
    let _again = network.member(2, true).await;
    proxy.until_member(0, "it is up again", |member| member.check.to_string() == "UP").await;
    eventually("it has new flows again", async || (network.flow(CLIENT).await.member() == 2).then_some(()))
        .await;
}

/// Clients that ask all the time, each a few hundred times a second.
struct Asking {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Asking {
    fn begin(flows: &[Flow]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ask = |flow: &Flow| {
            let (socket, stop) = (flow.0.try_clone().unwrap(), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Errors of the member's are told here, too.
                    let _ = socket.send(b"who");
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        };
        let threads = flows.iter().map(ask).collect();
        Self { stop, threads }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[tokio::test]
async fn a_closed_port_is_noticed_while_clients_ask() {
    let Some(network) = Network::create() else { return };
    for (v4, client) in [(true, CLIENT), (false, CLIENT6)] {
        let (one, other) = (network.member(2, v4).await, network.member(3, v4).await);
        let monitor = HealthMonitor::new("UDP-CONNECT").with("max_retries_down", 3);
        let pool = pool([(&one, 1), (&other, 1)]).monitored(&monitor);
        let proxy = network.proxy(document(&pool)).await;
        let (_, flows) = network.spread(client, 20).await;
        proxy.until_member(0, "it is checked", |member| member.check.to_string() == "UP").await;
        let asking = Asking::begin(&flows);
        one.end().await;
        // The host tells an error a second, and clients are told it as well as the monitor.
        proxy.until_member(0, "it is down", |member| member.check.to_string() == "DOWN").await;
        eventually("flows go to the other", async || {
            let flow = network.flow(client).await;
            flow.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            flow.ask(b"who").ok().filter(|(member, ..)| *member == 3)
        })
        .await;
        let (spread, _flows) = network.spread(client, 4).await;
        assert_eq!(spread, BTreeMap::from([(3, 4)]));
        // And is not up again when its clients have gone elsewhere, until it is there.
        let _again = network.member(2, v4).await;
        proxy.until_member(0, "it is up again", |member| member.check.to_string() == "UP").await;
        asking.end();
    }
}

/// An ICMP error: a datagram from the amphora to the member's port has met nobody. From any address of the members' namespace.
fn port_unreachable(source: [u8; 4], flow_port: u16, member: u8) -> Vec<u8> {
    let sum = |bytes: &[u8]| {
        let words = bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum: u32 = words.sum();
        !(((sum & 0xffff) + (sum >> 16)) as u16)
    };
    let header = |protocol: u8, length: u16, from: [u8; 4], to: [u8; 4]| {
        let mut header = [&[0x45, 0][..], &length.to_be_bytes(), &[0, 1, 0, 0, 64, protocol, 0, 0]].concat();
        header.extend([from, to].concat());
        let check = sum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&check);
        header
    };
    let mut icmp = vec![3, 3, 0, 0, 0, 0, 0, 0];
    icmp.extend(header(17, 31, AMPHORA, [10, 9, 0, member]));
    icmp.extend([flow_port.to_be_bytes(), 5300_u16.to_be_bytes(), 11_u16.to_be_bytes(), [0; 2]].concat());
    let check = sum(&icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&check);
    [header(1, 20 + icmp.len() as u16, source, AMPHORA), icmp].concat()
}

const AMPHORA: [u8; 4] = [10, 9, 0, 1];

#[tokio::test]
async fn icmp_errors_alone_take_no_member_down() {
    let Some(network) = Network::create() else { return };
    let (one, other) = (network.member(2, true).await, network.member(3, true).await);
    let pool = pool([(&one, 1), (&other, 1)]).monitored(&HealthMonitor::new("UDP-CONNECT"));
    let proxy = network.proxy(document(&pool)).await;
    let (_, flows) = network.spread(CLIENT, 2).await;
    let of = |number: u8| flows.iter().find(|flow| flow.member() == number).unwrap();
    let ports = [of(2), of(3)].map(|flow| flow.0.local_addr().unwrap().port());
    proxy.until_member(1, "they are checked", |member| member.check.to_string() == "UP").await;
    let errors = async |source: [u8; 4]| {
        let packet = move |member: u8| port_unreachable(source, ports[usize::from(member) - 2], member);
        let sent = network.members.run(move || async move {
            let raw = socket2::Type::RAW;
            let socket = socket2::Socket::new(socket2::Domain::IPV4, raw, Some(255.into())).unwrap();
            let to = SocketAddr::from((AMPHORA, 0)).into();
            for member in [2, 3] {
                socket.send_to(&packet(member), &to).unwrap();
            }
        });
        sent.await;
    };
    let counted = |member: u8| {
        let set = network.nft(&["list", "set", "inet", "amphora_datagram", "refused4"]);
        let element = set.split(&format!(". 10.9.0.{member} counter packets ")).nth(1).unwrap().to_owned();
        element.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let down = async || {
        let stats = proxy.stats().await;
        let members = stats.pools.values().next().unwrap().members.values();
        members.filter(|member| !member.check.is_up()).count()
    };
    // Of another host's address they are no member's, and clients that have gone away say nothing of members.
    errors([10, 9, 0, 5]).await;
    let gone = network.flow(CLIENT).await;
    gone.0.send(b"who").unwrap();
    drop(gone);
    errors([10, 9, 0, 2]).await;
    eventually("those of the member's address are counted", async || (counted(2) == 1).then_some(())).await;
    assert_eq!(counted(3), 0, "from another's address");

    // Members that answer clients are there, whatever else comes from their address.
    let asking = Asking::begin(&flows);
    for round in 2..30 {
        errors([10, 9, 0, 2]).await;
        eventually("they are counted", async || (counted(2) == round).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(down().await, 0);
    }
    asking.end();
}

#[tokio::test]
async fn a_network_of_clients_is_remembered() {
    let Some(network) = Network::create() else { return };
    let (one, other) = (network.member(2, true).await, network.member(3, true).await);
    let (six, seven) = (network.member(2, false).await, network.member(3, false).await);
    let sticky = pool([(&one, 1), (&other, 1), (&six, 1), (&seven, 1)]).with(
        "session_persistence",
        json!({ "type": "SOURCE_IP", "persistence_timeout": 60, "persistence_granularity": "255.255.255.0" }),
    );
    let mut proxy = network.proxy(document(&sticky)).await;
    let (spread, _flows) = network.spread(CLIENT, 5).await;
    let member = *spread.keys().next().unwrap();
    assert_eq!(spread, BTreeMap::from([(member, 5)]));
    let (spread, _flows) = network.spread(NEIGHBOUR, 3).await;
    assert_eq!(spread, BTreeMap::from([(member, 3)]), "of the same network");
    let (spread, _flows) = network.spread(CLIENT6, 3).await;
    assert_eq!(spread.len(), 1);

    // It is remembered over changes, by one that drains as well.
    let index = if member == 2 { 0 } else { 1 };
    proxy
        .change(|document| {
            let member = document.pools[0].members[index].clone();
            document.pools[0].members[index] = member.weight(0);
        })
        .await;
    let (spread, _flows) = network.spread(CLIENT, 2).await;
    assert_eq!(spread, BTreeMap::from([(member, 2)]));
    // And not when the member has gone.
    let gone = proxy.change(|document| drop(document.pools[0].members.remove(index))).await;
    assert!(gone.changed);
    let (spread, _flows) = network.spread(CLIENT, 2).await;
    assert_eq!(spread, BTreeMap::from([(5 - member, 2)]));
}

#[tokio::test]
async fn algorithms_choose_as_they_are_to() {
    let Some(network) = Network::create() else { return };
    let (one, other) = (network.member(2, true).await, network.member(3, true).await);
    let hashed = pool([(&one, 1), (&other, 1)]).balanced_by("SOURCE_IP");
    let mut proxy = network.proxy(document(&hashed)).await;
    let (spread, _flows) = network.spread(CLIENT, 6).await;
    assert_eq!(spread.len(), 1, "{spread:?}");

    let fewest = pool([(&one, 1)]).balanced_by("LEAST_CONNECTIONS");
    proxy.apply(&document(&fewest)).await;
    let (spread, _flows) = network.spread(CLIENT, 10).await;
    assert_eq!(spread, BTreeMap::from([(2, 10)]));
    proxy.until_member(0, "its flows are counted", |member| member.active_sessions >= 10).await;
    proxy.change(|document| document.pools[0].members.push(Member::at(other.address))).await;
    let (spread, _flows) = network.spread(CLIENT, 10).await;
    assert_eq!(spread, BTreeMap::from([(3, 10)]), "until both have as many");
}

#[tokio::test]
async fn limits_and_networks_are_kept_to() {
    let Some(network) = Network::create() else { return };
    let member = network.member(2, true).await;
    let to = pool([(&member, 1)]);
    let limited = listener(&to).with("connection_limit", 3).with("allowed_cidrs", json!(["203.0.113.0/25"]));
    let _proxy = network.proxy(both(limited, &to)).await;
    let denied = network.flow(NEIGHBOUR).await;
    denied.0.send(b"who").unwrap();
    let (spread, flows) = network.spread(CLIENT, 3).await;
    assert_eq!(spread, BTreeMap::from([(2, 3)]));
    assert!(network.flow(CLIENT).await.is_refused().await, "a fourth");
    denied.0.set_nonblocking(true).unwrap();
    assert_eq!(denied.0.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(flows.iter().all(|flow| flow.member() == 2));
}

#[tokio::test]
async fn changes_lose_no_datagram_and_a_listener_that_goes_leaves_nothing() {
    let Some(network) = Network::create() else { return };
    let (one, other) = (network.member(2, true).await, network.member(3, true).await);
    let to = pool([(&one, 1), (&other, 1)]);
    let mut proxy = network.proxy(document(&to)).await;
    let flow = network.flow(CLIENT).await;
    let member = flow.member();
    for round in 1..=20 {
        proxy
            .change(|document| {
                for (member, weight) in document.pools[0].members.iter_mut().zip([round, 21 - round]) {
                    *member = member.clone().weight(weight);
                }
            })
            .await;
        for _ in 0..5 {
            assert_eq!(flow.member(), member);
        }
        network.flow(CLIENT).await.member();
    }
    let before = proxy.listener().await.total_connections;
    proxy.change(|document| document.listeners.clear()).await;
    assert!(flow.is_refused().await && before > 0);
    assert_eq!(network.nft(&["list", "ruleset"]), "");
}

#[tokio::test]
async fn flows_outlive_the_proxy_and_another_hand_is_undone() {
    let Some(network) = Network::create() else { return };
    let (one, other) = (network.member(2, true).await, network.member(3, true).await);
    let to = pool([(&one, 1), (&other, 1)]);
    let mut proxy = network.proxy(document(&to)).await;
    let (_, flows) = network.spread(CLIENT, 4).await;
    let members: Vec<_> = flows.iter().map(Flow::member).collect();
    proxy.signal(nix::sys::signal::Signal::SIGKILL);
    proxy.ended().await;
    assert_eq!(flows.iter().map(Flow::member).collect::<Vec<_>>(), members, "without a proxy");
    let again = network.proxy(proxy.document.clone()).await;
    assert_eq!(flows.iter().map(Flow::member).collect::<Vec<_>>(), members, "with another");
    again.until_listener("flows are known", |listener| listener.active_connections == 4).await;

    network.nft(&["add", "table", "inet", "other"]);
    network.nft(&["delete", "table", "inet", "amphora_datagram"]);
    eventually("it is written anew", async || {
        network.nft(&["list", "tables"]).contains("amphora_datagram").then_some(())
    })
    .await;
    let (spread, _flows) = network.spread(CLIENT, 4).await;
    assert_eq!(spread, BTreeMap::from([(2, 2), (3, 2)]));
    assert!(again.log().contains("another hand"));
    assert!(network.nft(&["list", "tables"]).contains("table inet other"));
}

/// The processes that a process has started.
fn children(of: u32) -> Vec<i32> {
    let parent =
        |status: &str| status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut found: Vec<i32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| parent(&text) == Some(of))
        })
        .collect();
    found.sort_unstable();
    found
}

#[tokio::test]
async fn who_forwards_may_die_and_clients_stay_remembered() {
    let Some(network) = Network::create() else { return };
    let (one, other) = (network.member(2, true).await, network.member(3, true).await);
    let sticky = pool([(&one, 1), (&other, 1)])
        .monitored(&HealthMonitor::new("UDP-CONNECT"))
        .with("session_persistence", json!({ "type": "SOURCE_IP", "persistence_timeout": 600 }));
    let mut proxy = network.proxy(document(&sticky)).await;
    let flow = network.flow(CLIENT).await;
    let (first, second) = (flow.member(), network.flow(NEIGHBOUR).await.member());
    assert_ne!(first, second, "in turn");
    // Asked in the other order, which would be the other members' turn.
    let remembered = async || {
        let neighbour = network.flow(NEIGHBOUR).await.member();
        (neighbour, network.flow(CLIENT).await.member(), flow.member()) == (second, first, first)
    };

    // The one at work has been started last.
    let helpers = children(proxy.pid());
    assert_eq!(helpers.len(), 2, "{helpers:?}");
    let end = |helper: i32| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(helper), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
    };
    end(helpers[1]);
    eventually("the other one takes over", async || proxy.log().contains("another goes on").then_some(()))
        .await;
    proxy.until_listener("flows are known again", |listener| listener.active_connections == 2).await;
    assert!(remembered().await);
    // It does what there is to do.
    proxy.change(|document| document.listeners.clear()).await;
    assert!(flow.is_refused().await);
    proxy.apply(&document(&sticky)).await;
    let flow = network.flow(CLIENT).await;
    let (first, second) = (flow.member(), network.flow(NEIGHBOUR).await.member());
    assert_ne!(first, second);

    // Without any the proxy says so and ends, as with half of its workers; its unit starts another, with the same flows.
    end(helpers[0]);
    assert!(!proxy.ended().await.success());
    assert!(proxy.log().contains("none stands by"), "{}", proxy.log());
    assert_eq!(flow.member(), first, "without a proxy");
    let again = network.proxy(proxy.document.clone()).await;
    assert_eq!(network.flow(NEIGHBOUR).await.member(), second);
    assert_eq!((network.flow(CLIENT).await.member(), flow.member()), (first, first));

    // Who is remembered for a member that fails meanwhile chooses anew.
    let (gone, left) = if first == 2 { (one, 3) } else { (other, 2) };
    let index = usize::from(first) - 2;
    again.until_member(index, "it is checked", |member| member.check.to_string() == "UP").await;
    gone.end().await;
    again.until_member(index, "it is down", |member| member.check.to_string() == "DOWN").await;
    flow.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    eventually("the other has it", async || flow.ask(b"who").ok().filter(|(member, ..)| *member == left))
        .await;
}

#[tokio::test]
async fn clients_are_remembered_by_the_other_amphora() {
    let (Some(one), Some(other)) = (Network::create(), Network::create()) else { return };
    one.amphora.link("pair", &other.amphora, "pair");
    let directory = tempfile::tempdir().unwrap();
    let at = |host: u8| SocketAddr::from(([192, 0, 2, host], 1025));
    let file = |host: u8| directory.path().join(host.to_string());
    for (network, host) in [(&one, 1), (&other, 2)] {
        network.amphora.ip(&["address", "add", &format!("192.0.2.{host}/24"), "dev", "pair"]);
        network.client.ip(&["address", "add", "203.0.113.8/24", "dev", "amphora"]);
        network.client.ip(&["address", "add", "2001:db8:50::8/64", "dev", "amphora", "nodad"]);
        std::fs::write(file(host), crate::peers::told(at(host), at(3 - host), crate::peers::KEY)).unwrap();
    }
    let members = async |network: &Network| {
        let four = [network.member(2, true).await, network.member(3, true).await];
        (four, [network.member(2, false).await, network.member(3, false).await])
    };
    let ((four, six), _others) = (members(&one).await, members(&other).await);
    let sticky = pool(four.iter().chain(&six).map(|member| (member, 1)))
        .with("session_persistence", json!({ "type": "SOURCE_IP", "persistence_timeout": 600 }));
    let document = document(&sticky);
    let start = async |network: &Network, host: u8| {
        let file = file(host).display().to_string();
        Proxy::start_with(document.clone(), &["--netns", network.amphora.name(), "--peers-file", &file]).await
    };
    let member = async |network: &Network, client: &str| network.flow(client).await.member();
    let remembers = async |network: &Network, clients: usize| {
        eventually("the kernel knows them", async || {
            let table = network.nft(&["list", "table", "inet", "amphora_datagram"]);
            (table.matches("expires").count() == clients).then_some(())
        })
        .await;
    };

    let (a, b) = (start(&one, 1).await, start(&other, 2).await);
    let clients = [CLIENT, NEIGHBOUR, CLIENT6, "2001:db8:50::8"];
    for (client, first) in clients.into_iter().zip([2, 3, 2, 3]) {
        assert_eq!(member(&one, client).await, first, "in turn");
    }
    remembers(&other, 4).await;
    // Asked in the other order, which would be the other members' turn.
    let are_kept = async |network: &Network| {
        for (client, first) in clients.into_iter().zip([2, 3, 2, 3]).rev() {
            assert_eq!(member(network, client).await, first, "{client}");
        }
    };
    are_kept(&other).await;

    // The other way, and to one that starts anew without anything.
    assert_eq!(member(&other, "203.0.113.8").await, 2);
    remembers(&one, 5).await;
    let mut a = a;
    a.signal(nix::sys::signal::Signal::SIGKILL);
    a.ended().await;
    one.nft(&["delete", "table", "inet", "amphora_datagram"]);
    let again = start(&one, 1).await;
    remembers(&one, 5).await;
    are_kept(&one).await;
    assert_eq!(member(&one, "203.0.113.8").await, 2);
    // What a member that goes was remembered for is nobody's, on either side.
    let mut proxies = [again, b];
    for proxy in &mut proxies {
        proxy.change(|document| drop(document.pools[0].members.remove(0))).await;
    }
    for network in [&one, &other] {
        for client in [CLIENT, "203.0.113.8", NEIGHBOUR] {
            assert_eq!(member(network, client).await, 3);
        }
    }
}
