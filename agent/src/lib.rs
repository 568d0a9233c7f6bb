//! The agent of an amphora: REST in front, files and the control sockets of the proxy and of the VRRP daemon behind.
//!
//! | module | what |
//! | --- | --- |
//! | [`config`] | Octavia's ini file and our own section of it |
//! | [`reconfigure`] | that, read again while the agent runs |
//! | [`rest`] | the APIs `/2.0` and `/1.0` over mutual TLS ([`tls`]) |
//! | [`amphora`] | the load balancer and the certificates that it names: stored ([`store`]) first, applied ([`proxy_client`]) second |
//! | [`vrrp`] | the VRRP configuration, likewise ([`vrrp_client`]) |
//! | [`change_error`] | why a change to any of these did not come about |
//! | `keeper` | what those two, and [`peers`] (the other amphora), have in common |
//! | [`directory`] | directories into which programs of other users look |
//! | [`document`] | the one place that meets the parser of `amphora-model` |
//! | [`octavia`] | the texts of an unmodified Octavia, read into the model |
//! | [`plumbing`] | the interfaces of the load balancer: found, moved into its namespace, configured |
//! | [`dhcp`] | addresses for those that come without |
//! | [`heartbeat`] | what Octavia's health manager hears |
//! | [`status`] | Octavia's status tree |
//! | [`metrics`] | the agent's own series |
//! | [`supervise`] | the proxy and the VRRP daemon as children, for hosts without systemd |
//! | [`run`] | all of it wired together |
//!
//! Restarting the agent never touches traffic: the proxy runs on, and what is stored is compared with what runs when
//! the agent is back. Everything runs on one thread; what blocks (files, parsing) is handed to a few short-lived ones,
//! so that heartbeats leave on time.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests may block"))]

pub mod amphora;
pub mod change_error;
pub mod config;
pub mod dhcp;
pub mod directory;
pub mod document;
pub mod heartbeat;
mod keeper;
pub mod metrics;
pub mod octavia;
pub mod peers;
pub mod plumbing;
pub mod proxy_client;
pub mod reconfigure;
pub mod rest;
pub mod run;
pub mod status;
pub mod store;
pub mod supervise;
pub mod tls;
pub mod vrrp;
pub mod vrrp_client;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod testing;
