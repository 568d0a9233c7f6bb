//! `[house_keeping]`.

use std::time::Duration;

use amphora_ini::{
    ConfigError,
    reader::{Reader, bounded, seconds},
};

use super::span;

/// `[house_keeping]`.
#[derive(Clone, Debug, PartialEq)]
pub struct HouseKeeping {
    /// `cert_interval`: how often is looked for certificates that end.
    pub cert_interval: Duration,
    /// `cert_expiry_buffer`: how long before its end a certificate is replaced.
    pub cert_expiry_buffer: Duration,
    /// `load_balancer_expiry_age`: how long what has become of load balancers is known. Rows of those that are gone are not kept, their
    /// events are.
    pub events: Duration,
    /// `spare_amphora_pool_size`: so many amphorae of each sort wait for a load balancer.
    pub spares: usize,
}

pub(super) fn read(read: &Reader<'_>) -> Result<HouseKeeping, ConfigError> {
    const SECTION: &str = "house_keeping";
    Ok(HouseKeeping {
        cert_interval: read.required(SECTION, "cert_interval", seconds(1))?,
        cert_expiry_buffer: read.required(SECTION, "cert_expiry_buffer", span(0))?,
        events: read.required(SECTION, "load_balancer_expiry_age", span(1))?,
        spares: read.required(SECTION, "spare_amphora_pool_size", bounded(0, 100))?,
    })
}
