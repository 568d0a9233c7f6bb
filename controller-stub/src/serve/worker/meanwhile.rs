//! Machines may take minutes to boot: what is done for a load balancer meanwhile.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{Outside, Store, rows, task::Context};
use crate::serve::{queue, status::AmphoraStatus};

/// How often is looked whether somebody still wants what is waited for.
const LOOK: Duration = Duration::from_secs(1);

impl<S: Store, O: Outside> Context<S, O> {
    /// Waits until a load balancer is about to go.
    pub(super) async fn unwanted(&self, id: &str) {
        loop {
            sleep(LOOK).await;
            let subject = id.to_owned();
            let found = self.store.read(move |t| rows::load_balancer(t, &subject)).await;
            if found.is_ok_and(|found| found.is_none_or(|lb| lb.going)) {
                return;
            }
        }
    }

    /// Waits until something may be done for a load balancer that is not of its agents alone.
    pub(super) async fn more_is_due(&self, id: &str) {
        let mut changes = self.store.changes();
        loop {
            changes.borrow_and_update();
            let (subject, now) = (id.to_owned(), self.store.now());
            if self.store.read(move |t| rows::is_more_due(t, &subject, now)).await.is_ok_and(|more| more) {
                return;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
                // What has failed may be due by now.
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Waits until a load balancer is not of this generation any more.
    pub(super) async fn changed_since(&self, id: &str, generation: i64) {
        let mut changes = self.store.changes();
        loop {
            changes.borrow_and_update();
            let subject = id.to_owned();
            let found = self.store.read(move |t| rows::load_balancer(t, &subject)).await;
            if found.is_ok_and(|found| found.is_none_or(|lb| lb.generation != generation)) {
                return;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Tells those that serve what changes, also those that are to be replaced, for ever. What fails is tried again, and keeps nobody: one that is to
    /// be replaced need not answer. May be cancelled.
    pub(super) async fn keep_up(self: &Arc<Self>, id: &str) {
        let mut changes = self.store.changes();
        let (mut attempts, mut again) = (0_u32, Instant::now());
        loop {
            changes.borrow_and_update();
            let subject = id.to_owned();
            let found = self.store.read(move |t| rows::load_balancer(t, &subject)).await;
            if let Ok(Some(lb)) = found
                && again <= Instant::now()
            {
                let lags = |one: &&rows::Amphora| {
                    one.status == AmphoraStatus::Allocated
                        && one.role.is_some()
                        && one.applied < lb.generation
                };
                let lagging: Vec<String> =
                    lb.amphorae.iter().filter(lags).map(|one| one.id.clone()).collect();
                let told = if lagging.is_empty() { Ok(()) } else { self.apply(&lb, &lagging).await };
                attempts = match told {
                    Ok(()) => 0,
                    Err(error) => {
                        tracing::warn!(load_balancer = id, %error, "what serves is not told yet of a change");
                        attempts.saturating_add(1)
                    }
                };
                let pause = if attempts == 0 { 0 } else { queue::pause(attempts, 0.0) };
                again = Instant::now() + Duration::from_millis(pause.unsigned_abs());
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
                () = sleep_until(again), if attempts > 0 && again > Instant::now() => {}
            }
        }
    }
}
