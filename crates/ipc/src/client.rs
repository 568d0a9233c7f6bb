//! The client's side of the control sockets: HTTP/1.1 over a unix socket, one connection per request, a deadline on each, a
//! bound on every answer.

use std::{fmt, io, path::PathBuf, time::Duration};

use amphora_model::{Fault, Refusal};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::timeout,
};

/// Who serves a control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// [`crate::proxy`].
    Proxy,
    /// [`crate::vrrp`].
    Vrrp,
}

impl Daemon {
    /// What it has when it runs something.
    fn charge(self) -> &'static str {
        match self {
            Self::Proxy => "load balancer",
            Self::Vrrp => "configuration",
        }
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proxy => "the proxy",
            Self::Vrrp => "the VRRP daemon",
        })
    }
}

/// Why a daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub struct ControlError {
    /// Who was asked.
    pub daemon: Daemon,
    /// What became of it.
    pub failure: Failure,
}

/// What becomes of a request that is not done.
#[derive(Debug)]
pub enum Failure {
    /// Nobody listens: the daemon does not run. Nothing was asked of it.
    NotRunning(io::Error),
    /// It did not answer in time; what it was asked may still come about.
    Late,
    /// The connection broke under way; what it was asked may have come about.
    Broken(String),
    /// It refused, with its status: 400 what it cannot honour, 409 what does not fit what it is at present, 503 whatever it is
    /// asked for while it ends or has too much to do.
    Refused(StatusCode, Refusal),
    /// It runs nothing.
    NotFound,
    /// Its answer is not in the protocol.
    Protocol(String),
}

impl ControlError {
    /// Whether the daemon does not run.
    pub fn is_not_running(&self) -> bool {
        matches!(self.failure, Failure::NotRunning(_))
    }

    /// Whether the daemon runs, and runs nothing.
    pub fn is_not_found(&self) -> bool {
        matches!(self.failure, Failure::NotFound)
    }

    /// Whether the daemon calls a document faulty, for good.
    pub fn is_faulty(&self) -> bool {
        matches!(self.failure, Failure::Refused(StatusCode::BAD_REQUEST, _))
    }

    /// Whether the daemon said no: nothing has come about.
    pub fn is_refused(&self) -> bool {
        matches!(self.failure, Failure::Refused(..))
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { daemon, failure } = self;
        match failure {
            Failure::NotRunning(error) => write!(f, "{daemon} does not run: {error}"),
            Failure::Late => write!(f, "{daemon} did not answer in time"),
            Failure::Broken(reason) => write!(f, "{daemon} broke off: {reason}"),
            Failure::Refused(_, refusal) => {
                write!(f, "{daemon} refused:")?;
                refusal.faults.iter().try_for_each(|fault| match fault.path.as_str() {
                    "" => write!(f, " {};", fault.reason),
                    path => write!(f, " {path}: {};", fault.reason),
                })
            }
            Failure::NotFound => write!(f, "{daemon} has no {}", daemon.charge()),
            Failure::Protocol(reason) => write!(f, "the answer of {daemon} is not in the protocol: {reason}"),
        }
    }
}

/// A daemon, by its control socket.
///
/// A request may be cancelled; what the daemon has got of it comes about all the same.
#[derive(Clone, Debug)]
pub struct ControlSocket {
    daemon: Daemon,
    socket: PathBuf,
    max_answer: usize,
}

impl ControlSocket {
    /// The daemon that listens on this socket, now or later; of an answer at most `max_answer` bytes are read.
    pub fn new(daemon: Daemon, socket: PathBuf, max_answer: usize) -> Self {
        Self { daemon, socket, max_answer }
    }

    /// Sends a request and reads the answer to it, which must be 200.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn request(
        &self,
        method: Method,
        path: &'static str,
        content_type: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, ControlError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, content_type)
            .body(Full::new(body))
            .expect("path and headers are constants");
        let asked = async {
            let stream = UnixStream::connect(&self.socket).await.map_err(not_connected)?;
            self.ask(stream, request).await
        };
        let answer = timeout(deadline, asked).await.unwrap_or(Err(Failure::Late));
        answer.map_err(|failure| self.error(failure))
    }

    /// The same, and the answer is a document.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &'static str,
        content_type: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<T, ControlError> {
        let answer = self.request(method, path, content_type, body, deadline).await?;
        parse(&answer).map_err(|failure| self.error(failure))
    }

    fn error(&self, failure: Failure) -> ControlError {
        ControlError { daemon: self.daemon, failure }
    }

    fn judge(&self, status: StatusCode, body: Bytes) -> Result<Bytes, Failure> {
        match status {
            StatusCode::OK => Ok(body),
            StatusCode::NOT_FOUND => Err(Failure::NotFound),
            // Too large is one way of being faulty.
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Failure::Refused(StatusCode::BAD_REQUEST, self.refusal(&body)?))
            }
            StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE => {
                Err(Failure::Refused(status, self.refusal(&body)?))
            }
            _ => Err(Failure::Protocol(format!("status {status}"))),
        }
    }

    /// The faults as every other part tells them.
    fn refusal(&self, body: &[u8]) -> Result<Refusal, Failure> {
        match self.daemon {
            Daemon::Proxy => parse(body),
            Daemon::Vrrp => {
                let refusal: crate::vrrp::Refusal = parse(body)?;
                let faults = refusal.faults.into_iter();
                let faults = faults.map(|fault| Fault { path: fault.place, reason: fault.reason });
                Ok(Refusal { faults: faults.collect() })
            }
        }
    }

    /// One request and what comes of it on a connection of its own.
    pub(crate) async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        request: Request<Full<Bytes>>,
    ) -> Result<Bytes, Failure> {
        let (status, body) = self.exchange(stream, request).await?;
        self.judge(status, body)
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let broken = |e: hyper::Error| Failure::Broken(e.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let exchange = async {
            let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
            let body = Limited::new(body, self.max_answer).collect().await.map_err(|e| {
                if e.is::<LengthLimitError>() {
                    Failure::Protocol(format!("an answer of more than {} bytes", self.max_answer))
                } else {
                    Failure::Broken(e.to_string())
                }
            })?;
            Ok((head.status, body.to_bytes()))
        };
        tokio::pin!(exchange);
        // The connection is driven here and not in a task of its own, so that it ends with the deadline.
        tokio::select! {
            answer = &mut exchange => answer,
            _ = connection => exchange.await,
        }
    }
}

/// A full backlog is a process that hangs, not one that does not run.
fn not_connected(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::WouldBlock { Failure::Late } else { Failure::NotRunning(error) }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::Protocol(error.to_string()))
}
