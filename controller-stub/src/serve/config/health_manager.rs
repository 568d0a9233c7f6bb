//! `[health_manager]`.

use std::{net::SocketAddr, time::Duration};

use amphora_ini::{
    ConfigError,
    reader::{Reader, bounded, error, parse, seconds},
};

/// `[health_manager]`.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthManager {
    /// `bind_ip` and `bind_port`: where heartbeats come to (UDP).
    pub bind: SocketAddr,
    /// `heartbeat_key`; without it one is made at the first start.
    pub key: Option<String>,
    /// `heartbeat_interval` of amphorae.
    pub interval: Duration,
    /// `heartbeat_timeout`: an amphora that was not heard for so long is stale.
    pub timeout: Duration,
    /// `health_check_interval`: how often is looked for stale ones.
    pub check_interval: Duration,
    /// `failover_threshold`: when so many [are silent at once](crate::serve::health_manager::watch), something else is wrong and none is replaced.
    pub failover_threshold: Option<usize>,
}

pub(super) fn read(read: &Reader<'_>) -> Result<HealthManager, ConfigError> {
    const SECTION: &str = "health_manager";
    let (interval, timeout) = (
        read.required(SECTION, "heartbeat_interval", seconds(1))?,
        read.required(SECTION, "heartbeat_timeout", seconds(2))?,
    );
    if timeout < 2 * interval {
        let reason = "must be twice heartbeat_interval at least: one heartbeat may get lost".to_owned();
        return Err(error(SECTION, "heartbeat_timeout", read.place(SECTION, "heartbeat_timeout"), reason));
    }
    Ok(HealthManager {
        bind: SocketAddr::new(
            read.required(SECTION, "bind_ip", parse)?,
            read.required(SECTION, "bind_port", parse)?,
        ),
        key: read.optional(SECTION, "heartbeat_key", parse)?,
        interval,
        timeout,
        check_interval: read.required(SECTION, "health_check_interval", seconds(1))?,
        failover_threshold: read.optional(SECTION, "failover_threshold", bounded(1, 1_000_000))?,
    })
}
