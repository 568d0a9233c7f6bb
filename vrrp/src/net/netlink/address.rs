//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
};
use nix::errno::Errno;

use super::{Add, InterfaceIndex, Netlink, Outcome, family, outcome};
use crate::{net::NetError, packet::Family};

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
        let what = || format!("add {net} to {interface}");
        let mut message = message(interface, net);
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

/// The address that advertisements leave from without a configured one: the first one of the interface, for IPv6 the
/// link-local one (RFC 9568 section 5.1.2.1). `virtual_addresses` are not meant: they may be left over.
pub fn advertisement_source(
    addresses: &[Address],
    interface: InterfaceIndex,
    of: Family,
    virtual_addresses: &[IpAddr],
) -> Option<IpAddr> {
    addresses
        .iter()
        .filter(|address| address.interface == interface && !address.tentative)
        .filter(|address| of == Family::V4 || address.link_local)
        .map(|address| address.net.addr())
        .find(|address| Family::of(*address) == of && !virtual_addresses.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advertisements_leave_from_the_first_address_or_the_link_local_one() {
        let on = |interface, net: &str, tentative| Address {
            interface: InterfaceIndex(interface),
            net: net.parse().expect("it is right"),
            permanent: true,
            tentative,
            deprecated: false,
            link_local: net.starts_with("fe80"),
        };
        let addresses = [
            on(1, "127.0.0.1/8", false),
            on(2, "192.0.2.100/32", false),
            on(2, "192.0.2.1/24", false),
            on(2, "192.0.2.2/24", false),
            on(2, "2001:db8::1/64", false),
            on(2, "fe80::1/64", true),
            on(2, "fe80::2/64", false),
        ];
        let vip = ["192.0.2.100".parse().expect("it is right")];
        let source =
            |of| advertisement_source(&addresses, InterfaceIndex(2), of, &vip).map(|ip| ip.to_string());
        assert_eq!(source(Family::V4).as_deref(), Some("192.0.2.1"));
        assert_eq!(source(Family::V6).as_deref(), Some("fe80::2"));
        assert_eq!(advertisement_source(&addresses, InterfaceIndex(3), Family::V4, &vip), None);
    }
}
