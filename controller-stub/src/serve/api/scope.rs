//! What a handler has: the transaction, the request, the configuration.

use rusqlite::Transaction;
use serde_json::Value;

use super::{
    attributes::{Body, Object, Resource, body},
    certificates::Known,
    fault::Fault,
    request::Request,
};
use crate::serve::{
    config::Config,
    network::Networks,
    policies::Rule,
    queue::{self, Kind},
};

/// What a handler has.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) t: &'a Transaction<'a>,
    pub(super) request: &'a Request,
    pub(super) config: &'a Config,
    pub(super) networks: &'a Networks,
    /// What is known of tenants' certificates.
    pub(super) certificates: &'a Known,
    /// Milliseconds since 1970.
    pub(super) now: i64,
}

impl std::fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Scope<'_> {
    /// Refuses who may not do this to something of a project.
    pub(super) fn permit(&self, rule: Rule, project: &str) -> Result<(), Fault> {
        if self.request.context.may(rule, Some(project)) { Ok(()) } else { Err(Fault::forbidden()) }
    }

    /// Refuses who may not do this in the own project.
    pub(super) fn permit_own(&self, rule: Rule) -> Result<(), Fault> {
        let project = self.request.context.project_id.as_deref();
        if self.request.context.may(rule, project) { Ok(()) } else { Err(Fault::forbidden()) }
    }

    /// Asks for work, in the transaction that makes it necessary.
    pub(super) fn enqueue(&self, kind: Kind, subject: &str) -> Result<(), Fault> {
        Ok(queue::enqueue(self.t, kind, subject, self.now)?)
    }

    /// The body of the request.
    pub(super) fn body(&self, resource: &Resource, of: Body) -> Result<Object, Fault> {
        self.request.only(&[])?;
        body(resource, self.request.json()?, of)
    }

    /// Gives attributes that nobody has said what they are by default.
    pub(super) fn fill(&self, resource: &Resource, object: &mut Object) {
        for attribute in resource.attributes {
            if object.get(attribute.name).is_none() && !attribute.is_refused() {
                object.set(attribute.name, attribute.default(self.config));
            }
        }
    }

    /// What a body of PUT changes: `null` is the default.
    pub(super) fn changes(&self, resource: &Resource, mut said: Object) -> Object {
        for attribute in resource.attributes {
            if said.has(attribute.name) && said.get(attribute.name).is_none() {
                if attribute.keeps_null() {
                    said.0.remove(attribute.name);
                } else {
                    said.set(attribute.name, attribute.default(self.config));
                }
            }
        }
        said
    }

    /// An answer's body: the object under its name.
    pub(super) fn named(resource: &Resource, object: Value) -> Value {
        let mut map = serde_json::Map::new();
        map.insert(resource.one.to_owned(), object);
        Value::Object(map)
    }
}

/// A new identifier.
pub(super) fn new_id() -> String {
    uuid::Uuid::new_v4().hyphenated().to_string()
}
