//! Traffic that must not notice anything.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use crate::{Client, eventually};

/// Clients that ask again and again, until stopped; what fails is written down.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicU64,
    failures: Mutex<Vec<String>>,
    answers: Mutex<BTreeMap<String, u64>>,
}

impl Load {
    /// No clients yet.
    pub fn new() -> Self {
        Self { shared: Arc::default(), clients: JoinSet::new() }
    }

    /// With so many clients that keep their connection. One that is closed between two requests, after a response
    /// that said so, is replaced.
    pub fn keep_alive(mut self, clients: usize, address: SocketAddr) -> Self {
        for number in 0..clients {
            let shared = Arc::clone(&self.shared);
            self.clients.spawn(async move {
                let mut client = None;
                while !shared.stop.load(Ordering::Relaxed) {
                    let mut now = match client.take() {
                        Some(client) => client,
                        None => match Client::try_connect(address).await {
                            Ok(client) => client,
                            Err(error) => {
                                shared.fail(format!("keep-alive client {number}, connecting: {error}"));
                                shared.pace().await;
                                continue;
                            }
                        },
                    };
                    match now.try_get("/keep-alive", "").await {
                        Ok(answer) if answer.status() == 200 => {
                            shared.count(&answer.text());
                            if answer.field("connection") != Some("close") {
                                client = Some(now);
                            }
                        }
                        Ok(answer) => shared.fail(format!("keep-alive client {number}: {}", answer.head)),
                        Err(error) => shared.fail(format!("keep-alive client {number}: {error}")),
                    }
                    shared.pace().await;
                }
            });
        }
        self
    }

    /// With so many clients that take a connection for each request.
    pub fn connection_each(mut self, clients: usize, address: SocketAddr) -> Self {
        for number in 0..clients {
            let shared = Arc::clone(&self.shared);
            self.clients.spawn(async move {
                while !shared.stop.load(Ordering::Relaxed) {
                    let exchange = async {
                        let mut client = Client::try_connect(address).await?;
                        client.try_get("/connection", "Connection: close\r\n").await
                    };
                    match exchange.await {
                        Ok(answer) if answer.status() == 200 => shared.count(&answer.text()),
                        Ok(answer) => shared.fail(format!("client {number}: {}", answer.head)),
                        Err(error) => shared.fail(format!("client {number}: {error}")),
                    }
                    shared.pace().await;
                }
            });
        }
        self
    }

    /// Requests that were answered well so far.
    pub fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Waits until so many more requests were answered well.
    pub async fn more(&self, requests: u64) {
        let goal = self.done() + requests;
        eventually("requests are answered", async || (self.done() >= goal).then_some(())).await;
    }

    /// Stops the clients after the request under way and returns how often each answer came.
    ///
    /// # Panics
    /// When a request failed.
    pub async fn stop(mut self) -> BTreeMap<String, u64> {
        let failures = self.finish().await;
        assert!(
            failures.is_empty(),
            "{} of {} failed: {:#?}",
            failures.len(),
            self.done(),
            &failures[..failures.len().min(10)]
        );
        self.shared.answers.lock().unwrap().clone()
    }

    /// Stops the clients after the request under way and returns what failed.
    pub async fn finish(&mut self) -> Vec<String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client.unwrap();
        }
        self.shared.failures.lock().unwrap().clone()
    }
}

impl Default for Load {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    fn count(&self, answer: &str) {
        self.done.fetch_add(1, Ordering::Relaxed);
        *self.answers.lock().unwrap().entry(answer.to_owned()).or_default() += 1;
    }

    fn fail(&self, what: String) {
        self.failures.lock().unwrap().push(what);
    }

    /// Leaves some of the machine to others.
    async fn pace(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
