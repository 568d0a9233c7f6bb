//! What a heartbeat says, into the rows: operating statuses where they have changed, and traffic.

use std::collections::BTreeMap;

use amphora_agent::{
    heartbeat::Message,
    status::{OperatingStatus, operating_statuses},
};
use amphora_model::LoadBalancer;
use rusqlite::{Connection, OptionalExtension, params};

use crate::serve::{db, document};

/// What is to be written of one heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Table, id and operating status of what has changed.
    statuses: Vec<(&'static str, String, &'static str)>,
    /// Traffic of listeners since the last heartbeat.
    traffic: Vec<(String, [u64; 5])>,
}

impl Changes {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.statuses.is_empty() && self.traffic.is_empty()
    }
}

/// The load balancer that an amphora carries, for as long as it does.
///
/// # Errors
/// The database's.
pub fn load_balancer_of(connection: &Connection, amphora: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT load_balancer_id FROM amphora WHERE id = ?1 AND status = 'ALLOCATED' AND load_balancer_id IS NOT NULL")?
        .query_row([amphora], |row| row.get(0))
        .optional()
}

/// Compares a heartbeat with the rows. Nothing is to be written of an amphora that carries no load balancer. Of a pair
/// both tell of statuses, and the last one counts, as in Octavia.
///
/// # Errors
/// The database's.
pub fn compare(connection: &Connection, message: &Message) -> Result<Changes, db::Error> {
    let mut changes = Changes::default();
    let Some(load_balancer) = load_balancer_of(connection, &message.id)? else { return Ok(changes) };
    for (listener, report) in &message.listeners {
        let stats = &report.stats;
        let traffic = [stats.rx, stats.tx, stats.conns, stats.totconns, stats.ereq];
        let listener = listener.to_string();
        if traffic != [0; 5] || connections(connection, &listener, &message.id)? != 0 {
            changes.traffic.push((listener, traffic));
        }
    }
    let Some(rendered) = document::render(connection, &load_balancer)? else { return Ok(changes) };
    // What the API has taken is a document; what is not, because a later release has written it, has no statuses.
    let Ok(model) = LoadBalancer::from_value(&rendered.document) else { return Ok(changes) };
    let told = operating_statuses(&model, message);
    let load_balancers =
        stored(connection, "SELECT id, operating_status FROM load_balancer WHERE id = ?1", &load_balancer)?;
    let listeners = stored(
        connection,
        "SELECT id, operating_status FROM listener WHERE load_balancer_id = ?1 AND provisioning_status = 'ACTIVE'",
        &load_balancer,
    )?;
    let pools = stored(
        connection,
        "SELECT id, operating_status FROM pool WHERE load_balancer_id = ?1 AND provisioning_status = 'ACTIVE'",
        &load_balancer,
    )?;
    let members = stored(
        connection,
        "SELECT m.id, m.operating_status FROM member m JOIN pool p ON p.id = m.pool_id
         WHERE p.load_balancer_id = ?1 AND m.provisioning_status = 'ACTIVE'",
        &load_balancer,
    )?;
    let all = [
        ("load_balancer", load_balancers, vec![(load_balancer, told.load_balancer)]),
        (
            "listener",
            listeners,
            told.listeners.iter().map(|(id, status)| (id.to_string(), *status)).collect(),
        ),
        ("pool", pools, told.pools.iter().map(|(id, status)| (id.to_string(), *status)).collect()),
        ("member", members, told.members.iter().map(|((_, id), status)| (id.to_string(), *status)).collect()),
    ];
    for (table, stored, told) in all {
        for (id, status) in told {
            let status = word(status);
            if stored.get(&id).is_some_and(|stored| stored != status) {
                changes.statuses.push((table, id, status));
            }
        }
    }
    Ok(changes)
}

/// Writes them. What has gone meanwhile is left out.
///
/// # Errors
/// The database's.
pub fn apply(connection: &Connection, amphora: &str, changes: &Changes) -> Result<(), db::Error> {
    for (table, id, status) in &changes.statuses {
        connection
            .prepare_cached(&format!("UPDATE {table} SET operating_status = ?2 WHERE id = ?1"))?
            .execute(params![id, status])?;
    }
    for (listener, traffic) in &changes.traffic {
        let [rx, tx, now, total, errors] = traffic.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        connection
            .prepare_cached(
                "INSERT INTO listener_statistics (listener_id, amphora_id, bytes_in, bytes_out, active_connections,
                    total_connections, request_errors)
                 SELECT id, ?2, ?3, ?4, ?5, ?6, ?7 FROM listener WHERE id = ?1
                 ON CONFLICT (listener_id, amphora_id) DO UPDATE SET
                    bytes_in = bytes_in + excluded.bytes_in, bytes_out = bytes_out + excluded.bytes_out,
                    active_connections = excluded.active_connections,
                    total_connections = total_connections + excluded.total_connections,
                    request_errors = request_errors + excluded.request_errors",
            )?
            .execute(params![listener, amphora, rx, tx, now, total, errors])?;
    }
    Ok(())
}

fn connections(connection: &Connection, listener: &str, amphora: &str) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "SELECT active_connections FROM listener_statistics WHERE listener_id = ?1 AND amphora_id = ?2",
        )?
        .query_row([listener, amphora], |row| row.get(0))
        .optional()
        .map(Option::unwrap_or_default)
}

fn stored(connection: &Connection, query: &str, id: &str) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut query = connection.prepare_cached(query)?;
    query.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn word(status: OperatingStatus) -> &'static str {
    match status {
        OperatingStatus::Online => "ONLINE",
        OperatingStatus::Offline => "OFFLINE",
        OperatingStatus::Degraded => "DEGRADED",
        OperatingStatus::Error => "ERROR",
        OperatingStatus::Draining => "DRAINING",
        OperatingStatus::NoMonitor => "NO_MONITOR",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    const LB: &str = "0b0e0c3a-4f43-4f0c-9b53-3d7a5f4f7c11";
    const LISTENER: &str = "3c9f2c57-1d5e-4b53-9d80-7c0d9a1f9a22";
    const POOL: &str = "9d1d7f0e-6a2e-4c0b-8f7d-5f0e2d6c3b33";
    const MEMBER: &str = "5a8e4d21-2b3c-4d5e-9f60-1a2b3c4d5e44";

    fn filled() -> (tempfile::TempDir, Connection) {
        let (dir, connection) = db::scratch();
        connection
            .execute_batch(&format!(
                "INSERT INTO load_balancer (id, project_id, provisioning_status, topology, compute_driver, provider, vip_address,
                    vip_port_id, vip_subnet_id, vip_network_id, created_at)
                    VALUES ('{LB}', 'p', 'ACTIVE', 'SINGLE', 'namespaces', 'amphora', '192.0.2.1', '', '', '', 0);
                 INSERT INTO pool (id, project_id, load_balancer_id, provisioning_status, protocol, lb_algorithm, created_at, generation)
                    VALUES ('{POOL}', 'p', '{LB}', 'ACTIVE', 'HTTP', 'ROUND_ROBIN', 0, 1);
                 INSERT INTO member (id, project_id, pool_id, provisioning_status, address, protocol_port, created_at, generation)
                    VALUES ('{MEMBER}', 'p', '{POOL}', 'ACTIVE', '192.0.2.8', 80, 0, 1);
                 INSERT INTO listener (id, project_id, load_balancer_id, provisioning_status, protocol, protocol_port,
                    default_pool_id, timeout_client_data, timeout_member_connect, timeout_member_data, timeout_tcp_inspect,
                    created_at, generation) VALUES ('{LISTENER}', 'p', '{LB}', 'ACTIVE', 'HTTP', 80, '{POOL}', 1, 1, 1, 0, 0, 1);
                 INSERT INTO amphora (id, load_balancer_id, status, compute_driver, compute_id, lb_network_ip, agent_port,
                    cert_expiration, created_at) VALUES ('amphora', '{LB}', 'ALLOCATED', 'namespaces', 'c', '127.0.0.1', 1, 0, 0);"
            ))
            .unwrap();
        (dir, connection)
    }

    fn heartbeat(amphora: &str, member: &str) -> Message {
        serde_json::from_value(json!({"id": amphora, "seq": 1, "ver": 3,
            "listeners": {LISTENER: {"status": "OPEN", "stats": {"tx": 50, "rx": 40, "conns": 1, "totconns": 2, "ereq": 0}}},
            "pools": {format!("{POOL}:{LISTENER}"): {"status": "UP", "members": {MEMBER: member}}}}))
        .unwrap()
    }

    fn beat(connection: &Connection, message: &Message) -> Changes {
        let changes = compare(connection, message).unwrap();
        apply(connection, &message.id, &changes).unwrap();
        changes
    }

    fn one(connection: &Connection, query: &str) -> String {
        connection.query_row(query, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn statuses_are_written_once_and_traffic_adds_up() {
        let (_dir, connection) = filled();
        let first = beat(&connection, &heartbeat("amphora", "UP"));
        assert_eq!(first.statuses.len(), 4, "{first:?}");
        let second = beat(&connection, &heartbeat("amphora", "UP"));
        assert_eq!((second.statuses.len(), second.traffic.len()), (0, 1));
        assert_eq!(one(&connection, "SELECT operating_status FROM load_balancer"), "ONLINE");
        let sums = "SELECT bytes_in || ' ' || bytes_out || ' ' || active_connections || ' ' || total_connections FROM listener_statistics";
        assert_eq!(one(&connection, sums), "80 100 1 4");

        beat(&connection, &heartbeat("amphora", "DOWN"));
        assert_eq!(one(&connection, "SELECT operating_status FROM member"), "ERROR");
        assert_eq!(one(&connection, "SELECT operating_status FROM load_balancer"), "DEGRADED");
    }

    #[test]
    fn an_amphora_that_carries_nothing_changes_nothing() {
        let (_dir, connection) = filled();
        assert!(compare(&connection, &heartbeat("another", "UP")).unwrap().is_empty());
        connection.execute("UPDATE amphora SET status = 'PENDING_DELETE'", []).unwrap();
        assert!(compare(&connection, &heartbeat("amphora", "UP")).unwrap().is_empty());
    }
}
