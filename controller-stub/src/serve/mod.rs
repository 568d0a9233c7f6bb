//! `serve`: the control plane of Octavia in one program.
//!
//! | room | what | Octavia's |
//! | --- | --- | --- |
//! | [`db`] | what is known, in one SQLite file | db |

pub mod db;
