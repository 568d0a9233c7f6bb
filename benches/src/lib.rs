//! What the benchmarks share: a backend, a load generator that checks every answer, the kernel's accounting of a
//! process, the documents that drive `amphora-proxy`, and pictures of what came of it.
//!
//! The load generator and the backend are two threads on one core, each a loop over epoll, so that the proxy under
//! test has the other core to itself. Nothing here is part of the product.

use std::process::ExitCode;

pub mod amphora;
pub mod backend;
pub mod chart;
pub mod control;
pub mod document;
pub mod exchange;
pub mod histogram;
pub mod load;
pub mod peers;
pub mod process;
pub mod report;
pub mod rng;
pub mod screen;
pub mod syslog;
pub mod tls;
pub mod wire;

/// Errors of the benchmark programs: a sentence for whoever runs them.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// How a benchmark ends: well, or with a target missed or an answer wrong, or with an error, which is told.
pub fn exit_code(name: &str, good: Result<bool>) -> ExitCode {
    match good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A result, by default with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
