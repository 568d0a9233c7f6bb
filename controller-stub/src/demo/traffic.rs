//! The clients of the demo: keep-alive connections that ask, and check every answer.
//!
//! They run in a thread of their own, which lives in the clients' network namespace where there is one. Of every
//! six clients two keep the persistence cookie as a browser does, one opens a connection per request, and three
//! just ask. Where there is an HTTPS listener, two of six go there, of twelve five: with HTTP/2 and with HTTP/1.1, of
//! each kind some.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use hyper::header;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    exchange::{Ask, Kind, Session, Verdict, session},
    sender::{Failure, PATIENCE, Route, Sender},
    tally::Tally,
    worker::Worker,
};
use crate::error::Result;

/// The running clients. Dropping it ends them at once.
#[derive(Debug)]
pub(super) struct Traffic {
    shared: Arc<Shared>,
    worker: Worker,
}

/// The counts, for whoever counts and whoever looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts(Arc<Mutex<Tally>>);

impl Counts {
    /// What was counted so far.
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        // Counting does not panic half-way through: what a poisoned lock guards is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where clients go.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    /// Without TLS.
    pub(super) plain: Route,
    /// With TLS: HTTP/2, and HTTP/1.1.
    pub(super) http2: Route,
    /// See [`http2`](Self::http2).
    pub(super) https: Route,
}

impl Routes {
    /// The way of a client, by its number.
    fn of(&self, number: u32) -> &Route {
        match number % 12 {
            2 | 8 | 10 => &self.http2,
            3 | 11 => &self.https,
            _ => &self.plain,
        }
    }
}

#[derive(Debug)]
struct Shared {
    routes: Routes,
    counts: Counts,
    phase: AtomicU32,
    uploads: AtomicBool,
    finishing: AtomicBool,
}

impl Traffic {
    /// Starts `clients` clients that together send `rate` requests a second, in network namespace `netns`, and count
    /// in `counts`.
    ///
    /// # Errors
    /// [`Error::Local`]: no thread can be had.
    pub(super) fn start(
        routes: Routes,
        netns: Option<&str>,
        clients: u32,
        rate: u32,
        counts: Counts,
    ) -> Result<Self> {
        // What former clients counted is in no phase of these.
        counts.tally().settle(u32::MAX);
        let shared = Arc::new(Shared {
            routes,
            counts,
            phase: AtomicU32::new(1),
            uploads: AtomicBool::new(true),
            finishing: AtomicBool::new(false),
        });
        let own = shared.clone();
        let pause = Duration::from_secs(1) * clients / rate.max(1);
        let worker = Worker::start(netns, move || async move {
            let mut all = JoinSet::new();
            (0..clients).for_each(|n| drop(all.spawn(client(own.clone(), n, pause))));
            all.join_all().await;
        })?;
        Ok(Self { shared, worker })
    }

    /// The number of the present phase.
    pub(super) fn phase(&self) -> u32 {
        self.shared.phase.load(Ordering::SeqCst)
    }

    /// Requests that begin from now on are counted in a new phase, whose number is returned.
    pub(super) fn next_phase(&self) -> u32 {
        let phase = self.shared.phase.fetch_add(1, Ordering::SeqCst) + 1;
        self.shared.counts.tally().settle(phase.saturating_sub(1));
        phase
    }

    /// Whether the clients send requests that must not be sent twice (POST with a body).
    pub(super) fn set_uploads(&self, on: bool) {
        self.shared.uploads.store(on, Ordering::SeqCst);
    }

    /// Lets every client finish the request that it is at, and ends.
    ///
    /// # Errors
    /// What kept the clients from running at all.
    pub(super) async fn finish(&mut self) -> Result<()> {
        self.shared.finishing.store(true, Ordering::SeqCst);
        self.worker.finish().await
    }

    /// True when the clients ended before they were asked to, which they never should.
    pub(super) fn ended(&self) -> bool {
        self.worker.ended()
    }
}

/// One client.
async fn client(shared: Arc<Shared>, number: u32, pause: Duration) {
    let keeps_cookie = number % 3 == 1;
    let one_shot = number % 6 == 5;
    let route = shared.routes.of(number);
    let mut connection: Option<Sender> = None;
    let mut cookie: Option<Session> = None;
    // Clients start apart from each other, in time and in what they ask for.
    let mut next = Instant::now() + pause * number / 12;
    let mut n = u64::from(number) * 1_000_003;
    while !shared.finishing.load(Ordering::SeqCst) {
        sleep_until(next).await;
        next = (next + pause).max(Instant::now());
        n += 1;
        let kind = match Kind::MIX[(n % Kind::MIX.len() as u64) as usize] {
            Kind::Upload if !shared.uploads.load(Ordering::SeqCst) => Kind::Page,
            kind => kind,
        };
        let phase = shared.phase.load(Ordering::SeqCst);
        let mut sender = match connection.take() {
            Some(sender) => sender,
            None => match route.connect().await {
                Ok(sender) => sender,
                Err(e) => {
                    let lost = Verdict::Lost(format!("connect: {e}"));
                    shared.counts.tally().count(phase, kind, lost, Duration::ZERO);
                    continue;
                }
            },
        };
        if !sender.ready().await {
            shared.counts.tally().count_closed(phase);
            continue;
        }
        let begin = Instant::now();
        let ask = Ask::new(kind, n, cookie.clone());
        let verdict = match timeout(PATIENCE, sender.exchange(&ask, one_shot)).await {
            Err(_) => Verdict::Lost(format!("no answer within {} s", PATIENCE.as_secs())),
            // The connection ended before the request was written: nothing was lost, but it was not announced either.
            Ok(Err(Failure::Unsent)) => {
                shared.counts.tally().count_closed(phase);
                continue;
            }
            Ok(Err(Failure::Broken(what))) => Verdict::Lost(what),
            Ok(Ok((head, body))) => {
                if keeps_cookie && let Some(new) = session(head.headers()) {
                    cookie = Some(new);
                }
                let closes = head
                    .headers()
                    .get(header::CONNECTION)
                    .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"close"));
                connection = (!closes && !one_shot).then_some(sender);
                ask.judge(head.status(), head.headers(), &body)
            }
        };
        shared.counts.tally().count(phase, kind, verdict, begin.elapsed());
    }
}
