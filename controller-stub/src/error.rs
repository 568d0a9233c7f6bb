//! The one error of this crate, and the exit code that each kind of it becomes.

use std::{fmt, io, path::Path, process::ExitCode};

use amphora_ipc::proxy::Fault;

/// Why a command did not do what it was asked. Each kind has its own exit code, so that a script can tell
/// "the amphora said no" from "the amphora did not answer".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The amphora answered, and the answer was no. Exit code 1.
    Refused {
        /// Who said so.
        amphora: String,
        /// HTTP status.
        status: u16,
        /// For a human.
        message: String,
        /// One reason per offending field; may be empty.
        faults: Vec<Fault>,
    },
    /// The amphorae answered, but what they were asked for did not come about. Exit code 1.
    NotDone(String),
    /// The document is one that no amphora would take; none was asked. Exit code 1.
    Faulty(Vec<Fault>),
    /// The arguments, or a file that they name, cannot be used. Exit code 2, as for clap's own errors.
    Usage(String),
    /// No connection, no TLS session, or no complete answer in time. Exit code 3.
    Unreachable {
        /// Who was asked.
        amphora: String,
        /// What went wrong, for a human.
        reason: String,
    },
    /// The demo ran, and something that it showed was not true. Exit code 4.
    NotTrue(String),
    /// This host did not allow what was needed: a file, a process, a socket. Exit code 5.
    Local(String),
    /// Who read standard output has closed it, as `head` does when it has seen enough. Nothing is said about it, and
    /// the exit code is that of a program which SIGPIPE ended: 141.
    OutputClosed,
    /// SIGINT (130) or SIGTERM (143) ended the command early; the code is 128 plus the signal's number.
    Interrupted(u8),
}

/// Its number on Linux (signal(7)).
const SIGPIPE: u8 = 13;

impl Error {
    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Refused { .. } | Self::NotDone(_) | Self::Faulty(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::NotTrue(_) => 4,
            Self::Local(_) => 5,
            Self::OutputClosed => 128 + SIGPIPE,
            Self::Interrupted(signal) => 128 + signal,
        })
    }

    /// A usage error about a file.
    pub(crate) fn file(path: &Path, reason: impl fmt::Display) -> Self {
        Self::Usage(format!("{}: {reason}", path.display()))
    }

    /// A local error: what was being done, and the system's answer.
    pub(crate) fn local(doing: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::Local(format!("{doing}: {error}"))
    }
}

impl fmt::Display for Error {
    /// One line, then one line per fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { amphora, status, message, faults } => {
                write!(f, "{amphora} refused with {status}: {message}")?;
                list(f, faults)
            }
            Self::NotDone(text) | Self::Usage(text) | Self::NotTrue(text) | Self::Local(text) => {
                f.write_str(text)
            }
            Self::Faulty(faults) => {
                f.write_str("the document cannot be honoured")?;
                list(f, faults)
            }
            Self::Unreachable { amphora, reason } => write!(f, "{amphora} cannot be reached: {reason}"),
            Self::OutputClosed => f.write_str("standard output was closed"),
            Self::Interrupted(_) => f.write_str("interrupted"),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, faults: &[Fault]) -> fmt::Result {
    // What is of the whole has no path.
    faults.iter().try_for_each(|fault| match &*fault.path {
        "" => write!(f, "\n  {}", fault.reason),
        path => write!(f, "\n  {path}: {}", fault.reason),
    })
}

/// Standard output was closed or is full.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::local("standard output", error)
        }
    }
}

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
