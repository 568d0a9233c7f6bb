//! Sockets that listen and that connect, and what time it is.

mod connect;
mod listen;

pub use self::listen::{
    BindError, BoundListener, NewListener, bind, bind_for_workers, let_in_again, let_nobody_in,
};
pub(crate) use self::{
    connect::{may_be_transparent, socket_to},
    listen::may_keep_out_without,
};

/// What time it is, for what is told the time. On a runtime it is the runtime's, which a test can stop.
#[inline]
pub fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
