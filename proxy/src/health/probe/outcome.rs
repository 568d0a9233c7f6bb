//! What a probe says, in HAProxy's words.

use std::{
    borrow::Cow,
    fmt, io,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use crate::health::core::Verdict;

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
    /// What came was no response that a client would be given, or was cut short.
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
    /// Whether it passed because nothing has said otherwise: `UDP-CONNECT` without an answer.
    pub silent: bool,
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

/// An [`Outcome`] without its duration.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) status: CheckStatus,
    pub(super) code: Option<u16>,
    pub(super) detail: Cow<'static, str>,
    pub(super) silent: bool,
}

impl Found {
    pub(super) fn new(status: CheckStatus) -> Self {
        Self { status, code: None, detail: Cow::Borrowed(""), silent: false }
    }

    pub(super) fn because(status: CheckStatus, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code: None, detail: detail.into(), silent: false }
    }

    /// The result of a probe that began then and is over now.
    pub(super) fn after(self, started: Instant) -> Outcome {
        let Self { status, code, detail, silent } = self;
        Outcome { status, code, detail, silent, duration: started.elapsed() }
    }

    /// `status` says what the error means, unless it says something of this host.
    pub(super) fn error(status: CheckStatus, error: &io::Error) -> Self {
        let status = if is_ours(error) { CheckStatus::SocketError } else { status };
        // Without the number that `io::Error` puts behind it, as HAProxy's log has it.
        let detail = match error.raw_os_error() {
            Some(errno) => Errno::from_raw(errno).desc().into(),
            None => Cow::Owned(error.to_string()),
        };
        Self::because(status, detail)
    }
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
