//! What is to be done, as rows: written in the transaction that makes it necessary, and gone in the one that says that it is done. So
//! nothing can be PENDING that nobody works on, whenever this program ends.

use rusqlite::{Connection, OptionalExtension, params};

/// The longest pause between two attempts, in milliseconds.
const MAX_PAUSE: i64 = 60_000;

/// Kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A load balancer is to be as its rows say.
    LoadBalancer,
    /// All amphorae of a load balancer are to be replaced, one after another.
    LoadBalancerFailover,
    /// A spare is to be made.
    AmphoraCreate,
    /// One amphora is to be replaced.
    AmphoraFailover,
    /// The agent of an amphora is to be configured again.
    AmphoraConfigure,
    /// An amphora is to be taken down.
    AmphoraDelete,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::LoadBalancer,
        Self::LoadBalancerFailover,
        Self::AmphoraCreate,
        Self::AmphoraFailover,
        Self::AmphoraConfigure,
        Self::AmphoraDelete,
    ];

    /// As in rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LOAD_BALANCER",
            Self::LoadBalancerFailover => "LOAD_BALANCER_FAILOVER",
            Self::AmphoraCreate => "AMPHORA_CREATE",
            Self::AmphoraFailover => "AMPHORA_FAILOVER",
            Self::AmphoraConfigure => "AMPHORA_CONFIGURE",
            Self::AmphoraDelete => "AMPHORA_DELETE",
        }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// What is to be done.
    pub kind: Kind,
    /// With which load balancer or amphora.
    pub subject: String,
    /// How often it has failed since it was asked for.
    pub attempts: u32,
    /// When it may be tried again, in milliseconds since 1970.
    pub not_before: i64,
    /// Why it failed last, or why it was asked for.
    pub reason: Option<String>,
}

impl Work {
    /// Whether it may be done now. What is to wait for longer than any pause was written before the clock was set back, and waits no more.
    pub fn is_due(&self, now: i64) -> bool {
        self.not_before <= now || self.not_before > now.saturating_add(MAX_PAUSE)
    }
}

/// Asks for work. What is asked for already is tried at once and counts as new: the reason for its failures may be gone. A failover
/// is of all amphorae that there are, whatever the clock said when they were made.
///
/// # Errors
/// The database's.
pub fn enqueue(connection: &Connection, kind: Kind, subject: &str, now: i64) -> rusqlite::Result<()> {
    let newest: Option<i64> = match kind {
        Kind::LoadBalancerFailover => connection
            .prepare_cached(
                "SELECT max(COALESCE(taken_at, created_at)) FROM amphora WHERE load_balancer_id = ?1",
            )?
            .query_row([subject], |row| row.get(0))?,
        _ => None,
    };
    let at = newest.map_or(now, |newest| now.max(newest.saturating_add(1)));
    connection
        .prepare_cached(
            "INSERT INTO work (kind, subject, created_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (kind, subject) DO UPDATE SET attempts = 0, not_before = 0, reason = NULL",
        )?
        .execute(params![kind.as_str(), subject, at])?;
    Ok(())
}

/// Asks for work for a reason that is told while it has not failed.
///
/// # Errors
/// The database's.
pub fn enqueue_because(
    connection: &Connection,
    kind: Kind,
    subject: &str,
    reason: &str,
    now: i64,
) -> rusqlite::Result<()> {
    enqueue(connection, kind, subject, now)?;
    connection
        .prepare_cached("UPDATE work SET reason = ?3 WHERE kind = ?1 AND subject = ?2")?
        .execute(params![kind.as_str(), subject, reason])?;
    Ok(())
}

/// The work that [may be done now](Work::is_due), the oldest first, at most `limit`.
///
/// # Errors
/// The database's.
pub fn due(connection: &Connection, now: i64, limit: usize) -> rusqlite::Result<Vec<Work>> {
    let mut query = connection.prepare_cached(
        "SELECT kind, subject, attempts, not_before, reason FROM work WHERE not_before <= ?1 OR not_before > ?3
         ORDER BY not_before, created_at LIMIT ?2",
    )?;
    let (limit, latest) = (i64::try_from(limit).unwrap_or(i64::MAX), now.saturating_add(MAX_PAUSE));
    let rows = query.query_map(params![now, limit, latest], of_row)?;
    rows.collect()
}

/// When the next work may be done that may not be done now, in milliseconds since 1970.
///
/// # Errors
/// The database's.
pub fn next(connection: &Connection, now: i64) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT min(not_before) FROM work WHERE not_before > ?1 AND not_before <= ?2")?
        .query_row([now, now.saturating_add(MAX_PAUSE)], |row| row.get(0))
}

/// What is asked for of a subject.
///
/// # Errors
/// The database's.
pub fn find(connection: &Connection, kind: Kind, subject: &str) -> rusqlite::Result<Option<Work>> {
    connection
        .prepare_cached(
            "SELECT kind, subject, attempts, not_before, reason FROM work WHERE kind = ?1 AND subject = ?2",
        )?
        .query_row(params![kind.as_str(), subject], of_row)
        .optional()
}

/// What is asked for of a load balancer and its amphorae, or of an amphora that has none.
///
/// # Errors
/// The database's.
pub fn of(connection: &Connection, id: &str) -> rusqlite::Result<Vec<Work>> {
    connection
        .prepare_cached(
            "SELECT kind, subject, attempts, not_before, reason FROM work WHERE subject = ?1
             OR subject IN (SELECT id FROM amphora WHERE load_balancer_id = ?1)",
        )?
        .query_map([id], of_row)?
        .collect()
}

/// It is done.
///
/// # Errors
/// The database's.
pub fn done(connection: &Connection, kind: Kind, subject: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM work WHERE kind = ?1 AND subject = ?2")?
        .execute(params![kind.as_str(), subject])?;
    Ok(())
}

/// It failed, and is tried again after a pause that grows: [`pause`].
///
/// # Errors
/// The database's.
pub fn failed(
    connection: &Connection,
    kind: Kind,
    subject: &str,
    reason: &str,
    now: i64,
    jitter: f64,
) -> rusqlite::Result<()> {
    let attempts = find(connection, kind, subject)?.map_or(0, |work| work.attempts).saturating_add(1);
    connection
        .prepare_cached(
            "UPDATE work SET attempts = ?3, not_before = ?4, reason = ?5 WHERE kind = ?1 AND subject = ?2",
        )?
        .execute(params![kind.as_str(), subject, attempts, now + pause(attempts, jitter), reason])?;
    Ok(())
}

/// Milliseconds until the next attempt after so many: 0.25, 0.5, 1, .. 60 s, and by `jitter`, from 0 to 1, up to a quarter less, so that what
/// failed together is not tried together.
pub fn pause(attempts: u32, jitter: f64) -> i64 {
    let whole = 250_i64.checked_shl(attempts.saturating_sub(1).min(16)).unwrap_or(MAX_PAUSE).min(MAX_PAUSE);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "at most a minute in milliseconds"
    )]
    let less = (whole as f64 * 0.25 * jitter.clamp(0.0, 1.0)) as i64;
    whole - less
}

fn of_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Work> {
    let name: String = row.get(0)?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == name);
    Ok(Work {
        kind: kind.ok_or_else(|| rusqlite::Error::InvalidColumnName(name))?,
        subject: row.get(1)?,
        attempts: row.get(2)?,
        not_before: row.get(3)?,
        reason: row.get(4)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::serve::db;

    #[test]
    fn work_is_there_until_it_is_done() {
        let (_dir, connection) = db::scratch();
        let one =
            |now| due(&connection, now, 10).unwrap().into_iter().map(|work| work.subject).collect::<Vec<_>>();
        enqueue(&connection, Kind::LoadBalancer, "a", 5).unwrap();
        enqueue(&connection, Kind::LoadBalancer, "a", 6).unwrap();
        enqueue(&connection, Kind::AmphoraDelete, "a", 7).unwrap();
        assert_eq!(one(0).len(), 2);
        failed(&connection, Kind::LoadBalancer, "a", "no room", 100, 0.0).unwrap();
        assert_eq!(one(349).len(), 1);
        assert_eq!(next(&connection, 349).unwrap(), Some(350));
        assert_eq!(one(350).len(), 2);
        let work = find(&connection, Kind::LoadBalancer, "a").unwrap().unwrap();
        assert_eq!((work.attempts, work.reason.as_deref()), (1, Some("no room")));
        enqueue(&connection, Kind::LoadBalancer, "a", 120).unwrap();
        assert_eq!(one(120).len(), 2, "who asks again does not wait for the last failure");
        done(&connection, Kind::LoadBalancer, "a").unwrap();
        done(&connection, Kind::AmphoraDelete, "a").unwrap();
        assert_eq!(due(&connection, i64::MAX, 10).unwrap(), []);
        assert_eq!(next(&connection, 0).unwrap(), None);
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nothing_waiting() {
        let (_dir, connection) = db::scratch();
        let hour = 3_600_000;
        enqueue(&connection, Kind::LoadBalancer, "a", 3 * hour).unwrap();
        failed(&connection, Kind::LoadBalancer, "a", "no room", 3 * hour, 0.0).unwrap();
        assert_eq!(due(&connection, 3 * hour, 10).unwrap(), [], "its pause is not over");
        let work = find(&connection, Kind::LoadBalancer, "a").unwrap().unwrap();
        assert_eq!([hour, 3 * hour, 9 * hour].map(|now| work.is_due(now)), [true, false, true]);
        assert_eq!(due(&connection, hour, 10).unwrap().len(), 1);
        assert_eq!(next(&connection, hour).unwrap(), None);
        assert_eq!(due(&connection, 9 * hour, 10).unwrap().len(), 1);
    }

    #[test]
    fn a_failover_is_of_all_amphorae_though_the_clock_was_set_back() {
        let (_dir, connection) = db::scratch();
        connection
            .execute_batch(
                "INSERT INTO load_balancer (id, project_id, provisioning_status, topology, compute_driver, provider, vip_address,
                     vip_port_id, vip_subnet_id, vip_network_id, created_at)
                     VALUES ('lb', 'p', 'ACTIVE', 'SINGLE', 'namespaces', 'amphora', '192.0.2.1', '', '', '', 0);
                 INSERT INTO amphora (id, load_balancer_id, status, compute_driver, compute_id, lb_network_ip, agent_port,
                     cert_expiration, created_at) VALUES ('one', 'lb', 'ALLOCATED', 'namespaces', 'c', '127.0.0.1', 1, 0, 5000)",
            )
            .unwrap();
        for (now, asked) in [(100, 5001), (9000, 9000)] {
            enqueue(&connection, Kind::LoadBalancerFailover, "lb", now).unwrap();
            let at = connection.query_row("SELECT created_at FROM work", [], |row| row.get::<_, i64>(0));
            assert_eq!(at.unwrap(), asked);
            done(&connection, Kind::LoadBalancerFailover, "lb").unwrap();
        }
    }

    #[test]
    fn pauses_grow_up_to_a_minute() {
        assert_eq!(
            [1, 2, 3, 8, 9, u32::MAX].map(|n| pause(n, 0.0)),
            [250, 500, 1000, 32_000, 60_000, 60_000]
        );
        assert_eq!([0.5, 1.0, 7.0].map(|jitter| pause(3, jitter)), [875, 750, 750]);
    }
}
