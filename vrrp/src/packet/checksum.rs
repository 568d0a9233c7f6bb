//! The Internet checksum (RFC 1071), and over what it is taken.
//!
//! | | over |
//! | --- | --- |
//! | version 2, IPv4 | the VRRP message |
//! | version 3, IPv4 | a pseudo-header (RFC 9568 section 5.2.8: source, destination, zero, protocol, length) and the message |
//! | IPv6 | the IPv6 pseudo-header and the message, in either version |
//!
//! keepalived before 1.3.6 took the multicast group for the destination in version 3 even of a unicast packet, and
//! later ones fall back to it when a peer does: [`Pseudo::with_destination`].

use std::net::IpAddr;

use amphora_netlink::Checksum;

use super::PROTOCOL;

/// A pseudo-header without its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pseudo {
    /// Source address of the packet.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
}

impl Pseudo {
    /// The same towards another destination.
    pub fn with_destination(self, destination: IpAddr) -> Self {
        Self { destination, ..self }
    }

    fn add_to(self, sum: Checksum, length: usize) -> Checksum {
        let sum = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                sum.over(&source.octets()).over(&destination.octets())
            }
            (source, destination) => sum.over(&v6(source)).over(&v6(destination)),
        };
        // Zeros, the protocol and the length: in IPv4 octets of their own, in IPv6 words, which is the same sum.
        sum.over(&[0, PROTOCOL]).over(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes())
    }
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The checksum of `message`, which has a zero or its own checksum in the field: in the second case it is 0 when right.
pub(super) fn checksum(pseudo: Option<Pseudo>, message: &[u8]) -> u16 {
    let sum = Checksum::default();
    let sum = match pseudo {
        Some(pseudo) => pseudo.add_to(sum, message.len()),
        None => sum,
    };
    sum.over(message).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_octet_counts_as_the_high_half() {
        assert_eq!(checksum(None, &[0x12]), !0x1200);
    }
}
