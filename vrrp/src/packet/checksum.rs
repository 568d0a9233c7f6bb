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

    fn add_to(self, sum: Sum, length: usize) -> Sum {
        let sum = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                sum.add(&source.octets()).add(&destination.octets())
            }
            (source, destination) => sum.add(&v6(source)).add(&v6(destination)),
        };
        // Zeros, the protocol and the length: in IPv4 octets of their own, in IPv6 words, which is the same sum.
        sum.add(&[0, PROTOCOL]).add(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes())
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
    let sum = Sum::default();
    let sum = match pseudo {
        Some(pseudo) => pseudo.add_to(sum, message.len()),
        None => sum,
    };
    sum.add(message).finish()
}

/// One's complement sum of 16-bit words.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds a run of octets that begins on an even position; the last of an odd number is filled up with a zero.
    pub(crate) fn add(self, octets: &[u8]) -> Self {
        let (words, rest) = octets.as_chunks::<2>();
        let sum: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
        let last = rest.first().map_or(0, |octet| u64::from(*octet) << 8);
        Self(self.0 + sum + last)
    }

    /// Its complement: what goes into the field.
    pub(crate) fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::default().add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.finish(), !0xddf2);
    }

    #[test]
    fn an_odd_octet_counts_as_the_high_half() {
        assert_eq!(checksum(None, &[0x12]), !0x1200);
    }
}
