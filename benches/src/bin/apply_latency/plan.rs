//! The document under change, and the changes: each is of a kind that operators make, none takes away the right
//! answer to a request.

use std::net::SocketAddr;

use amphora_benches::{
    document::{Document, L7Policy, L7Rule, Listener, Member, Pool, id, kind, member_address},
    rng::Rng,
};

/// Members that no change removes, at the start of their pools; their states and counters are compared.
pub(crate) const KEPT: usize = 4;
/// The document, and what changes in it.
pub(crate) struct Plan {
    /// As it is now.
    pub(crate) document: Document,
    rng: Rng,
    http_port: u16,
    base_port: u16,
    /// For ids that were never used.
    next: u64,
    size: usize,
}

impl Plan {
    /// An HTTP and a TCP listener that stay; pool 1, whose size is given, pool 2 and a TCP pool, all checked.
    pub(crate) fn new(size: usize, base_port: u16, backend_ports: &[u16], rng: Rng) -> Self {
        let [http_port, tcp_port] = *backend_ports else { unreachable!("two services, two ports") };
        let members = |n: usize, port: u16| -> Vec<SocketAddr> {
            (0..n as u64).map(|i| SocketAddr::new(member_address(i), port)).collect()
        };
        let listeners = vec![
            // Each pool is in use whatever the default pool is.
            Listener::new(1, "HTTP", base_port, 1).with_forwarded_for().with_l7policies(vec![
                L7Policy::to_pool(1, 1, L7Rule::new(1, "HEADER", "EQUAL_TO", Some("X-Pool"), "first")),
                L7Policy::to_pool(2, 2, L7Rule::new(2, "HEADER", "EQUAL_TO", Some("X-Pool"), "second")),
            ]),
            Listener::new(2, "TCP", base_port + 1, 3),
        ];
        let pools = vec![
            Pool::new(1, "HTTP", &members(size, http_port)).with_monitor(1),
            Pool::new(2, "HTTP", &members(2 * KEPT, http_port)).with_monitor(2),
            Pool::new(3, "TCP", &members(2 * KEPT, tcp_port)).with_monitor(3),
        ];
        Self { document: Document::new(listeners, pools), rng, http_port, base_port, next: 1 << 40, size }
    }

    /// Makes one change, and says which. Requests have a right answer before, during and after each.
    pub(crate) fn change(&mut self) -> &'static str {
        loop {
            let name = match self.rng.below(10) {
                0 | 1 => self.add_member(),
                2 | 3 => self.remove_member(),
                4 => self.change_weight(),
                5 => self.toggle_member(),
                6 => self.change_policies(),
                7 => self.switch_pool(),
                8 => self.change_pool_or_listener(),
                _ => self.toggle_listener(),
            };
            if let Some(name) = name {
                return name;
            }
        }
    }

    fn add_member(&mut self) -> Option<&'static str> {
        // The size stays about what was asked for.
        if self.document.loadbalancer.pools[0].members.len() > self.size {
            return None;
        }
        self.next += 1;
        let address = SocketAddr::new(member_address(100_000 + self.next % 100_000), self.http_port);
        self.document.loadbalancer.pools[0].members.push(Member::new(self.next, address));
        Some("add a member")
    }

    /// Some member of a pool that may go.
    fn removable(&mut self, pool: usize) -> Option<usize> {
        let others =
            self.document.loadbalancer.pools[pool].members.len().checked_sub(KEPT).filter(|&n| n > 0)?;
        Some(KEPT + self.rng.below(others))
    }

    fn remove_member(&mut self) -> Option<&'static str> {
        let pool = if self.rng.below(4) == 0 { 2 } else { 0 };
        let enough = if pool == 0 { self.size / 2 } else { KEPT };
        if self.document.loadbalancer.pools[pool].members.len() <= enough {
            return None;
        }
        let member = self.removable(pool)?;
        self.document.loadbalancer.pools[pool].members.remove(member);
        Some("remove a member")
    }

    /// Gives one of the members of the pool whose size is given another weight.
    pub(crate) fn change_one_weight(&mut self) -> &'static str {
        let members = &mut self.document.loadbalancer.pools[0].members;
        let member = self.rng.below(members.len());
        let weight = &mut members[member].weight;
        *weight = 1 + (*weight + self.rng.below(8) as u16) % 9;
        "change one weight"
    }

    fn change_weight(&mut self) -> Option<&'static str> {
        let pool = self.rng.below(3);
        let member = self.rng.below(self.document.loadbalancer.pools[pool].members.len());
        // Weight 0 drains; the kept members go on taking traffic.
        let least = usize::from(member < KEPT);
        let weight = (least + self.rng.below(10)) as u16;
        let member = &mut self.document.loadbalancer.pools[pool].members[member];
        (std::mem::replace(&mut member.weight, weight) != weight).then_some("change a weight")
    }

    fn toggle_member(&mut self) -> Option<&'static str> {
        let pool = self.rng.below(3);
        let member = self.removable(pool)?;
        let member = &mut self.document.loadbalancer.pools[pool].members[member];
        member.admin_state_up = !member.admin_state_up;
        Some("switch a member on or off")
    }

    fn change_policies(&mut self) -> Option<&'static str> {
        let policies = &mut self.document.loadbalancer.listeners[0].l7policies;
        if policies.len() > 5 {
            policies.remove(2 + self.rng.below(policies.len() - 2));
        } else {
            self.next += 1;
            let n = self.next;
            policies.push(match self.rng.below(3) {
                0 => L7Policy::reject(n, L7Rule::new(n, "PATH", "STARTS_WITH", None, "/reject")),
                // This one matches what the load asks for: traffic goes to the other pool at once.
                1 => L7Policy::to_pool(n, 2, L7Rule::new(n, "PATH", "STARTS_WITH", None, "/bytes")),
                _ => {
                    L7Policy::to_pool(n, 2, L7Rule::new(n, "COOKIE", "REGEX", Some("group"), "^(b|c)[0-9]+$"))
                }
            });
        }
        for (policy, position) in policies.iter_mut().zip(1..) {
            policy.position = position;
        }
        Some("change the policies")
    }

    fn switch_pool(&mut self) -> Option<&'static str> {
        let (one, two) = (id(kind::POOL, 1), id(kind::POOL, 2));
        let listener = &mut self.document.loadbalancer.listeners[0];
        listener.default_pool_id = if listener.default_pool_id == one { two } else { one };
        Some("switch the default pool")
    }

    fn change_pool_or_listener(&mut self) -> Option<&'static str> {
        if self.rng.below(2) == 0 {
            let algorithms = ["ROUND_ROBIN", "LEAST_CONNECTIONS", "SOURCE_IP"];
            let algorithm = algorithms[self.rng.below(algorithms.len())];
            let pool = self.rng.below(3);
            let pool = &mut self.document.loadbalancer.pools[pool];
            (std::mem::replace(&mut pool.lb_algorithm, algorithm) != algorithm)
                .then_some("change an algorithm")
        } else {
            let listener = self.rng.below(2);
            let timeout = 40_000 + self.rng.below(10_000) as u32;
            let listener = &mut self.document.loadbalancer.listeners[listener];
            (std::mem::replace(&mut listener.timeout_client_data, timeout) != timeout)
                .then_some("change a timeout")
        }
    }

    /// A third listener comes, on one of two ports, and goes.
    fn toggle_listener(&mut self) -> Option<&'static str> {
        let listeners = &mut self.document.loadbalancer.listeners;
        if listeners.len() > 2 {
            listeners.truncate(2);
            return Some("remove a listener");
        }
        let port = self.base_port + 2 + self.rng.below(2) as u16;
        listeners.push(Listener::new(3, "HTTP", port, 2));
        Some("add a listener")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use amphora_model::LoadBalancer;

    use super::*;

    #[test]
    fn one_weight_is_all_that_differs() {
        let mut plan = Plan::new(10, 22000, &[1, 2], Rng::new(7));
        for _ in 0..100 {
            let before: Vec<_> =
                plan.document.loadbalancer.pools[0].members.iter().map(|m| m.weight).collect();
            plan.change_one_weight();
            let after = plan.document.loadbalancer.pools[0].members.iter().map(|m| m.weight);
            let changed: Vec<_> = before.iter().zip(after).filter(|(old, new)| *old != new).collect();
            assert!(matches!(changed[..], [(_, 1..=9)]), "{changed:?}");
        }
    }

    #[test]
    fn every_change_changes_the_document_and_keeps_what_is_compared() {
        let mut plan = Plan::new(10, 22000, &[1, 2], Rng::new(7));
        let mut kinds = BTreeMap::new();
        let mut last = plan.document.to_json();
        for _ in 0..2000 {
            *kinds.entry(plan.change()).or_insert(0) += 1;
            let document = plan.document.to_json();
            assert_ne!(document, last);
            assert_eq!(LoadBalancer::from_json(&document).map(drop), Ok(()));
            last = document;
            for (pool, number) in plan.document.loadbalancer.pools.iter().zip(1u64..) {
                assert!(pool.members.len() <= 11.max(2 * KEPT));
                for (member, n) in pool.members.iter().zip(0..KEPT as u64) {
                    assert_eq!(member.id, id(kind::MEMBER, number << 32 | n));
                    assert!(member.weight > 0 && member.admin_state_up);
                }
            }
        }
        assert_eq!(kinds.len(), 10, "{kinds:?}");
    }
}
