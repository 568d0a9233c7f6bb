//! What commands and the demo run on.

use crate::error::{Error, Result};

/// A current-thread runtime with network and time.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::local("the asynchronous runtime", e))
}
