//! Ports that a tenant makes: an address of a network that stays the tenant's, for load balancers that are told `vip_port_id`.
//!
//! Such a port has no `device_owner`. A load balancer that is deleted leaves it.

use std::net::IpAddr;

use rusqlite::OptionalExtension as _;
use serde_json::{Map, Value};

use super::{
    super::{
        attributes::{LOAD_BALANCER, Object, Resource},
        change,
        fault::Fault,
        request::Answer,
        scope::Scope,
    },
    Names, networks, vips,
};
use crate::serve::{
    config::{Network, Subnet},
    network::Owner,
    policies::Rule,
};

/// What a body may say.
const ATTRIBUTES: [&str; 6] =
    ["network_id", "name", "fixed_ips", "project_id", "tenant_id", "admin_state_up"];

/// The most ports of a project that nothing is at, where there is no quota of load balancers for which they could be.
const MOST: i64 = 64;

/// The longest name, in characters.
const LONGEST: usize = 255;

pub(in crate::serve::api) fn post(
    scope: &Scope<'_>,
    _resource: &'static Resource,
    _names: &Names<'_>,
) -> Result<Answer, Fault> {
    let said = body(scope)?;
    let own = scope.request.context.project_id.as_deref();
    let project = said.text("project_id").or(said.text("tenant_id")).or(own).unwrap_or_default().to_owned();
    scope.permit(Rule::Write, &project)?;
    let invalid = |reason: &str| Fault::new(400, format!("Invalid input for a port: {reason}"));
    if said.get("admin_state_up").is_some_and(|up| *up != true) {
        return Err(invalid("admin_state_up is true."));
    }
    let name = said.str("name");
    if name.chars().count() > LONGEST {
        return Err(invalid("the name has 255 characters at most."));
    }
    let id = said.text("network_id").ok_or_else(|| invalid("network_id is missing."))?;
    let network = scope.networks.network(id).map_err(|_| networks::not_found("network", id))?;
    let fixed = match said.list("fixed_ips") {
        [] => Object::default(),
        [Value::Object(one)] => Object(one.clone()),
        [_] => return Err(invalid("each of fixed_ips is an object.")),
        _ => return Err(invalid("there is one address of each.")),
    };
    let wanted = fixed.text("ip_address").map(str::parse::<IpAddr>).transpose();
    let wanted = wanted.map_err(|_| invalid("ip_address is no address."))?;
    let subnet = match fixed.text("subnet_id") {
        Some(id) => network
            .subnets
            .iter()
            .find(|subnet| subnet.id.to_string() == id)
            .ok_or_else(|| networks::not_found("subnet", id))?,
        None => vips::subnet_of(network, wanted)?,
    };
    let text = "SELECT count(*) FROM port WHERE project_id = ?1 AND device_owner = '' AND device_id = ''";
    let count: i64 = scope.t.prepare_cached(text)?.query_row([&project], |row| row.get(0))?;
    let most = change::quota(scope, &LOAD_BALANCER, &project)?.unwrap_or(MOST);
    if count >= most {
        return Err(Fault::new(
            409,
            format!("Quota exceeded for resources: ['port']: {most} that nothing is at."),
        ));
    }
    let owner =
        Owner { name, project: &project, device_owner: "", device: "", load_balancer: None, amphora: None };
    let port = scope.networks.allocate(scope.t, &subnet.id.to_string(), wanted, &owner, scope.now)?;
    Ok(Answer::new(201, networks::port(scope, &port.id)?))
}

/// The port of a body.
fn body(scope: &Scope<'_>) -> Result<Object, Fault> {
    let malformed = || Fault::new(400, "Request body is not an object with a port.");
    let mut body: Map<String, Value> =
        serde_json::from_slice(scope.request.json()?).map_err(|_| malformed())?;
    let Some(Value::Object(said)) = body.remove("port") else { return Err(malformed()) };
    let unknown: Vec<_> = said.keys().map(String::as_str).filter(|name| !ATTRIBUTES.contains(name)).collect();
    if !unknown.is_empty() {
        return Err(Fault::new(400, format!("Unrecognized attribute(s) '{}'", unknown.join(", "))));
    }
    Ok(Object(said))
}

pub(in crate::serve::api) fn delete(
    scope: &Scope<'_>,
    _resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let id = names.first().copied().unwrap_or_default();
    let port = Port::find(scope, Rule::Read, id)?.ok_or_else(|| networks::not_found("port", id))?;
    scope.permit(Rule::Write, &port.project)?;
    if !port.is_free() {
        return Err(Fault::new(409, format!("Port {id} is in use by {}.", port.device)));
    }
    scope.t.prepare_cached("DELETE FROM port WHERE id = ?1")?.execute([id])?;
    Ok(Answer::empty(204))
}

/// A port, as far as a VIP is concerned.
struct Port {
    network: String,
    subnet: String,
    address: String,
    project: String,
    owner: String,
    device: String,
}

impl Port {
    /// One that the caller may see, or do more with.
    fn find(scope: &Scope<'_>, rule: Rule, id: &str) -> Result<Option<Self>, Fault> {
        let text = "SELECT network_id, subnet_id, ip_address, project_id, device_owner, device_id FROM port WHERE id = ?1";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Self {
                network: row.get(0)?,
                subnet: row.get(1)?,
                address: row.get(2)?,
                project: row.get(3)?,
                owner: row.get(4)?,
                device: row.get(5)?,
            })
        };
        let port = scope.t.prepare_cached(text)?.query_row([id], read).optional()?;
        Ok(port.filter(|port| scope.request.context.may(rule, Some(&port.project))))
    }

    /// Whether a tenant has made it and nothing is at it.
    fn is_free(&self) -> bool {
        self.owner.is_empty() && self.device.is_empty()
    }
}

/// Takes a port for the VIP of a load balancer, which is told the port's address. Tells its network and its subnet.
pub(super) fn vip<'a>(
    scope: &Scope<'a>,
    id: &str,
    balancer: &mut Object,
) -> Result<(&'a Network, &'a Subnet), Fault> {
    let port = Port::find(scope, Rule::Write, id)?.ok_or_else(|| Fault::no_such("Port", id))?;
    if !port.is_free() {
        return Err(Fault::validation(format_args!("Port {id} is already used by device {}.", port.device)));
    }
    if balancer.text("vip_network_id").is_some_and(|network| network != port.network) {
        return Err(Fault::validation("The specified VIP port is not of the specified VIP network."));
    }
    if let Some(subnet) = balancer.text("vip_subnet_id") {
        scope.networks.subnet(subnet)?;
        if subnet != port.subnet {
            return Err(Fault::validation(
                "No VIP address found on the specified VIP port within the specified subnet.",
            ));
        }
    }
    let said = balancer.text("vip_address").and_then(|text| text.parse::<IpAddr>().ok());
    if said.is_some_and(|said| said.to_string() != port.address) {
        return Err(Fault::validation("Specified VIP address not found on the specified VIP port."));
    }
    balancer.set("vip_address", port.address);
    Ok(scope.networks.subnet(&port.subnet)?)
}
