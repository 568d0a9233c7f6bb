//! Members of pools.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::{
    super::{
        attributes::{Body, HEALTH_MONITOR, LISTENER, MEMBER, Object, POOL, Resource, bodies},
        change::{Change, check_quota},
        fault::Fault,
        request::Answer,
        scope::Scope,
    },
    LISTENERS_OF_POOL, Names, addresses, fresh, is_alive, list_within, pools,
    within::{both, deleted, updated},
};
use crate::serve::policies::Rule;

pub(in crate::serve::api) fn list(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    list_within(scope, resource, &POOL, names.first().copied().unwrap_or_default(), "pool_id")
}

pub(in crate::serve::api) fn get(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    POOL.get(scope.t, names.first().copied().unwrap_or_default())?;
    super::get(scope, resource, names)
}

pub(in crate::serve::api) fn post(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let pool = POOL.get(scope.t, names.first().copied().unwrap_or_default())?;
    let said = scope.body(resource, Body::Post)?;
    scope.permit(Rule::Write, pool.str("project_id"))?;
    let change = pools::change_within(scope, &pool)?;
    check_quota(scope, &MEMBER, change.project(), 1)?;
    let id = create(scope, &change, &pool, said)?;
    change.finish()?;
    fresh(scope, resource, 201, &id)
}

/// Makes a member, for which there is a quota. Tells its identifier.
pub(super) fn create(
    scope: &Scope<'_>,
    change: &Change<'_>,
    pool: &Object,
    mut said: Object,
) -> Result<String, Fault> {
    scope.fill(&MEMBER, &mut said);
    let (address, port) = (said.str("address").to_owned(), said.integer("protocol_port").unwrap_or_default());
    if address.parse::<IpAddr>().is_ok_and(|address| scope.config.networking.reserved_ips.contains(&address))
    {
        return Err(Fault::option(address, "member address"));
    }
    if let Some(subnet) = said.text("subnet_id") {
        scope.networks.subnet(subnet)?;
    }
    if said.is("request_sriov") {
        return Err(Fault::new(400, "The load balancer flavor does not allow SR-IOV member ports."));
    }
    same_family(scope, change, pool, &address)?;
    addresses::give_way(scope, change, &said)?;
    let condition = "pool_id = ?1 AND address = ?2 AND protocol_port = ?3";
    if let Some(other) = MEMBER.all(scope.t, condition, &[&pool.id(), &address, &port])?.pop() {
        if other.str("provisioning_status") != "PENDING_DELETE" {
            let text =
                format!("Another member on this pool is already using ip {address} on protocol_port {port}");
            return Err(Fault::new(409, text));
        }
        // The new one takes its place before an amphora has heard that it is to go.
        MEMBER.delete(scope.t, other.id())?;
    }
    let is_monitored = HEALTH_MONITOR.count(
        scope.t,
        "pool_id = ?1 AND provisioning_status <> 'PENDING_DELETE'",
        &[&pool.id()],
    )? > 0;
    said.set("operating_status", if is_monitored { "OFFLINE" } else { "NO_MONITOR" });
    said.set("vnic_type", "normal");
    said.set("pool_id", pool.id());
    Ok(change.create(&MEMBER, said)?.id().to_owned())
}

/// Datagrams are not translated between IPv4 and IPv6.
fn same_family(scope: &Scope<'_>, change: &Change<'_>, pool: &Object, address: &str) -> Result<(), Fault> {
    let protocol = pool.str("protocol");
    if !pools::is_of_datagrams(protocol) || LISTENER.count(scope.t, LISTENERS_OF_POOL, &[&pool.id()])? == 0 {
        return Ok(());
    }
    let is_v6 = |text: &str| text.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
    if is_v6(address) != is_v6(change.load_balancer.str("vip_address")) {
        return Err(Fault::new(
            501,
            format!(
                "Provider 'amphora' does not support a requested option: This provider doesn't support mixing \
                 IPv4 and IPv6 addresses for its VIP and members in {protocol} load balancers."
            ),
        ));
    }
    Ok(())
}

pub(in crate::serve::api) fn put(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let (pool, member) = both(scope, &POOL, resource, names)?;
    let said = scope.body(resource, Body::Put)?;
    is_alive(resource, &member)?;
    let change = pools::change_within(scope, &pool)?;
    let changes = scope.changes(resource, said);
    addresses::give_way(scope, &change, &changes)?;
    updated(scope, &change, resource, member.id(), &changes)
}

pub(in crate::serve::api) fn delete(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.request.only(&[])?;
    let (pool, member) = both(scope, &POOL, resource, names)?;
    deleted(resource, &member, Some(&pool), || pools::change_within(scope, &pool), |_| Ok(()))
}

/// The attributes that a batch resets when it does not say them.
const RESET: [&str; 5] = ["admin_state_up", "weight", "backup", "monitor_port", "monitor_address"];

/// `PUT` of all members of a pool at once.
pub(in crate::serve::api) fn put_all(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.request.only(&["additive_only"])?;
    let pool = POOL.get(scope.t, names.first().copied().unwrap_or_default())?;
    let said = bodies(resource, "members_", scope.request.json()?)?;
    scope.permit(Rule::Write, pool.str("project_id"))?;
    let additive = scope.request.query.is("additive_only");
    let old = resource.all(scope.t, "pool_id = ?1", &[&pool.id()])?;
    if said.is_empty() && (additive || old.is_empty()) {
        pools::could_change_within(scope, &pool)?;
        return Ok(Answer::empty(202));
    }
    let change = pools::change_within(scope, &pool)?;
    let key = |member: &Object| (member.str("address").to_owned(), member.integer("protocol_port"));
    let by_key: HashMap<_, _> = old.iter().map(|old| (key(old), old)).collect();
    let mut seen = HashSet::new();
    let mut new = Vec::new();
    for said in said {
        let same = by_key.get(&key(&said)).copied();
        if !seen.insert(key(&said)) && same.is_some() {
            return Err(Fault::validation("Member must be updated only once in the same request."));
        }
        let Some(same) = same else {
            new.push(said);
            continue;
        };
        let mut changes = scope.changes(resource, said);
        for name in RESET {
            if !changes.has(name)
                && let Some(attribute) = resource.attribute(name)
            {
                changes.set(name, attribute.default(scope.config));
            }
        }
        for name in ["address", "protocol_port", "project_id"] {
            changes.take(name);
        }
        addresses::give_way(scope, &change, &changes)?;
        // One that is about to go stays.
        if same.str("provisioning_status") == "PENDING_DELETE" {
            changes.set("provisioning_status", "PENDING_UPDATE");
        }
        change.update(resource, same.id(), &changes)?;
    }
    if !additive {
        for gone in old.iter().filter(|old| !seen.contains(&key(old))) {
            change.delete(resource, gone.id())?;
        }
    }
    check_quota(scope, &MEMBER, change.project(), new.len())?;
    for member in new {
        create(scope, &change, &pool, member)?;
    }
    change.finish()?;
    Ok(Answer::empty(202))
}
