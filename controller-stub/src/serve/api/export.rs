//! Load balancers as the bodies of Octavia's fully populated create, for who moves to an OpenStack.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use super::{
    attributes::{HEALTH_MONITOR, L7POLICY, L7RULE, LISTENER, LOAD_BALANCER, MEMBER, Object, POOL, Resource},
    fault::Fault,
};
use crate::{
    client::octavia::Octavia,
    error::{Error, Result},
    serve::{db, document::REFERENCES},
};

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

/// Why nothing is exported.
#[derive(Debug, thiserror::Error)]
pub enum NotExported {
    /// There is none of this id.
    #[error("there is no load balancer {0}")]
    NoLoadBalancer(String),
    /// The database's.
    #[error(transparent)]
    Database(#[from] db::Error),
}

/// A load balancer with all that is its own.
struct Tree {
    load_balancer: Object,
    is_pair: bool,
    listeners: Vec<(Object, Vec<Policy>)>,
    pools: Vec<Balanced>,
}

/// An L7 policy with its rules.
struct Policy(Object, Vec<Object>);

/// A pool with its members, and what watches them.
struct Balanced {
    pool: Object,
    members: Vec<Object>,
    monitor: Option<Object>,
}

/// Exports the load balancers of these ids, or all that are not about to go.
///
/// # Errors
/// The database's; there is none of an id.
pub fn export(t: &Transaction<'_>, ids: &[String]) -> Result<Vec<Exported>, NotExported> {
    let failed = |fault: Fault| NotExported::Database(db::Error::Sql(fault.text));
    let all = staying(t, &LOAD_BALANCER, "1 = 1", "created_at, id", &[]).map_err(failed)?;
    let wanted = wanted(all, ids)?;
    wanted.into_iter().map(|lb| rows(t, lb).map(|tree| one(&tree)).map_err(failed)).collect()
}

/// The same of a running API, of `serve` or of an Octavia, as who asks sees it.
///
/// # Errors
/// No answer, or a refusal; there is none of an id.
pub(crate) async fn export_from(api: &Octavia, ids: &[String]) -> Result<Vec<Exported>> {
    let all = list(api, &LOAD_BALANCER, "/lbaas/loadbalancers").await?;
    let mut exported = Vec::new();
    for lb in wanted(all, ids).map_err(|none| Error::Usage(none.to_string()))? {
        exported.push(one(&asked(api, lb).await?));
    }
    Ok(exported)
}

/// Those of these ids, or all.
fn wanted(all: Vec<Object>, ids: &[String]) -> Result<Vec<Object>, NotExported> {
    if let Some(id) = ids.iter().find(|id| all.iter().all(|lb| lb.id() != id.as_str())) {
        return Err(NotExported::NoLoadBalancer(id.clone()));
    }
    Ok(all.into_iter().filter(|lb| ids.is_empty() || ids.iter().any(|id| id == lb.id())).collect())
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

/// What the database has of a load balancer.
fn rows(t: &Transaction<'_>, load_balancer: Object) -> Result<Tree, Fault> {
    let id = load_balancer.id();
    let mut listeners = Vec::new();
    for listener in staying(t, &LISTENER, "load_balancer_id = ?1", "created_at, id", &[&id])? {
        let policies = staying(t, &L7POLICY, "listener_id = ?1", "position, id", &[&listener.id()])?;
        let with_rules = policies.into_iter().map(|policy| {
            let rules = staying(t, &L7RULE, "l7policy_id = ?1", "created_at, id", &[&policy.id()])?;
            Ok(Policy(policy, rules))
        });
        listeners.push((listener, with_rules.collect::<Result<_, Fault>>()?));
    }
    let mut pools = Vec::new();
    for pool in staying(t, &POOL, "load_balancer_id = ?1", "created_at, id", &[&id])? {
        let members = staying(t, &MEMBER, "pool_id = ?1", "created_at, id", &[&pool.id()])?;
        let monitor = staying(t, &HEALTH_MONITOR, "pool_id = ?1", "id", &[&pool.id()])?.pop();
        pools.push(Balanced { pool, members, monitor });
    }
    let is_pair = load_balancer.str("topology") == "ACTIVE_STANDBY";
    Ok(Tree { load_balancer, is_pair, listeners, pools })
}

/// What an API tells of a load balancer. What is made or goes meanwhile may be missing.
async fn asked(api: &Octavia, load_balancer: Object) -> Result<Tree> {
    let id = load_balancer.id();
    let of = |many: &str| format!("/lbaas/{many}?loadbalancer_id={id}");
    let mut listeners = Vec::new();
    for listener in list(api, &LISTENER, &of("listeners")).await? {
        let mut policies = Vec::new();
        let path = format!("/lbaas/l7policies?listener_id={}", listener.id());
        for policy in list(api, &L7POLICY, &path).await? {
            let rules = list(api, &L7RULE, &format!("/lbaas/l7policies/{}/rules", policy.id())).await?;
            policies.push(Policy(policy, rules));
        }
        policies.sort_by_key(|Policy(policy, _)| policy.integer("position"));
        listeners.push((listener, policies));
    }
    let mut pools = Vec::new();
    for pool in list(api, &POOL, &of("pools")).await? {
        let members = list(api, &MEMBER, &format!("/lbaas/pools/{}/members", pool.id())).await?;
        let path = format!("/lbaas/healthmonitors?pool_id={}", pool.id());
        let monitor = list(api, &HEALTH_MONITOR, &path).await?.pop();
        pools.push(Balanced { pool, members, monitor });
    }
    // Who may not see amphorae is not told.
    let path = format!("/octavia/amphorae?loadbalancer_id={id}");
    let amphorae = api.get(&path).await?.unwrap_or_default();
    let is_pair =
        amphorae["amphorae"].as_array().into_iter().flatten().any(|amphora| amphora["role"] == "BACKUP");
    Ok(Tree { load_balancer, is_pair, listeners, pools })
}

/// A list of an API, without what is about to go.
async fn list(api: &Octavia, resource: &'static Resource, path: &str) -> Result<Vec<Object>> {
    let all = api.list(path, resource.many, resource.links).await?;
    let all = all.into_iter().filter_map(Object::of);
    Ok(all.filter(|one| one.str("provisioning_status") != "PENDING_DELETE").collect())
}

fn one(tree: &Tree) -> Exported {
    let Tree { load_balancer, is_pair, listeners, pools } = tree;
    let mut told = Told::default();
    let names = told.name_pools(pools);
    let named = |pool: &str| names.get(pool).map(|name| json!({ "name": name }));
    let mut body = told.attributes(&LOAD_BALANCER, load_balancer);
    let mut shown_listeners = Vec::new();
    for (listener, policies) in listeners {
        let mut shown = told.attributes(&LISTENER, listener);
        let shared = told.heaviest(&LISTENER, listener, "default_pools", pools);
        if let Some(pool) = named(shared.unwrap_or(listener.str("default_pool_id"))) {
            shown.insert("default_pool".to_owned(), pool);
        }
        let mut shown_policies = Vec::new();
        for Policy(policy, rules) in policies {
            if matches!(policy.str("action"), "EDIT" | "ANSWER") {
                let action = policy.str("action");
                told.remarks.push(format!(
                    "L7 policy {}: there is no action {action} there, and it is left out.",
                    policy.id()
                ));
                continue;
            }
            let mut shown = told.attributes(&L7POLICY, policy);
            let shared = told.heaviest(&L7POLICY, policy, "redirect_pools", pools);
            if let Some(pool) = named(shared.unwrap_or(policy.str("redirect_pool_id"))) {
                shown.insert("redirect_pool".to_owned(), pool);
            }
            let rules: Vec<_> = rules.iter().map(|rule| told.attributes(&L7RULE, rule)).collect();
            shown.insert("rules".to_owned(), json!(rules));
            shown_policies.push(shown);
        }
        shown.insert("l7policies".to_owned(), json!(shown_policies));
        shown_listeners.push(shown);
    }
    let mut shown_pools = Vec::new();
    for Balanced { pool, members, monitor } in pools {
        let mut shown = told.attributes(&POOL, pool);
        shown.insert("name".to_owned(), json!(names.get(pool.id())));
        let mut shown_members = Vec::new();
        for member in members {
            let mut shown = told.attributes(&MEMBER, member);
            if member.str("vnic_type") == "direct" {
                shown.insert("request_sriov".to_owned(), json!(true));
            }
            shown_members.push(shown);
        }
        shown.insert("members".to_owned(), json!(shown_members));
        if let Some(monitor) = monitor {
            shown
                .insert("healthmonitor".to_owned(), Value::Object(told.attributes(&HEALTH_MONITOR, monitor)));
        }
        shown_pools.push(shown);
    }
    body.insert("listeners".to_owned(), json!(shown_listeners));
    body.insert("pools".to_owned(), json!(shown_pools));
    if *is_pair {
        told.remarks.push(
            "It is a pair here (ACTIVE_STANDBY): a flavor, or loadbalancer_topology, says so there."
                .to_owned(),
        );
    }
    Exported {
        id: load_balancer.id().to_owned(),
        name: load_balancer.str("name").to_owned(),
        body: json!({ "loadbalancer": body }),
        subnets: told.subnets,
        remarks: told.remarks,
    }
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
    fn name_pools(&mut self, pools: &[Balanced]) -> BTreeMap<String, String> {
        let mut names = BTreeMap::new();
        for Balanced { pool, .. } in pools {
            let name = pool.str("name");
            let same = pools.iter().filter(|other| other.pool.str("name") == name).count();
            let chosen = if name.is_empty() || same > 1 { pool.id() } else { name };
            if chosen != name {
                self.remarks
                    .push(format!("Pool {chosen} has its id as its name, for {name:?} is no other's."));
            }
            names.insert(pool.id().to_owned(), chosen.to_owned());
        }
        names
    }

    /// The id of that of several pools that has the greatest share, of equals the first: there is one alone there, and without it a
    /// listener answers 503 and a policy is refused.
    fn heaviest<'a>(
        &mut self,
        resource: &'static Resource,
        object: &Object,
        field: &str,
        pools: &'a [Balanced],
    ) -> Option<&'a str> {
        let shares = object.get("amphora")?.get(field)?.as_array()?;
        let heaviest = shares.iter().rev().max_by_key(|share| share["weight"].as_i64())?;
        let id = heaviest["pool_id"].as_str().or_else(|| heaviest["pool"]["id"].as_str());
        let name = heaviest["pool"]["name"].as_str();
        let is_it = |pool: &Object| match id {
            Some(id) => pool.id().eq_ignore_ascii_case(id),
            None => name.is_some_and(|name| pool.str("name") == name),
        };
        let Balanced { pool, .. } = pools.iter().find(|Balanced { pool, .. }| is_it(pool))?;
        self.remarks.push(format!(
            "{}: pool {} has the greatest of its shares, and all of what comes there.",
            whose(resource, object),
            name_of(pool)
        ));
        Some(pool.id())
    }

    /// The attributes that a body may have, but for those that lead to other objects.
    fn attributes(&mut self, resource: &'static Resource, object: &Object) -> Map<String, Value> {
        let whose = whose(resource, object);
        let mut shown = Map::new();
        for attribute in resource.attributes.iter().filter(|attribute| !attribute.is_refused()) {
            let leads = ["listeners", "pools", "l7policies", "rules", "members", "healthmonitor", "pool_id"];
            let id = ["default_pool_id", "redirect_pool_id", "loadbalancer_id", "listener_id", "l7policy_id"];
            let name = attribute.name;
            let Some(value) = object.get(name).map(without_nulls) else { continue };
            if matches!(name, "amphora" | "rate_limit_policies") {
                self.remarks.push(format!(
                    "{whose}: {name} {value}: there is no word for it there, and it is left out."
                ));
                continue;
            }
            let is_empty = value.as_array().is_some_and(Vec::is_empty);
            if leads.contains(&name) || id.contains(&name) || is_empty {
                continue;
            }
            if ELSEWHERE.contains(&name) {
                if !matches!(name, "project_id" | "tenant_id" | "vip_port_id" | "vip_network_id") {
                    self.remarks.push(format!("{whose}: {name} {value} is of here, and left out."));
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

/// What a person is told an object is, as `Pool web`.
fn whose(resource: &Resource, object: &Object) -> String {
    format!("{} {}", resource.title, name_of(object))
}

fn name_of(object: &Object) -> &str {
    let name = object.str("name");
    if name.is_empty() { object.id() } else { name }
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
