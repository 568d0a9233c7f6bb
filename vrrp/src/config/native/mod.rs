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
//! | `read` | the objects |
//! | `write` | the way back |

mod read;
#[cfg(test)]
mod tests;
mod write;

use amphora_model::{Faults, Path, Refusal, document::object::Object, strict_json};

pub use self::write::to_json;
use super::{
    Config,
    validate::{self, Field, Problem},
};

/// The largest document that is looked at, in octets.
pub const MAX_DOCUMENT: usize = 4 * 1024 * 1024;

/// Reads a document.
///
/// # Errors
/// Every fault, each with its path, at most [`MAX_FAULTS`](amphora_model::MAX_FAULTS).
pub fn parse(text: &str) -> Result<Config, Refusal> {
    let faults = Faults::default();
    let document = strict_json(text.as_bytes(), MAX_DOCUMENT, &|path, reason| faults.push(path, reason));
    let config = document.and_then(|document| Object::read(&document, Path::Root, &faults, read::config));
    let config = config.map(|instances| {
        let (paths, instances): (Vec<String>, Vec<_>) = instances.into_iter().unzip();
        for Problem { instance, field, index, reason } in
            validate::check(&instances.iter().collect::<Vec<_>>())
        {
            let mut path = paths.get(instance).cloned().unwrap_or_default();
            if let Some(name) = name_of(field) {
                path = format!("{path}.{name}");
            }
            if let Some(index) = index {
                path = format!("{path}[{index}]");
            }
            faults.push(path, reason);
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
        Err(refusal) => assert!(!refusal.faults.is_empty()),
    }
}
