//! One way, a known number of bytes.

use std::{fmt, future::poll_fn, io, task::Poll, time::Duration};

use tokio::time::Instant;

use super::direction::{Direction, Ended, Fault, Meter, Waiting};
use crate::net::{Buffer, Deadline, Pools, Stream};

/// What [`transfer_exact`] is told.
#[derive(Debug, Default)]
pub struct ExactOptions {
    /// How many bytes to read from the source, those `preceding` not among them.
    pub length: u64,
    /// Bytes that were read from the source already; they go first.
    pub preceding: Option<Buffer>,
    /// How long to wait for the next bytes; zero is for ever.
    pub source_timeout: Duration,
    /// How long to wait for room for more bytes; zero is for ever.
    pub destination_timeout: Duration,
}

/// Why a transfer was not completed.
#[derive(Debug)]
pub enum TransferError {
    /// Reading failed.
    Source(io::Error),
    /// The source ended too early.
    SourceClosed {
        /// Bytes that are missing.
        missing: u64,
    },
    /// The source was silent for too long.
    SourceTimeout,
    /// Writing failed.
    Destination(io::Error),
    /// The destination took nothing for too long.
    DestinationTimeout,
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => write!(f, "reading failed: {error}"),
            Self::SourceClosed { missing } => write!(f, "the source closed with {missing} bytes missing"),
            Self::SourceTimeout => f.write_str("the source was silent for too long"),
            Self::Destination(error) => write!(f, "writing failed: {error}"),
            Self::DestinationTimeout => f.write_str("the destination took nothing for too long"),
        }
    }
}

impl std::error::Error for TransferError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Source(error) | Self::Destination(error) => Some(error),
            Self::SourceClosed { .. } | Self::SourceTimeout | Self::DestinationTimeout => None,
        }
    }
}

/// Carries `options.length` bytes from one connection to the other and reads not one more. Returns once all are written
/// and flushed.
///
/// # Errors
/// [`TransferError`]; what was carried until then shows in the meter.
pub async fn transfer_exact<S: Stream, D: Stream>(
    source: &mut S,
    destination: &mut D,
    options: ExactOptions,
    pools: &Pools,
    meter: Meter<'_>,
) -> Result<(), TransferError> {
    let ExactOptions { length, preceding, source_timeout, destination_timeout } = options;
    let mut direction = Direction::exact(length).preceded_by(preceding);
    let mut deadline = Deadline::never();
    let mut before = None;
    poll_fn(|cx| {
        match direction.poll(cx, source, destination, pools, meter) {
            Poll::Ready(Ok(Ended::Closed)) => {
                let missing = length - direction.read();
                return Poll::Ready(Err(TransferError::SourceClosed { missing }));
            }
            Poll::Ready(Ok(Ended::Limit | Ended::Stopped)) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(Fault::Source(error))) => return Poll::Ready(Err(TransferError::Source(error))),
            Poll::Ready(Err(Fault::Destination(error))) => {
                return Poll::Ready(Err(TransferError::Destination(error)));
            }
            Poll::Pending => {}
        }
        let (timeout, error) = match direction.waiting() {
            Waiting::Source => (source_timeout, TransferError::SourceTimeout),
            Waiting::Destination | Waiting::Nothing => {
                (destination_timeout, TransferError::DestinationTimeout)
            }
        };
        let state = Some((direction.read(), direction.written(), direction.waiting()));
        if state != before {
            before = state;
            deadline.set((!timeout.is_zero()).then(|| Instant::now() + timeout));
        }
        deadline.poll_expired(cx).map(|()| Err(error))
    })
    .await
}
