//! A worker's share of what connections to members may take: descriptors for idle ones, and memory for what they have sent.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::{Rc, Weak},
};

use super::{snapshot::LocalMember, tasks::TaskList};
use crate::http2::Backlog;

/// How many idle connections a worker keeps to all members together, and who has some; and what members have sent in advance.
pub(crate) struct MemberShare {
    limit: usize,
    kept: Cell<usize>,
    /// Each member that keeps some is here once; others may be.
    holders: RefCell<VecDeque<Weak<LocalMember>>>,
    /// What has come with HTTP/2.
    pub(super) backlog: Rc<Backlog>,
    /// Sessions at members, to look whether their time is over.
    pub(super) sessions: Rc<TaskList>,
}

impl MemberShare {
    /// So many idle connections, and so many bytes.
    pub(super) fn new(limit: usize, backlog: usize) -> Self {
        let (kept, holders, sessions) = Default::default();
        Self { limit, kept, holders, backlog: Rc::new(Backlog::new(backlog)), sessions }
    }

    /// Has all sessions at members look whether their time is over.
    pub(crate) fn wake_sessions(&self) {
        self.sessions.wake();
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
