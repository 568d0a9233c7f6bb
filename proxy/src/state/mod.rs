//! What outlives snapshots: state keyed by id. A configuration change hands the same `Arc` to the next
//! snapshot, so no change ever resets a counter, a health state or a connection count of an object that both
//! versions have.
//!
//! What workers touch is atomic and lock-free: they write their own cells, the control thread sums them. Histories and
//! rates are the control thread's own.

mod alarm;
mod counters;
mod departed;
mod failures;
mod health;
mod history;
mod outliers;
mod rate;
mod registry;
mod slow_start;

pub use amphora_model::CheckState;

pub use self::{
    alarm::Alarm,
    counters::{
        Counter, HandshakeCounters, HandshakeFailure, Http2Counters, ListenerCounters, MemberCounters, Open,
        PerWorker, PoolCounters, ResponseClass, SessionTimes, SlidingTime, WINDOW,
    },
    departed::Departed,
    failures::{Failed, Failure, Failures, Handshake, Unfit},
    health::HealthCell,
    history::{MemberHistory, MemberStatus, Past, PoolHistory},
    outliers::{Ejection, Ejections, Outlier, may_go},
    rate::Rate,
    registry::{
        HandshakeRates, ListenerRates, ListenerState, MemberRecord, MemberState, PoolState, Registry,
    },
    slow_start::{FULL, SlowStart, share},
};
