//! What compiling the expressions of one load balancer may take, all together.

/// Units for one load balancer: some 13,000 expressions of typical size. A unit is one state of an automaton that is
/// looked at for one entry of a table.
const TOTAL: usize = 1 << 28;

/// Work that is left. It is counted, not timed: what becomes of a document does not depend on the machine.
#[derive(Debug)]
pub(in crate::l7) struct Work(usize);

impl Default for Work {
    fn default() -> Self {
        Self(TOTAL)
    }
}

impl Work {
    #[cfg(test)]
    pub(in crate::l7) fn of(units: usize) -> Self {
        Self(units)
    }

    /// What is left.
    pub(in crate::l7) fn left(&self) -> usize {
        self.0
    }

    /// Takes some away, and all of it when there is less.
    pub(super) fn spend(&mut self, units: usize) {
        self.0 = self.0.saturating_sub(units);
    }
}
