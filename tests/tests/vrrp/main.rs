//! `amphora-vrrp` beside keepalived: real programs in network namespaces, configured by Octavia's own template.
//!
//! Each test has a network of its own: a switch, two amphorae and a client. Where an amphora runs our daemon the test plays its
//! data plane. Tests take seconds, because Octavia's shortest interval is one, and wait for most of them.

// This is a test crate: what goes wrong here fails a test, and `unwrap` says so as well as anything.
#![allow(clippy::unwrap_used)]

mod amphora;
mod interop;
mod kernel;
mod lan;
mod others;
mod own_address;
mod render;
