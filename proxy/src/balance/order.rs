//! Members in the order in which something last happened to them, for algorithms that go by who has waited for longest.

use std::{cell::Cell, rc::Rc};

use amphora_model::MemberId;

use super::MembersView;

/// A list of members, the one first to which nothing has happened for longest. A change costs O(1), and allocates nothing.
#[derive(Debug)]
pub(super) struct Order {
    /// By member; the last one is both ends of the list. Who is not in the list is his own neighbour.
    links: Box<[Link]>,
    ids: Box<[MemberId]>,
}

#[derive(Debug)]
struct Link {
    before: Cell<u32>,
    behind: Cell<u32>,
}

impl Order {
    /// One without members, for those of this view.
    pub(super) fn new(view: &impl MembersView) -> Self {
        let alone = |i| Link { before: Cell::new(i), behind: Cell::new(i) };
        let ids = (0..view.len()).map(|member| view.id(member)).collect();
        Self { links: (0..=view.len() as u32).map(alone).collect(), ids }
    }

    /// Has these members in this order, and no others.
    pub(super) fn set(&self, members: impl IntoIterator<Item = u32>) {
        for (i, link) in (0..).zip(&self.links) {
            link.before.set(i);
            link.behind.set(i);
        }
        members.into_iter().for_each(|member| self.put_last(member));
    }

    /// The members from the first to the last.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        let behind =
            |member: u32| Some(self.links[member as usize].behind.get()).filter(|i| *i != self.end());
        std::iter::successors(behind(self.end()), move |member| behind(*member)).map(|member| member as usize)
    }

    /// Their ids, likewise.
    pub(super) fn ids(&self) -> impl Iterator<Item = MemberId> {
        self.iter().map(|member| self.ids[member])
    }

    /// Something has happened to the member: it comes last, if it is in the list.
    #[inline]
    pub(super) fn touch(&self, member: u32) {
        let link = &self.links[member as usize];
        let (before, behind) = (link.before.get(), link.behind.get());
        if before == member || behind == self.end() {
            return;
        }
        self.links[before as usize].behind.set(behind);
        self.links[behind as usize].before.set(before);
        self.put_last(member);
    }

    fn put_last(&self, member: u32) {
        let last = self.links[self.end() as usize].before.replace(member);
        self.links[last as usize].behind.set(member);
        let link = &self.links[member as usize];
        link.before.set(last);
        link.behind.set(self.end());
    }

    fn end(&self) -> u32 {
        self.ids.len() as u32
    }
}

/// A session under way, as far as an algorithm is to know: to begin and to end puts its member last.
#[derive(Debug)]
pub struct Turn {
    order: Rc<Order>,
    member: u32,
}

impl Turn {
    pub(super) fn begin(order: &Rc<Order>, member: usize) -> Self {
        let member = member as u32;
        order.touch(member);
        Self { order: Rc::clone(order), member }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.order.touch(self.member);
    }
}
