//! `amphora` of a pool: what it grants its members.

use std::time::Duration;

use serde_json::{Map, Value};

use super::object::Object;
use crate::{Kindness, PoolProtocol};

/// The longest `slow_start`, in seconds.
const MAX_SLOW_START: u64 = 3600;

/// Reads the object of a pool, if it is there.
pub(super) fn kindness(o: &mut Object<'_>, protocol: Option<PoolProtocol>) -> Kindness {
    let given = o.object("amphora", |o| {
        let slow_start = Duration::from_secs(o.integer("slow_start", 0..=MAX_SLOW_START).unwrap_or(0));
        let transparent = o.boolean("transparent_client_address").unwrap_or(false);
        if let Some(protocol) = protocol.filter(|protocol| transparent && protocol.is_forwarded()) {
            let reason = format!("is not for pools of protocol {protocol}");
            o.fault("transparent_client_address", reason);
        }
        Some(Kindness { slow_start, transparent })
    });
    given.unwrap_or_default()
}

/// The object that [`kindness`] makes this of; `None` when there is nothing to say.
pub(super) fn write(kindness: &Kindness) -> Option<Value> {
    // Taken apart, so that a new field cannot be left out.
    let Kindness { slow_start, transparent } = *kindness;
    let mut object = Map::new();
    if !slow_start.is_zero() {
        object.insert("slow_start".into(), slow_start.as_secs().into());
    }
    if transparent {
        object.insert("transparent_client_address".into(), true.into());
    }
    (!object.is_empty()).then(|| object.into())
}
