//! A document while certificates that it names are not to be had.

use std::collections::{BTreeMap, BTreeSet};

use amphora_bundle::Kind;
use amphora_model::CertificateId;
use serde_json::{Map, Value};

use super::{REFERENCES, named};

/// What names certificates in a document.
const OBJECTS: [&str; 2] = ["listeners", "pools"];

/// The certificates that a document names, and as what.
pub fn uses(document: &Value) -> BTreeMap<CertificateId, Vec<Kind>> {
    let mut uses = BTreeMap::<_, Vec<_>>::new();
    for object in OBJECTS.into_iter().flat_map(|kind| all(document, kind)).filter_map(Value::as_object) {
        for field in REFERENCES {
            for id in of_field(object, field) {
                let kinds = uses.entry(id).or_default();
                if !kinds.contains(&role(field)) {
                    kinds.push(role(field));
                }
            }
        }
    }
    uses
}

/// The certificates at a path of a refusal, as `loadbalancer.listeners[ID].sni_container_refs`; of several those that the `reason` names, if it
/// names any.
pub fn at(document: &Value, path: &str, reason: &str) -> Vec<CertificateId> {
    let find = || {
        let (kind, rest) = path.strip_prefix("loadbalancer.")?.split_once('[')?;
        let (id, field) = rest.split_once("].")?;
        let object = find(all(document, OBJECTS.into_iter().find(|other| *other == kind)?), id)?;
        Some(of_field(object.as_object()?, REFERENCES.into_iter().find(|other| field.starts_with(other))?))
    };
    let mut found = find().unwrap_or_default();
    let is_named = |id: &CertificateId| reason.split([' ', ';', ',']).any(|word| word == id.to_string());
    if found.iter().any(is_named) {
        found.retain(is_named);
    }
    found
}

/// A document without what names certificates that are not to be had: listeners, and pools with the listeners that could send there. What of these
/// was there in the document `before` stays as it was, with the pools that it needs; and all others are as they are to be.
pub fn without(document: &Value, missing: &BTreeSet<CertificateId>, before: Option<&Value>) -> Value {
    let names_one = |object: &Value| {
        let mut certificates = BTreeSet::new();
        if let Some(object) = object.as_object() {
            named(object, &mut certificates);
        }
        !certificates.is_disjoint(missing)
    };
    let former = |kind, object: &Value| {
        let before = before.map_or(&[][..], |before| all(before, kind));
        find(before, object.get("id").and_then(Value::as_str)?).filter(|former| !names_one(former)).cloned()
    };
    let (mut pools, mut gone) = (Vec::new(), Vec::new());
    for pool in all(document, "pools") {
        match (names_one(pool), former("pools", pool)) {
            (false, _) => pools.push(pool.clone()),
            (true, Some(former)) => pools.push(former),
            (true, None) => gone.push(pool),
        }
    }
    let (mut listeners, mut stay) = (Vec::new(), Vec::new());
    for listener in all(document, "listeners") {
        if !names_one(listener) && !gone.iter().any(|pool| refers_to(listener, pool)) {
            listeners.push(listener.clone());
        } else if let Some(former) = former("listeners", listener) {
            stay.push(former.clone());
            listeners.push(former);
        }
    }
    for pool in before.map_or(&[][..], |before| all(before, "pools")) {
        let is_there = pool.get("id").and_then(Value::as_str).is_some_and(|id| find(&pools, id).is_some());
        if !is_there && stay.iter().any(|listener| refers_to(listener, pool)) {
            pools.push(pool.clone());
        }
    }
    let mut document = document.clone();
    for (kind, objects) in [("listeners", listeners), ("pools", pools)] {
        if let Some(place) = document.pointer_mut("/loadbalancer").and_then(|root| root.get_mut(kind)) {
            *place = objects.into();
        }
    }
    document
}

fn role(field: &str) -> Kind {
    match field {
        "client_ca_tls_container_ref" | "ca_tls_container_ref" => Kind::Authorities,
        "client_crl_container_ref" | "crl_container_ref" => Kind::Revocations,
        _ => Kind::Identity,
    }
}

fn of_field(object: &Map<String, Value>, field: &str) -> Vec<CertificateId> {
    let mut ids = BTreeSet::new();
    if let Some(value) = object.get(field) {
        named(&Map::from_iter([(field.to_owned(), value.clone())]), &mut ids);
    }
    ids.into_iter().collect()
}

fn all<'a>(document: &'a Value, kind: &str) -> &'a [Value] {
    let found = document.pointer("/loadbalancer").and_then(|root| root.get(kind)).and_then(Value::as_array);
    found.map_or(&[], Vec::as_slice)
}

fn find<'a>(objects: &'a [Value], id: &str) -> Option<&'a Value> {
    objects.iter().find(|object| object.get("id").and_then(Value::as_str) == Some(id))
}

/// Whether something names a pool: by its id, or in `{"pool": {"name": ..}}`.
fn refers_to(value: &Value, pool: &Value) -> bool {
    match value {
        Value::String(text) => pool.get("id").and_then(Value::as_str) == Some(text),
        Value::Array(items) => items.iter().any(|item| refers_to(item, pool)),
        Value::Object(map) => {
            let name = map.get("pool").and_then(|reference| reference.get("name"));
            name.is_some_and(|name| pool.get("name") == Some(name))
                || map.values().any(|value| refers_to(value, pool))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
