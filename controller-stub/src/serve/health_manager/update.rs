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

    /// A newer heartbeat has told of them. What was counted counts.
    pub fn forget_statuses(&mut self) {
        self.statuses.clear();
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

/// When something is compared, and how far back what was said counts; both in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since 1970.
    pub now: i64,
    /// For so long after an amphora was told a document, its heartbeats that speak of another one have left before.
    pub on_the_way: i64,
}

/// Compares a heartbeat with the rows. Nothing is to be written of an amphora that carries no load balancer. Of a pair
/// both tell of statuses, and the last one counts, as in Octavia.
///
/// # Errors
/// The database's.
pub fn compare(connection: &Connection, message: &Message, moment: Moment) -> Result<Changes, db::Error> {
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
    if is_of_another_document(connection, message, moment)? {
        return Ok(changes);
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

/// Whether an amphora says that it has no listener at all, though some of its load balancer are to be there: its proxy does not run. Octavia counts
/// no heartbeat that has fewer of them than there are; a load balancer in ERROR may lack some for a certificate.
///
/// # Errors
/// The database's.
pub fn serves_nothing(connection: &Connection, message: &Message, moment: Moment) -> Result<bool, db::Error> {
    let query = "SELECT EXISTS (SELECT 1 FROM amphora a JOIN load_balancer b ON b.id = a.load_balancer_id
        JOIN listener l ON l.load_balancer_id = b.id WHERE a.id = ?1 AND a.status = 'ALLOCATED'
        AND a.applied_generation >= b.generation AND b.provisioning_status = 'ACTIVE' AND b.admin_state_up = 1
        AND l.provisioning_status = 'ACTIVE' AND l.admin_state_up = 1)";
    let is_to_serve: bool = connection.prepare_cached(query)?.query_row([&message.id], |row| row.get(0))?;
    Ok(message.listeners.is_empty() && is_to_serve && !is_of_another_document(connection, message, moment)?)
}

/// Whether a heartbeat speaks of what an amphora had before the document that it was told last. One that does so for longer has it no
/// more, for whatever reason, and is believed.
fn is_of_another_document(
    connection: &Connection,
    message: &Message,
    moment: Moment,
) -> Result<bool, db::Error> {
    let Some(document) = &message.document else { return Ok(false) };
    let (told, at): (Option<String>, Option<i64>) = connection
        .prepare_cached("SELECT applied_document, applied_at FROM amphora WHERE id = ?1")?
        .query_row([&message.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let recent = at.is_some_and(|at| (0..moment.on_the_way).contains(&moment.now.saturating_sub(at)));
    Ok(recent && told.is_some_and(|told| told != **document))
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

    const MOMENT: Moment = Moment { now: 5000, on_the_way: 1000 };

    fn beat(connection: &Connection, message: &Message) -> Changes {
        let changes = compare(connection, message, MOMENT).unwrap();
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
    fn what_left_before_the_document_that_an_amphora_was_told_says_nothing_of_it() {
        let (_dir, connection) = filled();
        let told = "UPDATE amphora SET applied_document = 'new', applied_at = ?1";
        let listener = || one(&connection, "SELECT operating_status FROM listener");
        let beat_of = |document: Option<&str>| {
            // Of before the listener was there.
            let before = Message {
                listeners: BTreeMap::new(),
                document: document.map(Into::into),
                ..heartbeat("amphora", "UP")
            };
            beat(&connection, &before)
        };
        connection.execute(told, [4001]).unwrap();
        assert!(beat_of(Some("old")).is_empty());
        let now = Message { document: Some("new".into()), ..heartbeat("amphora", "UP") };
        assert_eq!(beat(&connection, &now).statuses.len(), 4);
        assert_eq!(listener(), "ONLINE");
        let mut busy = Message { document: Some("old".into()), ..heartbeat("amphora", "UP") };
        busy.listeners.values_mut().for_each(|one| one.stats.rx = 7);
        let traffic = beat(&connection, &busy);
        assert_eq!((traffic.statuses.len(), traffic.traffic.len()), (0, 1), "what it counted counts");
        assert_eq!(beat_of(Some("old")).statuses, []);
        assert_eq!(listener(), "ONLINE");
        beat_of(Some("new"));
        assert_eq!(listener(), "ERROR", "it has lost it");
        beat(&connection, &now);
        for (at, document) in [(4000, Some("old")), (5001, Some("old")), (4999, None)] {
            connection.execute(told, [at]).unwrap();
            beat_of(document);
            assert_eq!(listener(), "ERROR", "told at {at}, {document:?}");
            connection.execute(told, [4999]).unwrap();
            beat(&connection, &now);
            assert_eq!(listener(), "ONLINE");
        }
    }

    #[test]
    fn who_has_no_listener_that_is_to_be_there_serves_nothing() {
        let (_dir, connection) = filled();
        let idle = Message { listeners: BTreeMap::new(), ..heartbeat("amphora", "UP") };
        let serves_nothing = || super::serves_nothing(&connection, &idle, MOMENT).unwrap();
        assert!(!serves_nothing(), "it was told nothing yet");
        connection.execute("UPDATE amphora SET applied_generation = 9", []).unwrap();
        assert!(serves_nothing());
        assert!(!super::serves_nothing(&connection, &heartbeat("amphora", "UP"), MOMENT).unwrap());
        for (table, change, back) in [
            ("listener", "admin_state_up = 0", "admin_state_up = 1"),
            ("listener", "provisioning_status = 'PENDING_CREATE'", "provisioning_status = 'ACTIVE'"),
            ("load_balancer", "admin_state_up = 0", "admin_state_up = 1"),
            ("load_balancer", "provisioning_status = 'ERROR'", "provisioning_status = 'ACTIVE'"),
            ("load_balancer", "generation = 10", "generation = 0"),
            ("amphora", "status = 'PENDING_DELETE'", "status = 'ALLOCATED'"),
        ] {
            connection.execute(&format!("UPDATE {table} SET {change}"), []).unwrap();
            assert!(!serves_nothing(), "{table} {change}");
            connection.execute(&format!("UPDATE {table} SET {back}"), []).unwrap();
            assert!(serves_nothing(), "{table} {back}");
        }
        connection.execute("DELETE FROM listener", []).unwrap();
        assert!(!serves_nothing(), "it has none");
    }

    #[test]
    fn an_amphora_that_carries_nothing_changes_nothing() {
        let (_dir, connection) = filled();
        assert!(compare(&connection, &heartbeat("another", "UP"), MOMENT).unwrap().is_empty());
        connection.execute("UPDATE amphora SET status = 'PENDING_DELETE'", []).unwrap();
        assert!(compare(&connection, &heartbeat("amphora", "UP"), MOMENT).unwrap().is_empty());
    }
}
