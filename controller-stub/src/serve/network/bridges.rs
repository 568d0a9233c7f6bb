//! Networks as bridges of this host: one each, which has the gateways of its subnets, so that the host is in every network.

use std::{collections::BTreeSet, net::IpAddr};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};
use uuid::Uuid;

use super::links::Shown;
use crate::{
    error::{Error, Result},
    failpoint::reach,
    host::{interfaces, ip_batch},
    serve::config::Network,
};

/// What the bridge of a network is called: of 15 characters, as long as a name may be.
pub fn name(network: &Uuid) -> String {
    format!("lb{}", &network.simple().to_string()[..13])
}

/// Makes the bridge of each network as it is to be, and removes those that `instance` has made and nobody needs: neither these
/// networks nor `used`, the networks of rows. Blocks.
///
/// # Errors
/// This host does not permit it, is in one of them already, or something else has the name.
pub fn make(networks: &[&Network], used: &BTreeSet<String>, instance: &str) -> Result<Made> {
    let mark = mark(instance);
    let bridges = interfaces(Some("bridge"))?;
    let wanted: BTreeSet<String> = networks.iter().map(|network| name(&network.id)).collect();
    let own = bridges.iter().filter(|(_, alias)| *alias == mark).map(|(name, _)| name);
    in_the_way(networks, &own.chain(&wanted).collect(), addresses()?)?;
    let mut commands = Vec::new();
    let mut made = Made { bridges: BTreeSet::new(), mark: mark.clone() };
    for network in networks {
        let name = name(&network.id);
        let there = bridges.iter().any(|(other, _)| *other == name);
        commands.extend(commands_for(network, there, &mark));
        if !there {
            made.bridges.insert(name);
        }
    }
    let of_rows: BTreeSet<String> =
        used.iter().filter_map(|id| Uuid::parse_str(id).ok()).map(|id| name(&id)).collect();
    let left = bridges.iter().filter(|(_, alias)| *alias == mark).map(|(name, _)| name);
    let left = left.filter(|name| !wanted.contains(*name) && !of_rows.contains(*name));
    commands.extend(left.map(|name| format!("link delete {name}")));
    reach("bridges");
    ip_batch(&commands)?;
    reach("bridges.done");
    Ok(made)
}

/// Bridges that a start has made. They go with the value, for a start that fails leaves nothing; unless they are kept.
#[derive(Debug)]
#[must_use]
pub struct Made {
    bridges: BTreeSet<String>,
    mark: String,
}

impl Made {
    /// They stay.
    pub fn keep(mut self) {
        self.bridges.clear();
    }

    fn delete(&self) -> Result<()> {
        // What else has such a name, which may be why it failed, is not touched.
        let there = interfaces(Some("bridge"))?;
        let own = there.iter().filter(|(name, alias)| *alias == self.mark && self.bridges.contains(name));
        ip_batch(&own.map(|(name, _)| format!("link delete {name}")).collect::<Vec<_>>())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if !self.bridges.is_empty()
            && let Err(error) = self.delete()
        {
            tracing::warn!(%error, "bridges of a start that fails stay");
        }
    }
}

/// The addresses of this host with the lengths of their prefixes, by interface.
fn addresses() -> Result<impl Iterator<Item = (String, IpAddr, u32)>> {
    let addresses = getifaddrs().map_err(|e| Error::local("the addresses of this host", e))?;
    Ok(addresses.filter_map(|one| {
        let ip = |storage: SockaddrStorage| {
            let v4 = storage.as_sockaddr_in().map(|at| IpAddr::V4(at.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|at| IpAddr::V6(at.ip())))
        };
        let length = match ip(one.netmask?)? {
            IpAddr::V4(mask) => mask.to_bits().count_ones(),
            IpAddr::V6(mask) => mask.to_bits().count_ones(),
        };
        Some((one.interface_name, ip(one.address?)?, length))
    }))
}

/// Refuses networks that this host is in already, by others than its `own` interfaces: it would have two ways there, and its gateway's
/// address might become its own.
fn in_the_way(
    networks: &[&Network],
    own: &BTreeSet<&String>,
    addresses: impl Iterator<Item = (String, IpAddr, u32)>,
) -> Result<()> {
    let subnets =
        || networks.iter().flat_map(|network| network.subnets.iter().map(move |subnet| (network, subnet)));
    for (interface, address, length) in addresses.filter(|(interface, ..)| !own.contains(interface)) {
        let found =
            subnets().find(|(_, subnet)| is_common(subnet.prefix, address, length.min(subnet.length.into())));
        if let Some((network, subnet)) = found {
            return Err(Error::Usage(format!(
                "network {}: this host is in {} already, {interface} has {address}/{length}: choose another prefix",
                network.name,
                subnet.cidr(),
            )));
        }
    }
    Ok(())
}

/// Whether the first bits of two addresses are the same.
fn is_common(one: IpAddr, other: IpAddr, bits: u32) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros() >= bits,
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros() >= bits,
        _ => false,
    }
}

/// The bridges of networks, which are to be there all the time.
#[derive(Clone, Debug)]
pub struct Bridges {
    /// The networks.
    pub networks: Vec<Network>,
    /// Who makes them.
    pub instance: String,
}

impl Bridges {
    /// Brings those to what they are to be that are shown otherwise, and names them. What fails is said. Blocks.
    pub(super) fn mend(&self, shown: &Shown) -> BTreeSet<String> {
        let mark = mark(&self.instance);
        let mut mended = BTreeSet::new();
        for network in &self.networks {
            let name = name(&network.id);
            if shown.is_up_with(&name, gateways(network)) {
                continue;
            }
            tracing::warn!(
                network = network.name,
                bridge = name,
                "a bridge is not as it is to be: it is made so"
            );
            match ip_batch(&commands_for(network, shown.has(&name), &mark)) {
                Ok(()) => drop(mended.insert(name)),
                Err(error) => tracing::error!(bridge = name, %error, "a bridge is not as it is to be"),
            }
        }
        mended
    }
}

fn mark(instance: &str) -> String {
    format!("amphora-controller {instance}")
}

/// The addresses of a bridge, with the lengths of their prefixes.
fn gateways(network: &Network) -> impl Iterator<Item = (IpAddr, u8)> {
    network.subnets.iter().map(|subnet| (subnet.gateway(), subnet.length))
}

/// What brings a bridge from whatever it is to what it is to be.
fn commands_for(network: &Network, there: bool, mark: &str) -> Vec<String> {
    let name = name(&network.id);
    let [a, b, c, ..] = *network.id.as_bytes();
    let mut commands = Vec::new();
    if !there {
        // Its own address: else it is that of the port with the least one, and changes with the ports.
        commands.push(format!(
            "link add {name} address fa:16:3f:{a:02x}:{b:02x}:{c:02x} type bridge forward_delay 0 mcast_snooping 0"
        ));
    }
    commands.push(format!("link set {name} alias \"{mark}\" up"));
    for (gateway, length) in gateways(network) {
        let at_once = if gateway.is_ipv6() { " nodad" } else { "" };
        commands.push(format!("address replace {gateway}/{length} dev {name}{at_once}"));
    }
    commands
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::serve::config::Config;

    #[test]
    fn a_bridge_is_brought_to_what_it_is_to_be() {
        let config = Config::parse("[networks]\na = 192.0.2.0/24, 2001:db8::/64\n").unwrap();
        let network = &config.networks[0];
        let name = name(&network.id);
        assert_eq!(name.len(), 15);
        let commands = commands_for(network, true, "m");
        assert_eq!(
            commands,
            [
                format!("link set {name} alias \"m\" up"),
                format!("address replace 192.0.2.1/24 dev {name}"),
                format!("address replace 2001:db8::1/64 dev {name} nodad"),
            ]
        );
        assert!(commands_for(network, false, "m")[0].starts_with(&format!("link add {name} ")));
    }

    #[test]
    fn where_the_host_is_already_is_no_network_of_ours() {
        let config = Config::parse("[networks]\na = 192.0.2.64/26, 2001:db8::/64\n").unwrap();
        let networks = [&config.networks[0]];
        let bridge = name(&config.networks[0].id);
        let judge = |interface: &str, address: &str, length: u32| {
            let address = (interface.to_owned(), address.parse().unwrap(), length);
            in_the_way(&networks, &BTreeSet::from([&bridge]), [address].into_iter())
        };
        for (address, length) in
            [("192.0.2.70", 26), ("192.0.2.70", 32), ("192.0.2.5", 24), ("2001:db8::1:2", 64)]
        {
            let error = judge("eth0", address, length).unwrap_err().to_string();
            assert!(error.contains(&format!("eth0 has {address}/{length}")), "{error}");
            judge(&bridge, address, length).unwrap();
        }
        for (address, length) in
            [("192.0.2.5", 26), ("192.0.3.70", 24), ("2001:db8:0:1::2", 64), ("127.0.0.1", 8)]
        {
            judge("eth0", address, length).unwrap();
        }
    }

    /// In a network namespace of this thread's own.
    #[test]
    fn a_start_that_fails_leaves_what_was_there_and_nothing_else() {
        if !nix::unistd::geteuid().is_root() || unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return eprintln!("SKIPPED: no network namespaces here");
        }
        let config = Config::parse("[networks]\na = 198.18.0.0/24\nb = 198.18.1.0/24\n").unwrap();
        let networks: Vec<&Network> = config.networks.iter().collect();
        let [a, b] = [0, 1].map(|n: usize| name(&networks[n].id));
        let there = || {
            let all = interfaces(None).unwrap().into_iter().map(|(name, _)| name);
            all.filter(|name| *name != "lo").collect::<BTreeSet<_>>()
        };
        drop(make(&networks, &BTreeSet::new(), "one").unwrap());
        assert_eq!(there(), BTreeSet::new());
        make(&networks[..1], &BTreeSet::new(), "one").unwrap().keep();
        drop(make(&networks, &BTreeSet::new(), "one").unwrap());
        assert_eq!(there(), BTreeSet::from([a.clone()]), "it was there before");

        // Something else has the name.
        ip_batch(&[format!("link delete {a}"), format!("link add {b} type veth peer name p9")]).unwrap();
        make(&networks, &BTreeSet::new(), "one").unwrap_err();
        assert_eq!(there(), BTreeSet::from([b.clone(), "p9".to_owned()]));
        // The host is there already, by an interface of somebody else's.
        ip_batch(&[
            format!("link delete {b}"),
            "link add eth9 type bridge".to_owned(),
            "address add 198.18.1.7/24 dev eth9".to_owned(),
        ])
        .unwrap();
        let refused = make(&networks, &BTreeSet::new(), "one").unwrap_err().to_string();
        assert!(refused.contains("network b") && refused.contains("eth9 has 198.18.1.7/24"), "{refused}");
        assert_eq!(there(), BTreeSet::from(["eth9".to_owned()]));
    }
}
