//! What is done by time: certificates are replaced before they end, and so is the authority.

pub mod tidy;

use std::{sync::Arc, time::Duration};

use rustls::ClientConfig;
use time::OffsetDateTime;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{
    certificates::{Certificates, exchange::Step},
    db::{self, Db},
    health_manager,
    queue::{self, Kind},
    worker::Store as _,
};
use crate::error::{Error, Result};

/// How often an exchange of the authority is looked after.
const EXCHANGE: Duration = Duration::from_secs(5);

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
    let mut renewed = Instant::now();
    loop {
        let exchanged = match exchange(&db, &certificates, buffer).await {
            Ok(exchanged) => exchanged,
            Err(error) => {
                tracing::warn!(%error, "the exchange of the authority");
                false
            }
        };
        if exchanged || renewed.elapsed() >= every {
            let own = certificates.clone();
            match spawn_blocking(move || own.client()).await {
                Ok(Ok(newest)) => _ = client.send_replace(newest),
                Ok(Err(error)) => tracing::warn!(%error, "the controller's own certificate"),
                Err(error) => tracing::warn!(%error, "the controller's own certificate"),
            }
            renewed = Instant::now();
        }
        let ahead = i64::try_from(buffer.as_millis()).unwrap_or(i64::MAX);
        if let Err(error) = renew(&db, ahead, certificates.mark()).await {
            tracing::warn!(%error, "certificates of amphorae that are about to end");
        }
        if exchanged {
            // There may be nobody who has to be told.
            continue;
        }
        sleep(if certificates.is_exchanging() { every.min(EXCHANGE) } else { every }).await;
    }
}

/// Takes the next step of an exchange of the authority; true when whom to trust is another since.
async fn exchange(db: &Db, certificates: &Arc<Certificates>, buffer: Duration) -> Result<bool> {
    let mark = certificates.mark();
    let untold = db
        .read::<_, Error, _>(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT id FROM amphora WHERE status <> 'PENDING_DELETE' AND trust IS NOT ?1",
            )?;
            let ids = query.query_map([mark], |row| row.get::<_, String>(0))?;
            Ok(ids.collect::<rusqlite::Result<Vec<_>>>()?)
        })
        .await?;
    let step = certificates.exchange(OffsetDateTime::now_utc(), buffer, untold.is_empty());
    match step {
        Step::Wait => return Ok(false),
        Step::Replace => {
            tracing::warn!(amphorae = ?untold, "not told in time whom to trust: replaced");
            health_manager::replace(db, untold).await?;
            return Ok(false);
        }
        Step::Prepare | Step::Promote | Step::Drop => {}
    }
    tracing::info!(?step, "the authority is exchanged");
    let own = certificates.clone();
    let taken = spawn_blocking(move || own.take(step)).await;
    taken.map_err(|error| Error::local("the authority", error))??;
    Ok(true)
}

/// Asks for another certificate of each amphora whose own ends within `buffer` milliseconds, or that has not been told of `trust`; returns of
/// how many.
///
/// # Errors
/// The database's.
pub async fn renew(db: &Db, buffer: i64, trust: String) -> Result<usize, db::Error> {
    let now = db.now();
    db.write(move |connection| {
        let mut query = connection.prepare_cached(
            "SELECT id FROM amphora WHERE status IN ('ALLOCATED', 'READY') AND (cert_expiration < ?1 OR trust IS NOT ?3)
             AND NOT EXISTS (SELECT 1 FROM work WHERE kind = ?2 AND subject = amphora.id)",
        )?;
        let ends = now.saturating_add(buffer);
        let ids = query
            .query_map(rusqlite::params![ends, Kind::AmphoraConfigure.as_str(), trust], |row| {
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
        assert_eq!(renew(&db, 1000, "now".to_owned()).await.unwrap(), 3);
        assert_eq!(renew(&db, 1000, "now".to_owned()).await.unwrap(), 0);
        let work = db.read::<_, db::Error, _>(|t| Ok(queue::due(t, i64::MAX, 10)?)).await.unwrap();
        let mut subjects: Vec<_> = work.iter().map(|work| (work.kind, work.subject.as_str())).collect();
        subjects.sort();
        assert_eq!(subjects, ["over", "soon", "untold"].map(|id| (Kind::AmphoraConfigure, id)));
    }
}
