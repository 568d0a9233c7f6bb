//! What a change has changed, in numbers: for a line of the log.

use std::{collections::HashMap, fmt, hash::Hash};

use amphora_model::{Listener, LoadBalancer, Member, MemberId, Pool, PoolId};

/// How the objects of two load balancers differ, each known by its id.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Differences {
    /// With their L7 policies.
    pub(super) listeners: Count,
    /// Apart from their members.
    pub(super) pools: Count,
    /// Each in its pool.
    pub(super) members: Count,
}

/// Objects of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// As many as there are now.
    present: usize,
    added: usize,
    removed: usize,
    changed: usize,
}

impl Differences {
    /// From one to the other. Looks at every object.
    pub(super) fn between(before: Option<&LoadBalancer>, after: Option<&LoadBalancer>) -> Self {
        Self {
            listeners: Count::between(
                listeners(before).iter().map(|listener| (listener.id, listener)),
                listeners(after).iter().map(|listener| (listener.id, listener)),
                |before, after| before == after,
            ),
            pools: Count::between(
                pools(before).iter().map(|pool| (pool.id, pool)),
                pools(after).iter().map(|pool| (pool.id, pool)),
                same_apart_from_members,
            ),
            members: Count::between(
                pools(before).iter().flat_map(members_of),
                pools(after).iter().flat_map(members_of),
                |before, after| before == after,
            ),
        }
    }
}

impl Count {
    fn between<'a, K: Eq + Hash, T: 'a>(
        before: impl Iterator<Item = (K, &'a T)>,
        after: impl Iterator<Item = (K, &'a T)>,
        same: impl Fn(&T, &T) -> bool,
    ) -> Self {
        let (mut before, mut after) = (before.peekable(), after.peekable());
        let mut count = Self::default();
        // Most often most of them are where they were.
        while let (Some((old_id, old)), Some((id, object))) = (before.peek(), after.peek())
            && old_id == id
        {
            count.present += 1;
            count.changed += usize::from(!same(old, object));
            before.next();
            after.next();
        }
        let mut before: HashMap<K, &T> = before.collect();
        for (id, object) in after {
            count.present += 1;
            match before.remove(&id) {
                Some(old) => count.changed += usize::from(!same(old, object)),
                None => count.added += 1,
            }
        }
        Self { removed: before.len(), ..count }
    }
}

fn listeners(lb: Option<&LoadBalancer>) -> &[Listener] {
    lb.map_or(&[], |lb| &lb.listeners)
}

fn pools(lb: Option<&LoadBalancer>) -> &[Pool] {
    lb.map_or(&[], |lb| &lb.pools)
}

fn members_of(pool: &Pool) -> impl Iterator<Item = ((PoolId, MemberId), &Member)> {
    pool.members.iter().map(|member| ((pool.id, member.id), member))
}

fn same_apart_from_members(one: &Pool, other: &Pool) -> bool {
    // Taken apart, so that a new field cannot be left out.
    let Pool {
        id,
        name,
        admin_state_up,
        protocol,
        lb_algorithm,
        tls,
        session_persistence,
        health_monitor,
        member_options,
        members: _,
    } = one;
    *id == other.id
        && *name == other.name
        && *admin_state_up == other.admin_state_up
        && *protocol == other.protocol
        && *lb_algorithm == other.lb_algorithm
        && *tls == other.tls
        && *session_persistence == other.session_persistence
        && *health_monitor == other.health_monitor
        && *member_options == other.member_options
}

impl fmt::Display for Count {
    /// `3`, or `3 (1 added, 2 changed)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { present, added, removed, changed } = *self;
        write!(f, "{present}")?;
        let mut before = " (";
        for (number, what) in [(added, "added"), (removed, "removed"), (changed, "changed")] {
            if number > 0 {
                write!(f, "{before}{number} {what}")?;
                before = ", ";
            }
        }
        f.write_str(if before == ", " { ")" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use amphora_model::arbitrary;

    use super::*;

    fn told(before: Option<&LoadBalancer>, after: Option<&LoadBalancer>) -> [String; 3] {
        let Differences { listeners, pools, members } = Differences::between(before, after);
        [listeners, pools, members].map(|count| count.to_string())
    }

    /// A load balancer with two listeners, two pools and two members in each.
    fn load_balancer() -> LoadBalancer {
        let fits = |lb: &LoadBalancer| lb.listeners.len() >= 2 && lb.pools.len() >= 2;
        let full = |lb: &LoadBalancer| lb.pools[..2].iter().all(|pool| pool.members.len() >= 2);
        let mut lb =
            (0..10_000).map(arbitrary::load_balancer).find(|lb| fits(lb) && full(lb)).expect("one of them");
        lb.listeners.truncate(2);
        lb.pools.truncate(2);
        lb.pools.iter_mut().for_each(|pool| pool.members.truncate(2));
        lb
    }

    #[test]
    fn a_change_is_told_by_what_has_changed() {
        let before = load_balancer();
        assert_eq!(told(None, Some(&before)), ["2 (2 added)", "2 (2 added)", "4 (4 added)"]);
        assert_eq!(told(Some(&before), None), ["0 (2 removed)", "0 (2 removed)", "0 (4 removed)"]);
        assert_eq!(told(Some(&before), Some(&before)), ["2", "2", "4"]);
        let mut after = before.clone();
        after.name.push('x');
        after.listeners.swap(0, 1);
        assert_eq!(told(Some(&before), Some(&after)), ["2", "2", "4"], "neither is one of these");
        after.listeners[0].admin_state_up ^= true;
        after.pools[0].members[1].weight ^= 1;
        assert_eq!(told(Some(&before), Some(&after)), ["2 (1 changed)", "2", "4 (1 changed)"]);
        after.pools[1].name.push('x');
        after.pools[1].members[0].id = after.pools[0].members[0].id;
        after.pools[1].members.pop();
        assert_eq!(
            told(Some(&before), Some(&after)),
            ["2 (1 changed)", "2 (1 changed)", "3 (1 added, 2 removed, 1 changed)"]
        );
    }
}
