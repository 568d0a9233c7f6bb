//! Metrics in Prometheus' text format, under the names that Octavia's PROMETHEUS listener uses (`octavia_*`) where the
//! meaning is the same; what Octavia has no name for is `amphora_*`. `docs/metrics.md` lists them all.
//!
//! [`Exposition`] writes the text from a snapshot of the counters, in pieces: with thousands of members the whole is
//! tens of megabytes. It writes only objects that the snapshot has, so the series of a deleted object disappear.
//! [`Scrapes`] shares what it writes among all who want it. No I/O here but [`Host::read`].

mod families;
mod host;
mod rows;
mod scrapes;
mod sink;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use amphora_ipc::{
    proxy::{Info, Peers, Stats},
    usage::Usage,
};
use amphora_model::{ListenerId, LoadBalancer};

use self::{
    families::{Family, Series},
    rows::Rows,
    sink::Sink,
};
use crate::snapshot::Expiry;

pub use self::{
    host::Host,
    scrapes::{Piece, Scrape, Scrapes},
};

/// The `Content-Type` of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the metrics are written from.
#[derive(Clone, Copy, Debug)]
pub struct MetricsInput<'a> {
    /// The process.
    pub info: &'a Info,
    /// Every counter.
    pub stats: &'a Stats,
    /// The document that runs, for what is configured and not counted.
    pub loadbalancer: Option<&'a LoadBalancer>,
    /// Until when what their clients are shown is good, in seconds since 1970, of listeners that terminate TLS.
    pub expiry: &'a HashMap<ListenerId, Expiry>,
    /// The other amphora, where there is one.
    pub peers: Option<&'a Peers>,
    /// The machine, where it is known.
    pub host: Option<Host>,
    /// What the process has of it.
    pub usage: Usage,
}

/// A place between two lines of an exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    family: usize,
    row: usize,
}

/// The text of all metrics, written piece by piece. It has taken what it needs from its input.
/// A copy goes on by itself from where the original is, over the same values.
#[derive(Clone, Debug)]
pub struct Exposition {
    rows: Arc<Rows>,
    family: usize,
    row: usize,
    /// The family's HELP and TYPE lines are written.
    headed: bool,
}

impl Exposition {
    /// At the first piece.
    pub fn new(input: &MetricsInput<'_>) -> Self {
        Self { rows: Arc::new(Rows::new(input)), family: 0, row: 0, headed: false }
    }

    /// Where in the text it is. What it writes from there depends on nothing else.
    pub(crate) fn place(&self) -> Place {
        Place { family: self.family, row: self.row }
    }

    /// About the memory that the values take, which all copies share.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    /// Appends the next piece to `out`: whole lines, until they are `size` bytes or slightly more. False when nothing is
    /// left after it.
    pub fn write_piece(&mut self, out: &mut String, size: usize) -> bool {
        let full = out.len().saturating_add(size);
        while let Some(family) = families::all().nth(self.family) {
            while self.write_row(family, out) {
                self.row += 1;
                if out.len() >= full {
                    return true;
                }
            }
            self.family += 1;
            self.row = 0;
            self.headed = false;
        }
        false
    }

    /// Writes what the present row has for the family; false when there is no such row.
    fn write_row(&mut self, family: &'static Family, out: &mut String) -> bool {
        let mut sink = Sink::new(family, &mut self.headed, out);
        let (rows, row) = (&self.rows, self.row);
        match family.series {
            Series::Process(write) if row == 0 => write(&rows.process, &mut sink),
            Series::Process(_) => return false,
            Series::Peers(write) => match rows.peers.as_ref().filter(|_| row == 0) {
                Some(peers) => write(peers, &mut sink),
                None => return false,
            },
            Series::Listener(write) => match rows.listeners.get(row) {
                Some(listener) => write(listener, sink.labelled(&listener.labels)),
                None => return false,
            },
            Series::RateLimit(write) => match rows.rate_limits.get(row) {
                Some(policy) => write(policy, sink.labelled(&policy.labels)),
                None => return false,
            },
            Series::Pool(write) => match rows.pools.get(row) {
                Some(pool) => write(pool, sink.labelled(&pool.labels)),
                None => return false,
            },
            Series::Member(write) => match rows.members.get(row) {
                Some(member) => write(member, sink.labelled(&member.labels)),
                None => return false,
            },
        }
        true
    }
}

/// Appends all of the text at once; for few members.
pub fn render(input: &MetricsInput<'_>, out: &mut String) {
    let mut exposition = Exposition::new(input);
    while exposition.write_piece(out, usize::MAX) {}
}
