//! The kernel brought from whatever there is to a plan. What is right stays as it is, so that traffic does not notice.

use std::time::Duration;

use amphora_netlink::{
    Address, Family, Interface, NetError, Netlink, Outcome, Route, RouteProtocol, Rule, answer_for_own,
    autoconfigure, end_connections,
};
use ipnet::IpNet;
use nix::errno::Errno;

use super::{
    announce::announce,
    plan::{Plan, PlannedLease, RULE_PRIORITY, VIP_TABLE},
};

/// Passes until a plan has to be reached. One makes it, one mends what the kernel took away together with something
/// else, and one finds nothing to do.
const PASSES: usize = 5;

/// Brings an interface of the namespace of `netlink`, which is that of this thread, to a plan. Whether anything changed.
///
/// The kernel takes more away than it is told to: addresses beside a deleted one, and routes by an address. So it is
/// looked at again after every change, until it is all that the plan says.
///
/// # Errors
/// When the kernel refuses a part; the parts before it are made. So they are when it is cancelled.
pub async fn apply(netlink: &Netlink, interface: &Interface, plan: &Plan) -> Result<bool, NetError> {
    netlink.promote_secondaries(interface.index).await?;
    let mut changed = false;
    for _ in 0..PASSES {
        let Some(interface) = netlink.interface_by_index(interface.index).await? else {
            let what = format!("configure {}", interface.name);
            return Err(NetError::Refused { what, errno: Errno::ENODEV });
        };
        let done = pass(netlink, &interface, plan).await?;
        if !done.changed {
            for error in done.left_out {
                tracing::warn!(interface = %interface.name, %error, "a host route is left out");
            }
            return Ok(changed);
        }
        changed = true;
    }
    let what = format!("keep {} as it was configured", interface.name);
    Err(NetError::Refused { what, errno: Errno::EAGAIN })
}

/// What a pass did.
#[derive(Debug, Default)]
struct Done {
    changed: bool,
    /// Why optional routes are not there.
    left_out: Vec<NetError>,
}

impl Done {
    fn note(&mut self, outcome: Outcome) {
        self.changed |= outcome == Outcome::Changed;
    }
}

/// New comes before old goes, so that what both have in common is reachable all the time.
async fn pass(netlink: &Netlink, interface: &Interface, plan: &Plan) -> Result<Done, NetError> {
    let mut done = Done::default();
    if let Some(mtu) = plan.mtu.filter(|mtu| *mtu != interface.mtu) {
        netlink.set_mtu(interface.index, mtu).await?;
        done.changed = true;
    }
    autoconfiguration(netlink, interface, plan, &mut done).await?;
    match answer_for_own(interface) {
        Ok(outcome) => done.note(outcome),
        Err(error) => {
            tracing::warn!(interface = %interface.name, %error, "it may answer for addresses of others");
        }
    }
    if plan.up && !interface.up {
        netlink.set_up(interface.index).await?;
        done.changed = true;
    }
    let there = netlink.addresses_of(interface.index).await?;
    add_addresses(netlink, interface, plan, &there, &mut done).await?;
    if let Some(lease) = &plan.lease {
        add_lease(netlink, interface, lease, &there, &mut done).await?;
    }
    routes(netlink, interface, plan, &mut done).await?;
    done.changed |= rules(netlink, &plan.rules).await?;
    for address in there {
        let leased = plan.lease.is_some_and(|lease| IpNet::from(lease.net) == address.net);
        if plan.leftovers.contains(&address.net) && !plan.addresses.contains(&address.net) && !leased {
            done.note(take_away(netlink, interface, address.net).await?);
        }
    }
    if !plan.up && interface.up {
        netlink.set_down(interface.index).await?;
        done.changed = true;
    }
    Ok(done)
}

/// Takes an address from an interface, and with it the connections that have it, which would wait for answers that cannot come any more:
/// those of clients to a VIP, and those to members, which the proxy keeps for other requests.
async fn take_away(netlink: &Netlink, interface: &Interface, net: IpNet) -> Result<Outcome, NetError> {
    let address = net.addr();
    let same = |other: &Address| {
        other.net.addr() == address && (other.interface, other.net) != (interface.index, net)
    };
    // One that is of a link alone may be that of another link, too; and the address may stay with another prefix.
    let stays = netlink.addresses().await?.iter().any(same);
    let end = || {
        if !stays && let Err(error) = end_connections(&[address]) {
            tracing::warn!(%address, %error, "connections of an address that goes end by their time limits alone");
        }
    };
    // While it is there the other ends are told; and some may have begun before it was gone.
    end();
    let outcome = netlink.delete_address(interface.index, net).await?;
    end();
    Ok(outcome)
}

async fn add_addresses(
    netlink: &Netlink,
    interface: &Interface,
    plan: &Plan,
    there: &[Address],
    done: &mut Done,
) -> Result<(), NetError> {
    let mut new = Vec::new();
    for &net in &plan.addresses {
        let mut added = netlink.add_address(interface.index, net).await?;
        if added == Outcome::Unchanged && !there.iter().any(|address| address.net == net) {
            // An IPv6 address with another prefix is in the way.
            for address in there.iter().filter(|address| address.net.addr() == net.addr()) {
                netlink.delete_address(interface.index, address.net).await?;
            }
            added = netlink.add_address(interface.index, net).await?;
        }
        done.note(added);
        if added == Outcome::Changed {
            new.push(net.addr());
        }
    }
    if !new.is_empty() {
        announce(interface, &new);
    }
    Ok(())
}

/// Before the interface is up: nothing that it is not to take comes in between.
async fn autoconfiguration(
    netlink: &Netlink,
    interface: &Interface,
    plan: &Plan,
    done: &mut Done,
) -> Result<(), NetError> {
    match autoconfigure(interface, plan.autoconfigured) {
        Ok(Outcome::Unchanged) => return Ok(()),
        Ok(Outcome::Changed) => done.changed = true,
        Err(error) if plan.autoconfigured => return Err(error),
        Err(error) => {
            tracing::warn!(interface = %interface.name, %error, "routers of its link may give it addresses");
            return Ok(());
        }
    }
    if plan.autoconfigured {
        return Ok(());
    }
    for address in netlink.addresses_of(interface.index).await? {
        if address.net.addr().is_ipv6() && !address.permanent && !address.link_local {
            take_away(netlink, interface, address.net).await?;
        }
    }
    for route in netlink.routes(Family::V6).await? {
        if route.interface == interface.index && route.protocol == RouteProtocol::ROUTERS {
            netlink.delete_route(&route).await?;
        }
    }
    Ok(())
}

async fn add_lease(
    netlink: &Netlink,
    interface: &Interface,
    lease: &PlannedLease,
    there: &[Address],
    done: &mut Done,
) -> Result<(), NetError> {
    if let Some(mtu) = lease.mtu.filter(|mtu| *mtu != interface.mtu) {
        match netlink.set_mtu(interface.index, mtu).await {
            Ok(()) => done.changed = true,
            Err(error) => {
                tracing::debug!(interface = %interface.name, %error, "the MTU of the lease is left out")
            }
        }
    }
    // Whole seconds, and one at least: what has none is there for ever.
    let left = |expires: std::time::Instant| {
        let left = expires.saturating_duration_since(tokio::time::Instant::now().into_std());
        left.max(Duration::from_secs(1)).as_secs().try_into().unwrap_or(u32::MAX - 1)
    };
    netlink.lease_address(interface.index, lease.net, lease.expires.map(left)).await?;
    if !there.iter().any(|address| address.net == lease.net.into()) {
        done.changed = true;
        announce(interface, &[lease.net.addr().into()]);
    }
    Ok(())
}

/// Static ones by the interface are the agent's: those of the kernel and of VRRP say so.
async fn routes(
    netlink: &Netlink,
    interface: &Interface,
    plan: &Plan,
    done: &mut Done,
) -> Result<(), NetError> {
    let mut there = [netlink.routes(Family::V4).await?, netlink.routes(Family::V6).await?].concat();
    there.retain(|route| route.interface == interface.index && route.protocol == RouteProtocol::STATIC);
    let (kept, mut stale): (Vec<Route>, Vec<Route>) = there
        .into_iter()
        .partition(|route| plan.routes.iter().any(|planned| route.is(&planned.on(interface.index))));
    for planned in &plan.routes {
        let wanted = planned.on(interface.index);
        if kept.iter().any(|route| route.is(&wanted)) {
            continue;
        }
        let same = |route: &Route| {
            // The kernel gives those of IPv6 a metric by itself.
            let v6 = wanted.destination.addr().is_ipv6();
            let metric = route.metric == wanted.metric || v6 && wanted.metric.is_none();
            route.destination == wanted.destination && route.table == wanted.table && metric
        };
        let made = match stale.iter().position(same) {
            Some(position) => {
                let replaced = netlink.replace_route(&wanted).await.map(|()| Outcome::Changed);
                if replaced.is_ok() {
                    stale.swap_remove(position);
                }
                replaced
            }
            // The kernel's own route to the subnet of an address is as good.
            None => netlink.add_route(&wanted).await,
        };
        match made {
            Ok(outcome) => done.note(outcome),
            Err(error) if planned.optional => done.left_out.push(error),
            Err(error) => return Err(error),
        }
    }
    for route in &stale {
        done.note(netlink.delete_route(route).await?);
    }
    Ok(())
}

/// Brings the agent's rules to these. Those of VRRP say whose they are, and have other priorities. Whether anything
/// changed.
///
/// # Errors
/// When the kernel refuses a part; the parts before it are made.
pub async fn rules(netlink: &Netlink, wanted: &[Rule]) -> Result<bool, NetError> {
    let there = [netlink.rules(Family::V4).await?, netlink.rules(Family::V6).await?].concat();
    let mut done = Done::default();
    for rule in wanted {
        if !there.iter().any(|there| there.is(rule)) {
            done.note(netlink.add_rule(rule).await?);
        }
    }
    let ours = |rule: &&Rule| {
        rule.table == VIP_TABLE
            && rule.priority == Some(RULE_PRIORITY)
            && rule.protocol == RouteProtocol::UNSPEC
    };
    for rule in there.iter().filter(ours) {
        if !wanted.iter().any(|wanted| rule.is(wanted)) {
            done.note(netlink.delete_rule(rule).await?);
        }
    }
    Ok(done.changed)
}
