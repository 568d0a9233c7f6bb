//! What a port means in addresses, routes and rules: those that Octavia's own agent sets (`interface_file.py`).
//!
//! | | main table | table 1 |
//! | --- | --- | --- |
//! | VIP with a gateway | default by it, onlink | the same (not with VRRP) |
//! | the VIP's subnet | on the link | on the link from the VIP (not with VRRP) |
//! | the VIP's host routes | by their next hop, onlink | the same |
//! | fixed IP on the VIPs' port, with a gateway | default by it, onlink | the same (not with VRRP) |
//! | a fixed IP's host routes | by their next hop, onlink | |
//! | routes of a lease | by their next hop, onlink, or on the link; metric 1024 | |
//!
//! What leaves from a VIP is routed by table 1 (not with VRRP, which has tables, routes and rules of its own and the
//! VIPs themselves). Where two of these say different ways to the same destination, the first one counts.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use amphora_netlink::{InterfaceIndex, InterfaceName, Route, RouteProtocol, RouteScope, Rule, Table};
use ipnet::{IpNet, Ipv4Net};

use super::{
    port::{HostRoute, Port, SubnetAddress},
    record::Leased,
};
use crate::config::Topology;

/// The number of the VIPs' interface: `eth1`.
pub const VIP_INTERFACE: u32 = 1;

/// Its name.
pub fn vip_interface() -> InterfaceName {
    InterfaceName::new(&format!("eth{VIP_INTERFACE}")).expect("short, of letters and digits")
}

/// The table for what leaves from a VIP.
pub const VIP_TABLE: Table = Table(1);

/// The priority of the rules; the one that Octavia's agent leaves to pyroute2.
pub const RULE_PRIORITY: u32 = 32_000;

/// Of routes by a lease: a document's are before them.
const LEASE_METRIC: u32 = 1024;

/// All of a port's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Octets of the largest packet; what the device has, without.
    pub mtu: Option<u32>,
    /// The interface is up.
    pub up: bool,
    /// The agent's addresses.
    pub addresses: Vec<IpNet>,
    /// An address for a time, beside the others.
    pub lease: Option<PlannedLease>,
    /// It takes what routers advertise.
    pub autoconfigured: bool,
    /// Addresses that the agent gave the interface for what it was before, and takes away. Any other one is not the
    /// agent's: VRRP has VIPs there, with prefixes of its own, and whatever else it is configured to.
    pub leftovers: Vec<IpNet>,
    /// Routes, no two to the same destination in the same table.
    pub routes: Vec<PlannedRoute>,
    /// The agent's rules, of which only the VIPs' port has any.
    pub rules: Vec<Rule>,
}

/// An address for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedLease {
    /// The address.
    pub net: Ipv4Net,
    /// Its end; without, it has none.
    pub expires: Option<Instant>,
    /// Octets of the largest packet of the network, where the document does not say it; a device that cannot do it is left as it
    /// is.
    pub mtu: Option<u32>,
}

/// A route by the port's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedRoute {
    /// Destination.
    pub destination: IpNet,
    /// `via`, always onlink.
    pub gateway: Option<IpAddr>,
    /// `src`.
    pub source: Option<IpAddr>,
    /// `table`.
    pub table: Table,
    /// `metric`; the kernel's default without.
    pub metric: Option<u32>,
    /// The tenant wrote it: it may be one that the kernel refuses, and the rest is worth having without it.
    pub optional: bool,
}

impl PlannedRoute {
    /// As netlink has it.
    pub fn on(&self, interface: InterfaceIndex) -> Route {
        // The kernel files any IPv6 route as global.
        let on_link = self.gateway.is_none() && self.destination.addr().is_ipv4();
        Route {
            destination: self.destination,
            gateway: self.gateway,
            interface,
            source: self.source,
            scope: if on_link { RouteScope::Link } else { RouteScope::Global },
            onlink: self.gateway.is_some(),
            table: self.table,
            metric: self.metric,
            protocol: RouteProtocol::STATIC,
        }
    }
}

impl Plan {
    /// The plan of a port.
    pub fn new(port: &Port, topology: Topology) -> Self {
        let single = topology == Topology::Single;
        let mut plan = Self { mtu: port.mtu, up: true, autoconfigured: port.is_dynamic(), ..Self::nothing() };
        if let Some(vip) = &port.vip {
            plan.addresses.push(vip.vrrp);
            if single {
                plan.rules.extend(vip.vips.iter().map(|vip| Rule {
                    source: vip.address.into(),
                    table: VIP_TABLE,
                    priority: Some(RULE_PRIORITY),
                    protocol: RouteProtocol::UNSPEC,
                }));
            }
            for vip in &vip.vips {
                plan.add_vip(vip, single);
            }
        }
        for fixed in &port.fixed_ips {
            plan.addresses.push(fixed.net());
            if port.vip.is_some() {
                plan.add_gateway(fixed, single);
            }
            plan.add_host_routes(&fixed.host_routes, Table::MAIN);
        }
        plan.forget_doubles();
        plan
    }

    /// The plan of a port that is to be no more.
    pub fn nothing() -> Self {
        Self {
            mtu: None,
            up: false,
            addresses: Vec::new(),
            lease: None,
            autoconfigured: false,
            leftovers: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// Adds what a lease says. Of its routes those are left out that would take packets away from the networks of other ports.
    pub fn add_lease(&mut self, leased: &Leased, others: &[IpNet]) {
        let lease = &leased.lease;
        self.lease = Some(PlannedLease { net: lease.address, expires: leased.expires, mtu: lease.mtu });
        for route in &lease.routes {
            let destination = IpNet::from(route.destination);
            if others.iter().any(|other| other.contains(&destination)) {
                tracing::warn!(%destination, "a route of a lease is left out: it is in the network of another port");
                continue;
            }
            self.routes.push(PlannedRoute {
                destination,
                gateway: route.gateway.map(IpAddr::from),
                source: None,
                table: Table::MAIN,
                metric: Some(LEASE_METRIC),
                optional: true,
            });
        }
    }

    fn add_vip(&mut self, vip: &SubnetAddress, single: bool) {
        self.add_gateway(vip, single);
        if single {
            self.addresses.push(vip.address.into());
        }
        let on_link = PlannedRoute {
            destination: vip.subnet,
            gateway: None,
            source: None,
            table: Table::MAIN,
            metric: None,
            optional: false,
        };
        self.routes.push(on_link);
        if single {
            self.routes.push(PlannedRoute { source: Some(vip.address), table: VIP_TABLE, ..on_link });
        }
        self.add_host_routes(&vip.host_routes, Table::MAIN);
        self.add_host_routes(&vip.host_routes, VIP_TABLE);
    }

    fn add_gateway(&mut self, of: &SubnetAddress, single: bool) {
        let Some(gateway) = of.gateway else { return };
        let default = PlannedRoute {
            destination: everywhere(gateway),
            gateway: Some(gateway),
            source: None,
            table: Table::MAIN,
            metric: None,
            optional: false,
        };
        self.routes.push(default);
        if single {
            self.routes.push(PlannedRoute { table: VIP_TABLE, ..default });
        }
    }

    fn add_host_routes(&mut self, routes: &[HostRoute], table: Table) {
        self.routes.extend(routes.iter().map(|route| PlannedRoute {
            destination: route.destination,
            gateway: Some(route.nexthop),
            source: None,
            table,
            metric: None,
            optional: true,
        }));
    }

    fn forget_doubles(&mut self) {
        let mut seen = Vec::new();
        self.routes.retain(|route| {
            let key = (route.destination, route.table, route.metric);
            let first = !seen.contains(&key);
            seen.push(key);
            first
        });
        let mut seen: Vec<IpNet> = Vec::new();
        self.addresses.retain(|net| {
            // An interface has an IPv6 address once, whatever its prefix.
            let v6 = net.addr().is_ipv6();
            let first = !seen.iter().any(|other| other == net || v6 && other.addr() == net.addr());
            seen.push(*net);
            first
        });
    }
}

fn everywhere(like: IpAddr) -> IpNet {
    let any = match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    IpNet::new_assert(any, 0)
}
