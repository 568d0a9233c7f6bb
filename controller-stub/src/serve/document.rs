//! A load balancer's rows as the document that its amphorae are given: [the body](amphora_model) of Octavia's fully populated create.

mod lacking;

use std::collections::BTreeSet;

use amphora_model::CertificateId;
use rusqlite::{Connection, OptionalExtension, types::ValueRef};
use serde_json::{Map, Value, json};

pub use self::lacking::{at, uses, without};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// As it is.
    Plain,
    /// 0 or 1.
    Boolean,
    /// JSON as text.
    Json,
    /// The same; a list that is empty stands for what the amphora does without one.
    NotEmpty,
}

use Kind::{Boolean, Json, NotEmpty, Plain};

/// Columns that stand in the document under their own names; NULL is left out.
type Columns = &'static [(&'static str, Kind)];

const LOAD_BALANCER: Columns = &[
    ("id", Plain),
    ("name", Plain),
    ("project_id", Plain),
    ("admin_state_up", Boolean),
    ("vip_address", Plain),
    ("additional_vips", Json),
    ("amphora", Json),
];

const LISTENER: Columns = &[
    ("id", Plain),
    ("name", Plain),
    ("project_id", Plain),
    ("admin_state_up", Boolean),
    ("protocol", Plain),
    ("protocol_port", Plain),
    ("connection_limit", Plain),
    ("default_pool_id", Plain),
    ("default_tls_container_ref", Plain),
    ("sni_container_refs", Json),
    ("client_ca_tls_container_ref", Plain),
    ("client_authentication", Plain),
    ("client_crl_container_ref", Plain),
    ("insert_headers", Json),
    ("timeout_client_data", Plain),
    ("timeout_member_connect", Plain),
    ("timeout_member_data", Plain),
    ("timeout_tcp_inspect", Plain),
    ("allowed_cidrs", Json),
    ("tls_ciphers", Plain),
    ("tls_versions", NotEmpty),
    ("alpn_protocols", Json),
    ("hsts_max_age", Plain),
    ("hsts_include_subdomains", Boolean),
    ("hsts_preload", Boolean),
    ("amphora", Json),
];

const RATE_LIMIT_POLICY: Columns =
    &[("id", Plain), ("name", Plain), ("enabled", Boolean), ("action", Plain), ("amphora", Json)];

const RATE_LIMIT_RULE: Columns = &[
    ("id", Plain),
    ("name", Plain),
    ("metric", Plain),
    ("threshold", Plain),
    ("interval", Plain),
    ("urls", NotEmpty),
];

const L7POLICY: Columns = &[
    ("id", Plain),
    ("name", Plain),
    ("admin_state_up", Boolean),
    ("action", Plain),
    ("redirect_pool_id", Plain),
    ("redirect_url", Plain),
    ("redirect_prefix", Plain),
    ("redirect_http_code", Plain),
    ("position", Plain),
    ("amphora", Json),
];

const L7RULE: Columns = &[
    ("id", Plain),
    ("admin_state_up", Boolean),
    ("type", Plain),
    ("compare_type", Plain),
    ("key", Plain),
    ("value", Plain),
    ("invert", Boolean),
];

const POOL: Columns = &[
    ("id", Plain),
    ("name", Plain),
    ("admin_state_up", Boolean),
    ("protocol", Plain),
    ("lb_algorithm", Plain),
    ("session_persistence", Json),
    ("tls_container_ref", Plain),
    ("ca_tls_container_ref", Plain),
    ("crl_container_ref", Plain),
    ("tls_enabled", Boolean),
    ("tls_ciphers", Plain),
    ("tls_versions", NotEmpty),
    ("alpn_protocols", Json),
    ("amphora", Json),
];

const MEMBER: Columns = &[
    ("id", Plain),
    ("name", Plain),
    ("admin_state_up", Boolean),
    ("address", Plain),
    ("protocol_port", Plain),
    ("weight", Plain),
    ("backup", Boolean),
    ("monitor_address", Plain),
    ("monitor_port", Plain),
];

const HEALTH_MONITOR: Columns = &[
    ("id", Plain),
    ("name", Plain),
    ("admin_state_up", Boolean),
    ("type", Plain),
    ("delay", Plain),
    ("timeout", Plain),
    ("max_retries", Plain),
    ("max_retries_down", Plain),
    ("http_method", Plain),
    ("url_path", Plain),
    ("expected_codes", Plain),
    ("http_version", Plain),
    ("domain_name", Plain),
];

/// Of a listener's `amphora`: whose requests are counted.
const WHOSE: [&str; 2] = ["trusted_proxies", "client_address_header"];

/// What names certificates.
pub(super) const REFERENCES: [&str; 7] = [
    "default_tls_container_ref",
    "sni_container_refs",
    "client_ca_tls_container_ref",
    "client_crl_container_ref",
    "tls_container_ref",
    "ca_tls_container_ref",
    "crl_container_ref",
];

/// A load balancer as it is to be at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// Of its row: everything up to it is in the document.
    pub generation: i64,
    /// `{"loadbalancer": {..}}`.
    pub document: Value,
    /// The certificates that the document names, which have to be at the amphora before it. References that are none stay in the document, whose
    /// parser refuses them.
    pub certificates: BTreeSet<CertificateId>,
}

/// Reads the rows of a load balancer, but for those that are to go. `None`: there is none of this id, or it is to go itself.
///
/// # Errors
/// The database's.
pub fn render(connection: &Connection, load_balancer: &str) -> rusqlite::Result<Option<Rendered>> {
    render_with(connection, load_balancer, |_| None)
}

/// The same with all that is said, to be judged: what the document is without until something else is there has that, with as little as
/// there may be.
///
/// # Errors
/// The database's.
pub fn render_to_judge(connection: &Connection, load_balancer: &str) -> rusqlite::Result<Option<Rendered>> {
    render_with(connection, load_balancer, |protocol| {
        let metric = match protocol {
            "UDP" | "SCTP" => "PACKETS",
            "TCP" | "HTTPS" => "CONNECTIONS",
            _ => "REQUESTS",
        };
        Some(json!([{ "id": uuid::Uuid::new_v4().to_string(), "metric": metric, "threshold": 1 }]))
    })
}

/// `stand_in` are the rules of a policy without rules, by the listener's protocol, if it is to be there all the same.
fn render_with(
    connection: &Connection,
    load_balancer: &str,
    stand_in: impl Fn(&str) -> Option<Value>,
) -> rusqlite::Result<Option<Rendered>> {
    let of = |table: &str, columns: Columns, parent: &str, order: &str, id: &str| {
        rows(connection, table, columns, parent, order, id)
    };
    let Some(mut root) = of("load_balancer", LOAD_BALANCER, "id", "id", load_balancer)?.pop() else {
        return Ok(None);
    };
    let generation = connection
        .prepare_cached("SELECT generation FROM load_balancer WHERE id = ?1")?
        .query_row([load_balancer], |row| row.get(0))
        .optional()?
        .unwrap_or_default();
    let mut certificates = BTreeSet::new();
    let mut listeners = of("listener", LISTENER, "load_balancer_id", "created_at, id", load_balancer)?;
    for listener in &mut listeners {
        named(listener, &mut certificates);
        let mut policies = of("l7policy", L7POLICY, "listener_id", "position, id", &text(listener, "id"))?;
        for policy in &mut policies {
            let rules = of("l7rule", L7RULE, "l7policy_id", "created_at, id", &text(policy, "id"))?;
            policy.insert("rules".to_owned(), rules.into());
            // A word of the amphora's own stands there alone.
            if policy.get("amphora").is_some_and(|amphora| amphora.get("action").is_some()) {
                policy.remove("action");
            }
        }
        listener.insert("l7policies".to_owned(), policies.into());
        let mut limits = Vec::new();
        for mut policy in of(
            "rate_limit_policy",
            RATE_LIMIT_POLICY,
            "listener_id",
            "created_at, id",
            &text(listener, "id"),
        )? {
            let id = text(&policy, "id");
            let rules =
                of("rate_limit_rule", RATE_LIMIT_RULE, "rate_limit_policy_id", "created_at, id", &id)?;
            // One that has no rules yet limits nothing.
            let rules =
                if rules.is_empty() { stand_in(&text(listener, "protocol")) } else { Some(rules.into()) };
            if let Some(rules) = rules {
                policy.insert("rules".to_owned(), rules);
                limits.push(policy);
            }
        }
        // Whose requests they are matters to nobody yet.
        let is_early = limits.is_empty()
            && listener
                .get("amphora")
                .and_then(Value::as_object)
                .is_some_and(|own| WHOSE.iter().any(|name| own.contains_key(*name)));
        if let Some(rules) = stand_in(&text(listener, "protocol")).filter(|_| is_early) {
            let id = uuid::Uuid::new_v4().to_string();
            let policy = json!({ "id": id, "action": "SILENT_DROP", "rules": rules });
            limits.extend(policy.as_object().cloned());
        }
        if !limits.is_empty() {
            listener.insert("rate_limit_policies".to_owned(), limits.into());
        } else if let Some(Value::Object(own)) = listener.get_mut("amphora") {
            // A document says it with limits alone; objects come and go one by one.
            own.retain(|name, _| !WHOSE.contains(&&**name));
        }
    }
    let mut pools = of("pool", POOL, "load_balancer_id", "created_at, id", load_balancer)?;
    for pool in &mut pools {
        named(pool, &mut certificates);
        let id = text(pool, "id");
        let members = of("member", MEMBER, "pool_id", "created_at, id", &id)?;
        pool.insert("members".to_owned(), members.into());
        if let Some(monitor) = of("health_monitor", HEALTH_MONITOR, "pool_id", "id", &id)?.pop() {
            pool.insert("healthmonitor".to_owned(), monitor.into());
        }
    }
    root.insert("listeners".to_owned(), listeners.into());
    root.insert("pools".to_owned(), pools.into());
    Ok(Some(Rendered { generation, document: json!({ "loadbalancer": root }), certificates }))
}

/// The rows of a table below a parent that stay.
fn rows(
    connection: &Connection,
    table: &str,
    columns: Columns,
    parent: &str,
    order: &str,
    id: &str,
) -> rusqlite::Result<Vec<Map<String, Value>>> {
    // Names are of this file alone.
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let query = format!(
        "SELECT {} FROM {table} WHERE {parent} = ?1 AND provisioning_status <> 'PENDING_DELETE' ORDER BY {order}",
        names.join(", ")
    );
    let mut query = connection.prepare_cached(&query)?;
    let rows = query.query_map([id], |row| {
        let mut object = Map::new();
        for (at, (name, kind)) in columns.iter().enumerate() {
            if let Some(value) = value(row.get_ref(at)?, *kind) {
                object.insert((*name).to_owned(), value);
            }
        }
        Ok(object)
    })?;
    rows.collect()
}

fn value(stored: ValueRef<'_>, kind: Kind) -> Option<Value> {
    match stored {
        ValueRef::Null => None,
        ValueRef::Integer(number) if kind == Boolean => Some((number != 0).into()),
        ValueRef::Integer(number) => Some(number.into()),
        ValueRef::Real(number) => Some(number.into()),
        ValueRef::Text(b"[]") if kind == NotEmpty => None,
        ValueRef::Text(text) if kind == Json || kind == NotEmpty => {
            serde_json::from_slice(text).ok().filter(|value: &Value| !value.is_null())
        }
        ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned().into()),
        ValueRef::Blob(_) => None,
    }
}

fn text(object: &Map<String, Value>, name: &str) -> String {
    object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Adds the certificates that an object names.
fn named(object: &Map<String, Value>, certificates: &mut BTreeSet<CertificateId>) {
    for value in REFERENCES.iter().filter_map(|name| object.get(*name)) {
        let references = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let references = references.iter().filter_map(Value::as_str);
        certificates.extend(references.filter_map(|reference| CertificateId::from_reference(reference).ok()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use amphora_model::LoadBalancer;

    use super::*;
    use crate::serve::db;

    const LB: &str = "0b0e0c3a-4f43-4f0c-9b53-3d7a5f4f7c11";

    fn filled() -> (tempfile::TempDir, Connection) {
        let (dir, connection) = db::scratch();
        connection
            .execute_batch(&format!(
                "INSERT INTO load_balancer (id, project_id, name, provisioning_status, topology, compute_driver, provider,
                    vip_address, vip_port_id, vip_subnet_id, vip_network_id, additional_vips, created_at, generation)
                    VALUES ('{LB}', 'p', 'try', 'ACTIVE', 'SINGLE', 'namespaces', 'amphora', '192.0.2.1', '', '', '',
                    '[{{\"ip_address\": \"2001:db8::1\"}}]', 0, 7);
                 INSERT INTO pool (id, project_id, load_balancer_id, provisioning_status, protocol, lb_algorithm,
                    session_persistence, alpn_protocols, created_at, generation)
                    VALUES ('9d1d7f0e-6a2e-4c0b-8f7d-5f0e2d6c3b33', 'p', '{LB}', 'ACTIVE', 'HTTP', 'ROUND_ROBIN',
                    '{{\"type\": \"SOURCE_IP\"}}', '[]', 0, 1);
                 INSERT INTO member (id, project_id, pool_id, provisioning_status, address, protocol_port, created_at, generation)
                    VALUES ('5a8e4d21-2b3c-4d5e-9f60-1a2b3c4d5e44', 'p', '9d1d7f0e-6a2e-4c0b-8f7d-5f0e2d6c3b33', 'ACTIVE',
                    '192.0.2.8', 80, 0, 1),
                    ('5a8e4d21-2b3c-4d5e-9f60-1a2b3c4d5e45', 'p', '9d1d7f0e-6a2e-4c0b-8f7d-5f0e2d6c3b33', 'PENDING_DELETE',
                    '192.0.2.9', 80, 0, 1);
                 INSERT INTO health_monitor (id, project_id, pool_id, provisioning_status, type, delay, timeout, max_retries,
                    http_method, url_path, expected_codes, http_version, created_at, generation)
                    VALUES ('7e2b9c10-4d5e-4f60-8a1b-2c3d4e5f6a77', 'p', '9d1d7f0e-6a2e-4c0b-8f7d-5f0e2d6c3b33', 'ACTIVE',
                    'HTTP', 5, 3, 2, 'GET', '/', '200', 1.1, 0, 1);
                 INSERT INTO listener (id, project_id, load_balancer_id, provisioning_status, protocol, protocol_port,
                    default_pool_id, default_tls_container_ref, sni_container_refs, timeout_client_data,
                    timeout_member_connect, timeout_member_data, timeout_tcp_inspect, created_at, generation)
                    VALUES ('3c9f2c57-1d5e-4b53-9d80-7c0d9a1f9a22', 'p', '{LB}', 'ACTIVE', 'TERMINATED_HTTPS', 443,
                    '9d1d7f0e-6a2e-4c0b-8f7d-5f0e2d6c3b33', 'https://secrets.example/v1/containers/shop', '[\"other\"]',
                    50000, 5000, 50000, 0, 0, 1),
                    ('3c9f2c57-1d5e-4b53-9d80-7c0d9a1f9a23', 'p', '{LB}', 'ACTIVE', 'HTTP', 80, NULL, NULL, '[]',
                    50000, 5000, 50000, 0, 0, 1);
                 INSERT INTO l7policy (id, project_id, listener_id, provisioning_status, action, position, created_at, generation)
                    VALUES ('1f5a2c10-4d5e-4f60-8a1b-2c3d4e5f6a01', 'p', '3c9f2c57-1d5e-4b53-9d80-7c0d9a1f9a22', 'ACTIVE',
                    'REJECT', 1, 0, 1);
                 INSERT INTO l7rule (id, project_id, l7policy_id, provisioning_status, type, compare_type, value, created_at, generation)
                    VALUES ('1f5a2c10-4d5e-4f60-8a1b-2c3d4e5f6a02', 'p', '1f5a2c10-4d5e-4f60-8a1b-2c3d4e5f6a01', 'ACTIVE',
                    'PATH', 'STARTS_WITH', '/admin', 0, 1);"
            ))
            .unwrap();
        (dir, connection)
    }

    #[test]
    fn rows_are_a_document_that_amphorae_take() {
        let (_dir, connection) = filled();
        let rendered = render(&connection, LB).unwrap().unwrap();
        assert_eq!(rendered.generation, 7);
        let names: Vec<_> = rendered.certificates.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["other", "shop"]);
        LoadBalancer::from_value(&rendered.document).unwrap();
        let root = &rendered.document["loadbalancer"];
        assert_eq!(root["pools"][0]["members"].as_array().unwrap().len(), 1, "what is to go is not in it");
        assert_eq!(root["pools"][0]["healthmonitor"]["http_version"], 1.1);
        assert_eq!(root["listeners"][0]["l7policies"][0]["rules"][0]["value"], "/admin");
    }

    #[test]
    fn listeners_whose_certificates_are_gone_are_left_out() {
        let (_dir, connection) = filled();
        let rendered = render(&connection, LB).unwrap().unwrap();
        let ports = |document: &Value| -> Vec<u64> {
            let listeners = document["loadbalancer"]["listeners"].as_array().unwrap();
            listeners.iter().map(|listener| listener["protocol_port"].as_u64().unwrap()).collect()
        };
        let missing = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        assert_eq!(ports(&without(&rendered.document, &missing(&["nobody"]), None)), [443, 80]);
        for name in ["shop", "other"] {
            let left = without(&rendered.document, &missing(&[name]), None);
            assert_eq!(ports(&left), [80], "{name}");
            LoadBalancer::from_value(&left).unwrap();
        }
        // Of a pool: those that could send there, by whatever words, and nobody else.
        for change in [
            "UPDATE pool SET ca_tls_container_ref = 'trusted', name = 'web'",
            "UPDATE listener SET default_pool_id = NULL",
            "UPDATE listener SET amphora = '{\"default_pools\": [{\"pool\": {\"name\": \"web\"}, \"weight\": 1}]}'
                WHERE protocol_port = 443",
        ] {
            connection.execute(change, []).unwrap();
            let rendered = render(&connection, LB).unwrap().unwrap();
            let left = without(&rendered.document, &missing(&["trusted"]), None);
            let expected: &[u64] = if change.contains("NULL") { &[443, 80] } else { &[80] };
            assert_eq!(ports(&left), expected, "{change}");
            assert_eq!(left["loadbalancer"]["pools"], json!([]));
            LoadBalancer::from_value(&left).unwrap();
        }
    }

    #[test]
    fn listeners_that_were_there_stay_as_they_were() {
        let (_dir, connection) = filled();
        let read = || render(&connection, LB).unwrap().unwrap().document;
        let missing = |name: &str| BTreeSet::from([name.parse().unwrap()]);
        let find = |document: &Value, port: u64| {
            let listeners = document["loadbalancer"]["listeners"].as_array().unwrap();
            listeners.iter().find(|listener| listener["protocol_port"] == port).cloned()
        };
        let before = read();
        connection
            .execute_batch(
                "UPDATE listener SET sni_container_refs = '[\"new\"]', default_pool_id = NULL WHERE protocol_port = 443;
                 UPDATE listener SET name = 'changed' WHERE protocol_port = 80;
                 UPDATE member SET weight = 7;",
            )
            .unwrap();
        let left = without(&read(), &missing("new"), Some(&before));
        assert_eq!(find(&left, 443), find(&before, 443));
        assert_eq!(find(&left, 80).unwrap()["name"], "changed");
        assert_eq!(left["loadbalancer"]["pools"][0]["members"][0]["weight"], 7);
        LoadBalancer::from_value(&left).unwrap();
        // What it needs stays with it.
        connection.execute_batch("DELETE FROM health_monitor; DELETE FROM member; DELETE FROM pool").unwrap();
        let left = without(&read(), &missing("new"), Some(&before));
        assert_eq!(left["loadbalancer"]["pools"], before["loadbalancer"]["pools"]);
        LoadBalancer::from_value(&left).unwrap();
        // One of which there is only what is not to be had is left out.
        let left = without(&read(), &missing("shop"), Some(&before));
        assert_eq!((find(&left, 443), find(&left, 80).is_some()), (None, true));
        // A pool, and those that send there.
        let (_dir, connection) = filled();
        let read = || render(&connection, LB).unwrap().unwrap().document;
        connection
            .execute_batch("UPDATE pool SET ca_tls_container_ref = 'trusted', tls_enabled = 1")
            .unwrap();
        let left = without(&read(), &missing("trusted"), Some(&before));
        assert_eq!(left["loadbalancer"]["pools"], before["loadbalancer"]["pools"]);
        assert_eq!(find(&left, 443), find(&read(), 443));
        LoadBalancer::from_value(&left).unwrap();
    }

    #[test]
    fn what_is_named_is_named_as_something() {
        let (_dir, connection) = filled();
        connection
            .execute_batch("UPDATE listener SET client_ca_tls_container_ref = 'other', client_crl_container_ref = 'lists'")
            .unwrap();
        let uses = uses(&render(&connection, LB).unwrap().unwrap().document);
        let uses: Vec<_> = uses.into_iter().map(|(id, kinds)| (id.to_string(), kinds)).collect();
        let expected: [(&str, &[_]); 3] = [
            ("lists", &[amphora_bundle::Kind::Revocations]),
            ("other", &[amphora_bundle::Kind::Identity, amphora_bundle::Kind::Authorities]),
            ("shop", &[amphora_bundle::Kind::Identity]),
        ];
        assert_eq!(uses, expected.map(|(id, kinds)| (id.to_owned(), kinds.to_vec())));
    }

    #[test]
    fn what_is_to_go_has_no_document() {
        let (_dir, connection) = filled();
        connection.execute("UPDATE load_balancer SET provisioning_status = 'PENDING_DELETE'", []).unwrap();
        assert_eq!(render(&connection, LB).unwrap(), None);
        assert_eq!(render(&connection, "nobody").unwrap(), None);
    }
}
