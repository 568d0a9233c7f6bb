//! Documents for tests.

use super::{CountersStatus, InstanceStatus, Status};

/// A daemon with these virtual routers, which has just started.
pub fn status(instances: Vec<InstanceStatus>) -> Status {
    Status { version: "1".to_owned(), pid: 1, uptime_ms: 1, started: true, data_plane: None, instances }
}

/// A virtual router that has counted nothing.
pub fn instance(name: &str, state: &str) -> InstanceStatus {
    InstanceStatus {
        name: name.to_owned(),
        state: state.to_owned(),
        since_ms: 1,
        reason: "started".to_owned(),
        interface: "eth1".to_owned(),
        vrid: 1,
        version: 3,
        priority: 100,
        interval_ms: 1000,
        master_interval_ms: 1000,
        fit: true,
        handed_over: false,
        addresses: vec!["192.0.2.100/32".to_owned()],
        peer: None,
        counters: CountersStatus::default(),
        error: None,
    }
}
