//! The network configuration of the kernel: the one place that touches netlink.
//!
//! | module | what is inside |
//! | --- | --- |
//! | `link`, `address`, `route`, `rule` | interfaces, addresses, routes and rules by rtnetlink(7) |
//! | `autoconfiguration` | whether an interface takes what routers advertise, and what it answers for |
//! | `changes` | that any of these changed |
//! | `sock_diag` | handshakes of TCP under way, and the end of connections whose address goes, by sock_diag(7) |
//! | `namespace` | network namespaces by their names: made, opened, entered |
//! | `checksum` | RFC 1071 |
//! | [`nft`] | rules of packet filtering and NAT by nf_tables, and flows by conntrack |
//! | [`announce`] | gratuitous ARP and unsolicited neighbour advertisements |
//!
//! Sockets belong to the network namespace of the thread that opens them, and stay in it. All of it but [`nft`], which blocks, is
//! for one current-thread tokio runtime, and opened inside it.
//!
//! What is added may be there already, and what is deleted may be gone already: neither is an error, and [`Outcome`]
//! says which it was. So a caller can bring the kernel to what it wants from any state, also from the one that a
//! predecessor that crashed left.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests may block"))]

mod address;
pub mod announce;
mod autoconfiguration;
mod changes;
mod checksum;
mod error;
mod family;
mod interface_name;
mod link;
mod mac;
mod namespace;
pub mod nft;
mod promotion;
mod route;
mod rule;
mod sock_diag;
mod sys;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use tokio::time::timeout;

pub use self::{
    address::Address,
    announce::Announcer,
    autoconfiguration::{answer_for_own, autoconfigure},
    changes::ConfigurationChanges,
    checksum::Checksum,
    error::NetError,
    family::Family,
    interface_name::InterfaceName,
    link::{Interface, InterfaceIndex, LinkChange, LinkChanges},
    mac::{MacAddress, NotAMacAddress},
    namespace::Namespace,
    route::{Route, RouteProtocol, RouteScope, Table},
    rule::Rule,
    sock_diag::{end_connections, handshakes},
    sys::packet_address,
};

/// Whether anything had to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel did it.
    Changed,
    /// It was so already.
    Unchanged,
}

/// How something is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Add {
    /// What is there with the same key stays.
    Exclusive,
    /// What is there with the same key gives way.
    Replace,
}

/// A handle on the kernel's network configuration, in the namespace of the thread that opened it. Clones share a
/// socket.
///
/// What is asked of it may be cancelled: the kernel carries out, or does not, what it has got by then, and of several steps the
/// rest is not asked for.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    ended: Arc<AtomicBool>,
    patience: Duration,
}

impl Netlink {
    /// Opens a socket; its task ends with the last clone.
    ///
    /// # Errors
    /// When the system has no more sockets.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub fn open() -> Result<Self, NetError> {
        let (mut connection, handle, _) =
            rtnetlink::new_connection().map_err(NetError::socket("open a netlink socket"))?;
        // Without these a request that is answered and one whose socket failed would look the same.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        let ended = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&ended);
        tokio::spawn(async move {
            connection.await;
            ends.store(true, Ordering::Relaxed);
        });
        Ok(Self { handle, ended, patience: PATIENCE })
    }

    /// Waits so long for each answer, instead of 5 s.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Whether the socket has failed, or an answer did not come in time: nothing can be asked any more, and another has to be
    /// opened.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Sends a request that is answered with an acknowledgement or an error.
    async fn change(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Failure> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags).await.map(|_| ())
    }

    async fn add(&self, message: RouteNetlinkMessage, add: Add) -> Result<(), Failure> {
        let how = match add {
            Add::Exclusive => NLM_F_EXCL,
            Add::Replace => NLM_F_REPLACE,
        };
        self.change(message, NLM_F_CREATE | how).await
    }

    /// Lists what there is; once more when it changed meanwhile.
    async fn dump(&self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        for _ in 0..DUMP_ATTEMPTS {
            let answers = self.exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP).await?;
            if !answers.interrupted {
                return Ok(answers.messages);
            }
        }
        Err(Failure::Errno(Errno::EAGAIN))
    }

    /// An answer may be lost: the kernel drops it when there is no memory for it, and says so to nobody who asks one thing at
    /// a time.
    async fn exchange(&self, message: RouteNetlinkMessage, flags: u16) -> Result<Answers, Failure> {
        if self.has_ended() {
            return Err(Failure::Closed);
        }
        timeout(self.patience, self.ask(message, flags)).await.unwrap_or_else(|_| {
            self.ended.store(true, Ordering::Relaxed);
            Err(Failure::Errno(Errno::ETIMEDOUT))
        })
    }

    async fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> Result<Answers, Failure> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let mut stream = self.handle.clone().request(request).map_err(|_| Failure::Closed)?;
        let mut answers = Answers::default();
        while let Some(answer) = stream.next().await {
            answers.interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => answers.messages.push(message),
                NetlinkPayload::Done(_) => return Ok(answers),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                NetlinkPayload::Error(error) => {
                    return Err(Failure::Errno(Errno::from_raw(error.raw_code().saturating_abs())));
                }
                NetlinkPayload::Overrun(_) => return Err(Failure::Errno(Errno::ENOBUFS)),
                _ => {}
            }
        }
        // Neither an acknowledgement nor an end.
        Err(Failure::Closed)
    }
}

/// The kernel answers at once, unless others who change the network keep it waiting.
const PATIENCE: Duration = Duration::from_secs(5);

/// Times that a list is asked for which changes while it is written.
const DUMP_ATTEMPTS: usize = 10;

#[derive(Default)]
struct Answers {
    messages: Vec<RouteNetlinkMessage>,
    /// What was listed changed meanwhile, so that something may be missing or come twice.
    interrupted: bool,
}

/// Why a request failed, before it is said what it was about.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Errno(Errno),
    Closed,
}

impl Failure {
    fn to(self, what: impl FnOnce() -> String) -> NetError {
        match self {
            Self::Errno(errno) => NetError::Refused { what: what(), errno },
            Self::Closed => NetError::Closed,
        }
    }
}

/// A change whose aim is reached also where the kernel refuses for one of these reasons.
fn outcome(
    result: Result<(), Failure>,
    reached: &[Errno],
    what: impl FnOnce() -> String,
) -> Result<Outcome, NetError> {
    match result {
        Ok(()) => Ok(Outcome::Changed),
        Err(Failure::Errno(errno)) if reached.contains(&errno) => Ok(Outcome::Unchanged),
        Err(failure) => Err(failure.to(what)),
    }
}

fn family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}
