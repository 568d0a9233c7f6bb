//! The pair of sections behind listeners of protocol PROMETHEUS. They are the same in each text that has them.

use super::{Fault, words::Line};

/// The name of the one.
pub(super) const FRONTEND: &str = "prometheus-exporter-internal-endpoint";

/// The name of the other.
pub(super) const BACKEND: &str = "prometheus-exporter-internal";

/// What is in the one. Its `option` is left out from Octavia 17 on.
const FRONTEND_LINES: [&str; 8] = [
    "bind 127.0.0.1:9101",
    "mode http",
    "no log",
    "option http-use-htx",
    "http-request use-service prometheus-exporter if { path /metrics }",
    "http-request reject",
    "timeout http-request 5s",
    "timeout client 5s",
];

/// What is in the other.
const BACKEND_LINES: [&str; 6] = [
    "mode http",
    "no log",
    "balance first",
    "timeout connect 5s",
    "timeout server 5s",
    "server prometheus-internal 127.0.0.1:9102",
];

/// Which lines of a section were there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(u8);

impl Seen {
    /// Takes a line of the frontend.
    pub(super) fn frontend(&mut self, line: &Line<'_>) -> Result<(), Fault> {
        self.line(line, &FRONTEND_LINES)
    }

    /// Takes a line of the backend.
    pub(super) fn backend(&mut self, line: &Line<'_>) -> Result<(), Fault> {
        self.line(line, &BACKEND_LINES)
    }

    fn line(&mut self, line: &Line<'_>, lines: &[&str]) -> Result<(), Fault> {
        let words = line.words.iter().map(|word| word.raw);
        let at = lines.iter().position(|known| known.split(' ').eq(words.clone()));
        let at =
            at.ok_or_else(|| line.place.fault("is not known in a section of the exporter for Prometheus"))?;
        let bit = 1 << at;
        if self.0 & bit != 0 {
            return Err(line.place.fault("is there twice"));
        }
        self.0 |= bit;
        Ok(())
    }

    /// Whether the backend is what Octavia writes.
    pub(super) fn is_backend(self) -> bool {
        self.0 == (1 << BACKEND_LINES.len()) - 1
    }

    /// Whether the frontend is.
    pub(super) fn is_frontend(self) -> bool {
        const HTX: u8 = 1 << 3;
        self.0 | HTX == u8::MAX
    }
}
