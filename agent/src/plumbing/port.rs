//! What a port is to be, as types that cannot be wrong.
//!
//! Three texts become the same [`Port`]: the body of `PUT /2.0/interfaces/{mac_address}`, and those that Octavia's
//! controller sends to `plug/vip/<ip>` and `plug/network`. Names are Octavia's.

use std::net::IpAddr;

use amphora_model::{Faults, Refusal};
use amphora_netlink::MacAddress;
use ipnet::IpNet;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Octets that every host must be able to receive (RFC 791), and the most that IP has a field for.
const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;

/// A network interface of the load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Octets of the largest packet; what the device has, without.
    pub mtu: Option<u32>,
    /// It is a virtual function, whose packets no bridge of the hypervisor filters.
    pub is_sriov: bool,
    /// What makes it the port of the VIPs.
    pub vip: Option<VipPort>,
    /// Addresses in networks of members. A port that is not the one of the VIPs and has none is [dynamic](Self::is_dynamic).
    pub fixed_ips: Vec<SubnetAddress>,
}

/// The port of the VIPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipPort {
    /// `vrrp_ip`, the amphora's own address, in the subnet of the first VIP.
    pub vrrp: IpNet,
    /// The VIP and the additional ones; at least one.
    pub vips: Vec<SubnetAddress>,
}

/// An address and the subnet that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetAddress {
    /// `ip_address`.
    pub address: IpAddr,
    /// `subnet_cidr`, of the address's family, without host bits.
    pub subnet: IpNet,
    /// `gateway`.
    pub gateway: Option<IpAddr>,
    /// `host_routes`.
    pub host_routes: Vec<HostRoute>,
}

impl SubnetAddress {
    /// The address with the length of the subnet's prefix.
    pub fn net(&self) -> IpNet {
        IpNet::new(self.address, self.subnet.prefix_len()).expect("both are of one family")
    }
}

/// A route that the subnet has in Neutron.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// `destination`.
    pub destination: IpNet,
    /// `nexthop`, of the same family.
    pub nexthop: IpAddr,
}

/// The body of `PUT /2.0/interfaces/{mac_address}`, before it is checked.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPort {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(default)]
    is_sriov: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vrrp_ip: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    vips: Vec<RawAddress>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fixed_ips: Vec<RawAddress>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct RawAddress {
    ip_address: String,
    subnet_cidr: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    // Octavia sends null for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_routes: Option<Vec<RawHostRoute>>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct RawHostRoute {
    destination: String,
    nexthop: String,
}

/// Octavia's body of `plug/vip/<ip>`.
#[derive(Debug, Deserialize)]
struct RawPlugVip {
    subnet_cidr: String,
    gateway: Option<String>,
    mac_address: String,
    mtu: Option<u32>,
    vrrp_ip: Option<String>,
    host_routes: Option<Vec<RawHostRoute>>,
    #[serde(default)]
    additional_vips: Vec<RawAddress>,
    #[serde(default)]
    is_sriov: bool,
}

/// Octavia's body of `plug/network`.
#[derive(Debug, Deserialize)]
struct RawPlugNetwork {
    mac_address: String,
    mtu: Option<u32>,
    #[serde(default)]
    fixed_ips: Option<Vec<RawAddress>>,
    vip_net_info: Option<RawVipNetInfo>,
    #[serde(default)]
    is_sriov: bool,
}

/// Comes where the network is one of the VIPs' port.
#[derive(Debug, Deserialize)]
struct RawVipNetInfo {
    vip: String,
    subnet_cidr: String,
    gateway: Option<String>,
    vrrp_ip: Option<String>,
    host_routes: Option<Vec<RawHostRoute>>,
    #[serde(default)]
    additional_vips: Vec<RawAddress>,
}

impl Port {
    /// It has no addresses of its own: it takes what DHCP gives it, and what routers advertise.
    pub fn is_dynamic(&self) -> bool {
        self.vip.is_none() && self.fixed_ips.is_empty()
    }

    /// Takes over the additional VIPs of what the port was, where it has the same VIP and none but that.
    pub fn keep_additional_vips(&mut self, before: &Self) {
        if let (Some(vip), Some(before)) = (&mut self.vip, &before.vip)
            && let ([now], [same, additional @ ..]) = (&*vip.vips, &*before.vips)
            && now.address == same.address
        {
            vip.vips.extend_from_slice(additional);
        }
    }

    /// Reads the body of `PUT /2.0/interfaces/{mac_address}`.
    ///
    /// # Errors
    /// Every fault, with its path.
    pub fn from_json(body: &[u8]) -> Result<Self, Refusal> {
        json::<RawPort>(body)?.try_into()
    }

    /// Reads Octavia's body of `plug/vip/<ip>`.
    ///
    /// # Errors
    /// Every fault; paths are those of the native document.
    pub fn from_plug_vip(vip: &str, body: &[u8]) -> Result<(MacAddress, Self), Refusal> {
        let raw: RawPlugVip = json(body)?;
        let mac = mac(&raw.mac_address)?;
        let first = RawAddress {
            ip_address: vip.to_owned(),
            subnet_cidr: raw.subnet_cidr,
            gateway: raw.gateway,
            host_routes: raw.host_routes,
        };
        let vips = [vec![first], raw.additional_vips].concat();
        let port = RawPort {
            mtu: raw.mtu,
            is_sriov: raw.is_sriov,
            vrrp_ip: raw.vrrp_ip,
            vips,
            fixed_ips: Vec::new(),
        };
        Ok((mac, port.try_into()?))
    }

    /// Reads Octavia's body of `plug/network`.
    ///
    /// # Errors
    /// Every fault; paths are those of the native document.
    pub fn from_plug_network(body: &[u8]) -> Result<(MacAddress, Self), Refusal> {
        let raw: RawPlugNetwork = json(body)?;
        let mac = mac(&raw.mac_address)?;
        let mut port = RawPort {
            mtu: raw.mtu,
            is_sriov: raw.is_sriov,
            fixed_ips: raw.fixed_ips.unwrap_or_default(),
            ..RawPort::default()
        };
        if let Some(info) = raw.vip_net_info {
            let first = RawAddress {
                ip_address: info.vip,
                subnet_cidr: info.subnet_cidr,
                gateway: info.gateway,
                host_routes: info.host_routes,
            };
            port.vips = [vec![first], info.additional_vips].concat();
            port.vrrp_ip = info.vrrp_ip;
        }
        Ok((mac, port.try_into()?))
    }
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::one("", error.to_string()))
}

fn mac(text: &str) -> Result<MacAddress, Refusal> {
    text.parse().map_err(|error| Refusal::one("mac_address", format!("{error}")))
}

impl TryFrom<RawPort> for Port {
    type Error = Refusal;

    fn try_from(raw: RawPort) -> Result<Self, Refusal> {
        let faults = Faults::default();
        if raw.mtu.is_some_and(|mtu| !MTU.contains(&mtu)) {
            faults.push("mtu", format!("must be from {} to {}", MTU.start(), MTU.end()));
        }
        let vips = addresses(&raw.vips, "vips", &faults);
        let fixed_ips = addresses(&raw.fixed_ips, "fixed_ips", &faults);
        let vip = match (&raw.vrrp_ip, vips.first()) {
            (None, None) => None,
            (None, Some(_)) => {
                faults.push("vrrp_ip", "must be set where there are vips");
                None
            }
            (Some(_), None) => {
                if raw.vips.is_empty() {
                    faults.push("vrrp_ip", "means nothing without vips");
                }
                None
            }
            (Some(text), Some(first)) => {
                let vrrp = host(text, "vrrp_ip", &faults);
                vrrp.and_then(|vrrp| match IpNet::new(vrrp, first.subnet.prefix_len()) {
                    Ok(net) if vrrp.is_ipv4() == first.address.is_ipv4() => Some(net),
                    _ => {
                        faults.push("vrrp_ip", "must be of the family of the first VIP");
                        None
                    }
                })
            }
        };
        let vip = vip.map(|vrrp| VipPort { vrrp, vips });
        faults.into_result(Some(Self { mtu: raw.mtu, is_sriov: raw.is_sriov, vip, fixed_ips }))
    }
}

fn addresses(raw: &[RawAddress], path: &str, faults: &Faults) -> Vec<SubnetAddress> {
    let read = |(index, raw): (usize, &RawAddress)| subnet_address(raw, &format!("{path}[{index}]"), faults);
    raw.iter().enumerate().filter_map(read).collect()
}

fn subnet_address(raw: &RawAddress, path: &str, faults: &Faults) -> Option<SubnetAddress> {
    let ip = host(&raw.ip_address, &format!("{path}.ip_address"), faults);
    let subnet = network(&raw.subnet_cidr, &format!("{path}.subnet_cidr"), faults);
    let gateway = match &raw.gateway {
        Some(text) => host(text, &format!("{path}.gateway"), faults).map(Some),
        None => Some(None),
    };
    let routes = raw.host_routes.as_deref().unwrap_or_default();
    let host_routes: Vec<_> = routes
        .iter()
        .enumerate()
        .filter_map(|(index, route)| host_route(route, &format!("{path}.host_routes[{index}]"), faults))
        .collect();
    let (ip, subnet, gateway) = (ip?, subnet?, gateway?);
    let v4 = ip.is_ipv4();
    if subnet.addr().is_ipv4() != v4 {
        faults.push(format!("{path}.subnet_cidr"), "must be of the family of the address");
        return None;
    }
    if gateway.is_some_and(|gateway| gateway.is_ipv4() != v4) {
        faults.push(format!("{path}.gateway"), "must be of the family of the address");
        return None;
    }
    Some(SubnetAddress { address: ip, subnet, gateway, host_routes })
}

fn host_route(raw: &RawHostRoute, path: &str, faults: &Faults) -> Option<HostRoute> {
    let destination = network(&raw.destination, &format!("{path}.destination"), faults);
    // The tenant's: where the kernel refuses it, the rest is worth having without it.
    let nexthop = address(&raw.nexthop, &format!("{path}.nexthop"), faults);
    let (destination, nexthop) = (destination?, nexthop?);
    if destination.addr().is_ipv4() != nexthop.is_ipv4() {
        faults.push(format!("{path}.nexthop"), "must be of the family of the destination");
        return None;
    }
    Some(HostRoute { destination, nexthop })
}

/// An address that a host on the network can have.
fn host(text: &str, path: &str, faults: &Faults) -> Option<IpAddr> {
    let address = address(text, path, faults)?;
    let kind = match address {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        _ => return Some(address),
    };
    faults.push(path, format!("{address} is {kind}, which no host has"));
    None
}

fn address(text: &str, path: &str, faults: &Faults) -> Option<IpAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        faults.push(path, format!("{text:?} does not appear to be an IPv4 or IPv6 address"));
    }
    address
}

fn network(text: &str, path: &str, faults: &Faults) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(net) if net.trunc() == net => Some(net),
        Ok(_) => {
            faults.push(path, format!("{text} has host bits set"));
            None
        }
        Err(_) => {
            faults.push(path, format!("{text:?} does not appear to be an IPv4 or IPv6 network"));
            None
        }
    }
}

impl From<&Port> for RawPort {
    fn from(port: &Port) -> Self {
        let (vrrp_ip, vips) = match &port.vip {
            Some(vip) => (Some(vip.vrrp.addr().to_string()), vip.vips.iter().map(Into::into).collect()),
            None => (None, Vec::new()),
        };
        Self {
            mtu: port.mtu,
            is_sriov: port.is_sriov,
            vrrp_ip,
            vips,
            fixed_ips: port.fixed_ips.iter().map(Into::into).collect(),
        }
    }
}

impl From<&SubnetAddress> for RawAddress {
    fn from(address: &SubnetAddress) -> Self {
        let route = |route: &HostRoute| RawHostRoute {
            destination: route.destination.to_string(),
            nexthop: route.nexthop.to_string(),
        };
        Self {
            ip_address: address.address.to_string(),
            subnet_cidr: address.subnet.to_string(),
            gateway: address.gateway.map(|gateway| gateway.to_string()),
            host_routes: Some(address.host_routes.iter().map(route).collect()),
        }
    }
}
