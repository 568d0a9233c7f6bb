//! `[allocation_pools]`: of which addresses of its subnets a network hands out those that nobody asks for, as Neutron calls it.
//!
//! ```text
//! [networks]
//! members = 10.1.0.0/24, 2001:db8:1::/64
//! [allocation_pools]
//! members = 10.1.0.128-10.1.0.254, 2001:db8:1::100-2001:db8:1::1ff
//! ```
//!
//! A range is of the subnet that has it. A subnet that none is of hands out all that it has.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use amphora_ini::reader::{Reader, error};

use super::{ConfigError, Network, Subnet, list};

/// The section. Its options are called as networks are.
const SECTION: &str = "allocation_pools";

/// A range of addresses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AllocationPool {
    /// The least.
    pub start: IpAddr,
    /// The greatest.
    pub end: IpAddr,
}

impl AllocationPool {
    /// Reads `start-end`.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("not a range of addresses, like 203.0.113.100-203.0.113.199: {text:?}");
        let (start, end) = text.split_once('-').ok_or_else(wrong)?;
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
        let this = Self { start: address(start)?, end: address(end)? };
        if this.start.is_ipv4() != this.end.is_ipv4() {
            return Err(wrong());
        }
        if this.start > this.end {
            return Err(format!("{this} ends before it begins"));
        }
        Ok(this)
    }

    /// All of them, the least first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v4 = self.start.is_ipv4();
        let address = move |bits: u128| match u32::try_from(bits) {
            Ok(bits) if v4 => IpAddr::V4(Ipv4Addr::from_bits(bits)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        };
        (bits(self.start)..=bits(self.end)).map(address)
    }

    fn has(&self, address: IpAddr) -> bool {
        self.start.is_ipv4() == address.is_ipv4() && self.start <= address && address <= self.end
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.has(other.start) || other.has(self.start)
    }
}

impl fmt::Display for AllocationPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Gives subnets the pools that the files name.
pub(super) fn read(read: &Reader<'_>, networks: &mut [Network]) -> Result<(), ConfigError> {
    for assignment in read.ini.assignments().iter().filter(|assignment| assignment.section == SECTION) {
        let name = assignment.name.as_str();
        let Some(network) = networks.iter_mut().find(|network| network.name == name) else {
            let reason = "there is no such network in [networks]".to_owned();
            return Err(error(SECTION, name, Some(assignment.place.clone()), reason));
        };
        let pools = read.required(SECTION, name, |text| pools(network, text))?;
        for (subnet, own) in network.subnets.iter_mut().zip(pools) {
            if !own.is_empty() {
                subnet.allocation_pools = own;
            }
        }
    }
    Ok(())
}

/// The pools of each subnet of a network, the least first.
fn pools(network: &Network, text: &str) -> Result<Vec<Vec<AllocationPool>>, String> {
    let mut pools = vec![Vec::new(); network.subnets.len()];
    for text in list(text) {
        let pool = AllocationPool::parse(&text)?;
        let has = |subnet: &Subnet| subnet.has_host(pool.start) && subnet.has_host(pool.end);
        let found = network.subnets.iter().zip(&mut pools).find(|(subnet, _)| has(subnet));
        let Some((subnet, own)) = found else {
            let all: Vec<_> = network.subnets.iter().map(Subnet::cidr).collect();
            return Err(format!("{pool} is not within the hosts of {}", all.join(" or of ")));
        };
        if pool.has(subnet.gateway()) {
            return Err(format!("{pool} has {}, which is this host's own and the gateway", subnet.gateway()));
        }
        if let Some(other) = own.iter().find(|other| pool.overlaps(other)) {
            return Err(format!("{pool} overlaps {other}"));
        }
        own.push(pool);
        own.sort_unstable();
    }
    if pools.iter().all(Vec::is_empty) {
        return Err("has no range".to_owned());
    }
    Ok(pools)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::{BTreeSet, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::serve::config::Config;

    const NETWORKS: &str =
        "[networks]\na = 192.0.2.0/24, 2001:db8::/64, 198.51.100.0/24\nb = 203.0.113.0/24\n";

    fn subnets(pools: &str) -> Vec<Subnet> {
        let config = Config::parse(&format!("{NETWORKS}[allocation_pools]\na = {pools}\n")).unwrap();
        config.networks.into_iter().flat_map(|network| network.subnets).collect()
    }

    #[test]
    fn a_pool_is_of_the_subnet_that_has_it() {
        let all = subnets("192.0.2.200 - 192.0.2.209, 2001:db8::5:0-2001:db8::5:ffff,192.0.2.2-192.0.2.2");
        let told: Vec<Vec<String>> = all
            .iter()
            .map(|subnet| subnet.allocation_pools.iter().map(ToString::to_string).collect())
            .collect();
        assert_eq!(
            told,
            [
                vec!["192.0.2.2-192.0.2.2", "192.0.2.200-192.0.2.209"],
                vec!["2001:db8::5:0-2001:db8::5:ffff"],
                vec!["198.51.100.2-198.51.100.254"],
                vec!["203.0.113.2-203.0.113.254"],
            ]
        );
        let taken = HashSet::from(["192.0.2.2", "192.0.2.3", "192.0.2.200"].map(|one| one.parse().unwrap()));
        assert_eq!(all[0].free(&taken).unwrap().to_string(), "192.0.2.201");
        assert_eq!(all[1].free(&taken).unwrap().to_string(), "2001:db8::5:0");
        let config = Config::parse("[allocation_pools]\nlb-network = 10.250.0.9-10.250.0.10\n").unwrap();
        assert_eq!(config.networks[0].subnets[0].free(&HashSet::new()).unwrap().to_string(), "10.250.0.9");
        assert_eq!(config.remarks, [""; 0]);
    }

    #[test]
    fn a_pool_that_cannot_be_is_refused_with_its_place() {
        for (pools, reason) in [
            ("192.0.2.9", "not a range of addresses, like 203.0.113.100-203.0.113.199: \"192.0.2.9\""),
            ("192.0.2.9-x", "not a range"),
            ("192.0.2.9-2001:db8::9", "not a range"),
            ("192.0.2.9-192.0.2.8", "192.0.2.9-192.0.2.8 ends before it begins"),
            (
                "203.0.113.5-203.0.113.9",
                "is not within the hosts of 192.0.2.0/24 or of 2001:db8::/64 or of 198.51.100.0/24",
            ),
            ("192.0.2.250-192.0.3.5", "is not within the hosts of"),
            ("192.0.2.5-198.51.100.9", "is not within the hosts of"),
            ("192.0.2.0-192.0.2.9", "is not within the hosts of"),
            ("192.0.2.200-192.0.2.255", "is not within the hosts of"),
            ("2001:db8::9-2001:db8:0:1::", "is not within the hosts of"),
            ("192.0.2.1-192.0.2.9", "192.0.2.1-192.0.2.9 has 192.0.2.1, which is this host's own"),
            ("2001:db8::1-2001:db8::9", "has 2001:db8::1, which is this host's own"),
            (
                "192.0.2.5-192.0.2.9, 192.0.2.9-192.0.2.12",
                "192.0.2.9-192.0.2.12 overlaps 192.0.2.5-192.0.2.9",
            ),
            (
                "192.0.2.5-192.0.2.9, 192.0.2.2-192.0.2.20",
                "192.0.2.2-192.0.2.20 overlaps 192.0.2.5-192.0.2.9",
            ),
            ("2001:db8::5-2001:db8::9, 2001:db8::6-2001:db8::6", "overlaps"),
            ("", "has no range"),
        ] {
            let told = Config::parse(&format!("{NETWORKS}[allocation_pools]\na = {pools}\n")).unwrap_err();
            let told = told.to_string();
            assert!(told.contains(reason), "{pools:?}: {told}");
            assert!(told.contains("line 5: [allocation_pools] a: "), "{pools:?}: {told}");
        }
        let told =
            Config::parse(&format!("{NETWORKS}[allocation_pools]\nc = 192.0.2.5-192.0.2.6\n")).unwrap_err();
        assert!(
            told.to_string()
                .ends_with("line 5: [allocation_pools] c: there is no such network in [networks]")
        );
    }

    proptest! {
        #[test]
        fn what_is_free_is_the_least_of_the_pools_that_nobody_has(
            ends in prop::collection::btree_set(2_u8..255, 2..12),
            taken in prop::collection::hash_set(0_u8.., 0..256),
            v6: bool,
        ) {
            let address = |n: u8| if v6 { format!("2001:db8::{n:x}") } else { format!("192.0.2.{n}") };
            let ends: Vec<u8> = ends.into_iter().collect();
            let pairs: Vec<(u8, u8)> = ends.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            // In whatever order they are said.
            let text: Vec<_> = pairs.iter().rev().map(|(start, end)| format!("{}-{}", address(*start), address(*end))).collect();
            let all = subnets(&text.join(", "));
            let subnet = &all[usize::from(v6)];
            let within: BTreeSet<u8> = pairs.iter().flat_map(|(start, end)| *start..=*end).collect();
            let expected = within.iter().find(|n| !taken.contains(n)).map(|n| address(*n));
            let taken: HashSet<IpAddr> = taken.into_iter().map(|n| address(n).parse().unwrap()).collect();
            prop_assert_eq!(subnet.free(&taken).map(|found| found.to_string()), expected);
        }
    }
}
