//! VRRP for the addresses of an amphora: RFC 9568 (version 3) and version 2 as keepalived speaks it.
//!
//! | module | what is inside |
//! | --- | --- |
//! | [`packet`] | advertisements on the wire |
//! | [`core`] | the protocol without sockets, clock or threads |
//! | [`config`] | what a virtual router is configured to be: keepalived.conf and the native document |
//! | [`net`] | sockets for advertisements; clients that connect while the VIP moves; the crate `amphora-netlink` |
//! | `daemon` | the thread that owns the virtual routers, and what it waits for |
//! | [`control`] | the control socket; its documents are in the crate `amphora-ipc` |

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests may block"))]

mod cli;
pub mod config;
pub mod control;
pub mod core;
mod daemon;
#[cfg(test)]
mod fixture;
pub mod net;
pub mod packet;
mod privileges;
mod run;
mod sys;

use std::process::ExitCode;

use amphora_logging::{LogFormat, Style};
use clap::Parser;

/// The program.
pub fn main() -> ExitCode {
    let options = cli::Options::parse();
    let _log = amphora_logging::to_stderr(
        options.log_level.clone(),
        Style { format: LogFormat::chosen(options.log_format), ..Style::default() },
    );
    match run::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
