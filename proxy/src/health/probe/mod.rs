//! The probes: one connection, one question, one [`Outcome`], within one deadline for all of it.
//!
//! Written against sockets directly rather than on an HTTP client: the request is to be HAProxy's to the byte,
//! and of the response no more than the head is wanted. Nothing of what a target sends is kept or believed beyond
//! its first 16 KiB.

mod http;
mod ping;
mod tls;

use std::{borrow::Cow, fmt, future::Future, io, time::Duration};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::Instant,
};

#[doc(hidden)]
pub use self::http::fuzz as fuzz_http_response;
pub use self::ping::available as ping_available;
use super::core::{Target, Verdict};
use crate::model::HealthCheck;

/// What a probe found, in HAProxy's terms (`check_status` of `show stat`). `PING` reports as layer 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckStatus {
    /// The connection was made, or the echo came back.
    L4Ok,
    /// It took longer than `timeout` to connect, or for the echo to come back.
    L4Timeout,
    /// The connection was refused, or the host cannot be reached.
    L4Connection,
    /// A TLS server answered.
    L6Ok,
    /// It did not answer in time.
    L6Timeout,
    /// Something else answered, or the handshake failed.
    L6Response,
    /// The response had an expected status.
    L7Ok,
    /// It did not come in time.
    L7Timeout,
    /// What came was no HTTP response, or was cut short.
    L7Response,
    /// The response had another status.
    L7Status,
    /// The probe could not be made, for a reason on this side. Counts neither way.
    SocketError,
}

impl CheckStatus {
    /// HAProxy's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L4Ok => "L4OK",
            Self::L4Timeout => "L4TOUT",
            Self::L4Connection => "L4CON",
            Self::L6Ok => "L6OK",
            Self::L6Timeout => "L6TOUT",
            Self::L6Response => "L6RSP",
            Self::L7Ok => "L7OK",
            Self::L7Timeout => "L7TOUT",
            Self::L7Response => "L7RSP",
            Self::L7Status => "L7STS",
            Self::SocketError => "SOCKERR",
        }
    }

    /// What this means for the target.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::L4Ok | Self::L6Ok | Self::L7Ok => Verdict::Passed,
            Self::SocketError => Verdict::Unknown,
            _ => Verdict::Failed,
        }
    }
}

impl fmt::Display for CheckStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What happened.
    pub status: CheckStatus,
    /// The response's status code (`check_code`), where there was a response.
    pub code: Option<u16>,
    /// What exactly went wrong (`last_chk`); empty when nothing did.
    pub detail: Cow<'static, str>,
    /// From start to result (`check_duration`).
    pub duration: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if let Some(code) = self.code {
            write!(f, "/{code}")?;
        }
        write!(f, " in {} ms", self.duration.as_millis())?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

/// Probes the target once. Takes no longer than its `timeout`.
pub async fn run(target: &Target) -> Outcome {
    let started = Instant::now();
    let deadline = started + target.timeout;
    let found = match &target.check {
        HealthCheck::Tcp => connect(target, deadline).await.map(|_| Found::new(CheckStatus::L4Ok)),
        HealthCheck::Http(check) => http::plain(target, check, deadline).await,
        HealthCheck::Https(check) => http::over_tls(target, check, deadline).await,
        HealthCheck::TlsHello => tls::hello(target, deadline).await,
        HealthCheck::Ping => ping::echo(target.address, deadline).await,
    };
    let Found { status, code, detail } = found.unwrap_or_else(|failed| failed);
    Outcome { status, code, detail, duration: started.elapsed() }
}

/// An [`Outcome`] without its duration.
#[derive(Debug)]
struct Found {
    status: CheckStatus,
    code: Option<u16>,
    detail: Cow<'static, str>,
}

impl Found {
    fn new(status: CheckStatus) -> Self {
        Self { status, code: None, detail: Cow::Borrowed("") }
    }

    fn because(status: CheckStatus, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code: None, detail: detail.into() }
    }

    fn error(status: CheckStatus, error: &io::Error) -> Self {
        let status = if is_ours(error) { CheckStatus::SocketError } else { status };
        Self::because(status, error.to_string())
    }
}

/// Does one step before the deadline: `late` is what it means to miss it, `failed` what an error means.
async fn step<T>(
    deadline: Instant,
    late: CheckStatus,
    failed: CheckStatus,
    io: impl Future<Output = io::Result<T>>,
) -> Result<T, Found> {
    // A timeout looks at its clock only when there is nothing to do: one who never stops sending
    // would outlast it.
    if Instant::now() >= deadline {
        return Err(Found::because(late, "timeout"));
    }
    match tokio::time::timeout_at(deadline, io).await {
        Err(_) => Err(Found::because(late, "timeout")),
        Ok(Err(error)) => Err(Found::error(failed, &error)),
        Ok(Ok(value)) => Ok(value),
    }
}

async fn connect(target: &Target, deadline: Instant) -> Result<TcpStream, Found> {
    let address = (target.address, target.port).into();
    let socket = if target.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|error| Found::error(CheckStatus::SocketError, &error))?;
    let stream =
        step(deadline, CheckStatus::L4Timeout, CheckStatus::L4Connection, socket.connect(address)).await?;
    // The question leaves at once; should this fail it leaves all the same.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Whether an error says something of this host rather than of the target: what HAProxy reports as `SOCKERR`.
fn is_ours(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EAGAIN
                | libc::EADDRINUSE
                | libc::EADDRNOTAVAIL
                | libc::EAFNOSUPPORT
        )
    )
}

/// Reads what has arrived, without waiting, so that closing the connection does not reset it under an
/// answer that the target believes was taken.
fn drain(stream: &TcpStream) {
    let mut scratch = [0; 4096];
    for _ in 0..16 {
        match stream.try_read(&mut scratch) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
