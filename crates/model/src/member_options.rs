//! What a pool grants its members beyond what Octavia has a word for: `pool.amphora`.

use std::time::Duration;

/// `pool.amphora`; by default nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberOptions {
    /// `slow_start`, whole seconds: for so long the weight of a member that is new or back grows from a sixteenth to all of it, as
    /// with HAProxy's `slowstart`. Zero: it has all of it at once.
    pub slow_start: Duration,
    /// `transparent_client_address`: members are connected to from the addresses of clients (HAProxy's `source 0.0.0.0 usesrc
    /// clientip`); of pools whose members are connected to.
    pub transparent: bool,
    /// `first_check`: a member that is new gets nothing before its first good check (HAProxy's `init-state down`). Of pools with a
    /// health monitor alone.
    pub first_check: bool,
    /// `drain_timeout`, whole seconds: for so long a member that is removed, disabled or given weight 0 may finish what it has, and then
    /// that is closed. `None`: for as long as it takes.
    pub drain_timeout: Option<Duration>,
    /// `outlier_detection`; `None`: what members answer takes nobody out.
    pub outliers: Option<OutlierDetection>,
}

/// `outlier_detection`: which members are taken out for a while because of what they do with real traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// `consecutive_failures`, 1 to 100: so many in a row.
    pub consecutive_failures: u8,
    /// `ejection_time`, whole seconds: for so long the first time, twice as long the second, and so on.
    pub ejection_time: Duration,
    /// `max_ejection_time`, whole seconds, not less than `ejection_time`: but for no longer than this.
    pub max_ejection_time: Duration,
    /// `max_ejected_percent`, 1 to 99: so many of a pool's members at once, though one always, and never the last.
    pub max_ejected_percent: u8,
}

impl Default for OutlierDetection {
    /// Envoy's.
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejected_percent: 10,
        }
    }
}

impl MemberOptions {
    /// Whether there is nothing of it.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
