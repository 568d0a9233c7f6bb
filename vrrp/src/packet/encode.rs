//! From an [`Advertisement`] to octets.

use std::net::IpAddr;

use super::{AUTH_DATA, Advertisement, Auth, Family, HEADER, Interval, Pseudo, checksum::checksum};

impl Advertisement {
    /// The message, to be sent from `pseudo.source` to `pseudo.destination`. The addresses are of the same family as
    /// these, at most [`MAX_ADDRESSES`](super::MAX_ADDRESSES): others are left out.
    ///
    /// The checksum of IPv6 is right as well, though a socket with `IPV6_CHECKSUM` would put it in itself.
    pub fn encode(&self, pseudo: Pseudo) -> Vec<u8> {
        let family = Family::of(pseudo.source);
        let addresses: Vec<_> = self
            .addresses
            .iter()
            .filter(|address| Family::of(**address) == family)
            .take(super::MAX_ADDRESSES)
            .collect();
        let mut out = Vec::with_capacity(HEADER + addresses.len() * family.octets() + AUTH_DATA);
        let version = match self.interval {
            Interval::Seconds(_) => 2,
            Interval::Centiseconds(_) => 3,
        };
        let count = u8::try_from(addresses.len()).unwrap_or(u8::MAX);
        out.extend([version << 4 | 1, self.vrid, self.priority, count]);
        match self.interval {
            Interval::Seconds(seconds) => {
                out.extend([if self.auth == Auth::None { 0 } else { 1 }, seconds]);
            }
            Interval::Centiseconds(interval) => out.extend((interval & 0x0fff).to_be_bytes()),
        }
        out.extend([0, 0]);
        for address in addresses {
            match address {
                IpAddr::V4(address) => out.extend(address.octets()),
                IpAddr::V6(address) => out.extend(address.octets()),
            }
        }
        if version == 2 && family == Family::V4 {
            match self.auth {
                Auth::None => out.extend([0; AUTH_DATA]),
                Auth::Password(password) => out.extend(password),
            }
        }
        let pseudo = (version == 3 || family == Family::V6).then_some(pseudo);
        let sum = checksum(pseudo, &out).to_be_bytes();
        out[6..8].copy_from_slice(&sum);
        out
    }
}
