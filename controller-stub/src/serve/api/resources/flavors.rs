//! Flavors and availability zones with their profiles: what an operator sets up, and who may see it.

use rusqlite::ErrorCode;
use serde_json::Value;

use super::{
    super::{
        attributes::{
            AVAILABILITY_ZONE, AVAILABILITY_ZONE_PROFILE, Body, FLAVOR, FLAVOR_PROFILE, Object, Resource,
        },
        fault::Fault,
        lists::{self, Condition},
        request::Answer,
        scope::{Scope, new_id},
    },
    Names, fresh, providers, shown,
};
use crate::serve::policies::Rule;

/// What stands for no flavor in Octavia's database.
const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// Who may see it: everybody, or only who may change it.
fn reading(resource: &Resource) -> Rule {
    if is_profile(resource) { Rule::Admin } else { Rule::Read }
}

fn is_profile(resource: &Resource) -> bool {
    resource.table == FLAVOR_PROFILE.table || resource.table == AVAILABILITY_ZONE_PROFILE.table
}

pub(in crate::serve::api) fn list(
    scope: &Scope<'_>,
    resource: &'static Resource,
    _names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.permit_own(reading(resource))?;
    Ok(Answer::new(200, lists::list(scope, resource, Condition::default(), &[])?))
}

pub(in crate::serve::api) fn get(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.permit_own(reading(resource))?;
    shown(scope, resource, 200, &resource.get(scope.t, key(names))?)
}

pub(in crate::serve::api) fn post(
    scope: &Scope<'_>,
    resource: &'static Resource,
    _names: &Names<'_>,
) -> Result<Answer, Fault> {
    let mut said = scope.body(resource, Body::Post)?;
    scope.permit_own(Rule::Admin)?;
    resource.require(&said)?;
    validate(scope, resource, &said)?;
    scope.fill(resource, &mut said);
    if resource.key == "id" {
        said.set("id", new_id());
    } else if said.text(resource.key).is_none_or(|name| name == NIL) {
        return Err(Fault::option(said.str(resource.key), resource.key));
    }
    for (reference, profiles) in
        [("flavor_profile_id", &FLAVOR_PROFILE), ("availability_zone_profile_id", &AVAILABILITY_ZONE_PROFILE)]
    {
        if let Some(id) = said.text(reference)
            && profiles.find(scope.t, id)?.is_none()
        {
            return Err(Fault::no_such(profiles.title, id));
        }
    }
    free_name(scope, resource, "", &said)?;
    resource.insert(scope.t, &said)?;
    fresh(scope, resource, 201, said.str(resource.key))
}

pub(in crate::serve::api) fn put(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let said = scope.body(resource, Body::Put)?;
    scope.permit_own(Rule::Admin)?;
    for name in ["name", "provider_name", "flavor_data", "availability_zone_data"] {
        if said.has(name) && said.get(name).is_none() {
            return Err(Fault::option("None", name));
        }
    }
    let old = resource.get(scope.t, key(names))?;
    if is_profile(resource) {
        let changes_data =
            ["flavor_data", "availability_zone_data", "provider_name"].iter().any(|name| said.has(name));
        if changes_data && is_used(scope, resource, key(names))? {
            return Err(Fault::in_use(title(resource), key(names)));
        }
        validate(scope, resource, &old.with(&said))?;
    }
    free_name(scope, resource, key(names), &said)?;
    resource.update(scope.t, key(names), &scope.changes(resource, said))?;
    fresh(scope, resource, 200, key(names))
}

pub(in crate::serve::api) fn delete(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.request.only(&[])?;
    scope.permit_own(Rule::Admin)?;
    if resource.find(scope.t, key(names))?.is_none() {
        return Err(Fault::not_found(title(resource), key(names)));
    }
    match resource.delete_checked(scope.t, key(names)) {
        Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ErrorCode::ConstraintViolation => {
            Err(Fault::in_use(title(resource), key(names)))
        }
        result => {
            result?;
            Ok(Answer::empty(204))
        }
    }
}

/// What Octavia calls it where it is about to be changed.
fn title(resource: &Resource) -> &'static str {
    if resource.table == FLAVOR_PROFILE.table { "Flavor profile" } else { resource.title }
}

fn key<'a>(names: &Names<'a>) -> &'a str {
    names.first().copied().unwrap_or_default()
}

/// Refuses the name of another. Profiles may share one.
fn free_name(scope: &Scope<'_>, resource: &'static Resource, own: &str, said: &Object) -> Result<(), Fault> {
    let said = said.get("name").and_then(Value::as_str);
    let Some(name) = said.filter(|_| !is_profile(resource)) else { return Ok(()) };
    let condition = format!("name = ?1 AND {} <> ?2", resource.key);
    if resource.count(scope.t, &condition, &[&name, &own])? > 0 {
        let what = resource.title.to_lowercase();
        return Err(Fault::new(409, format!("A {what} of {name} already exists.")));
    }
    Ok(())
}

fn is_used(scope: &Scope<'_>, resource: &Resource, id: &str) -> Result<bool, Fault> {
    let count = if resource.table == FLAVOR_PROFILE.table {
        FLAVOR.count(scope.t, "flavor_profile_id = ?1", &[&id])?
    } else {
        AVAILABILITY_ZONE.count(scope.t, "availability_zone_profile_id = ?1", &[&id])?
    };
    Ok(count > 0)
}

fn validate(scope: &Scope<'_>, resource: &Resource, said: &Object) -> Result<(), Fault> {
    if !is_profile(resource) {
        return Ok(());
    }
    let provider = said.str("provider_name");
    providers::is_enabled(provider)?;
    if resource.table == FLAVOR_PROFILE.table {
        providers::flavor_data(scope, provider, said.str("flavor_data"))
    } else {
        providers::zone_data(provider, said.str("availability_zone_data"))
    }
}
