//! Who waits for turns of rate limits.

use std::{
    future::poll_fn,
    task::{Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::Worker;
use crate::{conn::Deadline, limits::rate::Queued};

impl Worker {
    /// Waits until all turns of one who waits have come.
    pub(crate) async fn turns(&self, queued: &Queued) {
        let mut deadline = Deadline::never();
        for turn in queued.turns() {
            poll_fn(|cx| {
                while let Some(next) = turn.look(self.moment(Instant::now()), cx.waker()) {
                    // A moment is finer than what the clock tells.
                    deadline.set(Some(self.epoch() + next.span() + Duration::from_nanos(1)));
                    ready!(deadline.poll_expired(cx));
                }
                Poll::Ready(())
            })
            .await;
        }
    }
}
