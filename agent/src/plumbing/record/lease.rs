//! A lease in the record: on disk its end is a time of day, in the process one of the clock that never jumps.

use std::{
    io,
    net::Ipv4Addr,
    time::{Duration, Instant, SystemTime},
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::dhcp::{Lease, LeaseRoute, lease::ENDLESS};

/// A lease that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// What was given.
    pub lease: Lease,
    /// Its end; without, it has none.
    pub expires: Option<Instant>,
}

/// A [`Leased`] in the file and in the API's answers.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct RawLeased {
    address: String,
    server: Ipv4Addr,
    seconds: u32,
    renewal: u32,
    rebinding: u32,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<RawRoute>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
}

#[derive(Debug, Deserialize, Serialize)]
struct RawRoute {
    destination: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nexthop: Option<Ipv4Addr>,
}

impl From<&Leased> for RawLeased {
    fn from(leased: &Leased) -> Self {
        let lease = &leased.lease;
        let expires = leased.expires.map(|expires| {
            let left = expires.saturating_duration_since(tokio::time::Instant::now().into_std());
            (time_of_day() + left).as_secs()
        });
        let route = |route: &LeaseRoute| RawRoute {
            destination: route.destination.to_string(),
            nexthop: route.gateway,
        };
        Self {
            address: lease.address.to_string(),
            server: lease.server,
            seconds: lease.seconds,
            renewal: lease.renewal,
            rebinding: lease.rebinding,
            expires,
            routes: lease.routes.iter().map(route).collect(),
            mtu: lease.mtu,
        }
    }
}

impl RawLeased {
    /// `None` when it has ended. One without an end on a clock that was set back ends when it would if it were new.
    pub(super) fn read(self) -> io::Result<Option<Leased>> {
        let expires = match self.expires {
            None => None,
            Some(expires) => {
                let left = Duration::from_secs(expires).saturating_sub(time_of_day());
                if left.is_zero() {
                    return Ok(None);
                }
                let left = left.min(Duration::from_secs(self.seconds.into()));
                Some(tokio::time::Instant::now().into_std() + left)
            }
        };
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, format!("lease: {what}"));
        let net = |text: &str| text.parse::<Ipv4Net>().map_err(|error| wrong(format!("{text}: {error}")));
        let ordered = self.renewal <= self.rebinding && self.rebinding <= self.seconds;
        if !ordered || expires.is_none() != (self.seconds == ENDLESS) {
            return Err(wrong("its times do not fit".to_owned()));
        }
        let routes = self
            .routes
            .iter()
            .map(|route| Ok(LeaseRoute { destination: net(&route.destination)?, gateway: route.nexthop }));
        let lease = Lease {
            address: net(&self.address)?,
            server: self.server,
            seconds: self.seconds,
            renewal: self.renewal,
            rebinding: self.rebinding,
            routes: routes.collect::<io::Result<_>>()?,
            mtu: self.mtu,
        };
        Ok(Some(Leased { lease, expires }))
    }
}

#[expect(clippy::disallowed_methods, reason = "what is read after a boot can be nothing but a time of day")]
fn time_of_day() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
