//! A unicast master whose own address goes, in whatever manner, cannot be heard any more: it leaves, and comes back with it.

use std::{fs, os::fd::OwnedFd, time::Duration};

use nix::libc;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{Domain, SockFilter, Socket};

use crate::{
    amphora::{Amphora, Mood, Program, wait},
    lan::{Host, Lan, VIP, VIP6},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A pair that talks to each other's own addresses, the first its master.
struct Pair {
    first: Amphora,
    second: Amphora,
    vip: &'static str,
    /// Of the first, with its length.
    own: String,
    _lan: Lan,
}

impl Pair {
    fn start(vip: &'static str, more: &str) -> Option<Self> {
        let mut lan = Lan::new()?;
        let prefix = if vip == VIP { "10.77.0." } else { "fd77::" };
        let config = |own: u8, peer: u8| {
            format!(
                r#"{{"instances": [{{"name": "one", "interface": "eth1", "vrid": 1, "interval_ms": 100, "priority": {},
                    "unicast": {{"source": "{prefix}{own}", "peers": ["{prefix}{peer}"]}},
                    "addresses": [{{"address": "{vip}"}}] {more}}}]}}"#,
                250 - own
            )
        };
        let mut first = Amphora::new(lan.host(101)?, Program::Ours);
        let mut second = Amphora::new(lan.host(102)?, Program::Ours);
        first.start(&config(101, 102));
        wait("it becomes master", PATIENCE, || state(&first) == "MASTER");
        second.start(&config(102, 101));
        wait("the other listens", PATIENCE, || state(&second) == "BACKUP");
        let length = if vip == VIP { 24 } else { 64 };
        Some(Self { first, second, vip, own: format!("{prefix}101/{length}"), _lan: lan })
    }

    fn ip(&self, args: &str) {
        ip(&self.first.host, args);
    }

    /// The first takes no part and does not have the VIP, which the second has.
    fn until_it_left(&self, how: &str) {
        wait(&format!("it leaves: {how}"), PATIENCE, || {
            state(&self.first) == "INIT" && !has(&self.first.host, self.vip)
        });
        wait(&format!("the other takes over: {how}"), PATIENCE, || {
            state(&self.second) == "MASTER" && has(&self.second.host, self.vip)
        });
    }

    fn until_it_is_back(&self, how: &str) {
        wait(&format!("it is back: {how}"), PATIENCE, || {
            state(&self.first) == "MASTER" && has(&self.first.host, self.vip)
        });
        wait(&format!("the other listens: {how}"), PATIENCE, || {
            state(&self.second) == "BACKUP" && !has(&self.second.host, self.vip)
        });
    }
}

fn state(ours: &Amphora) -> String {
    if !ours.path_exists("vrrp.sock") {
        return String::new();
    }
    ours.control("GET", "/status")["instances"][0]["state"].as_str().unwrap_or_default().to_owned()
}

/// On any interface.
fn has(host: &Host, address: &str) -> bool {
    host.show(&["address", "show"]).to_string().contains(&format!("\"{address}\""))
}

fn ip(host: &Host, args: &str) {
    host.namespace.ip(&args.split(' ').collect::<Vec<_>>());
}

fn goes_and_comes_back(vip: &'static str) {
    let Some(pair) = Pair::start(vip, "") else { return };
    let own = pair.own.clone();
    // Neither takes with it what else the interface has.
    let (add, delete) = (format!("address add {own} dev eth1 nodad"), format!("address del {own} dev eth1"));
    let add = if vip == VIP { add.replace(" nodad", "") } else { add };

    pair.ip(&delete);
    pair.until_it_left("removed");
    let error = pair.first.control("GET", "/status")["instances"][0]["error"].to_string();
    assert!(error.contains("eth1 does not have"), "{error}");
    pair.ip(&add);
    pair.until_it_is_back("added");

    pair.ip("link add other type veth peer name beside");
    pair.ip("link set other up");
    pair.ip("link set beside up");
    pair.ip(&delete);
    pair.ip(&add.replace("eth1", "other"));
    pair.until_it_left("moved to another interface");
    pair.ip(&delete.replace("eth1", "other"));
    pair.ip(&add);
    pair.until_it_is_back("moved back");

    let another = add.replace("101/", "111/");
    pair.ip(&another);
    pair.ip(&delete);
    pair.until_it_left("replaced by another of the subnet");
    for _ in 0..20 {
        pair.ip(&add);
        pair.ip(&delete);
    }
    pair.ip(&add);
    pair.until_it_is_back("there again after it came and went");
    for _ in 0..20 {
        pair.ip(&delete);
        pair.ip(&add);
    }
    pair.until_it_is_back("it went and came");

    // IPv6 addresses go with the interface.
    pair.ip("link set eth1 down");
    pair.until_it_left("interface down");
    pair.ip("link set eth1 name eth9");
    pair.ip("link set eth9 up");
    pair.ip("link set eth9 down");
    pair.ip("link set eth9 name eth1");
    pair.ip("link set eth1 up");
    if vip == VIP6 {
        pair.ip(&add);
    }
    pair.until_it_is_back("interface up");
}

#[test]
fn a_unicast_master_without_its_address_leaves_and_comes_back_with_it() {
    goes_and_comes_back(VIP);
}

#[test]
fn a_unicast_master_without_its_ipv6_address_leaves_and_comes_back_with_it() {
    goes_and_comes_back(VIP6);
}

/// Lets the kernel's answers and news reach a process no more, by its present netlink sockets.
fn deafen(process: u32) {
    let pid = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let nothing = [SockFilter::new(6 /* BPF_RET | BPF_K */, 0, 0, 0)];
    let mut deafened = 0;
    for file in fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten() {
        let is_socket =
            fs::read_link(file.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
        if !is_socket {
            continue;
        }
        let number = file.file_name().to_str().unwrap().parse().unwrap();
        let copy: OwnedFd = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).unwrap();
        let socket = Socket::from(copy);
        if socket.domain().unwrap() == Domain::from(libc::AF_NETLINK) {
            socket.attach_filter(&nothing).unwrap();
            deafened += 1;
        }
    }
    assert!(deafened > 0, "no netlink sockets");
}

#[test]
fn the_verdict_on_the_data_plane_does_not_wait_for_netlink() {
    let Some(pair) = Pair::start(VIP, r#", "track": {"fall": 2, "rise": 1}"#) else { return };
    deafen(pair.first.pid());
    pair.first.data_plane().set(Mood::Dead);
    pair.until_it_left("its data plane died");
    pair.first.data_plane().set(Mood::Fit);
    pair.until_it_is_back("its data plane is back");
    // By another socket than before.
    deafen(pair.first.pid());
    pair.first.data_plane().set(Mood::Hung);
    pair.until_it_left("its data plane hangs");
}
