//! The kernel brought from whatever there is to a plan. What is right stays as it is, so that traffic does not notice.

use std::net::IpAddr;

use amphora_vrrp::{
    net::{Announcer, Interface, NetError, Netlink, Outcome, Route, RouteProtocol},
    packet::Family,
};

use super::plan::{Plan, VIP_TABLE};

/// Brings an interface of the namespace of `netlink`, which is that of this thread, to a plan. Whether anything changed.
///
/// # Errors
/// When the kernel refuses a part; the parts before it are made.
pub async fn apply(netlink: &Netlink, interface: &Interface, plan: &Plan) -> Result<bool, NetError> {
    let mut changed = false;
    if let Some(mtu) = plan.mtu.filter(|mtu| *mtu != interface.mtu) {
        netlink.set_mtu(interface.index, mtu).await?;
        changed = true;
    }
    if !interface.up {
        netlink.set_up(interface.index).await?;
        changed = true;
    }
    changed |= addresses(netlink, interface, plan).await?;
    changed |= routes(netlink, interface, plan).await?;
    if plan.rules.is_some() {
        changed |= rules(netlink, plan).await?;
    }
    Ok(changed)
}

/// New ones come before old ones go, so that what both have in common is reachable all the time.
async fn addresses(netlink: &Netlink, interface: &Interface, plan: &Plan) -> Result<bool, NetError> {
    let there = netlink.addresses_of(interface.index).await?;
    let mut new = Vec::new();
    for &net in &plan.addresses {
        if netlink.add_address(interface.index, net).await? == Outcome::Changed {
            new.push(net.addr());
        }
    }
    let mut changed = !new.is_empty();
    for address in there {
        // Link-local ones are the kernel's; what is not permanent is DHCP's or a router's.
        let ours = address.permanent && !address.link_local;
        if ours && !plan.addresses.contains(&address.net) && !plan.foreign.contains(&address.net) {
            changed |= netlink.delete_address(interface.index, address.net).await? == Outcome::Changed;
        }
    }
    if !new.is_empty()
        && let Err(error) = announce(interface, &new)
    {
        // Neighbours find out by themselves, only later.
        tracing::debug!(interface = %interface.name, %error, "new addresses were not announced");
    }
    Ok(changed)
}

fn announce(interface: &Interface, addresses: &[IpAddr]) -> Result<(), NetError> {
    let announcer = Announcer::open()?;
    let announced = addresses.iter().try_for_each(|&address| announcer.announce(interface, address));
    // Closing a packet socket takes the kernel some 10 ms, which nobody has to wait for. Where there is no thread, it is
    // closed here.
    let _ = std::thread::Builder::new().spawn(move || drop(announcer));
    announced
}

async fn routes(netlink: &Netlink, interface: &Interface, plan: &Plan) -> Result<bool, NetError> {
    let mut there = [netlink.routes(Family::V4).await?, netlink.routes(Family::V6).await?].concat();
    there.retain(|route| route.interface == interface.index && route.protocol == RouteProtocol::STATIC);
    let (kept, mut stale): (Vec<Route>, Vec<Route>) = there
        .into_iter()
        .partition(|route| plan.routes.iter().any(|planned| route.is(&planned.on(interface.index))));
    let mut changed = false;
    for planned in &plan.routes {
        let wanted = planned.on(interface.index);
        if kept.iter().any(|route| route.is(&wanted)) {
            continue;
        }
        let same = |route: &Route| route.destination == wanted.destination && route.table == wanted.table;
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
            Ok(outcome) => changed |= outcome == Outcome::Changed,
            Err(error) if planned.optional => {
                tracing::warn!(interface = %interface.name, %error, "a host route is left out");
            }
            Err(error) => return Err(error),
        }
    }
    for route in &stale {
        changed |= netlink.delete_route(route).await? == Outcome::Changed;
    }
    Ok(changed)
}

/// The rules of the namespace for the VIPs' table, which are nobody else's.
async fn rules(netlink: &Netlink, plan: &Plan) -> Result<bool, NetError> {
    let wanted = plan.rules.as_deref().unwrap_or_default();
    let there = [netlink.rules(Family::V4).await?, netlink.rules(Family::V6).await?].concat();
    let mut changed = false;
    for rule in wanted {
        if !there.iter().any(|there| there.is(rule)) {
            changed |= netlink.add_rule(rule).await? == Outcome::Changed;
        }
    }
    // keepalived's, and what VRRP writes here, say so.
    let ours = |protocol| protocol == RouteProtocol::UNSPEC;
    for rule in there.iter().filter(|rule| rule.table == VIP_TABLE && ours(rule.protocol)) {
        if !wanted.iter().any(|wanted| rule.is(wanted)) {
            changed |= netlink.delete_rule(rule).await? == Outcome::Changed;
        }
    }
    Ok(changed)
}
