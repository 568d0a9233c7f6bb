//! `network_data.json`, as Nova writes it, and the files of systemd-networkd that say the same.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde_json::Value;

use crate::remarks::{Remarks, named};

/// What the names of our files begin with, so that stale ones are known.
pub const PREFIX: &str = "10-amphora-";

/// The most links, networks, routes of one network, and name servers.
const MAX_LINKS: usize = 64;
const MAX_NETWORKS: usize = 256;
const MAX_ROUTES: usize = 1024;
const MAX_SERVERS: usize = 16;

/// The least MTU with IPv4 (RFC 791), and the largest packet.
const MTUS: std::ops::RangeInclusive<u64> = 68..=65_535;

/// What is to be set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// A file for each link that has a network.
    pub files: Vec<NetworkFile>,
    /// Name servers of all of them.
    pub servers: Vec<IpAddr>,
}

/// A `.network` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkFile {
    /// Its name in `/etc/systemd/network`.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac([u8; 6]);

impl Mac {
    /// Six octets, as Linux and Nova write them.
    pub fn parse(text: &str) -> Option<Self> {
        let mut mac = [0; 6];
        let mut octets = text.split(':');
        for byte in &mut mac {
            let octet = octets
                .next()
                .filter(|octet| octet.len() == 2 && octet.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(octet, 16).ok()?;
        }
        // A group address, or none at all, is nobody's.
        (octets.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(Self(mac))
    }

    fn join(self, separator: &str) -> String {
        self.0.map(|byte| format!("{byte:02x}")).join(separator)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    id: String,
    mac: Mac,
    mtu: Option<u64>,
    dhcp4: bool,
    dhcp6: Option<Dhcp6>,
    router_advertisements: bool,
    addresses: Vec<(IpAddr, u8)>,
    routes: Vec<Route>,
    servers: Vec<IpAddr>,
    any: bool,
}

/// DHCPv6: without waiting for a router to ask for it, or as the router says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dhcp6 {
    AtOnce,
    AsAdvertised,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    destination: (IpAddr, u8),
    gateway: IpAddr,
}

/// Reads it. What is not understood is left out by name.
///
/// # Errors
/// When it is no JSON.
pub fn parse(text: &[u8], remarks: &mut Remarks) -> Result<Network, String> {
    let value: Value = serde_json::from_slice(text).map_err(|e| format!("not JSON: {e}"))?;
    let mut links = links(&value["links"], remarks);
    for network in list(&value["networks"], MAX_NETWORKS, "networks", remarks) {
        let id = network["id"].as_str().unwrap_or_default();
        if let Err(reason) = add(&mut links, network, remarks) {
            remarks.error(format!("network data: network {} is left out: {reason}", named(id)));
        }
    }
    let mut common = Vec::new();
    services(&value["services"], &mut common, remarks);
    let (mut files, mut servers) = (Vec::new(), common.clone());
    for mut link in links {
        if !link.any {
            remarks.warning(format!("network data: link {} has no network", named(&link.id)));
            continue;
        }
        link.servers.extend(&common);
        dedup(&mut link.servers);
        servers.extend(&link.servers);
        files.push(NetworkFile { name: format!("{PREFIX}{}.network", link.mac.join("")), text: link.file() });
    }
    dedup(&mut servers);
    Ok(Network { files, servers })
}

/// For a machine that was told nothing: whatever its network offers.
pub fn fallback(mac: Mac) -> NetworkFile {
    let link = Link {
        dhcp4: true,
        dhcp6: Some(Dhcp6::AsAdvertised),
        router_advertisements: true,
        ..Link::new(String::new(), mac, None)
    };
    NetworkFile { name: "90-amphora-fallback.network".to_owned(), text: link.file() }
}

fn list<'v>(
    value: &'v Value,
    most: usize,
    what: &str,
    remarks: &mut Remarks,
) -> impl Iterator<Item = &'v Value> + use<'v> {
    let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if all.len() > most {
        remarks
            .error(format!("network data: {} {what}; those after the first {most} are left out", all.len()));
    }
    all.iter().take(most)
}

fn links(value: &Value, remarks: &mut Remarks) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    for link in list(value, MAX_LINKS, "links", remarks) {
        let id = link["id"].as_str().unwrap_or_default();
        let kind = link["type"].as_str().unwrap_or_default();
        let mut refuse = |reason: &str| {
            remarks.error(format!("network data: link {} is left out: {reason}", named(id)));
        };
        // All others are names of how the hypervisor plugs an ordinary interface: ovs, bridge, phy, hw_veb, vhostuser.
        if matches!(kind, "bond" | "vlan") {
            refuse(&format!("a {kind} is not set up here"));
            continue;
        }
        let Some(mac) = link["ethernet_mac_address"].as_str().and_then(Mac::parse) else {
            refuse("no hardware address");
            continue;
        };
        if links.iter().any(|other| other.id == id || other.mac == mac) {
            refuse("another has its id or its hardware address");
            continue;
        }
        let mtu = link["mtu"].as_u64().filter(|mtu| MTUS.contains(mtu));
        if mtu.is_none() && !link["mtu"].is_null() {
            remarks.error(format!(
                "network data: the MTU of link {} is left out: not from 68 to 65535",
                named(id)
            ));
        }
        links.push(Link::new(id.to_owned(), mac, mtu));
    }
    links
}

fn add(links: &mut [Link], network: &Value, remarks: &mut Remarks) -> Result<(), String> {
    let id = network["link"].as_str().unwrap_or_default();
    let link = links.iter_mut().find(|link| link.id == id).ok_or_else(|| format!("no link {}", named(id)))?;
    match network["type"].as_str().unwrap_or_default() {
        "ipv4_dhcp" => link.dhcp4 = true,
        "ipv6_slaac" => link.router_advertisements = true,
        "ipv6_dhcpv6-stateless" => {
            link.router_advertisements = true;
            link.dhcp6.get_or_insert(Dhcp6::AsAdvertised);
        }
        // Where the router does not advertise (or there is none), the address is to be had all the same.
        "ipv6_dhcp" | "ipv6_dhcpv6-stateful" => {
            link.router_advertisements = true;
            link.dhcp6 = Some(Dhcp6::AtOnce);
        }
        kind @ ("ipv4" | "ipv6") => {
            let (address, prefix) = address(network)?;
            if address.is_ipv4() != (kind == "ipv4") {
                return Err(format!("{address} is no {kind} address"));
            }
            link.addresses.push((address, prefix));
            for route in list(&network["routes"], MAX_ROUTES, "routes", remarks) {
                match self::route(route, address) {
                    Ok(route) => link.routes.push(route),
                    Err(reason) => remarks
                        .error(format!("network data: a route of link {} is left out: {reason}", named(id))),
                }
            }
        }
        kind => return Err(format!("networks of type {} are not known here", named(kind))),
    }
    services(&network["services"], &mut link.servers, remarks);
    link.any = true;
    Ok(())
}

/// `ip_address`, with the length of its prefix behind it or as `netmask`.
fn address(network: &Value) -> Result<(IpAddr, u8), String> {
    let text = network["ip_address"].as_str().unwrap_or_default();
    let (text, length) = text.split_once('/').map_or((text, None), |(text, length)| (text, Some(length)));
    let address: IpAddr = text.parse().map_err(|_| format!("no address: {}", named(text)))?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(format!("{address} is no machine's address"));
    }
    let length = match length {
        Some(length) => mask(&Value::from(length), address)?,
        None => mask(&network["netmask"], address)?,
    };
    Ok((address, length))
}

fn route(route: &Value, source: IpAddr) -> Result<Route, String> {
    let read = |name: &str| {
        let text = route[name].as_str().unwrap_or_default();
        let address: Result<IpAddr, _> = text.parse();
        address.map_err(|_| format!("no {name}: {}", named(text)))
    };
    let (network, gateway) = (read("network")?, read("gateway")?);
    if [network, gateway].iter().any(|address| address.is_ipv4() != source.is_ipv4()) {
        return Err(format!("{network} by {gateway} is not of one family with {source}"));
    }
    if gateway.is_unspecified() || gateway.is_multicast() {
        return Err(format!("{gateway} is no gateway"));
    }
    let length = mask(&route["netmask"], network)?;
    Ok(Route { destination: (masked(network, length), length), gateway })
}

/// The length of a prefix: `255.255.255.0`, `ffff:ffff::`, `"24"` or `24`.
fn mask(value: &Value, of: IpAddr) -> Result<u8, String> {
    let most = if of.is_ipv4() { 32 } else { 128 };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let wrong = || format!("no netmask: {}", named(&text));
    let bits = match text.parse() {
        Ok(IpAddr::V4(mask)) if of.is_ipv4() => u128::from(u32::from(mask)) << 96,
        Ok(IpAddr::V6(mask)) if of.is_ipv6() => u128::from(mask),
        Ok(_) => return Err(wrong()),
        Err(_) => {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            return text.parse().ok().filter(|&length| digits && length <= most).ok_or_else(wrong);
        }
    };
    if bits.leading_ones() + bits.trailing_zeros() < 128 {
        return Err(wrong());
    }
    u8::try_from(bits.leading_ones()).map_err(|_| wrong())
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            Ipv4Addr::from(u32::from(address) & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            Ipv6Addr::from(u128::from(address) & mask).into()
        }
    }
}

fn services(value: &Value, servers: &mut Vec<IpAddr>, remarks: &mut Remarks) {
    for service in list(value, MAX_SERVERS, "services", remarks) {
        let kind = service["type"].as_str().unwrap_or_default();
        match service["address"].as_str().and_then(|text| text.parse().ok()) {
            Some(address) if kind == "dns" => servers.push(address),
            _ => remarks.error(format!("network data: a service of type {} is left out", named(kind))),
        }
    }
}

/// Keeps the first of each.
fn dedup(servers: &mut Vec<IpAddr>) {
    let mut seen = Vec::new();
    servers.retain(|server| {
        let new = !seen.contains(server);
        seen.push(*server);
        new
    });
}

impl Link {
    fn new(id: String, mac: Mac, mtu: Option<u64>) -> Self {
        Self {
            id,
            mac,
            mtu,
            dhcp4: false,
            dhcp6: None,
            router_advertisements: false,
            addresses: Vec::new(),
            routes: Vec::new(),
            servers: Vec::new(),
            any: false,
        }
    }

    /// systemd.network(5).
    fn file(&self) -> String {
        let mut text = format!("[Match]\nMACAddress={}\n", self.mac.join(":"));
        let mut line = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        let yes = |yes| if yes { "yes" } else { "no" };
        if let Some(mtu) = self.mtu {
            line(&format!("\n[Link]\nMTUBytes={mtu}"));
        }
        let dhcp = match (self.dhcp4, self.dhcp6.is_some()) {
            (true, true) => "yes",
            (true, false) => "ipv4",
            (false, true) => "ipv6",
            (false, false) => "no",
        };
        line(&format!("\n[Network]\nDHCP={dhcp}\nLinkLocalAddressing=ipv6"));
        line(&format!("IPv6AcceptRA={}", yes(self.router_advertisements)));
        self.addresses.iter().for_each(|(address, prefix)| line(&format!("Address={address}/{prefix}")));
        self.servers.iter().for_each(|server| line(&format!("DNS={server}")));
        if self.dhcp4 {
            // Neutron knows a port by its hardware address. The name is the drive's word.
            line(&format!(
                "\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\nUseMTU={}",
                yes(self.mtu.is_none())
            ));
        }
        if let Some(dhcp6) = self.dhcp6 {
            line("\n[DHCPv6]\nUseHostname=no");
            if dhcp6 == Dhcp6::AtOnce {
                line("WithoutRA=solicit");
            }
        }
        if self.router_advertisements {
            // The address that Neutron's port security expects.
            line(&format!("\n[IPv6AcceptRA]\nToken=eui64\nUseMTU={}", yes(self.mtu.is_none())));
        }
        for Route { destination: (network, length), gateway } in &self.routes {
            let mut route = format!("\n[Route]\nDestination={network}/{length}\nGateway={gateway}");
            if !self.reaches(*gateway) {
                route.push_str("\nGatewayOnLink=yes");
            }
            line(&route);
        }
        text
    }

    /// Whether an address is in a network of this link.
    fn reaches(&self, address: IpAddr) -> bool {
        let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        link_local
            || self.addresses.iter().any(|&(own, length)| {
                own.is_ipv4() == address.is_ipv4() && masked(own, length) == masked(address, length)
            })
    }
}

/// `/etc/resolv.conf` for these servers.
pub fn resolv_conf(servers: &[IpAddr]) -> String {
    let mut text = String::new();
    for server in servers.iter().take(3) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

#[cfg(test)]
mod tests;
