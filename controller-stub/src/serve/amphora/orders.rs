//! What an amphora is to be.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use amphora_model::CertificateId;
use serde_json::{Value, json};

use crate::{client::Credential, cmd::peers, serve::config::Subnet};

/// Milliseconds between advertisements of a pair.
const INTERVAL_MS: u32 = 100;

/// The priorities of a pair: Octavia's.
pub const PRIORITIES: [u8; 2] = [100, 90];

/// The virtual router's number: Octavia's. A pair is alone with its unicast.
pub const VRRP_ID: u8 = 1;

/// The interface of the VIP, as agents call it.
pub const INTERFACE: &str = "eth1";

/// Everything that one amphora is told.
#[derive(Clone)]
pub struct Orders {
    /// The load balancer's id.
    pub load_balancer: String,
    /// Ports by MAC address.
    pub interfaces: Vec<(String, Value)>,
    /// Tenants' certificates by name.
    pub certificates: BTreeMap<CertificateId, Arc<Credential>>,
    /// The load balancer.
    pub document: Value,
    /// Of a pair.
    pub pair: Option<Pair>,
}

impl std::fmt::Debug for Orders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orders").field("load_balancer", &self.load_balancer).finish_non_exhaustive()
    }
}

/// What an amphora is told of the other.
#[derive(Clone, PartialEq)]
pub struct Pair {
    /// `PUT /2.0/vrrp`.
    pub vrrp: Value,
    /// `PUT /2.0/peers`, with a key.
    pub peers: Value,
}

/// A VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// Its subnet.
    pub subnet: Subnet,
}

/// The document of the port that has the VIPs. `own` is the amphora's address in the subnet of the first.
pub fn vip_port(own: IpAddr, vips: &[Vip]) -> Value {
    let vips: Vec<Value> = vips
        .iter()
        .map(|vip| {
            json!({
                "ip_address": vip.address.to_string(),
                "subnet_cidr": vip.subnet.cidr(),
                "gateway": vip.subnet.gateway().to_string(),
            })
        })
        .collect();
    json!({"vrrp_ip": own.to_string(), "vips": vips})
}

/// The document of a port for members.
pub fn member_port(own: IpAddr, subnet: &Subnet) -> Value {
    json!({"fixed_ips": [{
        "ip_address": own.to_string(),
        "subnet_cidr": subnet.cidr(),
        "gateway": subnet.gateway().to_string(),
    }]})
}

/// What one of a pair is told. `own` and `other` are their addresses, `key` is in hexadecimal.
pub fn pair(load_balancer: &str, vips: &[Vip], [own, other]: [IpAddr; 2], priority: u8, key: &str) -> Pair {
    let host = |address: IpAddr| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
    // Those of the first one's family are advertised.
    let family = vips.first().is_none_or(|vip| vip.address.is_ipv4());
    let of = |wanted: bool| -> Vec<Value> {
        let chosen = vips.iter().filter(|vip| (vip.address.is_ipv4() == family) == wanted);
        chosen.map(|vip| json!({"address": host(vip.address)})).collect()
    };
    let routes: Vec<Value> = vips
        .iter()
        .map(|vip| {
            let (to, from) = (vip.subnet.cidr(), vip.address.to_string());
            json!({"destination": to, "source": from, "scope": "link", "table": 1})
        })
        .collect();
    let rules: Vec<Value> =
        vips.iter().map(|vip| json!({"source": host(vip.address), "table": 1, "priority": 100})).collect();
    let port = |address| SocketAddr::new(address, peers::PORT);
    Pair {
        vrrp: json!({"instances": [{
            "name": load_balancer,
            "interface": INTERFACE,
            "vrid": VRRP_ID,
            "interval_ms": INTERVAL_MS,
            "priority": priority,
            "preempt": false,
            "unicast": {"source": own.to_string(), "peers": [other.to_string()], "check_source": true},
            "addresses": of(true),
            "excluded": of(false),
            "routes": routes,
            "rules": rules,
            "track": {"fall": 2, "rise": 2},
        }]}),
        peers: peers::document(port(own), port(other), key),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::serve::config::Config;

    #[test]
    fn amphorae_take_what_a_pair_is_told() {
        let config = Config::parse("[networks]\na = 192.0.2.0/24, 2001:db8::/64\n").unwrap();
        let [v4, v6] = &config.networks[0].subnets[..] else { panic!() };
        let vips = [
            Vip { address: v4.address(9), subnet: v4.clone() },
            Vip { address: v4.address(10), subnet: v4.clone() },
            Vip { address: v6.address(9), subnet: v6.clone() },
        ];
        let addresses = [v4.address(2), v4.address(3)];
        let pair = pair("lb", &vips, addresses, 100, &"ab".repeat(32));
        amphora_vrrp::config::parse(&pair.vrrp.to_string()).unwrap();
        let instance = &pair.vrrp["instances"][0];
        assert_eq!(instance["addresses"].as_array().unwrap().len(), 2);
        assert_eq!(instance["excluded"], json!([{"address": "2001:db8::9/128"}]));
        amphora_ipc::PeersConfig::from_json(pair.peers.to_string().as_bytes()).unwrap();
    }
}
