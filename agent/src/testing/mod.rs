//! What tests stand on: certificates, a proxy and a VRRP daemon that only pretend, and an agent on a loopback port.
#![allow(clippy::unwrap_used, missing_docs)]

pub(crate) mod agent;
pub(crate) mod certificates;
mod control_socket;
pub(crate) mod hostile;
pub(crate) mod octavia;
pub(crate) mod proxy;
pub(crate) mod vrrp;

pub(crate) use self::{
    agent::TestAgent,
    certificates::Certificates,
    proxy::{FakeProxy, Mood},
    vrrp::{FakeVrrp, VrrpMood},
};

use std::time::{Duration, Instant};

/// Waits until a condition holds; fails the test when it does not within ten seconds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
