//! The configured objects.

use std::{net::IpAddr, time::Duration};

use amphora_netlink::{InterfaceIndex, InterfaceName, Route, RouteProtocol, RouteScope, Rule, Table};
use ipnet::IpNet;

use crate::packet::{Auth, Family, Interval, Version};

/// Everything that one daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// At least one; no two share interface, family and VRID, none share a name.
    pub instances: Vec<Instance>,
}

/// A virtual router (keepalived `vrrp_instance`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Where it advertises, and where its addresses go that name no interface.
    pub interface: InterfaceName,
    /// `virtual_router_id`, 1 to 255.
    pub vrid: u8,
    /// The family of the advertisements, and of [`addresses`](Self::addresses).
    pub family: Family,
    /// 1 to 255; 255 owns the addresses.
    pub priority: u8,
    /// Time between advertisements, in the unit of the version; never 0.
    pub interval: Interval,
    /// Whether it takes over from a master of lower priority.
    pub preempt: Preempt,
    /// Starts as if it had been master just now (keepalived `state MASTER`).
    pub initially_master: bool,
    /// Whether packets to the addresses are accepted though it does not own them (RFC 9568 Accept_Mode). The only
    /// way that a load balancer can be: refused when false.
    pub accept: bool,
    /// Version 2 alone.
    pub auth: Auth,
    /// Unicast; multicast without.
    pub unicast: Option<Unicast>,
    /// Announcements of the addresses.
    pub garp: Garp,
    /// `virtual_ipaddress`: in the advertisements, of one family.
    pub addresses: Vec<VirtualAddress>,
    /// `virtual_ipaddress_excluded`: not in the advertisements, of either family.
    pub excluded: Vec<VirtualAddress>,
    /// `virtual_routes`.
    pub routes: Vec<VirtualRoute>,
    /// `virtual_rules`.
    pub rules: Vec<VirtualRule>,
    /// Interfaces that must be up besides its own (`track_interface`).
    pub track_interfaces: Vec<InterfaceName>,
    /// The data plane must be fit.
    pub track: Option<Track>,
}

impl Instance {
    /// The version of the protocol.
    pub fn version(&self) -> Version {
        match self.interval {
            Interval::Seconds(_) => Version::V2,
            Interval::Centiseconds(_) => Version::V3,
        }
    }

    /// Advertised addresses, in order.
    pub fn advertised(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(|address| address.net.addr()).collect()
    }
}

/// Whether a backup takes over from a master of lower priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preempt {
    /// `nopreempt`.
    Never,
    /// Once the master has had a lower priority for so long (`preempt_delay`, 0 by default).
    After(Duration),
}

/// Unicast instead of multicast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unicast {
    /// `unicast_src_ip`.
    pub source: IpAddr,
    /// `unicast_peer`, at least one, of the source's family.
    pub peers: Vec<IpAddr>,
    /// Refuse what comes from others (keepalived `check_unicast_src`).
    pub check_source: bool,
}

/// How the addresses are announced: gratuitous ARP and unsolicited neighbour advertisements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garp {
    /// Times that they are sent on becoming master (`garp_master_repeat`).
    pub repeat: u32,
    /// Time after which they are sent so often once more (`garp_master_delay`); 0: not.
    pub delay: Duration,
    /// Time between refreshes as a master (`garp_master_refresh`); 0: none.
    pub refresh: Duration,
    /// Times that they are sent in a refresh (`garp_master_refresh_repeat`).
    pub refresh_repeat: u32,
    /// Times that they are sent when a lower priority was heard (`garp_lower_prio_repeat`).
    pub lower_repeat: u32,
    /// Time after which they are sent so often once more (`garp_lower_prio_delay`); 0: not.
    pub lower_delay: Duration,
}

impl Default for Garp {
    /// keepalived's.
    fn default() -> Self {
        Self {
            repeat: 5,
            delay: Duration::from_secs(5),
            refresh: Duration::ZERO,
            refresh_repeat: 1,
            lower_repeat: 5,
            lower_delay: Duration::from_secs(5),
        }
    }
}

/// An address that the master has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualAddress {
    /// The address with the length of its prefix (the whole address by default).
    pub net: IpNet,
    /// Where it goes, if not to the interface of the advertisements.
    pub interface: Option<InterfaceName>,
}

/// A route that the master has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualRoute {
    /// Destination; all zeros for `default`.
    pub destination: IpNet,
    /// `via` or `gateway`.
    pub gateway: Option<IpAddr>,
    /// `dev`.
    pub interface: InterfaceName,
    /// `src`: the address that packets by this route leave with.
    pub source: Option<IpAddr>,
    /// `scope`.
    pub scope: RouteScope,
    /// `onlink`: the gateway is on the link though no route says so.
    pub onlink: bool,
    /// `table`.
    pub table: Table,
    /// `metric`; the kernel's default without.
    pub metric: Option<u32>,
}

impl VirtualRoute {
    /// What the kernel is to have. `interface` is the one that it names.
    pub fn route(&self, interface: InterfaceIndex) -> Route {
        Route {
            destination: self.destination,
            gateway: self.gateway,
            interface,
            source: self.source,
            scope: self.scope,
            onlink: self.onlink,
            table: self.table,
            metric: self.metric,
            protocol: RouteProtocol::KEEPALIVED,
        }
    }
}

/// A rule that the master has: packets from `source` are routed by `table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualRule {
    /// `from`.
    pub source: IpNet,
    /// `table`.
    pub table: Table,
    /// `priority`.
    pub priority: Option<u32>,
}

impl VirtualRule {
    /// What the kernel is to have.
    pub fn rule(&self) -> Rule {
        Rule {
            source: self.source,
            table: self.table,
            priority: self.priority,
            protocol: RouteProtocol::KEEPALIVED,
        }
    }
}

/// The health of the data plane (keepalived `vrrp_script` with `track_script`). Here the verdict comes over a
/// connection; the counts are those of unanswered and of answered questions on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Track {
    /// Unanswered questions until it is unfit, at least 1.
    pub fall: u32,
    /// Answered questions until it is fit, at least 1.
    pub rise: u32,
}
