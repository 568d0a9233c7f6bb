//! `serve`: the control plane of Octavia in one program.
//!
//! | room | what | Octavia's |
//! | --- | --- | --- |
//! | [`config`] | what it is told | common.config |
//! | [`db`] | what is known, in one SQLite file | db |
//! | [`document`] | rows as the document of amphorae | amphora driver templates |
//! | [`health_manager`] | heartbeats in, failover out | octavia-health-manager |
//! | [`network`] | networks, and who has which address | network |
//! | [`queue`] | what is to be done | |
//! | [`status`] | words of rows and answers | common.constants |

pub mod config;
pub mod db;
pub mod document;
pub mod health_manager;
pub mod network;
pub mod queue;
pub mod status;
