//! Whether the workers live.

use tokio::sync::{mpsc, oneshot};

use crate::worker::Command;

/// Feels every worker, apart from the engine: a change that is being applied does not hold it up.
#[derive(Debug)]
pub struct Pulse(Vec<mpsc::UnboundedSender<Command>>);

impl Pulse {
    pub(super) fn new(workers: Vec<mpsc::UnboundedSender<Command>>) -> Self {
        Self(workers)
    }

    /// Resolves once the event loop of every worker has turned: true. False when a worker has ended.
    pub async fn beat(&self) -> bool {
        let mut beats = Vec::with_capacity(self.0.len());
        for worker in &self.0 {
            let (beat, felt) = oneshot::channel();
            if worker.send(Command::Beat(beat)).is_err() {
                return false;
            }
            beats.push(felt);
        }
        for felt in beats {
            if felt.await.is_err() {
                return false;
            }
        }
        true
    }
}
