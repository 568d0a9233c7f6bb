//! Quotas of projects.

use serde_json::{Value, json};

use super::{
    super::{
        attributes::{Body, Object, QUOTA, Resource},
        change::default_quota,
        fault::Fault,
        request::Answer,
        scope::Scope,
    },
    Names, list_of_projects,
};
use crate::serve::policies::Rule;

pub(in crate::serve::api) fn list(
    scope: &Scope<'_>,
    resource: &'static Resource,
    _names: &Names<'_>,
) -> Result<Answer, Fault> {
    let mut answer = list_of_projects(scope, resource, Rule::ReadQuotaGlobal, Rule::ReadQuota)?;
    let quotas = answer.body.as_mut().and_then(|body| body.get_mut(resource.many)?.as_array_mut());
    for quota in quotas.into_iter().flatten().filter_map(Value::as_object_mut) {
        let mut object = Object(std::mem::take(quota));
        with_defaults(scope, &mut object);
        *quota = object.0;
    }
    Ok(answer)
}

pub(in crate::serve::api) fn get(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let project = names.first().copied().unwrap_or_default();
    scope.permit(Rule::ReadQuota, project)?;
    told(scope, resource, 200, project)
}

pub(in crate::serve::api) fn defaults(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let project = names.first().copied().unwrap_or_default();
    scope.permit(Rule::ReadQuota, project)?;
    let mut quota = Object::default();
    quota.set("project_id", project);
    with_defaults(scope, &mut quota);
    Ok(Answer::new(200, Scope::named(resource, Value::Object(quota.0))))
}

pub(in crate::serve::api) fn put(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let project = names.first().copied().unwrap_or_default();
    let said = scope.body(resource, Body::Put)?;
    scope.permit(Rule::WriteQuota, project)?;
    if project.is_empty() || project.chars().count() > 36 {
        return Err(Fault::input(
            "project_id",
            project,
            "Value should have a maximum character requirement of 36",
        ));
    }
    scope
        .t
        .prepare_cached("INSERT INTO quota (project_id) VALUES (?1) ON CONFLICT DO NOTHING")?
        .execute([project])?;
    QUOTA.update(scope.t, project, &said)?;
    told(scope, resource, 202, project)
}

pub(in crate::serve::api) fn delete(
    scope: &Scope<'_>,
    _resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.request.only(&[])?;
    let project = names.first().copied().unwrap_or_default();
    scope.permit(Rule::WriteQuota, project)?;
    // Who had some, or has objects, is known as before, as in Octavia.
    let reset = scope
        .t
        .prepare_cached(
            "UPDATE quota SET load_balancer = NULL, listener = NULL, pool = NULL, member = NULL, health_monitor = NULL,
             l7policy = NULL, l7rule = NULL WHERE project_id = ?1",
        )?
        .execute([project])?;
    let has_something = "SELECT EXISTS (SELECT 1 FROM load_balancer WHERE project_id = ?1)";
    if reset == 0 && !scope.t.prepare_cached(has_something)?.query_row([project], |row| row.get(0))? {
        return Err(Fault::not_found("Quotas", project));
    }
    Ok(Answer::empty(202))
}

fn told(scope: &Scope<'_>, resource: &'static Resource, status: u16, project: &str) -> Result<Answer, Fault> {
    let mut quota = resource.find(scope.t, project)?.unwrap_or_default();
    quota.set("project_id", project);
    with_defaults(scope, &mut quota);
    Ok(Answer::new(status, Scope::named(resource, Value::Object(quota.0))))
}

/// What a project has not said is what the configuration says.
fn with_defaults(scope: &Scope<'_>, quota: &mut Object) {
    let project = quota.str("project_id").to_owned();
    quota.set("tenant_id", project);
    for attribute in QUOTA.attributes.iter().filter(|attribute| !attribute.name.ends_with("_id")) {
        if quota.get(attribute.name).is_none() {
            let column = match attribute.name {
                "loadbalancer" => "load_balancer",
                "healthmonitor" => "health_monitor",
                name => name,
            };
            quota.set(attribute.name, json!(default_quota(&scope.config.quotas, column)));
        }
    }
}
