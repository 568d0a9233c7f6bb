//! The heartbeat document, version 3, and its envelope: `zlib(json)` followed by the HMAC-SHA256 of those bytes
//! under `heartbeat_key`, as 64 hex digits (Octavia's `status_message`).

use std::{
    collections::BTreeMap,
    fmt,
    io::{Read, Write},
    str::FromStr,
    sync::Arc,
};

use amphora_model::{CheckState, ListenerId, MemberId, PoolId};
use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The version of the document: counters are deltas.
pub const VERSION: u8 = 3;

/// Bytes of the HMAC at the end of an envelope.
const MAC: usize = 64;

/// The most bytes that a decoded document may have.
const MAX_DOCUMENT: u64 = 16 << 20;

/// One heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `amphora_id`.
    pub id: String,
    /// Grows by one with each heartbeat of a process, from 0.
    pub seq: u64,
    /// Every listener that is served. The health manager fails the amphora over when their number is not that
    /// of the enabled ones.
    pub listeners: BTreeMap<ListenerId, ListenerReport>,
    /// Every pool that a listener can send to, once for each such listener.
    pub pools: BTreeMap<PoolKey, PoolReport>,
    /// [`VERSION`].
    pub ver: u8,
    /// The [`mark`] of the document that it speaks of, where that was put whole; it may speak of a later one. Octavia has no such word, and reads
    /// over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Arc<str>>,
}

/// What heartbeats call a document: who has put it knows by that whether one speaks of it.
pub fn mark(document: &[u8]) -> String {
    HEXLOWER.encode(&digest(&SHA256, document).as_ref()[..8])
}

/// A listener in a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenerReport {
    /// Whether it takes connections.
    pub status: ListenerStatus,
    /// Its traffic.
    pub stats: Traffic,
}

/// Whether a listener takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ListenerStatus {
    /// It does.
    Open,
    /// It has as many as `connection_limit` allows.
    Full,
}

/// A listener's traffic. All but `conns` is what was added since the last heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes to clients.
    pub tx: u64,
    /// Bytes from clients.
    pub rx: u64,
    /// Connections at present.
    pub conns: u64,
    /// Connections accepted.
    pub totconns: u64,
    /// Requests that were in error.
    pub ereq: u64,
}

/// A pool in a heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolReport {
    /// Whether it has a member that can take traffic, or none at all.
    pub status: PoolStatus,
    /// Its members.
    pub members: BTreeMap<MemberId, MemberStatus>,
}

/// Whether a pool can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PoolStatus {
    /// A member is usable, or there is none.
    Up,
    /// No member is usable.
    Down,
}

/// `pool:listener`, the name of a backend in a rendered haproxy.cfg; of a pool of UDP the pool alone, as Octavia has it of those
/// that keepalived carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey {
    /// The pool.
    pub pool: PoolId,
    /// The listener that can send to it; `None` for a pool of UDP.
    pub listener: Option<ListenerId>,
}

/// A member in a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberStatus {
    /// What health checks say.
    Check(CheckState),
    /// Up with weight 0.
    Drain,
    /// `admin_state_up` is false.
    Maint,
}

impl fmt::Display for MemberStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check(state) => state.fmt(f),
            Self::Drain => f.write_str("DRAIN"),
            Self::Maint => f.write_str("MAINT"),
        }
    }
}

impl FromStr for MemberStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "DRAIN" => Ok(Self::Drain),
            "MAINT" => Ok(Self::Maint),
            _ => text.parse().map(Self::Check),
        }
    }
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.listener {
            Some(listener) => write!(f, "{}:{listener}", self.pool),
            None => self.pool.fmt(f),
        }
    }
}

impl FromStr for PoolKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("not pool:listener: {text:?}");
        let (pool, listener) = match text.split_once(':') {
            Some((pool, listener)) => (pool, Some(listener)),
            None => (text, None),
        };
        let listener = listener.map(|listener| listener.parse().map_err(|_| wrong())).transpose()?;
        Ok(Self { pool: pool.parse().map_err(|_| wrong())?, listener })
    }
}

macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

serde_as_text!(MemberStatus);
serde_as_text!(PoolKey);

/// Why an envelope was not opened.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Shorter than its HMAC.
    #[error("too short for a heartbeat")]
    Short,
    /// The HMAC is not that of the bytes under this key.
    #[error("the HMAC does not match: another heartbeat_key?")]
    Forged,
    /// The bytes are not a compressed heartbeat document.
    #[error("not a heartbeat: {0}")]
    Document(String),
}

/// Encodes and signs.
pub fn seal(message: &Message, key: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let mut json = Vec::with_capacity(1024);
    serde_json::to_writer(&mut json, message).expect("the keys are strings and a Vec takes every write");
    encoder.write_all(&json).expect("a Vec takes every write");
    let mut envelope = encoder.finish().expect("a Vec takes every write");
    let mac = HEXLOWER.encode(hmac::sign(&hmac_key(key), &envelope).as_ref());
    envelope.extend_from_slice(mac.as_bytes());
    envelope
}

/// Verifies and decodes.
///
/// # Errors
/// What is wrong with the envelope; nothing is decoded before its HMAC is verified.
pub fn open(envelope: &[u8], key: &str) -> Result<Message, EnvelopeError> {
    let (payload, mac) =
        envelope.split_at_checked(envelope.len().wrapping_sub(MAC)).ok_or(EnvelopeError::Short)?;
    let mac = HEXLOWER_PERMISSIVE.decode(mac).map_err(|_| EnvelopeError::Forged)?;
    hmac::verify(&hmac_key(key), payload, &mac).map_err(|_| EnvelopeError::Forged)?;
    let mut json = Vec::new();
    ZlibDecoder::new(payload)
        .take(MAX_DOCUMENT)
        .read_to_end(&mut json)
        .map_err(|e| EnvelopeError::Document(e.to_string()))?;
    serde_json::from_slice(&json).map_err(|e| EnvelopeError::Document(e.to_string()))
}

/// Opens arbitrary bytes, for fuzzing: must neither panic nor allocate without bound.
pub fn fuzz(data: &[u8]) {
    let _ = open(data, "key");
    let mut signed = data.to_vec();
    signed.extend_from_slice(HEXLOWER.encode(hmac::sign(&hmac_key("key"), data).as_ref()).as_bytes());
    let _ = open(&signed, "key");
}

fn hmac_key(key: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// From Octavia's agent: a member of each status.
    const OBSERVED: &str = r#"{"id": "0f66bb06-6ab9-5d2f-abb4-8f64a2a92e49", "seq": 27, "listeners": {
        "dacb18d7-5b2a-57b8-b088-90342652ce2e": {"status": "OPEN",
            "stats": {"tx": 0, "rx": 0, "conns": 0, "totconns": 0, "ereq": 0}}},
        "pools": {"2044ab88-da60-5d1d-8f1a-53ccfa0a2faa:dacb18d7-5b2a-57b8-b088-90342652ce2e": {"status": "UP",
            "members": {"2d8b474a-4539-52f0-9be9-3c5c79fb570e": "DOWN",
                "561af812-23eb-510a-aec6-650e56f43d54": "UP 1/2", "bd9fd45a-f676-5904-ae86-0a35dd6a82bb": "DRAIN",
                "e836f333-0dbd-5487-a1f9-a597cdff9e01": "MAINT",
                "3975b6e7-18ca-5cea-a305-c0b9326e753e": "no check"}}}, "ver": 3}"#;

    #[test]
    fn a_pool_of_udp_has_its_own_name_alone() {
        let pool = "30000000-0000-4000-8000-000000000001";
        for text in [pool.to_owned(), format!("{pool}:20000000-0000-4000-8000-000000000001")] {
            let key: PoolKey = text.parse().unwrap();
            assert_eq!((key.to_string(), key.listener.is_some()), (text.clone(), text.contains(':')));
        }
        for text in ["", "x", "30000000-0000-4000-8000-000000000001:"] {
            text.parse::<PoolKey>().unwrap_err();
        }
    }

    #[test]
    fn an_observed_document_round_trips() {
        let message: Message = serde_json::from_str(OBSERVED).unwrap();
        let envelope = seal(&message, "insecure");
        assert_eq!(open(&envelope, "insecure").unwrap(), message);
        let value: serde_json::Value = serde_json::from_str(OBSERVED).unwrap();
        assert_eq!(serde_json::to_value(&message).unwrap(), value);
    }

    #[test]
    fn another_key_or_a_flipped_bit_is_refused() {
        let message: Message = serde_json::from_str(OBSERVED).unwrap();
        let envelope = seal(&message, "insecure");
        assert!(matches!(open(&envelope, "other"), Err(EnvelopeError::Forged)));
        for at in 0..envelope.len() {
            let mut flipped = envelope.clone();
            flipped[at] ^= 1;
            assert!(open(&flipped, "insecure").is_err(), "byte {at}");
        }
        assert!(matches!(open(b"", "insecure"), Err(EnvelopeError::Short)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data: Vec<u8>) {
            fuzz(&data);
        }
    }
}
