//! HTTP/1.1 over a unix socket, as the control sockets speak it: one connection per request, a deadline on each, a bound
//! on every answer.

use std::{fmt, io, path::PathBuf, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

/// A socket on which somebody may answer.
#[derive(Clone, Debug)]
pub struct UnixHttp {
    socket: PathBuf,
    max_answer: usize,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ExchangeError {
    /// Nobody listens. Nothing was asked.
    NotRunning(io::Error),
    /// No answer in time; what was asked may still come about.
    Late,
    /// The connection broke under way; what was asked may have come about.
    Broken(String),
    /// The answer has more bytes than this.
    TooLong(usize),
}

impl fmt::Display for ExchangeError {
    /// Goes on after the name of who was asked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(error) => write!(f, "does not run: {error}"),
            Self::Late => f.write_str("did not answer in time"),
            Self::Broken(reason) => write!(f, "broke off: {reason}"),
            Self::TooLong(bound) => write!(f, "answered with more than {bound} bytes"),
        }
    }
}

impl std::error::Error for ExchangeError {}

impl UnixHttp {
    /// Whoever listens on this socket, now or later; of an answer at most `max_answer` bytes are read.
    pub fn new(socket: PathBuf, max_answer: usize) -> Self {
        Self { socket, max_answer }
    }

    /// Asks, and reads the answer to its end.
    ///
    /// # Errors
    /// When there is none within the deadline.
    pub async fn request(
        &self,
        method: Method,
        path: &'static str,
        content_type: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<(StatusCode, Bytes), ExchangeError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, content_type)
            .body(Full::new(body))
            .expect("path and headers are constants");
        timeout(deadline, self.exchange(request)).await.unwrap_or(Err(ExchangeError::Late))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), ExchangeError> {
        let broken = |e: hyper::Error| ExchangeError::Broken(e.to_string());
        let stream = UnixStream::connect(&self.socket).await.map_err(not_connected)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let exchange = async {
            let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
            let body = Limited::new(body, self.max_answer).collect().await.map_err(|e| {
                if e.is::<LengthLimitError>() {
                    ExchangeError::TooLong(self.max_answer)
                } else {
                    ExchangeError::Broken(e.to_string())
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
fn not_connected(error: io::Error) -> ExchangeError {
    if error.kind() == io::ErrorKind::WouldBlock {
        ExchangeError::Late
    } else {
        ExchangeError::NotRunning(error)
    }
}
