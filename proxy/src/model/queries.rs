//! Questions about a load balancer, and where things of it are in a document.

use std::net::SocketAddr;

use super::{L7Action, Listener, LoadBalancer, Member, MemberId, Pool, PoolId};

impl LoadBalancer {
    /// The pool with this id.
    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.id == id)
    }

    /// The listeners that are to be bound: enabled ones of an enabled load balancer.
    pub fn enabled_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(|listener| self.admin_state_up && listener.admin_state_up)
    }

    /// The listeners, enabled or not, that can send to a pool: by default or by a policy.
    pub fn listeners_of_pool(&self, pool: PoolId) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(move |listener| listener.pools().any(|id| id == pool))
    }

    /// The path of a listener for a [`Fault`](super::Fault), by its index in the model. Paths of faults that are
    /// found after parsing have ids between their brackets: the model's order is not the document's.
    ///
    /// # Panics
    /// When there is no such listener; as for the other `path_of_*`.
    pub fn path_of_listener(&self, listener: usize) -> String {
        format!("loadbalancer.listeners[{}]", self.listeners[listener].id)
    }

    /// The path of an L7 policy, by the indexes in the model.
    pub fn path_of_policy(&self, listener: usize, policy: usize) -> String {
        let id = self.listeners[listener].l7policies[policy].id;
        format!("{}.l7policies[{id}]", self.path_of_listener(listener))
    }

    /// The path of an L7 rule, by the indexes in the model; append `.value` for its regular expression.
    pub fn path_of_rule(&self, listener: usize, policy: usize, rule: usize) -> String {
        let id = self.listeners[listener].l7policies[policy].rules[rule].id;
        format!("{}.rules[{id}]", self.path_of_policy(listener, policy))
    }

    /// The path of a pool, by its index in the model.
    pub fn path_of_pool(&self, pool: usize) -> String {
        format!("loadbalancer.pools[{}]", self.pools[pool].id)
    }
}

impl Listener {
    /// What the listener binds: its port on every VIP, `vip_address` first.
    pub fn bind_addresses(&self, of: &LoadBalancer) -> impl Iterator<Item = SocketAddr> {
        of.vips.iter().map(|vip| SocketAddr::new(vip.address, self.port))
    }

    /// The pools that the listener can send to: its default pool, then those of its policies. One that has several
    /// ways to it comes several times.
    pub fn pools(&self) -> impl Iterator<Item = PoolId> {
        self.default_pool.into_iter().chain(self.l7policies.iter().filter_map(|policy| match policy.action {
            L7Action::RedirectToPool(pool) => Some(pool),
            _ => None,
        }))
    }
}

impl Pool {
    /// The member with this id.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }
}

impl Member {
    /// Where connections to the member go.
    pub fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Where health checks of the member go.
    pub fn monitor_endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.monitor_address.unwrap_or(self.address), self.monitor_port.unwrap_or(self.port))
    }
}
