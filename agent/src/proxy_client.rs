//! The client of the proxy's control socket ([`amphora_proxy::control::api`]).

use std::{fmt, io, path::PathBuf, time::Duration};

use amphora_proxy::control::api::{Applied, Info, Peers, Refusal, Stats};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;

use crate::unix_http::{ExchangeError, UnixHttp};

/// How long a document may take until it is live.
const APPLY_DEADLINE: Duration = Duration::from_secs(20);

/// How long anything else may take.
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// The most bytes of an answer; statistics of 10,000 members have 7 MiB.
const MAX_ANSWER: usize = 64 << 20;

/// A proxy, by its control socket.
#[derive(Clone, Debug)]
pub struct ProxyClient {
    socket: UnixHttp,
}

/// Why the proxy did not do what it was asked.
#[derive(Debug)]
pub enum ProxyError {
    /// Nobody listens: it does not run. Nothing was asked of it.
    NotRunning(io::Error),
    /// It did not answer in time; what it was asked may still come about.
    Late,
    /// The connection broke under way; what it was asked may have come about.
    Broken(String),
    /// It refused a document, with its status (400 or 409).
    Refused(StatusCode, Refusal),
    /// It has no load balancer.
    NotFound,
    /// Its answer is not in the protocol.
    Protocol(String),
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(error) => write!(f, "the proxy does not run: {error}"),
            Self::Late => f.write_str("the proxy did not answer in time"),
            Self::Broken(reason) => write!(f, "the proxy broke off: {reason}"),
            Self::Refused(_, refusal) => {
                f.write_str("the proxy refused:")?;
                refusal.faults.iter().try_for_each(|fault| write!(f, " {}: {};", fault.path, fault.reason))
            }
            Self::NotFound => f.write_str("the proxy has no load balancer"),
            Self::Protocol(reason) => write!(f, "the proxy's answer is not in the protocol: {reason}"),
        }
    }
}

impl std::error::Error for ProxyError {}

impl From<ExchangeError> for ProxyError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::NotRunning(error) => Self::NotRunning(error),
            ExchangeError::Late => Self::Late,
            ExchangeError::Broken(reason) => Self::Broken(reason),
            ExchangeError::TooLong(bound) => Self::Protocol(format!("an answer of more than {bound} bytes")),
        }
    }
}

impl ProxyClient {
    /// A client of the proxy that listens on this socket, now or later.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket: UnixHttp::new(socket, MAX_ANSWER) }
    }

    /// Makes a document run.
    ///
    /// # Errors
    /// [`ProxyError::Refused`] when what ran before runs on.
    pub async fn apply(&self, document: Bytes) -> Result<Applied, ProxyError> {
        json(&self.request(Method::PUT, "/loadbalancer", document, APPLY_DEADLINE).await?)
    }

    /// The document that runs.
    ///
    /// # Errors
    /// [`ProxyError::NotFound`] when none does.
    pub async fn document(&self) -> Result<Bytes, ProxyError> {
        self.get("/loadbalancer", READ_DEADLINE).await
    }

    /// Stops what runs.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn delete(&self) -> Result<Applied, ProxyError> {
        json(&self.request(Method::DELETE, "/loadbalancer", Bytes::new(), APPLY_DEADLINE).await?)
    }

    /// Names the other amphora, with which session persistence is kept alike.
    ///
    /// # Errors
    /// [`ProxyError::Refused`] when what was before is as it was.
    pub async fn set_peers(&self, document: Bytes) -> Result<Peers, ProxyError> {
        json(&self.request(Method::PUT, "/peers", document, APPLY_DEADLINE).await?)
    }

    /// How it stands with the other amphora.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn peers(&self) -> Result<Peers, ProxyError> {
        json(&self.get("/peers", READ_DEADLINE).await?)
    }

    /// There is no other amphora any more.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn clear_peers(&self) -> Result<Peers, ProxyError> {
        json(&self.request(Method::DELETE, "/peers", Bytes::new(), APPLY_DEADLINE).await?)
    }

    /// Every counter.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn stats(&self) -> Result<Stats, ProxyError> {
        self.stats_within(READ_DEADLINE).await
    }

    /// Every counter, within a deadline.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn stats_within(&self, deadline: Duration) -> Result<Stats, ProxyError> {
        json(&self.get("/stats", deadline).await?)
    }

    /// The process.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn info(&self) -> Result<Info, ProxyError> {
        json(&self.get("/info", READ_DEADLINE).await?)
    }

    /// Its series as Prometheus text.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn metrics(&self) -> Result<Bytes, ProxyError> {
        self.get("/metrics", READ_DEADLINE).await
    }

    async fn get(&self, path: &'static str, deadline: Duration) -> Result<Bytes, ProxyError> {
        self.request(Method::GET, path, Bytes::new(), deadline).await
    }

    async fn request(
        &self,
        method: Method,
        path: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, ProxyError> {
        let (status, body) = self.socket.request(method, path, "application/json", body, deadline).await?;
        answer(status, body)
    }
}

fn answer(status: StatusCode, body: Bytes) -> Result<Bytes, ProxyError> {
    match status {
        StatusCode::OK => Ok(body),
        StatusCode::NOT_FOUND => Err(ProxyError::NotFound),
        StatusCode::BAD_REQUEST | StatusCode::CONFLICT => Err(ProxyError::Refused(status, json(&body)?)),
        _ => Err(ProxyError::Protocol(format!("status {status}"))),
    }
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ProxyError> {
    serde_json::from_slice(body).map_err(|e| ProxyError::Protocol(e.to_string()))
}
