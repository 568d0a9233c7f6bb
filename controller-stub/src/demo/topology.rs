//! Where everything of the demo is: in network namespaces, or on loopback.
//!
//! With namespaces, as root: clients in one, the amphora's data plane in the second, members in the third; the
//! amphora has a leg in each of two networks and the VIP on the first, as a real one does.
//!
//! ```text
//! clients 198.51.100.2 ---- 198.51.100.9 amphora 203.0.113.1 ---- 203.0.113.11.. members
//!                           198.51.100.10 VIP
//! ```
//!
//! A pair has a network of its own, which clients and members join: see [`pair`](super::pair).
//!
//! Without: everything on 127.0.0.1, on ports outside the range that the kernel gives to outgoing connections, so
//! that no connection can sit on a member's port while the member is dead.

use std::{
    fs::{self, DirBuilder},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process,
};

use nix::unistd::geteuid;
use uuid::Uuid;

use super::netns::{self, Namespace, PREFIX, is_orphan};
use crate::{
    error::{Error, Result},
    host,
};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// TEST-NET-2 and -3 (RFC 5737): addresses that no real network has.
const CLIENT: &str = "198.51.100.2/24";
const AMPHORA_FRONT: &str = "198.51.100.9/24";
const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const AMPHORA_BACK: &str = "203.0.113.1/24";
const MEMBERS: [u8; 3] = [203, 0, 113];
/// Where all members are.
pub(super) const MEMBER_NETWORK: &str = "203.0.113.0/24";

/// Addresses, ports and the place for files. Dropping it removes all that it made.
#[derive(Debug)]
pub(super) struct Topology {
    /// Clients connect to it.
    pub(super) vip: SocketAddr,
    /// A second listener comes and goes here.
    pub(super) second_port: u16,
    /// The HTTPS listener.
    pub(super) secure_port: u16,
    /// The members, in the order in which they were asked for.
    pub(super) members: Vec<SocketAddr>,
    /// The agent's REST API.
    pub(super) agent: SocketAddr,
    /// Those of a pair.
    pub(super) pair_agents: [SocketAddr; 2],
    /// Certificates, state, sockets and logs.
    pub(super) dir: PathBuf,
    namespaces: Option<Namespaces>,
}

#[derive(Debug)]
struct Namespaces {
    clients: Namespace,
    amphora: Namespace,
    members: Namespace,
}

impl Topology {
    /// Makes room for `members` members. The second value says why there are no namespaces, when there are none.
    ///
    /// # Errors
    /// [`Error::Local`]: not even loopback works.
    pub(super) fn create(members: usize, loopback: bool) -> Result<(Self, Option<String>)> {
        netns::sweep();
        let temporary = std::env::temp_dir();
        sweep(&temporary);
        let dir = make_dir(&temporary)?;
        let obstacle = if loopback { Some("--loopback") } else { host::obstacle() };
        let (namespaces, reason) = match obstacle {
            Some(reason) => (None, Some(reason.to_owned())),
            None => match Namespaces::create(members) {
                Ok(namespaces) => (Some(namespaces), None),
                Err(error) => (None, Some(error.to_string())),
            },
        };
        let ports = free_ports(members + 6)?;
        let local = |n: usize| SocketAddr::new(LOCALHOST, ports[n]);
        let topology = if namespaces.is_some() {
            let member = |n: usize| SocketAddr::new(member_address(n), 8080);
            Self {
                vip: SocketAddr::new(VIP.into(), 80),
                second_port: 8080,
                secure_port: 443,
                members: (0..members).map(member).collect(),
                agent: local(0),
                pair_agents: [local(3), local(4)],
                dir,
                namespaces,
            }
        } else {
            Self {
                vip: local(1),
                second_port: ports[2],
                secure_port: ports[5],
                members: (0..members).map(|n| local(n + 6)).collect(),
                agent: local(0),
                pair_agents: [local(3), local(4)],
                dir,
                namespaces,
            }
        };
        Ok((topology, reason))
    }

    /// Where the HTTPS listener is.
    pub(super) fn secure(&self) -> SocketAddr {
        SocketAddr::new(self.vip.ip(), self.secure_port)
    }

    /// Key and certificate of the members that speak TLS.
    pub(super) fn member_certificate(&self) -> PathBuf {
        self.dir.join("member.pem")
    }

    /// Names of the namespaces of clients, amphora and members.
    fn namespace(&self, pick: fn(&Namespaces) -> &Namespace) -> Option<&str> {
        self.namespaces.as_ref().map(|all| pick(all).name())
    }

    /// The namespace of the clients.
    pub(super) fn client_netns(&self) -> Option<&str> {
        self.namespace(|all| &all.clients)
    }

    /// The namespace of the data plane.
    pub(super) fn amphora_netns(&self) -> Option<&str> {
        self.namespace(|all| &all.amphora)
    }

    /// The namespace of the members.
    pub(super) fn member_netns(&self) -> Option<&str> {
        self.namespace(|all| &all.members)
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("{}: {error}", self.dir.display());
        }
    }
}

impl Namespaces {
    fn create(members: usize) -> Result<Self> {
        let all = Self {
            clients: Namespace::create("clients")?,
            amphora: Namespace::create("amphora")?,
            members: Namespace::create("members")?,
        };
        let amphora = all.amphora.name();
        // Both ends are made in their namespaces: nothing ever shows in the host's own.
        all.clients
            .ip(&["link", "add", "front", "type", "veth", "peer", "name", "eth1", "netns", amphora])?;
        all.members.ip(&["link", "add", "back", "type", "veth", "peer", "name", "eth2", "netns", amphora])?;
        all.clients.ip(&["address", "add", CLIENT, "dev", "front"])?;
        all.amphora.ip(&["address", "add", AMPHORA_FRONT, "dev", "eth1"])?;
        all.amphora.ip(&["address", "add", &format!("{VIP}/32"), "dev", "eth1"])?;
        all.amphora.ip(&["address", "add", AMPHORA_BACK, "dev", "eth2"])?;
        for n in 0..members {
            all.members.ip(&["address", "add", &format!("{}/24", member_address(n)), "dev", "back"])?;
        }
        for (namespace, link) in
            [(&all.clients, "front"), (&all.members, "back"), (&all.amphora, "eth1"), (&all.amphora, "eth2")]
        {
            namespace.ip(&["link", "set", link, "up"])?;
        }
        Ok(all)
    }
}

fn member_address(n: usize) -> IpAddr {
    let [a, b, c] = MEMBERS;
    // The demo has a handful of members; 11 and up keeps clear of the amphora's own address.
    let last = u8::try_from(11 + n).unwrap_or(u8::MAX);
    IpAddr::V4(Ipv4Addr::new(a, b, c, last))
}

/// Removes this user's directories of demos that were killed before they could: there are keys in them.
fn sweep(temporary: &Path) {
    for entry in fs::read_dir(temporary).into_iter().flatten().flatten() {
        // Of the entry itself, not of what a link leads to.
        let own = entry.metadata().is_ok_and(|m| m.is_dir() && m.uid() == geteuid().as_raw());
        if own && is_orphan(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A private directory whose path is short enough for unix sockets in it.
fn make_dir(temporary: &Path) -> Result<PathBuf> {
    let unique = &Uuid::new_v4().simple().to_string()[..8];
    let path = temporary.join(format!("{PREFIX}{}-{unique}", process::id()));
    let make =
        |path: &Path| DirBuilder::new().mode(0o711).create(path).map_err(|e| Error::local(path.display(), e));
    make(&path)?;
    ["certs", "state", "run", "log"].iter().try_for_each(|name| make(&path.join(name)))?;
    Ok(path)
}

/// Distinct TCP ports of 127.0.0.1 that nobody has, below the kernel's range for outgoing connections (32768 on
/// Linux). All are held until the last is found.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    const FIRST: u16 = 15_000;
    const LAST: u16 = 32_000;
    // Demos that start one after the other look in ranges of their own: a port that is let go to be given to a program
    // must not be found free by the next demo meanwhile.
    let offset = u16::try_from(process::id() % 256).unwrap_or(0) * 64;
    let mut held = Vec::new();
    for n in 0..(LAST - FIRST) {
        if held.len() == count {
            break;
        }
        let port = FIRST + (offset + n) % (LAST - FIRST);
        if let Ok(listener) = TcpListener::bind((LOCALHOST, port)) {
            held.push((listener, port));
        }
    }
    if held.len() < count {
        return Err(Error::Local(format!("no {count} free ports on {LOCALHOST} from {FIRST} to {LAST}")));
    }
    Ok(held.into_iter().map(|(_, port)| port).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::TcpStream;

    use super::*;

    #[test]
    fn what_a_killed_demo_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let gone = format!("{PREFIX}{}-0123abcd", child.id());
        let others = [
            format!("{PREFIX}{}-0123abcd", process::id()),
            format!("{PREFIX}0123abcd"),
            format!("x{gone}"),
            "x".into(),
        ];
        for name in others.iter().chain([&gone]) {
            fs::create_dir_all(dir.path().join(name).join("certs")).unwrap();
        }
        sweep(dir.path());
        assert!(!dir.path().join(gone).exists());
        others.iter().for_each(|name| assert!(dir.path().join(name).exists(), "{name}"));
    }

    #[test]
    fn loopback_leaves_nothing_behind() {
        let (topology, reason) = Topology::create(3, true).unwrap();
        assert_eq!(reason.as_deref(), Some("--loopback"));
        let mut ports: Vec<u16> = topology.members.iter().map(SocketAddr::port).collect();
        ports.extend([
            topology.vip.port(),
            topology.second_port,
            topology.secure_port,
            topology.agent.port(),
        ]);
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 7, "no port twice");
        assert!(ports.iter().all(|p| *p < 32_768));
        let dir = topology.dir.clone();
        assert!(dir.join("state").is_dir());
        drop(topology);
        assert!(!dir.exists());
    }

    #[test]
    fn in_namespaces_the_vip_is_real_and_nothing_is_left() {
        let (topology, reason) = Topology::create(2, false).unwrap();
        if let Some(reason) = reason {
            eprintln!("SKIPPED: no network namespaces: {reason}");
            return;
        }
        let names = [topology.client_netns(), topology.amphora_netns(), topology.member_netns()]
            .map(|name| name.unwrap().to_owned());
        // Each in a thread of its own, because entering a namespace is for good.
        let inside = |name: &str, work: Box<dyn FnOnce() -> TcpStream + Send>| {
            let name = name.to_owned();
            std::thread::spawn(move || {
                Namespace::enter(&name).unwrap();
                work()
            })
        };
        let reach = |from: &str, to: &str, address: SocketAddr| {
            let (ready, bound) = std::sync::mpsc::channel();
            let listens = inside(
                to,
                Box::new(move || {
                    let listener = TcpListener::bind(address).unwrap();
                    ready.send(()).unwrap();
                    listener.accept().unwrap().0
                }),
            );
            bound.recv().unwrap();
            let connects = inside(from, Box::new(move || TcpStream::connect(address).unwrap()));
            let client = connects.join().unwrap().local_addr().unwrap();
            assert_eq!(listens.join().unwrap().peer_addr().unwrap(), client);
            client.ip().to_string()
        };
        assert_eq!(reach(&names[0], &names[1], topology.vip), "198.51.100.2");
        for member in topology.members.clone() {
            assert_eq!(reach(&names[1], &names[2], member), "203.0.113.1");
        }
        drop(topology);
        assert!(names.iter().all(|name| !Path::new("/run/netns").join(name).exists()));
    }
}
