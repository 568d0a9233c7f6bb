//! What may come in by an interface, as a controller says it for ports whose packets no bridge of the hypervisor filters: a table
//! of nftables in the namespace, replaced in one step by nft(8).
//!
//! The rules are those of Octavia's own agent (`nftable_utils.py`): answers, what ICMP and DHCP need, and loopback come in by
//! any interface, and of the rest what the rules of the interface name. Differences: they are in force from the first time
//! on, and no rules let nothing in. Where the VIPs' port is none of those with rules, only those with rules are filtered; Octavia's
//! own agent lets nothing at all into an amphora whose members alone are on a port of SR-IOV. Connections of TCP are not followed,
//! so that there may be more of them than the kernel has room to follow, and so that it is the same beside datagrams, with whose
//! rules none are. Answers are known by their flags: only what opens a connection has neither ACK nor RST.
//!
//! Octavia's own agent filters what comes in to the amphora itself, as all does that IPVS takes. Here what comes for a listener of UDP
//! or SCTP goes to its member without coming in, so that packets are looked at before they are given another destination.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
    process::{Command, Stdio},
    sync::Arc,
};

use amphora_netlink::InterfaceName;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::plan;
use crate::store::Store;

/// The table, of Octavia's name.
const TABLE: &str = "inet amphora_table";

/// The most rules of an interface: one for each listener and address range, and more than any quota has.
const MAX_RULES: usize = 10_000;

const BEFORE: &str = "    ct state vmap { established : accept, related : accept, invalid : drop }
    iif lo accept
    ip saddr 127.0.0.0/8 drop
    ip6 saddr ::1 drop
    tcp flags & (ack | rst) != 0 accept
    icmp type destination-unreachable accept
    icmpv6 type { nd-neighbor-solicit, nd-router-advert, nd-neighbor-advert, packet-too-big, destination-unreachable } accept
    udp sport 67 udp dport 68 accept
    udp sport 547 udp dport 546 accept
";

/// What may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    protocol: Protocol,
    /// From where; `None` is anywhere.
    #[serde(with = "cidr")]
    cidr: Option<IpNet>,
    /// Of VRRP without a meaning.
    port: std::num::NonZeroU16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
enum Protocol {
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
    #[serde(rename = "SCTP")]
    Sctp,
    #[serde(rename = "vrrp")]
    Vrrp,
}

/// Written as Octavia does.
mod cidr {
    use ipnet::IpNet;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(cidr: &Option<IpNet>, to: S) -> Result<S::Ok, S::Error> {
        cidr.map(|net| net.to_string()).serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Option<IpNet>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        // An address without a length is a host, as it is to nft.
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        net.map(|net| Some(net.trunc())).map_err(|_| D::Error::custom(format!("not a network: {text:?}")))
    }
}

/// Reads a controller's rules.
///
/// # Errors
/// What is wrong with them.
pub fn read(text: &[u8]) -> Result<Vec<Allowed>, String> {
    let rules: Vec<Allowed> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if rules.len() > MAX_RULES {
        return Err(format!("there may be at most {MAX_RULES} rules"));
    }
    Ok(rules)
}

/// The rules of each interface that has some, by its name.
type Filters = BTreeMap<String, Vec<Allowed>>;

/// What is stored.
///
/// # Errors
/// When it is there but cannot be read.
pub(super) fn stored(store: &Store) -> io::Result<Filters> {
    match store.read_filter()? {
        Some(text) => Ok(serde_json::from_slice(&text)?),
        None => Ok(Filters::new()),
    }
}

/// Brings the kernel to these rules for an interface, in the namespace of this thread, and stores them. With `None`, what is
/// stored for it stays, and where nothing is nothing comes in. Blocks.
///
/// # Errors
/// When nft(8) or the disk does not take them; what was before is in force.
pub(super) fn set(store: &Store, interface: &InterfaceName, rules: Option<Vec<Allowed>>) -> io::Result<()> {
    let before = stored(store)?;
    let mut filters = before.clone();
    match rules {
        Some(rules) => {
            filters.insert(interface.to_string(), rules);
        }
        None => {
            filters.entry(interface.to_string()).or_default();
        }
    }
    store.write_filter(&serde_json::to_vec(&filters)?)?;
    load(&filters).inspect_err(|_| {
        // The next start would load what is not in force now.
        if let Err(error) = store.write_filter(&serde_json::to_vec(&before).unwrap_or_default()) {
            tracing::error!(%error, "cannot take back the rules that were refused");
        }
    })
}

/// An interface is a port no more: the next one of its name has no rules of its. Blocks.
///
/// # Errors
/// When nft(8) or the disk does not take it.
pub(super) fn forget(store: &Store, interface: &InterfaceName) -> io::Result<()> {
    let mut filters = stored(store)?;
    if filters.remove(interface.as_str()).is_none() {
        return Ok(());
    }
    store.write_filter(&serde_json::to_vec(&filters)?)?;
    load(&filters)
}

/// Brings the kernel to what is stored, in the namespace of this thread, as after a boot. Blocks.
///
/// # Errors
/// When there is something, and it cannot be loaded.
pub(super) fn restore(store: &Arc<Store>) -> io::Result<()> {
    let filters = stored(store)?;
    if filters.is_empty() { Ok(()) } else { load(&filters) }
}

/// In one step: either all of it is in force, or what was before.
fn load(filters: &Filters) -> io::Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run nft: {error}")))?;
    // It reads to the end before it says anything.
    if let Some(mut stdin) = nft.stdin.take() {
        stdin.write_all(text(filters).as_bytes())?;
    }
    let output = nft.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("nft refused the rules: {}", said.trim())))
}

fn text(filters: &Filters) -> String {
    // Made and deleted first: there may be none yet.
    let mut text = format!("table {TABLE} {{}}\ndelete table {TABLE}\n");
    if filters.is_empty() {
        return text;
    }
    let _ = writeln!(text, "table {TABLE} {{");
    for hook in ["prerouting", "output"] {
        let _ = writeln!(
            text,
            "  chain amphora_{hook} {{\n    type filter hook {hook} priority raw;\n    meta l4proto tcp notrack\n  }}"
        );
    }
    let chain = |number: usize| format!("amphora_vip_chain_{number}");
    for (number, rules) in filters.values().enumerate() {
        let _ = writeln!(text, "  chain {} {{", chain(number));
        for rule in rules {
            text.push_str("    ");
            match rule.cidr {
                Some(net) if net.addr().is_ipv4() && net.prefix_len() > 0 => {
                    let _ = write!(text, "ip saddr {net} ");
                }
                Some(net) if net.addr().is_ipv6() => {
                    let _ = write!(text, "ip6 saddr {net} ");
                }
                _ => {}
            }
            let _ = match rule.protocol {
                Protocol::Tcp => writeln!(text, "tcp dport {} accept", rule.port),
                Protocol::Udp => writeln!(text, "udp dport {} accept", rule.port),
                Protocol::Sctp => writeln!(text, "sctp dport {} accept", rule.port),
                Protocol::Vrrp => writeln!(text, "meta l4proto 112 accept"),
            };
        }
        text.push_str("  }\n");
    }
    // Behind the tracking of connections (-200) and before the rules of datagrams (-100).
    text.push_str("  chain amphora_chain {\n    type filter hook prerouting priority -110; policy drop;\n");
    // The names are ours: `eth` and a number.
    let names: Vec<_> = filters.keys().map(|name| format!("\"{name}\"")).collect();
    let names = names.join(", ");
    if !filters.contains_key(plan::vip_interface().as_str()) {
        let _ = writeln!(text, "    iifname != {{ {names} }} accept");
    }
    text.push_str(BEFORE);
    for (number, name) in filters.keys().enumerate() {
        let _ = writeln!(text, "    iifname \"{name}\" goto {}", chain(number));
    }
    text.push_str("  }\n}\n");
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rules_are_octavias_and_no_others() {
        let rules = read(
            br#"[{"protocol": "TCP", "cidr": "10.77.0.0/24", "port": 80}, {"protocol": "UDP", "cidr": null, "port": 53},
                {"protocol": "SCTP", "cidr": "fd77::/64", "port": 9}, {"protocol": "TCP", "cidr": "0.0.0.0/0", "port": 1025},
                {"protocol": "vrrp", "cidr": "10.77.0.102/32", "port": 112}]"#,
        )
        .unwrap();
        let text = text(&Filters::from([("eth1".to_owned(), rules.clone())]));
        for line in [
            "    type filter hook prerouting priority -110; policy drop;\n",
            "    type filter hook prerouting priority raw;\n    meta l4proto tcp notrack\n",
            "    tcp flags & (ack | rst) != 0 accept\n",
            "    ip saddr 10.77.0.0/24 tcp dport 80 accept\n",
            "    udp dport 53 accept\n",
            "    ip6 saddr fd77::/64 sctp dport 9 accept\n",
            "    tcp dport 1025 accept\n",
            "    ip saddr 10.77.0.102/32 meta l4proto 112 accept\n",
            "    iifname \"eth1\" goto amphora_vip_chain_0\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert_eq!(read(&serde_json::to_vec(&rules).unwrap()), Ok(rules));
        for wrong in [
            "{}",
            "",
            r#"[{"protocol": "TCP", "cidr": "10.77.0.0/24", "port": 0}]"#,
            r#"[{"protocol": "TCP", "cidr": "10.77.0.0/24", "port": 65536}]"#,
            r#"[{"protocol": "ICMP", "cidr": null, "port": 1}]"#,
            r#"[{"protocol": "TCP", "cidr": "xyz", "port": 80}]"#,
            r#"[{"protocol": "TCP", "cidr": "1.2.3.4 } flush ruleset", "port": 80}]"#,
            r#"[{"protocol": "TCP", "cidr": "10.77.0.0/24", "port": 80, "x": 1}]"#,
        ] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
