//! The load balancer of several texts: haproxy.cfg, and one for each listener of datagrams. What runs of the others stays as it is.

use std::{collections::HashSet, net::IpAddr};

use amphora_model::{Listener, ListenerId, LoadBalancer, PoolId, Vip};

fn is_datagrams(listener: &Listener) -> bool {
    listener.protocol.is_forwarded()
}

/// Whether something of haproxy.cfg runs; one without listeners does when nothing else does.
pub(super) fn has_streams(present: &LoadBalancer) -> bool {
    present.listeners.is_empty() || present.listeners.iter().any(|listener| !is_datagrams(listener))
}

/// What haproxy.cfg means, with the listeners of datagrams that run.
///
/// # Errors
/// The two are reached by other addresses.
pub(super) fn with_streams(
    present: Option<&LoadBalancer>,
    mut new: LoadBalancer,
) -> Result<LoadBalancer, String> {
    let Some(kept) = present.and_then(without_streams) else { return Ok(new) };
    if new.listeners.is_empty() {
        new.vips = kept.vips;
    } else if !same(&new.vips, &kept.vips) {
        return Err(differ(&new.vips, &kept.vips));
    }
    new.listeners.extend(kept.listeners);
    new.pools.extend(kept.pools);
    Ok(new)
}

/// What runs without haproxy.cfg; `None` when that is nothing.
pub(super) fn without_streams(present: &LoadBalancer) -> Option<LoadBalancer> {
    let mut kept = present.clone();
    kept.listeners.retain(is_datagrams);
    kept.pools.retain(|pool| pool.protocol.is_forwarded());
    (!kept.listeners.is_empty()).then_some(kept)
}

/// Whether several texts have brought it, of which each can go by itself.
pub(in crate::amphora) fn is_of_parts(present: &LoadBalancer) -> bool {
    present.listeners.len() > 1 && present.listeners.iter().any(is_datagrams)
}

/// Whether a load balancer is the present one with fewer listeners.
pub(super) fn is_less(new: &LoadBalancer, present: Option<&LoadBalancer>) -> bool {
    present.is_some_and(|present| {
        new.listeners.len() < present.listeners.len()
            && new.listeners.iter().all(|listener| present.listeners.contains(listener))
    })
}

/// What runs, with a listener of datagrams as its text has it, or without; `None` when that is nothing. `plugged` are the addresses
/// of the load balancer in their order, which a text tells by families alone. A pool is as the last text has it.
///
/// # Errors
/// The listener is reached by other addresses than the rest.
pub(super) fn with_datagrams(
    present: Option<&LoadBalancer>,
    listener: ListenerId,
    served: Option<LoadBalancer>,
    plugged: &[IpAddr],
) -> Result<Option<LoadBalancer>, String> {
    let Some(mut all) = present.cloned() else {
        return Ok(served.map(|served| LoadBalancer { vips: ordered(&served.vips, plugged), ..served }));
    };
    let was_empty = all.listeners.is_empty();
    all.listeners.retain(|other| other.id != listener);
    match served {
        Some(served) => {
            if !same(&all.vips, &served.vips) {
                if !all.listeners.is_empty() {
                    return Err(differ(&served.vips, &all.vips));
                }
                all.vips = ordered(&served.vips, plugged);
            }
            for pool in served.pools {
                match all.pools.iter_mut().find(|other| other.id == pool.id) {
                    Some(other) if other.protocol != pool.protocol => {
                        return Err(format!("has pool {}, which is one of {}", pool.id, other.protocol));
                    }
                    Some(other) => *other = pool,
                    None => all.pools.push(pool),
                }
            }
            all.listeners.extend(served.listeners);
        }
        None if all.listeners.is_empty() && !was_empty => return Ok(None),
        None => {}
    }
    let named: HashSet<PoolId> = all
        .listeners
        .iter()
        .filter(|listener| is_datagrams(listener))
        .filter_map(|listener| listener.default_pool)
        .collect();
    all.pools.retain(|pool| !pool.protocol.is_forwarded() || named.contains(&pool.id));
    // In one order, whichever came first.
    all.listeners.sort_by_key(|listener| is_datagrams(listener).then_some(listener.id));
    all.pools.sort_by_key(|pool| pool.protocol.is_forwarded().then_some(pool.id));
    Ok(Some(all))
}

fn addresses(vips: &[Vip]) -> HashSet<IpAddr> {
    vips.iter().map(|vip| vip.address).collect()
}

fn same(one: &[Vip], other: &[Vip]) -> bool {
    addresses(one) == addresses(other)
}

fn ordered(vips: &[Vip], plugged: &[IpAddr]) -> Vec<Vip> {
    let known: Vec<_> = plugged.iter().map(|address| Vip { address: *address }).collect();
    if same(&known, vips) && known.len() == vips.len() { known } else { vips.to_vec() }
}

fn differ(new: &[Vip], present: &[Vip]) -> String {
    let list = |vips: &[Vip]| vips.iter().map(|vip| vip.address.to_string()).collect::<Vec<_>>().join(", ");
    format!("is for {}, while the other listeners are reached by {}", list(new), list(present))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use amphora_model::{
        ListenerProtocol,
        arbitrary::{Generator, Shape},
    };
    use proptest::prelude::*;

    use super::*;

    /// A load balancer of texts: its streams, and each listener of datagrams with its pool.
    fn texts(seed: u64) -> (LoadBalancer, Vec<LoadBalancer>) {
        let shape = Shape { listeners: 0..=4, udp: true, ..Shape::default() };
        let mut all = Generator::new(seed).load_balancer(&shape);
        all.admin_state_up = true;
        let part = |listeners: Vec<Listener>, pools: &dyn Fn(&amphora_model::Pool) -> bool| LoadBalancer {
            listeners,
            pools: all.pools.iter().filter(|pool| pools(pool)).cloned().collect(),
            ..all.clone()
        };
        let (datagrams, streams): (Vec<_>, Vec<_>) = all.listeners.iter().cloned().partition(is_datagrams);
        let each = datagrams.into_iter().map(|listener| {
            let pool = listener.default_pool;
            part(vec![listener], &|other| Some(other.id) == pool)
        });
        let each = each.collect();
        (part(streams, &|pool| !pool.protocol.is_forwarded()), each)
    }

    proptest! {
        #[test]
        fn texts_make_the_same_in_any_order(seed: u64, order: u64) {
            let (streams, each) = texts(seed);
            let add = |present: Option<LoadBalancer>, which: usize| match which {
                0 => Some(with_streams(present.as_ref(), streams.clone()).unwrap()),
                n => {
                    let one = each[n - 1].clone();
                    with_datagrams(present.as_ref(), one.listeners[0].id, Some(one), &[]).unwrap()
                }
            };
            let forward = (0..=each.len()).fold(None, add).unwrap();
            let turn = (order as usize) % (each.len() + 1);
            let mut turned: Vec<_> = (0..=each.len()).rev().collect();
            turned.rotate_left(turn);
            let backward = turned.into_iter().fold(None, add).unwrap();
            prop_assert_eq!(&forward.listeners, &backward.listeners);
            prop_assert_eq!(&forward.pools, &backward.pools);
            // Twice is once, and what goes leaves the rest.
            prop_assert_eq!(add(Some(forward.clone()), each.len()).unwrap(), forward.clone());
            let mut alone = Some(forward.clone());
            for one in &each {
                alone = with_datagrams(alone.as_ref(), one.listeners[0].id, None, &[]).unwrap();
            }
            match alone {
                Some(alone) => prop_assert_eq!(alone, streams.clone()),
                None => prop_assert!(streams.listeners.is_empty()),
            }
            match without_streams(&forward) {
                Some(rest) => prop_assert!(rest.listeners.len() == each.len() && !each.is_empty()),
                None => prop_assert!(each.is_empty()),
            }
            prop_assert_eq!(has_streams(&forward), !streams.listeners.is_empty() || each.is_empty());
        }
    }

    #[test]
    fn all_listeners_are_reached_by_the_same_addresses() {
        let (streams, each) = (0..)
            .map(texts)
            .find(|(streams, each)| !each.is_empty() && !streams.listeners.is_empty())
            .unwrap();
        let mut other = each[0].clone();
        assert_eq!(other.listeners[0].protocol, ListenerProtocol::Udp);
        other.vips = vec![Vip { address: "192.0.2.77".parse().unwrap() }];
        let id = other.listeners[0].id;
        assert!(
            with_datagrams(Some(&streams), id, Some(other.clone()), &[]).unwrap_err().contains("192.0.2.77")
        );
        assert!(with_streams(Some(&other), streams.clone()).is_err());
        // Where it is alone it may have others, in the order in which they were plugged.
        let mut two = other.clone();
        two.vips.push(Vip { address: "2001:db8::1".parse().unwrap() });
        let plugged = ["2001:db8::1", "192.0.2.77"].map(|address| address.parse().unwrap());
        let all = with_datagrams(Some(&other), id, Some(two), &plugged).unwrap().unwrap();
        assert_eq!(all.vips.iter().map(|vip| vip.address).collect::<Vec<_>>(), plugged);
    }
}
