//! `GET /v2/lbaas/events`: what changes, as it does (server-sent events).
//!
//! The database's own triggers write events. One task reads those that are new, for all streams; a stream that is behind reads
//! for itself. A stream keeps nothing but where it is: what a slow client has not read stays in the database, and the server closes
//! its connection.

mod window;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use hyper::HeaderMap;
use rusqlite::{Connection, params};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use self::window::{Event, Filter, Start, Window};
use super::{fault::Fault, identity::Leave, request::Query, resources, seconds, socket::Peer};
use crate::serve::{
    db::{self, Db},
    policies::{Context, Rule},
};

/// Streams at a time.
const MAX_STREAMS: usize = 256;

/// Streams at a time for one project; who sees all of them counts as one.
const MAX_OF_PROJECT: usize = 64;

/// A comment goes out when there was nothing for so long, so that whoever is between does not think that nobody is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A stream ends after so long, or with the token that it was asked for with; its client asks for the next one with a good one.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Events that are read at a time.
const PAGE: usize = 256;

/// Changes that come so soon after another are told together.
const TOGETHER: Duration = Duration::from_millis(10);

/// What streams have in common.
#[derive(Debug)]
pub(super) struct Events {
    db: Db,
    window: watch::Sender<Arc<Window>>,
    /// How many streams there are of each project; that of `None` sees all.
    streams: Arc<Mutex<HashMap<Option<String>, usize>>>,
    /// A stream has begun.
    begun: Notify,
}

/// A stream that has begun, and frees its place when it is dropped.
#[derive(Debug)]
pub(super) struct Stream {
    db: Db,
    window: watch::Receiver<Arc<Window>>,
    filter: Filter,
    start: Option<Start>,
    behind: i64,
    ends: Instant,
    leave: Option<Leave>,
    _place: Place,
}

#[derive(Debug)]
struct Place {
    project: Option<String>,
    streams: Arc<Mutex<HashMap<Option<String>, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = streams.get_mut(&self.project) {
            *count -= 1;
            if *count == 0 {
                streams.remove(&self.project);
            }
        }
    }
}

impl Events {
    /// Of a database.
    pub(super) fn new(db: Db) -> Self {
        Self { db, window: watch::channel(Arc::default()).0, streams: Arc::default(), begun: Notify::new() }
    }

    /// How many streams there are.
    pub(super) fn streams(&self) -> usize {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// Begins a stream of what somebody may see.
    pub(super) async fn open(
        &self,
        (context, leave): (&Context, Option<Leave>),
        headers: &HeaderMap,
        query: &Query,
    ) -> Result<Stream, Fault> {
        query.only(&["project_id", "loadbalancer_id", "last_event_id"])?;
        let project = resources::visible(context, query.get("project_id"), Rule::ReadGlobal, Rule::Read)?;
        let filter = Filter {
            project: project.map(str::to_owned),
            load_balancer: query.get("loadbalancer_id").map(str::to_owned),
            amphorae: context.may(Rule::Admin, None),
        };
        // A browser that comes again repeats the address that it was given first.
        let header = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
        let asked = header.filter(|id| !id.is_empty()).or_else(|| query.get("last_event_id"));
        let asked = asked.map(|id| {
            let number = id.trim().parse::<i64>().ok().filter(|number| *number >= 0);
            number.ok_or_else(|| Fault::input("last_event_id", id, "It must be the id of an event."))
        });
        let asked = asked.transpose()?;
        let place = self.place(filter.project.clone())?;
        let start = self
            .db
            .read::<_, db::Error, _>(move |t| {
                let oldest =
                    t.prepare_cached("SELECT min(id) FROM event")?.query_row([], |row| row.get(0))?;
                Ok(Start::of(asked, oldest, newest(t)?))
            })
            .await?;
        self.begun.notify_one();
        Ok(Stream {
            db: self.db.clone(),
            window: self.window.subscribe(),
            filter,
            behind: start.behind,
            start: Some(start),
            ends: Instant::now() + LIFETIME,
            leave,
            _place: place,
        })
    }

    fn place(&self, project: Option<String>) -> Result<Place, Fault> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let own = streams.get(&project).copied().unwrap_or_default();
        if own >= MAX_OF_PROJECT || streams.values().sum::<usize>() >= MAX_STREAMS {
            return Err(Fault::new(503, "Too many streams of events are open. Please try again."));
        }
        *streams.entry(project.clone()).or_default() += 1;
        Ok(Place { project, streams: self.streams.clone() })
    }

    /// Reads what is new for all streams, while there are any, until it is dropped.
    pub(super) async fn follow(&self) {
        let mut changes = self.db.changes();
        loop {
            tokio::select! {
                Ok(()) = changes.changed() => {}
                () = self.begun.notified() => {}
                // Another process may have written.
                () = sleep(KEEP_ALIVE) => {}
            }
            if self.streams() == 0 {
                continue;
            }
            let window = self.window.borrow().clone();
            match self.db.read::<_, db::Error, _>(move |t| newer(t, &window)).await {
                Ok(Some(window)) => _ = self.window.send_replace(Arc::new(window)),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "events cannot be read"),
            }
            sleep(TOGETHER).await;
        }
    }
}

impl Stream {
    /// The body of the answer: ends when the client has gone, or `stop` becomes true.
    pub(super) fn body(
        self,
        peer: Peer,
        stop: watch::Receiver<bool>,
    ) -> impl stream::Stream<Item = Bytes> + Send {
        stream::unfold((self, peer, stop), |(mut this, peer, mut stop)| async move {
            let text = tokio::select! {
                text = this.next() => text.filter(|_| this.leave.as_ref().is_none_or(|leave| leave.is_good(seconds())))?,
                _ = stop.wait_for(|stop| *stop) => return None,
                () = peer.gone() => return None,
            };
            Some((Bytes::from(text), (this, peer, stop)))
        })
    }

    /// What is sent next; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        if let Some(start) = self.start.take() {
            return Some(start.text());
        }
        let quiet_until = Instant::now() + KEEP_ALIVE;
        loop {
            let window = self.window.borrow_and_update().clone();
            let mut text = String::new();
            if let Some(events) = window.behind(self.behind) {
                events
                    .filter(|event| self.filter.admits(event))
                    .for_each(|event| text.push_str(&event.text()));
                self.behind = self.behind.max(window.to());
            } else {
                let (filter, behind) = (self.filter.clone(), self.behind);
                let read = self.db.read::<_, db::Error, _>(move |t| page(t, &filter, behind)).await;
                let (events, to) =
                    read.inspect_err(|error| tracing::warn!(%error, "a stream of events ends")).ok()?;
                events.iter().for_each(|event| text.push_str(&event.text()));
                self.behind = to;
                if text.is_empty() && to > behind {
                    continue;
                }
            }
            if !text.is_empty() {
                return Some(text);
            }
            tokio::select! {
                changed = timeout_at(quiet_until, self.window.changed()) => match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return None,
                    Err(_) => return Some(":\n\n".to_owned()),
                },
                () = sleep_until(self.ends) => return None,
            }
        }
    }
}

/// The last id that there ever was.
fn newest(connection: &Connection) -> rusqlite::Result<i64> {
    let text = "SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0)";
    connection.prepare_cached(text)?.query_row([], |row| row.get(0))
}

/// The last event: who knows the rows of this transaction knows what events up to it have told.
pub(super) fn last_id(connection: &Connection) -> Result<i64, Fault> {
    Ok(newest(connection)?)
}

/// A window with what is new; `None` when nothing is.
fn newer(connection: &Connection, window: &Window) -> Result<Option<Window>, db::Error> {
    let newest = newest(connection)?;
    if newest == window.to() {
        return Ok(None);
    }
    // While nobody has looked, or of another database: older ones are read by who wants them.
    let many = i64::try_from(PAGE).unwrap_or(i64::MAX);
    let behind = if newest < window.to() { newest } else { window.to().max(newest - many) };
    let mut newer = if behind == window.to() { window.clone() } else { Window::at(behind) };
    let mut query = connection.prepare_cached("SELECT * FROM event WHERE id > ?1 ORDER BY id")?;
    for event in query.query_map([behind], of_row)? {
        newer.push(event?);
    }
    Ok(Some(newer))
}

/// Some events behind an id, and how far they go.
fn page(connection: &Connection, filter: &Filter, behind: i64) -> Result<(Vec<Event>, i64), db::Error> {
    let mut query = connection.prepare_cached(
        "SELECT * FROM event WHERE id > ?1 AND (?2 IS NULL OR project_id = ?2)
         AND (?3 IS NULL OR load_balancer_id = ?3) AND (?4 OR object_type <> 'amphora') ORDER BY id LIMIT ?5",
    )?;
    let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
    let rows = query
        .query_map(params![behind, filter.project, filter.load_balancer, filter.amphorae, limit], of_row)?;
    let events = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let to = match events.last() {
        Some(last) if events.len() == PAGE => last.id,
        _ => newest(connection)?.max(behind),
    };
    Ok((events, to))
}

fn of_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        id: row.get("id")?,
        at: row.get("at")?,
        project: row.get("project_id")?,
        load_balancer: row.get("load_balancer_id")?,
        kind: row.get("object_type")?,
        object: row.get("object_id")?,
        attribute: row.get("attribute")?,
        old: row.get("old")?,
        new: row.get("new")?,
        reason: row.get("reason")?,
    })
}
