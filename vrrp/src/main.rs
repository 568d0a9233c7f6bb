//! `amphora-vrrp`: VRRP for the addresses of one amphora.

use std::process::ExitCode;

fn main() -> ExitCode {
    amphora_vrrp::main()
}
