//! What is done by time: certificates are replaced before they end, and so is the authority.

mod clock;
pub mod tidy;

use std::{sync::Arc, time::Duration};

use rustls::ClientConfig;
use time::OffsetDateTime;
use tokio::{sync::watch, task::spawn_blocking, time::Instant};

use super::{
    certificates::{Certificates, exchange::Step},
    db::{self, Db},
    queue::{self, Kind},
    worker::Store as _,
};
use crate::error::{Error, Result};

/// How often an exchange of the authority is looked after.
const EXCHANGE: Duration = Duration::from_secs(5);

/// The pause after a step of it.
const PAUSE: Duration = Duration::from_secs(1);

/// Every `every` asks for another certificate of each amphora whose own ends within `buffer`, and takes another one for the controller itself;
/// exchanges the authority in time; until it is dropped.
pub async fn run(
    db: Db,
    certificates: Arc<Certificates>,
    client: watch::Sender<Arc<ClientConfig>>,
    every: Duration,
    buffer: Duration,
) {
    // The controller's own was made at the start.
    let mut renewed = Some(Instant::now());
    loop {
        let exchanged = match exchange(&db, &certificates, buffer).await {
            Ok(exchanged) => exchanged,
            Err(error) => {
                tracing::warn!(%error, "the exchange of the authority");
                false
            }
        };
        if exchanged || renewed.is_none_or(|renewed| renewed.elapsed() >= every) {
            let own = certificates.clone();
            match spawn_blocking(move || own.client()).await {
                Ok(Ok(newest)) => _ = client.send_replace(newest),
                Ok(Err(error)) => tracing::warn!(%error, "the controller's own certificate"),
                Err(error) => tracing::warn!(%error, "the controller's own certificate"),
            }
            renewed = Some(Instant::now());
        }
        let ahead = i64::try_from(buffer.as_millis()).unwrap_or(i64::MAX);
        if let Err(error) = renew(&db, ahead, (certificates.mark(), certificates.announces())).await {
            tracing::warn!(%error, "certificates of amphorae that are about to end");
        }
        let ended = match replace_ended(&db, db.now()).await {
            Ok(ended) => ended,
            Err(error) => {
                tracing::warn!(%error, "certificates of amphorae that have ended");
                false
            }
        };
        // There may be nobody who has to be told.
        let soon = if exchanged { PAUSE } else { EXCHANGE };
        if clock::sleep(if ended || certificates.is_exchanging() { every.min(soon) } else { every }).await {
            tracing::warn!("the clock was set: certificates are looked at again");
            renewed = None;
        }
    }
}

/// Takes the next step of an exchange of the authority; true when whom to trust is another since.
async fn exchange(db: &Db, certificates: &Arc<Certificates>, buffer: Duration) -> Result<bool> {
    let (mark, announces) = (certificates.mark(), certificates.announces());
    let (untold, stuck) = db
        .read::<_, Error, _>(move |connection| {
            let ids = |query: &str| -> rusqlite::Result<Vec<String>> {
                let mut query = connection.prepare_cached(query)?;
                query.query_map([&mark], |row| row.get(0))?.collect()
            };
            let untold = ids("SELECT id FROM amphora WHERE status <> 'PENDING_DELETE' AND trust IS NOT ?1")?;
            // What reads whom to trust when it boots has to boot, and what does not take it cannot be reached.
            let boots = if announces { "compute_driver = 'qemu' OR" } else { "" };
            let stuck = ids(&format!(
                "SELECT id FROM amphora WHERE status IN ('ALLOCATED', 'READY') AND trust IS NOT ?1 AND ({boots} EXISTS
                    (SELECT 1 FROM work WHERE kind = 'AMPHORA_CONFIGURE' AND subject = amphora.id AND attempts >= 3))
                 AND NOT EXISTS (SELECT 1 FROM work WHERE kind = 'AMPHORA_FAILOVER') ORDER BY created_at LIMIT 1"
            ))?;
            Ok((untold, stuck))
        })
        .await?;
    let step = certificates.exchange(OffsetDateTime::now_utc(), buffer, untold.is_empty());
    match step {
        // One after another, while there is time.
        Step::Wait => return replace(db, stuck, UNTOLD).await.map(|()| false),
        Step::Replace => return replace(db, untold, UNTOLD).await.map(|()| false),
        Step::Prepare | Step::Promote | Step::Drop => {}
    }
    tracing::info!(?step, "the authority is exchanged");
    let own = certificates.clone();
    let taken = spawn_blocking(move || own.take(step)).await;
    taken.map_err(|error| Error::local("the authority", error))??;
    Ok(true)
}

/// Asks for the replacement of amphorae whose own certificate has ended and that did not take another, by API or as a file: nothing can be told to
/// them any more. `now` is in milliseconds since 1970. True when there are more whose certificate has ended: they may take another yet.
///
/// # Errors
/// The database's.
pub async fn replace_ended(db: &Db, now: i64) -> Result<bool> {
    let ended = db
        .read::<_, Error, _>(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT id, EXISTS (SELECT 1 FROM work WHERE kind = 'AMPHORA_CONFIGURE' AND subject = amphora.id AND attempts >= 3)
                 FROM amphora WHERE status IN ('ALLOCATED', 'READY') AND cert_expiration <= ?1
                 AND NOT EXISTS (SELECT 1 FROM work WHERE kind IN ('AMPHORA_FAILOVER', 'AMPHORA_DELETE') AND subject = amphora.id)",
            )?;
            let rows = query.query_map([now], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<Vec<(String, bool)>>>()?)
        })
        .await?;
    let (refuses, waits): (Vec<_>, Vec<_>) = ended.into_iter().partition(|(_, refuses)| *refuses);
    let refuses = refuses.into_iter().map(|(id, _)| id).collect();
    replace(db, refuses, "the certificate of an agent has ended, and it takes no other: replaced").await?;
    Ok(!waits.is_empty())
}

/// Why some are replaced.
const UNTOLD: &str = "cannot be told whom to trust: replaced";

/// Asks for the replacement of amphorae.
async fn replace(db: &Db, amphorae: Vec<String>, why: &str) -> Result<()> {
    if amphorae.is_empty() {
        return Ok(());
    }
    tracing::warn!(?amphorae, "{why}");
    let now = db.now();
    db.write(move |connection| {
        for amphora in amphorae {
            if queue::find(connection, Kind::AmphoraFailover, &amphora)?.is_none() {
                queue::enqueue(connection, Kind::AmphoraFailover, &amphora, now)?;
            }
        }
        Ok(())
    })
    .await
}

/// Asks for another certificate of each amphora whose own ends within `buffer` milliseconds, or that has not been told of `trust`; returns of
/// how many.
///
/// # Errors
/// The database's.
pub async fn renew(db: &Db, buffer: i64, (trust, announces): (String, bool)) -> Result<usize, db::Error> {
    let now = db.now();
    db.write(move |connection| {
        let mut query = connection.prepare_cached(
            "SELECT id FROM amphora WHERE status IN ('ALLOCATED', 'READY') AND (cert_expiration < ?1
                OR (trust IS NOT ?3 AND NOT (?4 AND compute_driver = 'qemu')))
             AND NOT EXISTS (SELECT 1 FROM work WHERE kind = ?2 AND subject = amphora.id)",
        )?;
        let ends = now.saturating_add(buffer);
        let ids = query
            .query_map(rusqlite::params![ends, Kind::AmphoraConfigure.as_str(), trust, announces], |row| {
                row.get::<_, String>(0)
            })?
            .collect::<Result<Vec<_>, _>>()?;
        for id in &ids {
            queue::enqueue(connection, Kind::AmphoraConfigure, id, now)?;
        }
        Ok(ids.len())
    })
    .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::serve::certificates::Validity;

    #[tokio::test]
    async fn another_certificate_is_asked_for_once_and_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("serve.db")).unwrap();
        let now = db.now();
        db.write::<_, db::Error, _>(move |t| {
            for (id, status, ends, trust) in [
                ("soon", "ALLOCATED", now + 500, "now"),
                ("over", "READY", now - 500, "now"),
                ("later", "ALLOCATED", now + 10_000, "now"),
                ("untold", "ALLOCATED", now + 10_000, "before"),
                ("going", "PENDING_DELETE", now - 500, "before"),
            ] {
                t.execute(
                    "INSERT INTO amphora (id, status, compute_driver, compute_id, lb_network_ip, agent_port, cert_expiration, created_at, trust)
                     VALUES (?1, ?3, 'namespaces', ?1, '127.0.0.1', 1, ?2, 0, ?4)",
                    rusqlite::params![id, ends, status, trust],
                )?;
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(renew(&db, 1000, ("now".to_owned(), true)).await.unwrap(), 3);
        assert_eq!(renew(&db, 1000, ("now".to_owned(), true)).await.unwrap(), 0);
        let work = db.read::<_, db::Error, _>(|t| Ok(queue::due(t, i64::MAX, 10)?)).await.unwrap();
        let mut subjects: Vec<_> = work.iter().map(|work| (work.kind, work.subject.as_str())).collect();
        subjects.sort();
        assert_eq!(subjects, ["over", "soon", "untold"].map(|id| (Kind::AmphoraConfigure, id)));
    }

    #[tokio::test]
    async fn whose_certificate_has_ended_is_replaced_unless_it_takes_another() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("serve.db")).unwrap();
        db.write::<_, db::Error, _>(|t| {
            for (id, status, ends, attempts) in [
                ("ended", "ALLOCATED", 500, 3),
                ("a spare", "READY", 500, 9),
                ("later", "ALLOCATED", 501, 9),
                ("going", "PENDING_DELETE", 500, 9),
            ] {
                t.execute(
                    "INSERT INTO amphora (id, status, compute_driver, compute_id, lb_network_ip, agent_port, cert_expiration, created_at)
                     VALUES (?1, ?2, 'qemu', ?1, '127.0.0.1', 1, ?3, 0)",
                    rusqlite::params![id, status, ends],
                )?;
                queue::enqueue(t, Kind::AmphoraConfigure, id, 0)?;
                t.execute("UPDATE work SET attempts = ?2 WHERE subject = ?1", rusqlite::params![id, attempts])?;
            }
            Ok(())
        })
        .await
        .unwrap();
        let set = async |attempts: u32| {
            db.write::<_, db::Error, _>(move |t| {
                let set =
                    "UPDATE work SET attempts = ?1 WHERE subject = 'ended' AND kind = 'AMPHORA_CONFIGURE'";
                t.execute(set, [attempts])?;
                Ok(())
            })
            .await
            .unwrap();
        };
        let asked = async || {
            let work = db.read::<_, db::Error, _>(|t| Ok(queue::due(t, i64::MAX, 10)?)).await.unwrap();
            let mut replaced: Vec<_> = work
                .into_iter()
                .filter(|work| work.kind == Kind::AmphoraFailover)
                .map(|work| work.subject)
                .collect();
            replaced.sort();
            replaced
        };
        assert!(!replace_ended(&db, 499).await.unwrap());
        set(2).await;
        assert!(replace_ended(&db, 500).await.unwrap(), "one may take another yet");
        assert_eq!(asked().await, ["a spare"]);
        set(3).await;
        for _ in 0..2 {
            assert!(!replace_ended(&db, 500).await.unwrap());
            assert_eq!(asked().await, ["a spare", "ended"]);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_told_whom_to_trust_is_replaced_one_after_another() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("serve.db")).unwrap();
        let day = Duration::from_secs(86_400);
        let validity = Validity { issued: day, authority: 10 * day };
        let certificates =
            Arc::new(Certificates::open(&dir.path().join("authority"), None, validity, None).unwrap());
        db.write::<_, db::Error, _>(|t| {
            t.execute_batch(
                "INSERT INTO amphora (id, status, compute_driver, compute_id, lb_network_ip, agent_port, cert_expiration, created_at) VALUES
                    ('a', 'ALLOCATED', 'namespaces', 'a', '127.0.0.1', 1, 0, 1), ('b', 'ALLOCATED', 'qemu', 'b', '127.0.0.1', 2, 0, 2),
                    ('c', 'READY', 'qemu', 'c', '127.0.0.1', 3, 0, 3);",
            )?;
            Ok(())
        })
        .await
        .unwrap();
        let asked = async |db: &Db| {
            let work = db.read::<_, db::Error, _>(|t| Ok(queue::due(t, i64::MAX, 10)?)).await.unwrap();
            let replaced = work.into_iter().filter(|work| work.kind == Kind::AmphoraFailover);
            replaced.map(|work| work.subject).collect::<Vec<_>>().concat()
        };
        let told = async |db: &Db, id: &'static str, mark: String| {
            db.write::<_, db::Error, _>(move |t| {
                t.execute("UPDATE amphora SET trust = ?2 WHERE id = ?1", [id, &mark])?;
                Ok(queue::done(t, Kind::AmphoraFailover, id)?)
            })
            .await
            .unwrap();
        };
        assert!(exchange(&db, &certificates, 11 * day).await.unwrap(), "the next one is made");
        assert!(!exchange(&db, &certificates, 11 * day).await.unwrap());
        assert_eq!(asked(&db).await, "b");
        assert!(!exchange(&db, &certificates, 11 * day).await.unwrap());
        assert_eq!(asked(&db).await, "b", "one after another");
        told(&db, "b", certificates.mark()).await;
        assert!(!exchange(&db, &certificates, 11 * day).await.unwrap());
        assert_eq!(asked(&db).await, "c");
        told(&db, "c", certificates.mark()).await;
        renew(&db, 0, (certificates.mark(), true)).await.unwrap();
        assert!(!exchange(&db, &certificates, 11 * day).await.unwrap());
        assert_eq!(asked(&db).await, "", "it is asked for another certificate");
        db.write::<_, db::Error, _>(|t| {
            t.execute("UPDATE work SET attempts = 3", [])?;
            Ok(())
        })
        .await
        .unwrap();
        assert!(!exchange(&db, &certificates, 11 * day).await.unwrap());
        assert_eq!(asked(&db).await, "a", "it does not take it");
        told(&db, "a", certificates.mark()).await;
        let before = certificates.authority();
        assert!(exchange(&db, &certificates, 11 * day).await.unwrap(), "the next one issues");
        assert_ne!(certificates.authority(), before);
    }
}
