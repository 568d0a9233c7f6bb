//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo},
};
use nix::errno::Errno;

use super::{Add, InterfaceIndex, Netlink, Outcome, family, outcome};
use crate::{Family, NetError};

/// A lifetime without end (`INFINITY_LIFE_TIME`), in seconds.
const FOREVER: u32 = u32::MAX;

/// An address that an interface has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The interface.
    pub interface: InterfaceIndex,
    /// The address with the length of its prefix.
    pub net: IpNet,
    /// It was set and stays, unlike one from DHCP or a router advertisement (`IFA_F_PERMANENT`).
    pub permanent: bool,
    /// Duplicate address detection still goes on: it cannot be used (`IFA_F_TENTATIVE`).
    pub tentative: bool,
    /// New connections do not leave from it (`IFA_F_DEPRECATED`).
    pub deprecated: bool,
    /// Only of use on this link (IPv6 `fe80::/10`, IPv4 `scope link`).
    pub link_local: bool,
}

impl Address {
    fn read(message: &AddressMessage) -> Option<Self> {
        let header = &message.header;
        let mut flags = AddressFlags::from_bits_retain(header.flags.bits().into());
        let (mut local, mut address) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        // On a point-to-point link `address` is the peer's.
        let address = local.or(address)?;
        Some(Self {
            interface: InterfaceIndex(header.index),
            net: IpNet::new(address, header.prefix_len).ok()?,
            permanent: flags.contains(AddressFlags::Permanent),
            tentative: flags.contains(AddressFlags::Tentative),
            deprecated: flags.contains(AddressFlags::Deprecated),
            link_local: header.scope == AddressScope::Link,
        })
    }
}

impl Netlink {
    /// Every address of the namespace.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn addresses(&self) -> Result<Vec<Address>, NetError> {
        let answers = self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default())).await;
        let answers = answers.map_err(|failure| failure.to(|| "list addresses".to_owned()))?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) => Address::read(message),
                _ => None,
            })
            .collect())
    }

    /// Every address of an interface.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn addresses_of(&self, interface: InterfaceIndex) -> Result<Vec<Address>, NetError> {
        let mut addresses = self.addresses().await?;
        addresses.retain(|address| address.interface == interface);
        Ok(addresses)
    }

    /// Gives an interface an address that can be used at once and for good: an IPv6 address is not checked for duplicates
    /// (who has it is what VRRP and Neutron are there to know, and the check takes a second) and is not deprecated,
    /// also where it was before.
    ///
    /// # Errors
    /// When the kernel refuses: the interface is gone, or IPv6 is disabled.
    pub async fn add_address(&self, interface: InterfaceIndex, net: IpNet) -> Result<Outcome, NetError> {
        self.bring_address(interface, net, message(interface, net)).await
    }

    /// The same for an address of a virtual router. One of IPv6 that is a prefix of its own (`/128`) is deprecated, as with keepalived:
    /// it can be connected to, and what this host begins leaves from another, which stays when the virtual one goes.
    ///
    /// # Errors
    /// As [`add_address`](Self::add_address).
    pub async fn add_virtual_address(
        &self,
        interface: InterfaceIndex,
        net: IpNet,
    ) -> Result<Outcome, NetError> {
        let mut message = message(interface, net);
        if net.addr().is_ipv6() && net.prefix_len() == net.max_prefix_len() {
            let mut lifetimes = CacheInfo::default();
            lifetimes.ifa_preferred = 0;
            lifetimes.ifa_valid = FOREVER;
            message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
        self.bring_address(interface, net, message).await
    }

    async fn bring_address(
        &self,
        interface: InterfaceIndex,
        net: IpNet,
        mut message: AddressMessage,
    ) -> Result<Outcome, NetError> {
        let what = || format!("add {net} to {interface}");
        if net.addr().is_ipv6() {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let message = RouteNetlinkMessage::NewAddress(message);
        let added = outcome(self.add(message.clone(), Add::Exclusive).await, &[Errno::EEXIST], what)?;
        if added == Outcome::Unchanged && net.addr().is_ipv6() {
            self.add(message, Add::Replace).await.map_err(|failure| failure.to(what))?;
        }
        Ok(added)
    }

    /// Gives an interface an IPv4 address for some seconds, after which the kernel takes it away, or without an end; also where it
    /// has it, for another time.
    ///
    /// # Errors
    /// When the kernel refuses: the interface is gone.
    pub async fn lease_address(
        &self,
        interface: InterfaceIndex,
        net: Ipv4Net,
        seconds: Option<u32>,
    ) -> Result<(), NetError> {
        let mut message = message(interface, net.into());
        let mut lifetimes = CacheInfo::default();
        lifetimes.ifa_valid = seconds.unwrap_or(FOREVER);
        lifetimes.ifa_preferred = lifetimes.ifa_valid;
        message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        let message = RouteNetlinkMessage::NewAddress(message);
        let added = self.add(message, Add::Replace).await;
        added.map_err(|failure| failure.to(|| format!("add {net} to {interface}")))
    }

    /// Takes an address from an interface.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn delete_address(&self, interface: InterfaceIndex, net: IpNet) -> Result<Outcome, NetError> {
        let message = RouteNetlinkMessage::DelAddress(message(interface, net));
        let gone = [Errno::EADDRNOTAVAIL, Errno::ENOENT, Errno::ENODEV];
        outcome(self.change(message, 0).await, &gone, || format!("delete {net} from {interface}"))
    }
}

fn message(interface: InterfaceIndex, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(Family::of(net.addr()));
    message.header.prefix_len = net.prefix_len();
    message.header.index = interface.0;
    let address: IpAddr = net.addr();
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}
