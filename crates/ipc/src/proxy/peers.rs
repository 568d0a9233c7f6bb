//! `GET /peers`: the peer that session persistence is kept alike with.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The peer that session persistence is kept alike with. Counters go from the start of the process; the key is not
/// told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// Whether there is a peer, and a connection to it.
    pub state: PeersState,
    /// Where the peer may connect to.
    pub listen: Option<SocketAddr>,
    /// Where the peer listens.
    pub peer: Option<SocketAddr>,
    /// How long there has been a connection, ms.
    pub connected_ms: Option<u64>,
    /// The version of the protocol that is spoken.
    pub version: Option<u8>,
    /// Why there is no connection.
    pub last_error: Option<String>,
    /// Tables that are kept alike: one for each pool with `SOURCE_IP` or `APP_COOKIE`.
    pub tables: usize,
    /// Connections whose sides have proved that they have the key.
    pub connections: u64,
    /// Entries told.
    pub entries_sent: u64,
    /// Entries that the peer told.
    pub entries_received: u64,
    /// Of these, those that were news.
    pub entries_taken: u64,
    /// Of these, those of a pool or a member that is not known here.
    pub entries_unknown: u64,
    /// Times that everything was told.
    pub full_syncs_sent: u64,
    /// Times that the peer told everything.
    pub full_syncs_received: u64,
    /// Connections that were ended, by reason.
    pub rejected: PeersRejected,
}

/// Whether there is a peer, and a connection to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PeersState {
    /// There is no peer.
    #[default]
    Off,
    /// There is no connection.
    Disconnected,
    /// Both sides have proved that they have the key.
    Connected,
}

/// Connections that were ended, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersRejected {
    /// From another address than the peer's.
    pub address: u64,
    /// More at once than a peer makes.
    pub too_many: u64,
    /// The keys differ.
    pub key: u64,
    /// No version is spoken by both.
    pub version: u64,
    /// The peer is this process itself.
    pub oneself: u64,
    /// A message was altered, repeated or left out.
    pub forged: u64,
    /// What came is not of the protocol.
    pub malformed: u64,
    /// Nothing was heard for too long.
    pub silent: u64,
}

impl PeersRejected {
    /// Every reason with its count.
    pub fn each(&self) -> [(&'static str, u64); 8] {
        // Taken apart, so that a new reason cannot be left out.
        let Self { address, too_many, key, version, oneself, forged, malformed, silent } = *self;
        [
            ("address", address),
            ("too_many", too_many),
            ("key", key),
            ("version", version),
            ("oneself", oneself),
            ("forged", forged),
            ("malformed", malformed),
            ("silent", silent),
        ]
    }
}
