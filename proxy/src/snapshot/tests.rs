#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use amphora_model::{
    Binding, CompareType, L7Action, L7Policy, L7PolicyId, L7Rule, L7RuleId, L7Subject, ListenerProtocol,
    LoadBalancer,
    arbitrary::{Generator, Shape},
};

use super::{Snapshot, TlsSource, compile, compile_after};
use crate::state::{CheckState, Registry};

const SEEDS: u64 = 200;

fn live(model: &LoadBalancer, generation: u64, registry: &mut Registry) -> Snapshot {
    let snapshot = compile(Arc::new(model.clone()), generation, registry, &TlsSource::default()).unwrap();
    snapshot.announce();
    snapshot.hand_over(registry);
    snapshot
}

#[test]
fn what_two_versions_share_keeps_its_state() {
    for seed in 0..SEEDS {
        let mut generator = Generator::new(seed);
        let shape = Shape::default();
        let mut registry = Registry::new(2);
        let mut model = generator.load_balancer(&shape);
        let mut before = live(&model, 1, &mut registry);
        for generation in 2..8 {
            model = generator.changed(&model, &shape);
            let after = live(&model, generation, &mut registry);
            for old in &before.listener_states {
                for new in after.listener_states.iter().filter(|new| new.id == old.id) {
                    assert!(Arc::ptr_eq(old, new), "seed {seed}: {:?} lost its state", old.id);
                }
            }
            for old in &before.pools {
                let Some(new) = after.pools.iter().find(|new| new.id() == old.id()) else { continue };
                assert!(Arc::ptr_eq(&old.state, &new.state), "seed {seed}: {:?} lost its state", old.id());
                for old in &old.members {
                    let Some(new) = new.members.iter().find(|new| new.state.id == old.state.id) else {
                        continue;
                    };
                    assert!(Arc::ptr_eq(&old.state.counters, &new.state.counters), "seed {seed}");
                    let moved = old.address() != new.address();
                    assert_eq!(Arc::ptr_eq(&old.state, &new.state), !moved, "seed {seed}");
                }
            }
            before = after;
        }
    }
}

#[test]
fn a_change_compiles_to_what_starting_with_it_compiles_to() {
    for seed in 0..SEEDS {
        let mut generator = Generator::new(seed);
        let shape = Shape::default();
        let first = generator.load_balancer(&shape);
        let second = generator.changed(&first, &shape);
        let mut registry = Registry::new(1);
        live(&first, 1, &mut registry);
        let changed = live(&second, 2, &mut registry);
        let fresh = live(&second, 2, &mut Registry::new(1));
        assert_eq!(outline(&changed), outline(&fresh), "seed {seed}");
    }
}

/// What a snapshot does, apart from state.
fn outline(snapshot: &Snapshot) -> String {
    let listeners = snapshot.listeners.iter().map(|l| {
        format!(
            "{} {} {:?} {:?} {:?} {:?} {:?} {:?}",
            l.state.id,
            l.protocol,
            l.bindings,
            l.connection_limit,
            l.default_pool,
            l.insert_headers,
            l.timeouts,
            l.access
        )
    });
    let pools = snapshot.pools.iter().map(|p| {
        let members = p.members.iter().map(|m| {
            format!("{} {} {} {} {}", m.state.id, m.address(), m.weight, m.backup, m.admin_state_up)
        });
        format!("{} {} {:?} {:?}", p.id(), p.algorithm, p.proxy_protocol, members.collect::<Vec<_>>())
    });
    listeners.chain(pools).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_enabled_listener_is_bound_to_every_vip_and_no_other() {
    for seed in 0..SEEDS {
        let model = Generator::new(seed).load_balancer(&Shape::default());
        let snapshot = live(&model, 1, &mut Registry::new(1));
        let bound: BTreeSet<_> = snapshot.bindings().map(|(binding, _)| binding).collect();
        let wanted: BTreeSet<_> = model
            .listeners
            .iter()
            .filter(|listener| model.admin_state_up && listener.admin_state_up)
            .flat_map(|listener| {
                model.vips.iter().map(|vip| Binding::tcp(SocketAddr::new(vip.address, listener.port)))
            })
            .collect();
        assert_eq!(bound, wanted, "seed {seed}");
    }
}

#[test]
fn a_refused_change_leaves_no_trace() {
    let mut generator = Generator::new(7);
    let mut model = generator.load_balancer(&Shape::default());
    while !model.listeners.iter().any(|l| l.protocol == ListenerProtocol::Http) {
        model = generator.load_balancer(&Shape::default());
    }
    let mut registry = Registry::new(1);
    let before = live(&model, 1, &mut registry);
    for member in before.pools.iter().flat_map(|pool| &pool.members) {
        member.state.set_health(CheckState::Down);
    }

    let mut bad = model.clone();
    for member in bad.pools.iter_mut().flat_map(|pool| &mut pool.members) {
        member.port = member.port.wrapping_add(1).max(1);
    }
    let listener = bad.listeners.iter_mut().find(|l| l.protocol == ListenerProtocol::Http).unwrap();
    listener.l7policies = vec![L7Policy {
        id: L7PolicyId(uuid::Uuid::from_u128(1)),
        name: String::new(),
        admin_state_up: true,
        position: 1,
        action: L7Action::Reject,
        edits: None,
        rules: vec![L7Rule {
            id: L7RuleId(uuid::Uuid::from_u128(2)),
            admin_state_up: true,
            invert: false,
            subject: L7Subject::Path,
            compare: CompareType::Regex,
            value: "(unclosed".to_owned(),
        }],
    }];
    let refusal = compile(Arc::new(bad), 2, &registry, &TlsSource::default()).unwrap_err();
    assert_eq!(refusal.faults.len(), 1);

    let after = live(&model, 2, &mut registry);
    for (before, after) in before.pools.iter().zip(&after.pools) {
        for (before, after) in before.members.iter().zip(&after.members) {
            assert!(Arc::ptr_eq(&before.state, &after.state));
            assert_eq!(after.state.health.get(), CheckState::Down);
        }
    }
}

#[test]
fn what_does_not_change_keeps_its_plan() {
    for seed in 0..SEEDS {
        let mut generator = Generator::new(seed);
        let shape = Shape::default();
        let mut registry = Registry::new(1);
        let mut model = generator.load_balancer(&shape);
        let mut before = live(&model, 1, &mut registry);
        for generation in 2..8 {
            model = generator.changed(&model, &shape);
            let after =
                compile_after(Arc::new(model.clone()), &before, &registry, &TlsSource::default()).unwrap();
            assert_eq!(after.generation, generation);
            let fresh =
                compile(Arc::new(model.clone()), generation, &registry, &TlsSource::default()).unwrap();
            assert_eq!(outline(&after), outline(&fresh), "seed {seed}");
            assert_eq!(after.expressions.len(), fresh.expressions.len(), "seed {seed}");
            let old_model = before.model.clone().unwrap();
            for (pool, plan) in model.pools.iter().zip(&after.pools) {
                let old = old_model.pools.iter().zip(&before.pools).find(|(old, _)| old.id == pool.id);
                let kept = old.as_ref().is_some_and(|(_, old)| Arc::ptr_eq(old, plan));
                assert_eq!(kept, old.is_some_and(|(old, _)| old == pool), "seed {seed}: {:?}", pool.id);
            }
            after.hand_over(&mut registry);
            before = after;
        }
    }
}

#[test]
fn one_weight_among_many_changes_one_pool_and_no_listener() {
    let mut registry = Registry::new(1);
    let mut generator = Generator::new(1);
    let mut model = generator.load_balancer(&Shape::default());
    while model.pools.len() < 2
        || !model.admin_state_up
        || !model.listeners.iter().any(|l| l.admin_state_up)
        || model.pools[0].members.len() < 3
    {
        model = generator.load_balancer(&Shape::default());
    }
    let before = live(&model, 1, &mut registry);
    let member = &mut model.pools[0].members[1];
    member.weight = (member.weight + 1) % 257;
    let weight = member.weight;
    let after = compile_after(Arc::new(model.clone()), &before, &registry, &TlsSource::default()).unwrap();
    for (old, new) in before.listeners.iter().zip(&after.listeners) {
        assert!(Arc::ptr_eq(old, new));
    }
    for (place, (old, new)) in before.pools.iter().zip(&after.pools).enumerate() {
        assert_eq!(Arc::ptr_eq(old, new), place > 0);
    }
    assert_eq!(after.pools[0].members[1].weight, weight);

    // One goes from the middle, one comes at the front, one moves: the others are who they were.
    let mut next = model.clone();
    let mut new = next.pools[0].members.remove(1);
    new.id = amphora_model::MemberId(uuid::Uuid::from_u128(77));
    new.port = 7;
    next.pools[0].members.insert(0, new);
    let last = next.pools[0].members.last_mut().unwrap();
    last.port = last.port % 60_000 + 8;
    let moved = last.id;
    let third = compile_after(Arc::new(next), &after, &registry, &TlsSource::default()).unwrap();
    for plan in &third.pools[0].members {
        let old = after.pools[0].members.iter().find(|old| old.state.id == plan.state.id);
        assert_eq!(
            old.is_some_and(|old| Arc::ptr_eq(&old.state, &plan.state)),
            old.is_some() && plan.state.id != moved
        );
    }
}
