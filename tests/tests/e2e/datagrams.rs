//! Listeners of UDP, in network namespaces: a client's, the amphora's, the members'. As root, where the kernel has nf_tables.

mod answers;
mod failures;
mod forwards;
mod icmp;
mod lasts;
mod remembers;
mod steady;

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
