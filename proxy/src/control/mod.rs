//! The control socket and what is said on it.

mod fitness;
mod server;

pub use amphora_ipc::server::ControlSocket;

pub use self::{
    fitness::{FIT, FitnessSocket, UNFIT},
    server::Control,
};
