//! The native API's document: Octavia's fully populated load-balancer create document, with ids.
//!
//! Reading ([`LoadBalancer::from_json`]) walks the JSON by hand, so that every fault is found in one pass and has
//! its path; writing ([`LoadBalancer::to_json`]) is the canonical form. The reference for operators is
//! `docs/document.md`.
//!
//! * `json`: text to JSON values, strictly
//! * `object`: typed access to the fields of one object
//! * `check`: the syntax of strings
//! * `listener`, `tls`, `l7`, `amphora`, `rate_limit`, `routing`, `edits`, `pool`, `member_options`: the objects
//! * `write`: the way back

mod amphora;
mod check;
mod edits;
mod json;
mod l7;
mod listener;
mod member_options;
pub mod object;
pub(crate) mod pool;
pub(crate) mod rate_limit;
mod routing;
mod tls;
mod write;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use serde_json::Value;

pub use self::json::{Fields, Json, MAX_DOCUMENT_BYTES, strict_json};
use self::object::{COMMON, MAX_NAME, Metadata, Object, parse_id};
use super::{
    HealthMonitorId, L7PolicyId, L7RuleId, ListenerId, ListenerProtocol, LoadBalancer, LoadBalancerId,
    MemberId, Pool, PoolId, RateLimitPolicyId, RateLimitRuleId, Refusal, Transport, Vip,
    fault::{Faults, Path},
};

impl LoadBalancer {
    /// Reads a document.
    ///
    /// # Errors
    /// Every fault in it, at most [`MAX_FAULTS`](super::MAX_FAULTS).
    pub fn from_json(bytes: &[u8]) -> Result<Self, Refusal> {
        parse(bytes, root)
    }

    /// Reads a document that is JSON values already.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn from_value(document: &Value) -> Result<Self, Refusal> {
        let faults = Faults::default();
        let result = Object::read(&document.into(), Path::Root, &faults, root);
        faults.into_result(result)
    }
}

/// Reads JSON text whose top is an object that `read` understands.
///
/// # Errors
/// Every fault in it, at most [`MAX_FAULTS`](super::MAX_FAULTS).
pub fn parse<T>(bytes: &[u8], read: impl FnOnce(&mut Object<'_>) -> Option<T>) -> Result<T, Refusal> {
    let faults = Faults::default();
    let value = strict_json(bytes, MAX_DOCUMENT_BYTES, &|path, reason| faults.push(path, reason));
    let result = value.and_then(|value| Object::read(&value, Path::Root, &faults, read));
    faults.into_result(result)
}

fn root(o: &mut Object<'_>) -> Option<LoadBalancer> {
    o.require("loadbalancer", |o, name| o.object(name, load_balancer))
}

/// What the parts of a document know of each other.
#[derive(Default)]
struct Context {
    id: Option<LoadBalancerId>,
    /// `project_id`.
    project: Option<String>,
    /// `amphora` of the load balancer.
    flow_log: amphora::Given,
    vips: Vec<IpAddr>,
    /// `vip_sg_ids` is not empty.
    security_groups: bool,
    pools: Pools,
    /// The listener, by its path, that has a TCP port.
    ports: HashMap<(Transport, u16), String>,
    listeners: HashSet<ListenerId>,
    without_cookies: Vec<listener::WithoutCookies>,
    members: HashSet<MemberId>,
    monitors: HashSet<HealthMonitorId>,
    policies: HashSet<L7PolicyId>,
    rules: HashSet<L7RuleId>,
    rate_limit_policies: HashSet<RateLimitPolicyId>,
    rate_limit_rules: HashSet<RateLimitRuleId>,
}

/// Every pool that the document defines, wherever it stands.
#[derive(Default)]
struct Pools {
    list: Vec<Pool>,
    /// Where in the list; `None` for a definition with faults, so that a reference to it is not called dangling.
    by_id: HashMap<PoolId, Option<usize>>,
    by_name: HashMap<String, Vec<Option<PoolId>>>,
}

impl Pools {
    fn get(&self, id: PoolId) -> Option<&Pool> {
        self.by_id.get(&id).copied().flatten().and_then(|i| self.list.get(i))
    }
}

fn load_balancer(o: &mut Object<'_>) -> Option<LoadBalancer> {
    let mut cx = Context { id: o.id(), ..Context::default() };
    let name = o.name();
    let admin_state_up = o.flag("admin_state_up", true);
    vips(o, &mut cx);
    let groups = o.strings("vip_sg_ids", |_| Ok(()));
    cx.security_groups = !groups.is_empty();
    logging(o, &mut cx);
    o.metadata(COMMON);
    o.metadata(&[
        ("vip_subnet_id", Metadata::Id),
        ("vip_network_id", Metadata::Id),
        ("vip_port_id", Metadata::Id),
        ("vip_qos_policy_id", Metadata::Id),
        ("vip_sg_ids", Metadata::Ids),
        ("vip_vnic_type", Metadata::Text(64)),
        ("provider", Metadata::Text(64)),
        ("flavor_id", Metadata::Id),
        ("availability_zone", Metadata::Text(MAX_NAME)),
    ]);
    pools(o, &mut cx);
    let listeners = o.objects("listeners", |o| listener::listener(o, &mut cx));
    listener::cookies(o, &cx, &listeners);
    Some(LoadBalancer {
        id: cx.id?,
        name,
        admin_state_up,
        vips: cx.vips.into_iter().map(|address| Vip { address }).collect(),
        listeners,
        pools: cx.pools.list,
    })
}

/// `amphora`, and the `project_id` that a format may name.
fn logging(o: &mut Object<'_>, cx: &mut Context) {
    cx.flow_log = amphora::of_load_balancer(o);
    // What is no text is told as the metadata that it is.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let project = ["project_id", "tenant_id"].into_iter().find_map(|name| o.given(name)?.as_str());
    cx.project = project.filter(|id| id.bytes().all(plain)).map(str::to_owned);
}

fn vips(o: &mut Object<'_>, cx: &mut Context) {
    let mut vip = |o: &mut Object<'_>, name| {
        let address = o.require(name, Object::address)?;
        if address.to_canonical().is_multicast() {
            o.fault(name, "must not be a multicast address");
        } else if cx.vips.contains(&address) {
            o.fault(name, "is the address of another VIP");
        } else {
            cx.vips.push(address);
        }
        Some(())
    };
    vip(o, "vip_address");
    o.objects("additional_vips", |o| {
        o.metadata(&[("subnet_id", Metadata::Id), ("port_id", Metadata::Id), ("network_id", Metadata::Id)]);
        vip(o, "ip_address")
    });
}

/// Reads every definition of a pool, those inside of listeners and policies too, so that each reference can be judged
/// where it stands.
fn pools(o: &mut Object<'_>, cx: &mut Context) {
    o.objects("pools", |o| define(o, cx));
    o.peek("listeners", |listener| {
        listener.read_ahead("default_pool", is_definition, |o| define(o, cx));
        listener.peek("l7policies", |policy| {
            policy.read_ahead("redirect_pool", is_definition, |o| define(o, cx))
        });
    });
}

/// A pool with nothing but an `id` or a `name` refers to one that is defined elsewhere.
fn is_definition(pool: &Fields<'_>) -> bool {
    pool.names().any(|name| name != "id" && name != "name")
}

fn define(o: &mut Object<'_>, cx: &mut Context) -> Option<()> {
    let id = o.get("id").and_then(parse_id::<PoolId>);
    let name = o.get("name").and_then(Json::as_str).unwrap_or_default().to_owned();
    let again = id.is_some_and(|id| cx.pools.by_id.contains_key(&id));
    let pool = pool::pool(o, cx, again);
    if again {
        let first = id.and_then(|id| cx.pools.get(id));
        if let (Some(first), Some(pool)) = (first, &pool)
            && first != pool
        {
            o.own_fault("differs from an earlier definition of the pool with the same id");
        }
        return Some(());
    }
    if let Some(id) = id {
        cx.pools.by_id.insert(id, pool.is_some().then_some(cx.pools.list.len()));
    }
    if !name.is_empty() {
        cx.pools.by_name.entry(name).or_default().push(id);
    }
    cx.pools.list.extend(pool);
    Some(())
}

/// The pool that `inline` defines or refers to, or whose id is `by_id`; both may be given when they agree. `None`
/// when neither is there, or when a fault was noted.
fn pool_reference(
    o: &mut Object<'_>,
    cx: &Context,
    inline: &'static str,
    by_id: &'static str,
    protocol: Option<ListenerProtocol>,
) -> Option<PoolId> {
    let given = o.reference::<PoolId>(by_id).filter(|id| is_defined(o, cx, by_id, *id));
    let inlined = match o.get(inline) {
        None => None,
        // Its faults were noted where it was defined.
        Some(Json::Object(pool)) if is_definition(pool) => pool.get("id").and_then(parse_id),
        Some(_) => o.object(inline, |o| resolve(o, cx)),
    };
    if let (Some(given), Some(inlined)) = (given, inlined)
        && given != inlined
    {
        o.fault(by_id, format!("is not the id of the pool in {inline}"));
    }
    let id = inlined.or(given)?;
    if let (Some(protocol), Some(pool)) = (protocol, cx.pools.get(id))
        && !protocol.carries(pool.protocol)
    {
        let name = if inlined.is_some() { inline } else { by_id };
        o.fault(
            name,
            format!(
                "is a pool of protocol {}, to which a listener of protocol {protocol} cannot send",
                pool.protocol
            ),
        );
    }
    Some(id)
}

fn resolve(o: &mut Object<'_>, cx: &Context) -> Option<PoolId> {
    let id = o.reference::<PoolId>("id");
    let name = o.text("name", MAX_NAME).filter(|name| !name.is_empty());
    if let Some(id) = id {
        let known = is_defined(o, cx, "id", id);
        if let (Some(name), Some(pool)) = (name, cx.pools.get(id))
            && name != pool.name
        {
            o.fault("name", "is not the name of the pool with this id");
        }
        return known.then_some(id);
    }
    let Some(name) = name else {
        if !o.has("id") {
            o.own_fault("must be a pool, or refer to one by its id or name");
        }
        return None;
    };
    match cx.pools.by_name.get(name).map(Vec::as_slice) {
        None => o.fault("name", "is not the name of a pool in this document"),
        Some([id]) => return *id,
        Some(_) => o.fault("name", "is the name of several pools; refer to one by its id"),
    }
    None
}

fn is_defined(o: &Object<'_>, cx: &Context, field: &str, id: PoolId) -> bool {
    let defined = cx.pools.by_id.contains_key(&id);
    if !defined {
        o.fault(field, "is not the id of a pool in this document");
    }
    defined
}
