//! Load balancers.

use serde_json::Value;

use super::{
    super::{
        attributes::{
            AVAILABILITY_ZONE, AVAILABILITY_ZONE_PROFILE, Body, FLAVOR, FLAVOR_PROFILE, HEALTH_MONITOR,
            L7POLICY, L7RULE, LISTENER, LOAD_BALANCER, MEMBER, Object, POOL, RATE_LIMIT_POLICY,
            RATE_LIMIT_RULE, Resource,
        },
        change::{Change, check_quota},
        fault::Fault,
        request::Answer,
        scope::{Scope, new_id},
    },
    Names, fresh, named, providers, tree, vips,
};
use crate::serve::{policies::Rule, queue::Kind};

pub(in crate::serve::api) fn post(
    scope: &Scope<'_>,
    resource: &'static Resource,
    _names: &Names<'_>,
) -> Result<Answer, Fault> {
    let mut said = scope.body(resource, Body::Post)?;
    let project = said.text("project_id").or(scope.request.context.project_id.as_deref()).map(str::to_owned);
    let Some(project) = project.filter(|project| !project.is_empty()) else {
        return Err(Fault::validation(
            "Missing project ID in request where one is required. An administrator should check the keystone \
             settings in the Octavia configuration.",
        ));
    };
    scope.permit(Rule::Write, &project)?;
    let balanced = said.take_objects("listeners");
    let pools = said.take_objects("pools");
    said.set("project_id", project.as_str());
    let flavor = flavor(scope, &said)?;
    let zone = availability_zone(scope, &said)?;
    let provider = provider(&said, flavor.as_ref().map(|(provider, _)| provider.as_str()))?;
    check_quota(scope, resource, &project, 1)?;
    scope.fill(resource, &mut said);
    said.set("id", new_id());
    vips::allocate(scope, &mut said)?;
    let of_zone = zone.texts("valid_vip_networks");
    let all: Vec<_> = scope.config.networking.valid_vip_networks.iter().map(String::as_str).collect();
    let networks = if of_zone.is_empty() { all } else { of_zone };
    let is_said = |network: &&str| network.eq_ignore_ascii_case(said.str("vip_network_id"));
    if !networks.is_empty() && !networks.iter().any(is_said) {
        return Err(Fault::validation(
            "Supplied VIP network_id is not allowed by the configuration of this deployment.",
        ));
    }
    let data = flavor.map(|(_, data)| data).unwrap_or_default();
    let topology =
        data.text("loadbalancer_topology").unwrap_or_else(|| scope.config.worker.topology.as_str());
    let driver = data.text("compute_driver").unwrap_or_else(|| scope.config.compute.driver.as_str());
    said.set("provider", provider);
    said.set("topology", topology);
    said.set("compute_driver", driver);
    said.set("vip_vnic_type", "normal");
    said.set("provisioning_status", "PENDING_CREATE");
    said.set("operating_status", "OFFLINE");
    said.set("created_at", scope.now);
    said.set("generation", 1);
    resource.insert(scope.t, &said)?;
    vips::bind(scope, &said)?;
    let id = said.id().to_owned();
    let change = Change::begin_new(scope, said);
    tree::create(scope, &change, balanced, pools)?;
    change.finish()?;
    Ok(Answer::new(201, Scope::named(resource, tree::full(scope, &id)?)))
}

/// The provider and the data of the flavor that a body names.
fn flavor(scope: &Scope<'_>, said: &Object) -> Result<Option<(String, Object)>, Fault> {
    let Some(id) = said.text("flavor_id") else { return Ok(None) };
    let flavor = FLAVOR.find(scope.t, id)?.ok_or_else(|| Fault::validation("Invalid flavor_id."))?;
    if !flavor.is("enabled") {
        return Err(Fault::disabled("flavor", id));
    }
    let profile = FLAVOR_PROFILE.get(scope.t, flavor.str("flavor_profile_id"))?;
    Ok(Some((profile.str("provider_name").to_owned(), data(&profile, "flavor_data"))))
}

/// The data of the availability zone that a body names.
fn availability_zone(scope: &Scope<'_>, said: &Object) -> Result<Object, Fault> {
    // One without a name is another than none.
    let Some(name) = said.get("availability_zone").and_then(Value::as_str) else {
        return Ok(Object::default());
    };
    let zone = AVAILABILITY_ZONE.find(scope.t, name)?;
    let zone = zone.ok_or_else(|| Fault::validation("Invalid availability zone."))?;
    if !zone.is("enabled") {
        return Err(Fault::disabled("availability_zone", name));
    }
    let profile = AVAILABILITY_ZONE_PROFILE.get(scope.t, zone.str("availability_zone_profile_id"))?;
    Ok(data(&profile, "availability_zone_data"))
}

fn data(profile: &Object, name: &str) -> Object {
    serde_json::from_str(profile.str(name)).ok().and_then(Object::of).unwrap_or_default()
}

fn provider(said: &Object, of_flavor: Option<&str>) -> Result<String, Fault> {
    let provider = match (said.text("provider"), of_flavor) {
        (Some(said_one), Some(of_flavor)) if said_one != of_flavor => {
            let flavor = said.str("flavor_id");
            let text = format!("Flavor '{flavor}' is not compatible with provider '{said_one}'");
            return Err(Fault::new(400, text));
        }
        (provider, of_flavor) => provider.or(of_flavor).unwrap_or(providers::DEFAULT),
    };
    providers::is_enabled(provider)?;
    Ok(provider.to_owned())
}

/// `LBPendingStateError`.
fn pending(id: &str) -> impl FnOnce(&str) -> Fault {
    move |status| Fault::new(409, format!("Invalid state {status} of loadbalancer resource {id}"))
}

pub(in crate::serve::api) fn put(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let said = scope.body(resource, Body::Put)?;
    let balancer = named(scope, resource, names)?;
    scope.permit(Rule::Write, balancer.str("project_id"))?;
    if said.has("vip_qos_policy_id") {
        return Err(Fault::validation("VIP QoS policy is not allowed in this deployment."));
    }
    if let Some(group) = said.texts("vip_sg_ids").first() {
        return Err(Fault::no_such("Security Group", group));
    }
    let change = Change::begin_or(scope, balancer.id(), pending(balancer.id()))?;
    change.update(resource, balancer.id(), &scope.changes(resource, said))?;
    change.finish()?;
    fresh(scope, resource, 200, balancer.id())
}

/// What goes with a load balancer, by how it is found.
static CHILDREN: [(&Resource, &str); 8] = [
    (&LISTENER, "load_balancer_id = ?1"),
    (&POOL, "load_balancer_id = ?1"),
    (&MEMBER, "pool_id IN (SELECT id FROM pool WHERE load_balancer_id = ?1)"),
    (&HEALTH_MONITOR, "pool_id IN (SELECT id FROM pool WHERE load_balancer_id = ?1)"),
    (&L7POLICY, "listener_id IN (SELECT id FROM listener WHERE load_balancer_id = ?1)"),
    (
        &L7RULE,
        "l7policy_id IN (SELECT p.id FROM l7policy p JOIN listener l ON l.id = p.listener_id \
         WHERE l.load_balancer_id = ?1)",
    ),
    (&RATE_LIMIT_POLICY, "listener_id IN (SELECT id FROM listener WHERE load_balancer_id = ?1)"),
    (
        &RATE_LIMIT_RULE,
        "rate_limit_policy_id IN (SELECT p.id FROM rate_limit_policy p JOIN listener l ON l.id = p.listener_id \
         WHERE l.load_balancer_id = ?1)",
    ),
];

pub(in crate::serve::api) fn delete(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.request.only(&["cascade"])?;
    let balancer = named(scope, resource, names)?;
    let id = balancer.id();
    scope.permit(Rule::Write, balancer.str("project_id"))?;
    let children = ["load_balancer_id = ?1 AND provisioning_status <> 'PENDING_DELETE'"; 2];
    let count = LISTENER.count(scope.t, children[0], &[&id])? + POOL.count(scope.t, children[1], &[&id])?;
    if count > 0 && !scope.request.query.is("cascade") {
        return Err(Fault::validation(format_args!("Cannot delete Load Balancer {id} - it has children")));
    }
    let status = balancer.str("provisioning_status");
    if status == "PENDING_DELETE" {
        return Ok(Answer::empty(204));
    }
    if scope.config.api.strict_immutable && !matches!(status, "ACTIVE" | "ERROR") {
        return Err(pending(id)(status));
    }
    let change = Change::of(scope, balancer.clone());
    for (resource, condition) in CHILDREN {
        change.delete_all(resource, condition, id)?;
    }
    change.delete(&LOAD_BALANCER, id)?;
    scope.enqueue(Kind::LoadBalancer, id)?;
    Ok(Answer::empty(204))
}

/// `PUT` of a failover.
pub(in crate::serve::api) fn failover(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let balancer = named(scope, resource, names)?;
    let id = balancer.id();
    scope.permit(Rule::Admin, balancer.str("project_id"))?;
    let status = balancer.str("provisioning_status");
    let strict = scope.config.api.strict_immutable;
    if status == "PENDING_DELETE" || (strict && !matches!(status, "ACTIVE" | "ERROR")) {
        return Err(pending(id)(status));
    }
    let change = Change::of(scope, balancer.clone());
    change.pend(&LOAD_BALANCER, id)?;
    scope.enqueue(Kind::LoadBalancerFailover, id)?;
    scope.enqueue(Kind::LoadBalancer, id)?;
    Ok(Answer::empty(202))
}
