//! Clients that listeners remember, in the [tables](crate::persist::StickTable) that are kept alike with the pair's other amphora. The
//! kernel's maps say who comes; a look once a second goes both ways.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use amphora_model::{MemberId, PoolId, SessionPersistence};
use uuid::Uuid;

use super::{
    plan,
    told::slack,
    wire::{Client, Network},
};
use crate::{
    persist::{MemberHandle, PersistState, StickKey, table_time},
    snapshot::{ListenerPlan, PoolPlan, Snapshot},
};

/// Clients that the kernel is told of at once.
const MOST: usize = 4096;
/// What an IPv4 address is multiplied by, so that all bits of a key depend on it; odd, so that there is a way back.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Where a key stands for an address, this is before it.
const V4: u64 = 1 << 32;

/// What the kernel is known to have.
#[derive(Debug, Default)]
pub(super) struct Alike(HashMap<Uuid, Held>);

/// Of one listener: member and last use.
#[derive(Debug, Default)]
struct Held(HashMap<StickKey, (MemberHandle, u32)>);

/// A listener that remembers clients, and the table of its pool.
struct Table {
    listener: Uuid,
    timeout: u64,
    state: Arc<PersistState>,
    /// Whether members are of IPv4.
    v4: HashMap<MemberId, bool>,
}

/// Those that a peer is told of. A pool of several listeners has none: each of them remembers its own.
fn tables(snapshot: &Snapshot) -> Vec<Table> {
    let of = |(listener, pool): (_, Option<usize>)| Some((listener, &**snapshot.pools.get(pool?)?));
    let all: Vec<(&ListenerPlan, &PoolPlan)> = plan::services(snapshot).filter_map(of).collect();
    let mut listeners: HashMap<PoolId, usize> = HashMap::new();
    all.iter().for_each(|(_, pool)| *listeners.entry(pool.id()).or_default() += 1);
    let table = |(listener, pool): (&ListenerPlan, &PoolPlan)| {
        let state = pool.persist_state.as_ref().filter(|state| state.table().is_told())?;
        let SessionPersistence::SourceNetwork(network) = state.persistence() else { return None };
        let v4 = pool.members.iter().map(|member| (member.state.id, member.address().is_ipv4()));
        (listeners.get(&pool.id()) == Some(&1)).then(|| Table {
            listener: listener.state.id.0,
            timeout: network.timeout.as_secs(),
            state: Arc::clone(state),
            v4: v4.collect(),
        })
    };
    all.into_iter().filter_map(table).collect()
}

/// The time of the tables at this moment.
fn time(epoch: Instant, now: Instant) -> u32 {
    table_time(u32::try_from(now.saturating_duration_since(epoch).as_secs()).unwrap_or(u32::MAX))
}

impl Alike {
    /// Whose clients are to be asked for, and what the kernel does not know of what the tables have.
    pub(super) fn ask(
        &mut self,
        snapshot: &Snapshot,
        epoch: Instant,
        now: Instant,
    ) -> (Vec<Uuid>, Vec<Client>) {
        let (tables, now) = (tables(snapshot), time(epoch, now));
        self.0.retain(|listener, _| tables.iter().any(|table| table.listener == *listener));
        let mut news = Vec::new();
        for table in &tables {
            self.0.entry(table.listener).or_default().news(table, now, &mut news);
        }
        (tables.iter().map(|table| table.listener).collect(), news)
    }

    /// Puts what the kernel has told in the tables.
    pub(super) fn hear(&mut self, snapshot: &Snapshot, epoch: Instant, now: Instant, clients: &[Client]) {
        let now = time(epoch, now);
        for table in tables(snapshot) {
            let held = self.0.entry(table.listener).or_default();
            for client in clients.iter().filter(|client| client.listener == table.listener) {
                let Some(handle) = table.state.handle(MemberId(client.member)) else { continue };
                let ago = table.timeout.saturating_sub(client.left.div_ceil(1000));
                let used = now.saturating_sub(u32::try_from(ago).unwrap_or(u32::MAX));
                let key = key(client.network);
                table.state.table().renew(key, handle, used);
                held.0.insert(key, (handle, used));
            }
        }
    }

    /// Who has the kernel's maps is another, and knows nothing.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

impl Held {
    fn news(&mut self, table: &Table, now: u32, news: &mut Vec<Client>) {
        let left = |used: u32| {
            let ago = Duration::from_secs(now.saturating_sub(used).into());
            Duration::from_secs(table.timeout).saturating_sub(ago)
        };
        self.0.retain(|_, (_, used)| !left(*used).is_zero());
        // The peer tells what has grown by as much as that: what it tells is to be taken.
        let slack = u32::try_from(slack(table.timeout).as_secs() / 2).unwrap_or(u32::MAX);
        for (key, handle, used) in table.state.table().iter() {
            if news.len() >= MOST {
                return;
            }
            let old = self.0.get(&key).is_some_and(|(held, at)| {
                if *held == handle { used <= at.saturating_add(slack) } else { used < *at }
            });
            let member = table.state.member(handle).filter(|_| !old && !left(used).is_zero());
            let Some((member, v4)) = member.and_then(|member| Some((member, *table.v4.get(&member)?))) else {
                continue;
            };
            let Some(network) = network(key, v4) else { continue };
            self.0.insert(key, (handle, used));
            let left = u64::try_from(left(used).as_millis()).unwrap_or(u64::MAX);
            news.push(Client { listener: table.listener, member: member.0, network, left });
        }
    }
}

fn key(network: Network) -> StickKey {
    StickKey::new(match network {
        Network::V4(address) => (V4 | u64::from(address)).wrapping_mul(SPREAD),
        Network::V6(hash) => hash,
    })
}

/// What the key of a client of a member of IPv4, or not, stands for.
fn network(key: StickKey, v4: bool) -> Option<Network> {
    if !v4 {
        return Some(Network::V6(key.get()));
    }
    let address = key.get().wrapping_mul(inverse(SPREAD));
    (address >> 32 == V4 >> 32).then_some(Network::V4(address as u32))
}

/// By Newton: each step has twice as many bits that are right, of the three that any odd number begins with.
const fn inverse(of: u64) -> u64 {
    let (mut inverse, mut step) = (of, 0);
    while step < 5 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(of.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_networks() {
        for address in [0, 1, 0x0a09_0001, u32::MAX] {
            let network_of = Network::V4(address);
            assert_eq!(network(key(network_of), true), Some(network_of));
        }
        let hash = Network::V6(0x0123_4567_89ab_cdef);
        assert_eq!(network(key(hash), false), Some(hash));
        assert_eq!(network(key(hash), true), None, "what is no address is none");
    }
}
