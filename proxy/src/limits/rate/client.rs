//! Whom something is counted of: addresses as they come, or as those say who are believed.

use std::net::{IpAddr, Ipv6Addr};

use amphora_model::TrustedProxies;

use crate::snapshot::AccessList;

/// The network that an address is counted with: of IPv6 its /64, which is what one client is given; of IPv4 itself, also when
/// it is written as one of IPv6.
#[inline]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// Who is believed about whom a request is from: `trusted_proxies`.
#[derive(Debug)]
pub struct Believed {
    networks: AccessList,
    header: Box<[u8]>,
}

impl Believed {
    /// Compiles them.
    pub fn new(trusted: &TrustedProxies) -> Self {
        Self {
            networks: AccessList::new(&trusted.networks),
            header: trusted.header.to_ascii_lowercase().into_bytes().into(),
        }
    }

    /// Whether somebody at this address is.
    pub fn includes(&self, address: IpAddr) -> bool {
        self.networks.allows(address)
    }

    /// The name of the field that says it, in lower case.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Whom a request is from that `peer` has sent, who is believed: of what is in the fields, in their order, the last address that is
    /// not of another such. Who names nobody, or nothing that is an address, has asked himself.
    pub fn client<'a>(&self, peer: IpAddr, values: impl Iterator<Item = &'a [u8]>) -> IpAddr {
        values.filter_map(|value| self.nearest(peer, value)).last().unwrap_or(peer)
    }

    /// Of one field, from the right; `None` if it names nobody but those who are believed.
    fn nearest(&self, peer: IpAddr, value: &[u8]) -> Option<IpAddr> {
        let mut named = value.rsplit(|byte| *byte == b',').map(|item| address(item.trim_ascii()));
        // Whoever wrote what is no address cannot be told from those before it.
        let nearest = named.find(|named| named.is_none_or(|named| !self.includes(named)))?;
        Some(nearest.unwrap_or(peer))
    }
}

/// An address as proxies write it: bare, with a port, or between brackets.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_port =
            port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
        return address.parse::<Ipv6Addr>().ok().filter(|_| is_port).map(Into::into);
    }
    text.parse()
        .ok()
        .or_else(|| text.parse::<std::net::SocketAddrV4>().ok().map(|with_port| (*with_port.ip()).into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn networks_of_clients() {
        for (address, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            assert_eq!(network(address.parse().unwrap()), expected.parse::<IpAddr>().unwrap());
        }
    }

    /// From the right, what the first says who is not believed; nobody can put himself in another's place by it.
    #[test]
    fn what_is_nearest_counts() {
        let believed = Believed::new(&TrustedProxies {
            networks: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            header: "X-Forwarded-For".into(),
        });
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        for (values, expected) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["192.0.2.9, 192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.9", "192.0.2.1,10.2.3.4"], "192.0.2.1"),
            (&["192.0.2.1:4711"], "192.0.2.1"),
            (&["[2001:db9::1]:80, [2001:db8::1]"], "2001:db9::1"),
            (&["::ffff:192.0.2.1"], "::ffff:192.0.2.1"),
            (&[], "10.0.0.1"),
            (&["10.0.0.7"], "10.0.0.1"),
            // Who has brought it may have named himself, or have brought it before.
            (&["192.0.2.1, 10.0.0.1"], "192.0.2.1"),
            (&["192.0.2.1", "10.0.0.1,10.0.0.7, ::ffff:10.0.0.1"], "192.0.2.1"),
            (&["192.0.2.1, unknown"], "10.0.0.1"),
            (&["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.1"),
            (&["unknown, 192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1,"], "10.0.0.1"),
            (&["192.0.2.1", ""], "10.0.0.1"),
        ] {
            let values = values.iter().map(|value| value.as_bytes());
            assert_eq!(believed.client(peer, values), expected.parse::<IpAddr>().unwrap());
        }
        assert_eq!(believed.header(), b"x-forwarded-for");
    }
}
