//! `allowed_cidrs`, compiled.

use std::net::IpAddr;

use ipnet::IpNet;

/// Who may connect. An empty list of CIDRs allows everyone.
#[derive(Clone, Debug, Default)]
pub struct AccessList {
    open: bool,
    /// Inclusive ranges, sorted and merged, so that a look-up is a binary search.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl AccessList {
    /// Compiles a listener's `allowed_cidrs`.
    pub fn new(cidrs: &[IpNet]) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for cidr in cidrs {
            match cidr {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self { open: cidrs.is_empty(), v4: merged(v4), v6: merged(v6) }
    }

    /// Whether a client at this address may connect.
    #[inline]
    pub fn allows(&self, client: IpAddr) -> bool {
        self.open
            || match client.to_canonical() {
                IpAddr::V4(ip) => contains(&self.v4, ip.to_bits()),
                IpAddr::V6(ip) => contains(&self.v6, ip.to_bits()),
            }
    }

    /// Whether everyone may connect.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether whoever may connect by the other may by this; no where it would take ranges that touch.
    pub fn allows_all_of(&self, other: &Self) -> bool {
        self.open || (!other.open && covers(&self.v4, &other.v4) && covers(&self.v6, &other.v6))
    }
}

fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut out: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match out.last_mut() {
            // CIDRs nest or are disjoint, so touching ranges need not be joined for the search to be right.
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => out.push((start, end)),
        }
    }
    out
}

fn contains<T: Ord + Copy>(ranges: &[(T, T)], ip: T) -> bool {
    let after = ranges.partition_point(|range| range.0 <= ip);
    after > 0 && ip <= ranges[after - 1].1
}

fn covers<T: Ord + Copy>(ranges: &[(T, T)], others: &[(T, T)]) -> bool {
    others.iter().all(|(start, end)| {
        let after = ranges.partition_point(|range| range.0 <= *start);
        after > 0 && *end <= ranges[after - 1].1
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn empty_allows_everyone() {
        assert!(AccessList::new(&[]).allows("192.0.2.1".parse().unwrap()));
        assert!(AccessList::new(&[]).allows("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn more_is_told_from_less() {
        let list =
            |cidrs: &[&str]| AccessList::new(&cidrs.iter().map(|c| c.parse().unwrap()).collect::<Vec<_>>());
        let (all, both, one) = (list(&[]), list(&["10.0.0.0/8", "2001:db8::/32"]), list(&["10.1.0.0/16"]));
        for (wide, narrow) in [(&all, &both), (&both, &one), (&all, &one)] {
            assert!(wide.allows_all_of(narrow) && wide.allows_all_of(wide) && !narrow.allows_all_of(wide));
        }
        assert!(
            !one.allows_all_of(&list(&["10.2.0.0/16"]))
                && !one.allows_all_of(&list(&["10.1.0.0/16", "::/0"]))
        );
    }

    #[test]
    fn one_family_does_not_open_the_other() {
        let list = AccessList::new(&["192.0.2.0/24".parse().unwrap()]);
        assert!(list.allows("192.0.2.255".parse().unwrap()));
        assert!(list.allows("::ffff:192.0.2.1".parse().unwrap()));
        assert!(!list.allows("192.0.3.0".parse().unwrap()));
        assert!(!list.allows("2001:db8::1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_search(
            nets in prop::collection::vec((any::<u32>(), 0u8..=32), 1..20),
            client in any::<u32>(),
            near in 0usize..20,
            offset in -2i64..=2,
        ) {
            let nets: Vec<IpNet> = nets
                .iter()
                .map(|(bits, len)| IpNet::new(IpAddr::V4((*bits).into()), *len).unwrap().trunc())
                .collect();
            let edge = match nets[near % nets.len()] {
                IpNet::V4(net) => i64::from(net.broadcast().to_bits()),
                IpNet::V6(_) => unreachable!(),
            };
            let list = AccessList::new(&nets);
            for bits in [client, (edge + offset).clamp(0, i64::from(u32::MAX)) as u32] {
                let ip = IpAddr::V4(bits.into());
                prop_assert_eq!(list.allows(ip), nets.iter().any(|net| net.contains(&ip)));
            }
        }
    }
}
