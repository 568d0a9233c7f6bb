//! The daemon's control socket and what is said on it.

pub mod api;
mod metrics;
mod server;

pub(crate) use self::server::{Asked, Command, ControlSocket, Reply};
