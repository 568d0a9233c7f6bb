//! What changed between two load-balancer documents, in an operator's words.
//!
//! Objects in lists are matched by `id` and not by place, so a member that moved is no change. Nor is a field that one
//! document sets to its default and the other leaves out.

use std::{collections::BTreeMap, fmt};

use amphora_model::LoadBalancer;
use serde_json::{Map, Value};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An object is new.
    Added(String),
    /// An object is gone.
    Removed(String),
    /// A field of an object has another value.
    Set {
        /// The object.
        object: String,
        /// Its field, nested ones with dots.
        field: String,
        /// JSON, `unset`, or the default with a word that it is.
        from: String,
        /// Likewise.
        to: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(object) => write!(f, "+ {object}"),
            Self::Removed(object) => write!(f, "- {object}"),
            Self::Set { object, field, from, to } => write!(f, "~ {object}: {field} {from} -> {to}"),
        }
    }
}

/// Every difference between two documents, outer objects first. No document is the empty document.
pub fn diff(from: Option<&Value>, to: Option<&Value>) -> Vec<Change> {
    let defaults = |document: Option<&Value>| document.map(Defaults::of).unwrap_or_default();
    let mut comparison = Comparison { changes: Vec::new(), from: defaults(from), to: defaults(to) };
    let lb = |document: Option<&Value>| document.and_then(|d| d.get("loadbalancer")).cloned();
    match (lb(from), lb(to)) {
        (Some(from), Some(to)) => comparison.values(&describe("load balancer", &to), "", &from, &to),
        (None, Some(to)) => comparison.added("load balancer", &to),
        (Some(from), None) => comparison.changes.push(Change::Removed(describe("load balancer", &from))),
        (None, None) => {}
    }
    comparison.changes
}

/// What an amphora makes of a document: by id, every object with all of its fields.
#[derive(Debug, Default)]
struct Defaults(BTreeMap<String, Value>);

impl Defaults {
    /// None of a document that no amphora would take.
    fn of(document: &Value) -> Self {
        let mut all = BTreeMap::new();
        if let Ok(model) = LoadBalancer::from_value(document) {
            collect(model.to_json(), &mut all);
        }
        Self(all)
    }

    /// The value of a field that an object leaves out.
    fn get(&self, object: &Map<String, Value>, field: &str) -> Option<&Value> {
        self.0.get(object.get("id")?.as_str()?)?.get(field)
    }
}

fn collect(value: Value, all: &mut BTreeMap<String, Value>) {
    match value {
        Value::Array(list) => list.into_iter().for_each(|value| collect(value, all)),
        Value::Object(ref fields) => {
            fields.values().for_each(|value| collect(value.clone(), all));
            if let Some(id) = fields.get("id").and_then(Value::as_str) {
                all.insert(id.to_owned(), value);
            }
        }
        _ => {}
    }
}

/// Two documents under way to what differs.
struct Comparison {
    changes: Vec<Change>,
    from: Defaults,
    to: Defaults,
}

impl Comparison {
    fn values(&mut self, object: &str, field: &str, from: &Value, to: &Value) {
        match (from, to) {
            _ if from == to => {}
            (Value::Object(a), Value::Object(b)) => self.maps(object, field, a, b),
            (Value::Array(a), Value::Array(b)) if identified(a) && identified(b) => {
                self.lists(kind(field), a, b);
            }
            _ => self.set(object, field, from.to_string(), to.to_string()),
        }
    }

    fn set(&mut self, object: &str, field: &str, from: String, to: String) {
        let (object, field) = (object.to_owned(), field.to_owned());
        self.changes.push(Change::Set { object, field, from, to });
    }

    fn maps(&mut self, object: &str, field: &str, from: &Map<String, Value>, to: &Map<String, Value>) {
        let keys: std::collections::BTreeSet<&String> = from.keys().chain(to.keys()).collect();
        // Plain fields are told before the objects below.
        let (nested, plain): (Vec<&String>, Vec<&String>) = keys
            .into_iter()
            .partition(|key| [from.get(*key), to.get(*key)].into_iter().flatten().any(is_nested));
        for key in plain.into_iter().chain(nested) {
            let path = if field.is_empty() { key.clone() } else { format!("{field}.{key}") };
            match (from.get(key), to.get(key)) {
                (Some(a), Some(b)) if a.get("id").is_some() && b.get("id").is_some() => {
                    self.values(&describe(kind(key), b), "", a, b);
                }
                (Some(a), Some(b)) => self.values(object, &path, a, b),
                (None, Some(b)) if is_nested(b) => self.added(kind(key), b),
                (Some(a), None) if is_nested(a) => self.removed(kind(key), a),
                (a, b) => {
                    let (default_a, default_b) = (self.from.get(from, key), self.to.get(to, key));
                    if a.or(default_a) != b.or(default_b) {
                        let (a, b) = (show(a, default_a), show(b, default_b));
                        self.set(object, &path, a, b);
                    }
                }
            }
        }
    }

    fn lists(&mut self, kind: &str, from: &[Value], to: &[Value]) {
        let by_id = |list: &[Value]| -> BTreeMap<String, Value> {
            list.iter().map(|v| (v["id"].to_string(), v.clone())).collect()
        };
        let (old, new) = (by_id(from), by_id(to));
        from.iter().filter(|v| !new.contains_key(&v["id"].to_string())).for_each(|v| self.removed(kind, v));
        for value in to {
            match old.get(&value["id"].to_string()) {
                Some(before) => self.values(&describe(kind, value), "", before, value),
                None => self.added(kind, value),
            }
        }
    }

    fn added(&mut self, kind: &str, value: &Value) {
        each(kind, value, &mut |object| self.changes.push(Change::Added(object)), true);
    }

    fn removed(&mut self, kind: &str, value: &Value) {
        each(kind, value, &mut |object| self.changes.push(Change::Removed(object)), false);
    }
}

/// The object, and with `deep` those inside it: what is removed takes its inside along silently.
fn each(kind_: &str, value: &Value, tell: &mut dyn FnMut(String), deep: bool) {
    match value {
        Value::Array(list) => list.iter().for_each(|v| each(kind_, v, tell, deep)),
        _ => {
            tell(describe(kind_, value));
            let inside = value.as_object().into_iter().flatten().filter(|(_, v)| deep && is_nested(v));
            inside.for_each(|(key, v)| each(kind(key), v, tell, deep));
        }
    }
}

/// Objects with an id, or a list of them.
fn is_nested(value: &Value) -> bool {
    value.get("id").is_some() || value.as_array().is_some_and(|list| !list.is_empty() && identified(list))
}

fn identified(list: &[Value]) -> bool {
    list.iter().all(|v| v.get("id").is_some())
}

/// The word for what a field holds.
fn kind(field: &str) -> &str {
    match field.rsplit('.').next().unwrap_or(field) {
        "listeners" => "listener",
        "pools" => "pool",
        "default_pool" => "default pool",
        "redirect_pool" => "redirect pool",
        "members" => "member",
        "healthmonitor" => "health monitor",
        "l7policies" => "l7policy",
        "rate_limit_policies" => "rate limit",
        "rules" => "rule",
        other => other,
    }
}

/// `member web-1 (10.0.0.1:80)`: kind, then name or id, then the address where there is one.
fn describe(kind: &str, value: &Value) -> String {
    let text = |field: &str| value.get(field).and_then(Value::as_str).filter(|t| !t.is_empty());
    let name = text("name").or_else(|| text("id")).unwrap_or("?");
    let port = value.get("protocol_port").map(Value::to_string);
    match (text("address"), port) {
        (Some(address), Some(port)) if address.contains(':') => format!("{kind} {name} ([{address}]:{port})"),
        (Some(address), Some(port)) => format!("{kind} {name} ({address}:{port})"),
        (None, Some(port)) => format!("{kind} {name} (port {port})"),
        _ => format!("{kind} {name}"),
    }
}

fn show(value: Option<&Value>, default: Option<&Value>) -> String {
    match (value, default) {
        (Some(value), _) => value.to_string(),
        (None, Some(default)) => format!("{default} (default)"),
        (None, None) => "unset".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(from: Value, to: Value) -> Vec<String> {
        let wrap = |lb: Value| (!lb.is_null()).then(|| json!({ "loadbalancer": lb }));
        diff(wrap(from).as_ref(), wrap(to).as_ref()).iter().map(Change::to_string).collect()
    }

    #[test]
    fn equal_documents_have_no_difference() {
        let lb = json!({"id": "l", "pools": [{"id": "p", "members": [{"id": "m"}]}]});
        assert!(lines(lb.clone(), lb).is_empty());
        assert!(lines(Value::Null, Value::Null).is_empty());
    }

    #[test]
    fn objects_are_matched_by_id_and_described_by_name() {
        let from = json!({"id": "l", "name": "shop", "pools": [{"id": "p", "name": "web", "members": [
            {"id": "a", "name": "web-1", "address": "10.0.0.1", "protocol_port": 80, "weight": 1},
            {"id": "b", "address": "fd00::2", "protocol_port": 80}]}]});
        let to = json!({"id": "l", "name": "store", "pools": [{"id": "p", "name": "web", "members": [
            {"id": "c", "name": "web-3"},
            {"id": "a", "name": "web-1", "address": "10.0.0.1", "protocol_port": 80, "weight": 0}]}]});
        assert_eq!(
            lines(from, to),
            [
                "~ load balancer store: name \"shop\" -> \"store\"",
                "- member b ([fd00::2]:80)",
                "+ member web-3",
                "~ member web-1 (10.0.0.1:80): weight 1 -> 0",
            ]
        );
    }

    #[test]
    fn what_is_new_is_told_down_to_its_parts_and_what_is_gone_once() {
        let lb = json!({"id": "l", "listeners": [{"id": "x", "protocol_port": 80,
            "default_pool": {"id": "p", "healthmonitor": {"id": "h"}}, "insert_headers": {"X-Forwarded-For": "true"},
            "rate_limit_policies": [{"id": "q"}]}]});
        assert_eq!(
            lines(Value::Null, lb.clone()),
            [
                "+ load balancer l",
                "+ listener x (port 80)",
                "+ default pool p",
                "+ health monitor h",
                "+ rate limit q"
            ]
        );
        assert_eq!(lines(lb, Value::Null), ["- load balancer l"]);
    }

    #[test]
    fn what_is_left_out_is_the_default() {
        let id = |n: u128| uuid::Uuid::from_u128(n).to_string();
        let lb = |member: &str, listener: &str| -> Value {
            let text = format!(
                r#"{{"id": "{}", "vip_address": "192.0.2.1", "listeners": [{{"id": "{}", "protocol": "TCP", "protocol_port": 1
                {listener}}}], "pools": [{{"id": "{}", "protocol": "TCP", "lb_algorithm": "ROUND_ROBIN", "members":
                [{{"id": "{}", "name": "m", "address": "192.0.2.7", "protocol_port": 9 {member}}}]}}]}}"#,
                id(1),
                id(2),
                id(3),
                id(4)
            );
            serde_json::from_str(&text).expect("it is JSON")
        };
        assert_eq!(
            lines(lb(r#", "weight": 0"#, ""), lb("", r#", "allowed_cidrs": ["192.0.2.0/24"]"#)),
            [
                format!("~ listener {} (port 1): allowed_cidrs unset -> [\"192.0.2.0/24\"]", id(2)),
                "~ member m (192.0.2.7:9): weight 0 -> 1 (default)".to_owned(),
            ]
        );
        assert!(lines(lb(r#", "weight": 1, "admin_state_up": true"#, ""), lb("", "")).is_empty());
    }

    #[test]
    fn nested_fields_and_single_objects() {
        let from = json!({"id": "l", "listeners": [{"id": "x", "insert_headers": {"a": "true"},
            "default_pool": {"id": "p", "name": "old"}, "allowed_cidrs": ["10.0.0.0/8"]}]});
        let to = json!({"id": "l", "listeners": [{"id": "x", "insert_headers": {"a": "false"},
            "default_pool": {"id": "p", "name": "new"}}]});
        assert_eq!(
            lines(from, to),
            [
                "~ listener x: allowed_cidrs [\"10.0.0.0/8\"] -> unset",
                "~ listener x: insert_headers.a \"true\" -> \"false\"",
                "~ default pool new: name \"old\" -> \"new\"",
            ]
        );
    }
}
