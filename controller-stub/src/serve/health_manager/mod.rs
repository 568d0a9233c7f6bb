//! Heartbeats in, failover out.
//!
//! | file | what |
//! | --- | --- |
//! | [`traffic`] | the traffic of the last minutes |
//! | [`watch`] | which amphorae are silent |
//! | [`update`] | what heartbeats say, into the rows |

pub mod traffic;
pub mod update;
pub mod watch;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use amphora_agent::heartbeat;
use futures_util::future::join_all;
use tokio::{
    net::UdpSocket,
    sync::{Mutex, Semaphore},
    time::{MissedTickBehavior, interval},
};

use self::{
    traffic::Traffic,
    watch::{Verdict, Watch},
};
use super::{
    db::{self, Db},
    metrics::metrics,
    worker::rows,
};
use crate::{
    error::{Error, Result},
    replay::{self, Believed},
};

/// The largest datagram.
const MAX_PACKET: usize = 65_536;

/// How many heartbeats are taken in at a time; more wait in the socket.
const PARALLEL: usize = 64;

/// What is told of heartbeats that are not believed, at most this often.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// Takes heartbeats in from `sockets` and asks for the replacement of amphorae that are silent, until it is dropped.
pub async fn run(
    sockets: Vec<UdpSocket>,
    key: String,
    watch: Watch,
    check_interval: Duration,
    db: Db,
    traffic: Arc<Traffic>,
) {
    let watch = Mutex::new(watch);
    // What was believed by one way is not believed again by another.
    let believed = Mutex::new(Believed::default());
    let received = sockets.iter().map(|socket| receive(socket, &key, &believed, &watch, &db, &traffic));
    tokio::join!(join_all(received), check(check_interval, &watch, &db));
}

async fn receive(
    socket: &UdpSocket,
    key: &str,
    believed: &Mutex<Believed>,
    watch: &Mutex<Watch>,
    db: &Db,
    traffic: &Traffic,
) {
    let mut packet = vec![0; MAX_PACKET];
    let mut complained = HashMap::<String, Instant>::new();
    let turns = Arc::new(Semaphore::new(PARALLEL));
    loop {
        let (length, from) = match socket.recv_from(&mut packet).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "heartbeats");
                continue;
            }
        };
        let packet = &packet[..length];
        let now = tokio::time::Instant::now().into_std();
        let opened = heartbeat::open(packet, key).map_err(|reason| reason.to_string());
        let mut believed = believed.lock().await;
        let opened = opened.and_then(|message| {
            let judged = believed.judge(&message.id, message.seq, replay::tag(packet), now);
            judged.map(|()| message).map_err(|reason| reason.to_string())
        });
        drop(believed);
        match opened {
            Ok(message) => {
                metrics().heartbeats.inc();
                if watch.lock().await.heard(&message.id, now) {
                    metrics().heartbeats_late.inc();
                }
                traffic.heard(&message, now);
                let Ok(turn) = turns.clone().acquire_owned().await else { return };
                let db = db.clone();
                tokio::spawn(async move {
                    if let Err(error) = take_in(&db, message).await {
                        tracing::warn!(%error, "a heartbeat is not in the database");
                    }
                    drop(turn);
                });
            }
            Err(reason) => {
                metrics().heartbeats_refused.inc();
                // Reasons are few: only one who has the key could think of others.
                let told =
                    complained.get(&reason).is_some_and(|at| now.saturating_duration_since(*at) < COMPLAINTS);
                if !told {
                    tracing::warn!(%from, reason, "a heartbeat is not believed");
                    complained.retain(|_, at| now.saturating_duration_since(*at) < COMPLAINTS);
                    complained.insert(reason, now);
                }
            }
        }
    }
}

/// Most heartbeats say nothing new: those are read, and not written.
async fn take_in(db: &Db, message: heartbeat::Message) -> Result<(), db::Error> {
    let (message, changes) = db
        .read::<_, db::Error, _>(move |connection| {
            let changes = update::compare(connection, &message)?;
            Ok((message, changes))
        })
        .await?;
    if changes.is_empty() {
        return Ok(());
    }
    db.write(move |connection| update::apply(connection, &message.id, &changes)).await
}

async fn check(every: Duration, watch: &Mutex<Watch>, db: &Db) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut too_many = false;
    loop {
        ticks.tick().await;
        let allocated = db
            .read::<_, db::Error, _>(|connection| {
                let mut query = connection.prepare_cached(
                    "SELECT id FROM amphora WHERE status = 'READY' OR (status = 'ALLOCATED' AND load_balancer_id IS NOT NULL)",
                )?;
                let ids =
                    query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
                Ok(ids)
            })
            .await;
        let allocated = match allocated {
            Ok(allocated) => allocated,
            Err(error) => {
                tracing::warn!(%error, "which amphorae there are is not known");
                continue;
            }
        };
        let now = tokio::time::Instant::now().into_std();
        let verdict = watch.lock().await.check(allocated.iter().map(String::as_str), now);
        match verdict {
            Verdict::TooMany(count) => {
                if !too_many {
                    tracing::error!(
                        count,
                        "so many amphorae are silent that none is replaced (failover_threshold)"
                    );
                }
                too_many = true;
            }
            Verdict::Stale(stale) => {
                too_many = false;
                if stale.is_empty() {
                    continue;
                }
                if let Err(error) = replace(db, stale).await {
                    tracing::warn!(%error, "the replacement of silent amphorae is not asked for");
                }
            }
        }
    }
}

/// Has amphorae replaced that are not heard. What they do nobody knows, so they are stopped before there is a replacement that could have their
/// addresses.
///
/// # Errors
/// The database's.
pub async fn replace(db: &Db, amphorae: Vec<String>) -> Result<()> {
    let now = now();
    db.write::<_, Error, _>(move |connection| {
        for amphora in amphorae {
            if rows::silent(connection, &amphora, now)? {
                tracing::warn!(amphora, "silent for longer than heartbeat_timeout: it is replaced");
                metrics().silent.inc();
            }
        }
        Ok(())
    })
    .await
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
