//! Where a load balancer is reached: its VIPs, of the networks of the configuration.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    super::{attributes::Object, fault::Fault, scope::Scope},
    ports,
};
use crate::serve::{
    config::{Network, Subnet},
    network::{NoAddress, Owner},
};

/// Says which VIPs a load balancer has, and takes their addresses. `balancer` is about to be written.
pub(super) fn allocate(scope: &Scope<'_>, balancer: &mut Object) -> Result<(), Fault> {
    let (network, subnet) = match balancer.text("vip_port_id").map(str::to_owned) {
        Some(port) => {
            is_allowed(scope, balancer)?;
            ports::vip(scope, &port, balancer)?
        }
        None => place(scope, balancer)?,
    };
    let mut additional = balancer.take_objects("additional_vips");
    let mut used = vec![subnet.id];
    let mut others = Vec::new();
    for vip in &additional {
        let id = vip.str("subnet_id");
        let not_found = |_| Fault::validation(format_args!("Subnet {id} not found"));
        let (other, subnet) = scope.networks.subnet(id).map_err(not_found)?;
        if used.contains(&subnet.id) {
            return Err(Fault::validation(
                "Duplicate VIP subnet(s) specified. Only one IP can be bound per subnet.",
            ));
        }
        if other.id != network.id {
            return Err(Fault::validation("All VIP subnets must belong to the same network."));
        }
        used.push(subnet.id);
        others.push(subnet);
    }
    let (port, address) = match balancer.text("vip_port_id") {
        Some(port) => (port.to_owned(), balancer.str("vip_address").to_owned()),
        None => take(scope, balancer, subnet, balancer.text("vip_address"))?,
    };
    balancer.set("vip_port_id", port);
    balancer.set("vip_address", address);
    balancer.set("vip_subnet_id", subnet.id.to_string());
    balancer.set("vip_network_id", network.id.to_string());
    for (vip, subnet) in additional.iter_mut().zip(others) {
        let (port, address) = match vip.text("port_id") {
            Some(port) => {
                let mut of_port = Object::default();
                of_port.set("vip_subnet_id", subnet.id.to_string());
                of_port.set("vip_address", vip.str("ip_address"));
                ports::vip(scope, port, &mut of_port)?;
                (port.to_owned(), of_port.str("vip_address").to_owned())
            }
            None => take(scope, balancer, subnet, vip.text("ip_address"))?,
        };
        vip.set("ip_address", address);
        vip.set("port_id", port);
    }
    let additional: Vec<_> = additional.into_iter().map(|vip| Value::Object(vip.0)).collect();
    balancer.set("additional_vips", additional);
    Ok(())
}

/// The ports of VIPs go with the load balancer, once the load balancer is written.
pub(super) fn bind(scope: &Scope<'_>, balancer: &Object) -> Result<(), Fault> {
    let additional = balancer.list("additional_vips").iter().filter_map(|vip| vip.get("port_id")?.as_str());
    for port in std::iter::once(balancer.str("vip_port_id")).chain(additional) {
        scope
            .t
            .prepare_cached("UPDATE port SET load_balancer_id = ?1, device_id = ?2 WHERE id = ?3")?
            .execute([balancer.id(), &format!("lb-{}", balancer.id()), port])?;
    }
    Ok(())
}

/// Refuses what the configuration does not allow, and what there is not.
fn is_allowed(scope: &Scope<'_>, said: &Object) -> Result<(), Fault> {
    let networking = &scope.config.networking;
    let ways = [
        ("vip_port_id", networking.allow_vip_port_id),
        ("vip_network_id", networking.allow_vip_network_id),
        ("vip_subnet_id", networking.allow_vip_subnet_id),
    ];
    if let Some((name, _)) = ways.iter().find(|(name, allowed)| !allowed && said.text(name).is_some()) {
        return Err(Fault::validation(format_args!(
            "use of {name} is disallowed by this deployment's configuration."
        )));
    }
    if ways.iter().all(|(name, _)| said.text(name).is_none()) {
        let names: Vec<_> = ways.iter().filter(|(_, allowed)| *allowed).map(|(name, _)| *name).collect();
        return Err(Fault::validation(format_args!("VIP must contain one of: {}.", names.join(", "))));
    }
    if said.text("vip_qos_policy_id").is_some() {
        return Err(Fault::validation("VIP QoS policy is not allowed in this deployment."));
    }
    if let Some(group) = said.texts("vip_sg_ids").first() {
        return Err(Fault::no_such("Security Group", group));
    }
    Ok(())
}

/// The network and the subnet that a body means.
fn place<'a>(scope: &Scope<'a>, said: &Object) -> Result<(&'a Network, &'a Subnet), Fault> {
    is_allowed(scope, said)?;
    let address = said.text("vip_address").and_then(|text| text.parse().ok());
    let Some(network) = said.text("vip_network_id") else {
        return Ok(scope.networks.subnet(said.str("vip_subnet_id"))?);
    };
    let network = scope.networks.network(network)?;
    if let Some(id) = said.text("vip_subnet_id") {
        let subnet = network.subnets.iter().find(|subnet| subnet.id.to_string() == id);
        return Ok((network, subnet.ok_or_else(|| Fault::no_such("Subnet", id))?));
    }
    Ok((network, subnet_of(network, address)?))
}

/// The subnet of a network that has an address, or the first one.
pub(super) fn subnet_of(network: &Network, address: Option<IpAddr>) -> Result<&Subnet, Fault> {
    Ok(match address {
        Some(address) => network.subnets.iter().find(|subnet| subnet.has_host(address)).ok_or_else(|| {
            Fault::validation("Supplied network does not contain a subnet for VIP address specified.")
        })?,
        // IPv4 first, as Octavia.
        None => network
            .subnets
            .iter()
            .find(|subnet| subnet.prefix.is_ipv4())
            .or_else(|| network.subnets.first())
            .ok_or_else(|| Fault::validation("Supplied network does not contain a subnet."))?,
    })
}

/// Takes an address of a subnet: the one that is asked for, or the least that is free. Tells port and address.
fn take(
    scope: &Scope<'_>,
    balancer: &Object,
    subnet: &Subnet,
    asked: Option<&str>,
) -> Result<(String, String), Fault> {
    let wanted = asked.and_then(|text| text.parse::<IpAddr>().ok());
    let id = balancer.id();
    let owner = Owner {
        name: &format!("octavia-lb-{id}"),
        project: balancer.str("project_id"),
        device_owner: "Octavia",
        device: &format!("lb-{id}"),
        load_balancer: None,
        amphora: None,
    };
    let port = scope.networks.allocate(scope.t, &subnet.id.to_string(), wanted, &owner, scope.now)?;
    Ok((port.id, port.address.to_string()))
}

impl From<NoAddress> for Fault {
    fn from(reason: NoAddress) -> Self {
        match reason {
            NoAddress::NoNetwork(id) => Self::no_such("Network", &id),
            NoAddress::NoSubnet(id) => Self::no_such("Subnet", &id),
            NoAddress::NotWithin(..) | NoAddress::Exhausted(_) => Self::validation(reason),
            NoAddress::InUse(address) => {
                Self::new(409, format!("The VIP IP address is already in use: {address}"))
            }
            NoAddress::Database(error) => error.into(),
        }
    }
}
