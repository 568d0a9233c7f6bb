//! `amphora` of a pool: what it grants its members.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::object::Object;
use crate::{MemberOptions, OutlierDetection, PoolProtocol};

/// The longest `slow_start`, in seconds.
const MAX_SLOW_START: u64 = 3600;
/// The longest `drain_timeout`, in seconds.
const MAX_DRAIN_TIMEOUT: u64 = 86_400;
/// The longest `ejection_time` and `max_ejection_time`, in seconds.
const MAX_EJECTION_TIME: u64 = 86_400;

/// Reads the object of a pool of this protocol, if it is there.
pub(super) fn member_options(o: &mut Object<'_>, protocol: Option<PoolProtocol>) -> MemberOptions {
    let monitored = o.has("healthmonitor");
    let forwarded = protocol.filter(|protocol| protocol.is_forwarded());
    let given = o.object("amphora", |o| {
        let slow_start = seconds(o, "slow_start", 0..=MAX_SLOW_START).unwrap_or_default();
        let first_check = o.boolean("first_check").unwrap_or(false);
        if first_check && !monitored {
            o.fault("first_check", "needs a healthmonitor");
        }
        let drain_timeout = seconds(o, "drain_timeout", 0..=MAX_DRAIN_TIMEOUT);
        if let Some(protocol) = forwarded {
            let refused = [
                ("outlier_detection", "what their members answer is not seen"),
                ("drain_timeout", "flows to a member that goes end at once"),
            ];
            for (name, why) in refused.iter().filter(|(name, _)| o.has(name)) {
                o.fault(name, format!("is not for pools of protocol {protocol}: {why}"));
            }
        }
        let transparent = o.boolean("transparent_client_address").unwrap_or(false);
        if let Some(protocol) = forwarded.filter(|_| transparent) {
            let reason = format!("is not for pools of protocol {protocol}");
            o.fault("transparent_client_address", reason);
        }
        let outliers = o.object("outlier_detection", outliers);
        Some(MemberOptions { slow_start, transparent, first_check, drain_timeout, outliers })
    });
    given.unwrap_or_default()
}

fn outliers(o: &mut Object<'_>) -> Option<OutlierDetection> {
    let default = OutlierDetection::default();
    let within = 1..=MAX_EJECTION_TIME;
    let consecutive_failures = o.integer("consecutive_failures", 1..=100_u8);
    let ejection_time = seconds(o, "ejection_time", within.clone()).unwrap_or(default.ejection_time);
    let longest = seconds(o, "max_ejection_time", within);
    if longest.is_some_and(|longest| longest < ejection_time) {
        o.fault("max_ejection_time", "must not be less than ejection_time");
    }
    let max_ejected_percent = o.integer("max_ejected_percent", 1..=99_u8);
    Some(OutlierDetection {
        consecutive_failures: consecutive_failures.unwrap_or(default.consecutive_failures),
        ejection_time,
        max_ejection_time: longest.unwrap_or(default.max_ejection_time.max(ejection_time)),
        max_ejected_percent: max_ejected_percent.unwrap_or(default.max_ejected_percent),
    })
}

fn seconds(o: &mut Object<'_>, name: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<Duration> {
    o.integer(name, range).map(Duration::from_secs)
}

/// The object that [`member_options`] makes this of; `None` when there is nothing to say.
pub(super) fn write(member_options: &MemberOptions) -> Option<Value> {
    // Taken apart, so that a new field cannot be left out.
    let MemberOptions { slow_start, transparent, first_check, drain_timeout, outliers } = member_options;
    let mut object = Map::new();
    if !slow_start.is_zero() {
        object.insert("slow_start".into(), slow_start.as_secs().into());
    }
    if *transparent {
        object.insert("transparent_client_address".into(), true.into());
    }
    if *first_check {
        object.insert("first_check".into(), true.into());
    }
    if let Some(timeout) = drain_timeout {
        object.insert("drain_timeout".into(), timeout.as_secs().into());
    }
    if let Some(outliers) = outliers {
        let OutlierDetection { consecutive_failures, ejection_time, max_ejection_time, max_ejected_percent } =
            outliers;
        let detection = json!({
            "consecutive_failures": consecutive_failures,
            "ejection_time": ejection_time.as_secs(),
            "max_ejection_time": max_ejection_time.as_secs(),
            "max_ejected_percent": max_ejected_percent,
        });
        object.insert("outlier_detection".into(), detection);
    }
    (!object.is_empty()).then(|| object.into())
}
