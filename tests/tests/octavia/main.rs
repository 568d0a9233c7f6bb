//! An amphora as an unmodified Octavia sees it: `/1.0` of the real agent, with the proxy and the VRRP daemon that it supervises, in
//! namespaces of the test's own. Runs as root; says SKIPPED and why otherwise.

// This is a test crate: what goes wrong here fails a test, and `unwrap` says so as well as anything.
#![allow(clippy::unwrap_used)]

mod beside;
mod controller;
mod datagrams;
mod differences;
mod driver;
mod failures;
mod ground;
mod networks;
mod objects;
mod pair;
mod protocols;
mod reference;
mod replay;
mod tls;
