//! Advertisements on the wire: VRRP version 3 (RFC 9568) and version 2 (RFC 3768, with the plain-text authentication of
//! RFC 2338 that keepalived kept).
//!
//! [`Advertisement::decode`] takes what came behind the IP header, with what the IP header said ([`Envelope`]); it
//! checks what the RFCs let a receiver check without knowing its own configuration. What it cannot take it refuses
//! with a [`Refusal`], which is counted. No I/O.

mod checksum;
mod decode;
mod encode;
mod refusal;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use amphora_netlink::Family;

pub use self::{checksum::Pseudo, refusal::Refusal};

/// IP protocol number of VRRP (RFC 9568 section 5.1.1.4).
pub const PROTOCOL: u8 = 112;
/// TTL or hop limit of every advertisement (RFC 9568 section 5.1.1.3).
pub const TTL: u8 = 255;
/// Addresses that an advertisement can carry: the count is an octet.
pub const MAX_ADDRESSES: usize = 255;
/// Octets of an advertisement without its addresses.
pub(crate) const HEADER: usize = 8;
/// Octets of authentication data behind the addresses of a version 2 advertisement.
pub(crate) const AUTH_DATA: usize = 8;

/// The version of the protocol that a virtual router speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// RFC 3768; IPv4, and over IPv6 as keepalived does. Intervals are whole seconds.
    V2,
    /// RFC 9568. Intervals are centiseconds.
    V3,
}

/// The authentication of a version 2 advertisement (RFC 2338 section 5.3.6).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Type 0.
    None,
    /// Type 1: a password in plain text, filled up with zeros. keepalived takes the first eight octets of a longer one.
    Password([u8; AUTH_DATA]),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Password(_) => "Password(..)",
        })
    }
}

/// The interval field, in the unit of the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// Version 2: Adver Int, seconds.
    Seconds(u8),
    /// Version 3: Max Advertise Interval, 12 bits of centiseconds.
    Centiseconds(u16),
}

/// An advertisement, the only message of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Virtual Router Identifier.
    pub vrid: u8,
    /// 255: owns the addresses; 0: stops being master.
    pub priority: u8,
    /// Time between advertisements; tells the version, too.
    pub interval: Interval,
    /// The addresses of the virtual router, of the family of the packet.
    pub addresses: Vec<IpAddr>,
    /// Version 2 alone has it; [`Auth::None`] in version 3.
    pub auth: Auth,
}

impl Advertisement {
    /// The version that the interval is of.
    pub fn version(&self) -> Version {
        match self.interval {
            Interval::Seconds(_) => Version::V2,
            Interval::Centiseconds(_) => Version::V3,
        }
    }
}

/// What the IP header of a received packet said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// TTL or hop limit, where the system told it.
    pub ttl: Option<u8>,
}
