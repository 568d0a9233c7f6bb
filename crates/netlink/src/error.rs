//! What goes wrong between the kernel and us.

use std::io;

use nix::errno::Errno;

/// Why the kernel did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// It refused.
    #[error("cannot {what}: {}", errno.desc())]
    Refused {
        /// What it was asked to do.
        what: String,
        /// Its reason.
        errno: Errno,
    },
    /// A socket could not be set up, or failed.
    #[error("cannot {what}: {error}")]
    Socket {
        /// What was being done.
        what: &'static str,
        /// The reason.
        error: io::Error,
    },
    /// The netlink socket is gone, or its runtime.
    #[error("the netlink socket is closed")]
    Closed,
}

impl NetError {
    /// Says what was being done when a socket failed.
    pub fn socket(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Socket { what, error }
    }

    /// The kernel's reason, if it gave one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket { error, .. } => error.raw_os_error().map(Errno::from_raw),
            Self::Closed => None,
        }
    }
}
