//! What rules say of packets of one IP version.

use std::net::{IpAddr, SocketAddr};

use amphora_netlink::nft::{Expression as E, Header, Meta, Register as R, Type};

/// Of the two hashes that clients of IPv6 are remembered by: what is told to the other amphora of a pair has 64 bits.
const SEEDS: [u32; 2] = [0x6f72_6165, 0x7061_6972];

#[derive(Clone, Copy)]
pub(super) struct Family {
    pub(super) v4: bool,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self { v4: true }, Self { v4: false }];

    pub(super) fn of(address: &IpAddr) -> Self {
        Self { v4: address.is_ipv4() }
    }

    pub(super) fn has(self, address: &SocketAddr) -> bool {
        address.is_ipv4() == self.v4
    }

    pub(super) fn name(self) -> &'static str {
        if self.v4 { "4" } else { "6" }
    }

    pub(super) fn key(self) -> Type {
        if self.v4 { Type::IPV4 } else { Type::IPV6 }
    }

    pub(super) fn bytes(self) -> u32 {
        if self.v4 { 4 } else { 16 }
    }

    /// Goes on with packets of the family.
    pub(super) fn is(self) -> [E; 2] {
        [E::Meta(Meta::Family, R(0)), E::Equal(R(0), vec![if self.v4 { 2 } else { 10 }])]
    }

    /// Goes on with what says that nobody listens on a port: destination unreachable, port unreachable.
    pub(super) fn is_port_unreachable(self) -> [E; 4] {
        let (icmp, kind) = if self.v4 { (1, [3, 3]) } else { (58, [1, 4]) };
        let transport = [E::Meta(Meta::Transport, R(0)), E::Equal(R(0), vec![icmp])];
        let [load, is] = transport;
        [load, is, E::Payload(Header::Transport, 0, 2, R(0)), E::Equal(R(0), kind.to_vec())]
    }

    /// By transport, address and port that a packet is for, to where this map says.
    pub(super) fn to_service(self, map: &str) -> Vec<E> {
        let to = R(1 + self.bytes() as u8 / 4);
        let mut rule = self.is().to_vec();
        rule.push(E::Meta(Meta::Transport, R(0)));
        let offset = if self.v4 { 16 } else { 24 };
        rule.push(E::Payload(Header::Network, offset, self.bytes(), R(1)));
        rule.push(E::Payload(Header::Transport, 2, 2, to));
        rule.push(E::VerdictMap(R(0), map.to_owned()));
        rule
    }

    pub(super) fn source(self, to: R) -> E {
        E::Payload(Header::Network, if self.v4 { 12 } else { 8 }, self.bytes(), to)
    }

    pub(super) fn mask(self, prefix: u8) -> Vec<u8> {
        let bits = |byte: u32| u32::from(prefix).saturating_sub(byte * 8).min(8);
        (0..self.bytes()).map(|byte| !(0xff_u16 >> bits(byte)) as u8).collect()
    }

    /// The network of the client, in the registers from this on.
    pub(super) fn client(self, prefix: u8) -> Vec<E> {
        let mut client = self.is().to_vec();
        client.push(self.source(R(0)));
        if u32::from(prefix) < self.bytes() * 8 {
            client.push(E::Mask(R(0), self.mask(prefix)));
        }
        client
    }

    /// What a client is remembered by, from `known_by` on.
    pub(super) fn known(self, prefix: u8) -> Vec<E> {
        let mut client = self.client(prefix);
        if !self.v4 {
            let hashes = SEEDS.iter().zip([4, 5]);
            client.extend(hashes.map(|(seed, to)| E::Hash(R(0), self.bytes(), u32::MAX, *seed, R(to))));
        }
        client
    }

    pub(super) fn known_by(self) -> R {
        if self.v4 { R(0) } else { R(4) }
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
