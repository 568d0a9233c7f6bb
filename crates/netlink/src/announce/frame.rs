//! Frames that tell a link where an address is now. Pure; Ethernet alone.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{Checksum, MacAddress};

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const HARDWARE_ETHERNET: u16 = 1;
const PROTOCOL_IPV4: u16 = 0x0800;

const ICMPV6: u8 = 58;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const FLAG_ROUTER: u8 = 0x80;
const FLAG_OVERRIDE: u8 = 0x20;
const OPTION_TARGET_LINK_LAYER_ADDRESS: u8 = 2;
/// Receivers refuse a neighbour advertisement that a router forwarded (RFC 4861 section 7.1.2).
const HOP_LIMIT: u8 = 255;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Where Ethernet carries [`ALL_NODES`] (RFC 2464 section 7).
const ALL_NODES_MAC: MacAddress = MacAddress([0x33, 0x33, 0, 0, 0, 1]);

/// The operation of a gratuitous ARP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpForm {
    /// An announcement (RFC 5227 section 3), which keepalived sends.
    Request,
    /// An unasked reply, for hosts that look at nothing else.
    Reply,
}

/// A frame to everybody: `address` is at `mac`.
pub fn gratuitous_arp(mac: MacAddress, address: Ipv4Addr, form: ArpForm) -> Vec<u8> {
    // RFC 826, after the Ethernet header:
    //  0                   1                   2                   3
    //  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    // |         Hardware (1)          |       Protocol (0x0800)       |
    // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    // | Hlen (6)      | Plen (4)      |           Operation           |
    // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    // |                 Sender hardware address (6)                   |
    // |                               | Sender protocol address (4)   |
    // |                               |                               |
    // |                 Target hardware address (6)                   |
    // | Target protocol address (4)                                   |
    // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    let (operation, target): (u16, _) = match form {
        // Receivers ignore the target's hardware address of a request; keepalived has it like this.
        ArpForm::Request => (1, MacAddress::BROADCAST),
        // Linux takes an unasked reply for gratuitous only with the sender's here.
        ArpForm::Reply => (2, mac),
    };
    let mut frame = ethernet(MacAddress::BROADCAST, mac, ETHERTYPE_ARP);
    frame.extend(HARDWARE_ETHERNET.to_be_bytes());
    frame.extend(PROTOCOL_IPV4.to_be_bytes());
    frame.extend([6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(mac.0);
    frame.extend(address.octets());
    frame.extend(target.0);
    frame.extend(address.octets());
    frame
}

/// A frame to all nodes: `address` is at `mac`, whatever they believed. `router`: this host forwards IPv6, which
/// neighbours that use it as a router must go on hearing.
pub fn neighbor_advertisement(mac: MacAddress, address: Ipv6Addr, router: bool) -> Vec<u8> {
    // RFC 4861 section 4.4, after the Ethernet and the IPv6 header:
    //  0                   1                   2                   3
    //  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    // |  Type (136)   |   Code (0)    |          Checksum             |
    // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    // |R|S|O|                     Reserved                            |
    // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    // |                       Target Address (16)                     |
    // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    // |   Option (2)  |  Length (1)   |    Link-Layer Address (6)     |
    // |                                                               |
    // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    let flags = FLAG_OVERRIDE | if router { FLAG_ROUTER } else { 0 };
    let mut message = vec![NEIGHBOR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend(address.octets());
    message.extend([OPTION_TARGET_LINK_LAYER_ADDRESS, 1]);
    message.extend(mac.0);
    let sum = checksum(address, ALL_NODES, &message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);

    let mut frame = ethernet(ALL_NODES_MAC, mac, ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([ICMPV6, HOP_LIMIT]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

fn ethernet(destination: MacAddress, source: MacAddress, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(86);
    frame.extend(destination.0);
    frame.extend(source.0);
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// RFC 4443 section 2.3: over the IPv6 pseudo-header and the message.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let pseudo = Checksum::default().over(&source.octets()).over(&destination.octets());
    let pseudo = pseudo.over(&(message.len() as u32).to_be_bytes()).over(&[0, ICMPV6]);
    pseudo.over(message).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress([0xfa, 0x16, 0x3e, 0x00, 0x21, 0x01]);

    #[test]
    fn an_announcement_octet_by_octet() {
        let frame = gratuitous_arp(MAC, Ipv4Addr::new(10, 77, 0, 100), ArpForm::Request);
        #[rustfmt::skip]
        assert_eq!(frame, [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfa, 0x16, 0x3e, 0x00, 0x21, 0x01, 0x08, 0x06,
            0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, 0x01,
            0xfa, 0x16, 0x3e, 0x00, 0x21, 0x01, 10, 77, 0, 100,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 10, 77, 0, 100,
        ]);
    }

    #[test]
    fn a_reply_differs_in_the_operation_and_the_target() {
        let address = Ipv4Addr::new(192, 0, 2, 1);
        let mut frame = gratuitous_arp(MAC, address, ArpForm::Request);
        frame[20..22].copy_from_slice(&[0, 2]);
        frame[32..38].copy_from_slice(&MAC.0);
        assert_eq!(gratuitous_arp(MAC, address, ArpForm::Reply), frame);
    }

    #[test]
    fn a_neighbour_advertisement_octet_by_octet() {
        let frame = neighbor_advertisement(MAC, Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100), false);
        #[rustfmt::skip]
        assert_eq!(frame, [
            0x33, 0x33, 0, 0, 0, 1, 0xfa, 0x16, 0x3e, 0x00, 0x21, 0x01, 0x86, 0xdd,
            0x60, 0, 0, 0, 0, 32, 58, 255,
            0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x00,
            0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0x01,
            136, 0, 0x00, 0x98, 0x20, 0, 0, 0,
            0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x00,
            2, 1, 0xfa, 0x16, 0x3e, 0x00, 0x21, 0x01,
        ]);
    }

    #[test]
    fn a_router_says_so() {
        let address = Ipv6Addr::LOCALHOST;
        assert_eq!(neighbor_advertisement(MAC, address, false)[58], 0x20);
        assert_eq!(neighbor_advertisement(MAC, address, true)[58], 0xa0);
    }
}
