//! nf_tables and conntrack, by nfnetlink: a table of the network namespace as it is to be, and the flows that there are.
//!
//! What a table is to be is a [`Ruleset`]; [`Ruleset::changes`] is the way to it, a [`Batch`], which the kernel carries out
//! between two packets or not at all ([`Nft::commit`]). Counters and what packets put in maps outlive changes of what they have
//! nothing to do with. Flows are listed and ended by [`Conntrack`], and [`Routing`] has packets with a mark routed by a table of
//! their own.
//!
//! The messages are written here and not by a crate: `nftnl` binds C libraries, `rustables` is under the GPL, and
//! `netlink-packet-netfilter` does not know nf_tables. All of it blocks, for a thread of its own; the kernel answers within the
//! call. It takes CAP_NET_ADMIN in the namespace of the thread that opens the socket.

mod batch;
mod conntrack;
mod expression;
mod routing;
mod ruleset;
mod socket;
mod wire;

use std::time::Duration;

use nix::{errno::Errno, libc};

pub use self::{
    batch::Batch,
    conntrack::{Conntrack, Endpoints, FlowEntry},
    expression::{Expression, Flow, Header, Meta, Register, Verdict},
    routing::{LocalRoute, MarkRule, Routing},
    ruleset::{Chain, Content, Hook, Place, Rule, Ruleset, Set, Type},
};
use self::{
    batch::{INET, NFTABLES},
    socket::{DUMP, Socket},
    wire::{AttributeIter, Attributes, u32_be, u32_ne, u64_be},
};
use crate::NetError;

/// How often a set that grows meanwhile is listed, until it is told as it was found last.
const MOST_LISTINGS: u32 = 8;

/// nf_tables of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Nft(Socket);

/// What a counter has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Packets.
    pub packets: u64,
    /// Bytes, headers of the network layer included.
    pub bytes: u64,
}

/// What a map of [remembered](Content::Remembered) marks has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The key.
    pub key: Vec<u8>,
    /// The mark.
    pub mark: u32,
    /// For how long yet.
    pub left: Duration,
}

impl Nft {
    /// Opens a socket.
    ///
    /// # Errors
    /// When the kernel has no nfnetlink, or no more sockets.
    pub fn open() -> Result<Self, NetError> {
        Socket::open(libc::NETLINK_NETFILTER).map(Self)
    }

    /// Makes the changes, all or none.
    ///
    /// # Errors
    /// The first that the kernel refuses, with its place.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), NetError> {
        if batch.is_empty() {
            return Ok(());
        }
        let first = self.0.sequence(batch.len() + 2);
        let last = first.wrapping_add(batch.len());
        let mut acknowledged = false;
        let mut refused = None;
        self.0.send(&batch.encode(first))?;
        self.0.answers(|sequence, errno| match errno {
            None => acknowledged |= sequence == last,
            Some(errno) => {
                refused.get_or_insert((sequence.wrapping_sub(first), errno));
            }
        })?;
        let place = |number| batch.place(number).unwrap_or("the changes");
        match refused {
            Some((number, errno)) => {
                Err(NetError::Refused { what: format!("write {} of nf_tables", place(number)), errno })
            }
            None if acknowledged => Ok(()),
            // Without an answer nothing is known.
            None => Err(NetError::Refused { what: "write nf_tables".to_owned(), errno: Errno::ENOBUFS }),
        }
    }

    /// The number of the present generation: another after each change of any table of the namespace.
    ///
    /// # Errors
    /// When the kernel has no nf_tables.
    pub fn generation(&mut self) -> Result<u32, NetError> {
        let mut generation = None;
        self.0.ask(NFTABLES | 16, 0, 0, &Attributes::default(), "ask for nf_tables", |message| {
            generation = generation.or(message.attributes().find(1).and_then(u32_be));
        })?;
        generation.ok_or(NetError::Refused { what: "ask for nf_tables".to_owned(), errno: Errno::ENODATA })
    }

    /// What tells whether another hand has changed the rules or the chains of a table, between two calls with no change of one's
    /// own: their text as the kernel tells it. Empty when the table is not there.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn fingerprint(&mut self, table: &str) -> Result<Vec<u8>, NetError> {
        let mut seen = Vec::new();
        // Chains tell in how many places they are referred to, so that rows of maps are seen, too.
        for kind in [4, 7] {
            let attributes = Attributes::default().text(1, table);
            let listed = self.0.ask(NFTABLES | kind, DUMP, INET, &attributes, "list nf_tables", |message| {
                if message.attributes().find(1).and_then(wire::text) == Some(table) {
                    seen.extend(message.body.iter().skip(4));
                }
            });
            match listed {
                Err(error) if error.errno() == Some(Errno::ENOENT) => {}
                listed => listed?,
            }
        }
        Ok(seen)
    }

    /// The counters of a [counted](Content::Counted) set, by key.
    ///
    /// # Errors
    /// When there is no such set.
    pub fn counters(&mut self, table: &str, set: &str) -> Result<Vec<(Vec<u8>, Counted)>, NetError> {
        self.elements(table, set, |element| {
            let counter = element.inside(7).and_then(|expression| expression.inside(2));
            let number = |kind| counter.and_then(|c| c.find(kind)).and_then(u64_be).unwrap_or_default();
            Some(Counted { bytes: number(1), packets: number(2) })
        })
    }

    /// What is in a map of [remembered](Content::Remembered) marks.
    ///
    /// # Errors
    /// When there is no such map.
    pub fn remembered(&mut self, table: &str, set: &str) -> Result<Vec<Memory>, NetError> {
        let found = self.elements(table, set, |element| {
            let mark = element.inside(2).and_then(|data| data.find(1)).and_then(u32_ne)?;
            Some((mark, Duration::from_millis(element.find(5).and_then(u64_be).unwrap_or_default())))
        })?;
        Ok(found.into_iter().map(|(key, (mark, left))| Memory { key, mark, left }).collect())
    }

    /// What is in a set, by its keys. A set that makes room for more while it is listed is listed in parts that do not fit
    /// together: what comes twice stands for another that does not come, and it is listed again.
    fn elements<T>(
        &mut self,
        table: &str,
        set: &str,
        take: impl Fn(AttributeIter<'_>) -> Option<T>,
    ) -> Result<Vec<(Vec<u8>, T)>, NetError> {
        let mut listings = 0;
        loop {
            let mut found = self.list(table, set, &take)?;
            let length = found.len();
            found.dedup_by(|one, other| one.0 == other.0);
            listings += 1;
            if found.len() == length || listings == MOST_LISTINGS {
                return Ok(found);
            }
        }
    }

    /// Sorted by the keys, of which the kernel may say one twice.
    fn list<T>(
        &mut self,
        table: &str,
        set: &str,
        take: impl Fn(AttributeIter<'_>) -> Option<T>,
    ) -> Result<Vec<(Vec<u8>, T)>, NetError> {
        let mut found = Vec::new();
        let attributes = Attributes::default().text(1, table).text(2, set);
        self.0.ask(NFTABLES | 13, DUMP, INET, &attributes, "list a set of nf_tables", |message| {
            let elements = message.attributes().inside(3);
            for (_, element) in elements.into_iter().flatten() {
                let element = AttributeIter(element);
                let key = element.inside(1).and_then(|key| key.find(1));
                found.extend(key.and_then(|key| Some((key.to_vec(), take(element)?))));
            }
        })?;
        found.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        Ok(found)
    }
}
