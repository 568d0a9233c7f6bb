//! Who the peer is, as the peers file and `PUT /peers` say it.

use std::{fmt, net::SocketAddr};

use serde::Deserialize;

use crate::model::{Fault, Refusal};

/// The length of a key, in bytes.
const KEY: std::ops::RangeInclusive<usize> = 16..=256;

/// The peer, and what proves that it is the peer.
#[derive(Clone, PartialEq, Eq)]
pub struct PeersConfig {
    /// Where the peer may connect to, and what connections to it come from unless it is unspecified.
    pub listen: SocketAddr,
    /// Where the peer listens; connections are taken from its address alone.
    pub peer: SocketAddr,
    /// The shared key.
    pub key: Box<[u8]>,
}

impl fmt::Debug for PeersConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("PeersConfig");
        fields.field("listen", &self.listen).field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    peers: Body,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    listen: String,
    peer: String,
    key: String,
}

impl PeersConfig {
    /// Reads `{"peers": {"listen": "192.0.2.10:1025", "peer": "192.0.2.11:1025", "key": "..."}}`, all of it required.
    ///
    /// # Errors
    /// Every fault in it.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Refusal> {
        let Document { peers: body } =
            serde_json::from_slice(bytes).map_err(|error| Refusal::one("", error.to_string()))?;
        let mut faults = Vec::new();
        let mut fault = |field: &str, reason: &str| {
            faults.push(Fault { path: format!("peers.{field}"), reason: reason.to_owned() });
        };
        let mut address = |field: &str, text: &str| match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Some(address),
            _ => {
                fault(
                    field,
                    "must be an IP address and a port, such as 192.0.2.10:1025 or [2001:db8::10]:1025",
                );
                None
            }
        };
        let (listen, peer) = (address("listen", &body.listen), address("peer", &body.peer));
        if let Some(peer) = peer {
            if peer.ip().is_unspecified() || peer.ip().is_multicast() {
                fault("peer", "must be the address of one host");
            }
            if listen.is_some_and(|listen| listen.is_ipv4() != peer.is_ipv4()) {
                fault("peer", "must be of the same family as listen");
            }
            if listen == Some(peer) {
                fault("peer", "must not be listen");
            }
        }
        if !KEY.contains(&body.key.len()) {
            fault("key", "must have 16 to 256 bytes");
        }
        match (listen, peer) {
            (Some(listen), Some(peer)) if faults.is_empty() => {
                Ok(Self { listen, peer, key: body.key.into_bytes().into() })
            }
            _ => Err(Refusal { faults }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(listen: &str, peer: &str, key: &str) -> Result<PeersConfig, Vec<String>> {
        let text = serde_json::json!({ "peers": { "listen": listen, "peer": peer, "key": key } });
        let result = PeersConfig::from_json(text.to_string().as_bytes());
        result.map_err(|refusal| refusal.faults.into_iter().map(|fault| fault.path).collect())
    }

    #[test]
    fn what_is_said_must_be_whole_and_sound() {
        let key = "0123456789abcdef";
        let config = read("192.0.2.1:1025", "192.0.2.2:1025", key).unwrap();
        assert_eq!((config.listen.port(), &*config.key), (1025, key.as_bytes()));
        assert!(!format!("{config:?}").contains("012"), "{config:?}");
        read("[::]:1025", "[2001:db8::2]:1026", key).unwrap();
        let paths = read("192.0.2.1", "0.0.0.0:1025", "short").unwrap_err();
        assert_eq!(paths, ["peers.listen", "peers.peer", "peers.key"]);
        assert_eq!(read("192.0.2.1:1", "[::1]:1", key).unwrap_err(), ["peers.peer"]);
        assert_eq!(read("192.0.2.1:1", "192.0.2.1:1", key).unwrap_err(), ["peers.peer"]);
        assert_eq!(read("192.0.2.1:0", "192.0.2.2:1", key).unwrap_err(), ["peers.listen"]);
        for text in [
            "",
            "{}",
            "[]",
            r#"{"peers": {}}"#,
            r#"{"peers": {"listen": "", "peer": "", "key": "", "x": 1}}"#,
        ] {
            assert!(PeersConfig::from_json(text.as_bytes()).is_err());
        }
    }
}
