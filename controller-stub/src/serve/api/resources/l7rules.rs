//! Rules of L7 policies.

use serde_json::Value;

use super::{
    super::{
        attributes::{Body, L7POLICY, L7RULE, Object, Resource},
        change::{Change, check_quota},
        fault::Fault,
        request::Answer,
        scope::Scope,
    },
    Names, fresh, is_alive, l7policies, list_within,
    within::{both, deleted, outer, updated},
};
use crate::serve::policies::Rule;

/// The most rules of a policy.
pub(super) const MOST: usize = 50;

/// `TooManyL7RulesOnL7Policy`.
pub(super) fn too_many(policy: &str) -> Fault {
    Fault::new(409, format!("Too many rules on L7 policy {policy}"))
}

pub(in crate::serve::api) fn list(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    list_within(scope, resource, &L7POLICY, names.first().copied().unwrap_or_default(), "l7policy_id")
}

pub(in crate::serve::api) fn get(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    outer(scope, &L7POLICY, names)?;
    super::get(scope, resource, names)
}

pub(in crate::serve::api) fn post(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let policy = outer(scope, &L7POLICY, names)?;
    let said = scope.body(resource, Body::Post)?;
    scope.permit(Rule::Write, policy.str("project_id"))?;
    validate(&said)?;
    if usize::try_from(l7policies::rules(scope, policy.id())?).unwrap_or(usize::MAX) >= MOST {
        return Err(too_many(policy.id()));
    }
    let change = l7policies::change_within(scope, &policy)?;
    let id = create(scope, &change, policy.id(), said)?;
    change.finish()?;
    fresh(scope, resource, 201, &id)
}

/// Makes a rule. Tells its identifier.
pub(super) fn create(
    scope: &Scope<'_>,
    change: &Change<'_>,
    policy: &str,
    mut said: Object,
) -> Result<String, Fault> {
    check_quota(scope, &L7RULE, change.project(), 1)?;
    validate(&said)?;
    scope.fill(&L7RULE, &mut said);
    said.set("l7policy_id", policy);
    Ok(change.create(&L7RULE, said)?.id().to_owned())
}

pub(in crate::serve::api) fn put(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let (policy, rule) = both(scope, &L7POLICY, resource, names)?;
    let said = scope.body(resource, Body::Put)?;
    is_alive(resource, &rule)?;
    let mut changes = scope.changes(resource, said);
    let after = rule.with(&changes);
    validate(&after)?;
    if matches!(after.str("type"), "HOST_NAME" | "PATH" | "FILE_TYPE") {
        changes.set("key", Value::Null);
    }
    updated(scope, &l7policies::change_within(scope, &policy)?, resource, rule.id(), &changes)
}

pub(in crate::serve::api) fn delete(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.request.only(&[])?;
    let (policy, rule) = both(scope, &L7POLICY, resource, names)?;
    deleted(resource, &rule, Some(&policy), || l7policies::change_within(scope, &policy), |_| Ok(()))
}

/// `validate.l7rule_data`.
fn validate(rule: &Object) -> Result<(), Fault> {
    check(rule).map_err(|text| Fault::new(400, format!("Error parsing L7Rule: {text}")))
}

fn check(rule: &Object) -> Result<(), String> {
    let invalid = |text: &str| Err(format!("Invalid L7 Rule: {text}"));
    let characters = |what: &str| Err(format!("Invalid characters in {what}"));
    let (kind, compare) = (rule.str("type"), rule.str("compare_type"));
    let (key, value) = (rule.text("key"), rule.str("value"));
    if value.is_empty() {
        return invalid("L7 rule type requires a value");
    }
    let is_regex = compare == "REGEX";
    let compares = matches!(compare, "REGEX" | "STARTS_WITH" | "ENDS_WITH" | "CONTAINS" | "EQUAL_TO");
    if !compares && !kind.starts_with("SSL_") {
        return invalid("invalid comparison type for rule type");
    }
    match kind {
        "HEADER" | "COOKIE" => {
            let Some(key) = key else { return invalid("L7 rule type requires a key") };
            if !key.bytes().all(is_of_a_name) {
                return characters("key");
            }
            if kind == "HEADER" && !is_regex && !is_header_value(value) {
                return characters("header value");
            }
            if kind == "COOKIE" && !is_regex && !value.bytes().all(is_of_a_cookie) {
                return characters("cookie value");
            }
        }
        "HOST_NAME" | "PATH" => {
            if !is_regex && !is_header_value(value) {
                return characters("comparison value");
            }
        }
        "FILE_TYPE" => {
            if !is_regex && compare != "EQUAL_TO" {
                return invalid("invalid comparison type for rule type");
            }
            if !is_regex && !is_header_value(value) {
                return characters("comparison value");
            }
        }
        "SSL_CONN_HAS_CERT" | "SSL_VERIFY_RESULT" => {
            if key.is_some() {
                return invalid(&format!("L7rule type {kind} does not use the \"key\" field."));
            }
            if kind == "SSL_CONN_HAS_CERT" && !value.eq_ignore_ascii_case("true") {
                return invalid(&format!("L7rule value {value} is not a boolean True string."));
            }
            if kind == "SSL_VERIFY_RESULT" && !value.bytes().all(|byte| byte.is_ascii_digit()) {
                return invalid(&format!("L7rule type {kind} needs a int value, which is >= 0"));
            }
            if compare != "EQUAL_TO" {
                return invalid(&format!("L7rule type {kind} only supports the EQUAL_TO compare type."));
            }
        }
        "SSL_DN_FIELD" => {
            let Some(key) = key else {
                return invalid(&format!("L7rule type {kind} needs to specify a key and a value."));
            };
            let is_field = key.starts_with(|c: char| c.is_ascii_alphabetic())
                && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if !is_field {
                return invalid("Invalid L7rule distinguished name field.");
            }
        }
        _ => return invalid("invalid rule type"),
    }
    Ok(())
}

/// `HTTP_HEADER_NAME_REGEX`, in which `+-.` is a range.
fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+,-.^_`|~".contains(&byte)
}

/// `HTTP_COOKIE_VALUE_REGEX`, likewise.
fn is_of_a_cookie(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'()*+,-./:<=>?@[]^_`{|}~".contains(&byte)
}

/// `HTTP_HEADER_VALUE_REGEX` and `HTTP_QUOTED_HEADER_VALUE_REGEX`: with spaces only in quotation marks.
fn is_header_value(text: &str) -> bool {
    let within = text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
    text.bytes().all(|byte| byte.is_ascii_graphic() || (within && matches!(byte, b' ' | b'\t')))
}
