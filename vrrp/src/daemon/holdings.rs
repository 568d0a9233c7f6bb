//! The addresses, routes and rules that a master has, in the kernel.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write,
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    config::{Instance, InterfaceName, VirtualRule},
    net::{Interface, InterfaceIndex, NetError, Netlink, Outcome, Route, Rule},
    packet::Family,
};

/// What is to be had, with the interfaces that it is on.
#[derive(Clone, Debug, Default)]
pub(super) struct Holdings {
    addresses: Vec<(Interface, IpNet)>,
    routes: Vec<Route>,
    rules: Vec<Rule>,
    /// Interfaces that do not exist.
    missing: Vec<InterfaceName>,
}

impl Holdings {
    /// What the master of an instance has.
    pub(super) fn of(instance: &Instance, interfaces: &HashMap<InterfaceName, Interface>) -> Self {
        let mut holdings = Self::default();
        for address in instance.addresses.iter().chain(&instance.excluded) {
            let name = address.interface.as_ref().unwrap_or(&instance.interface);
            match interfaces.get(name) {
                Some(interface) => holdings.addresses.push((interface.clone(), address.net)),
                None => holdings.miss(name),
            }
        }
        for route in &instance.routes {
            match interfaces.get(&route.interface) {
                Some(interface) => holdings.routes.push(route.route(interface.index)),
                None => holdings.miss(&route.interface),
            }
        }
        holdings.rules = instance.rules.iter().map(VirtualRule::rule).collect();
        holdings
    }

    fn miss(&mut self, name: &InterfaceName) {
        if !self.missing.contains(name) {
            self.missing.push(name.clone());
        }
    }

    /// Each address with its interface, to be announced.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&Interface, IpAddr)> {
        self.addresses.iter().map(|(interface, net)| (interface, net.addr()))
    }

    /// Has all of it, as far as that is possible; says what was not. What is there already stays.
    pub(super) async fn take(&self, netlink: &Netlink) -> Option<String> {
        let mut faults = Faults::default();
        for name in &self.missing {
            faults.add(format_args!("there is no interface {name}"));
        }
        let interfaces: BTreeSet<_> = self.addresses.iter().map(|(interface, _)| interface.index).collect();
        for index in interfaces {
            // Or the kernel takes away with one address all others of its subnet.
            if let Err(error) = netlink.promote_secondaries(index).await {
                tracing::debug!(%error, "addresses of a subnet depend on its first");
            }
        }
        for (interface, net) in &self.addresses {
            faults.of(netlink.add_virtual_address(interface.index, *net).await);
        }
        for route in &self.routes {
            faults.of(netlink.replace_route(route).await.map(|()| Outcome::Changed));
        }
        for rule in &self.rules {
            faults.of(netlink.add_rule(rule).await);
        }
        faults.0
    }

    /// Gives all of it up, as far as that is possible; says what was not. What is gone already is no fault.
    pub(super) async fn give_up(&self, netlink: &Netlink) -> Option<String> {
        self.give_up_but(&Self::default(), netlink).await
    }

    /// Gives up what `kept` does not have.
    pub(super) async fn give_up_but(&self, kept: &Self, netlink: &Netlink) -> Option<String> {
        let mut faults = Faults::default();
        for rule in self.rules.iter().filter(|rule| !kept.rules.contains(rule)) {
            faults.of(netlink.delete_rule(rule).await);
        }
        for route in self.routes.iter().filter(|route| !kept.routes.contains(route)) {
            faults.of(netlink.delete_route(route).await);
        }
        for (interface, net) in &self.addresses {
            if !kept.has(interface.index, *net) {
                faults.of(netlink.delete_address(interface.index, *net).await);
            }
        }
        faults.0
    }

    /// Whether the kernel has all of it. What cannot be had, because an interface does not exist, is not asked for.
    pub(super) async fn are_whole(&self, netlink: &Netlink) -> Result<bool, NetError> {
        if !self.addresses.is_empty() && !self.are_there(netlink).await? {
            return Ok(false);
        }
        for family in [Family::V4, Family::V6] {
            let mut routes =
                self.routes.iter().filter(|route| Family::of(route.destination.addr()) == family).peekable();
            if routes.peek().is_some() {
                let present = netlink.routes(family).await?;
                if !routes.all(|wanted| present.iter().any(|route| route.is(wanted))) {
                    return Ok(false);
                }
            }
            let mut rules =
                self.rules.iter().filter(|rule| Family::of(rule.source.addr()) == family).peekable();
            if rules.peek().is_some() {
                let present = netlink.rules(family).await?;
                if !rules.all(|wanted| present.iter().any(|rule| rule.is(wanted))) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Whether the kernel has every address, as a master that crashed leaves them.
    pub(super) async fn are_there(&self, netlink: &Netlink) -> Result<bool, NetError> {
        if self.addresses.is_empty() {
            return Ok(false);
        }
        let present = netlink.addresses().await?;
        Ok(self.addresses.iter().all(|(interface, net)| {
            present.iter().any(|there| there.interface == interface.index && there.net.addr() == net.addr())
        }))
    }

    fn has(&self, index: InterfaceIndex, net: IpNet) -> bool {
        self.addresses.iter().any(|(interface, ours)| interface.index == index && *ours == net)
    }
}

#[derive(Default)]
struct Faults(Option<String>);

impl Faults {
    fn of(&mut self, result: Result<Outcome, NetError>) {
        if let Err(error) = result {
            self.add(format_args!("{error}"));
        }
    }

    fn add(&mut self, fault: std::fmt::Arguments<'_>) {
        tracing::error!("{fault}");
        let faults = self.0.get_or_insert_default();
        let separator = if faults.is_empty() { "" } else { "; " };
        // Writing to a String does not fail.
        let _ = write!(faults, "{separator}{fault}");
    }
}
