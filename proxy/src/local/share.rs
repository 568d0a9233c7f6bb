//! A worker's share of the descriptors for idle connections to members.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::{Rc, Weak},
};

use super::snapshot::LocalMember;

/// How many idle connections a worker keeps to all members together, and who has some.
#[derive(Default)]
pub(crate) struct IdleShare {
    limit: usize,
    kept: Cell<usize>,
    /// Each member that keeps some is here once; others may be.
    holders: RefCell<VecDeque<Weak<LocalMember>>>,
}

impl IdleShare {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Whether none is to be kept at all.
    pub(super) fn is_nothing(&self) -> bool {
        self.limit == 0
    }

    /// A member keeps so many now, where it has kept `before`.
    #[inline]
    pub(super) fn changed(&self, before: usize, now: usize) {
        self.kept.set(self.kept.get() + now - before);
    }

    /// A member that is not among the holders keeps some from now on.
    pub(super) fn join(&self, member: &Rc<LocalMember>) {
        self.holders.borrow_mut().push_back(Rc::downgrade(member));
    }

    /// Closes what is kept beyond the limit: each member in turn gives its oldest.
    pub(super) fn settle(&self) {
        while self.kept.get() > self.limit {
            let Some(holder) = self.holders.borrow_mut().pop_front() else { return };
            if let Some(member) = holder.upgrade()
                && member.give_oldest()
            {
                self.holders.borrow_mut().push_back(holder);
            }
        }
    }
}
