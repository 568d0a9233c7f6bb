//! What is to be done next for one load balancer, from what its rows say and what there is. No I/O and no memory: whoever was
//! killed after any step begins here again.

use crate::serve::{
    compute::Liveness,
    status::{AmphoraStatus, Role, Topology},
};

/// A load balancer as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// How many amphorae it is to have.
    pub topology: Topology,
    /// It is about to go.
    pub going: bool,
    /// That of its row.
    pub generation: i64,
    /// Amphorae that were made before this time are to be replaced, in milliseconds since 1970.
    pub replace_before: Option<i64>,
    /// How often this has failed since it was asked for.
    pub attempts: u32,
    /// Those that serve did not take this generation when they were told at the begin of this attempt.
    pub untold: bool,
    /// Amphorae have ports that nobody needs any more, and nothing else is being changed.
    pub idle_ports: bool,
    /// All that have a row, the oldest first.
    pub amphorae: Vec<Seen>,
}

/// An amphora as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Its id.
    pub id: String,
    /// When its row was made, in milliseconds since 1970.
    pub made: i64,
    /// That of its row.
    pub status: AmphoraStatus,
    /// That of its row.
    pub role: Option<Role>,
    /// The generation that was applied last; 0 when it has to be told everything.
    pub applied: i64,
    /// It is to be replaced.
    pub leaving: bool,
    /// How its machine is; `None` when that could not be found out: then it is left, as one that runs.
    pub liveness: Option<Liveness>,
    /// Whether it holds the addresses of its pair, where that is known.
    pub master: Option<bool>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many rows of amphorae.
    Add(usize),
    /// Machines for these, that answer. Those that serve are told meanwhile what changes.
    Boot(Vec<String>),
    /// These, which serve, are told what changes before what has failed is tried again. What keeps them from it, as a certificate that is bad, keeps
    /// nothing else.
    KeepUp(Vec<String>),
    /// These are lost, or no longer wanted: their rows say so.
    Retire(Vec<String>),
    /// Machines and rows of these go.
    Remove(Vec<String>),
    /// These are told what they are to be.
    Apply(Vec<String>),
    /// The first of a pair lets the second have the addresses.
    HandOver {
        /// It leaves.
        from: String,
        /// It takes over.
        to: String,
    },
    /// All is so: rows say so.
    Finish,
    /// Ports that nobody needs go.
    Unplug,
    /// Nothing is left of it but its rows: they go.
    Delete,
}

impl View {
    /// Whether it matters for the next step who of a pair is master: old ones are there, and as many others as it takes.
    pub fn wants_masters(&self) -> bool {
        let ready = |one: &Seen| one.status == AmphoraStatus::Allocated && !one.is_lost();
        self.topology == Topology::ActiveStandby
            && !self.going
            && self.amphorae.len() > self.count()
            && self.amphorae.iter().all(ready)
            && self.amphorae.iter().any(|one| self.is_old(one))
    }

    /// What is to be done next.
    pub fn next(&self) -> Step {
        let ids = |wanted: &dyn Fn(&Seen) -> bool| -> Vec<String> {
            self.amphorae.iter().filter(|one| wanted(one)).map(|one| one.id.clone()).collect()
        };
        let retired = |one: &Seen| one.status == AmphoraStatus::PendingDelete;
        if self.going {
            let wanted = ids(&|one| !retired(one));
            return match (wanted.is_empty(), self.amphorae.is_empty()) {
                (false, _) => Step::Retire(wanted),
                (true, false) => Step::Remove(ids(&retired)),
                (true, true) => Step::Delete,
            };
        }
        // Before there is a replacement that could have its addresses.
        let gone = ids(&retired);
        if !gone.is_empty() {
            return Step::Remove(gone);
        }
        let dead = ids(&Seen::is_lost);
        if !dead.is_empty() {
            return Step::Retire(dead);
        }
        let lags = |one: &Seen| one.status == AmphoraStatus::Allocated && one.applied < self.generation;
        if self.attempts > 0 && !self.untold {
            // What cannot be made must not keep what serves from what it is to be; and one that is to be replaced and does not answer must not
            // keep others from being made.
            let serves = |one: &Seen| one.role.is_some() && (self.attempts % 2 == 1 || !self.is_old(one));
            let serving = ids(&|one| lags(one) && serves(one));
            if !serving.is_empty() {
                return Step::KeepUp(serving);
            }
        }
        let old: Vec<&Seen> = self.amphorae.iter().filter(|one| self.is_old(one)).collect();
        // The replacements are there before the old ones go: all of them, that they boot at once, or one where there is no room for all.
        let ahead = if self.attempts == 0 { old.len() } else { old.len().min(1) };
        let count = self.count() + ahead;
        if self.amphorae.len() < count {
            return Step::Add(count - self.amphorae.len());
        }
        let booting = ids(&|one| one.status == AmphoraStatus::Booting);
        if !booting.is_empty() {
            return Step::Boot(booting);
        }
        if let Some(step) = self.replace(&old) {
            return step;
        }
        if let Some(surplus) = self.amphorae.get(self.count()..).filter(|surplus| !surplus.is_empty()) {
            return Step::Retire(surplus.iter().map(|one| one.id.clone()).collect());
        }
        let lagging = ids(&lags);
        match (lagging.is_empty(), self.idle_ports) {
            (false, _) => Step::Apply(lagging),
            (true, true) => Step::Unplug,
            (true, false) => Step::Finish,
        }
    }

    /// How the old ones go, one after another, when there are enough others.
    fn replace(&self, old: &[&Seen]) -> Option<Step> {
        let retire = |one: &Seen| Some(Step::Retire(vec![one.id.clone()]));
        // Whoever has the addresses goes last.
        let holds = |one: &Seen| one.master.unwrap_or(one.role != Some(Role::Backup));
        let first = old.iter().copied().find(|one| !holds(one)).or_else(|| old.first().copied())?;
        // One that does not answer cannot be asked to hand over, and one that does not do it is not asked for ever.
        let hands_over = first.master == Some(true) && self.attempts < 2;
        if self.topology == Topology::Single || old.len() > 1 || !hands_over {
            return retire(first);
        }
        let others = || self.amphorae.iter().filter(|one| !self.is_old(one));
        // Who has been told what the first was told is as good: else nobody would hand over while changes keep coming.
        let is_as_good = |one: &&Seen| {
            one.applied >= self.generation || (first.applied > 0 && one.applied >= first.applied)
        };
        if let Some(other) = others().find(is_as_good) {
            return Some(Step::HandOver { from: first.id.clone(), to: other.id.clone() });
        }
        let other = others().find(|one| one.applied > 0).or_else(|| others().next())?;
        Some(Step::Apply(vec![first.id.clone(), other.id.clone()]))
    }

    fn count(&self) -> usize {
        match self.topology {
            Topology::Single => 1,
            Topology::ActiveStandby => 2,
        }
    }

    fn is_old(&self, one: &Seen) -> bool {
        one.leaving || self.replace_before.is_some_and(|time| one.made < time)
    }
}

impl Seen {
    /// Whether it will never serve (again).
    fn is_lost(&self) -> bool {
        match self.liveness {
            Some(Liveness::Dead) => true,
            Some(Liveness::Absent) => self.status != AmphoraStatus::Booting,
            Some(Liveness::Running) | None => {
                matches!(self.status, AmphoraStatus::Error | AmphoraStatus::FailoverStopped)
            }
        }
    }
}

/// The roles of those that are told together, in their order: who has one keeps it, and no two of a pair have the same.
pub fn roles(topology: Topology, present: &[Option<Role>]) -> Vec<Role> {
    if topology == Topology::Single {
        return vec![Role::Standalone; present.len()];
    }
    let mut free = vec![Role::Master, Role::Backup];
    let kept: Vec<Option<Role>> = present
        .iter()
        .map(|role| {
            let at = free.iter().position(|other| Some(*other) == *role)?;
            Some(free.remove(at))
        })
        .collect();
    let mut free = free.into_iter();
    kept.into_iter().map(|role| role.or_else(|| free.next()).unwrap_or(Role::Backup)).collect()
}

#[cfg(test)]
mod tests;
