//! `vrrp_script` and `track_script`.
//!
//! A script is not run. Octavia's asks the data plane on a socket whether it is there; here the connection to it says so
//! at once. Of the script only how often it must fail and succeed has a meaning.

use std::collections::HashMap;

use amphora_model::Faults;

use super::{
    lexer::Statement,
    unsupported,
    value::{number, times},
};
use crate::config::Track;

/// keepalived keeps intervals as microseconds in 32 bits.
const MAX_INTERVAL: u32 = u32::MAX / 1_000_000;
/// keepalived counts in an `int`.
const MAX_COUNT: u32 = i32::MAX as u32;

/// The scripts that were defined so far, by name. `None` for one with faults, so that a reference to it is not called
/// dangling.
#[derive(Debug, Default)]
pub(super) struct Scripts(HashMap<String, Option<Track>>);

impl Scripts {
    pub(super) fn read(&mut self, block: &Statement, faults: &Faults) {
        let [name] = block.values() else {
            return block.fault(faults, "needs a name, and nothing else before its block");
        };
        let track = script(block, faults);
        if self.0.insert(name.clone(), track).is_some() {
            block.fault(faults, "is the name of another vrrp_script");
        }
    }

    /// What one line of a `track_script` block refers to.
    pub(super) fn tracked(&self, line: &Statement, faults: &Faults) -> Option<Track> {
        line.without_block(faults)?;
        weight(line.values(), line, faults);
        let Some(track) = self.0.get(line.keyword()) else {
            line.fault(faults, "no vrrp_script of this name is defined before");
            return None;
        };
        *track
    }
}

fn script(block: &Statement, faults: &Faults) -> Option<Track> {
    let mut script = false;
    let mut fall = Some(1);
    let mut rise = Some(1);
    let mut seen: Vec<&str> = Vec::new();
    for s in block.body(faults)? {
        if seen.contains(&s.keyword()) {
            s.fault(faults, "is given twice");
            continue;
        }
        seen.push(s.keyword());
        match s.keyword() {
            "script" => {
                script = true;
                if s.without_block(faults).is_some() && s.values().iter().all(String::is_empty) {
                    s.fault(faults, "needs a command");
                }
            }
            "fall" => fall = s.value(faults, number(1..=MAX_COUNT)),
            "rise" => rise = s.value(faults, number(1..=MAX_COUNT)),
            "interval" | "timeout" => drop(s.value(faults, times(1..=MAX_INTERVAL))),
            "weight" if s.without_block(faults).is_some() => only_zero(s.values(), s, faults),
            "weight" => {}
            "user" => drop(s.without_block(faults)),
            _ => unsupported::refuse(s, "vrrp_script", faults),
        }
    }
    if !script {
        block.fault(faults, "needs a script");
    }
    Some(Track { fall: fall?, rise: rise? })
}

/// What may stand behind the name of something tracked: `weight 0`.
pub(super) fn weight(words: &[String], s: &Statement, faults: &Faults) {
    match words {
        [] => {}
        [weight, rest @ ..] if weight == "weight" => only_zero(rest, s, faults),
        [other, ..] => s.fault(faults, format_args!("{other:?} is not known here")),
    }
}

fn only_zero(words: &[String], s: &Statement, faults: &Faults) {
    match words {
        [zero] if zero == "0" => {}
        _ => s.fault(
            faults,
            "must be weight 0: what is tracked and down takes the instance out, it does not change its priority",
        ),
    }
}
