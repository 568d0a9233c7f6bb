//! What becomes of all objects of a load balancer at once.

use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    error::Result,
    serve::queue::{self, Kind, Work},
};

/// Tables of the objects of a load balancer, children first, and how those of load balancer `?1` are found.
const OBJECTS: [(&str, &str); 9] = [
    (
        "rate_limit_rule",
        "rate_limit_policy_id IN (SELECT p.id FROM rate_limit_policy p JOIN listener l ON l.id = p.listener_id WHERE l.load_balancer_id = ?1)",
    ),
    ("rate_limit_policy", "listener_id IN (SELECT id FROM listener WHERE load_balancer_id = ?1)"),
    (
        "l7rule",
        "l7policy_id IN (SELECT p.id FROM l7policy p JOIN listener l ON l.id = p.listener_id WHERE l.load_balancer_id = ?1)",
    ),
    ("l7policy", "listener_id IN (SELECT id FROM listener WHERE load_balancer_id = ?1)"),
    ("member", "pool_id IN (SELECT id FROM pool WHERE load_balancer_id = ?1)"),
    ("health_monitor", "pool_id IN (SELECT id FROM pool WHERE load_balancer_id = ?1)"),
    ("listener", "load_balancer_id = ?1"),
    ("pool", "load_balancer_id = ?1"),
    ("load_balancer", "id = ?1"),
];

/// After so many failures what is PENDING is in ERROR, though it is tried again for ever.
pub(super) const PATIENCE: u32 = 3;

/// All that was said up to a generation is so, since `now`, in milliseconds since 1970. False, and nothing of it, when one of its amphorae has
/// been taken out since that was found: of what was PENDING before that made no other generation.
pub fn finish(
    connection: &Connection,
    id: &str,
    generation: i64,
    failover: Option<i64>,
    now: i64,
) -> Result<bool> {
    let lacks_one: bool = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM amphora WHERE load_balancer_id = ?1 AND status = 'PENDING_DELETE')",
        )?
        .query_row([id], |row| row.get(0))?;
    if lacks_one {
        return Ok(false);
    }
    // Who names a pool that goes names nothing: those that go themselves, too, whatever is deleted first.
    for (table, column) in [("listener", "default_pool_id"), ("l7policy", "redirect_pool_id")] {
        connection
            .prepare_cached(&format!(
                "UPDATE {table} SET {column} = NULL WHERE {column} IN (SELECT id FROM pool WHERE load_balancer_id = ?1
                 AND provisioning_status = 'PENDING_DELETE' AND generation <= ?2)"
            ))?
            .execute(params![id, generation])?;
    }
    for (table, own) in OBJECTS {
        let of = format!("{own} AND generation <= ?2");
        if table != "load_balancer" {
            connection
                .prepare_cached(&format!(
                    "DELETE FROM {table} WHERE {of} AND provisioning_status = 'PENDING_DELETE'"
                ))?
                .execute(params![id, generation])?;
        }
        // Nobody reports of these: they work where they are ACTIVE, as in Octavia's own flows.
        let works = match table {
            "health_monitor" | "l7policy" | "l7rule" => {
                ", operating_status = CASE admin_state_up WHEN 1 THEN 'ONLINE' ELSE 'OFFLINE' END"
            }
            "rate_limit_policy" => {
                ", operating_status = CASE enabled WHEN 1 THEN 'ONLINE' ELSE 'OFFLINE' END"
            }
            "rate_limit_rule" => ", operating_status = 'ONLINE'",
            _ => "",
        };
        connection
            .prepare_cached(&format!(
                "UPDATE {table} SET provisioning_status = 'ACTIVE', updated_at = ?3{works} WHERE {of}
                 AND provisioning_status IN ('PENDING_CREATE', 'PENDING_UPDATE', 'ERROR')"
            ))?
            .execute(params![id, generation, now])?;
    }
    connection
        .prepare_cached(
            "DELETE FROM work WHERE kind = 'LOAD_BALANCER' AND subject = ?1
             AND (SELECT generation FROM load_balancer WHERE id = ?1) = ?2",
        )?
        .execute(params![id, generation])?;
    connection
        .prepare_cached(
            "DELETE FROM work WHERE kind = 'LOAD_BALANCER_FAILOVER' AND subject = ?1 AND created_at IS ?2",
        )?
        .execute(params![id, failover])?;
    Ok(true)
}

/// When a load balancer was asked for, if [`finish`] at this generation is what makes it ACTIVE for the first time.
pub fn is_made_by(connection: &Connection, id: &str, generation: i64) -> Result<Option<i64>> {
    let found = connection
        .prepare_cached(
            "SELECT created_at FROM load_balancer WHERE id = ?1 AND generation <= ?2 AND provisioning_status = 'PENDING_CREATE'",
        )?
        .query_row(params![id, generation], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// Whether amphorae of a load balancer that goes on are being replaced.
pub fn is_failing_over(connection: &Connection, id: &str) -> Result<bool> {
    let found = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM load_balancer WHERE id = ?1 AND provisioning_status <> 'PENDING_DELETE')
             AND (EXISTS (SELECT 1 FROM work WHERE kind = 'LOAD_BALANCER_FAILOVER' AND subject = ?1)
             OR EXISTS (SELECT 1 FROM amphora a WHERE a.load_balancer_id = ?1 AND a.role IS NOT NULL AND (a.status = 'PENDING_DELETE'
                 OR EXISTS (SELECT 1 FROM work WHERE kind = 'AMPHORA_FAILOVER' AND subject = a.id))))",
        )?
        .query_row([id], |row| row.get(0))?;
    Ok(found)
}

/// A load balancer is gone. What a tenant has made before it stays.
pub fn delete(connection: &Connection, id: &str) -> Result<()> {
    connection
        .prepare_cached("UPDATE port SET load_balancer_id = NULL, device_id = '' WHERE load_balancer_id = ?1 AND device_owner = ''")?
        .execute([id])?;
    connection.prepare_cached("DELETE FROM load_balancer WHERE id = ?1")?.execute([id])?;
    for kind in [Kind::LoadBalancer, Kind::LoadBalancerFailover] {
        queue::done(connection, kind, id)?;
    }
    Ok(())
}

/// The work of a load balancer, or of an amphora that has none, failed; what is of agents alone has not.
pub fn failed(connection: &Connection, id: &str, reason: &str, now: i64, jitter: f64) -> Result<()> {
    let (mut attempts, mut told) = (0, None);
    let lb = super::load_balancer(connection, id)?;
    let of_agent = |work: &Work| lb.as_ref().is_some_and(|lb| lb.is_of_agent(work));
    for work in queue::of(connection, id)?.into_iter().filter(|work| !of_agent(work)) {
        attempts = attempts.max(work.attempts.saturating_add(1));
        if work.attempts >= PATIENCE {
            told = work.reason;
        }
        queue::failed(connection, work.kind, &work.subject, reason, now, jitter)?;
    }
    if attempts < PATIENCE {
        return Ok(());
    }
    let before: i64 = connection.query_row("SELECT COALESCE(max(id), 0) FROM event", [], |row| row.get(0))?;
    if told.is_some_and(|told| !is_alike(&told, reason)) {
        // Of the load balancer alone: however many of its objects are in ERROR, it is one reason.
        connection
            .prepare_cached(
                "INSERT INTO event (at, project_id, load_balancer_id, object_type, object_id, attribute, old, new)
                 SELECT ?2, project_id, id, 'loadbalancer', id, 'provisioning_status', 'ERROR', 'ERROR' FROM load_balancer
                 WHERE id = ?1 AND provisioning_status = 'ERROR'",
            )?
            .execute(params![id, now])?;
    }
    for (table, own) in OBJECTS {
        connection
            .prepare_cached(&format!(
                "UPDATE {table} SET provisioning_status = 'ERROR' WHERE {own}
                 AND provisioning_status IN ('PENDING_CREATE', 'PENDING_UPDATE')"
            ))?
            .execute([id])?;
    }
    connection
        .prepare_cached("UPDATE event SET reason = ?2 WHERE id > ?1 AND attribute = 'provisioning_status' AND new = 'ERROR'")?
        .execute(params![before, reason])?;
    Ok(())
}

/// Whether two reasons are the same, though another amphora, port or address is named: words with a digit do not count.
fn is_alike(one: &str, other: &str) -> bool {
    let words = |text: &str| {
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '-');
        words.filter(|word| !word.contains(|c: char| c.is_ascii_digit())).collect::<String>()
    };
    words(one) == words(other)
}

/// Load balancers of which something is not as it is to be, and that nobody works on: they are worked on.
pub fn adopt(connection: &Connection, now: i64) -> Result<usize> {
    let mut adopted = 0;
    for (table, own) in OBJECTS {
        let own = own.replace("?1", "l.id");
        adopted += connection
            .prepare_cached(&format!(
                "INSERT INTO work (kind, subject, created_at)
                 SELECT 'LOAD_BALANCER', l.id, ?1 FROM load_balancer l WHERE EXISTS (
                     SELECT 1 FROM {table} o WHERE {} AND o.provisioning_status <> 'ACTIVE')
                 ON CONFLICT (kind, subject) DO NOTHING",
                prefixed(&own)
            ))?
            .execute([now])?;
    }
    // Without a load balancer, and neither a spare nor about to be one.
    adopted += connection
        .prepare_cached(
            "INSERT INTO work (kind, subject, created_at) SELECT 'AMPHORA_DELETE', id, ?1 FROM amphora
             WHERE load_balancer_id IS NULL AND status <> 'READY'
             AND NOT (status = 'BOOTING' AND EXISTS (SELECT 1 FROM work WHERE kind = 'AMPHORA_CREATE' AND subject = amphora.id))
             ON CONFLICT (kind, subject) DO NOTHING",
        )?
        .execute([now])?;
    // Work on what is gone.
    connection
        .prepare_cached(
            "DELETE FROM work WHERE (kind IN ('LOAD_BALANCER', 'LOAD_BALANCER_FAILOVER') AND subject NOT IN (SELECT id FROM load_balancer))
             OR (kind LIKE 'AMPHORA%' AND subject NOT IN (SELECT id FROM amphora))",
        )?
        .execute([])?;
    Ok(adopted)
}

/// A condition whose first column is that of `o`.
fn prefixed(condition: &str) -> String {
    format!("o.{condition}")
}
