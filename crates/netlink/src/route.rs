//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{self, RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType},
};
use nix::errno::Errno;

use super::{Add, InterfaceIndex, Netlink, Outcome, family, outcome};
use crate::{Family, NetError};

/// Who wrote a route or a rule (`rtm_protocol`, `FRA_PROTOCOL`; the numbers of rtnetlink(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteProtocol(pub u8);

impl RouteProtocol {
    /// Nobody says so. Rules are usually written like this.
    pub const UNSPEC: Self = Self(0);
    /// The kernel, for one for the prefix of an address.
    pub const KERNEL: Self = Self(2);
    /// The administrator: what the agent writes.
    pub const STATIC: Self = Self(4);
    /// The kernel, for what routers advertise.
    pub const ROUTERS: Self = Self(9);
    /// keepalived, and so what a virtual router has here, too.
    pub const KEEPALIVED: Self = Self(18);
}

/// A routing table, 1 to 2^32 - 1 (`main` is 254).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Table(pub u32);

impl Table {
    /// The main table.
    pub const MAIN: Self = Self(254);
}

/// The scope of a route (ip-route(8)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteScope {
    /// `global`: beyond a gateway.
    Global,
    /// `link`: on the link.
    Link,
}

/// A unicast route by one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Destination; all zeros for `default`.
    pub destination: IpNet,
    /// `via`.
    pub gateway: Option<IpAddr>,
    /// `dev`.
    pub interface: InterfaceIndex,
    /// `src`: the address that packets by this route leave with.
    pub source: Option<IpAddr>,
    /// `scope`. IPv6 has none: there it is always global.
    pub scope: RouteScope,
    /// `onlink`: the gateway is on the link though no route says so.
    pub onlink: bool,
    /// `table`.
    pub table: Table,
    /// `metric`; the kernel's default without, which for IPv6 is 1024.
    pub metric: Option<u32>,
    /// `proto`.
    pub protocol: RouteProtocol,
}

impl Route {
    /// Whether `self`, as the kernel lists it, is what is there after `wanted` was added: what the kernel fills in or
    /// does not keep is not compared.
    pub fn is(&self, wanted: &Self) -> bool {
        let v6 = wanted.destination.addr().is_ipv6();
        self.destination.trunc() == wanted.destination.trunc()
            && self.gateway == wanted.gateway
            && self.interface == wanted.interface
            && self.source == wanted.source
            && (v6 || self.scope == wanted.scope)
            && self.onlink == wanted.onlink
            && self.table == wanted.table
            && (wanted.metric.is_none() || self.metric == wanted.metric)
            && self.protocol == wanted.protocol
    }

    /// `None` for routes that this type cannot say: local, broadcast, multicast, cached, with several next hops.
    fn read(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        if header.kind != RouteType::Unicast || header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let scope = match header.scope {
            route::RouteScope::Universe => RouteScope::Global,
            route::RouteScope::Link => RouteScope::Link,
            _ => return None,
        };
        let any = match header.address_family {
            netlink_packet_route::AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            netlink_packet_route::AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let (mut destination, mut gateway, mut interface, mut source) = (any, None, None, None);
        let (mut table, mut metric) = (header.table.into(), None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(address)?,
                RouteAttribute::Gateway(address) => gateway = Some(ip(address)?),
                RouteAttribute::PrefSource(address) => source = Some(ip(address)?),
                RouteAttribute::Oif(index) => interface = Some(InterfaceIndex(*index)),
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Priority(number) => metric = Some(*number),
                _ => {}
            }
        }
        Some(Self {
            destination: IpNet::new(destination, header.destination_prefix_length).ok()?,
            gateway,
            interface: interface?,
            source,
            scope,
            onlink: header.flags.contains(RouteFlags::Onlink),
            table: Table(table),
            metric,
            protocol: RouteProtocol(header.protocol.into()),
        })
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family(Family::of(self.destination.addr()));
        header.destination_prefix_length = self.destination.prefix_len();
        header.protocol = self.protocol.0.into();
        header.kind = RouteType::Unicast;
        header.scope = match self.scope {
            RouteScope::Global => route::RouteScope::Universe,
            RouteScope::Link => route::RouteScope::Link,
        };
        if self.onlink {
            header.flags = RouteFlags::Onlink;
        }
        // Zero here, `RT_TABLE_UNSPEC`, defers to the attribute.
        header.table = u8::try_from(self.table.0).unwrap_or(route::RouteHeader::RT_TABLE_UNSPEC);
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(self.table.0));
        if self.destination.prefix_len() > 0 {
            attributes.push(RouteAttribute::Destination(self.destination.network().into()));
        }
        if let Some(gateway) = self.gateway {
            attributes.push(RouteAttribute::Gateway(gateway.into()));
        }
        if let Some(source) = self.source {
            attributes.push(RouteAttribute::PrefSource(source.into()));
        }
        if let Some(metric) = self.metric {
            attributes.push(RouteAttribute::Priority(metric));
        }
        attributes.push(RouteAttribute::Oif(self.interface.0));
        message
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

impl Netlink {
    /// Every unicast route of a family, of every table.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn routes(&self, of: Family) -> Result<Vec<Route>, NetError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(of);
        let answers = self.dump(RouteNetlinkMessage::GetRoute(message)).await;
        let answers = answers.map_err(|failure| failure.to(|| "list routes".to_owned()))?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) => Route::read(message),
                _ => None,
            })
            .collect())
    }

    /// Adds a route. [`Outcome::Unchanged`]: the table has one to the same destination with the same metric, maybe
    /// another way, which stays.
    ///
    /// # Errors
    /// When the kernel refuses: the interface is down, or the gateway or the source is not there.
    pub async fn add_route(&self, route: &Route) -> Result<Outcome, NetError> {
        let message = RouteNetlinkMessage::NewRoute(route.message());
        outcome(self.add(message, Add::Exclusive).await, &[Errno::EEXIST], || describe("add", route))
    }

    /// Adds a route in the place of the one to the same destination with the same metric, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses, as in [`add_route`](Self::add_route).
    pub async fn replace_route(&self, route: &Route) -> Result<(), NetError> {
        let message = RouteNetlinkMessage::NewRoute(route.message());
        // It says so where the very same route is there and another one is before it.
        let same = [Errno::EEXIST];
        outcome(self.add(message, Add::Replace).await, &same, || describe("set", route)).map(|_| ())
    }

    /// Deletes a route.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn delete_route(&self, route: &Route) -> Result<Outcome, NetError> {
        let message = RouteNetlinkMessage::DelRoute(route.message());
        let gone = [Errno::ESRCH, Errno::ENOENT, Errno::ENODEV];
        outcome(self.change(message, 0).await, &gone, || describe("delete", route))
    }
}

fn describe(verb: &str, route: &Route) -> String {
    let via = route.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
    format!(
        "{verb} the route to {}{via} by {} in table {}",
        route.destination, route.interface, route.table.0
    )
}
