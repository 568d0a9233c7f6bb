//! How much of everything there may be at once, so that what the process has to live on is never used up: descriptors
//! and memory are finite, and whoever answers the controller, says whether the data plane is fit, or probes members must
//! not find them taken by clients.
//!
//! What comes of single clients, and how fast, is bounded by what tenants ask for ([`rate`]).
//!
//! [`Resources`] are what the process may use, [`Bounds`] what is made of it: pure arithmetic. [`Places`] count what is
//! bounded.

pub mod memory;
mod places;
pub mod rate;

use std::ops::RangeInclusive;

pub use self::places::{Clients, Places};
use crate::conn::{BUFFER_SIZE, PIPE_SIZE};

/// Fewer clients than this are not worth a start.
const LEAST_CLIENTS: u64 = 16;

/// Descriptors of the process as such: the standard ones, its control thread, the threads that probe, scrape and answer
/// for fitness, and what is opened for a moment (documents, `/proc`).
const PROCESS: u64 = 40;

/// Descriptors of a worker: its runtime's, and one to syslog.
const WORKER: u64 = 5;

/// Of this many descriptors one may be a listening socket, and another one a probe's.
const SHARE: u64 = 16;

/// Listening sockets per worker: at the least, and how many there may always be for a limit that is high enough.
const SOCKETS: RangeInclusive<u64> = 4..=256;
const MANY_SOCKETS: u64 = 1024;

/// Probes under way at once. Never reached, and so no probe late, while the sum over all targets of (time that a probe
/// takes / `delay`) is below it.
const PROBES: RangeInclusive<u64> = 16..=4096;

/// Memory that a client may take: a buffer in each direction, as HAProxy reckons. One that waits takes less than a tenth of it.
const CLIENT_MEMORY: u64 = 2 * BUFFER_SIZE as u64;

/// One part in so many of the memory is for bodies of members that clients have not taken and that exceed what a client is
/// reckoned with.
const BACKLOG_SHARE: u64 = 8;

/// What the process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Open descriptors (`RLIMIT_NOFILE`).
    pub descriptors: u64,
    /// Memory, in bytes; see [`memory::available`].
    pub memory: u64,
    /// Descriptors that are set aside for the control sockets and the other amphora.
    pub set_aside: usize,
    /// Worker threads, at least one.
    pub workers: usize,
}

/// How much of everything there may be at once. What is left of the descriptors is for the control sockets, the other
/// amphora and the process itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Worker threads.
    pub workers: usize,
    /// Connections of clients, to all listeners together. Each may have one to a member besides.
    pub clients: u32,
    /// Pipes of each worker.
    pub pipes: usize,
    /// Idle connections to members that each worker keeps.
    pub idle: usize,
    /// Probes of members.
    pub probes: usize,
    /// Bytes of bodies from members of HTTP/2, for each worker, beyond which these are [held back](crate::http2::Backlog).
    pub backlog: usize,
    /// Listening sockets of all workers together. As many again may be open while a change replaces them.
    pub sockets: usize,
}

/// There is too little of something to serve at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLittle {
    /// Too few descriptors.
    #[error(
        "the limit of open descriptors (RLIMIT_NOFILE) is {limit}; {workers} workers and {LEAST_CLIENTS} clients need \
         {needed}"
    )]
    Descriptors {
        /// The limit.
        limit: u64,
        /// The least that would do.
        needed: u64,
        /// Worker threads.
        workers: usize,
    },
    /// Too little memory.
    #[error("{limit} bytes of memory are too little: {LEAST_CLIENTS} clients need {needed}")]
    Memory {
        /// Bytes.
        limit: u64,
        /// The least that would do, in bytes.
        needed: u64,
    },
}

/// What descriptors allow.
struct ByDescriptors {
    clients: u64,
    sockets: u64,
    probes: u64,
}

impl Resources {
    /// Shares out what there is. Of what nobody else needs, five descriptors are for two clients, as in HAProxy when its
    /// `maxconn` follows from `ulimit-n`: two clients, two connections to members, and one that is a quarter of a pipe's
    /// two, or of two idle connections to members.
    ///
    /// # Errors
    /// When there is too little to serve.
    pub fn share_out(self) -> Result<Bounds, TooLittle> {
        let Self { descriptors, memory, workers, .. } = self;
        let by_descriptors = self.by_descriptors(descriptors);
        if by_descriptors.clients < LEAST_CLIENTS {
            let enough = |limit: &u64| self.by_descriptors(*limit).clients >= LEAST_CLIENTS;
            let needed = (descriptors..=u64::from(u32::MAX)).find(enough).unwrap_or(u64::MAX);
            return Err(TooLittle::Descriptors { limit: descriptors, needed, workers });
        }
        // The rest is for all that grows with the configuration and not with clients.
        let by_memory = memory / 4 * 3 / CLIENT_MEMORY;
        if by_memory < LEAST_CLIENTS {
            let needed = (LEAST_CLIENTS * CLIENT_MEMORY).div_ceil(3) * 4;
            return Err(TooLittle::Memory { limit: memory, needed });
        }
        let clients = by_descriptors.clients.min(by_memory);
        let pipes = (by_descriptors.clients / 8).min(memory / 8 / PIPE_SIZE as u64);
        let each = |all: u64| usize::try_from(all).unwrap_or(usize::MAX) / workers.max(1);
        Ok(Bounds {
            workers,
            clients: u32::try_from(clients).unwrap_or(u32::MAX),
            pipes: each(pipes),
            idle: each(by_descriptors.clients / 4),
            backlog: each(memory / BACKLOG_SHARE),
            probes: usize::try_from(by_descriptors.probes).unwrap_or(usize::MAX),
            sockets: usize::try_from(by_descriptors.sockets).unwrap_or(usize::MAX),
        })
    }

    fn by_descriptors(&self, descriptors: u64) -> ByDescriptors {
        let workers = self.workers as u64;
        let sockets =
            (descriptors / SHARE).clamp(workers * SOCKETS.start(), MANY_SOCKETS.max(workers * SOCKETS.end()));
        let probes = (descriptors / SHARE).clamp(*PROBES.start(), *PROBES.end());
        let reserve = PROCESS + self.set_aside as u64 + workers * WORKER + 2 * sockets + probes;
        let clients = u128::from(descriptors.saturating_sub(reserve)) * 2 / 5;
        ByDescriptors { clients: u64::try_from(clients).unwrap_or(u64::MAX), sockets, probes }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::{
        control::{ControlSocket, FitnessSocket},
        peers::Peers,
    };

    const GIB: u64 = 1 << 30;

    fn bounds(descriptors: u64, memory: u64, workers: usize) -> Result<Bounds, TooLittle> {
        Resources { descriptors, memory, set_aside: 50, workers }.share_out()
    }

    #[test]
    fn what_is_scarcest_decides() {
        let few = bounds(400, GIB, 2).unwrap();
        let backlog = 64 << 20;
        let expected =
            Bounds { workers: 2, clients: 90, pipes: 5, idle: 11, backlog, probes: 25, sockets: 25 };
        assert_eq!(few, expected);
        let many = bounds(1 << 20, GIB, 2).unwrap();
        let expected = Bounds {
            workers: 2,
            clients: 24_576,
            pipes: 64,
            idle: 52_116,
            backlog,
            probes: 4096,
            sockets: 1024,
        };
        assert_eq!(many, expected, "three quarters of the memory");
        assert!(bounds(1 << 20, 64 * GIB, 2).unwrap().clients > 400_000);
        bounds(u64::MAX, u64::MAX, 1).unwrap();
    }

    /// The table of docs/proxy.md.
    #[test]
    fn the_manual_says_what_is_so() {
        let manual = include_str!("../../../docs/proxy.md");
        for (descriptors, memory, workers) in
            [(400, GIB, 2), (1024, GIB, 2), (20_000, GIB, 2), (524_288, 4 * GIB, 4)]
        {
            let set_aside = ControlSocket::DESCRIPTORS + FitnessSocket::DESCRIPTORS + Peers::DESCRIPTORS;
            let resources = Resources { descriptors, memory, set_aside, workers };
            let Bounds { clients, pipes, idle, probes, sockets, .. } = resources.share_out().unwrap();
            let row = format!(
                "| {descriptors} | {} GiB | {workers} | {clients} | {} | {} | {} | {probes} |",
                memory / GIB,
                pipes * workers,
                idle * workers,
                sockets / workers,
            );
            assert!(manual.replace(',', "").contains(&row), "{row}");
        }
    }

    #[test]
    fn too_little_is_said_with_what_would_do() {
        for workers in [1, 2, 16, 256] {
            let Err(TooLittle::Descriptors { limit: 64, needed, .. }) = bounds(64, GIB, workers) else {
                panic!("64 descriptors are too few");
            };
            assert!(bounds(needed - 1, GIB, workers).is_err());
            assert!(bounds(needed, GIB, workers).is_ok(), "{needed} descriptors for {workers} workers");
        }
        let Err(TooLittle::Memory { needed, .. }) = bounds(1024, 100_000, 2) else {
            panic!("100,000 bytes are too few");
        };
        assert!(bounds(1024, needed, 2).is_ok() && bounds(1024, needed - 4, 2).is_err());
        let error = bounds(100, GIB, 2).unwrap_err().to_string();
        assert!(error.contains("RLIMIT_NOFILE") && error.contains("is 100;"), "{error}");
    }

    proptest! {
        /// Whatever there is, all of it together fits.
        #[test]
        fn no_more_is_given_than_there_is(
            descriptors in 0..2_000_000u64, memory in 0..64 * GIB, workers in 1..=256usize
        ) {
            let Ok(bounds) = bounds(descriptors, memory, workers) else { return Ok(()) };
            let own = PROCESS + 50 + workers as u64 * WORKER;
            let (pipes, idle) = ((bounds.pipes * workers) as u64, (bounds.idle * workers) as u64);
            let clients = u64::from(bounds.clients);
            let used = own + 2 * bounds.sockets as u64 + bounds.probes as u64 + 2 * clients + 2 * pipes + idle;
            prop_assert!(used <= descriptors, "{} of {}: {:?}", used, descriptors, bounds);
            prop_assert!(clients >= LEAST_CLIENTS && bounds.sockets >= 4 * workers && bounds.probes >= 16);
            prop_assert!(clients * CLIENT_MEMORY + pipes * PIPE_SIZE as u64 <= memory);
        }
    }
}
