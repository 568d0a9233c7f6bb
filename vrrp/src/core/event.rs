//! What a [`Router`](super::Router) is, and what it wants done.

use std::{net::IpAddr, time::Instant};

/// What a virtual router is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Takes no part: stopped, or unfit (keepalived `FAULT`).
    Initialize,
    /// Listens for a master.
    Backup,
    /// Has the addresses.
    Master,
}

impl State {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initialize => "INIT",
            Self::Backup => "BACKUP",
            Self::Master => "MASTER",
        }
    }
}

/// Why the state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It was started.
    Started,
    /// It was stopped.
    Stopped,
    /// What it tracks is down.
    Unfit,
    /// What it tracks is up again.
    Fit,
    /// It owns the addresses.
    Owner,
    /// No master was heard in time.
    MasterDown,
    /// The master said that it stops.
    MasterStopped,
    /// A master of higher priority was heard, or of the same and a higher address.
    HigherPriority,
    /// It handed over, and the successor was heard.
    HandedOver,
}

impl Reason {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Unfit => "unfit",
            Self::Fit => "fit",
            Self::Owner => "owner",
            Self::MasterDown => "master_down",
            Self::MasterStopped => "master_stopped",
            Self::HigherPriority => "higher_priority",
            Self::HandedOver => "handed_over",
        }
    }
}

/// An advertisement to be sent, to every peer or to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Its priority.
    pub priority: u8,
    /// Compute the checksum as old keepaliveds do, because a peer does.
    pub old_checksum: bool,
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The state changed. Into [`State::Master`]: the addresses are to be had; out of it: to be given up.
    Changed {
        /// Before.
        from: State,
        /// Now.
        to: State,
        /// Why.
        reason: Reason,
    },
    /// Announce each address so many times.
    Announce {
        /// Times.
        repeat: u32,
    },
    /// The addresses, routes or rules may be others; the state is the same.
    Reconfigured,
    /// Nobody took over in time; it goes on as master.
    HandOverFailed,
    /// Another router advertises as the owner of the same addresses. The priority is 254 for as long as it does.
    OwnerConflict(IpAddr),
}

/// The router that was heard last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The priority that it advertised.
    pub priority: u8,
    /// When.
    pub at: Instant,
}
