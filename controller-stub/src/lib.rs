//! The minimal controller of amphorae: drives one or two of them through the native API, and shows the demo.
//!
//! | module | what is inside |
//! | --- | --- |
//! | [`cli`] | the command line, which ties the rest together |
//! | `cmd` | what each command does |
//! | [`client`] | the client of an agent |
//! | [`document`], [`vrrp_document`] | what an operator wrote: a load balancer, VRRP |
//! | [`judge`] | whether an amphora would take a document |
//! | [`diff`] | what changed |
//! | [`tree`], [`peers_view`], `vrrp_view` | how an amphora is: its load balancer, the link to its peer, VRRP |
//! | `replay` | which heartbeats are believed: none twice, and no old ones |
//! | [`certs`] | certificates for mutual TLS |
//! | [`demo`] | a whole amphora, and then a pair, with members and clients on this host |
//! | [`error`] | why a command failed, and its exit code |
//! | `failpoint` | where tests let this program end |
//! | `host` | what the demo and `serve` do to this host |
//! | [`serve`] | the control plane of Octavia in one program |
//! | `runtime`, `style` | the runtime of a command; colours |

pub mod certs;
pub mod cli;
pub mod client;
mod cmd;
pub mod demo;
pub mod diff;
pub mod document;
pub mod error;
mod failpoint;
mod host;
pub mod judge;
pub mod peers_view;
mod remarks;
mod replay;
mod runtime;
pub mod serve;
mod style;
pub mod tree;
pub mod vrrp_document;
mod vrrp_view;
