//! Rate limits: `rate_limit_policies` of listeners, without sockets and without a clock.
//!
//! * `moment`: time, the periods of an interval, how fast something comes
//! * `table`: what was counted of whom, of a constant size for all workers and all rules
//! * `client`: whom something is counted of
//! * `plan`: the policies of a listener, and what they say
//! * `charge`: whose the bytes of a session are
//! * `line`: who waits for a turn, one behind the other
//! * `taken`: what is done with who has broken one
//! * `state`: what outlives a change: what was done, who waits
//!
//! A rule's rate is HAProxy's (`http_req_rate`, `conn_rate`): what came in this period, and of what came in the one before as large a
//! part as of this one is still to come. What is turned away counts, too. The periods are the same for all
//! clients; in HAProxy each begins with its client's first request.

mod charge;
mod client;
mod line;
mod moment;
mod plan;
#[cfg(test)]
mod queue_tests;
mod state;
mod table;
mod taken;
#[cfg(test)]
pub(crate) mod tests;

use std::{collections::HashMap, hash::BuildHasher, sync::Arc};

use amphora_model::{ListenerId, RateLimitAction, RateLimitPolicy, RateLimitPolicyId, RateLimitRuleId};

use self::table::Table;
pub use self::{
    charge::Charge,
    client::{Believed, network},
    moment::Moment,
    plan::{Asked, Broken, ClientHash, Counted, Done, Foreseen, Look, RateLimits, Seen},
    state::{PolicyCounters, PolicyState, Waiting},
    taken::{Farewell, Queued, Taken},
};
use crate::balance::hash::HashKey;

/// What all rate limits of the process count in.
#[derive(Debug)]
pub struct Limiter {
    table: Table,
    /// A secret, so that nobody can find keys that meet.
    key: HashKey,
}

impl Limiter {
    /// Bytes that one takes, however much there is to count.
    pub const BYTES: usize = Table::BYTES;

    /// How many clients have a place, each once for every rule that counts them.
    pub const PLACES: usize = Table::PLACES;

    /// Nothing counted yet.
    pub fn new() -> Self {
        let random = || std::hash::RandomState::new().hash_one(0_u8);
        Self { table: Table::new(), key: HashKey::secret(random(), random()) }
    }

    /// How many places are in use, whether or not what is in them still counts.
    pub fn used(&self) -> usize {
        self.table.used()
    }

    /// How often somebody was forgotten who still counted.
    pub fn forgotten(&self) -> u64 {
        self.table.forgotten()
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new()
    }
}

/// What of a snapshot's rate limits the next one goes on with.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// `None`: there are no rate limits.
    limiter: Option<Arc<Limiter>>,
    policies: HashMap<RateLimitPolicyId, Policy>,
}

/// What is kept of a policy.
#[derive(Clone, Debug)]
struct Policy {
    of: ListenerId,
    state: Arc<PolicyState>,
    /// By which rule it has clients wait; `None` if it does not.
    queue: Option<RateLimitRuleId>,
}

impl Kept {
    /// What is gone on with, for what follows `before`.
    pub fn after(before: &Self) -> Successor<'_> {
        Successor { before, kept: Self::default() }
    }

    /// What all count in, if anything is counted.
    pub fn limiter(&self) -> Option<&Arc<Limiter>> {
        self.limiter.as_ref()
    }

    /// The states of all policies, with their listeners.
    pub fn policies(&self) -> impl Iterator<Item = (ListenerId, &Arc<PolicyState>)> {
        self.policies.values().map(|policy| (policy.of, &policy.state))
    }

    /// The state of a policy.
    pub fn policy(&self, id: RateLimitPolicyId) -> Option<&Arc<PolicyState>> {
        self.policies.get(&id).map(|policy| &policy.state)
    }

    /// Lets those go on who wait because of what `present` has no more. To be called once nobody is made to wait by these.
    pub fn release(&self, present: &Self) {
        for (id, before) in &self.policies {
            let now = present.policies.get(id).and_then(|policy| policy.queue);
            if before.queue.is_some() && now != before.queue {
                before.state.release();
            }
        }
    }
}

/// The rate limits of a snapshot that is being made.
#[derive(Debug)]
pub struct Successor<'a> {
    before: &'a Kept,
    kept: Kept,
}

impl Successor<'_> {
    fn limiter(&mut self) -> Arc<Limiter> {
        let before = &self.before.limiter;
        let make = || before.clone().unwrap_or_else(|| Arc::new(Limiter::new()));
        Arc::clone(self.kept.limiter.get_or_insert_with(make))
    }

    fn policy(&mut self, of: ListenerId, policy: &RateLimitPolicy, workers: usize) -> Arc<PolicyState> {
        let id = policy.id;
        let before = self.before.policy(id);
        let state = before.cloned().unwrap_or_else(|| Arc::new(PolicyState::new(id, workers)));
        let queues = policy.enabled && matches!(policy.action, RateLimitAction::Queue(_));
        let queue = policy.rules.first().map(|rule| rule.id).filter(|_| queues);
        self.kept.policies.insert(id, Policy { of, state: Arc::clone(&state), queue });
        state
    }

    /// A listener's are as they were.
    pub fn keep(&mut self, limits: Option<&RateLimits>, of: &amphora_model::Listener, workers: usize) {
        if limits.is_some() {
            self.limiter();
        }
        for policy in &of.rate_limit_policies {
            self.policy(of.id, policy, workers);
        }
    }

    /// It is made.
    pub fn into_kept(self) -> Kept {
        self.kept
    }
}
