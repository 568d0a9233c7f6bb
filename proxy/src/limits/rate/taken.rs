//! What is done with somebody who has broken a policy, counted.

use std::{sync::Arc, time::Duration};

use super::{Broken, Done, PolicyState, Waiting};

/// What is done.
#[derive(Debug)]
pub enum Taken {
    /// Turned away: after this many seconds it would not be.
    Denied(u64),
    /// The connection goes.
    Dropped(Farewell),
    /// It waits for its turn.
    Queued(Queued),
}

/// How a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// It is reset.
    Reset,
    /// The client is not told.
    Silent,
}

impl Taken {
    /// How a connection goes that nothing else can be done with.
    pub fn farewell(&self) -> Farewell {
        match self {
            Self::Dropped(farewell) => *farewell,
            Self::Denied(_) | Self::Queued(_) => Farewell::Reset,
        }
    }
}

/// One who waits.
#[derive(Debug)]
pub struct Queued {
    policy: Arc<PolicyState>,
    turns: Vec<Waiting>,
}

impl Queued {
    /// What it waits for, one after the other.
    pub fn turns(&self) -> &[Waiting] {
        &self.turns
    }

    /// It waits no longer, after so long, because the turns have come or because it leaves: counts that on this worker.
    pub fn end(self, worker: usize, waited: Duration) {
        let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        self.policy.counters.of(worker).waited_ms.add(waited);
    }
}

impl Broken<'_> {
    /// Counts what is done on this worker.
    #[cold]
    pub fn take(self, worker: usize) -> Taken {
        let counters = self.policy.counters.of(worker);
        let taken = match self.done {
            Done::Deny(wait) => Taken::Denied(seconds(wait)),
            Done::Reject => Taken::Dropped(Farewell::Reset),
            Done::SilentDrop => Taken::Dropped(Farewell::Silent),
            Done::Wait(_, turns) => {
                counters.queued.add(1);
                return Taken::Queued(Queued { policy: Arc::clone(self.policy), turns });
            }
        };
        counters.limited.add(1);
        taken
    }
}

/// As `Retry-After` says it: whole seconds, at least one.
fn seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_whole_seconds() {
        for (millis, expected) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (29_900, 30)] {
            assert_eq!(seconds(Duration::from_millis(millis)), expected);
        }
    }
}
