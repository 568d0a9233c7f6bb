//! The minimal controller of amphorae: drives one or two of them through the native API, and shows the demo.
//!
//! [`client`] speaks to an agent, [`document`] and [`vrrp_document`] read what an operator wrote, [`judge`] says whether an amphora would take it, [`diff`] and [`tree`] say what changed
//! and how it is, [`certs`] makes the certificates for mutual TLS, and [`demo`] runs a whole amphora, and then a pair, with members
//! and clients on this host. [`cli`] ties them to a command line; [`error`] fixes the exit codes.

pub mod certs;
pub mod cli;
pub mod client;
mod cmd;
pub mod demo;
pub mod diff;
pub mod document;
pub mod error;
pub mod judge;
pub mod peers_view;
mod replay;
mod runtime;
mod style;
pub mod tree;
pub mod vrrp_document;
mod vrrp_view;
mod yaml;
