//! IPv4 and UDP in Ethernet frames, and ARP. Pure.

use std::net::Ipv4Addr;

use amphora_netlink::{Checksum, MacAddress};

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;

/// UDP port of servers.
pub const SERVER_PORT: u16 = 67;
/// UDP port of clients.
pub const CLIENT_PORT: u16 = 68;

const ETHERNET_HEADER: usize = 14;
const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;
/// Set in what is a part of a packet: more follow, or it is not the first.
const FRAGMENT: u16 = 0x3fff;
const TTL: u8 = 64;

/// A message of a client to all servers of the link.
pub fn to_servers(mac: MacAddress, from: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let udp_length = (UDP_HEADER + message.len()) as u16;
    let mut udp = Vec::with_capacity(udp_length.into());
    udp.extend(CLIENT_PORT.to_be_bytes());
    udp.extend(SERVER_PORT.to_be_bytes());
    udp.extend(udp_length.to_be_bytes());
    udp.extend([0; 2]);
    udp.extend(message);
    let sum = pseudo(from, Ipv4Addr::BROADCAST, udp_length).over(&udp).finish();
    // A sum of zero says that there is none.
    udp[6..8].copy_from_slice(&if sum == 0 { u16::MAX } else { sum }.to_be_bytes());

    let mut ip = Vec::with_capacity(IPV4_HEADER);
    ip.extend([0x45, 0]);
    ip.extend((IPV4_HEADER as u16 + udp_length).to_be_bytes());
    ip.extend([0, 0, 0, 0, TTL, UDP, 0, 0]);
    ip.extend(from.octets());
    ip.extend(Ipv4Addr::BROADCAST.octets());
    let sum = Checksum::default().over(&ip).finish();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());

    let mut frame = Vec::with_capacity(ETHERNET_HEADER + ip.len() + udp.len());
    frame.extend(MacAddress::BROADCAST.0);
    frame.extend(mac.0);
    frame.extend(IPV4.to_be_bytes());
    frame.extend(ip);
    frame.extend(udp);
    frame
}

/// The message to the client's port that a frame carries, whoever it is for.
///
/// The sum of UDP is right, or is none, or is what the kernel leaves in packets of this machine for hardware to finish.
pub fn from_server(frame: &[u8]) -> Option<&[u8]> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_HEADER)?;
    if ethernet[12..14] != IPV4.to_be_bytes() {
        return None;
    }
    let length = usize::from(packet.first()? & 0x0f) * 4;
    if packet[0] >> 4 != 4 || length < IPV4_HEADER {
        return None;
    }
    let (ip, rest) = packet.split_at_checked(length)?;
    let two = |octets: &[u8], at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
    let whole = ip[9] == UDP && two(ip, 6) & FRAGMENT == 0 && Checksum::default().over(ip).finish() == 0;
    // Short frames are padded.
    let udp = rest.get(..usize::from(two(ip, 2)).checked_sub(length)?)?;
    if !whole || udp.len() < UDP_HEADER || two(udp, 2) != CLIENT_PORT {
        return None;
    }
    let udp = udp.get(..two(udp, 4).into()).filter(|udp| udp.len() >= UDP_HEADER)?;
    let four = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let pseudo = pseudo(four(12), four(16), udp.len() as u16);
    let sum = two(udp, 6);
    let right = sum == 0 || pseudo.over(udp).finish() == 0 || sum == !pseudo.finish();
    right.then_some(&udp[UDP_HEADER..])
}

/// RFC 768: the parts of the IP header that UDP's sum is over.
fn pseudo(from: Ipv4Addr, to: Ipv4Addr, udp_length: u16) -> Checksum {
    let addresses = Checksum::default().over(&from.octets()).over(&to.octets());
    addresses.over(&[0, UDP]).over(&udp_length.to_be_bytes())
}

/// Asks whether anybody has an address, without saying that one has it oneself (RFC 5227 section 2.1.1).
pub fn arp_probe(mac: MacAddress, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(MacAddress::BROADCAST.0);
    frame.extend(mac.0);
    frame.extend(ARP.to_be_bytes());
    frame.extend(ARP_HEADER);
    frame.extend([0, 1]);
    frame.extend(mac.0);
    frame.extend([0; 4]);
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// Ethernet and IPv4, with the lengths of their addresses.
const ARP_HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What an ARP message says: who sent it, with which address, and about which address.
pub fn read_arp(frame: &[u8]) -> Option<((MacAddress, Ipv4Addr), Ipv4Addr)> {
    let message = frame.get(ETHERNET_HEADER..ETHERNET_HEADER + 28)?;
    if frame[12..14] != ARP.to_be_bytes() || message[..6] != ARP_HEADER {
        return None;
    }
    let address = |at: usize| Ipv4Addr::new(message[at], message[at + 1], message[at + 2], message[at + 3]);
    let mac: [u8; 6] = message[8..14].try_into().ok()?;
    Some(((MacAddress(mac), address(14)), address(24)))
}
