//! Who the peer is, as the peers file and `PUT /peers` say it.

use std::{fmt, net::SocketAddr};

use amphora_model::{
    Refusal,
    document::{self, object::Object},
};

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

impl PeersConfig {
    /// Reads `{"peers": {"listen": "192.0.2.10:1025", "peer": "192.0.2.11:1025", "key": "..."}}`, all of it required.
    ///
    /// # Errors
    /// Every fault in it. None repeats a value: it might be the key.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Refusal> {
        document::parse(bytes, |o| o.require("peers", |o, name| o.object(name, peers)))
    }
}

fn peers(o: &mut Object<'_>) -> Option<PeersConfig> {
    let (listen, peer) = (o.require("listen", address), o.require("peer", address));
    if let Some(peer) = peer {
        if peer.ip().is_unspecified() || peer.ip().is_multicast() {
            o.fault("peer", "must be the address of one host");
        }
        if listen.is_some_and(|listen| listen.is_ipv4() != peer.is_ipv4()) {
            o.fault("peer", "must be of the same family as listen");
        }
        if listen == Some(peer) {
            o.fault("peer", "must not be listen");
        }
    }
    let key = o.require("key", key);
    Some(PeersConfig { listen: listen?, peer: peer?, key: key? })
}

fn address(o: &mut Object<'_>, name: &'static str) -> Option<SocketAddr> {
    let address = o.get(name)?.as_str().and_then(|text| text.parse::<SocketAddr>().ok());
    let address = address.filter(|address| address.port() != 0);
    if address.is_none() {
        let reason = "must be an IP address and a port, such as 192.0.2.10:1025 or [2001:db8::10]:1025";
        o.fault(name, reason);
    }
    address
}

fn key(o: &mut Object<'_>, name: &'static str) -> Option<Box<[u8]>> {
    let key = o.get(name)?.as_str().filter(|key| KEY.contains(&key.len()));
    if key.is_none() {
        o.fault(name, "must be a string of 16 to 256 bytes");
    }
    key.map(|key| key.as_bytes().into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(listen: &str, peer: &str, key: &str) -> Result<PeersConfig, Vec<String>> {
        let text = json!({ "peers": { "listen": listen, "peer": peer, "key": key } });
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
        let fault = |text: &str| PeersConfig::from_json(text.as_bytes()).unwrap_err().faults.remove(0);
        assert_eq!(fault("{").path, "");
        assert_eq!(fault("[]").to_string(), "must be an object");
        assert_eq!(fault("{}").to_string(), "peers: is required");
        assert_eq!(fault(r#"{"peers": {}}"#).to_string(), "peers.listen: is required");
        let whole =
            r#"{"peers": {"listen": "192.0.2.1:1", "peer": "192.0.2.2:1", "key": "0123456789abcdef"}}"#;
        PeersConfig::from_json(whole.as_bytes()).unwrap();
        assert_eq!(fault(&whole.replace("}}", r#", "x": 1}}"#)).path, "peers.x");
        assert_eq!(fault(&whole.replace("}}", r#", "key": "0123456789abcdef"}}"#)).path, "peers.key");
    }

    /// A value of any kind with the secret in it.
    fn with_secret() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!(SECRET)),
            Just(json!([SECRET])),
            Just(json!({ "peers": SECRET })),
            "[a-f0-9]{0,300}".prop_map(|more| json!(format!("{SECRET}{more}"))),
            Just(json!(SECRET.parse::<u64>().unwrap())),
            any::<bool>().prop_map(|value| json!(value)),
        ]
    }

    /// Digits, so that it can be a number as well.
    const SECRET: &str = "1234567890123456";

    proptest! {
        #[test]
        fn no_fault_repeats_a_value(
            top in with_secret(), listen in with_secret(), peer in with_secret(), key in with_secret(), cut in 0_usize..200
        ) {
            let right = json!("192.0.2.1:1025");
            for document in [
                top.clone(),
                json!({ "peers": top }),
                json!({ "peers": { "listen": listen, "peer": peer, "key": key } }),
                json!({ "peers": { "listen": right, "peer": right, "key": key, "more": top } }),
            ] {
                let text = document.to_string();
                let cut = text.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(text.len());
                for text in [&text[..], &text[..cut]] {
                    if let Err(refusal) = PeersConfig::from_json(text.as_bytes()) {
                        prop_assert!(!format!("{refusal} {refusal:?}").contains(SECRET), "{refusal}");
                    }
                }
            }
        }

        #[test]
        fn what_is_right_is_read(listen: [u8; 4], port in 1_u16.., key in "[ -!#-\\[\\]-~]{16,256}") {
            let listen = SocketAddr::new(listen.into(), port);
            prop_assume!(listen != SocketAddr::from(([192, 0, 2, 2], 1025)));
            let config = read(&listen.to_string(), "192.0.2.2:1025", &key).unwrap();
            prop_assert_eq!((config.listen, &*config.key), (listen, key.as_bytes()));
        }
    }
}
