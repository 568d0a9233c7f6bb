//! What changes have in common, whatever they are of.

use super::{
    super::{
        attributes::{LISTENER, Object, Resource},
        change::Change,
        fault::Fault,
        request::Answer,
        scope::Scope,
    },
    Names, fresh, is_alive, named,
};
use crate::serve::policies::Rule;

/// The object that a path names, which the caller may change.
pub(super) fn own(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Object, Fault> {
    let object = named(scope, resource, names)?;
    scope.permit(Rule::Write, object.str("project_id"))?;
    Ok(object)
}

/// What a path names first.
pub(super) fn outer(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Object, Fault> {
    resource.get(scope.t, names.first().copied().unwrap_or_default())
}

/// What a path names first, and what it names within that. The caller may change them.
pub(super) fn both(
    scope: &Scope<'_>,
    outside: &'static Resource,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<(Object, Object), Fault> {
    let outside = outer(scope, outside, names)?;
    let object = named(scope, resource, names)?;
    scope.permit(Rule::Write, outside.str("project_id"))?;
    Ok((outside, object))
}

/// Refuses a PUT that takes away what there must be.
pub(super) fn keeps_what_must_be(resource: &Resource, said: &Object) -> Result<(), Fault> {
    let mut taken = resource.attributes.iter().filter(|attribute| {
        attribute.is_mandatory() && said.has(attribute.name) && said.get(attribute.name).is_none()
    });
    taken.next().map_or(Ok(()), |attribute| Err(Fault::option("None", attribute.name)))
}

/// A change of what belongs to a listener, which is PENDING as well.
pub(super) fn change_of_listener<'a>(scope: &'a Scope<'a>, listener: &Object) -> Result<Change<'a>, Fault> {
    is_alive(&LISTENER, listener)?;
    let change = Change::begin(scope, listener.str("loadbalancer_id"))?;
    change.pend(&LISTENER, listener.id())?;
    Ok(change)
}

/// Ends a PUT.
pub(super) fn updated(
    scope: &Scope<'_>,
    change: &Change<'_>,
    resource: &'static Resource,
    id: &str,
    changes: &Object,
) -> Result<Answer, Fault> {
    change.update(resource, id, changes)?;
    change.finish()?;
    fresh(scope, resource, 200, id)
}

/// Answers a DELETE. Of what goes already, by itself or with what it is in, there is nothing to be done.
pub(super) fn deleted<'a>(
    resource: &'static Resource,
    object: &Object,
    outside: Option<&Object>,
    begin: impl FnOnce() -> Result<Change<'a>, Fault>,
    more: impl FnOnce(&Change<'a>) -> Result<(), Fault>,
) -> Result<Answer, Fault> {
    let goes = |object: &Object| object.str("provisioning_status") == "PENDING_DELETE";
    if !goes(object) && !outside.is_some_and(goes) {
        let change = begin()?;
        change.delete(resource, object.id())?;
        more(&change)?;
        change.finish_deletion()?;
    }
    Ok(Answer::empty(204))
}
