//! keepalived.conf by Octavia's own template.

use std::{
    env,
    io::Write,
    net::IpAddr,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::json;

use crate::lan::{VIP, VIP6};

/// What Octavia knows of one amphora of a pair.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub(crate) address: IpAddr,
    pub(crate) peer: IpAddr,
    pub(crate) priority: u8,
    pub(crate) advert_int: u8,
    pub(crate) auth_pass: String,
}

impl Role {
    pub(crate) fn new(address: IpAddr, peer: IpAddr, priority: u8) -> Self {
        Self { address, peer, priority, advert_int: 1, auth_pass: "79944cc".to_owned() }
    }

    /// The text that the controller would upload, or `None`, and a line that says so, without Octavia.
    pub(crate) fn render(&self, base_path: &Path) -> Option<String> {
        let Some(python) = env::var_os("AMPHORA_OCTAVIA_PYTHON") else {
            eprintln!("SKIPPED: no environment with octavia (AMPHORA_OCTAVIA_PYTHON); ./test makes one");
            return None;
        };
        let mut vips = vec![
            json!({"ip_address": VIP, "cidr": "10.77.0.0/24", "gateway_ip": "10.77.0.1",
                   "host_routes": [{"destination": "192.0.2.0/24", "nexthop": "10.77.0.1"}]}),
            json!({"ip_address": VIP6, "cidr": "fd77::/64", "gateway_ip": "fd77::1"}),
        ];
        // The first one is of the family that is advertised over.
        if self.address.is_ipv6() {
            vips.reverse();
        }
        let document = json!({
            "name": "79944cc4d5a2517a9f40bd330ff87c8c", "interface": "eth1", "vrid": 1,
            "priority": self.priority, "advert_int": self.advert_int, "auth_pass": self.auth_pass,
            "address": self.address, "peers": [self.peer], "base_path": base_path, "check_interval": 1,
            "vips": vips,
        });
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/octavia/render_keepalived.py");
        let mut child =
            Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "Octavia's template does not render");
        Some(String::from_utf8(output.stdout).unwrap())
    }
}
