//! What is done by time: certificates are replaced before they end.

use std::{sync::Arc, time::Duration};

use rustls::ClientConfig;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::{
    certificates::Certificates,
    db::{self, Db},
    queue::{self, Kind},
    worker::Store as _,
};

/// Every `every` asks for another certificate of each amphora whose own ends within `buffer`, and takes another one for the controller itself, until
/// it is dropped.
pub async fn run(
    db: Db,
    certificates: Arc<Certificates>,
    client: watch::Sender<Arc<ClientConfig>>,
    every: Duration,
    buffer: Duration,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The controller's own was made at the start.
    ticks.tick().await;
    loop {
        let buffer = i64::try_from(buffer.as_millis()).unwrap_or(i64::MAX);
        if let Err(error) = renew(&db, buffer).await {
            tracing::warn!(%error, "certificates of amphorae that are about to end");
        }
        ticks.tick().await;
        let certificates = certificates.clone();
        match spawn_blocking(move || certificates.client()).await {
            Ok(Ok(newest)) => _ = client.send_replace(newest),
            Ok(Err(error)) => tracing::warn!(%error, "the controller's own certificate"),
            Err(error) => tracing::warn!(%error, "the controller's own certificate"),
        }
    }
}

/// Asks for another certificate of each amphora whose own ends within `buffer` milliseconds; returns of how many.
///
/// # Errors
/// The database's.
pub async fn renew(db: &Db, buffer: i64) -> Result<usize, db::Error> {
    let now = db.now();
    db.write(move |connection| {
        let mut query = connection.prepare_cached(
            "SELECT id FROM amphora WHERE status IN ('ALLOCATED', 'READY') AND cert_expiration < ?1
             AND NOT EXISTS (SELECT 1 FROM work WHERE kind = ?2 AND subject = amphora.id)",
        )?;
        let ends = now.saturating_add(buffer);
        let ids = query
            .query_map(rusqlite::params![ends, Kind::AmphoraConfigure.as_str()], |row| {
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
            for (id, status, ends) in [
                ("soon", "ALLOCATED", now + 500),
                ("over", "READY", now - 500),
                ("later", "ALLOCATED", now + 10_000),
                ("going", "PENDING_DELETE", now - 500),
            ] {
                t.execute(
                    "INSERT INTO amphora (id, status, compute_driver, compute_id, lb_network_ip, agent_port, cert_expiration, created_at)
                     VALUES (?1, ?3, 'namespaces', ?1, '127.0.0.1', 1, ?2, 0)",
                    rusqlite::params![id, ends, status],
                )?;
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(renew(&db, 1000).await.unwrap(), 2);
        assert_eq!(renew(&db, 1000).await.unwrap(), 0);
        let work = db.read::<_, db::Error, _>(|t| Ok(queue::due(t, i64::MAX, 10)?)).await.unwrap();
        let mut subjects: Vec<_> = work.iter().map(|work| (work.kind, work.subject.as_str())).collect();
        subjects.sort();
        assert_eq!(subjects, [(Kind::AmphoraConfigure, "over"), (Kind::AmphoraConfigure, "soon")]);
    }
}
