//! Whether the workers live, and whether anybody is still served.

use tokio::sync::{mpsc, oneshot};

use crate::worker::Command;

/// Feels every worker, apart from the engine: a change that is being applied does not hold it up.
#[derive(Clone, Debug)]
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

    /// Lets no new clients in and the present ones go, after the response under way; or lets new ones in again. Says how many
    /// there are, sessions of TCP included, which nobody ends; `None` when a worker has ended.
    pub async fn quiesce(&self, quiesce: bool) -> Option<usize> {
        let mut told = Vec::with_capacity(self.0.len());
        for worker in &self.0 {
            let (clients, counted) = oneshot::channel();
            worker.send(Command::Quiesce { quiesce, clients }).ok()?;
            told.push(counted);
        }
        let mut clients = 0;
        for counted in told {
            clients += counted.await.ok()?;
        }
        Some(clients)
    }

    /// Lets new clients in again, for whoever cannot wait for it.
    pub fn resume(&self) {
        for worker in &self.0 {
            let (clients, _) = oneshot::channel();
            // A worker that has ended keeps nobody out.
            let _ = worker.send(Command::Quiesce { quiesce: false, clients });
        }
    }
}
