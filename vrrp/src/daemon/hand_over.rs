//! A planned hand-over under way. The data plane lets nobody in and everybody go; when nobody is left, or it took too long,
//! the virtual routers hand over; whoever connects meanwhile is sent on to the successor.

use std::{net::IpAddr, time::Duration};

use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn_local},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::fitness::Drainer;
use crate::net::{DeferredSyns, handshakes};

/// Between two looks whether anybody is left.
const LOOK: Duration = Duration::from_millis(3);
/// So many times in a row nobody must be left: a client between two looks has been let in and is not known yet.
const QUIET_LOOKS: u32 = 2;
/// How long clients that connect are sent on after the hand-over: what neighbours need to learn where the VIP is.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// What a hand-over has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The virtual routers may hand over.
    Drained,
    /// It may be over by now.
    Over,
}

/// One that goes on until it is dropped, which lets clients in again.
#[derive(Debug)]
pub(super) struct HandOver {
    drained: Option<oneshot::Receiver<()>>,
    over: Instant,
    drainer: Drainer,
    tasks: Vec<JoinHandle<()>>,
}

impl HandOver {
    /// Begins. To be called within a `LocalSet`.
    pub(super) fn start(
        drainer: Drainer,
        vips: Vec<IpAddr>,
        deferred: Vec<DeferredSyns>,
        limit: Duration,
    ) -> Self {
        let (done, drained) = oneshot::channel();
        let mut tasks: Vec<_> = deferred
            .into_iter()
            .map(|deferred| {
                spawn_local(async move {
                    let error = deferred.run().await;
                    tracing::warn!(%error, "who connects while the VIP moves has to ask again");
                })
            })
            .collect();
        let draining = drainer.clone();
        tasks.push(spawn_local(async move {
            let begun = Instant::now();
            let looked =
                quiet(limit, async || Some(draining.is_quiet().await? && no_handshakes(&vips))).await;
            tracing::info!(drained = looked, took = ?begun.elapsed(), "handing over");
            let _ = done.send(());
        }));
        Self { drained: Some(drained), over: Instant::now(), drainer, tasks }
    }

    /// Whether clients are still served.
    pub(super) fn is_draining(&self) -> bool {
        self.drained.is_some()
    }

    /// What comes next. Dropping it loses nothing.
    pub(super) async fn next(&mut self) -> Stage {
        if let Some(drained) = &mut self.drained {
            // It ends in no other way.
            let _ = drained.await;
            self.drained = None;
            self.over = Instant::now() + AFTERWARDS;
            return Stage::Drained;
        }
        sleep_until(self.over).await;
        self.over = Instant::now() + AFTERWARDS;
        Stage::Over
    }
}

impl Drop for HandOver {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.drainer.resume();
    }
}

/// Looks until nobody is left: true; false when it took too long, or nobody can tell.
async fn quiet(limit: Duration, mut look: impl AsyncFnMut() -> Option<bool>) -> bool {
    let until = Instant::now() + limit;
    let mut looks = 0;
    while looks < QUIET_LOOKS {
        match timeout_at(until, look()).await {
            Ok(Some(true)) => looks += 1,
            Ok(Some(false)) => looks = 0,
            Ok(None) | Err(_) => return false,
        }
        if Instant::now() >= until {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}

fn no_handshakes(vips: &[IpAddr]) -> bool {
    handshakes(vips).unwrap_or_else(|error| {
        tracing::debug!(%error, "handshakes under way are not known");
        0
    }) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks that find this, one after the other, and the last for ever; and when it was over.
    async fn looks(found: &[Option<bool>]) -> (bool, Duration) {
        let begun = Instant::now();
        let mut found = found.iter().copied();
        let mut last = None;
        let limit = Duration::from_millis(100);
        let quiet = quiet(limit, async || {
            last = found.next().or(last);
            last.flatten()
        });
        (quiet.await, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_left_twice_in_a_row_is_quiet() {
        let (busy, quiet) = (Some(false), Some(true));
        assert_eq!(looks(&[quiet]).await, (true, 2 * LOOK));
        assert_eq!(looks(&[busy, quiet, busy, quiet]).await, (true, 5 * LOOK));
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_not_wait_for_ever_nor_for_who_does_not_know() {
        let (quiet, took) = looks(&[Some(false)]).await;
        assert!(
            !quiet && took >= Duration::from_millis(100) && took < Duration::from_millis(110),
            "{took:?}"
        );
        assert_eq!(looks(&[Some(false), None]).await, (false, LOOK));
        let begun = Instant::now();
        let never = async || std::future::pending().await;
        assert!(!super::quiet(Duration::from_millis(100), never).await);
        assert_eq!(begun.elapsed(), Duration::from_millis(100));
    }
}
