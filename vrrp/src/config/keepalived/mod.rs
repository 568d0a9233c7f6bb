//! keepalived.conf, as Octavia renders it and people write it for the same purpose.
//!
//! What is read means what it means to keepalived 2.2.7, with its defaults and its rules of precedence. Where that one
//! logs a complaint and goes on with something else than what the text says, the text is refused here: an unknown
//! keyword, a value out of bounds, a setting that cannot be honoured. `docs/vrrp.md` lists every keyword.
//!
//! Three things that Octavia renders are better than an error:
//!
//! - A password in version 3 (which is what IPv6 means) is left out, as keepalived leaves it out.
//! - `unicast_peer` without a peer means multicast, as it does to keepalived.
//! - `gateway` in a route is read as `via`. keepalived does not know the word and drops the route; Octavia renders it
//!   for the host routes of a subnet.
//!
//! | module | what is inside |
//! | --- | --- |
//! | `lexer` | text to statements |
//! | `value` | the values of a statement |
//! | `global` | `global_defs` |
//! | `script` | `vrrp_script` and `track_script` |
//! | `instance` | `vrrp_instance` |
//! | `route` | what stands in `virtual_routes` and `virtual_rules` |
//! | `draft` | from what was read to an [`Instance`](super::Instance), with the defaults |
//! | `unsupported` | why a keyword of keepalived's is refused |

#[cfg(test)]
mod differential;
mod draft;
mod global;
mod instance;
mod lexer;
#[cfg(test)]
mod refusals;
mod route;
mod script;
#[cfg(test)]
mod tests;
mod unsupported;
mod value;

pub use self::lexer::MAX_TEXT;
use self::{
    draft::Draft,
    global::Globals,
    lexer::{Line, Statement},
    script::Scripts,
};
use amphora_model::{Faults, Refusal};

use super::{
    Config,
    validate::{self, Problem},
};

/// Reads a keepalived.conf.
///
/// # Errors
/// Every fault, each with its line, at most [`MAX_FAULTS`](amphora_model::MAX_FAULTS). The text of the line is in the reason, but
/// for a password.
pub fn parse(text: &str) -> Result<Config, Refusal> {
    let faults = Faults::default();
    let config = lexer::read(text, &faults).map(|statements| config(&statements, &faults));
    faults.into_result(config)
}

fn config(statements: &[Statement], faults: &Faults) -> Config {
    let mut globals = Globals::default();
    let mut scripts = Scripts::default();
    let mut drafts = Vec::new();
    for statement in statements {
        match statement.keyword() {
            "global_defs" => globals.read(statement, faults),
            "vrrp_script" => scripts.read(statement, faults),
            "vrrp_instance" => drafts.extend(instance::read(statement, &globals, &scripts, faults)),
            _ => unsupported::refuse(statement, "", faults),
        }
    }
    if drafts.is_empty() && !statements.iter().any(|statement| statement.keyword() == "vrrp_instance") {
        faults.push("", "there is no vrrp_instance");
    }
    let (drafts, instances): (Vec<Draft>, Vec<_>) = drafts
        .into_iter()
        .filter_map(|draft| {
            let instance = draft.finish(&globals, faults)?;
            Some((draft, instance))
        })
        .unzip();
    for Problem { instance, field, index, reason } in validate::check(&instances.iter().collect::<Vec<_>>()) {
        if let Some(draft) = drafts.get(instance) {
            faults.push(Line(draft.line_of(field, index)), reason);
        }
    }
    Config { instances }
}

/// Reads anything, for fuzzing: what is accepted comes back from the native document as it is.
///
/// # Panics
/// When it does not.
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse(text) {
        Ok(config) => assert_eq!(super::native::parse(&super::native::to_json(&config)), Ok(config)),
        Err(refusal) => assert!(!refusal.faults.is_empty()),
    }
}
