//! A change of a load balancer: its generation, who is PENDING, and the work that makes it so.

use rusqlite::{ToSql, params};

use super::{
    attributes::{LOAD_BALANCER, Object, Resource},
    fault::Fault,
    scope::{Scope, new_id},
};
use crate::serve::{config::Quotas, queue::Kind};

/// A change under way. What it has written is of one generation.
#[derive(Debug)]
pub(super) struct Change<'a> {
    scope: &'a Scope<'a>,
    /// The load balancer, as it was before.
    pub(super) load_balancer: Object,
    generation: i64,
}

impl<'a> Change<'a> {
    /// Begins a change of a load balancer, or of something in it.
    ///
    /// # Errors
    /// 409: it is about to go; or it is PENDING and `strict_immutable` is set.
    pub(super) fn begin(scope: &'a Scope<'a>, id: &str) -> Result<Self, Fault> {
        Self::begin_or(scope, id, |_| Fault::immutable(LOAD_BALANCER.title, id))
    }

    /// Begins it; `refusal` is told the status that refuses it.
    pub(super) fn begin_or(
        scope: &'a Scope<'a>,
        id: &str,
        refusal: impl FnOnce(&str) -> Fault,
    ) -> Result<Self, Fault> {
        let this = Self::of(scope, changeable(scope, id, refusal)?);
        this.pend(&LOAD_BALANCER, id)?;
        Ok(this)
    }

    /// Whether a change could begin, of which nothing would come.
    ///
    /// # Errors
    /// Those of [`Self::begin`].
    pub(super) fn could_begin(scope: &Scope<'_>, id: &str) -> Result<(), Fault> {
        changeable(scope, id, |_| Fault::immutable(LOAD_BALANCER.title, id)).map(drop)
    }

    /// A change of a load balancer that was judged, or was just made.
    pub(super) fn of(scope: &'a Scope<'a>, load_balancer: Object) -> Self {
        let generation = load_balancer.integer("generation").unwrap_or_default() + 1;
        Self { scope, load_balancer, generation }
    }

    /// The change that has made a load balancer: it is of the same generation.
    pub(super) fn begin_new(scope: &'a Scope<'a>, load_balancer: Object) -> Self {
        let generation = load_balancer.integer("generation").unwrap_or_default();
        Self { scope, load_balancer, generation }
    }

    pub(super) fn id(&self) -> &str {
        self.load_balancer.id()
    }

    pub(super) fn project(&self) -> &str {
        self.load_balancer.str("project_id")
    }

    /// What is there already is PENDING_UPDATE, unless it is PENDING for another reason.
    pub(super) fn pend(&self, resource: &Resource, id: &str) -> Result<(), Fault> {
        let text = format!(
            "UPDATE {} SET generation = ?1, updated_at = ?2, provisioning_status = CASE \
             WHEN provisioning_status IN ('PENDING_CREATE', 'PENDING_DELETE') THEN provisioning_status \
             ELSE 'PENDING_UPDATE' END WHERE id = ?3",
            resource.table
        );
        self.scope.t.prepare_cached(&text)?.execute(params![self.generation, self.scope.now, id])?;
        Ok(())
    }

    /// What belongs to this one is PENDING_UPDATE as well: listeners of a pool, say. The condition has its id as `?1`.
    pub(super) fn pend_all(&self, resource: &Resource, condition: &str, id: &str) -> Result<(), Fault> {
        let text = format!("SELECT id FROM {} WHERE {condition}", resource.table);
        let ids: Vec<String> = self
            .scope
            .t
            .prepare_cached(&text)?
            .query_map([id], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        ids.iter().try_for_each(|id| self.pend(resource, id))
    }

    /// Writes a new object: it gets an identifier, its project, and PENDING_CREATE.
    pub(super) fn create(&self, resource: &Resource, mut object: Object) -> Result<Object, Fault> {
        resource.require(&object)?;
        object.set("id", new_id());
        object.set("project_id", self.project());
        object.set("provisioning_status", "PENDING_CREATE");
        if object.get("operating_status").is_none() {
            object.set("operating_status", "OFFLINE");
        }
        object.set("created_at", self.scope.now);
        object.set("generation", self.generation);
        resource.insert(self.scope.t, &object)?;
        Ok(object)
    }

    /// Changes an object.
    pub(super) fn update(&self, resource: &Resource, id: &str, changes: &Object) -> Result<(), Fault> {
        resource.update(self.scope.t, id, changes)?;
        self.pend(resource, id)
    }

    /// An object is about to go.
    pub(super) fn delete(&self, resource: &Resource, id: &str) -> Result<(), Fault> {
        self.delete_all(resource, "id = ?1", id)
    }

    /// All for which a condition holds are about to go. It has the id as `?1`.
    pub(super) fn delete_all(&self, resource: &Resource, condition: &str, id: &str) -> Result<(), Fault> {
        let text = format!(
            "UPDATE {} SET provisioning_status = 'PENDING_DELETE', generation = ?2, updated_at = ?3 WHERE {condition}",
            resource.table
        );
        self.scope.t.prepare_cached(&text)?.execute(params![id, self.generation, self.scope.now])?;
        Ok(())
    }

    /// Ends the change: an amphora would take what is there now, and there is work to make it so.
    ///
    /// # Errors
    /// 400 with the reason why an amphora would not.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        super::judge::judge(self.scope, self.id())?;
        self.scope.enqueue(Kind::LoadBalancer, self.id())
    }

    /// Ends a change that takes away. What is left may lack something that it needs, and is judged; but of what is in ERROR all may be
    /// taken away.
    ///
    /// # Errors
    /// 400 with the reason why an amphora would not take what is left.
    pub(super) fn finish_deletion(&self) -> Result<(), Fault> {
        if self.load_balancer.str("provisioning_status") != "ERROR" {
            return self.finish();
        }
        self.scope.enqueue(Kind::LoadBalancer, self.id())
    }
}

/// A load balancer that may be changed now.
fn changeable(scope: &Scope<'_>, id: &str, refusal: impl FnOnce(&str) -> Fault) -> Result<Object, Fault> {
    let load_balancer = LOAD_BALANCER.get(scope.t, id)?;
    let status = load_balancer.str("provisioning_status");
    let strict = scope.config.api.strict_immutable;
    if status == "PENDING_DELETE" || (strict && status != "ACTIVE") {
        Err(refusal(status))
    } else {
        Ok(load_balancer)
    }
}

/// Refuses more than a project may have.
pub(super) fn check_quota(
    scope: &Scope<'_>,
    resource: &'static Resource,
    project: &str,
    more: usize,
) -> Result<(), Fault> {
    let Ok(more) = i64::try_from(more) else { return Err(Fault::quota(resource.title)) };
    if more == 0 {
        return Ok(());
    }
    let Some(limit) = quota(scope, resource, project)? else { return Ok(()) };
    let values: &[&dyn ToSql] = &[&project];
    // A load balancer has its addresses until it is gone, and counts for so long, as in Octavia.
    let condition = match resource.table {
        "load_balancer" => "project_id = ?1",
        _ => "project_id = ?1 AND provisioning_status <> 'PENDING_DELETE'",
    };
    if resource.count(scope.t, condition, values)? + more > limit {
        return Err(Fault::quota(resource.title));
    }
    Ok(())
}

/// How many a project may have; nothing when there is no bound.
pub(super) fn quota(
    scope: &Scope<'_>,
    resource: &'static Resource,
    project: &str,
) -> Result<Option<i64>, Fault> {
    let Some(column) = resource.quota else { return Ok(None) };
    let own: Option<i64> = scope
        .t
        .prepare_cached(&format!("SELECT (SELECT {column} FROM quota WHERE project_id = ?1)"))?
        .query_row([project], |row| row.get(0))?;
    let limit = own.unwrap_or_else(|| default_quota(&scope.config.quotas, column));
    Ok(Some(limit).filter(|limit| *limit >= 0))
}

/// The quota of a project that has none of its own.
pub(super) fn default_quota(quotas: &Quotas, column: &str) -> i64 {
    match column {
        "load_balancer" => quotas.load_balancer,
        "listener" => quotas.listener,
        "pool" => quotas.pool,
        "member" => quotas.member,
        "health_monitor" => quotas.health_monitor,
        "l7policy" => quotas.l7policy,
        _ => quotas.l7rule,
    }
}

/// A time as objects have it.
pub(super) fn iso_of(now: i64) -> serde_json::Value {
    super::attributes::from_sql(super::attributes::Kind::Time, rusqlite::types::Value::Integer(now))
}
