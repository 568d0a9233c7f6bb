//! The documents on the daemon's control socket, HTTP/1.1 over a unix socket with JSON bodies. Peers: the agent, and an
//! operator with `curl --unix-socket`.
//!
//! | request | answer |
//! | --- | --- |
//! | `PUT /config` with keepalived.conf or the native document | 200 [`Status`] once it runs; 400 [`Refusal`] and nothing changed |
//! | `DELETE /config` | 200 [`Status`]; every virtual router stops |
//! | `GET /config` | 200 the native document; 404 when there is none |
//! | `GET /status` | 200 [`Status`] |
//! | `POST /start`, `/stop` | 200 [`Status`]: takes part, or takes no part |
//! | `POST /hand-over`, `/resume` | 200 [`Status`]: lets the peer take over, and takes its place by priority again; 409 [`Refusal`] when there is nothing to hand over |
//! | `GET /metrics` | 200 Prometheus text |

#[cfg(feature = "examples")]
pub mod examples;

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

/// The daemon and its virtual routers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Crate version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Milliseconds since start.
    pub uptime_ms: u64,
    /// Whether virtual routers take part when they are fit; see `/start` and `/stop`.
    pub started: bool,
    /// The data plane, if one is watched.
    pub data_plane: Option<DataPlane>,
    /// In the order of the configuration.
    pub instances: Vec<InstanceStatus>,
}

/// What is known of the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPlane {
    /// It answers, and says that it is fit.
    pub fit: bool,
    /// The connection to it is there.
    pub connected: bool,
    /// Times that it became unfit.
    pub went_unfit: u64,
}

/// A virtual router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// `INIT`, `BACKUP` or `MASTER`.
    pub state: String,
    /// Milliseconds in this state; 0 before it was started.
    pub since_ms: u64,
    /// Why it is in this state; empty before it was started.
    pub reason: String,
    /// Interface of its advertisements.
    pub interface: String,
    /// VRID.
    pub vrid: u8,
    /// 2 or 3.
    pub version: u8,
    /// Its priority at present.
    pub priority: u8,
    /// Milliseconds between advertisements, as configured.
    pub interval_ms: u64,
    /// The same of the master that it goes by.
    pub master_interval_ms: u64,
    /// Whether all that it tracks is up.
    pub fit: bool,
    /// Whether it has handed over and not resumed.
    pub handed_over: bool,
    /// The addresses that the master has, excluded ones too.
    pub addresses: Vec<String>,
    /// The router that was heard last.
    pub peer: Option<PeerStatus>,
    /// What it has counted.
    pub counters: CountersStatus,
    /// The last thing that could not be done, such as an address that could not be added; `None` when all could.
    pub error: Option<String>,
}

/// The router that was heard last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its address.
    pub address: IpAddr,
    /// The priority that it advertised.
    pub priority: u8,
    /// Milliseconds since.
    pub ago_ms: u64,
}

/// See the daemon's `core::Counters`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "documented on Counters")]
pub struct CountersStatus {
    pub sent: u64,
    pub received: u64,
    pub priority_zero_sent: u64,
    pub priority_zero_received: u64,
    pub became_master: u64,
    pub released_master: u64,
    /// Refused advertisements by reason (the daemon's `packet::Refusal::as_str`), those that happened.
    pub refused: BTreeMap<String, u64>,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Each fault by itself.
    pub faults: Vec<Fault>,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Where in the document; empty when it is none of it.
    pub place: String,
    /// What is wrong.
    pub reason: String,
}

impl Refusal {
    /// One fault that is none of the document.
    pub fn of(reason: impl Into<String>) -> Self {
        Self { faults: vec![Fault { place: String::new(), reason: reason.into() }] }
    }
}
