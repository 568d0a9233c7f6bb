//! What the proxy and its helper tell each other: a length in four bytes, then JSON.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::plan::Plan;

/// Longer messages are none: some 100,000 members.
const MOST: u32 = 64 << 20;

/// What the helper is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Forward so, and end the flows of who is not there any more.
    Apply(Plan),
    /// What was counted.
    Count,
    /// Which clients these listeners remember that were not told, or otherwise; and which they are to remember as well.
    Clients(Vec<Uuid>, Vec<Client>),
}

/// What it answers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Reply {
    /// Why the plan could not be carried out; what was forwarded before is still.
    pub(super) error: Option<String>,
    /// What was counted since the last answer, and what there is now.
    pub(super) counts: Vec<Count>,
    /// What was dropped since the last answer.
    pub(super) limited: Vec<Limited>,
    /// What was asked for by [`Request::Clients`].
    pub(super) clients: Vec<Client>,
}

/// A network of clients that a listener remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Client {
    pub(super) listener: Uuid,
    pub(super) member: Uuid,
    pub(super) network: Network,
    /// Milliseconds until it is forgotten, unless it comes again.
    pub(super) left: u64,
}

/// What a network is known by in the kernel's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Network {
    /// Its address.
    V4(u32),
    /// A hash of that.
    V6(u64),
}

/// What was dropped by a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limited {
    pub(super) policy: Uuid,
    pub(super) packets: u64,
}

/// What was forwarded for a listener to a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Count {
    pub(super) listener: Uuid,
    pub(super) member: Uuid,
    /// Flows that began.
    pub(super) begun: u64,
    /// Bytes to the member.
    pub(super) sent: u64,
    /// Bytes from it.
    pub(super) received: u64,
    /// ICMP errors from it that nobody listens on its port; they are not among `received`.
    pub(super) refused: u64,
    /// Flows that there are.
    pub(super) flows: u64,
}

pub(super) fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4).ok().filter(|length| *length <= MOST);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "too long a message"))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    to.write_all(&bytes)
}

pub(super) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too long a message"));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}
