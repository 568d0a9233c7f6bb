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
//!
//! What is allowed whatever its arguments costs the same wherever it stands, however long the list: Linux (since 5.11) finds
//! out when the list comes, and walks through it for no such call. What a program does all the time is not restricted, then.

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

    /// As seccomp_is_const_allow() of Linux: whether the filter allows a system call before it looks at anything but its
    /// number.
    fn is_always_allowed(program: &seccompiler::BpfProgram, architecture: u32, number: u32) -> bool {
        const NUMBER: u32 = 0;
        const ARCHITECTURE: u32 = 4;
        const ALLOW: u32 = 0x7fff_0000;
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            match (step.code, step.k) {
                (0x20, NUMBER) => accumulator = number,
                (0x20, ARCHITECTURE) => accumulator = architecture,
                (0x05, k) => at += k as usize,
                (0x15, k) => at += usize::from(if accumulator == k { step.jt } else { step.jf }),
                (0x06, k) => return k == ALLOW,
                _ => return false,
            }
        }
    }

    #[test]
    fn what_a_request_takes_is_allowed_without_a_walk_through_the_list() {
        let list =
            SyscallList::from_json(include_str!("../../../proxy/src/privileges/syscalls.json")).unwrap();
        // Linux's numbers of recvfrom, sendto, readv, writev, splice, epoll_wait or epoll_pwait, accept4, close, and of socket,
        // which is restricted.
        for (architecture, name, calls, socket) in [
            (TargetArch::x86_64, 0xc000_003e, [45, 44, 19, 20, 275, 232, 288, 3], 41),
            (TargetArch::aarch64, 0xc000_00b7, [207, 206, 65, 66, 76, 22, 242, 57], 198),
        ] {
            let program = list.compile(architecture).unwrap();
            for call in calls {
                assert!(is_always_allowed(&program, name, call), "{call}");
            }
            assert!(!is_always_allowed(&program, name, socket));
        }
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
