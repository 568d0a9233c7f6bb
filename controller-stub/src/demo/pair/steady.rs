//! A client that asks the VIP at a steady rate whatever becomes of its requests, so that an outage costs it no more than
//! its length. Each request has a connection of its own.
//!
//! What it sees is counted in windows, one for each thing that happens. A request belongs to the window in which it
//! began. An outage is the longest time of a window without a right answer.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{task::JoinSet, time::timeout};

use super::super::{
    exchange::{Ask, Kind, Verdict},
    sender::{Failure, Route},
    worker::Worker,
};
use crate::error::Result;

/// Requests per second.
pub(in crate::demo) const RATE: u32 = 1000;

/// A request without its connection, and then without its answer, for this long is lost. Longer than the first retransmission of a SYN, which is no loss
/// but a delay.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many different reasons for losses a window keeps.
const REASONS: usize = 5;

/// The running client. Dropping it ends it at once.
#[derive(Debug)]
pub(in crate::demo) struct Steady {
    ledger: Ledger,
    worker: Worker,
}

/// What the client saw, for whoever counts and whoever looks.
#[derive(Clone, Debug, Default)]
pub(in crate::demo) struct Ledger(Arc<Mutex<Windows>>);

#[derive(Debug, Default)]
struct Windows {
    number: u64,
    now: Window,
    /// The one before, whose last requests may be under way.
    before: Window,
}

/// What the client saw of one thing that happened.
#[derive(Clone, Debug)]
pub(in crate::demo) struct Window {
    /// Requests that began.
    pub(in crate::demo) asked: u64,
    /// Right answers.
    pub(in crate::demo) answered: u64,
    /// Requests without a right answer.
    pub(in crate::demo) lost: u64,
    /// Why, and how often.
    pub(super) reasons: BTreeMap<String, u64>,
    /// The longest time without a right answer.
    pub(in crate::demo) outage: Duration,
    last: Instant,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            asked: 0,
            answered: 0,
            lost: 0,
            reasons: BTreeMap::new(),
            outage: Duration::ZERO,
            last: Instant::now(),
        }
    }
}

impl Window {
    /// In words.
    pub(in crate::demo) fn told(&self) -> String {
        let ms = self.outage.as_secs_f64() * 1e3;
        format!("outage {ms:.0} ms, {} of {} requests lost", self.lost, self.asked)
    }

    fn under_way(&self) -> u64 {
        self.asked - self.answered - self.lost
    }

    fn look(&mut self, now: Instant) {
        self.outage = self.outage.max(now.saturating_duration_since(self.last));
    }

    fn count(&mut self, result: Result<(), String>) {
        let Err(reason) = result else {
            self.answered += 1;
            return;
        };
        self.lost += 1;
        if self.reasons.len() < REASONS || self.reasons.contains_key(&reason) {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }
}

impl Windows {
    fn asks(&mut self) -> u64 {
        self.now.asked += 1;
        self.number
    }

    /// A request of window `number` has come to its end.
    fn ends(&mut self, number: u64, result: Result<(), String>, at: Instant) {
        if result.is_ok() {
            self.now.look(at);
            self.now.last = at;
        }
        if number == self.number {
            self.now.count(result);
        } else if number + 1 == self.number {
            self.before.count(result);
        }
    }

    fn next(&mut self, at: Instant) {
        self.now.look(at);
        self.number += 1;
        self.before = std::mem::take(&mut self.now);
        self.now.last = at;
    }
}

impl Ledger {
    fn windows(&self) -> MutexGuard<'_, Windows> {
        // Counting does not panic half-way through: what a poisoned lock guards is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present window.
    pub(in crate::demo) fn now(&self) -> Window {
        self.windows().now.clone()
    }

    /// Closes the window; the next one begins.
    pub(in crate::demo) fn next(&self) {
        self.windows().next(Instant::now());
    }

    /// The window that was closed last; `None` while requests of it are under way.
    pub(super) fn closed(&self) -> Option<Window> {
        let windows = self.windows();
        (windows.before.under_way() == 0).then(|| windows.before.clone())
    }
}

impl Steady {
    /// Starts it in the network namespace `netns`. It counts in `ledger`.
    ///
    /// # Errors
    /// No thread can be had.
    pub(in crate::demo) fn start(vip: SocketAddr, netns: &str, ledger: Ledger) -> Result<Self> {
        // In an outage of five seconds 5,000 connections are open. What the limit does not allow is lost, and told.
        let _ = getrlimit(Resource::RLIMIT_NOFILE)
            .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
        *ledger.windows() = Windows::default();
        let own = ledger.clone();
        let worker = Worker::start(Some(netns), move || ask(own, vip))?;
        Ok(Self { ledger, worker })
    }

    /// What it counts.
    pub(in crate::demo) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// True when it ended by itself, which it never should.
    pub(in crate::demo) fn ended(&self) -> bool {
        self.worker.ended()
    }
}

async fn ask(ledger: Ledger, vip: SocketAddr) {
    // Ticks that come late come all at once: the rate stays.
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut requests = JoinSet::new();
    for n in 0.. {
        tick.tick().await;
        let ledger = ledger.clone();
        requests.spawn(async move {
            let number = ledger.windows().asks();
            let result = request(vip, n).await;
            ledger.windows().ends(number, result, Instant::now());
        });
        while requests.try_join_next().is_some() {}
    }
}

async fn request(vip: SocketAddr, n: u64) -> Result<(), String> {
    let late = |what: &str| format!("no {what} within {} s", PATIENCE.as_secs());
    let mut sender = timeout(PATIENCE, Route::from(vip).connect())
        .await
        .map_err(|_| late("connection"))?
        .map_err(|e| format!("connect: {e}"))?;
    let ask = Ask::new(Kind::Page, n, None);
    let answer = timeout(PATIENCE, sender.exchange(&ask, true)).await.map_err(|_| late("answer"))?;
    let (head, body) = answer.map_err(|failure| match failure {
        Failure::Unsent => "the connection was closed before the request".to_owned(),
        Failure::Broken(what) => what,
    })?;
    match ask.judge(head.status(), head.headers(), &body) {
        Verdict::Right { .. } => Ok(()),
        Verdict::Wrong(what) | Verdict::Lost(what) => Err(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_the_longest_time_without_a_right_answer() {
        let mut windows = Windows::default();
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        windows.next(begin);
        let first = windows.asks();
        windows.ends(first, Ok(()), at(10));
        for ms in [20, 60] {
            let number = windows.asks();
            windows.ends(number, Err("reset".to_owned()), at(ms));
        }
        let late = windows.asks();
        let last = windows.asks();
        windows.ends(last, Ok(()), at(100));
        assert_eq!(windows.now.told(), "outage 90 ms, 2 of 5 requests lost");
        assert_eq!(windows.now.reasons["reset"], 2);

        windows.next(at(300));
        assert_eq!(windows.before.under_way(), 1);
        // It belongs to the window in which it began, and ends the outage of the one in which it comes.
        windows.ends(late, Ok(()), at(310));
        assert_eq!(windows.before.told(), "outage 200 ms, 2 of 5 requests lost");
        assert_eq!((windows.now.outage, windows.now.answered), (Duration::from_millis(10), 0));
        assert_eq!(windows.before.under_way(), 0);
    }

    #[test]
    fn few_reasons_are_kept_and_all_are_counted() {
        let mut window = Window::default();
        (0..100).for_each(|n| window.count(Err(format!("reason {n}"))));
        window.count(Err("reason 0".to_owned()));
        assert_eq!((window.lost, window.reasons.len()), (101, REASONS));
        assert_eq!(window.reasons["reason 0"], 2);
    }
}
