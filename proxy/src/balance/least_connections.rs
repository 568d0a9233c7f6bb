//! `LEAST_CONNECTIONS`: HAProxy's `leastconn`. The lowest `(load + 1) / weight` wins; a member without a session
//! counts 0 whatever its weight, so that every member of an idle pool is used; among equals it is the one at
//! which a session has begun or ended the longest ago, also one that persistence sent there.
//!
//! The loads are those of all workers and change under our feet, so there is no order of them to keep: a pick scans
//! from who has waited for longest, and stops at the first idle one.

use std::{collections::HashMap, rc::Rc};

use amphora_model::MemberId;

use super::{
    Balancer, Flow, MembersView,
    eligible::Eligible,
    hash::mix,
    order::{Order, Turn},
};

/// The eligible members, by how long they have waited.
#[derive(Debug)]
pub struct LeastConnections {
    seed: u64,
    eligible: Eligible,
    /// There is none before the first pick.
    order: Option<Rc<Order>>,
    /// That of the snapshot before.
    before: Vec<MemberId>,
}

impl LeastConnections {
    /// Starts at a member that depends on `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, eligible: Eligible::default(), order: None, before: Vec::new() }
    }

    /// Keeps the order of `previous`.
    pub fn carry_over(&mut self, previous: &Self) {
        self.before = match &previous.order {
            Some(order) => order.ids().collect(),
            None => previous.before.clone(),
        };
    }

    /// A session begins at this member, whoever has chosen it, and lasts as long as what is returned.
    pub(super) fn begin(&mut self, view: &impl MembersView, member: usize) -> Turn {
        Turn::begin(self.refresh(view), member)
    }

    fn refresh(&mut self, view: &impl MembersView) -> &Rc<Order> {
        if self.eligible.refresh(view) {
            self.rebuild(view);
        }
        self.order.get_or_insert_with(|| Rc::new(Order::new(view)))
    }

    /// Those who stay eligible keep their order, others come behind them.
    #[cold]
    fn rebuild(&mut self, view: &impl MembersView) {
        let order = self.order.get_or_insert_with(|| Rc::new(Order::new(view)));
        let mut known: Vec<MemberId> = order.ids().collect();
        if known.is_empty() {
            known = std::mem::take(&mut self.before);
        }
        let ranks: HashMap<MemberId, usize> = known.into_iter().zip(0..).collect();
        let mut members = self.eligible.members().to_vec();
        if ranks.is_empty() && !members.is_empty() {
            let first = mix(self.seed) % members.len() as u64;
            members.rotate_left(first as usize);
        }
        members.sort_by_key(|&member| ranks.get(&view.id(member as usize)).copied().unwrap_or(usize::MAX));
        order.set(members);
    }
}

/// The least loaded member that passes `allow`.
fn least(order: &Order, view: &impl MembersView, allow: impl Fn(usize) -> bool) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    for member in order.iter().filter(|&member| allow(member)) {
        let load = u64::from(view.load(member));
        if load == 0 {
            return Some(member);
        }
        let weight = u64::from(view.weight(member));
        // load / weight by cross-multiplication: exact.
        if best.is_none_or(|(_, least, of)| (load + 1) * of < least * weight) {
            best = Some((member, load + 1, weight));
        }
    }
    best.map(|(member, ..)| member)
}

impl Balancer for LeastConnections {
    fn pick(
        &mut self,
        view: &impl MembersView,
        _flow: &Flow,
        avoid: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let order = self.refresh(view);
        let member = least(order, view, |i| !avoid(i)).or_else(|| least(order, view, |_| true))?;
        order.touch(member as u32);
        Some(member)
    }
}
