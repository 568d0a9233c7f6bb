//! The config drive: what Octavia has Nova give an amphora, so that the image is the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::json;

/// The label that a drive is known by.
pub const LABEL: &str = "config-2";

/// What an amphora is told at its first boot.
#[derive(Clone, Copy, Debug)]
pub struct Drive<'a> {
    /// The amphora's id, which is its machine's as well.
    pub amphora: &'a str,
    /// Its agent's API.
    pub agent: SocketAddr,
    /// The length of the management network's prefix.
    pub length: u8,
    /// The link-layer address of the management interface.
    pub mac: &'a str,
    /// Whether it is one of a pair.
    pub paired: bool,
    /// Where heartbeats go, what signs them, and the seconds between two.
    pub heartbeats: (SocketAddr, &'a str, u64),
    /// The authority of controllers, PEM.
    pub authority: &'a str,
    /// The agent's key and certificate, PEM.
    pub certificate: &'a str,
}

impl Drive<'_> {
    /// Octavia's `amphora-agent.conf`.
    pub fn agent_conf(&self) -> String {
        let (controller, key, interval) = self.heartbeats;
        let topology = if self.paired { "ACTIVE_STANDBY" } else { "SINGLE" };
        format!(
            "[DEFAULT]\n\
             debug = False\n\
             use_syslog = True\n\
             syslog_log_facility = LOG_LOCAL1\n\
             \n\
             [haproxy_amphora]\n\
             base_cert_dir = /var/lib/octavia/certs\n\
             base_path = /var/lib/octavia\n\
             bind_host = {}\n\
             bind_port = {}\n\
             \n\
             [health_manager]\n\
             controller_ip_port_list = {controller}\n\
             heartbeat_interval = {interval}\n\
             heartbeat_key = {}\n\
             \n\
             [amphora_agent]\n\
             agent_server_ca = /etc/octavia/certs/client_ca.pem\n\
             agent_server_cert = /etc/octavia/certs/server.pem\n\
             amphora_id = {}\n\
             \n\
             [controller_worker]\n\
             loadbalancer_topology = {topology}\n",
            self.agent.ip(),
            self.agent.port(),
            // `$name` is replaced by another option's value.
            key.replace('$', "$$"),
            self.amphora,
        )
    }

    /// Files by their paths on the drive.
    pub fn files(&self) -> Vec<(String, String)> {
        let given = [
            ("/etc/octavia/amphora-agent.conf", self.agent_conf()),
            ("/etc/octavia/certs/client_ca.pem", self.authority.to_owned()),
            ("/etc/octavia/certs/server.pem", self.certificate.to_owned()),
        ];
        let content = |number: usize| format!("content/{number:04}");
        let named: Vec<_> = given
            .iter()
            .enumerate()
            .map(|(number, (path, _))| json!({"path": path, "content_path": format!("/{}", content(number))}))
            .collect();
        let name = format!("amphora-{}", self.amphora);
        let meta = json!({"uuid": self.amphora, "name": name, "hostname": name, "files": named});
        let kind = if self.agent.is_ipv4() { "ipv4" } else { "ipv6" };
        let network = json!({
            "links": [{"id": "management", "type": "tap", "ethernet_mac_address": self.mac, "mtu": 1500}],
            "networks": [{
                "id": "management",
                "link": "management",
                "type": kind,
                "ip_address": self.agent.ip().to_string(),
                "netmask": mask(self.agent.ip(), self.length).to_string(),
                "routes": [],
            }],
            "services": [],
        });
        let mut files = vec![
            ("openstack/latest/meta_data.json".to_owned(), meta.to_string()),
            ("openstack/latest/network_data.json".to_owned(), network.to_string()),
        ];
        let contents = given.into_iter().enumerate();
        files.extend(contents.map(|(number, (_, text))| (format!("openstack/{}", content(number)), text)));
        files
    }
}

/// The mask of a prefix.
fn mask(of: IpAddr, length: u8) -> IpAddr {
    match of {
        IpAddr::V4(_) => {
            let host = 32_u32.saturating_sub(length.into());
            Ipv4Addr::from_bits(u32::MAX.checked_shl(host).unwrap_or(0)).into()
        }
        IpAddr::V6(_) => {
            let host = 128_u32.saturating_sub(length.into());
            Ipv6Addr::from_bits(u128::MAX.checked_shl(host).unwrap_or(0)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use amphora_agent::config::{Config, Topology};

    use super::*;

    const ID: &str = "6f1b6a3e-9a57-4a0e-8f2a-0d5d6f3d2a11";

    fn drive(agent: &str, length: u8, paired: bool) -> Drive<'static> {
        Drive {
            amphora: ID,
            agent: agent.parse().unwrap(),
            length,
            mac: "fa:00:00:00:00:01",
            paired,
            heartbeats: ("10.251.0.1:5555".parse().unwrap(), "a$b", 3),
            authority: "CA",
            certificate: "KEY",
        }
    }

    #[test]
    fn the_agent_takes_its_configuration() {
        let text = drive("10.251.0.2:9443", 22, true).agent_conf();
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.topology, Topology::ActiveStandby);
        assert_eq!(config.amphora_id, ID);
        assert!(text.contains("heartbeat_key = a$$b\n"), "{text}");
        let single = drive("[fd00::2]:9443", 64, false).agent_conf();
        assert_eq!(Config::parse(&single).unwrap().topology, Topology::Single);
    }

    #[test]
    fn each_file_is_where_the_meta_data_say() {
        let files = drive("10.251.0.2:9443", 22, false).files();
        let text = |path: &str| &files.iter().find(|(name, _)| name == path).unwrap().1;
        let meta: serde_json::Value = serde_json::from_str(text("openstack/latest/meta_data.json")).unwrap();
        let of = |path: &str| {
            let file = meta["files"].as_array().unwrap().iter().find(|file| file["path"] == path).unwrap();
            text(&format!("openstack{}", file["content_path"].as_str().unwrap()))
        };
        assert_eq!(of("/etc/octavia/certs/client_ca.pem"), "CA");
        assert_eq!(of("/etc/octavia/certs/server.pem"), "KEY");
        assert!(of("/etc/octavia/amphora-agent.conf").contains("bind_port = 9443"));
        assert_eq!(meta["uuid"], ID);
    }

    #[test]
    fn the_address_is_written_there() {
        for (agent, length, kind, mask) in [
            ("10.251.0.2:9443", 22, "ipv4", "255.255.252.0"),
            ("[fd00::2]:9443", 64, "ipv6", "ffff:ffff:ffff:ffff::"),
        ] {
            let files = drive(agent, length, false).files();
            let (_, text) = files.iter().find(|(name, _)| name.ends_with("network_data.json")).unwrap();
            let network: serde_json::Value = serde_json::from_str(text).unwrap();
            let network = &network["networks"][0];
            assert_eq!((&network["type"], &network["netmask"]), (&json!(kind), &json!(mask)));
        }
    }
}
