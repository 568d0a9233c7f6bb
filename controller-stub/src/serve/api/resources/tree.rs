//! Load balancers that are made with all that is in them, and those that are told so.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    super::{
        attributes::{
            HEALTH_MONITOR, L7POLICY, L7RULE, LISTENER, LOAD_BALANCER, MEMBER, Object, POOL,
            RATE_LIMIT_POLICY, RATE_LIMIT_RULE, Resource,
        },
        change::Change,
        fault::Fault,
        scope::Scope,
    },
    listeners, pools,
};

/// Pools that were made, by name.
#[derive(Debug, Default)]
pub(super) struct Pools(BTreeMap<String, String>);

impl Pools {
    /// The identifier of the pool that an object names.
    pub(super) fn find(&self, pool: &Object) -> Result<&str, Fault> {
        let name = pool.str("name");
        self.0
            .get(name)
            .map(String::as_str)
            .ok_or_else(|| Fault::new(400, format!("Missing details for Pool object: {name}")))
    }
}

/// Makes listeners and pools of a body.
pub(super) fn create(
    scope: &Scope<'_>,
    change: &Change<'_>,
    mut balanced: Vec<Object>,
    mut pools: Vec<Object>,
) -> Result<(), Fault> {
    let mut named = Vec::new();
    for listener in &mut balanced {
        collect(listener, &mut pools, &mut named)?;
    }
    let made = create_pools(scope, change, pools, &named)?;
    for listener in balanced {
        listeners::create(scope, change, listener, &made)?;
    }
    Ok(())
}

/// Makes the pools that are within the body of one listener.
pub(super) fn pools_within(
    scope: &Scope<'_>,
    change: &Change<'_>,
    listener: &mut Object,
) -> Result<Pools, Fault> {
    let (mut pools, mut named) = (Vec::new(), Vec::new());
    collect(listener, &mut pools, &mut named)?;
    create_pools(scope, change, pools, &named)
}

/// Takes pools out of a listener, and leaves their names.
fn collect(listener: &mut Object, pools: &mut Vec<Object>, named: &mut Vec<String>) -> Result<(), Fault> {
    take(&mut listener.0, "default_pool", pools, named)?;
    if let Some(Value::Array(policies)) = listener.0.get_mut("l7policies") {
        for policy in policies.iter_mut().filter_map(Value::as_object_mut) {
            take(policy, "redirect_pool", pools, named)?;
        }
    }
    Ok(())
}

fn take(
    holder: &mut Map<String, Value>,
    attribute: &str,
    pools: &mut Vec<Object>,
    named: &mut Vec<String>,
) -> Result<(), Fault> {
    let Some(Value::Object(pool)) = holder.get_mut(attribute) else { return Ok(()) };
    let Some(name) = pool.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
        return Err(Fault::validation("Pools must be named when creating a fully populated loadbalancer."));
    };
    let reference = json!({"name": name});
    if pool.len() > 1 {
        pools.push(Object(std::mem::take(pool)));
    } else {
        named.push(name.to_owned());
    }
    holder.insert(attribute.to_owned(), reference);
    Ok(())
}

fn create_pools(
    scope: &Scope<'_>,
    change: &Change<'_>,
    said: Vec<Object>,
    named: &[String],
) -> Result<Pools, Fault> {
    let mut made = Pools::default();
    for pool in &said {
        let again = made.0.insert(pool.str("name").to_owned(), String::new()).is_some();
        if again {
            return Err(Fault::validation(
                "Pool names must be unique when creating a fully populated loadbalancer.",
            ));
        }
    }
    if let Some(name) = named.iter().find(|&name| !made.0.contains_key(name)) {
        return Err(Fault::validation(format_args!(
            "Pool '{name}' was referenced but no full definition was found."
        )));
    }
    for pool in said {
        let name = pool.str("name").to_owned();
        for attribute in ["protocol", "lb_algorithm"] {
            if pool.get(attribute).is_none() {
                return Err(Fault::validation(format_args!(
                    "Pool definition for '{name}' missing required attribute: {attribute}"
                )));
            }
        }
        let id = pools::create(scope, change, pool)?.id().to_owned();
        made.0.insert(name, id);
    }
    Ok(made)
}

/// All of a resource that belong to one, told in full.
fn told(
    scope: &Scope<'_>,
    resource: &'static Resource,
    column: &str,
    id: &str,
    more: impl Fn(&Object, &mut Object) -> Result<(), Fault>,
) -> Result<Value, Fault> {
    let order = if resource.table == "l7policy" { "position" } else { "created_at" };
    let all = resource.all(scope.t, &format!("{column} = ?1 ORDER BY {order}, id"), &[&id])?;
    let told = all.iter().map(|object| {
        let mut shown = resource.show(object);
        more(object, &mut shown)?;
        Ok(Value::Object(shown.0))
    });
    Ok(Value::Array(told.collect::<Result<_, Fault>>()?))
}

/// A load balancer with all that is in it, as POST tells it.
pub(super) fn full(scope: &Scope<'_>, id: &str) -> Result<Value, Fault> {
    let mut shown = LOAD_BALANCER.show(&LOAD_BALANCER.get(scope.t, id)?);
    let rules = |policy: &Object, shown: &mut Object| {
        shown.set("rules", told(scope, &L7RULE, "l7policy_id", policy.id(), |_, _| Ok(()))?);
        Ok(())
    };
    let listeners = told(scope, &LISTENER, "load_balancer_id", id, |listener, shown| {
        shown.0.remove("loadbalancers");
        shown.set("l7policies", told(scope, &L7POLICY, "listener_id", listener.id(), rules)?);
        if listener.get("rate_limit_policies").is_some() {
            let limits = told(scope, &RATE_LIMIT_POLICY, "listener_id", listener.id(), |policy, shown| {
                let of = "rate_limit_policy_id";
                shown.set("rules", told(scope, &RATE_LIMIT_RULE, of, policy.id(), |_, _| Ok(()))?);
                Ok(())
            })?;
            shown.set("rate_limit_policies", limits);
        }
        Ok(())
    })?;
    let pools = told(scope, &POOL, "load_balancer_id", id, |pool, shown| {
        shown.0.remove("loadbalancers");
        shown.0.remove("healthmonitor_id");
        let monitors = told(scope, &HEALTH_MONITOR, "pool_id", pool.id(), |_, shown| {
            shown.0.remove("pools");
            Ok(())
        })?;
        shown.set("healthmonitor", monitors.get(0).cloned().unwrap_or_default());
        shown.set("members", told(scope, &MEMBER, "pool_id", pool.id(), |_, _| Ok(()))?);
        Ok(())
    })?;
    shown.set("listeners", listeners);
    shown.set("pools", pools);
    Ok(Value::Object(shown.0))
}
