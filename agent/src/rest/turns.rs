//! Changes come one after another; who is next, and for how long one waits.
//!
//! Of those who wait it is the one of the smallest crowd, whatever the order in which they came: so that another
//! controller's change comes right after the one that is being made, however many somebody else has asked for.

#![expect(
    clippy::disallowed_types,
    reason = "held to queue or to take one, never while something is awaited"
)]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use amphora_ipc::places::Busy;
use hyper::StatusCode;
use tokio::{sync::oneshot, time::timeout};

use super::{
    error::ApiError,
    server::{Caller, Mark},
};

/// How long a change may wait for those before it.
const PATIENCE: Duration = Duration::from_secs(4);

/// Changes of one kind.
#[derive(Debug, Default)]
pub(super) struct Turns {
    shared: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// A change is being made.
    taken: bool,
    /// In the order in which they came.
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    marks: Arc<[Mark]>,
    turn: oneshot::Sender<Turn>,
}

/// The change is one's own until this is dropped.
#[derive(Debug)]
struct Turn {
    shared: Arc<Mutex<Queue>>,
}

impl Turns {
    /// Makes a change when it is this caller's turn. Cancelled before it is, nothing happens; from then on it goes on to its
    /// end.
    ///
    /// # Errors
    /// That of the change; [`Busy`] when the turn does not come.
    pub(super) async fn run<T, E>(
        &self,
        caller: &Caller,
        change: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        E: Into<ApiError> + Send + 'static,
    {
        let turn = self.wait(caller.marks()).await?;
        let change = tokio::spawn(async move {
            let _turn = turn;
            change.await
        });
        let internal = |error: tokio::task::JoinError| {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string())
        };
        change.await.map_err(internal)?.map_err(Into::into)
    }

    async fn wait(&self, marks: &Arc<[Mark]>) -> Result<Turn, Busy> {
        let turn = {
            let mut queue = lock(&self.shared);
            if !queue.taken {
                queue.taken = true;
                return Ok(Turn { shared: self.shared.clone() });
            }
            let (sender, turn) = oneshot::channel();
            queue.waiting.push(Waiting { marks: marks.clone(), turn: sender });
            turn
        };
        timeout(PATIENCE, turn).await.map_err(|_| Busy)?.map_err(|_| Busy)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = lock(&self.shared).next();
        if let Some(next) = next {
            // One who does not wait any more passes it on, by dropping it.
            let _ = next.turn.send(Turn { shared: self.shared.clone() });
        }
    }
}

impl Queue {
    /// Whose turn it is, now that nobody's is.
    fn next(&mut self) -> Option<Waiting> {
        self.waiting.retain(|one| !one.turn.is_closed());
        let mut with_mark: HashMap<&Mark, usize> = HashMap::new();
        for mark in self.waiting.iter().flat_map(|one| one.marks.iter()) {
            *with_mark.entry(mark).or_default() += 1;
        }
        let crowd = |one: &Waiting| one.marks.iter().map(|mark| with_mark[mark]).sum::<usize>();
        // The first of those that are equal.
        let next = self.waiting.iter().enumerate().min_by_key(|(_, one)| crowd(one)).map(|(at, _)| at);
        self.taken = next.is_some();
        next.map(|at| self.waiting.remove(at))
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn marks(certificate: u8, host: u8) -> Arc<[Mark]> {
        [Mark::Certificate(vec![certificate]), Mark::Address([127, 0, 0, host].into())].into()
    }

    #[tokio::test]
    async fn the_smallest_crowd_is_next_and_who_is_gone_is_passed_by() {
        let turns = Arc::new(Turns::default());
        let first = turns.wait(&marks(1, 1)).await.unwrap();
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = Vec::new();
        for (name, of) in [("a", (1, 1)), ("b", (1, 1)), ("c", (1, 1)), ("d", (2, 2)), ("e", (1, 3))] {
            let (turns, done) = (turns.clone(), done.clone());
            tasks.push(tokio::spawn(async move {
                let turn = turns.wait(&marks(of.0, of.1)).await.unwrap();
                done.send(name).unwrap();
                drop(turn);
            }));
            tokio::task::yield_now().await;
        }
        tasks[1].abort();
        tokio::task::yield_now().await;
        drop(first);
        for expected in ["d", "e", "a", "c"] {
            assert_eq!(order.recv().await, Some(expected));
        }
        turns.wait(&marks(1, 1)).await.unwrap();
    }
}
