//! `serve`: the control plane of Octavia in one program.
//!
//! | room | what | Octavia's |
//! | --- | --- | --- |
//! | [`api`] | Octavia's API, version 2 | api |
//! | [`config`] | what it is told | common.config |
//! | [`db`] | what is known, in one SQLite file | db |
//! | [`document`] | rows as the document of amphorae | amphora driver templates |
//! | [`network`] | networks, and who has which address | network |
//! | [`policies`] | who may do what | policies |
//! | [`queue`] | what is to be done | |
//! | [`status`] | words of rows and answers | common.constants |

pub mod api;
pub mod config;
pub mod db;
pub mod document;
pub mod network;
pub mod policies;
pub mod queue;
pub mod status;
