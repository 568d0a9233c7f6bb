//! A network of namespaces: a switch, hosts, and the power to cut what lies between them.

use std::{net::IpAddr, process::Command};

use amphora_tests::Namespace;
use serde_json::Value;

/// The address that fails over.
pub(crate) const VIP: &str = "10.77.0.100";
/// One of the other family, which goes with it.
pub(crate) const VIP6: &str = "fd77::100";

/// A switch with hosts.
#[derive(Debug)]
pub(crate) struct Lan {
    switch: Namespace,
    hosts: u32,
}

/// A host of a [`Lan`], its interface called `eth1`.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) namespace: Namespace,
    pub(crate) address: IpAddr,
    port: String,
}

impl Lan {
    /// `None`, and a line that says so, without root.
    pub(crate) fn new() -> Option<Self> {
        let switch = Namespace::create()?;
        switch.ip(&["link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"]);
        switch.ip(&["link", "set", "br0", "up"]);
        Some(Self { switch, hosts: 0 })
    }

    /// A host with the addresses 10.77.0.`number` and fd77::`number`.
    pub(crate) fn host(&mut self, number: u8) -> Option<Host> {
        self.hosts += 1;
        let port = format!("port{}", self.hosts);
        let namespace = Namespace::create()?;
        self.switch.link(&port, &namespace, "eth1");
        self.switch.ip(&["link", "set", &port, "master", "br0"]);
        namespace.ip(&["address", "add", &format!("10.77.0.{number}/24"), "dev", "eth1"]);
        namespace.ip(&["address", "add", &format!("fd77::{number}/64"), "dev", "eth1", "nodad"]);
        Some(Host { namespace, address: [10, 77, 0, number].into(), port })
    }

    /// Lets these hosts hear all others, but not each other, with their links up; or lets them again.
    pub(crate) fn isolate(&self, hosts: [&Host; 2], isolated: bool) {
        for host in hosts {
            let state = if isolated { "on" } else { "off" };
            let link = ["link", "set", "dev", &host.port, "type", "bridge_slave", "isolated", state];
            self.switch.ip(&link);
        }
    }

    /// Pulls the plug of a host, or puts it in again.
    pub(crate) fn cut(&self, host: &Host, cut: bool) {
        self.switch.ip(&["link", "set", &host.port, if cut { "down" } else { "up" }]);
    }
}

impl Host {
    /// What `ip -j` prints inside.
    pub(crate) fn show(&self, args: &[&str]) -> Value {
        let output =
            Command::new("ip").args(["-n", self.namespace.name(), "-j"]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Array(Vec::new()))
    }

    /// Whether it has this address.
    pub(crate) fn has(&self, address: &str) -> bool {
        let shown = self.show(&["address", "show", "dev", "eth1"]);
        let addresses = shown[0]["addr_info"].as_array().cloned().unwrap_or_default();
        addresses.iter().any(|shown| shown["local"] == address)
    }

    /// Its routes of table 1 and rules for it, of both families, as lines that can be compared. Without the host route:
    /// Octavia writes `gateway`, for which keepalived 2.2.7 has no ear.
    pub(crate) fn table(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for family in ["-4", "-6"] {
            for what in [&["route", "show", "table", "1"][..], &["rule", "show", "table", "1"]] {
                let output = Command::new("ip")
                    .args(["-n", self.namespace.name(), family])
                    .args(what)
                    .output()
                    .unwrap();
                let text = String::from_utf8_lossy(&output.stdout);
                let lines_of = text.lines().map(|line| line.trim().to_owned());
                lines.extend(lines_of.filter(|line| !line.starts_with("192.0.2.0")));
            }
        }
        lines.sort();
        lines
    }
}
