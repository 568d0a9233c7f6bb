//! The tables of a load balancer as a peer sees them: by pool and kind, with members by id.

use std::{collections::HashMap, sync::Arc};

use amphora_model::{PoolId, SessionPersistence};

use crate::{
    peers::wire::{Entries, Entry, MAX_ENTRIES, Table},
    persist::PersistState,
};

/// An entry from a peer is never said to be used later than so many seconds from now: the clocks of both sides count
/// whole seconds.
const AHEAD: u32 = 2;

/// The tables that are kept alike.
#[derive(Debug, Default)]
pub struct Tables {
    list: Vec<(Table, Arc<PersistState>)>,
    index: HashMap<Table, usize>,
}

/// How far a look through all tables has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    table: usize,
    place: usize,
}

/// What became of entries from a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// Entries that changed the table.
    pub(super) taken: u64,
    /// Entries of a table or a member that is not known here.
    pub(super) unknown: u64,
}

impl Tables {
    /// Replaces the tables. Those that were not there before are told in whole.
    pub fn set(&mut self, states: impl IntoIterator<Item = (PoolId, Arc<PersistState>)>) {
        let before = std::mem::take(self);
        for (pool, state) in states {
            let cookie_name = match state.persistence() {
                // A pool has one of them.
                SessionPersistence::SourceIp | SessionPersistence::SourceNetwork(_) => None,
                SessionPersistence::AppCookie { cookie_name } => Some(cookie_name.as_str().into()),
                SessionPersistence::HttpCookie => continue,
            };
            let table = Table { pool, cookie_name };
            let known = before.index.get(&table).map(|&index| &before.list[index].1);
            if !known.is_some_and(|known| Arc::ptr_eq(known, &state)) {
                state.table().mark_all();
            }
            self.index.insert(table.clone(), self.list.len());
            self.list.push((table, state));
        }
    }

    /// There is no peer any more that is told of them.
    pub fn end(&mut self) {
        for (_, state) in self.list.drain(..) {
            state.table().end_telling();
        }
        self.index.clear();
    }

    /// Tables.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Everything is to be told.
    pub(super) fn mark_all(&self) {
        for (_, state) in &self.list {
            state.table().mark_all();
        }
    }

    /// Takes what is to be told of the next table that has something, and where to go on after it; `zero` is the time
    /// from which uses are counted.
    pub(super) fn take(&self, cursor: Cursor, zero: u32) -> (Option<Entries>, Option<Cursor>) {
        let mut place = cursor.place;
        for (index, (table, state)) in self.list.iter().enumerate().skip(cursor.table) {
            let mut list = Vec::new();
            let next = state.table().take_marked(place, MAX_ENTRIES, |key, handle, used| {
                if let Some(member) = state.member(handle) {
                    list.push(Entry { key, member, used: since(zero, used) });
                }
            });
            if !list.is_empty() || next.is_some() {
                let next = match next {
                    Some(place) => Cursor { table: index, place },
                    None => Cursor { table: index + 1, place: 0 },
                };
                let entries = Entries { table: table.clone(), list };
                return (Some(entries).filter(|entries| !entries.list.is_empty()), Some(next));
            }
            place = 0;
        }
        (None, None)
    }

    /// Puts in what a peer has told, as far as it is news; `now` is the tables' time.
    pub(super) fn merge(&self, entries: &Entries, zero: u32, now: u32) -> Merged {
        let mut merged = Merged::default();
        let Some(&index) = self.index.get(&entries.table) else {
            merged.unknown = entries.list.len() as u64;
            return merged;
        };
        let state = &self.list[index].1;
        for entry in &entries.list {
            let Some(handle) = state.handle(entry.member) else {
                merged.unknown += 1;
                continue;
            };
            let used = zero.saturating_add_signed(entry.used).min(now.saturating_add(AHEAD));
            let wins = |held| state.member(held).is_none_or(|held| held < entry.member);
            if state.table().merge(entry.key, handle, used, wins) {
                merged.taken += 1;
            }
        }
        merged
    }
}

fn since(zero: u32, used: u32) -> i32 {
    let seconds = i64::from(used) - i64::from(zero);
    seconds.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}
