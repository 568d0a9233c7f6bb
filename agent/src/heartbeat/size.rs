//! How large the heartbeats of a load balancer can become, before it runs.

use std::collections::{BTreeMap, BTreeSet};

use amphora_model::{CheckState, ListenerId, LoadBalancer, PoolId};

use super::message::{
    ListenerReport, ListenerStatus, MemberStatus, Message, PoolKey, PoolReport, PoolStatus, Traffic, VERSION,
    mark, seal,
};

/// What a UDP datagram carries over IPv4; it is 20 bytes more over IPv6.
pub const MAX_DATAGRAM: usize = 65_507;

/// What the worst is short of what can be: numbers and statuses compress a little worse some other day.
const MARGIN: usize = 512;

/// Entries beyond which no heartbeat fits: each has an id of 16 bytes that nothing compresses, if ids are random, and is
/// told from the one before it by some bits in any case.
const MAX_ENTRIES: usize = 200_000;

/// Checks that a heartbeat of this load balancer fits a datagram, whatever its members and its traffic are. `backends` are listed whether
/// anything leads to them or not.
///
/// # Errors
/// The reason.
pub fn fits(model: &LoadBalancer, backends: &[(PoolId, ListenerId)]) -> Result<(), String> {
    let mut reachable = reachable(model);
    reachable
        .extend(backends.iter().map(|(pool, listener)| PoolKey { pool: *pool, listener: Some(*listener) }));
    let members: BTreeMap<_, _> = model.pools.iter().map(|pool| (pool.id, pool.members.len())).collect();
    let entries: usize =
        reachable.iter().map(|key| 1 + members.get(&key.pool).copied().unwrap_or_default()).sum();
    let listed = format!(
        "{entries} pools and members, a pool and its members once for each listener that can send to it"
    );
    if entries > MAX_ENTRIES {
        return Err(format!("are too many for a heartbeat, which would have {listed}"));
    }
    let size = seal(&worst(model, &reachable), "").len() + MARGIN;
    if size > MAX_DATAGRAM {
        return Err(format!(
            "are too many for a heartbeat: with {listed}, it would take {size} bytes and a datagram holds {MAX_DATAGRAM}"
        ));
    }
    Ok(())
}

/// Which pools are listed for which listeners.
fn reachable(model: &LoadBalancer) -> BTreeSet<PoolKey> {
    let enabled: BTreeSet<PoolId> = model.pools.iter().filter(|p| p.admin_state_up).map(|p| p.id).collect();
    let listeners = model.listeners.iter().filter(|listener| listener.admin_state_up);
    let keys = listeners.flat_map(|listener| {
        let redirects = listener.l7policies.iter().flat_map(|policy| policy.action.pools());
        let pools = listener.default_pools().chain(redirects);
        let named = (!listener.protocol.is_forwarded()).then_some(listener.id);
        pools.map(move |pool| PoolKey { pool, listener: named })
    });
    keys.filter(|key| enabled.contains(&key.pool)).collect()
}

/// A heartbeat that compresses as badly as any.
fn worst(model: &LoadBalancer, reachable: &BTreeSet<PoolKey>) -> Message {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let listeners = model.listeners.iter().filter(|listener| listener.admin_state_up);
    let listeners = listeners.map(|listener| {
        let status = if dice.roll() & 1 == 0 { ListenerStatus::Open } else { ListenerStatus::Full };
        let stats = Traffic {
            tx: dice.roll() >> 16,
            rx: dice.roll() >> 16,
            conns: dice.roll() >> 40,
            totconns: dice.roll() >> 32,
            ereq: dice.roll() >> 32,
        };
        (listener.id, ListenerReport { status, stats })
    });
    let listeners = listeners.collect();
    let by_id: BTreeMap<_, _> = model.pools.iter().map(|pool| (pool.id, pool)).collect();
    let pools = reachable.iter().map(|key| {
        let members = by_id.get(&key.pool).into_iter().flat_map(|pool| &pool.members);
        let members = members.map(|member| (member.id, dice.member())).collect();
        let status = if dice.roll() & 1 == 0 { PoolStatus::Up } else { PoolStatus::Down };
        (*key, PoolReport { status, members })
    });
    let pools = pools.collect();
    let document = Some(mark(model.name.as_bytes()).into());
    Message { id: model.id.to_string(), seq: u64::MAX, listeners, pools, ver: VERSION, document }
}

/// Numbers without a pattern that a compressor would find (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn member(&mut self) -> MemberStatus {
        // `max_retries` and `max_retries_down` are 10 at most. Other words are shorter.
        let roll = self.roll() >> 32;
        let (passed, of) = ((roll % 10) as u8 + 1, (roll / 10 % 10) as u8 + 1);
        MemberStatus::Check(if roll & 1 << 31 == 0 {
            CheckState::UpFailing { passed, of }
        } else {
            CheckState::DownRising { passed, of }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use amphora_model::MemberId;
    use uuid::Uuid;

    use super::*;
    use crate::{amphora::Unserved, fixture, heartbeat::report};

    fn with(members: u128) -> LoadBalancer {
        let mut model = fixture::load_balancer();
        let mut dice = Dice(7);
        let template = model.pools[0].members[0].clone();
        model.pools[0].members = (0..members)
            .map(|_| {
                let id = u128::from(dice.roll()) << 64 | u128::from(dice.roll());
                amphora_model::Member { id: MemberId(Uuid::from_u128(id)), ..template.clone() }
            })
            .collect();
        model
    }

    #[test]
    fn what_does_not_fit_a_datagram_is_told_before_it_runs() {
        fits(&with(2_000), &[]).unwrap();
        let reason = fits(&with(3_500), &[]).unwrap_err();
        assert!(reason.contains("3501 pools and members") && reason.contains("65507"), "{reason}");
        // The same pool is listed for each of its listeners, farther apart than a compressor looks back.
        let mut huge = with(1_500);
        for n in 0..3 {
            let mut listener = huge.listeners[0].clone();
            listener.id = ListenerId(Uuid::from_u128(n));
            huge.listeners.push(listener);
        }
        assert!(fits(&huge, &[]).unwrap_err().contains("6004 pools and members"));
        let mut vast = with(MAX_ENTRIES as u128);
        assert!(fits(&vast, &[]).is_err());
        vast.listeners[0].admin_state_up = false;
        fits(&vast, &[]).unwrap();
        huge.pools[0].admin_state_up = false;
        fits(&huge, &[]).unwrap();
    }

    #[test]
    fn no_heartbeat_is_larger_than_the_worst() {
        let model = with(2_000);
        let mut stats = fixture::stats();
        let pool = stats.pools.values_mut().next().unwrap();
        let mut dice = Dice(11);
        pool.members = model.pools[0]
            .members
            .iter()
            .map(|member| {
                let number = |roll: u64| (roll >> 32) as u8 % 10 + 1;
                let (passed, of) = (number(dice.roll()), number(dice.roll()));
                let check = match dice.roll() >> 62 {
                    0 => CheckState::UpFailing { passed, of },
                    1 => CheckState::Down,
                    _ => CheckState::DownRising { passed, of },
                };
                (member.id, fixture::member_stats(check))
            })
            .collect();
        let real = seal(&report::statuses(&stats, Some(&model), &Unserved::default()), "key").len();
        let worst = seal(&worst(&model, &reachable(&model)), "").len() + MARGIN;
        assert!(real <= worst, "{real} and {worst}");
        assert!(real * 10 > worst * 8, "{real} and {worst}: too careful");
    }
}
