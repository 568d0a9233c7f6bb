//! `serve`: the control plane of Octavia in one program.
//!
//! | room | what | Octavia's |
//! | --- | --- | --- |
//! | [`amphora`] | what agents are told | amphorae.drivers |
//! | [`api`] | Octavia's API, version 2 | api |
//! | [`certificates`] | the authority, what it issues, tenants' certificates | certificates |
//! | [`compute`] | where amphorae are | compute |
//! | [`config`] | what it is told | common.config |
//! | `data_dir` | whose the directory of all of it is | |
//! | [`db`] | what is known, in one SQLite file | db |
//! | [`document`] | rows as the document of amphorae | amphora driver templates |
//! | [`health_manager`] | heartbeats in, failover out | octavia-health-manager |
//! | [`housekeeping`] | certificates are replaced before they end | octavia-housekeeping |
//! | [`metrics`] | what is counted, for Prometheus | |
//! | [`network`] | networks, and who has which address | network |
//! | [`policies`] | who may do what | policies |
//! | [`queue`] | what is to be done | |
//! | [`run`] | all of it wired together | |
//! | [`status`] | words of rows and answers | common.constants |
//! | `turns` | how many of a project at a time | |
//! | [`worker`] | what the rows say becomes so | octavia-worker |

pub mod amphora;
pub mod api;
pub mod certificates;
pub mod compute;
pub mod config;
mod data_dir;
pub mod db;
pub mod document;
pub mod health_manager;
pub mod housekeeping;
pub mod metrics;
pub mod network;
pub mod policies;
pub mod queue;
pub mod run;
pub mod status;
mod turns;
pub mod worker;
