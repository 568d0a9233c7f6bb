//! The data plane of an amphora: a native L4/L7 proxy that carries one OpenStack Octavia load balancer.
//!
//! A change flows one way: a document becomes the typed [`model`], the model is compiled into an immutable
//! snapshot, the snapshot is swapped into the workers. What outlives snapshots is [`state`], keyed by id.

pub mod balance;
pub mod control;
pub mod health;
pub mod http1;
pub mod l7;
pub mod metrics;
pub mod model;
pub mod net;
pub mod persist;
pub mod session;
pub mod state;
