//! The control socket and what is said on it.

pub mod api;
mod fitness;
mod server;

pub use self::{
    fitness::{FIT, FitnessSocket, UNFIT},
    server::ControlSocket,
};
