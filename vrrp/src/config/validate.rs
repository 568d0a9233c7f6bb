//! What no parser alone can see: things that must not be together. Both texts go through it.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::{Instance, Preempt, RouteScope, VirtualAddress};
use crate::packet::{Auth, Family, MAX_ADDRESSES, Version};

/// The longest name of an instance, in octets.
const MAX_NAME: usize = 255;
/// Virtual routers of one daemon. Octavia renders one, or one for each family.
pub(super) const MAX_INSTANCES: usize = 32;
/// Addresses of all virtual routers, advertised or not; as many routes; as many rules. One thread takes and gives up, and
/// announces, all of them between two advertisements.
pub(super) const MAX_HOLDINGS: usize = 512;
/// The priority of who owns the addresses (RFC 9568 section 6.1).
const OWNER: u8 = 255;

/// A part of an instance. Each text has a name of its own for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Field {
    /// The instance as a whole.
    Instance,
    /// `virtual_router_id`.
    Vrid,
    /// `accept`.
    Accept,
    /// `nopreempt`.
    Preempt,
    /// `preempt_delay`.
    PreemptDelay,
    /// `auth_pass`.
    Password,
    /// `unicast_src_ip`.
    UnicastSource,
    /// `unicast_peer`, each.
    UnicastPeers,
    /// `virtual_ipaddress`, each.
    Addresses,
    /// `virtual_ipaddress_excluded`, each.
    Excluded,
    /// `virtual_routes`, each.
    Routes,
    /// `virtual_rules`, each.
    Rules,
    /// `track_interface`, each.
    TrackInterfaces,
}

/// A fault, before a parser says where that is in its text.
#[derive(Debug)]
pub(super) struct Problem {
    /// Of the instances that were given.
    pub(super) instance: usize,
    /// Which part of it.
    pub(super) field: Field,
    /// Which one, where there are several.
    pub(super) index: Option<usize>,
    /// What is wrong.
    pub(super) reason: String,
}

/// Everything that is wrong with these instances.
pub(super) fn check(instances: &[&Instance]) -> Vec<Problem> {
    let mut problems = Problems { instance: 0, list: Vec::new() };
    let mut names = HashSet::new();
    let mut routers = HashMap::new();
    for (index, instance) in instances.iter().enumerate() {
        problems.instance = index;
        problems.name(&instance.name);
        if !names.insert(&instance.name) {
            problems.add(
                Field::Instance,
                None,
                format!("{:?} is the name of another instance", instance.name),
            );
        }
        let router = (&instance.interface, instance.family, instance.vrid);
        if let Some(other) = routers.insert(router, &instance.name) {
            let reason =
                format!("{other:?} has the virtual router {} on {}", instance.vrid, instance.interface);
            problems.add(Field::Vrid, None, reason);
        }
        problems.modes(instance);
        problems.addresses(instance);
        problems.unicast(instance);
        problems.routes(instance);
        problems.track_interfaces(instance);
    }
    problems.bounds(instances);
    problems.list
}

struct Problems {
    instance: usize,
    list: Vec<Problem>,
}

impl Problems {
    fn add(&mut self, field: Field, index: Option<usize>, reason: impl Into<String>) {
        self.list.push(Problem { instance: self.instance, field, index, reason: reason.into() });
    }

    /// What is too much in all: one fault of each kind, at the first that is too many.
    fn bounds(&mut self, instances: &[&Instance]) {
        if instances.len() > MAX_INSTANCES {
            self.instance = MAX_INSTANCES;
            let reason = format!("more than {MAX_INSTANCES} virtual routers in all");
            self.add(Field::Instance, None, reason);
        }
        type Part = (Field, fn(&Instance) -> usize);
        let kinds: [(&str, &[Part]); 3] = [
            (
                "addresses",
                &[(Field::Addresses, |it| it.addresses.len()), (Field::Excluded, |it| it.excluded.len())],
            ),
            ("routes", &[(Field::Routes, |it| it.routes.len())]),
            ("rules", &[(Field::Rules, |it| it.rules.len())]),
        ];
        for (what, parts) in kinds {
            let lists = instances.iter().enumerate();
            let lists =
                lists.flat_map(|(index, it)| parts.iter().map(move |(field, len)| (index, *field, len(it))));
            let mut room = MAX_HOLDINGS;
            for (index, field, len) in lists {
                if len > room {
                    self.instance = index;
                    self.add(field, Some(room), format!("more than {MAX_HOLDINGS} {what} in all"));
                    break;
                }
                room -= len;
            }
        }
    }

    fn name(&mut self, name: &str) {
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            let reason = format!("the name must be 1 to {MAX_NAME} octets without control characters");
            self.add(Field::Instance, None, reason);
        }
    }

    fn modes(&mut self, instance: &Instance) {
        if !instance.accept {
            self.add(Field::Accept, None, "a load balancer must accept packets to its addresses");
        }
        match instance.preempt {
            Preempt::Never if instance.priority == OWNER => {
                self.add(Field::Preempt, None, "whoever owns the addresses (priority 255) must preempt");
            }
            Preempt::Never if instance.initially_master => {
                self.add(Field::Preempt, None, "whoever starts as master must preempt");
            }
            Preempt::After(delay) if !delay.is_zero() && instance.initially_master => {
                self.add(
                    Field::PreemptDelay,
                    None,
                    "whoever starts as master cannot wait before it preempts",
                );
            }
            Preempt::Never | Preempt::After(_) => {}
        }
        let Auth::Password(password) = instance.auth else { return };
        match (instance.version(), instance.family) {
            (Version::V3, _) => self.add(Field::Password, None, "version 3 has no password"),
            (Version::V2, Family::V6) => {
                self.add(Field::Password, None, "version 2 over IPv6 has no room for a password");
            }
            (Version::V2, Family::V4) if password == [0; 8] => {
                self.add(Field::Password, None, "the password must not be empty");
            }
            (Version::V2, Family::V4) => {}
        }
    }

    fn addresses(&mut self, instance: &Instance) {
        let count = instance.addresses.len();
        if count > MAX_ADDRESSES {
            let reason = format!("{count} addresses do not fit into an advertisement ({MAX_ADDRESSES} do)");
            self.add(Field::Addresses, None, reason);
        }
        // As keepalived: version 2 over IPv4 may advertise none.
        if count == 0 && (instance.version() == Version::V3 || instance.family == Family::V6) {
            self.add(Field::Addresses, None, "at least one address is required");
        }
        let mut seen = HashSet::new();
        for (field, list) in [(Field::Addresses, &instance.addresses), (Field::Excluded, &instance.excluded)]
        {
            for (index, VirtualAddress { net, .. }) in list.iter().enumerate() {
                let address = net.addr();
                if !is_host(address) {
                    self.add(field, Some(index), format!("{address} is not an address that a host can have"));
                }
                if !seen.insert(address) {
                    self.add(field, Some(index), format!("{address} is given twice"));
                }
                if field == Field::Addresses && Family::of(address) != instance.family {
                    self.add(field, Some(index), other_family(address, instance.family));
                }
            }
        }
    }

    fn unicast(&mut self, instance: &Instance) {
        let Some(unicast) = &instance.unicast else { return };
        let source = (Field::UnicastSource, None, unicast.source);
        let peers = unicast.peers.iter().enumerate();
        let peers = peers.map(|(index, peer)| (Field::UnicastPeers, Some(index), *peer));
        let mut seen = HashSet::new();
        for (field, index, address) in std::iter::once(source).chain(peers) {
            if !is_host(address) {
                self.add(field, index, format!("{address} is not an address that a host can have"));
            }
            if Family::of(address) != instance.family {
                self.add(field, index, other_family(address, instance.family));
            }
            if index.is_some() && address == unicast.source {
                self.add(field, index, format!("{address} is the router's own address"));
            } else if !seen.insert(address) {
                self.add(field, index, format!("{address} is given twice"));
            }
        }
        if unicast.peers.is_empty() {
            self.add(Field::UnicastPeers, None, "at least one peer is required");
        }
    }

    fn routes(&mut self, instance: &Instance) {
        for (index, route) in instance.routes.iter().enumerate() {
            let index = Some(index);
            let family = Family::of(route.destination.addr());
            for (what, address) in [("gateway", route.gateway), ("source", route.source)] {
                let Some(address) = address else { continue };
                if Family::of(address) != family {
                    let reason =
                        format!("the {what} {address} is not of the family of {}", route.destination);
                    self.add(Field::Routes, index, reason);
                } else if !is_host(address) {
                    let reason = format!("the {what} {address} is not an address that a host can have");
                    self.add(Field::Routes, index, reason);
                }
            }
            if route.gateway.is_some() && route.scope == RouteScope::Link {
                self.add(Field::Routes, index, "scope link is for routes without a gateway");
            }
        }
    }

    fn track_interfaces(&mut self, instance: &Instance) {
        let mut seen = HashSet::new();
        for (index, interface) in instance.track_interfaces.iter().enumerate() {
            if !seen.insert(interface) {
                self.add(Field::TrackInterfaces, Some(index), format!("{interface} is given twice"));
            }
        }
    }
}

fn other_family(address: IpAddr, family: Family) -> String {
    let family = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    format!("{address} is not of the instance's family, {family}")
}

/// Whether a host can have the address on a link.
fn is_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback() && !broadcast
}
