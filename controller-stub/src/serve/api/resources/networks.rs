//! What clients of load balancers ask Neutron: networks, subnets and ports, to be read.
//!
//! Networks are those of the configuration and everybody's; a port is seen by who may see what has it. There is one page.

use serde_json::{Map, Value, json};

use super::{
    super::{attributes::Resource, fault::Fault, request::Answer, scope::Scope},
    Names,
};
use crate::serve::{
    config::{Network, Subnet},
    policies::Rule,
};

/// Parameters that are no filters.
const AUXILIARY: [&str; 6] = ["fields", "limit", "marker", "page_reverse", "sort_key", "sort_dir"];

pub(in crate::serve::api) fn networks(
    scope: &Scope<'_>,
    _resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let all = scope.networks.all().iter().map(network).collect();
    answer(scope, "network", all, names)
}

pub(in crate::serve::api) fn subnets(
    scope: &Scope<'_>,
    _resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let networks = scope.networks.all().iter();
    let all = networks.flat_map(|network| {
        network.subnets.iter().enumerate().map(move |(at, one)| subnet(network, at, one))
    });
    answer(scope, "subnet", all.collect(), names)
}

/// Every port, in the order of their making.
fn all_ports(scope: &Scope<'_>) -> Result<Vec<Value>, Fault> {
    let mut query = scope.t.prepare_cached(
        "SELECT id, name, network_id, subnet_id, ip_address, mac_address, project_id, device_owner, device_id FROM port \
         ORDER BY created_at, id",
    )?;
    let rows = query.query_map([], |row| {
        let text = |at| row.get::<_, String>(at);
        Ok(json!({
            "id": text(0)?,
            "name": text(1)?,
            "description": "",
            "network_id": text(2)?,
            "fixed_ips": [{"subnet_id": text(3)?, "ip_address": text(4)?}],
            "mac_address": text(5)?,
            "project_id": text(6)?,
            "tenant_id": text(6)?,
            "device_owner": text(7)?,
            "device_id": text(8)?,
            "admin_state_up": true,
            "status": "ACTIVE",
            "allowed_address_pairs": [],
            "security_groups": [],
            "binding:vnic_type": "normal",
            "port_security_enabled": false,
            "tags": [],
        }))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(in crate::serve::api) fn ports(
    scope: &Scope<'_>,
    _resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let seen = |port: &Value| scope.request.context.may(Rule::Read, port["project_id"].as_str());
    answer(scope, "port", all_ports(scope)?.into_iter().filter(seen).collect(), names)
}

/// One port, as it is told.
pub(super) fn port(scope: &Scope<'_>, id: &str) -> Result<Value, Fault> {
    let found = all_ports(scope)?.into_iter().find(|port| port["id"] == *id);
    Ok(json!({"port": found.ok_or_else(|| not_found("port", id))?}))
}

/// What there is none of.
pub(in crate::serve::api) fn security_groups(
    scope: &Scope<'_>,
    _resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    answer(scope, "security_group", Vec::new(), names)
}

/// What there is none of: who deletes a load balancer asks for that of its VIP.
pub(in crate::serve::api) fn floating_ips(
    scope: &Scope<'_>,
    _resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    answer(scope, "floatingip", Vec::new(), names)
}

/// What there is none of.
pub(in crate::serve::api) fn extensions(
    _scope: &Scope<'_>,
    _resource: &'static Resource,
    _names: &Names<'_>,
) -> Result<Answer, Fault> {
    Ok(Answer::new(200, json!({"extensions": []})))
}

fn network(network: &Network) -> Value {
    let subnets: Vec<_> = network.subnets.iter().map(|subnet| subnet.id.to_string()).collect();
    json!({
        "id": network.id.to_string(),
        "name": network.name,
        "description": "",
        "subnets": subnets,
        "admin_state_up": true,
        "status": "ACTIVE",
        "shared": true,
        "router:external": false,
        "port_security_enabled": true,
        "mtu": 1500,
        "project_id": "",
        "tenant_id": "",
        "tags": [],
    })
}

fn subnet(network: &Network, at: usize, subnet: &Subnet) -> Value {
    let number = if at == 0 { String::new() } else { format!("-{}", at + 1) };
    let pools = subnet.allocation_pools.iter();
    let pools: Vec<_> =
        pools.map(|pool| json!({"start": pool.start.to_string(), "end": pool.end.to_string()})).collect();
    json!({
        "id": subnet.id.to_string(),
        "name": format!("{}-subnet{number}", network.name),
        "description": "",
        "network_id": network.id.to_string(),
        "cidr": subnet.cidr(),
        "ip_version": if subnet.prefix.is_ipv4() { 4 } else { 6 },
        "gateway_ip": subnet.gateway().to_string(),
        "allocation_pools": pools,
        "enable_dhcp": false,
        "dns_nameservers": [],
        "host_routes": [],
        "project_id": "",
        "tenant_id": "",
        "tags": [],
    })
}

/// One by its identifier, or those that the filters leave.
fn answer(scope: &Scope<'_>, one: &str, all: Vec<Value>, names: &Names<'_>) -> Result<Answer, Fault> {
    if let Some(id) = names.first() {
        let found = all.into_iter().find(|object| object["id"] == *id);
        let found = found.ok_or_else(|| not_found(one, id))?;
        return Ok(Answer::new(200, json!({one: fields(scope, found)})));
    }
    let left =
        all.into_iter().filter(|object| is_asked_for(scope, object)).map(|object| fields(scope, object));
    Ok(Answer::new(200, json!({format!("{one}s"): left.collect::<Vec<_>>()})))
}

/// As Neutron says it: clients tell by the status.
pub(super) fn not_found(one: &str, id: &str) -> Fault {
    let mut title = one.to_owned();
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Fault::new(404, format!("{title} {id} could not be found."))
}

/// Whether an object has one of the values that are asked for, of each attribute.
fn is_asked_for(scope: &Scope<'_>, object: &Value) -> bool {
    let query = &scope.request.query.0;
    query.iter().filter(|(name, _)| !AUXILIARY.contains(&name.as_str())).all(|(name, _)| {
        let wanted: Vec<_> =
            query.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect();
        match object.get(name) {
            // `ip_address=..` or `subnet_id=..`; all of them.
            Some(Value::Array(ips)) if name == "fixed_ips" => wanted.iter().all(|wanted| {
                let (key, value) = wanted.split_once('=').unwrap_or((wanted, ""));
                ips.iter().any(|ip| ip[key] == value)
            }),
            Some(Value::String(text)) => wanted.contains(&text.as_str()),
            Some(Value::Bool(flag)) => {
                wanted.iter().any(|wanted| super::super::request::is_true(wanted) == *flag)
            }
            Some(Value::Number(number)) => wanted.contains(&number.to_string().as_str()),
            // Neutron passes over what it does not know.
            _ => true,
        }
    })
}

fn fields(scope: &Scope<'_>, object: Value) -> Value {
    let query = &scope.request.query;
    let Value::Object(map) = object else { return object };
    if !query.has("fields") {
        return Value::Object(map);
    }
    let wanted: Vec<_> = query.all("fields").collect();
    Value::Object(map.into_iter().filter(|(name, _)| wanted.contains(&name.as_str())).collect::<Map<_, _>>())
}
