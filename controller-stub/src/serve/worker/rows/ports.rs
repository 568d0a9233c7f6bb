//! Ports of amphorae: in the network of the VIPs, and in each where members are.

use std::{collections::BTreeMap, net::IpAddr};

use rusqlite::{Connection, params};

use super::{Amphora, LoadBalancer, load_balancer, text};
use crate::{
    error::{Error, Result},
    serve::{
        network::{Networks, Owner},
        queue::{self, Kind},
        status::Topology,
    },
};

/// A port of an amphora.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// `id`
    pub id: String,
    /// `network_id`
    pub network: String,
    /// `subnet_id`
    pub subnet: String,
    /// `ip_address`
    pub address: IpAddr,
    /// `mac_address`
    pub mac: String,
}

/// Those of an amphora that are being unplugged, or the others.
pub(super) fn of(connection: &Connection, amphora: &str, leaving: bool) -> Result<Vec<Port>> {
    let mut query = connection
        .prepare_cached("SELECT * FROM port WHERE amphora_id = ?1 AND leaving = ?2 ORDER BY rowid")?;
    let ports = query.query_map(params![amphora, leaving], |row| {
        Ok(Port {
            id: row.get("id")?,
            network: row.get("network_id")?,
            subnet: row.get("subnet_id")?,
            address: text(row, "ip_address")?,
            mac: row.get("mac_address")?,
        })
    })?;
    Ok(ports.collect::<rusqlite::Result<_>>()?)
}

/// Gives an amphora an address of a subnet.
pub(super) fn give(
    connection: &Connection,
    networks: &Networks,
    lb: &LoadBalancer,
    amphora: &str,
    subnet: &str,
    now: i64,
) -> Result<(IpAddr, String)> {
    let name = format!("octavia-lb-vrrp-{amphora}");
    let owner = Owner {
        name: &name,
        project: &lb.project,
        device_owner: "compute:nova",
        device: amphora,
        load_balancer: None,
        amphora: Some(amphora),
    };
    let port = networks
        .allocate(connection, subnet, None, &owner, now)
        .map_err(|e| Error::NotDone(e.to_string()))?;
    Ok((port.address, port.id))
}

/// A link that has addresses of one family: the network, and whether they are of IPv4.
type Link = (String, bool);

/// Subnets in which members are.
fn of_members(connection: &Connection, lb: &LoadBalancer) -> Result<Vec<String>> {
    let mut query = connection.prepare_cached(
        "SELECT DISTINCT subnet_id FROM member WHERE subnet_id IS NOT NULL AND provisioning_status <> 'PENDING_DELETE'
         AND pool_id IN (SELECT id FROM pool WHERE load_balancer_id = ?1)",
    )?;
    Ok(query.query_map([&lb.id], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Subnets of members, by the link on which one is in reach.
fn needed(connection: &Connection, networks: &Networks, lb: &LoadBalancer) -> Result<BTreeMap<Link, String>> {
    let mut needed = BTreeMap::new();
    for subnet in of_members(connection, lb)? {
        // A subnet that the configuration no longer has is reached by the gateway, if at all.
        let Ok((network, found)) = networks.subnet(&subnet) else { continue };
        // Of two subnets of a network and a family the second is in reach by the same link, through its gateway.
        needed.entry((network.id.to_string(), found.prefix.is_ipv4())).or_insert(subnet);
    }
    if let Some((link, subnet)) = without_address(connection, networks, lb)? {
        needed.entry(link).or_insert(subnet);
    }
    Ok(needed)
}

/// Where a backup has no address of its own to look at members from: the subnet of an additional VIP of another family than the first, when
/// members are reached by it.
fn without_address(
    connection: &Connection,
    networks: &Networks,
    lb: &LoadBalancer,
) -> Result<Option<(Link, String)>> {
    let is_v4 = !lb.vip.0.is_ipv4();
    let query = "SELECT EXISTS (SELECT 1 FROM member WHERE subnet_id IS NULL AND (instr(address, ':') = 0) = ?2
        AND provisioning_status <> 'PENDING_DELETE' AND pool_id IN (SELECT id FROM pool WHERE load_balancer_id = ?1))";
    let has_members: bool =
        connection.prepare_cached(query)?.query_row(params![lb.id, is_v4], |row| row.get(0))?;
    if lb.topology == Topology::Single || !has_members {
        return Ok(None);
    }
    let mut vips = lb.additional.iter().filter(|(address, _)| address.is_ipv4() == is_v4);
    Ok(vips.find_map(|(_, subnet)| {
        Some(((networks.subnet(subnet).ok()?.0.id.to_string(), is_v4), subnet.clone()))
    }))
}

/// Where a port is.
fn link(port: &Port) -> Link {
    (port.network.clone(), port.address.is_ipv4())
}

/// Where every amphora of a load balancer has an address without a port for it: the VIP of one that is alone.
fn links_of_vips(networks: &Networks, lb: &LoadBalancer) -> Vec<Link> {
    let vips = std::iter::once(&lb.vip).chain(&lb.additional).filter(|_| lb.topology == Topology::Single);
    vips.filter_map(|(address, subnet)| {
        Some((networks.subnet(subnet).ok()?.0.id.to_string(), address.is_ipv4()))
    })
    .collect()
}

/// Subnets of members that an amphora has no port for, on links other than those where it has one.
fn missing(connection: &Connection, networks: &Networks, lb: &LoadBalancer) -> Result<Vec<(String, String)>> {
    let mut missing = Vec::new();
    let vips = links_of_vips(networks, lb);
    for (place, subnet) in
        needed(connection, networks, lb)?.into_iter().filter(|(link, _)| !vips.contains(link))
    {
        let lacks = |one: &&Amphora| !one.is_going() && one.ports.iter().all(|port| link(port) != place);
        missing.extend(lb.amphorae.iter().filter(lacks).map(|one| (one.id.clone(), subnet.clone())));
    }
    Ok(missing)
}

/// Whether an amphora has no port on a link of a member's.
pub fn lacks_ports(connection: &Connection, networks: &Networks, lb: &LoadBalancer) -> Result<bool> {
    Ok(!missing(connection, networks, lb)?.is_empty())
}

/// Each amphora gets a port on each link of a member's, and is told everything again.
pub fn reach_members(
    connection: &Connection,
    networks: &Networks,
    lb: &LoadBalancer,
    now: i64,
) -> Result<()> {
    for (amphora, subnet) in missing(connection, networks, lb)? {
        give(connection, networks, lb, &amphora, &subnet, now)?;
        connection
            .prepare_cached("UPDATE amphora SET applied_generation = 0 WHERE id = ?1")?
            .execute([&amphora])?;
    }
    Ok(())
}

/// The load balancer, if nobody works on it and an amphora of it has no port in a network of a member's.
fn out_of_reach(connection: &Connection, networks: &Networks, id: &str) -> Result<Option<LoadBalancer>> {
    let Some(lb) = load_balancer(connection, id)?.filter(|lb| lb.active) else { return Ok(None) };
    Ok(lacks_ports(connection, networks, &lb)?.then_some(lb))
}

/// Load balancers that nobody works on and of which an amphora has no port in a network of a member's, as one that was made while the
/// configuration did not have that network.
pub fn lacking(connection: &Connection, networks: &Networks) -> Result<Vec<String>> {
    let mut query = connection.prepare_cached(
        "SELECT DISTINCT p.load_balancer_id FROM member m JOIN pool p ON p.id = m.pool_id WHERE m.subnet_id IS NOT NULL",
    )?;
    let mut ids = query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let mut failed = Ok(());
    ids.retain(|id| match out_of_reach(connection, networks, id) {
        Ok(found) => found.is_some(),
        Err(error) => {
            failed = Err(error);
            false
        }
    });
    failed.map(|()| ids)
}

/// Gives these, if it is so still, ports; there is work for them then. How many there are.
pub fn plug_what_lacks(
    connection: &Connection,
    networks: &Networks,
    ids: &[String],
    now: i64,
) -> Result<usize> {
    let mut found = 0;
    for id in ids {
        let Some(lb) = out_of_reach(connection, networks, id)? else { continue };
        match reach_members(connection, networks, &lb, now) {
            Ok(()) => {
                queue::enqueue(connection, Kind::LoadBalancer, id, now)?;
                found += 1;
            }
            Err(error) => tracing::warn!(load_balancer = id, %error, "members are out of reach"),
        }
    }
    Ok(found)
}

/// Ports of amphorae in networks where no member is any more, and those that are being unplugged already. One in a subnet that the
/// configuration has no more stays while a member is in such a one: the configuration may be wrong, and traffic goes by it.
pub fn idle_ports(
    connection: &Connection,
    networks: &Networks,
    lb: &LoadBalancer,
) -> Result<Vec<(Amphora, Port)>> {
    let needed = needed(connection, networks, lb)?;
    let is_unknown = |subnet: &str| networks.subnet(subnet).is_err();
    let some_unknown = of_members(connection, lb)?.iter().any(|subnet| is_unknown(subnet));
    let mut idle = Vec::new();
    for one in lb.amphorae.iter().filter(|one| !one.is_going()) {
        let needless = |port: &&Port| {
            Some(&port.id) != one.vrrp_port.as_ref()
                && !needed.contains_key(&link(port))
                && !(some_unknown && is_unknown(&port.subnet))
        };
        let ports =
            of(connection, &one.id, true)?.into_iter().chain(one.ports.iter().filter(needless).cloned());
        idle.extend(ports.map(|port| (one.clone(), port)));
    }
    Ok(idle)
}

/// From now on these are being unplugged: who needs one of their networks again gets another port. None of a load balancer that is
/// being changed.
pub fn let_go(connection: &Connection, networks: &Networks, id: &str) -> Result<Vec<(Amphora, Port)>> {
    let Some(lb) = super::load_balancer(connection, id)?.filter(|lb| lb.active) else {
        return Ok(Vec::new());
    };
    let idle = idle_ports(connection, networks, &lb)?;
    for (_, port) in &idle {
        connection.prepare_cached("UPDATE port SET leaving = 1 WHERE id = ?1")?.execute([&port.id])?;
    }
    Ok(idle)
}

/// Whether an amphora serves with a port that was plugged in, or without one at all.
pub fn is_plugged(connection: &Connection, amphora: &str, port: Option<&str>) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM amphora a WHERE id = ?1 AND status IN ('ALLOCATED', 'READY') AND (?2 IS NULL
        OR applied_generation > 0 AND EXISTS (SELECT 1 FROM port p WHERE p.id = ?2 AND p.amphora_id = a.id AND p.leaving = 0)))";
    Ok(connection.prepare_cached(query)?.query_row(params![amphora, port], |row| row.get(0))?)
}

/// A port is unplugged: its address is free.
pub fn unplugged(connection: &Connection, port: &str) -> Result<()> {
    connection.prepare_cached("DELETE FROM port WHERE id = ?1 AND leaving = 1")?.execute([port])?;
    Ok(())
}
