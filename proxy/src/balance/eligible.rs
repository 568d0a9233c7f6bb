//! The members that balancing may pick, kept until the view's epoch changes.

use super::MembersView;

/// The eligible members of a view.
#[derive(Debug, Default)]
pub struct Eligible {
    epoch: Option<u64>,
    members: Vec<u32>,
}

impl Eligible {
    /// The members as of the last [`refresh`](Self::refresh), in the view's order.
    #[inline]
    pub fn members(&self) -> &[u32] {
        &self.members
    }

    /// Brings the list up to date; true when it was rebuilt. Costs one comparison when nothing changed.
    #[inline]
    pub fn refresh(&mut self, view: &impl MembersView) -> bool {
        let epoch = view.epoch();
        if self.epoch == Some(epoch) {
            return false;
        }
        self.rebuild(view);
        self.epoch = Some(epoch);
        true
    }

    #[cold]
    fn rebuild(&mut self, view: &impl MembersView) {
        self.members.clear();
        let mut collect = |backup: bool| {
            let able = |&i: &usize| view.backup(i) == backup && view.weight(i) > 0 && view.usable(i);
            self.members.extend((0..view.len()).filter(able).map(|i| i as u32));
            !self.members.is_empty()
        };
        if !collect(false) && !collect(true) {
            let able = |&i: &usize| view.weight(i) > 0 && view.last_resort(i);
            self.members.extend((0..view.len()).filter(able).map(|i| i as u32));
        }
    }
}
