//! The control socket and what is said on it.

mod fitness;
mod server;

pub use amphora_ipc::{proxy as api, server::ControlSocket};

pub use self::{
    fitness::{FIT, FitnessSocket, UNFIT},
    server::Control,
};
