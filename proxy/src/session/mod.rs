//! Sessions: what happens between a client's connection and a member's.

pub mod relay;
