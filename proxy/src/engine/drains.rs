//! Members that drain: since when, and when their time is over. Without a clock.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use amphora_model::{Pool, PoolId};

use crate::{
    snapshot::{MemberPlan, PoolPlan, Snapshot},
    state::MemberState,
};

/// Those of pools with a `drain_timeout`, by [`key`].
#[derive(Debug, Default)]
pub(super) struct Drains(HashMap<usize, Drain>);

/// A member that gets nothing new, and for how long it may finish what it has.
#[derive(Clone, Debug)]
pub(super) struct Drain {
    pub(super) state: Arc<MemberState>,
    pub(super) since: Instant,
    pub(super) timeout: Duration,
    pub(super) why: Why,
    /// The time is over, and workers have been told.
    pub(super) over: bool,
}

/// Why a member drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its weight is 0.
    Weight,
    /// It or its pool is disabled.
    Disabled,
    /// It or its pool is gone.
    Removed,
}

impl Why {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Weight => "weight 0",
            Self::Disabled => "disabled",
            Self::Removed => "removed",
        }
    }
}

impl Drains {
    /// Follows a change that went live. Who is in use again drains no more, which its state is told in [`resume`]. Looks closer only at
    /// pools that have changed.
    pub(super) fn follow(&mut self, now: Instant, before: &Snapshot, present: &Snapshot) {
        let old: HashMap<PoolId, &Arc<PoolPlan>> =
            before.pools.iter().map(|plan| (plan.id(), plan)).collect();
        let mut ids = HashSet::new();
        for (pool, plan) in pools(present) {
            ids.insert(plan.id());
            let before = old.get(&plan.id());
            if before.is_some_and(|before| Arc::ptr_eq(before, plan)) && pool.admin_state_up {
                continue;
            }
            for member in &plan.members {
                match (why(pool, member), plan.member_options.drain_timeout) {
                    (Some(why), Some(timeout)) => self.drain(now, &member.state, timeout, why),
                    (_, _) => drop(self.0.remove(&key(&member.state))),
                }
            }
            let timeout = plan.member_options.drain_timeout;
            if before.is_some_and(|before| before.member_options.drain_timeout != timeout) {
                self.change_those_gone(now, plan.id(), timeout);
            }
            let left = before.into_iter().flat_map(|before| &before.members);
            let present: HashSet<_> = plan.members.iter().map(|member| key(&member.state)).collect();
            for member in left.filter(|member| !present.contains(&key(&member.state))) {
                self.remove(now, member, timeout);
            }
        }
        for plan in before.pools.iter().filter(|plan| !ids.contains(&plan.id())) {
            plan.members
                .iter()
                .for_each(|member| self.remove(now, member, plan.member_options.drain_timeout));
        }
    }

    fn drain(&mut self, now: Instant, state: &Arc<MemberState>, timeout: Duration, why: Why) {
        match self.0.entry(key(state)) {
            Entry::Occupied(mut known) => {
                let drain = known.get_mut();
                (drain.timeout, drain.why) = (timeout, why);
                // Of one that has more time again what it has gets by; persistence is its own again.
                if drain.over && drain.until() > now {
                    drain.over = false;
                    drain.state.set_drained(false);
                }
            }
            Entry::Vacant(new) => {
                let state = Arc::clone(state);
                new.insert(Drain { state, since: now, timeout, why, over: false });
            }
        }
    }

    /// Those that a pool has no more have the time that it grants now, from the same moment.
    fn change_those_gone(&mut self, now: Instant, pool: PoolId, timeout: Option<Duration>) {
        let gone = self.0.values().filter(|drain| drain.why == Why::Removed && drain.state.pool.id == pool);
        let gone: Vec<_> = gone.map(|drain| Arc::clone(&drain.state)).collect();
        for state in gone {
            match timeout {
                Some(timeout) => self.drain(now, &state, timeout, Why::Removed),
                None => {
                    state.set_drained(false);
                    self.0.remove(&key(&state));
                }
            }
        }
    }

    fn remove(&mut self, now: Instant, member: &MemberPlan, timeout: Option<Duration>) {
        match timeout {
            Some(timeout) => self.drain(now, &member.state, timeout, Why::Removed),
            None => drop(self.0.remove(&key(&member.state))),
        }
    }

    /// Ends the time of those for which it is over; whether there are any. To be called after each change and about once a second.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let mut any = false;
        self.0.retain(|_, drain| {
            if !drain.over && drain.until() <= now {
                drain.over = true;
                drain.state.set_drained(true);
                any = true;
            }
            // What began before the change may still come to one that is gone: asked again, or while it pauses between attempts.
            drain.why != Why::Removed || drain.is_known()
        });
        any
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Drain> {
        self.0.values()
    }
}

impl Drain {
    pub(super) fn until(&self) -> Instant {
        self.since + self.timeout
    }

    pub(super) fn sessions(&self) -> u32 {
        self.state.sessions.load(Ordering::Relaxed)
    }

    /// Whether it has sessions, or anybody could still give it one.
    fn is_known(&self) -> bool {
        self.sessions() > 0 || Arc::strong_count(&self.state) > 1
    }
}

/// Members that a snapshot has in use, or that may take the time that they want, are not at the end of a drain; to be called before it
/// goes live.
pub(super) fn resume(snapshot: &Snapshot) {
    for (pool, plan) in pools(snapshot) {
        let drained = plan.members.iter().filter(|member| member.state.is_drained());
        for member in
            drained.filter(|m| why(pool, m).is_none() || plan.member_options.drain_timeout.is_none())
        {
            member.state.set_drained(false);
        }
    }
}

fn why(pool: &Pool, member: &MemberPlan) -> Option<Why> {
    if !pool.admin_state_up || !member.admin_state_up {
        Some(Why::Disabled)
    } else if member.weight == 0 {
        Some(Why::Weight)
    } else {
        None
    }
}

/// What tells states apart: a member that moved has a new state under the same id.
fn key(state: &Arc<MemberState>) -> usize {
    Arc::as_ptr(state) as usize
}

fn pools(snapshot: &Snapshot) -> impl Iterator<Item = (&Pool, &Arc<PoolPlan>)> {
    snapshot.model.iter().flat_map(|model| model.pools.iter().zip(&snapshot.pools))
}
