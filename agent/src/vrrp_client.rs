//! The client of the VRRP daemon's control socket ([`amphora_vrrp::control::api`]).

use std::{fmt, io, path::PathBuf, time::Duration};

use amphora_proxy::control::api::{Fault, Refusal};
use amphora_vrrp::control::api::{self, Status};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;

use crate::unix_http::{ExchangeError, UnixHttp};

/// How long a configuration may take until it runs.
const APPLY_DEADLINE: Duration = Duration::from_secs(10);

/// How long anything else may take: the daemon does nothing that lasts.
const READ_DEADLINE: Duration = Duration::from_secs(2);

/// The most bytes of an answer.
const MAX_ANSWER: usize = 8 << 20;

/// A VRRP daemon, by its control socket.
#[derive(Clone, Debug)]
pub struct VrrpClient {
    socket: UnixHttp,
}

/// What the daemon is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VrrpAction {
    /// Take part.
    Start,
    /// Take no part.
    Stop,
    /// Let the peer take over.
    HandOver,
    /// Take places by priority again, after a hand-over.
    Resume,
}

impl VrrpAction {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Start, Self::Stop, Self::HandOver, Self::Resume];

    /// Its name in paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::HandOver => "hand-over",
            Self::Resume => "resume",
        }
    }
}

/// Why the daemon did not do what it was asked.
#[derive(Debug)]
pub enum VrrpError {
    /// Nobody listens: it does not run. Nothing was asked of it.
    NotRunning(io::Error),
    /// It did not answer in time; what it was asked may still come about.
    Late,
    /// The connection broke under way; what it was asked may have come about.
    Broken(String),
    /// It cannot honour a configuration.
    Invalid(Refusal),
    /// What it was asked does not fit what it is at present.
    Conflict(Refusal),
    /// It has no configuration.
    NotFound,
    /// Its answer is not in the protocol.
    Protocol(String),
}

impl fmt::Display for VrrpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(error) => write!(f, "the VRRP daemon does not run: {error}"),
            Self::Late => f.write_str("the VRRP daemon did not answer in time"),
            Self::Broken(reason) => write!(f, "the VRRP daemon broke off: {reason}"),
            Self::Invalid(refusal) | Self::Conflict(refusal) => {
                f.write_str("the VRRP daemon refused:")?;
                refusal.faults.iter().try_for_each(|fault| match fault.path.as_str() {
                    "" => write!(f, " {};", fault.reason),
                    path => write!(f, " {path}: {};", fault.reason),
                })
            }
            Self::NotFound => f.write_str("the VRRP daemon has no configuration"),
            Self::Protocol(reason) => write!(f, "the VRRP daemon's answer is not in the protocol: {reason}"),
        }
    }
}

impl std::error::Error for VrrpError {}

impl From<ExchangeError> for VrrpError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::NotRunning(error) => Self::NotRunning(error),
            ExchangeError::Late => Self::Late,
            ExchangeError::Broken(reason) => Self::Broken(reason),
            ExchangeError::TooLong(bound) => Self::Protocol(format!("an answer of more than {bound} bytes")),
        }
    }
}

impl VrrpClient {
    /// A client of the daemon that listens on this socket, now or later.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket: UnixHttp::new(socket, MAX_ANSWER) }
    }

    /// Makes a configuration run: keepalived.conf or the native document.
    ///
    /// # Errors
    /// [`VrrpError::Invalid`] when what ran before runs on.
    pub async fn apply(&self, configuration: Bytes) -> Result<Status, VrrpError> {
        json(&self.request(Method::PUT, "/config", configuration, APPLY_DEADLINE).await?)
    }

    /// What runs, as the native document.
    ///
    /// # Errors
    /// [`VrrpError::NotFound`] when nothing does.
    pub async fn configuration(&self) -> Result<Bytes, VrrpError> {
        self.request(Method::GET, "/config", Bytes::new(), READ_DEADLINE).await
    }

    /// Stops every virtual router and forgets it.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub async fn delete(&self) -> Result<Status, VrrpError> {
        json(&self.request(Method::DELETE, "/config", Bytes::new(), APPLY_DEADLINE).await?)
    }

    /// The daemon and its virtual routers.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub async fn status(&self) -> Result<Status, VrrpError> {
        json(&self.request(Method::GET, "/status", Bytes::new(), READ_DEADLINE).await?)
    }

    /// Tells the daemon what to do.
    ///
    /// # Errors
    /// [`VrrpError::Conflict`] for one when there is nothing to hand over.
    pub async fn act(&self, action: VrrpAction) -> Result<Status, VrrpError> {
        let path = match action {
            VrrpAction::Start => "/start",
            VrrpAction::Stop => "/stop",
            VrrpAction::HandOver => "/hand-over",
            VrrpAction::Resume => "/resume",
        };
        json(&self.request(Method::POST, path, Bytes::new(), READ_DEADLINE).await?)
    }

    /// Its series as Prometheus text.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub async fn metrics(&self) -> Result<Bytes, VrrpError> {
        self.request(Method::GET, "/metrics", Bytes::new(), READ_DEADLINE).await
    }

    async fn request(
        &self,
        method: Method,
        path: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, VrrpError> {
        // The daemon tells the two kinds of configuration apart by the text itself.
        let (status, body) =
            self.socket.request(method, path, "text/plain; charset=utf-8", body, deadline).await?;
        match status {
            StatusCode::OK => Ok(body),
            StatusCode::NOT_FOUND => Err(VrrpError::NotFound),
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {
                Err(VrrpError::Invalid(refusal(&body)?))
            }
            StatusCode::CONFLICT => Err(VrrpError::Conflict(refusal(&body)?)),
            _ => Err(VrrpError::Protocol(format!("status {status}"))),
        }
    }
}

/// The daemon's faults as every other part tells them.
fn refusal(body: &[u8]) -> Result<Refusal, VrrpError> {
    let refusal: api::Refusal = json(body)?;
    let faults = refusal.faults.into_iter();
    Ok(Refusal { faults: faults.map(|fault| Fault { path: fault.place, reason: fault.reason }).collect() })
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, VrrpError> {
    serde_json::from_slice(body).map_err(|e| VrrpError::Protocol(e.to_string()))
}
