//! Amphorae, for operators.

use serde_json::{Value, json};

use super::{
    super::{
        attributes::{LOAD_BALANCER, Object, Resource},
        change::Change,
        fault::Fault,
        lists::{self, Condition},
        request::Answer,
        scope::Scope,
    },
    Names, named, shown,
};
use crate::serve::{policies::Rule, queue::Kind};

pub(in crate::serve::api) fn list(
    scope: &Scope<'_>,
    resource: &'static Resource,
    _names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.permit_own(Rule::Admin)?;
    Ok(Answer::new(200, lists::list(scope, resource, Condition::default(), &[])?))
}

pub(in crate::serve::api) fn get(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let amphora = named(scope, resource, names)?;
    scope.permit_own(Rule::Admin)?;
    shown(scope, resource, 200, &amphora)
}

pub(in crate::serve::api) fn stats(
    scope: &Scope<'_>,
    _resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.permit_own(Rule::Admin)?;
    let id = names.first().copied().unwrap_or_default();
    let mut query = scope.t.prepare_cached(
        "SELECT s.listener_id, l.load_balancer_id, s.bytes_in, s.bytes_out, s.active_connections, \
         s.total_connections, s.request_errors FROM listener_statistics s JOIN listener l ON l.id = s.listener_id \
         WHERE s.amphora_id = ?1 ORDER BY s.listener_id",
    )?;
    let rows = query.query_map([id], |row| {
        Ok(json!({
            "id": id,
            "listener_id": row.get::<_, String>(0)?,
            "loadbalancer_id": row.get::<_, String>(1)?,
            "bytes_in": row.get::<_, i64>(2)?,
            "bytes_out": row.get::<_, i64>(3)?,
            "active_connections": row.get::<_, i64>(4)?,
            "total_connections": row.get::<_, i64>(5)?,
            "request_errors": row.get::<_, i64>(6)?,
        }))
    })?;
    let stats: Vec<Value> = rows.collect::<Result<_, _>>()?;
    if stats.is_empty() {
        return Err(Fault::not_found("Amphora stats for", id));
    }
    Ok(Answer::new(200, json!({"amphora_stats": stats})))
}

pub(in crate::serve::api) fn configure(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let amphora = named(scope, resource, names)?;
    scope.permit(Rule::Admin, amphora.str("project_id"))?;
    scope.enqueue(Kind::AmphoraConfigure, amphora.id())?;
    Ok(Answer::empty(202))
}

pub(in crate::serve::api) fn failover(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let amphora = named(scope, resource, names)?;
    scope.permit(Rule::Admin, amphora.str("project_id"))?;
    let Some(load_balancer) = amphora.text("loadbalancer_id") else {
        return Err(Fault::immutable(resource.title, amphora.id()));
    };
    let change = Change::begin(scope, load_balancer)?;
    scope.enqueue(Kind::AmphoraFailover, amphora.id())?;
    scope.enqueue(Kind::LoadBalancer, change.id())?;
    Ok(Answer::empty(202))
}

/// `DELETE`: of a spare, or of one that has failed.
pub(in crate::serve::api) fn delete(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.request.only(&[])?;
    scope.permit_own(Rule::Admin)?;
    let amphora = named(scope, resource, names)?;
    let status = amphora.str("status");
    let carries = match amphora.text("loadbalancer_id") {
        Some(id) => LOAD_BALANCER.find(scope.t, id)?.is_some(),
        None => false,
    };
    if !matches!(status, "READY" | "ERROR" | "PENDING_DELETE") || (status == "READY" && carries) {
        return Err(Fault::immutable(resource.title, amphora.id()));
    }
    let mut changes = Object::default();
    changes.set("status", "PENDING_DELETE");
    resource.update(scope.t, amphora.id(), &changes)?;
    scope.enqueue(Kind::AmphoraDelete, amphora.id())?;
    Ok(Answer::empty(204))
}
