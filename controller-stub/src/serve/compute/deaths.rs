//! Machines that end by themselves.

use std::{collections::HashSet, sync::Arc};

use amphora_agent::supervise::process::Process;
use tokio::sync::{Mutex, watch};

/// Waits for the ends of processes of all drivers, and lets everybody know.
#[derive(Clone, Debug, Default)]
pub struct Deaths {
    /// Machines whose end is waited for.
    watched: Arc<Mutex<HashSet<String>>>,
    count: watch::Sender<u64>,
}

impl Deaths {
    /// It changes when one has ended.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    /// Waits for the end of a machine's process from now on.
    pub async fn watch(&self, machine: &str, mut process: Process) {
        if !self.watched.lock().await.insert(machine.to_owned()) {
            return;
        }
        let (this, name) = (self.clone(), machine.to_owned());
        tokio::spawn(async move {
            let how = process.wait().await;
            this.watched.lock().await.remove(&name);
            tracing::debug!(machine = name, how, "a machine ended");
            this.count.send_modify(|count| *count += 1);
        });
    }
}
