//! The native document: JSON that can say everything a [`Config`] can.
//!
//! ```json
//! {"instances": [{
//!     "name": "lb", "interface": "eth1", "vrid": 1, "interval_ms": 100,
//!     "unicast": {"source": "192.0.2.1", "peers": ["192.0.2.2"]},
//!     "addresses": [{"address": "192.0.2.100/32"}],
//!     "track": {"fall": 2, "rise": 2}
//! }]}
//! ```
//!
//! A field that is not known is refused, wherever it stands, and so is a name that comes twice in one object. `null` is as
//! good as absent. `docs/vrrp.md` lists every field.
//!
//! | module | what is inside |
//! | --- | --- |
//! | `object` | typed access to the fields of one object |
//! | `read` | the objects |
//! | `write` | the way back |

mod object;
mod read;
#[cfg(test)]
mod tests;
mod write;

use amphora_model::strict_json;

pub use self::write::to_json;
use super::{
    Config, Invalid,
    fault::Faults,
    validate::{self, Field, Problem},
};

/// The largest document that is looked at, in octets.
pub const MAX_DOCUMENT: usize = 4 * 1024 * 1024;

/// Reads a document.
///
/// # Errors
/// Every fault, each with its path, at most [`MAX_FAULTS`](super::MAX_FAULTS).
pub fn parse(text: &str) -> Result<Config, Vec<Invalid>> {
    let faults = Faults::default();
    let document = strict_json(text.as_bytes(), MAX_DOCUMENT, &|path, reason| faults.push(path, reason));
    let config = document.and_then(|document| read::config(&document, &faults));
    let config = config.map(|instances| {
        let (positions, instances): (Vec<_>, Vec<_>) = instances.into_iter().unzip();
        for Problem { instance, field, index, reason } in
            validate::check(&instances.iter().collect::<Vec<_>>())
        {
            let position = positions.get(instance).copied().unwrap_or(instance);
            let mut place = format!("instances[{position}]");
            if let Some(name) = name_of(field) {
                place = format!("{place}.{name}");
            }
            if let Some(index) = index {
                place = format!("{place}[{index}]");
            }
            faults.push(place, reason);
        }
        Config { instances }
    });
    faults.into_result(config)
}

/// What the document calls it.
fn name_of(field: Field) -> Option<&'static str> {
    Some(match field {
        Field::Instance => return None,
        Field::Vrid => "vrid",
        Field::Accept => "accept",
        Field::Preempt => "preempt",
        Field::PreemptDelay => "preempt_delay_ms",
        Field::Password => "password",
        Field::UnicastSource => "unicast.source",
        Field::UnicastPeers => "unicast.peers",
        Field::Addresses => "addresses",
        Field::Excluded => "excluded",
        Field::Routes => "routes",
        Field::Rules => "rules",
        Field::TrackInterfaces => "track_interfaces",
    })
}

/// Reads anything, for fuzzing: what is accepted comes back from its canonical form as it is.
///
/// # Panics
/// When it does not.
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse(text) {
        Ok(config) => assert_eq!(parse(&to_json(&config)), Ok(config)),
        Err(faults) => assert!(!faults.is_empty()),
    }
}
