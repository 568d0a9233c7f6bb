//! TLS on both sides, and HTTP/2: the HTTPS listener with its certificates, and the pool whose members speak TLS.
//!
//! * `credentials`: the certificates
//! * `client`: how clients shake hands
//! * `visit`: what a client of the listener tries, and what it saw
//! * `steps`: the scenario

pub(super) mod client;
pub(super) mod credentials;
mod steps;
mod visit;

pub(super) use self::steps::Secrets;
