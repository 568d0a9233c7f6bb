//! The control socket and what is said on it.

pub mod api;
mod server;

pub use self::server::ControlSocket;
