//! The REST API, `/2.0`, and beside it Octavia's own, `/1.0` (`v1`): its table of paths ([`route`]), its errors ([`error`]), what each request does
//! ([`api`], `certificates`, `vrrp`), whose turn it is to change something (`turns`), and the server that bounds what a peer can cost ([`server`]). `openapi.json` describes it and is held
//! against it by a test.

pub mod api;
mod body;
mod certificates;
pub mod error;
pub mod route;
pub mod server;
mod turns;
mod v1;
mod vrrp;

pub use self::{
    api::{Api, Own},
    error::ApiError,
    route::Resource,
    server::Server,
};

/// The OpenAPI document of the API.
pub const OPENAPI: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests;
