//! The daemon's control socket and what is said on it.

mod metrics;
mod server;

pub(crate) use self::server::{Asked, Command, Control, Reply};
