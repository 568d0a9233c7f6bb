//! The daemon's control socket and what is said on it.

mod metrics;
mod server;

pub use amphora_ipc::vrrp as api;

pub(crate) use self::server::{Asked, Command, Control, Reply};
