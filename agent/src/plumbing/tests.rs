//! Ports plugged into network namespaces that the tests make and remove. What is expected was recorded from Octavia's
//! own agent, given the same requests. They take root, and say so where they are skipped.
#![allow(clippy::unwrap_used)]

mod changes;
mod documents;
mod dynamic;
mod failures;
mod reference;
mod rest;
mod sriov;
mod stranded;

use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use amphora_tests::Namespace;

use super::*;
use crate::testing::eventually;

const VIP_MAC: &str = "fa:16:3e:00:21:01";
const NETWORK_MAC: &str = "fa:16:3e:00:21:02";

/// What Octavia's controller sends to `plug/vip/10.77.0.100`.
pub(super) const PLUG_VIP: &str = r#"{"subnet_cidr": "10.77.0.0/24", "gateway": "10.77.0.1",
    "mac_address": "fa:16:3e:00:21:01", "mtu": 1500, "vrrp_ip": "10.77.0.101",
    "host_routes": [{"destination": "192.0.2.0/24", "nexthop": "10.77.0.1"}],
    "additional_vips": [
        {"ip_address": "10.79.0.100", "subnet_cidr": "10.79.0.0/24", "gateway": "10.79.0.1", "host_routes": []},
        {"ip_address": "fd77::100", "subnet_cidr": "fd77::/64", "gateway": "fd77::1", "host_routes": []}],
    "is_sriov": false}"#;

/// What it sends to `plug/network`.
pub(super) const PLUG_NETWORK: &str = r#"{"mac_address": "fa:16:3e:00:21:02", "mtu": 1450, "is_sriov": false,
    "fixed_ips": [
        {"ip_address": "10.78.0.121", "subnet_cidr": "10.78.0.0/24", "gateway": "10.78.0.1",
            "host_routes": [{"destination": "198.51.100.0/24", "nexthop": "10.78.0.1"}]},
        {"ip_address": "fd78::121", "subnet_cidr": "fd78::/64", "gateway": null, "host_routes": []}]}"#;

/// The same once more, with other addresses.
const PLUG_NETWORK_UPDATE: &str = r#"{"mac_address": "fa:16:3e:00:21:02", "mtu": 1450, "is_sriov": false,
    "fixed_ips": [
        {"ip_address": "10.78.0.121", "subnet_cidr": "10.78.0.0/24", "gateway": "10.78.0.1", "host_routes": []},
        {"ip_address": "10.78.0.122", "subnet_cidr": "10.78.0.0/24", "gateway": "10.78.0.1", "host_routes": []}]}"#;

/// A network of members on the port of the VIPs.
pub(super) const PLUG_VIP_NETWORK: &str = r#"{"mac_address": "fa:16:3e:00:21:01", "mtu": 1500, "is_sriov": false,
    "fixed_ips": [{"ip_address": "10.79.0.121", "subnet_cidr": "10.79.0.0/24", "gateway": "10.79.0.1",
        "host_routes": []}],
    "vip_net_info": {"subnet_cidr": "10.77.0.0/24", "gateway": "10.77.0.1", "mac_address": "fa:16:3e:00:21:01",
        "vrrp_ip": "10.77.0.101", "mtu": 1500, "host_routes": [], "additional_vips": [], "is_sriov": false,
        "vip": "10.77.0.100"}}"#;

fn vip() -> (MacAddress, Port) {
    Port::from_plug_vip("10.77.0.100", PLUG_VIP.as_bytes()).unwrap()
}

fn network(body: &str) -> (MacAddress, Port) {
    Port::from_plug_network(body.as_bytes()).unwrap()
}

/// A machine: a namespace for the root one, and a directory for the disk.
struct Machine {
    outside: Namespace,
    /// Where the other ends of its interfaces are.
    cloud: Namespace,
    inside: String,
    disk: tempfile::TempDir,
    topology: Topology,
}

impl Machine {
    fn new(topology: Topology) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let machine = Self {
            outside: Namespace::create()?,
            cloud: Namespace::create()?,
            inside: format!("amphora-test-{}-plumbing-{number}", std::process::id()),
            disk: tempfile::tempdir().unwrap(),
            topology,
        };
        machine.hot_plug();
        Some(machine)
    }

    /// As the hypervisor does: two interfaces, which are known by their MAC addresses alone.
    fn hot_plug(&self) {
        for (name, mac) in [("ens4", VIP_MAC), ("ens5", NETWORK_MAC)] {
            hot_plug(self.outside.name(), self.cloud.name(), name, mac);
        }
    }

    /// A namespace whose kernel deletes all addresses of a subnet together with its first one, as it does by default.
    fn forget_promotion(&self) {
        self.make_inside();
        let settings = "/proc/sys/net/ipv4/conf/";
        let script = format!("for of in all default; do echo 0 >{settings}$of/promote_secondaries; done");
        netns(&["exec", &self.inside, "sh", "-c", &script]);
    }

    fn make_inside(&self) {
        netns(&["add", &self.inside]);
    }

    /// The namespaces are gone, and what was in them; the disk stays.
    fn reboot(&self) {
        netns(&["delete", &self.inside]);
        // The interfaces end asynchronously, and their other ends with them.
        for _ in 0..1000 {
            if !self.show_in(self.cloud.name(), &["link"]).contains("ens") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        self.hot_plug();
    }

    fn open(&self, pci_rescan: Option<PathBuf>) -> impl FnOnce() -> Arc<Plumbing> + Send + use<> {
        let config =
            PlumbingConfig { namespace: Some(self.inside.clone()), topology: self.topology, pci_rescan };
        let base = self.disk.path().join("octavia");
        move || Plumbing::open(config, Arc::new(Store::open(&base).unwrap())).unwrap()
    }

    async fn run<T: Send + 'static, F: Future<Output = T>>(
        &self,
        work: impl FnOnce(Arc<Plumbing>) -> F + Send + 'static,
    ) -> T {
        let open = self.open(None);
        self.outside.run(|| async { work(open()).await }).await
    }

    async fn plug(&self, (mac, port): (MacAddress, Port)) -> Result<Outcome, PlugError> {
        self.run(move |plumbing| async move {
            let began = Instant::now();
            let outcome = plumbing.plug(mac, port).await;
            println!("plug {mac}: {:.1} ms", began.elapsed().as_secs_f64() * 1000.0);
            outcome
        })
        .await
    }

    fn show_in(&self, namespace: &str, args: &[&str]) -> String {
        let output = Command::new("ip").args(["-n", namespace]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| line.trim().to_owned() + "\n").collect()
    }

    fn show(&self, args: &[&str]) -> String {
        self.show_in(&self.inside, args)
    }

    /// `inet` and `inet6` with the address, as they are shown, without the link-local ones.
    fn addresses(&self, interface: &str) -> Vec<String> {
        let shown = self.show(&["addr", "show", "dev", interface]);
        let addresses = shown.lines().filter(|line| line.starts_with("inet") && !line.contains("fe80::"));
        addresses.map(str::to_owned).collect()
    }

    /// Every route that is not in the local table and not to link-local or multicast addresses.
    fn routes(&self) -> Vec<String> {
        let shown = self.show(&["-4", "route", "show", "table", "all"])
            + &self.show(&["-6", "route", "show", "table", "all"]);
        let unwanted = ["table local", "fe80::", "ff00::"];
        let mut routes: Vec<_> = shown
            .lines()
            .filter(|line| !unwanted.iter().any(|word| line.contains(word)))
            .map(str::to_owned)
            .collect();
        routes.sort();
        routes
    }

    /// Rules that the kernel did not make.
    fn rules(&self) -> Vec<String> {
        let shown = self.show(&["rule"]) + &self.show(&["-6", "rule"]);
        shown.lines().filter(|line| !line.contains("from all")).map(str::to_owned).collect()
    }
}

fn netns(args: &[&str]) {
    assert!(Command::new("ip").arg("netns").args(args).status().unwrap().success());
}

fn hot_plug(outside: &str, cloud: &str, name: &str, mac: &str) {
    let add = ["link", "add", name, "address", mac, "type", "veth", "peer", "name", name, "netns", cloud];
    for (namespace, args) in [(outside, &add[..]), (cloud, &["link", "set", name, "up"])] {
        assert!(Command::new("ip").args(["-n", namespace]).args(args).status().unwrap().success());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.inside]).output();
    }
}

fn assert_lines(found: Vec<String>, expected: &[&str]) {
    let mut expected: Vec<_> = expected.iter().map(|line| (*line).to_owned()).collect();
    expected.sort();
    let mut found: Vec<_> =
        found.into_iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    found.sort();
    assert_eq!(found, expected);
}

const VIP_ADDRESSES: [&str; 4] = [
    "inet 10.77.0.101/24 scope global eth1",
    "inet 10.77.0.100/32 scope global eth1",
    "inet 10.79.0.100/32 scope global eth1",
    "inet6 fd77::100/128 scope global nodad",
];

const VIP_ROUTES: [&str; 11] = [
    "default via 10.77.0.1 dev eth1 table 1 proto static onlink",
    "10.77.0.0/24 dev eth1 table 1 proto static scope link src 10.77.0.100",
    "10.79.0.0/24 dev eth1 table 1 proto static scope link src 10.79.0.100",
    "192.0.2.0/24 via 10.77.0.1 dev eth1 table 1 proto static onlink",
    "default via 10.77.0.1 dev eth1 proto static onlink",
    "10.77.0.0/24 dev eth1 proto kernel scope link src 10.77.0.101",
    "10.79.0.0/24 dev eth1 proto static scope link",
    "192.0.2.0/24 via 10.77.0.1 dev eth1 proto static onlink",
    "fd77::/64 dev eth1 table 1 proto static src fd77::100 metric 1024 pref medium",
    "default via fd77::1 dev eth1 table 1 proto static metric 1024 onlink pref medium",
    "fd77::100 dev eth1 proto kernel metric 256 pref medium",
];

const VIP_ROUTES_6: [&str; 2] = [
    "fd77::/64 dev eth1 proto static metric 1024 pref medium",
    "default via fd77::1 dev eth1 proto static metric 1024 onlink pref medium",
];

const VIP_RULES: [&str; 3] = [
    "32000: from 10.77.0.100 lookup 1",
    "32000: from 10.79.0.100 lookup 1",
    "32000: from fd77::100 lookup 1",
];

fn assert_vip_of(machine: &Machine, mac: &str) {
    assert!(machine.show(&["link", "show", "eth1"]).contains(mac));
    assert_vip(machine);
}

fn assert_vip(machine: &Machine) {
    assert_lines(machine.addresses("eth1"), &VIP_ADDRESSES);
    assert_lines(machine.routes(), &[&VIP_ROUTES[..], &VIP_ROUTES_6].concat());
    assert_lines(machine.rules(), &VIP_RULES);
}

/// The interface is there under this name, and is nothing.
fn assert_unplugged(machine: &Machine, name: &str, mac: &str) {
    let shown = machine.show(&["link", "show", name]);
    assert!(shown.contains("state DOWN") && shown.contains(mac), "{shown}");
    assert_lines(machine.addresses(name), &[]);
}

#[tokio::test]
async fn the_vips_of_a_single_amphora_are_as_octavia_has_them() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    let outcome = machine.plug(vip()).await.unwrap();
    assert_eq!((outcome.interface.as_str(), outcome.moved, outcome.changed), ("eth1", true, true));
    assert_vip(&machine);
    assert!(machine.show(&["link", "show", "eth1"]).contains("mtu 1500"));
    assert!(machine.show(&["link", "show", "eth1"]).contains(VIP_MAC));
    assert!(machine.show(&["addr", "show", "lo"]).contains("127.0.0.1/8"));

    let outcome = machine.plug(vip()).await.unwrap();
    assert_eq!((outcome.moved, outcome.changed), (false, false));
    assert_vip(&machine);
}

#[tokio::test]
async fn the_vips_of_a_pair_are_left_to_vrrp() {
    let Some(machine) = Machine::new(Topology::ActiveStandby) else { return };
    machine.plug(vip()).await.unwrap();
    let assert_state = || {
        assert_lines(
            machine.routes(),
            &[
                "192.0.2.0/24 via 10.77.0.1 dev eth1 table 1 proto static onlink",
                "default via 10.77.0.1 dev eth1 proto static onlink",
                "10.77.0.0/24 dev eth1 proto kernel scope link src 10.77.0.101",
                "10.79.0.0/24 dev eth1 proto static scope link",
                "192.0.2.0/24 via 10.77.0.1 dev eth1 proto static onlink",
                "fd77::/64 dev eth1 proto static metric 1024 pref medium",
                "default via fd77::1 dev eth1 proto static metric 1024 onlink pref medium",
            ],
        );
        assert_lines(machine.rules(), &[]);
    };
    assert_lines(machine.addresses("eth1"), &["inet 10.77.0.101/24 scope global eth1"]);
    assert_state();

    // What VRRP set up stays when the same is plugged again.
    let vrrp: [&[&str]; 3] = [
        &["addr", "add", "10.77.0.100/32", "dev", "eth1"],
        &["route", "add", "203.0.113.0/24", "dev", "eth1", "table", "1", "proto", "keepalived"],
        &["rule", "add", "from", "10.77.0.100", "table", "1", "priority", "100", "protocol", "keepalived"],
    ];
    for args in vrrp {
        machine.show(args);
    }
    assert!(!machine.plug(vip()).await.unwrap().changed);
    assert!(machine.addresses("eth1").iter().any(|line| line.contains("10.77.0.100/32")));
    assert!(machine.routes().iter().any(|line| line.contains("203.0.113.0/24")));
    assert_lines(machine.rules(), &["100: from 10.77.0.100 lookup 1 proto keepalived"]);
}

#[tokio::test]
async fn a_network_is_plugged_and_changed() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    let outcome = machine.plug(network(PLUG_NETWORK)).await.unwrap();
    assert_eq!(outcome.interface.as_str(), "eth2");
    assert_lines(
        machine.addresses("eth2"),
        &["inet 10.78.0.121/24 scope global eth2", "inet6 fd78::121/64 scope global nodad"],
    );
    assert_lines(
        machine.routes(),
        &[
            "10.78.0.0/24 dev eth2 proto kernel scope link src 10.78.0.121",
            "198.51.100.0/24 via 10.78.0.1 dev eth2 proto static onlink",
            "fd78::/64 dev eth2 proto kernel metric 256 pref medium",
        ],
    );
    assert!(machine.show(&["link", "show", "eth2"]).contains("mtu 1450"));
    assert!(!machine.plug(network(PLUG_NETWORK)).await.unwrap().changed);

    let outcome = machine.plug(network(PLUG_NETWORK_UPDATE)).await.unwrap();
    assert_eq!((outcome.moved, outcome.changed), (false, true));
    assert_lines(
        machine.addresses("eth2"),
        &["inet 10.78.0.121/24 scope global eth2", "inet 10.78.0.122/24 scope global secondary eth2"],
    );
    assert_lines(machine.routes(), &["10.78.0.0/24 dev eth2 proto kernel scope link src 10.78.0.121"]);
}

#[tokio::test]
async fn a_network_of_the_vips_port_comes_beside_the_vips() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.plug(vip()).await.unwrap();
    assert_eq!(machine.plug(network(PLUG_VIP_NETWORK)).await.unwrap().interface.as_str(), "eth1");
    assert_lines(
        machine.addresses("eth1"),
        &[
            "inet 10.77.0.101/24 scope global eth1",
            "inet 10.77.0.100/32 scope global eth1",
            "inet 10.79.0.121/24 scope global eth1",
        ],
    );
    assert_lines(machine.rules(), &["32000: from 10.77.0.100 lookup 1"]);
    // The additional VIPs are gone with their routes.
    assert_lines(
        machine.routes(),
        &[
            "default via 10.77.0.1 dev eth1 table 1 proto static onlink",
            "10.77.0.0/24 dev eth1 table 1 proto static scope link src 10.77.0.100",
            "default via 10.77.0.1 dev eth1 proto static onlink",
            "10.77.0.0/24 dev eth1 proto kernel scope link src 10.77.0.101",
            "10.79.0.0/24 dev eth1 proto kernel scope link src 10.79.0.121",
        ],
    );
}

#[tokio::test]
async fn a_default_route_is_never_missing_while_its_gateway_changes() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.plug(vip()).await.unwrap();
    let (mac, mut port) = vip();
    port.vip.as_mut().unwrap().vips[0].gateway = "10.77.0.254".parse().ok();
    assert!(machine.plug((mac, port)).await.unwrap().changed);
    let defaults: Vec<_> =
        machine.routes().into_iter().filter(|line| line.starts_with("default via 10.")).collect();
    assert_lines(
        defaults,
        &[
            "default via 10.77.0.254 dev eth1 table 1 proto static onlink",
            "default via 10.77.0.254 dev eth1 proto static onlink",
        ],
    );
}

#[tokio::test]
async fn a_reboot_brings_everything_back() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.plug(vip()).await.unwrap();
    machine.plug(network(PLUG_NETWORK)).await.unwrap();
    let state = |machine: &Machine| {
        (machine.addresses("eth1"), machine.addresses("eth2"), machine.routes(), machine.rules())
    };
    let before = state(&machine);
    machine.reboot();
    let restore = async |machine: &Machine| {
        machine
            .run(|plumbing| async move {
                let began = Instant::now();
                let outcomes = plumbing.restore().await.unwrap();
                println!("restore: {:.1} ms", began.elapsed().as_secs_f64() * 1000.0);
                outcomes.into_iter().map(|outcome| outcome.interface.to_string()).collect::<Vec<_>>()
            })
            .await
    };
    assert_eq!(restore(&machine).await, ["eth1", "eth2"]);
    assert_eq!(state(&machine), before);
    // A restart of the agent alone.
    assert_eq!(restore(&machine).await, [""; 0]);
}

#[tokio::test]
async fn an_interface_that_is_late_does_not_keep_the_rest_back_and_is_plugged_when_it_comes() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.plug(vip()).await.unwrap();
    machine.plug(network(PLUG_NETWORK)).await.unwrap();
    machine.reboot();
    machine.outside.ip(&["link", "delete", "ens4"]);
    let (outside, cloud) = (machine.outside.name().to_owned(), machine.cloud.name().to_owned());
    machine
        .run(move |plumbing| async move {
            let changes = LinkChanges::open().unwrap();
            assert_eq!(plumbing.restore().await.unwrap().len(), 1);
            let missing = (VIP_MAC.parse().unwrap(), "No suitable network interface found".to_owned());
            assert_eq!(plumbing.failures(), BTreeMap::from([missing]));
            let watch = tokio::spawn(plumbing.clone().watch(changes));
            hot_plug(&outside, &cloud, "ens4", VIP_MAC);
            eventually("the port is plugged", async || plumbing.failures().is_empty()).await;
            watch.abort();
        })
        .await;
    assert_lines(machine.addresses("eth1"), &VIP_ADDRESSES);
    assert_eq!(machine.addresses("eth2").len(), 2);
}

#[tokio::test]
async fn what_is_unplugged_is_forgotten_and_can_be_plugged_again() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.plug(vip()).await.unwrap();
    let (mac, _) = vip();
    let unplugged = machine
        .run(move |plumbing| async move {
            assert_eq!(plumbing.unplug(mac).await.unwrap().interface.as_str(), "eth1");
            assert!(matches!(plumbing.unplug(mac).await, Err(PlugError::NoInterface(_))));
            plumbing.plugged().await
        })
        .await;
    assert_eq!(unplugged, []);
    assert_unplugged(&machine, "unplugged0", VIP_MAC);
    assert_lines(machine.routes(), &[]);
    assert_lines(machine.rules(), &[]);
    assert!(machine.plug(vip()).await.unwrap().changed);
    assert_vip(&machine);
}
