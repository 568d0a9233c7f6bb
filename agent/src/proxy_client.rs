//! The client of the proxy's control socket ([`amphora_ipc::proxy`]).

use std::{path::PathBuf, time::Duration};

use amphora_ipc::proxy::{Applied, Checked, Explanation, Info, Members, Peers, Stats, Summary};
use bytes::Bytes;
use hyper::Method;

use amphora_ipc::client::{ControlError, ControlSocket, Daemon};

/// How long a question may take.
const READ_DEADLINE: Duration = Duration::from_secs(5);

const CONTENT_TYPE: &str = "application/json";

/// The most bytes of an answer; statistics of 10,000 members have 7 MiB.
const MAX_ANSWER: usize = 64 << 20;

/// A proxy, by its control socket.
///
/// A request may be cancelled; what the daemon has got of it comes about all the same.
#[derive(Clone, Debug)]
pub struct ProxyClient {
    socket: ControlSocket,
    patience: Duration,
}

impl ProxyClient {
    /// A client of the proxy that listens on this socket, now or later. A change may take `patience` until it is live;
    /// then it is not known whether it comes about.
    pub fn new(socket: PathBuf, patience: Duration) -> Self {
        Self { socket: ControlSocket::new(Daemon::Proxy, socket, MAX_ANSWER), patience }
    }

    /// Makes a document run.
    ///
    /// # Errors
    /// When what ran before runs on.
    pub async fn apply(&self, document: Bytes) -> Result<Applied, ControlError> {
        self.socket.json(Method::PUT, "/loadbalancer", CONTENT_TYPE, document, self.patience).await
    }

    /// Asks whether a document would run.
    ///
    /// # Errors
    /// When it would be refused, or the proxy does not say.
    pub async fn check(&self, document: Bytes) -> Result<Checked, ControlError> {
        self.socket.json(Method::PUT, "/check", CONTENT_TYPE, document, self.patience).await
    }

    /// The document that runs.
    ///
    /// # Errors
    /// Also when none does.
    pub async fn document(&self) -> Result<Bytes, ControlError> {
        self.socket.request(Method::GET, "/loadbalancer", CONTENT_TYPE, Bytes::new(), READ_DEADLINE).await
    }

    /// Stops what runs.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn delete(&self) -> Result<Applied, ControlError> {
        self.socket.json(Method::DELETE, "/loadbalancer", CONTENT_TYPE, Bytes::new(), self.patience).await
    }

    /// Names the other amphora, with which session persistence is kept alike.
    ///
    /// # Errors
    /// When what was before is as it was.
    pub async fn set_peers(&self, document: Bytes) -> Result<Peers, ControlError> {
        self.socket.json(Method::PUT, "/peers", CONTENT_TYPE, document, self.patience).await
    }

    /// How it stands with the other amphora.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn peers(&self) -> Result<Peers, ControlError> {
        self.socket.json(Method::GET, "/peers", CONTENT_TYPE, Bytes::new(), READ_DEADLINE).await
    }

    /// There is no other amphora any more.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn clear_peers(&self) -> Result<Peers, ControlError> {
        self.socket.json(Method::DELETE, "/peers", CONTENT_TYPE, Bytes::new(), self.patience).await
    }

    /// Every counter.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn stats(&self) -> Result<Stats, ControlError> {
        self.stats_within(READ_DEADLINE).await
    }

    /// Every counter, within a deadline.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn stats_within(&self, deadline: Duration) -> Result<Stats, ControlError> {
        self.socket.json(Method::GET, "/stats", CONTENT_TYPE, Bytes::new(), deadline).await
    }

    /// What a heartbeat tells of.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn summary(&self) -> Result<Summary, ControlError> {
        self.socket.json(Method::GET, "/summary", CONTENT_TYPE, Bytes::new(), READ_DEADLINE).await
    }

    /// What a request would meet.
    ///
    /// # Errors
    /// When the proxy does not answer, or refuses the question.
    pub async fn explain(&self, question: Bytes) -> Result<Explanation, ControlError> {
        self.socket.json(Method::POST, "/explain", CONTENT_TYPE, question, READ_DEADLINE).await
    }

    /// What there is to tell of members beyond counters.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn members(&self) -> Result<Members, ControlError> {
        self.socket.json(Method::GET, "/members", CONTENT_TYPE, Bytes::new(), READ_DEADLINE).await
    }

    /// The process.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn info(&self) -> Result<Info, ControlError> {
        self.socket.json(Method::GET, "/info", CONTENT_TYPE, Bytes::new(), READ_DEADLINE).await
    }

    /// Its series as Prometheus text.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn metrics(&self) -> Result<Bytes, ControlError> {
        self.socket.request(Method::GET, "/metrics", CONTENT_TYPE, Bytes::new(), READ_DEADLINE).await
    }
}
