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
    sync::{
        Mutex, Semaphore,
        oneshot::{self, error::TryRecvError},
    },
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
    replay::{self, Believed, Place},
};

/// The largest datagram.
const MAX_PACKET: usize = 65_536;

/// How many heartbeats are taken in at a time; more wait in the socket.
const PARALLEL: usize = 64;

/// What is told of heartbeats that are not believed, at most this often.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// Takes heartbeats in from `sockets` and asks for the replacement of amphorae that are silent for the `timeout`, until it is dropped.
pub async fn run(
    sockets: Vec<UdpSocket>,
    key: String,
    watch: Watch,
    (check_interval, timeout): (Duration, Duration),
    db: Db,
    traffic: Arc<Traffic>,
) {
    let watch = Arc::new(Mutex::new(watch));
    let on_the_way = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
    let intake = Intake { db: db.clone(), on_the_way };
    // What was believed by one way is not believed again by another.
    let order = Mutex::new(Order::default());
    let received = sockets.iter().map(|socket| receive(socket, &key, &order, &watch, &intake, &traffic));
    tokio::join!(join_all(received), check(check_interval, &watch, &db));
}

/// Which heartbeats are believed, and in which order those of one amphora are taken in.
#[derive(Default)]
struct Order {
    believed: Believed,
    /// What ends with the last one that was taken in of each amphora, while that is under way.
    last: HashMap<String, oneshot::Receiver<()>>,
}

/// The turn of one heartbeat: the next one of its amphora waits for its end.
struct Turn {
    before: Option<oneshot::Receiver<()>>,
    _ends: oneshot::Sender<()>,
}

impl Order {
    /// The turn after all that were taken in of an amphora before.
    fn turn(&mut self, amphora: &str) -> Turn {
        if self.last.len() > 2 * PARALLEL {
            self.last.retain(|_, one| one.try_recv() == Err(TryRecvError::Empty));
        }
        let (ends, end) = oneshot::channel();
        Turn { before: self.last.insert(amphora.to_owned(), end), _ends: ends }
    }
}

impl Turn {
    async fn comes(&mut self) {
        if let Some(before) = self.before.take() {
            // It says nothing, and ends.
            let _ = before.await;
        }
    }
}

async fn receive(
    socket: &UdpSocket,
    key: &str,
    order: &Mutex<Order>,
    watch: &Arc<Mutex<Watch>>,
    intake: &Intake,
    traffic: &Traffic,
) {
    let mut packet = vec![0; MAX_PACKET];
    let mut complained = HashMap::<String, Instant>::new();
    let places = Arc::new(Semaphore::new(PARALLEL));
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
        let mut order = order.lock().await;
        let opened = opened.and_then(|message| {
            let judged = order.believed.judge(&message.id, message.seq, replay::tag(packet), now);
            let place = judged.map_err(|reason| reason.to_string())?;
            let turn = order.turn(&message.id);
            Ok((message, place, turn))
        });
        drop(order);
        match opened {
            Ok((message, place, mut turn)) => {
                metrics().heartbeats.inc();
                let is_idle = message.listeners.is_empty();
                let has_lost =
                    is_idle && watch.lock().await.has_served(&message.id, message.document.as_ref());
                if !is_idle {
                    watch.lock().await.serves(&message.id, message.document.as_ref());
                    heard(watch, &message.id, now).await;
                }
                traffic.heard(&message, now);
                let Ok(permit) = places.clone().acquire_owned().await else { return };
                let (intake, watch) = (intake.clone(), Arc::clone(watch));
                tokio::spawn(async move {
                    turn.comes().await;
                    // One that serves nothing of what it is to serve is as good as silent.
                    if is_idle && !has_lost && !intake.serves_nothing(&message).await {
                        heard(&watch, &message.id, now).await;
                    }
                    if let Err(error) = intake.take_in(message, place).await {
                        tracing::warn!(%error, "a heartbeat is not in the database");
                    }
                    drop(permit);
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

async fn heard(watch: &Mutex<Watch>, amphora: &str, at: Instant) {
    if watch.lock().await.heard(amphora, at) {
        metrics().heartbeats_late.inc();
    }
}

/// What heartbeats are taken into.
#[derive(Clone)]
struct Intake {
    db: Db,
    /// See [`update::Moment`].
    on_the_way: i64,
}

impl Intake {
    fn moment(&self) -> update::Moment {
        update::Moment { now: now(), on_the_way: self.on_the_way }
    }

    /// Whether an amphora says that none of its listeners is there, which should be. What cannot be found out is no reason to think so.
    async fn serves_nothing(&self, message: &heartbeat::Message) -> bool {
        let (message, moment) = (message.clone(), self.moment());
        let read = self.db.read(move |connection| update::serves_nothing(connection, &message, moment));
        read.await.unwrap_or(false)
    }

    /// Most heartbeats say nothing new: those are read, and not written.
    async fn take_in(&self, message: heartbeat::Message, place: Place) -> Result<(), db::Error> {
        let moment = self.moment();
        let (amphora, changes) = self
            .db
            .read::<_, db::Error, _>(move |connection| {
                let mut changes = update::compare(connection, &message, moment)?;
                if place == Place::Overtaken {
                    changes.forget_statuses();
                }
                Ok((message.id, changes))
            })
            .await?;
        if changes.is_empty() {
            return Ok(());
        }
        self.db.write(move |connection| update::apply(connection, &amphora, &changes)).await
    }
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn heartbeats_of_one_amphora_are_taken_in_as_they_came() {
        let mut order = Order::default();
        let [mut first, mut other, mut second, mut third] = ["a", "b", "a", "a"].map(|one| order.turn(one));
        let comes = |turn: &mut Turn| turn.comes().now_or_never().is_some();
        assert!(comes(&mut first) && comes(&mut other));
        // Nothing of it is lost by looking.
        let mut waits = Box::pin(second.comes());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(first);
        assert!(waits.as_mut().now_or_never().is_some());
        drop(waits);
        let mut waits = Box::pin(third.comes());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(second);
        assert!(waits.as_mut().now_or_never().is_some());
        for one in 0..10 * PARALLEL {
            drop(order.turn(&one.to_string()));
        }
        assert!(order.last.len() <= 2 * PARALLEL + 1);
        assert!(order.turn("b").before.is_some(), "it has not ended");
        drop(other);
    }
}
