//! The system calls that a program may make, by seccomp(2), from a list that is data.
//!
//! A list is a JSON document:
//!
//! ```json
//! {
//!   "allowed": ["read", "write"],
//!   "allowed_on_x86_64": ["epoll_wait"],
//!   "restricted": [
//!     {"syscall": "tgkill", "args": [{"index": 0, "type": "dword", "op": "eq", "val": "own pid"}], "comment": "abort(3)"}
//!   ]
//! }
//! ```
//!
//! `args` are those of the seccompiler crate: `op` is `eq`, `ne`, `lt`, `le`, `gt`, `ge` or `{"masked_eq": MASK}`. A system
//! call that is restricted several times is allowed when one of them holds. What is not on the list answers ENOSYS, as a
//! kernel that lacks it: libraries then do without it, and whoever took the program over does, too.

use std::process;

use seccompiler::TargetArch;
use serde::Deserialize;
use serde_json::{Value, json};

/// The answer to what is not on the list: ENOSYS.
const REFUSED: i32 = nix::libc::ENOSYS;

/// Stands for the program's process id in a list.
const OWN_PID: &str = "own pid";

/// The system calls of one program.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyscallList {
    allowed: Vec<String>,
    #[serde(default)]
    allowed_on_x86_64: Vec<String>,
    #[serde(default)]
    restricted: Vec<Value>,
}

impl SyscallList {
    /// Reads a list.
    ///
    /// # Errors
    /// When it is no such document.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Lets the thread make no other system calls; why not, where that fails.
    pub(crate) fn restrict(&self) -> Option<String> {
        let architecture =
            std::env::consts::ARCH.try_into().map_err(|_| "not on this architecture".to_owned());
        let applied = architecture
            .and_then(|architecture| self.compile(architecture))
            .and_then(|program| seccompiler::apply_filter(&program).map_err(|error| error.to_string()));
        applied.err().map(|error| format!("system calls are not restricted by seccomp: {error}"))
    }

    fn compile(&self, architecture: TargetArch) -> Result<seccompiler::BpfProgram, String> {
        let of_x86_64 = self.allowed_on_x86_64.iter().filter(|_| architecture == TargetArch::x86_64);
        let allowed = self.allowed.iter().chain(of_x86_64).map(|name| json!({"syscall": name}));
        let restricted = self.restricted.iter().cloned().map(name_own_process);
        let filter: Vec<_> = allowed.chain(restricted).collect();
        let document = json!({"program": {
            "mismatch_action": {"errno": REFUSED}, "match_action": "allow", "filter": filter,
        }});
        let mut programs = seccompiler::compile_from_json(document.to_string().as_bytes(), architecture)
            .map_err(|error| error.to_string())?;
        programs.remove("program").ok_or_else(|| "an empty list".to_owned())
    }
}

/// A rule with the process id where it says so.
fn name_own_process(mut rule: Value) -> Value {
    for argument in rule.get_mut("args").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(value) = argument.get_mut("val")
            && value == OWN_PID
        {
            *value = process::id().into();
        }
    }
    rule
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_list_compiles_and_what_it_must_not_say_is_refused() {
        let list = SyscallList::from_json(
            r#"{"allowed": ["read"], "allowed_on_x86_64": ["epoll_wait"], "restricted": [
                {"syscall": "tgkill", "args": [{"index": 0, "type": "dword", "op": "eq", "val": "own pid"}]}]}"#,
        );
        assert!(!list.unwrap().compile(TargetArch::x86_64).unwrap().is_empty());
        let unknown = SyscallList::from_json(r#"{"allowed": ["red"]}"#).unwrap();
        assert!(unknown.compile(TargetArch::x86_64).unwrap_err().contains("red"));
        let elsewhere = SyscallList::from_json(r#"{"allowed": ["epoll_wait"]}"#).unwrap();
        assert!(elsewhere.compile(TargetArch::aarch64).unwrap_err().contains("epoll_wait"));
        assert!(SyscallList::from_json(r#"{"allowed": [], "allow": ["read"]}"#).is_err());
    }

    #[test]
    fn the_lists_of_the_programs_are_good_everywhere() {
        let lists = [
            include_str!("../../../proxy/src/privileges/syscalls.json"),
            include_str!("../../../vrrp/src/privileges/syscalls.json"),
        ];
        for list in lists {
            let list = SyscallList::from_json(list).unwrap();
            for architecture in [TargetArch::x86_64, TargetArch::aarch64] {
                list.compile(architecture).unwrap();
            }
        }
    }
}
