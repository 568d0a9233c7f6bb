//! What outlives snapshots: state keyed by id. A configuration change hands the same `Arc` to the next
//! snapshot, so no change ever resets a counter, a health state or a connection count of an object that both
//! versions have.
//!
//! Everything here is atomic and lock-free: workers write their own cells, the control thread sums them.

mod counters;
mod health;
mod registry;

pub use self::{
    counters::{Counter, ListenerCounters, MemberCounters, PerWorker, ResponseClass},
    health::{CheckState, HealthCell},
    registry::{ListenerState, MemberState, PoolState, Registry},
};
