//! Which member gets the next session: four algorithms behind one [`Balancer`] over one [`MembersView`].
//!
//! A balancer does no I/O, reads no clock and takes no lock. Every worker has one per pool, so its position
//! is its own; what workers share is what the view reads (health, sessions under way).
//!
//! | `lb_algorithm` | module | HAProxy | a pick costs |
//! | --- | --- | --- | --- |
//! | `ROUND_ROBIN` | [`round_robin`] | `balance roundrobin` | O(log n) |
//! | `LEAST_CONNECTIONS` | [`least_connections`] | `balance leastconn` | O(1) while a member is idle, else O(n) |
//! | `SOURCE_IP`, `SOURCE_IP_PORT` | [`source_hash`] | `balance source` | O(1) for a source seen before, else O(n) |
//!
//! Rules that all of them share, in [`eligible`]:
//! - A member with weight 0 is never picked: it drains. Persistence does not ask a balancer, so it still gets
//!   its own sessions.
//! - Backup members are used only when no other member is usable with a weight; then all of them are
//!   (HAProxy `option allbackups`).
//! - Members that were taken out as outliers are used when nobody else is left.
//! - What `avoid` names (members that failed this session already) is picked only if nothing else is
//!   eligible, as HAProxy's redispatch does: another server if there is one, else the same again.
//!
//! Whole pools that share by weight take turns in `turns`.

pub mod eligible;
pub mod hash;
pub mod least_connections;
mod order;
pub mod round_robin;
pub mod source_hash;
mod turns;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use amphora_model::{LbAlgorithm, MemberId};

use self::{least_connections::LeastConnections, round_robin::RoundRobin, source_hash::SourceHash};
pub use self::{order::Turn, turns::Turns};

/// What a balancer sees of a pool's members, numbered from 0 in the order of the document.
///
/// Invariant: while [`epoch`](Self::epoch) stays the same, only [`load`](Self::load) changes. A view of
/// another set of members is another view and wants a [`Balance`] of its own.
pub trait MembersView {
    /// How many members there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The member's id; what hashes and carried-over positions go by.
    fn id(&self, member: usize) -> MemberId;

    /// What its share goes by: `weight`, 0 to 256, in sixteenths; 0 is no share, and anything else at least 1.
    fn weight(&self, member: usize) -> u16;

    /// `backup`.
    fn backup(&self, member: usize) -> bool;

    /// `admin_state_up`, not down by its health checks, and not taken out because of what it does with real traffic.
    fn usable(&self, member: usize) -> bool;

    /// Whether the member is to be used when no other is: one that is not usable for a reason that may be none.
    fn last_resort(&self, member: usize) -> bool {
        self.usable(member)
    }

    /// Sessions or requests under way at the member, of all workers.
    fn load(&self, member: usize) -> u32;

    /// Differs whenever [`usable`](Self::usable), [`last_resort`](Self::last_resort) or [`weight`](Self::weight) of any member does.
    fn epoch(&self) -> u64;
}

/// What the algorithms may know of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client's address. An IPv4-mapped IPv6 address counts as the IPv4 one.
    pub source: IpAddr,
    /// The client's port.
    pub source_port: u16,
}

/// Picks members.
pub trait Balancer {
    /// The member for this session, or `None` when no member is eligible. What `avoid` names is picked only
    /// when nothing else is eligible.
    fn pick(&mut self, view: &impl MembersView, flow: &Flow, avoid: impl Fn(usize) -> bool) -> Option<usize>;
}

/// The algorithm of a pool, with its position. It belongs to one view; for the next snapshot's make a new one
/// and [`carry_over`](Self::carry_over).
#[derive(Debug)]
pub enum Balance {
    /// `ROUND_ROBIN`.
    RoundRobin(RoundRobin),
    /// `LEAST_CONNECTIONS`.
    LeastConnections(LeastConnections),
    /// `SOURCE_IP` and `SOURCE_IP_PORT`.
    SourceHash(SourceHash),
}

impl Balance {
    /// A balancer for this algorithm. `seed` tells workers apart, by which they start at different members;
    /// the source hashes do not depend on it.
    pub fn new(algorithm: LbAlgorithm, seed: u64) -> Self {
        match algorithm {
            LbAlgorithm::RoundRobin => Self::RoundRobin(RoundRobin::new(seed)),
            LbAlgorithm::LeastConnections => Self::LeastConnections(LeastConnections::new(seed)),
            LbAlgorithm::SourceIp => Self::SourceHash(SourceHash::new(false)),
            LbAlgorithm::SourceIpPort => Self::SourceHash(SourceHash::new(true)),
        }
    }

    /// Goes on where `previous` was, the balancer of the same pool in the snapshot before. Members are
    /// recognised by id; another algorithm starts anew.
    pub fn carry_over(&mut self, previous: &Self) {
        match (self, previous) {
            (Self::RoundRobin(to), Self::RoundRobin(from)) => to.carry_over(from),
            (Self::LeastConnections(to), Self::LeastConnections(from)) => to.carry_over(from),
            // A hash has no position.
            _ => {}
        }
    }

    /// A session begins at a member that this balancer or persistence has chosen. It lasts until what is returned is dropped; the
    /// algorithms that return nothing do not care.
    #[inline]
    pub fn begin(&mut self, view: &impl MembersView, member: usize) -> Option<Turn> {
        match self {
            Self::LeastConnections(b) => Some(b.begin(view, member)),
            Self::RoundRobin(_) | Self::SourceHash(_) => None,
        }
    }
}

impl Balancer for Balance {
    #[inline]
    fn pick(&mut self, view: &impl MembersView, flow: &Flow, avoid: impl Fn(usize) -> bool) -> Option<usize> {
        match self {
            Self::RoundRobin(b) => b.pick(view, flow, avoid),
            Self::LeastConnections(b) => b.pick(view, flow, avoid),
            Self::SourceHash(b) => b.pick(view, flow, avoid),
        }
    }
}
