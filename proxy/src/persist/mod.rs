//! Session persistence: which member a client was with before.
//!
//! | `session_persistence.type` | HAProxy | here |
//! | --- | --- | --- |
//! | `SOURCE_IP` | `stick-table type ipv6 size 10k`, `stick on src` | [`Persistence::Source`] |
//! | `APP_COOKIE` | `stick-table type string len 64 size 10k`, `stick store-response res.cook(NAME)`, `stick match req.cook(NAME)` | [`Persistence::AppCookie`] |
//! | `HTTP_COOKIE` | `cookie SRV insert indirect nocache` | [`Persistence::ServerCookie`] |
//!
//! What persistence says is asked before balancing. A member that is down or disabled is not used: the session
//! is balanced, and what was stored for its client is overwritten once another member has answered. A member
//! with weight 0 still gets its own clients, and so does one that is backup.
//!
//! [`PersistState`] is what a pool remembers. It outlives snapshots; [`Persistence`] is one snapshot's
//! view of it.

#![expect(
    clippy::disallowed_types,
    reason = "held to copy or replace one pointer, by who compiles and who applies"
)]

pub mod app_cookie;
pub mod server_cookie;
pub mod table;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use amphora_model::{MemberId, Pool, PoolId, SessionPersistence};

pub use self::{
    server_cookie::{CookieVerdict, ServerCookie},
    table::{MemberHandle, StickKey, StickTable},
};
use crate::balance::{MembersView, hash::HashKey};

/// Entries of a table before the oldest are replaced: Octavia's default for `haproxy_stick_size`, `10k`.
pub const STICK_SIZE: usize = 10 * 1024;

/// Bytes of a cookie's value that count, from `stick-table type string len 64`; the rest is ignored.
pub const COOKIE_LEN: usize = 64;

/// What the tables' clock shows when the process starts, in seconds: what comes from a peer may have been used before.
const CLOCK_START: u32 = 1 << 31;

/// Members that left a pool and are still known, above which they are forgotten.
const FORMER_MEMBERS: usize = 256;

/// What a pool remembers of its clients: one table, and the members that it speaks of.
#[derive(Debug)]
pub struct PersistState {
    persistence: SessionPersistence,
    key: HashKey,
    table: StickTable,
    /// What runs goes by; replaced as a whole when a change goes live. Never locked on the request path.
    roster: Mutex<Arc<Roster>>,
}

/// Which handle stands for which member. Compiling makes the next one out of it and leaves it as it is: a change that is
/// refused leaves no trace.
#[derive(Clone, Debug, Default)]
struct Roster {
    last: u32,
    handles: HashMap<MemberId, MemberHandle>,
    members: HashMap<MemberHandle, MemberId>,
}

impl Roster {
    /// One that has these members, too. Those that were known keep their handles. Members that left stay known for a
    /// while, so that a change that is taken back costs nothing; no handle is ever given to another member.
    fn with(self: Arc<Self>, members: &[MemberId]) -> Arc<Self> {
        let crowded = |handles: usize| handles > 2 * members.len() + FORMER_MEMBERS;
        let unknown = members.iter().any(|id| !self.handles.contains_key(id));
        if !unknown && !crowded(self.handles.len()) {
            return self;
        }
        let mut next = Self::clone(&self);
        for id in members {
            next.handles.entry(*id).or_insert_with(|| {
                next.last += 1;
                next.members.insert(MemberHandle(next.last), *id);
                MemberHandle(next.last)
            });
        }
        if crowded(next.handles.len()) {
            let present: HashSet<_> = members.iter().collect();
            next.handles.retain(|id, _| present.contains(id));
            next.members.retain(|_, id| present.contains(id));
        }
        Arc::new(next)
    }
}

/// The time of the tables' clock, which counts seconds, at so many seconds since the process started.
pub fn table_time(now: u32) -> u32 {
    CLOCK_START.saturating_add(now)
}

impl PersistState {
    /// The state for the next snapshot of a pool: `previous` when the kind of persistence is the same, a fresh one
    /// when it changed, none when `persistence` needs no table.
    pub fn carry_over(
        previous: Option<Arc<Self>>,
        pool: PoolId,
        persistence: Option<&SessionPersistence>,
    ) -> Option<Arc<Self>> {
        let persistence = match persistence {
            None | Some(SessionPersistence::HttpCookie) => return None,
            Some(persistence) => persistence,
        };
        let same = previous.filter(|state| state.persistence == *persistence);
        Some(same.unwrap_or_else(|| Arc::new(Self::new(pool, persistence.clone()))))
    }

    fn new(pool: PoolId, persistence: SessionPersistence) -> Self {
        let (key, table) = (HashKey::of(pool.0), StickTable::new(STICK_SIZE));
        Self { persistence, key, table, roster: Mutex::default() }
    }

    /// What kind of persistence the table serves: `SOURCE_IP`, for listeners of datagrams, too, or `APP_COOKIE`.
    pub fn persistence(&self) -> &SessionPersistence {
        &self.persistence
    }

    /// The table, for those who dump or replicate it.
    pub fn table(&self) -> &StickTable {
        &self.table
    }

    /// The key of a client's address. An IPv4-mapped IPv6 address is the IPv4 one's.
    pub fn source_key(&self, source: IpAddr) -> StickKey {
        let hash = match source.to_canonical() {
            IpAddr::V4(ip) => self.key.hash(&ip.octets()),
            IpAddr::V6(ip) => self.key.hash(&ip.octets()),
        };
        StickKey::new(hash)
    }

    /// The key of a cookie's value, of which the first [`COOKIE_LEN`] bytes count.
    pub fn cookie_key(&self, value: &[u8]) -> StickKey {
        StickKey::new(self.key.hash(&value[..value.len().min(COOKIE_LEN)]))
    }

    /// The member that a handle stands for, if it is or lately was in the pool; for those who dump or replicate the table. Takes the
    /// lock: not for the request path.
    pub fn member(&self, handle: MemberHandle) -> Option<MemberId> {
        self.roster().members.get(&handle).copied()
    }

    /// The handle of a member that is or lately was in the pool. Takes the lock: not for the request path.
    pub fn handle(&self, member: MemberId) -> Option<MemberHandle> {
        self.roster().handles.get(&member).copied()
    }

    fn roster(&self) -> Arc<Roster> {
        // Whole whenever another thread panics.
        Arc::clone(&self.roster.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A pool's persistence in one snapshot.
#[derive(Debug)]
pub enum Persistence {
    /// By the client's address: [`Stick::find`] before balancing, [`Stick::store`] once connected.
    Source(Stick),
    /// By a cookie of the application: [`Stick::find`] by that [`app_cookie::of_request`] before balancing,
    /// [`Stick::store`] by that [`app_cookie::of_response`].
    AppCookie {
        /// `cookie_name`.
        name: Box<str>,
        /// The table.
        stick: Stick,
    },
    /// By a cookie of the proxy: [`ServerCookie::judge`] before balancing, which says what the response gets; members
    /// never see it.
    ServerCookie(ServerCookie),
    /// By the client's network, of listeners of datagrams: the kernel's. The table is for what is told to the peer and by it.
    Network(Stick),
}

impl Persistence {
    /// The persistence of a pool over the state that [`PersistState::carry_over`] returned for it. Members
    /// are numbered as in `pool.members`.
    pub fn compile(pool: &Pool, state: Option<&Arc<PersistState>>) -> Option<Self> {
        let ids = || pool.members.iter().map(|member| member.id);
        let stick = || Some(Stick::new(state?.clone(), ids()));
        match pool.session_persistence.as_ref()? {
            SessionPersistence::SourceIp => stick().map(Self::Source),
            SessionPersistence::AppCookie { cookie_name } => {
                let name = cookie_name.as_str().into();
                stick().map(|stick| Self::AppCookie { name, stick })
            }
            SessionPersistence::HttpCookie => Some(Self::ServerCookie(ServerCookie::new(ids()))),
            SessionPersistence::SourceNetwork(_) => stick().map(Self::Network),
        }
    }

    /// Makes the members that this was compiled for the ones that the state knows. To be called once nothing can keep the
    /// snapshot from going live, and before a worker runs it: what that stores must mean something to everybody.
    pub fn adopt(&self) {
        match self {
            Self::Source(stick) | Self::AppCookie { stick, .. } | Self::Network(stick) => stick.adopt(),
            Self::ServerCookie(_) => {}
        }
    }
}

/// A table with one snapshot's members. Lookups and stores take no lock and allocate nothing.
#[derive(Debug)]
pub struct Stick {
    state: Arc<PersistState>,
    roster: Arc<Roster>,
    /// By member.
    handles: Box<[MemberHandle]>,
    /// Sorted.
    members: Box<[(MemberHandle, u32)]>,
}

impl Stick {
    fn new(state: Arc<PersistState>, members: impl Iterator<Item = MemberId>) -> Self {
        let members: Vec<_> = members.collect();
        let before = state.roster();
        let fresh = before.last == 0;
        let roster = before.with(&members);
        if fresh {
            // Nothing that runs goes by it yet.
            *state.roster.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&roster);
        }
        let handles: Box<[_]> = members.iter().map(|id| roster.handles[id]).collect();
        let mut members: Box<[_]> = handles.iter().copied().zip(0..).collect();
        members.sort_unstable();
        Self { state, roster, handles, members }
    }

    fn adopt(&self) {
        *self.state.roster.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.roster);
    }

    /// The pool's state, which makes keys.
    pub fn state(&self) -> &Arc<PersistState> {
        &self.state
    }

    /// The member stored for this key, if it is usable. `now` is in seconds of a clock that all workers share.
    pub fn find(&self, key: StickKey, view: &impl MembersView, now: u32) -> Option<usize> {
        self.named(key, now).filter(|member| view.usable(*member))
    }

    /// The member stored for this key, usable or not.
    pub fn named(&self, key: StickKey, now: u32) -> Option<usize> {
        let handle = self.state.table.lookup(key, table_time(now))?;
        let found = self.members.binary_search_by_key(&handle, |&(handle, _)| handle).ok()?;
        Some(self.members[found].1 as usize)
    }

    /// Remembers that this key's client is with this member.
    pub fn store(&self, key: StickKey, member: usize, now: u32) {
        self.state.table.store(key, self.handles[member], table_time(now));
    }
}

#[cfg(test)]
mod tests;
