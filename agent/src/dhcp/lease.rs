//! What of an answer is believed.
//!
//! Whoever is in a tenant's network can answer, and faster than its server. So an answer gives an address that a host can have, in a
//! subnet of a sane size, for a time that is worth the asking; routes that make no sense are left out. What ports besides
//! have is not to be touched either: that is checked where the ports are known.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::message::Answer;

/// The shortest lease, in seconds: what is shorter would be asked for all the time.
pub const SHORTEST: u32 = 30;

/// The shortest time until a lease is asked for again, in seconds.
pub const SHORTEST_RENEWAL: u32 = 5;

/// A lease without an end.
pub const ENDLESS: u32 = u32::MAX;

/// The shortest prefix of a subnet: half of all addresses are not on any link.
const SHORTEST_PREFIX: u8 = 8;

/// The smallest MTU, in octets: with less an interface has no IPv6.
const SMALLEST_MTU: u16 = 1280;

/// An address, for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address, with the prefix of its subnet.
    pub address: Ipv4Net,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// Seconds from when it was asked for; [`ENDLESS`] for ever.
    pub seconds: u32,
    /// Seconds until it is asked for again, from the same server.
    pub renewal: u32,
    /// Seconds until it is asked for again, from any server; between the other two.
    pub rebinding: u32,
    /// Routes of the network.
    pub routes: Vec<LeaseRoute>,
    /// Octets of the largest packet of the network.
    pub mtu: Option<u32>,
}

/// A route of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRoute {
    /// Where to, without host bits.
    pub destination: Ipv4Net,
    /// By whom; `None` for a destination on the link.
    pub gateway: Option<Ipv4Addr>,
}

/// Why an answer is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// `yiaddr`.
    #[error("{0} is not an address that a host can have")]
    Address(Ipv4Addr),
    /// Option 1.
    #[error("it has no subnet mask, or one of less than {SHORTEST_PREFIX} bits or with holes")]
    Mask,
    /// The address is the subnet's own, or its broadcast.
    #[error("{0} is not an address of a host in its subnet")]
    NotAHost(Ipv4Net),
    /// Option 54.
    #[error("it does not say which server it comes from")]
    Server,
    /// Option 51.
    #[error("it is for less than {SHORTEST} s, or does not say for how long")]
    Time,
}

impl Lease {
    /// The lease of an answer.
    ///
    /// # Errors
    /// Why it is none.
    pub fn of(answer: &Answer) -> Result<Self, Unfit> {
        if !is_host(answer.address) || answer.address.is_link_local() {
            return Err(Unfit::Address(answer.address));
        }
        let mask = answer.mask.ok_or(Unfit::Mask)?;
        let address = Ipv4Net::with_netmask(answer.address, mask).map_err(|_| Unfit::Mask)?;
        if address.prefix_len() < SHORTEST_PREFIX {
            return Err(Unfit::Mask);
        }
        let edges = [address.network(), address.broadcast()];
        if address.prefix_len() < 31 && edges.contains(&address.addr()) {
            return Err(Unfit::NotAHost(address));
        }
        let server = answer.server.filter(|server| is_host(*server)).ok_or(Unfit::Server)?;
        let seconds = answer.lease.filter(|seconds| *seconds >= SHORTEST).ok_or(Unfit::Time)?;
        let (renewal, rebinding) = times(answer, seconds);
        let mtu = answer.mtu.filter(|mtu| *mtu >= SMALLEST_MTU).map(u32::from);
        Ok(Self { address, server, seconds, renewal, rebinding, routes: routes(answer, address), mtu })
    }
}

/// Those of the answer where they are in order, else those of RFC 2131 section 4.4.5.
fn times(answer: &Answer, seconds: u32) -> (u32, u32) {
    let default = (seconds / 2, (u64::from(seconds) * 7 / 8) as u32);
    match (answer.renewal, answer.rebinding) {
        (Some(renewal), Some(rebinding))
            if SHORTEST_RENEWAL <= renewal && renewal < rebinding && rebinding < seconds =>
        {
            (renewal, rebinding)
        }
        (Some(renewal), None) if (SHORTEST_RENEWAL..default.1).contains(&renewal) => (renewal, default.1),
        (None, Some(rebinding)) if default.0 < rebinding && rebinding < seconds => (default.0, rebinding),
        _ => default,
    }
}

/// Classless routes, or else the router (RFC 3442), no two to one destination.
fn routes(answer: &Answer, address: Ipv4Net) -> Vec<LeaseRoute> {
    let said = match &answer.classless_routes {
        Some(routes) => routes.clone(),
        None => answer.router.map(|router| (Ipv4Net::default(), router)).into_iter().collect(),
    };
    let mut routes: Vec<LeaseRoute> = Vec::new();
    for (destination, next_hop) in said {
        let gateway = (!next_hop.is_unspecified()).then_some(next_hop);
        let known = routes.iter().any(|route| route.destination == destination);
        let by_itself = gateway == Some(address.addr());
        if !known && !by_itself && is_destination(destination) && gateway.is_none_or(is_host) {
            routes.push(LeaseRoute { destination, gateway });
        }
    }
    routes
}

/// Everything, or a network of hosts.
fn is_destination(net: Ipv4Net) -> bool {
    // 0.0.0.0/1 and the like are two halves of everything; what is multicast or loopback is on no way.
    net.prefix_len() == 0 || net.addr().is_unspecified() && net.prefix_len() < 8 || is_host(net.addr())
}

/// An address that a host can have, be it for this link alone.
fn is_host(address: Ipv4Addr) -> bool {
    // 240.0.0.0/4 is reserved, and ends with the broadcast address.
    let [first, ..] = address.octets();
    first != 0 && first < 224 && !address.is_loopback()
}
