//! Ports without addresses, and dnsmasq as the server of DHCP and as a router (Debian: dnsmasq-base).

use std::process::{Child, Stdio};

use super::*;

const DYNAMIC: &str = r#"{"mac_address": "fa:16:3e:00:21:02", "fixed_ips": null}"#;

/// A server in the cloud of a machine, on the other end of the network's port. It ends with this.
struct Dnsmasq {
    child: Child,
    disk: tempfile::TempDir,
}

impl Dnsmasq {
    /// `None`, said loudly, where it is not installed.
    fn start(cloud: &str, options: &[&str]) -> Option<Self> {
        Self::start_on(cloud, "ens5", options)
    }

    fn start_on(cloud: &str, interface: &str, options: &[&str]) -> Option<Self> {
        let disk = tempfile::tempdir().unwrap();
        let leases = format!("--dhcp-leasefile={}", disk.path().join("leases").display());
        let pid = format!("--pid-file={}", disk.path().join("pid").display());
        let mut command = Command::new("ip");
        command.args(["netns", "exec", cloud, "dnsmasq", "--no-daemon", "--conf-file=/dev/null"]);
        command.args(["--interface", interface]);
        command.args(["--port=0", "--bind-dynamic", "--no-ping", "--log-dhcp", "--user=root"]);
        command.args([&leases, &pid]).args(options);
        if Command::new("dnsmasq").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: there is no dnsmasq (Debian: dnsmasq-base)");
            return None;
        }
        let log = fs::File::create(disk.path().join("log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let server = Self { child, disk };
        let deadline = Instant::now() + Duration::from_secs(10);
        while server.count("sockets bound exclusively") == 0 {
            assert!(Instant::now() < deadline, "dnsmasq is not ready: {}", server.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(server)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.disk.path().join("log")).unwrap()
    }

    fn count(&self, what: &str) -> usize {
        self.log().lines().filter(|line| line.contains(what)).count()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A machine whose network has the server's own addresses.
fn machine() -> Option<Machine> {
    let machine = Machine::new(Topology::Single)?;
    address_cloud(&machine);
    Some(machine)
}

fn address_cloud(machine: &Machine) {
    for net in ["10.78.0.2/24", "fd78::1/64"] {
        machine.cloud.ip(&["address", "add", net, "dev", "ens5", "nodad"]);
    }
}

const RANGE: &str = "--dhcp-range=10.78.0.50,10.78.0.50,255.255.255.0,1h";

/// With each octet of a lease that matters here.
const OPTIONS: [&str; 4] = [
    RANGE,
    "--dhcp-option=option:mtu,1400",
    "--dhcp-option=121,169.254.169.254/32,10.78.0.2,192.0.2.0/24,10.78.0.9,10.77.0.128/25,10.78.0.9",
    "--dhcp-option=option:router,10.78.0.1",
];

/// Plugs, and waits for an address as the API does.
async fn plugged(plumbing: &Arc<Plumbing>, body: &str) -> Outcome {
    let (mac, port) = network(body);
    let outcome = plumbing.plug(mac, port).await.unwrap();
    plumbing.leased(mac).await;
    outcome
}

fn mac() -> MacAddress {
    NETWORK_MAC.parse().unwrap()
}

/// Without its lifetime.
fn leased(machine: &Machine) -> Vec<String> {
    machine.addresses("eth2").into_iter().filter(|line| line.starts_with("inet ")).collect()
}

const LEASED: [&str; 1] = ["inet 10.78.0.50/24 scope global dynamic eth2"];

#[tokio::test]
async fn a_port_without_addresses_has_those_of_its_network() {
    let Some(machine) = machine() else { return };
    let options = [&OPTIONS[..], &["--dhcp-range=fd78::,ra-only", "--enable-ra"]].concat();
    let Some(_server) = Dnsmasq::start(machine.cloud.name(), &options) else { return };
    machine.plug(vip()).await.unwrap();
    machine
        .run(|plumbing| async move {
            let outcome = plugged(&plumbing, DYNAMIC).await;
            assert_eq!((outcome.interface.as_str(), outcome.moved, outcome.changed), ("eth2", true, true));
            assert!(plumbing.failures().is_empty(), "{:?}", plumbing.failures());
            let lease = plumbing.find(mac()).await.unwrap().lease.unwrap();
            assert_eq!((lease.lease.server.to_string().as_str(), lease.lease.seconds), ("10.78.0.2", 3600));
            // The same again changes nothing.
            assert!(!plugged(&plumbing, DYNAMIC).await.changed);
        })
        .await;
    assert_lines(leased(&machine), &LEASED);
    assert!(machine.show(&["link", "show", "eth2"]).contains("mtu 1400"));
    let by_eth2 =
        |line: &String| line.contains("eth2") && !line.contains("proto kernel") && !line.contains(':');
    assert_lines(
        machine.routes().into_iter().filter(by_eth2).collect(),
        &[
            "169.254.169.254 via 10.78.0.2 dev eth2 proto static metric 1024 onlink",
            // Not the one into the VIPs' network, and not the router, which classless routes go before.
            "192.0.2.0/24 via 10.78.0.9 dev eth2 proto static metric 1024 onlink",
        ],
    );
    let addressed = || async {
        machine.addresses("eth2").iter().any(|line| line.contains("fd78::f816:3eff:fe00:2102/64"))
    };
    eventually("an address by what the router advertises", addressed).await;
    // The way by the VIPs' port stays the first one.
    let shown = machine.show(&["-6", "route", "get", "2001:db8::1"]);
    assert!(shown.contains("dev eth1"), "{shown}");
    // The others hear no router.
    assert_eq!(setting(&machine, "eth1", "accept_ra"), "0");
    // Nor does one answer for the addresses of another on its link.
    assert_eq!(["eth1", "eth2"].map(|interface| setting(&machine, interface, "arp_ignore")), ["1", "1"]);
    assert_eq!(
        (setting(&machine, "eth2", "accept_ra"), setting(&machine, "eth2", "autoconf")),
        ("2".into(), "1".into())
    );

    // With addresses of its own it gives up those.
    machine.plug(network(PLUG_NETWORK)).await.unwrap();
    assert_lines(
        machine.addresses("eth2"),
        &["inet 10.78.0.121/24 scope global eth2", "inet6 fd78::121/64 scope global nodad"],
    );
    assert!(
        !machine.routes().iter().any(|line| line.contains("metric 1024 onlink") && line.contains("eth2"))
    );
    assert!(!machine.routes().iter().any(|line| line.contains("proto ra")));
    assert_eq!(setting(&machine, "eth2", "accept_ra"), "0");
}

fn setting(machine: &Machine, interface: &str, name: &str) -> String {
    let family = if name.starts_with("arp") { "ipv4" } else { "ipv6" };
    let path = format!("/proc/sys/net/{family}/conf/{interface}/{name}");
    let output = Command::new("ip").args(["netns", "exec", &machine.inside, "cat", &path]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_restart_and_a_reboot_keep_the_address() {
    let Some(machine) = machine() else { return };
    let Some(server) = Dnsmasq::start(machine.cloud.name(), &[RANGE]) else { return };
    machine.plug(vip()).await.unwrap();
    machine.run(|plumbing| async move { plugged(&plumbing, DYNAMIC).await }).await;
    assert_lines(leased(&machine), &LEASED);

    // The agent is back: nothing changes, and the server is asked for the same once more.
    let count = |server: &Dnsmasq| (server.count("DHCPDISCOVER"), server.count("DHCPACK"));
    // Of the link's first moments something may get lost.
    let (discovers, asked) = count(&server);
    let restored = machine.run(move |plumbing| async move {
        let restored = plumbing.restore().await.unwrap();
        eventually("the lease is asked for again", async || server.count("DHCPACK") > asked).await;
        (restored, server)
    });
    let (restored, server) = restored.await;
    assert_eq!(restored, []);
    assert_eq!(count(&server).0, discovers, "{}", server.log());
    assert_lines(leased(&machine), &LEASED);

    // A boot without a server: there is the address all the same.
    drop(server);
    machine.reboot();
    machine.run(|plumbing| async move { plumbing.restore().await.unwrap() }).await;
    assert_lines(leased(&machine), &LEASED);
}

/// Waits longer than [`eventually`]: for times of the protocol.
async fn in_time(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn address(plumbing: &Plumbing) -> Option<String> {
    let lease = plumbing.find(mac()).await?.lease?;
    Some(lease.lease.address.to_string())
}

#[tokio::test]
async fn a_silent_network_keeps_nobody_waiting_and_may_answer_late() {
    let Some(machine) = machine() else { return };
    let cloud = machine.cloud.name().to_owned();
    machine
        .run(|plumbing| async move {
            let began = Instant::now();
            plugged(&plumbing, DYNAMIC).await;
            assert!(began.elapsed() >= leases::PATIENCE);
            let failure = plumbing.failures().remove(&mac()).unwrap();
            assert_eq!(failure, "DHCP has given no address: no server answers");
            let Some(_server) = Dnsmasq::start(&cloud, &[RANGE]) else { return };
            in_time("the late answer is taken", async || address(&plumbing).await.is_some()).await;
            eventually("all is well", async || plumbing.failures().is_empty()).await;
        })
        .await;
    assert!(machine.show(&["link", "show", "eth2"]).contains("state UP"));
}

#[tokio::test]
async fn a_lease_is_renewed_and_taken_back() {
    let Some(machine) = machine() else { return };
    let cloud = machine.cloud.name().to_owned();
    let times = ["--dhcp-option=option:T1,5", "--dhcp-option=option:T2,8", "--dhcp-authoritative"];
    let Some(server) = Dnsmasq::start(&cloud, &[&[RANGE], &times[..]].concat()) else { return };
    machine
        .run(move |plumbing| async move {
            plugged(&plumbing, DYNAMIC).await;
            assert_eq!(address(&plumbing).await.as_deref(), Some("10.78.0.50/24"));
            let (discovers, acks) = (server.count("DHCPDISCOVER"), server.count("DHCPACK"));
            in_time("it is renewed", async || server.count("DHCPACK") > acks).await;
            assert_eq!(server.count("DHCPDISCOVER"), discovers, "{}", server.log());
            drop(server);
            // Another server, which does not know of it.
            let range = "--dhcp-range=10.78.0.60,10.78.0.60,255.255.255.0,1h";
            let server = Dnsmasq::start(&cloud, &[&[range], &times[..]].concat()).unwrap();
            let other = async || address(&plumbing).await.as_deref() == Some("10.78.0.60/24");
            in_time("another address is taken", other).await;
            assert!(server.count("DHCPNAK") >= 1, "{}", server.log());
            assert_eq!(plumbing.failures(), BTreeMap::new());
        })
        .await;
    assert_lines(leased(&machine), &["inet 10.78.0.60/24 scope global dynamic eth2"]);
}

#[tokio::test]
async fn an_unplugged_port_gives_its_address_back() {
    let Some(machine) = machine() else { return };
    let Some(server) = Dnsmasq::start(machine.cloud.name(), &[RANGE]) else { return };
    machine
        .run(move |plumbing| async move {
            plugged(&plumbing, DYNAMIC).await;
            plumbing.unplug(mac()).await.unwrap();
            eventually("the server knows", async || server.count("DHCPRELEASE") == 1).await;
            assert_eq!(plumbing.failures(), BTreeMap::new());
        })
        .await;
    assert_unplugged(&machine, "unplugged0", NETWORK_MAC);
}

/// A tenant's server says that the port is in the network of the VIPs.
#[tokio::test]
async fn a_lease_in_another_ports_network_is_declined() {
    let Some(machine) = machine() else { return };
    machine.cloud.ip(&["address", "add", "10.77.0.2/24", "dev", "ens5"]);
    let range = "--dhcp-range=10.77.0.100,10.77.0.100,255.255.255.0,1h";
    let Some(server) = Dnsmasq::start(machine.cloud.name(), &[range]) else { return };
    machine.plug(vip()).await.unwrap();
    machine
        .run(move |plumbing| async move {
            let (mac, port) = network(DYNAMIC);
            plumbing.plug(mac, port).await.unwrap();
            eventually("it is declined", async || server.count("DHCPDECLINE") == 1).await;
            let failure = plumbing.failures().remove(&mac).unwrap();
            assert_eq!(
                failure,
                "DHCP has given no address: the lease of 10.77.0.100/24 is in the way of 10.77.0.0/24, the network of \
                 another port"
            );
        })
        .await;
    assert!(leased(&machine).is_empty());
    assert_vip(&machine);
}

/// Somebody has the address that the server gives.
#[tokio::test]
async fn an_address_in_use_is_declined() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    let Some(neighbour) = Namespace::create() else { return };
    machine.cloud.link("other", &neighbour, "eth0");
    neighbour.ip(&["address", "add", "10.78.0.50/24", "dev", "eth0"]);
    machine.cloud.ip(&["link", "add", "lan", "up", "type", "bridge"]);
    for port in ["ens5", "other"] {
        machine.cloud.ip(&["link", "set", port, "master", "lan"]);
    }
    machine.cloud.ip(&["address", "add", "10.78.0.2/24", "dev", "lan"]);
    let Some(server) = Dnsmasq::start_on(machine.cloud.name(), "lan", &[RANGE]) else { return };
    machine
        .run(move |plumbing| async move {
            let (mac, port) = network(DYNAMIC);
            plumbing.plug(mac, port).await.unwrap();
            eventually("it is declined", async || server.count("DHCPDECLINE") == 1).await;
            assert_eq!(address(&plumbing).await, None);
        })
        .await;
    assert!(leased(&machine).is_empty());
}
