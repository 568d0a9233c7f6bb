//! `[networks]`: the networks that load balancers may be in, one option each.
//!
//! ```text
//! [networks]
//! public = 203.0.113.0/24, 2001:db8::/64
//! ```
//!
//! Each prefix is a subnet, whose first address is the host's own and the gateway. A network keeps its id, and so do its
//! subnets, for as long as name and prefix stay: ids are made of them.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use amphora_ini::reader::{Reader, error};
use aws_lc_rs::digest::{SHA256, digest};
use uuid::{Builder, Uuid};

use super::{ConfigError, allocation_pools::AllocationPool};

/// The section.
const SECTION: &str = "networks";

/// What there is when the files name none.
const DEFAULT: (&str, &str) = ("lb-network", "10.250.0.0/24");

/// One network: a bridge of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Made of its name.
    pub id: Uuid,
    /// The option's name.
    pub name: String,
    /// Its subnets, at least one.
    pub subnets: Vec<Subnet>,
}

/// A prefix of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Made of the network's name and the prefix.
    pub id: Uuid,
    /// Its first address, with all bits of the host cleared.
    pub prefix: IpAddr,
    /// Its length in bits.
    pub length: u8,
    /// Of which addresses are handed out to who asks for none, the least first: those that `[allocation_pools]` names, or all.
    pub allocation_pools: Vec<AllocationPool>,
}

impl Subnet {
    /// Reads `address/length`.
    fn parse(network: &str, text: &str) -> Result<Self, String> {
        let wrong = || format!("not a prefix, like 203.0.113.0/24: {text:?}");
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let prefix: IpAddr = address.parse().map_err(|_| wrong())?;
        let length: u8 = length.parse().map_err(|_| wrong())?;
        let (least, most) = if prefix.is_ipv4() { (8, 29) } else { (32, 125) };
        if !(least..=most).contains(&length) {
            return Err(format!("a prefix of {prefix} has {least} to {most} bits: {text:?}"));
        }
        let mut this =
            Self { id: id(&["subnet", network, text]), prefix, length, allocation_pools: Vec::new() };
        if this.address(0) != prefix {
            return Err(format!("bits behind the prefix: {text:?}; {}/{length} is one", this.address(0)));
        }
        if prefix.is_loopback() || prefix.is_multicast() || prefix.is_unspecified() {
            return Err(format!("no host has an address of {text:?}"));
        }
        this.allocation_pools = vec![this.whole()];
        Ok(this)
    }

    /// The host's own address, and the gateway of others: the first one.
    pub fn gateway(&self) -> IpAddr {
        self.address(1)
    }

    /// How many addresses there are, at most 2^32.
    pub fn size(&self) -> u64 {
        1 << (u32::from(self.bits() - self.length)).min(32)
    }

    /// The address number `n`; the last ones are above what [`size`](Self::size) tells in large subnets of IPv6.
    pub fn address(&self, n: u64) -> IpAddr {
        match self.prefix {
            IpAddr::V4(prefix) => {
                let mask = u32::MAX.checked_shl(u32::from(32 - self.length)).unwrap_or(0);
                let n = u32::try_from(n).unwrap_or(u32::MAX);
                IpAddr::V4(Ipv4Addr::from_bits((prefix.to_bits() & mask).wrapping_add(n)))
            }
            IpAddr::V6(prefix) => {
                let mask = u128::MAX.checked_shl(u32::from(128 - self.length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits((prefix.to_bits() & mask).wrapping_add(u128::from(n))))
            }
        }
    }

    /// All that hosts behind the gateway may have.
    fn whole(&self) -> AllocationPool {
        let end = match self.prefix {
            IpAddr::V4(_) => self.address(self.size() - 2),
            IpAddr::V6(prefix) => {
                let host = u128::MAX.checked_shr(u32::from(self.length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(prefix.to_bits() | host))
            }
        };
        AllocationPool { start: self.address(2), end }
    }

    /// The least address of the allocation pools that nobody has.
    pub fn free(&self, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
        // Of `n` addresses one of the first `n + 1` is free, or none.
        let mut candidates =
            self.allocation_pools.iter().flat_map(AllocationPool::addresses).take(taken.len() + 1);
        candidates.find(|address| !taken.contains(address))
    }

    /// Where addresses are handed out of: the prefix, and its pools where they are not all of it.
    pub fn handed_out(&self) -> String {
        if self.allocation_pools == [self.whole()] {
            return self.cidr();
        }
        let pools: Vec<_> = self.allocation_pools.iter().map(ToString::to_string).collect();
        format!("the allocation_pools of {}, {},", self.cidr(), pools.join(", "))
    }

    /// Whether an address is within, and one that a host may have.
    pub fn has_host(&self, address: IpAddr) -> bool {
        match (self.prefix, address) {
            (IpAddr::V4(prefix), IpAddr::V4(address)) => {
                let host = address.to_bits() ^ prefix.to_bits();
                host > 0 && u64::from(host) < self.size() - 1
            }
            (IpAddr::V6(prefix), IpAddr::V6(address)) => {
                let host = address.to_bits() ^ prefix.to_bits();
                host > 0 && host.leading_zeros() >= u32::from(self.length)
            }
            _ => false,
        }
    }

    /// As `203.0.113.0/24`.
    pub fn cidr(&self) -> String {
        format!("{}/{}", self.prefix, self.length)
    }

    fn bits(&self) -> u8 {
        if self.prefix.is_ipv4() { 32 } else { 128 }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let (wide, narrow) = if self.length <= other.length { (self, other) } else { (other, self) };
        wide.prefix.is_ipv4() == narrow.prefix.is_ipv4()
            && (wide.prefix == narrow.prefix || wide.has_host(narrow.prefix))
    }
}

/// An id that follows from names (RFC 9562 section 5.8, of a SHA-256).
pub fn id(names: &[&str]) -> Uuid {
    let digest = digest(&SHA256, names.join("\0").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_ref()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

/// All of them.
pub(super) fn read(read: &Reader<'_>) -> Result<Vec<Network>, ConfigError> {
    let mut names: Vec<&str> = Vec::new();
    for assignment in read.ini.assignments().iter().filter(|assignment| assignment.section == SECTION) {
        if !names.contains(&assignment.name.as_str()) {
            names.push(&assignment.name);
        }
    }
    if names.is_empty() {
        let network =
            network(DEFAULT.0, DEFAULT.1).map_err(|reason| error(SECTION, DEFAULT.0, None, reason))?;
        return Ok(vec![network]);
    }
    let mut networks: Vec<Network> = Vec::new();
    for name in names {
        let new = read.required(SECTION, name, |text| {
            let new = network(name, text)?;
            for other in networks.iter().flat_map(|network| &network.subnets) {
                if let Some(subnet) = new.subnets.iter().find(|subnet| subnet.overlaps(other)) {
                    return Err(format!("{} overlaps {}", subnet.cidr(), other.cidr()));
                }
            }
            Ok(new)
        })?;
        networks.push(new);
    }
    Ok(networks)
}

/// The network of machines' management: one prefix, which no load balancer may be in.
pub(super) fn management(text: &str, others: &[Network]) -> Result<Network, String> {
    const NAME: &str = "management";
    let subnet = Subnet::parse(NAME, text)?;
    if let Some(other) =
        others.iter().flat_map(|network| &network.subnets).find(|other| other.overlaps(&subnet))
    {
        return Err(format!("{} overlaps {}", subnet.cidr(), other.cidr()));
    }
    Ok(Network { id: id(&[NAME]), name: NAME.to_owned(), subnets: vec![subnet] })
}

fn network(name: &str, text: &str) -> Result<Network, String> {
    let mut subnets: Vec<Subnet> = Vec::new();
    for prefix in super::list(text) {
        let subnet = Subnet::parse(name, &prefix)?;
        if let Some(other) = subnets.iter().find(|other| other.overlaps(&subnet)) {
            return Err(format!("{} overlaps {}", subnet.cidr(), other.cidr()));
        }
        subnets.push(subnet);
    }
    if subnets.is_empty() {
        return Err("has no prefix".to_owned());
    }
    Ok(Network { id: id(&["network", name]), name: name.to_owned(), subnets })
}
