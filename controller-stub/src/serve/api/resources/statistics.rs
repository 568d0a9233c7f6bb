//! What is going on: the tree of statuses, and counters.

use rusqlite::OptionalExtension as _;
use serde_json::{Value, json};

use super::{
    super::{
        attributes::{HEALTH_MONITOR, LISTENER, LOAD_BALANCER, MEMBER, Object, POOL, Resource},
        fault::Fault,
        request::Answer,
        scope::Scope,
    },
    Names, named,
};
use crate::serve::policies::Rule;

const STATUS: [&str; 4] = ["id", "name", "operating_status", "provisioning_status"];

/// The most members in one answer: those of a pool are told with each listener that has it.
const MOST_OF_STATUS: usize = 20_000;

/// `GET` of a load balancer's status.
pub(in crate::serve::api) fn status(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.request.only(&[])?;
    let balancer = named(scope, resource, names)?;
    scope.permit(Rule::Read, balancer.str("project_id"))?;
    let mut told = some(&balancer, &STATUS);
    let listeners =
        LISTENER.all(scope.t, "load_balancer_id = ?1 ORDER BY created_at, id", &[&balancer.id()])?;
    let pools = POOL.all(scope.t, "load_balancer_id = ?1 ORDER BY created_at, id", &[&balancer.id()])?;
    let mut left = MOST_OF_STATUS;
    let listeners = listeners.iter().map(|listener| {
        let mut told = some(listener, &STATUS);
        let own = pools.iter().filter(|pool| is_behind(listener, pool));
        told.set(
            "pools",
            own.map(|pool| status_of_pool(scope, pool, &mut left)).collect::<Result<Vec<_>, _>>()?,
        );
        Ok(Value::Object(told.0))
    });
    told.set("listeners", listeners.collect::<Result<Vec<_>, Fault>>()?);
    if let Some(reason) = reason(scope, balancer.id())? {
        told.set("reason", reason);
    }
    Ok(Answer::new(200, json!({"statuses": {"loadbalancer": told.0}})))
}

/// Why a load balancer is not yet what it is to be, when it has failed to become so, or an amphora is replaced that nobody asked for: of ours, and none of Octavia's attributes.
fn reason(scope: &Scope<'_>, id: &str) -> Result<Option<String>, Fault> {
    let text = "SELECT reason FROM work WHERE reason IS NOT NULL AND (subject = ?1
                OR subject IN (SELECT id FROM amphora WHERE load_balancer_id = ?1)) ORDER BY attempts = 0, kind = 'AMPHORA_CONFIGURE', attempts DESC LIMIT 1";
    Ok(scope.t.prepare_cached(text)?.query_row([id], |row| row.get(0)).optional()?.flatten())
}

/// Whether a listener sends to a pool, as the pool tells it.
fn is_behind(listener: &Object, pool: &Object) -> bool {
    pool.list("listeners").iter().any(|other| other.get("id").and_then(Value::as_str) == Some(listener.id()))
}

/// `left`: members that may be told besides.
fn status_of_pool(scope: &Scope<'_>, pool: &Object, left: &mut usize) -> Result<Value, Fault> {
    let mut told = some(pool, &STATUS);
    let monitors = HEALTH_MONITOR.all(scope.t, "pool_id = ?1", &[&pool.id()])?;
    let monitor = monitors.first().map(|monitor| some(monitor, &[&STATUS[..], &["type"]].concat()).0);
    told.set("health_monitor", monitor);
    let members = MEMBER.all(scope.t, "pool_id = ?1 ORDER BY created_at, id", &[&pool.id()])?;
    *left = left.checked_sub(members.len()).ok_or_else(|| {
        let text = "There are too many members behind too many listeners to tell of each: ask for the members of a pool.";
        Fault::new(400, text)
    })?;
    let attributes = [&STATUS[..], &["address", "protocol_port"]].concat();
    let members: Vec<_> = members.iter().map(|member| Value::Object(some(member, &attributes).0)).collect();
    told.set("members", members);
    Ok(Value::Object(told.0))
}

fn some(object: &Object, names: &[&str]) -> Object {
    let mut told = Object::default();
    for name in names {
        told.set(name, object.0.get(*name).cloned().unwrap_or_default());
    }
    told
}

/// Counters of a condition of listeners. Connections are those of the amphorae that carry them now.
fn counters(scope: &Scope<'_>, condition: &str, id: &str) -> Result<Value, Fault> {
    let text = format!(
        "SELECT TOTAL(s.bytes_in), TOTAL(s.bytes_out), \
         TOTAL(CASE WHEN a.status = 'ALLOCATED' THEN s.active_connections ELSE 0 END), \
         TOTAL(s.total_connections), TOTAL(s.request_errors) \
         FROM listener_statistics s JOIN listener l ON l.id = s.listener_id \
         LEFT JOIN amphora a ON a.id = s.amphora_id WHERE {condition}"
    );
    let read = |row: &rusqlite::Row<'_>| {
        let number = |at| row.get::<_, f64>(at).map(|number| number as i64);
        Ok(json!({
            "bytes_in": number(0)?,
            "bytes_out": number(1)?,
            "active_connections": number(2)?,
            "total_connections": number(3)?,
            "request_errors": number(4)?,
        }))
    };
    Ok(scope.t.prepare_cached(&text)?.query_row([id], read)?)
}

/// `GET` of the counters of a load balancer or a listener.
pub(in crate::serve::api) fn stats(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.request.only(&[])?;
    let object = named(scope, resource, names)?;
    scope.permit(Rule::Read, object.str("project_id"))?;
    let condition =
        if resource.table == LOAD_BALANCER.table { "l.load_balancer_id = ?1" } else { "l.id = ?1" };
    Ok(Answer::new(200, json!({"stats": counters(scope, condition, object.id())?})))
}
