//! Load balancers as the bodies of Octavia's fully populated create, for who moves to an OpenStack.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use super::{
    attributes::{HEALTH_MONITOR, L7POLICY, L7RULE, LISTENER, LOAD_BALANCER, MEMBER, Object, POOL, Resource},
    fault::Fault,
};
use crate::serve::{db, document::REFERENCES};

/// What is another's in another cloud, or of who makes the load balancer there.
const ELSEWHERE: [&str; 8] = [
    "project_id",
    "tenant_id",
    "vip_port_id",
    "vip_network_id",
    "vip_qos_policy_id",
    "vip_sg_ids",
    "flavor_id",
    "availability_zone",
];

/// A load balancer as it is exported.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    /// Its id here. It gets another there.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `{"loadbalancer": {..}}`.
    pub body: Value,
    /// The subnets that the body names, by their ids here.
    pub subnets: BTreeSet<String>,
    /// What the body does not carry, or what has to be done before it is of use: a sentence each.
    pub remarks: Vec<String>,
}

/// Exports the load balancers of these ids, or all that are not about to go.
///
/// # Errors
/// The database's; there is none of an id.
pub fn export(t: &Transaction<'_>, ids: &[String]) -> Result<Vec<Exported>, db::Error> {
    let failed = |fault: Fault| db::Error::Sql(fault.text);
    let all = staying(t, &LOAD_BALANCER, "1 = 1", "created_at, id", &[]).map_err(failed)?;
    if let Some(id) = ids.iter().find(|id| all.iter().all(|lb| lb.id() != id.as_str())) {
        return Err(db::Error::Sql(format!("there is no load balancer {id}")));
    }
    let wanted = all.iter().filter(|lb| ids.is_empty() || ids.iter().any(|id| id == lb.id()));
    wanted.map(|lb| one(t, lb).map_err(failed)).collect()
}

/// Rows that are not about to go.
fn staying(
    t: &Transaction<'_>,
    resource: &'static Resource,
    condition: &str,
    order: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<Vec<Object>, Fault> {
    let table = resource.table;
    let condition =
        format!("{condition} AND {table}.provisioning_status <> 'PENDING_DELETE' ORDER BY {order}");
    resource.all(t, &condition, values)
}

fn one(t: &Transaction<'_>, lb: &Object) -> Result<Exported, Fault> {
    let id = lb.id();
    let mut told = Told::default();
    let pools = staying(t, &POOL, "load_balancer_id = ?1", "created_at, id", &[&id])?;
    let names = told.name_pools(&pools);
    let named = |pool: &str| names.get(pool).map(|name| json!({ "name": name }));
    let mut body = told.attributes(&LOAD_BALANCER, lb);
    let mut listeners = Vec::new();
    for listener in staying(t, &LISTENER, "load_balancer_id = ?1", "created_at, id", &[&id])? {
        let mut shown = told.attributes(&LISTENER, &listener);
        if let Some(pool) = named(listener.str("default_pool_id")) {
            shown.insert("default_pool".to_owned(), pool);
        }
        let mut policies = Vec::new();
        for policy in staying(t, &L7POLICY, "listener_id = ?1", "position, id", &[&listener.id()])? {
            if matches!(policy.str("action"), "EDIT" | "ANSWER") {
                let action = policy.str("action");
                told.remarks.push(format!(
                    "L7 policy {}: there is no action {action} there, and it is left out.",
                    policy.id()
                ));
                continue;
            }
            let mut shown = told.attributes(&L7POLICY, &policy);
            if let Some(pool) = named(policy.str("redirect_pool_id")) {
                shown.insert("redirect_pool".to_owned(), pool);
            }
            let rules = staying(t, &L7RULE, "l7policy_id = ?1", "created_at, id", &[&policy.id()])?;
            let rules: Vec<_> = rules.iter().map(|rule| told.attributes(&L7RULE, rule)).collect();
            shown.insert("rules".to_owned(), json!(rules));
            policies.push(shown);
        }
        shown.insert("l7policies".to_owned(), json!(policies));
        listeners.push(shown);
    }
    let mut balanced = Vec::new();
    for pool in &pools {
        let mut shown = told.attributes(&POOL, pool);
        shown.insert("name".to_owned(), json!(names.get(pool.id())));
        let mut members = Vec::new();
        for member in staying(t, &MEMBER, "pool_id = ?1", "created_at, id", &[&pool.id()])? {
            let mut shown = told.attributes(&MEMBER, &member);
            if member.str("vnic_type") == "direct" {
                shown.insert("request_sriov".to_owned(), json!(true));
            }
            members.push(shown);
        }
        shown.insert("members".to_owned(), json!(members));
        if let Some(monitor) = staying(t, &HEALTH_MONITOR, "pool_id = ?1", "id", &[&pool.id()])?.first() {
            shown
                .insert("healthmonitor".to_owned(), Value::Object(told.attributes(&HEALTH_MONITOR, monitor)));
        }
        balanced.push(shown);
    }
    body.insert("listeners".to_owned(), json!(listeners));
    body.insert("pools".to_owned(), json!(balanced));
    if lb.str("topology") == "ACTIVE_STANDBY" {
        told.remarks.push(
            "It is a pair here (ACTIVE_STANDBY): a flavor, or loadbalancer_topology, says so there."
                .to_owned(),
        );
    }
    Ok(Exported {
        id: id.to_owned(),
        name: lb.str("name").to_owned(),
        body: json!({ "loadbalancer": body }),
        subnets: told.subnets,
        remarks: told.remarks,
    })
}

/// What is noticed on the way.
#[derive(Debug, Default)]
struct Told {
    subnets: BTreeSet<String>,
    certificates: BTreeSet<String>,
    remarks: Vec<String>,
}

impl Told {
    /// Pools are referred to by names, which have to be there and differ.
    fn name_pools(&mut self, pools: &[Object]) -> BTreeMap<String, String> {
        let mut names = BTreeMap::new();
        for pool in pools {
            let name = pool.str("name");
            let same = pools.iter().filter(|other| other.str("name") == name).count();
            let chosen = if name.is_empty() || same > 1 { pool.id() } else { name };
            if chosen != name {
                self.remarks
                    .push(format!("Pool {chosen} has its id as its name, for {name:?} is no other's."));
            }
            names.insert(pool.id().to_owned(), chosen.to_owned());
        }
        names
    }

    /// The attributes that a body may have, but for those that lead to other objects.
    fn attributes(&mut self, resource: &'static Resource, object: &Object) -> Map<String, Value> {
        let mut shown = Map::new();
        for attribute in resource.attributes.iter().filter(|attribute| !attribute.is_refused()) {
            let leads = ["listeners", "pools", "l7policies", "rules", "members", "healthmonitor", "pool_id"];
            let id = ["default_pool_id", "redirect_pool_id", "loadbalancer_id", "listener_id", "l7policy_id"];
            let name = attribute.name;
            let Some(value) = object.get(name).map(without_nulls) else { continue };
            if matches!(name, "amphora" | "rate_limit_policies") {
                self.remarks
                    .push(format!("{name} {value}: there is no word for it there, and it is left out."));
                continue;
            }
            let is_empty = value.as_array().is_some_and(Vec::is_empty);
            if leads.contains(&name) || id.contains(&name) || is_empty {
                continue;
            }
            if ELSEWHERE.contains(&name) {
                if !matches!(name, "project_id" | "tenant_id" | "vip_port_id" | "vip_network_id") {
                    self.remarks.push(format!("{name} {value} is of here, and left out."));
                }
                continue;
            }
            self.note(name, &value);
            shown.insert(name.to_owned(), value);
        }
        shown
    }

    /// Subnets and certificates have to be there before.
    fn note(&mut self, name: &str, value: &Value) {
        match name {
            "vip_subnet_id" | "subnet_id" => self.subnets.extend(value.as_str().map(str::to_owned)),
            "additional_vips" => {
                let vips = value.as_array().into_iter().flatten();
                self.subnets.extend(vips.filter_map(|vip| vip["subnet_id"].as_str().map(str::to_owned)));
            }
            _ if REFERENCES.contains(&name) => {
                let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                for reference in list.iter().filter_map(Value::as_str) {
                    if self.certificates.insert(reference.to_owned()) {
                        self.remarks.push(format!(
                            "{name} {reference}: bring the file of that name to the secret store there, and its reference into the body."
                        ));
                    }
                }
            }
            _ => {}
        }
    }
}

/// A body says nothing of what is not.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, value)| !value.is_null())
                // The port of an additional VIP is of here.
                .filter(|(name, _)| !matches!(name.as_str(), "port_id" | "network_id"))
                .map(|(name, value)| (name.clone(), without_nulls(value)))
                .collect(),
        ),
        Value::Array(list) => list.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}
