//! What two peers say to each other, byte by byte. All numbers are big-endian.
//!
//! ```text
//! frame    length: u16, then so many bytes, at most 16,384
//! bytes    message                          before the keys are agreed on: Hello, Refuse
//!          message, MAC: 32 bytes           after (see `super::auth`)
//! message  kind: u8, then by kind
//!   1 Hello    "AMPHPEER", lowest version: u8, highest version: u8, instance: 16 bytes, nonce: 32 bytes
//!   2 Refuse   reason: u8
//!   3 Auth     -
//!   4 Alive    -
//!   5 Entries  pool: 16 bytes, persistence: u8 (1 SOURCE_IP, 2 APP_COOKIE),
//!              length of cookie_name: u8, cookie_name, then 1 to 512 entries of 28 bytes:
//!              key: u64, member: 16 bytes, used: i32
//!   6 Whole    -
//!   7 Again    -
//!   8 Tickets  1 to 32 secrets of 56 bytes, encrypted: name: 16 bytes, secret: 32 bytes, made: u64; then 16 bytes of a tag.
//!              Of version 2
//! ```
//!
//! A message is exactly as long as it says. What is not as above ends the connection.

use amphora_model::{MemberId, PoolId};
use uuid::Uuid;

use crate::{persist::StickKey, tls::TicketSecret};

/// The most bytes of a frame after its length.
pub const MAX_FRAME: usize = 16 * 1024;

/// The most entries of one message: with the longest cookie name and the MAC it fits a frame.
pub const MAX_ENTRIES: usize = 512;

/// Bytes of the MAC: HMAC-SHA256.
pub const MAC: usize = 32;

/// Bytes of a challenge.
pub const NONCE: usize = 32;

/// The longest `cookie_name` that a document may have, in bytes.
const MAX_COOKIE_NAME: usize = 255;

const LENGTH: usize = 2;
const MAGIC: &[u8; 8] = b"AMPHPEER";
const ENTRY: usize = 8 + 16 + 4;

/// The most secrets of one message.
const MAX_SECRETS: usize = 32;

const SECRET: usize = 16 + 32 + 8;

/// Bytes that encryption adds: the tag of AES-GCM.
pub(super) const TAG: usize = 16;

/// Secrets of tickets as they are encrypted.
pub(super) fn write_secrets(secrets: &[TicketSecret]) -> Vec<u8> {
    let newest = &secrets[secrets.len().saturating_sub(MAX_SECRETS)..];
    newest.iter().flat_map(|it| [&it.name[..], &it.secret, &it.made.to_be_bytes()].concat()).collect()
}

/// Secrets of tickets from what was decrypted.
///
/// # Errors
/// When it is not as it is written.
pub(super) fn read_secrets(bytes: &[u8]) -> Result<Vec<TicketSecret>, WireError> {
    let (secrets, rest) = bytes.as_chunks::<SECRET>();
    if !rest.is_empty() {
        return Err(WireError::Malformed);
    }
    let read = |bytes: &[u8; SECRET]| {
        let mut reader = Reader(bytes);
        Ok(TicketSecret {
            name: reader.take()?,
            secret: reader.take()?,
            made: u64::from_be_bytes(reader.take()?),
        })
    };
    secrets.iter().map(read).collect()
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first of each side.
    Hello(Hello),
    /// The connection is refused, and why; nothing follows.
    Refuse(Refuse),
    /// Proves by its MAC that the sender has the key.
    Auth,
    /// Nothing happened for a while.
    Alive,
    /// Entries of one table.
    Entries(Entries),
    /// All that was in the sender's tables when the connection was made, or when [`Again`](Self::Again) came, has been sent.
    Whole,
    /// Asks for everything once more: there is a pool or a member that was not known when it was spoken of.
    Again,
    /// Secrets that the sender's session tickets are made with, encrypted: see `super::auth`.
    Tickets(Box<[u8]>),
}

/// Who speaks, and the challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The lowest version of the protocol that the sender speaks.
    pub lowest: u8,
    /// The highest.
    pub highest: u8,
    /// Differs each time the process starts.
    pub instance: Uuid,
    /// Random bytes that were never sent before.
    pub nonce: [u8; NONCE],
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuse {
    /// There is no version that both speak.
    Version,
    /// What was said does not prove that the keys are the same.
    Key,
    /// The sender speaks with itself.
    Oneself,
}

/// Entries of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries {
    /// The table.
    pub table: Table,
    /// 1 to [`MAX_ENTRIES`].
    pub list: Vec<Entry>,
}

/// What a table is known by on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table {
    /// The pool.
    pub pool: PoolId,
    /// `cookie_name` for `APP_COOKIE`; `None` for `SOURCE_IP`.
    pub cookie_name: Option<Box<str>>,
}

/// Which member a client belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The hash of the client's address or of the cookie's value, which is the same on both sides. Of IPv4 clients of datagrams it is the
    /// address, mixed.
    pub key: StickKey,
    /// The member.
    pub member: MemberId,
    /// The last use, in seconds after the connection was made; negative before. Neither side needs to know the
    /// other's clock.
    pub used: i32,
}

/// Bytes that are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than [`MAX_FRAME`], in bytes.
    #[error("a message of {0} bytes, more than {MAX_FRAME}")]
    TooLong(usize),
    /// Not a message of this protocol.
    #[error("bytes that are not a message")]
    Malformed,
}

/// The bytes of the first frame in `buffer`, without its length; `None` while they are not there.
///
/// # Errors
/// As soon as the length is known to be too great, or zero.
pub fn frame(buffer: &[u8]) -> Result<Option<&[u8]>, WireError> {
    let Some((length, rest)) = buffer.split_first_chunk::<LENGTH>() else { return Ok(None) };
    match usize::from(u16::from_be_bytes(*length)) {
        0 => Err(WireError::Malformed),
        length if length > MAX_FRAME => Err(WireError::TooLong(length)),
        length => Ok(rest.get(..length)),
    }
}

/// What a frame with so many bytes takes in a buffer.
pub fn framed(length: usize) -> usize {
    LENGTH + length
}

/// Appends a frame with what `write` appends.
pub(super) fn write_frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0; LENGTH]);
    write(out);
    let length = out.len() - at - LENGTH;
    debug_assert!((1..=MAX_FRAME).contains(&length));
    out[at..at + LENGTH].copy_from_slice(&(length as u16).to_be_bytes());
}

impl Message {
    /// Appends the message, without length and MAC.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => {
                out.push(1);
                out.extend(MAGIC);
                out.extend([hello.lowest, hello.highest]);
                out.extend(hello.instance.as_bytes());
                out.extend(hello.nonce);
            }
            Self::Refuse(refuse) => out.extend([2, refuse.code()]),
            Self::Auth => out.push(3),
            Self::Alive => out.push(4),
            Self::Entries(entries) => {
                debug_assert!((1..=MAX_ENTRIES).contains(&entries.list.len()));
                let name = entries.table.cookie_name.as_deref().unwrap_or_default();
                debug_assert!(name.len() <= MAX_COOKIE_NAME);
                out.push(5);
                out.extend(entries.table.pool.0.as_bytes());
                out.extend([1 + u8::from(entries.table.cookie_name.is_some()), name.len() as u8]);
                out.extend(name.as_bytes());
                for entry in &entries.list {
                    out.extend(entry.key.get().to_be_bytes());
                    out.extend(entry.member.0.as_bytes());
                    out.extend(entry.used.to_be_bytes());
                }
            }
            Self::Whole => out.push(6),
            Self::Again => out.push(7),
            Self::Tickets(sealed) => {
                debug_assert!((1..=MAX_SECRETS * SECRET + TAG).contains(&sealed.len()));
                out.push(8);
                out.extend(sealed);
            }
        }
    }

    /// Reads exactly one message.
    ///
    /// # Errors
    /// When it is not one, to the last byte.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(bytes);
        let [kind] = reader.take()?;
        let message = match kind {
            1 => {
                if &reader.take()? != MAGIC {
                    return Err(WireError::Malformed);
                }
                let [lowest, highest] = reader.take()?;
                if lowest > highest {
                    return Err(WireError::Malformed);
                }
                let instance = Uuid::from_bytes(reader.take()?);
                Self::Hello(Hello { lowest, highest, instance, nonce: reader.take()? })
            }
            2 => {
                let [code] = reader.take()?;
                Self::Refuse(Refuse::of(code).ok_or(WireError::Malformed)?)
            }
            3 => Self::Auth,
            4 => Self::Alive,
            5 => Self::Entries(reader.entries()?),
            6 => Self::Whole,
            7 => Self::Again,
            8 => Self::Tickets(reader.sealed()?),
            _ => return Err(WireError::Malformed),
        };
        if reader.0.is_empty() { Ok(message) } else { Err(WireError::Malformed) }
    }
}

impl Refuse {
    fn code(self) -> u8 {
        match self {
            Self::Version => 1,
            Self::Key => 2,
            Self::Oneself => 3,
        }
    }

    fn of(code: u8) -> Option<Self> {
        [Self::Version, Self::Key, Self::Oneself].into_iter().find(|refuse| refuse.code() == code)
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(WireError::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn entries(&mut self) -> Result<Entries, WireError> {
        let pool = PoolId(Uuid::from_bytes(self.take()?));
        let [persistence, length] = self.take()?;
        let (name, rest) = self.0.split_at_checked(usize::from(length)).ok_or(WireError::Malformed)?;
        let name = std::str::from_utf8(name).map_err(|_| WireError::Malformed)?;
        let cookie_name = match (persistence, name) {
            (1, "") => None,
            (2, name) if !name.is_empty() => Some(name.into()),
            _ => return Err(WireError::Malformed),
        };
        let (entries, rest) = rest.as_chunks::<ENTRY>();
        if !rest.is_empty() || entries.is_empty() || entries.len() > MAX_ENTRIES {
            return Err(WireError::Malformed);
        }
        self.0 = rest;
        let list = entries.iter().map(|bytes| Reader(bytes).entry()).collect::<Result<_, _>>()?;
        Ok(Entries { table: Table { pool, cookie_name }, list })
    }

    fn sealed(&mut self) -> Result<Box<[u8]>, WireError> {
        let sealed = std::mem::take(&mut self.0);
        let secrets = sealed.len().checked_sub(TAG).ok_or(WireError::Malformed)?;
        let whole = secrets.is_multiple_of(SECRET) && (1..=MAX_SECRETS).contains(&(secrets / SECRET));
        if whole { Ok(sealed.into()) } else { Err(WireError::Malformed) }
    }

    fn entry(&mut self) -> Result<Entry, WireError> {
        let hash = u64::from_be_bytes(self.take()?);
        let key = StickKey::new(hash);
        if key.get() != hash {
            return Err(WireError::Malformed);
        }
        let member = MemberId(Uuid::from_bytes(self.take()?));
        Ok(Entry { key, member, used: i32::from_be_bytes(self.take()?) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Message> {
        let entry = (any::<u64>(), any::<u128>(), any::<i32>()).prop_map(|(key, member, used)| Entry {
            key: StickKey::new(key),
            member: MemberId(Uuid::from_u128(member)),
            used,
        });
        let name = prop::option::of("[a-zA-Z_.]{1,255}".prop_map(String::into_boxed_str));
        let entries = (any::<u128>(), name, prop::collection::vec(entry, 1..=MAX_ENTRIES)).prop_map(
            |(pool, cookie_name, list)| {
                let table = Table { pool: PoolId(Uuid::from_u128(pool)), cookie_name };
                Message::Entries(Entries { table, list })
            },
        );
        let hello = (any::<(u8, u8)>(), any::<u128>(), any::<[u8; NONCE]>());
        let hello = hello.prop_map(|((a, b), instance, nonce)| {
            let instance = Uuid::from_u128(instance);
            Message::Hello(Hello { lowest: a.min(b), highest: a.max(b), instance, nonce })
        });
        prop_oneof![
            hello,
            entries,
            Just(Message::Refuse(Refuse::Version)),
            Just(Message::Refuse(Refuse::Key)),
            Just(Message::Refuse(Refuse::Oneself)),
            Just(Message::Auth),
            Just(Message::Alive),
            Just(Message::Whole),
            Just(Message::Again),
            (1..=MAX_SECRETS).prop_map(|n| Message::Tickets(vec![7; n * SECRET + TAG].into())),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_else(message in message(), more: u8) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            prop_assert!(bytes.len() + MAC <= MAX_FRAME);
            prop_assert_eq!(Message::decode(&bytes), Ok(message));
            prop_assert!(Message::decode(&bytes[..bytes.len() - 1]).is_err());
            bytes.push(more);
            prop_assert!(Message::decode(&bytes).is_err());
        }

        #[test]
        fn what_is_read_is_what_would_be_written(kind in 0u8..9, rest: Vec<u8>) {
            let bytes = [&[kind][..], &rest].concat();
            if let Ok(message) = Message::decode(&bytes) {
                let mut again = Vec::new();
                message.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn frames_are_cut_at_their_length_and_refused_by_it() {
        let mut buffer = Vec::new();
        write_frame(&mut buffer, |out| out.extend(b"one"));
        write_frame(&mut buffer, |out| out.extend([7; MAX_FRAME]));
        for end in 0..5 {
            assert_eq!(frame(&buffer[..end]), Ok(None));
        }
        assert_eq!(frame(&buffer), Ok(Some(b"one".as_slice())));
        assert_eq!(frame(&buffer[framed(3)..]).unwrap().unwrap().len(), MAX_FRAME);
        assert_eq!(frame(&[0, 0]), Err(WireError::Malformed));
        assert_eq!(frame(&[0x40, 1]), Err(WireError::TooLong(16_385)));
    }
}
