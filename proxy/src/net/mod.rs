//! Listening sockets, and what time it is.

mod listen;

pub(crate) use self::listen::may_keep_out_without;
pub use self::listen::{
    BindError, BoundListener, NewListener, bind, bind_for_workers, let_in_again, let_nobody_in,
};

/// What time it is, for what is told the time. On a runtime it is the runtime's, which a test can stop.
#[inline]
pub fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
