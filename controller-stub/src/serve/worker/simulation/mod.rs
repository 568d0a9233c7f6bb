//! The worker against a database in memory, and machines that end, refuse and answer as a seed says. It is killed at every step: before and
//! after each thing that it does outside, and before and after each commit.
//!
//! | file | what |
//! | --- | --- |
//! | `ground` | the database and the machines |
//! | [`history`] | the API before it, and the real database |

#![allow(clippy::unwrap_used)]

mod ground;
mod history;

use std::collections::BTreeSet;

use rusqlite::params;

use self::ground::World;
use super::{Store, rows};
use crate::serve::{
    config::Config,
    document,
    network::{Networks, Owner},
    queue::{self, Kind},
    status::{AmphoraStatus, Topology},
};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below
    }
}

/// What tenants and operators do, and what befalls machines.
impl World {
    fn create(&self, id: &str, topology: Topology) {
        let networks = Networks::new(Config::parse("").unwrap().networks);
        let network = networks.all()[0].clone();
        let state = self.state();
        let owner = Owner {
            name: "",
            project: "p",
            device_owner: "Octavia",
            device: "",
            load_balancer: None,
            amphora: None,
        };
        let subnet = network.subnets[0].id.to_string();
        let port = networks.allocate(&state.connection, &subnet, None, &owner, 1).unwrap();
        state
            .connection
            .execute(
                "INSERT INTO load_balancer (id, project_id, provisioning_status, topology, compute_driver, provider, vip_address,
                 vip_port_id, vip_subnet_id, vip_network_id, created_at)
                 VALUES (?1, 'p', 'PENDING_CREATE', ?2, 'namespaces', 'amphora', ?3, ?4, ?5, ?6, 1)",
                params![id, topology, port.address.to_string(), port.id, subnet, port.network_id],
            )
            .unwrap();
        state
            .connection
            .execute("UPDATE port SET load_balancer_id = ?1 WHERE id = ?2", params![id, port.id])
            .unwrap();
        queue::enqueue(&state.connection, Kind::LoadBalancer, id, state.now).unwrap();
    }

    fn happens(&self, id: &str) {
        let mut state = self.state();
        let what = state.random.next(6);
        let now = state.now;
        let amphora: Option<String> = state
            .connection
            .query_row("SELECT id FROM amphora ORDER BY random() LIMIT 1", [], |row| row.get(0))
            .ok();
        match (what, amphora) {
            (0..3, _) => {
                let t = state.connection.transaction().unwrap();
                let changed = t
                    .execute(
                        "UPDATE load_balancer SET generation = generation + 1, provisioning_status = 'PENDING_UPDATE',
                         name = name || 'x' WHERE id = ?1 AND provisioning_status <> 'PENDING_DELETE'",
                        [id],
                    )
                    .unwrap();
                if changed > 0 {
                    let pool = format!("pool-{}", uuid::Uuid::new_v4());
                    t.execute(
                        "INSERT INTO pool (id, project_id, load_balancer_id, provisioning_status, protocol, lb_algorithm, created_at,
                         generation) SELECT ?2, 'p', id, 'PENDING_CREATE', 'HTTP', 'ROUND_ROBIN', 1, generation
                         FROM load_balancer WHERE id = ?1",
                        [id, &pool],
                    )
                    .unwrap();
                    t.execute(
                        "UPDATE pool SET provisioning_status = 'PENDING_DELETE', generation =
                         (SELECT generation FROM load_balancer WHERE id = ?1) WHERE id <> ?2 AND load_balancer_id = ?1",
                        [id, &pool],
                    )
                    .unwrap();
                    queue::enqueue(&t, Kind::LoadBalancer, id, now).unwrap();
                }
                t.commit().unwrap();
            }
            (3, _) => queue::enqueue(&state.connection, Kind::LoadBalancerFailover, id, now).unwrap(),
            (4, Some(amphora)) => {
                queue::enqueue(&state.connection, Kind::AmphoraFailover, &amphora, now).unwrap();
            }
            (5, Some(amphora)) => {
                if let Some(machine) = state.machines.values_mut().find(|machine| machine.amphora == amphora)
                {
                    (machine.runs, machine.master) = (false, false);
                }
            }
            _ => {}
        }
        state.now += 50;
    }

    fn delete(&self, id: &str) {
        let state = self.state();
        state
            .connection
            .execute(
                "UPDATE load_balancer SET generation = generation + 1, provisioning_status = 'PENDING_DELETE' WHERE id = ?1",
                [id],
            )
            .unwrap();
        queue::enqueue(&state.connection, Kind::LoadBalancer, id, state.now).unwrap();
    }

    fn fail_over(&self, id: &str) {
        let mut state = self.state();
        state.now += 10;
        queue::enqueue(&state.connection, Kind::LoadBalancerFailover, id, state.now).unwrap();
    }

    fn count(&self, query: &str) -> i64 {
        self.state().connection.query_row(query, [], |row| row.get(0)).unwrap()
    }

    /// Nothing is undone, nothing is left over, and amphorae are what the rows say.
    fn check(&self, id: &str, topology: Topology, context: &str) {
        for table in ["load_balancer", "pool"] {
            let query = format!("SELECT count(*) FROM {table} WHERE provisioning_status <> 'ACTIVE'");
            assert_eq!(self.count(&query), 0, "{table}: {context}");
        }
        assert_eq!(self.count("SELECT count(*) FROM work"), 0, "{context}");
        let state = self.state();
        let mut amphorae = rows::all_amphorae(&state.connection).unwrap();
        let named: BTreeSet<&String> = amphorae.iter().map(|one| &one.machine).collect();
        assert_eq!(named, state.machines.keys().collect(), "{context}");
        let spares: Vec<_> = amphorae.extract_if(.., |one| one.load_balancer.is_none()).collect();
        for kind in BTreeSet::from([topology, Topology::Single]) {
            let count = spares.iter().filter(|one| one.topology == kind).count();
            assert_eq!(count, state.spares, "spares of {kind}: {context}");
        }
        assert!(spares.iter().all(|one| one.status == AmphoraStatus::Ready), "{context}");
        let expected = document::render(&state.connection, id).unwrap().unwrap().document;
        for machine in state.machines.values() {
            assert!(machine.runs, "{context}");
            let spare = spares.iter().any(|one| one.id == machine.amphora);
            assert_eq!(machine.document.as_ref(), (!spare).then_some(&expected), "{context}");
        }
        let count = if topology == Topology::Single { 1 } else { 2 };
        assert_eq!(amphorae.len(), count, "{context}");
        for one in amphorae.iter().filter(|_| count == 2) {
            let other = amphorae.iter().find(|other| other.id != one.id).unwrap();
            let told = (other.id.clone(), one.role.unwrap());
            assert_eq!(state.machines[&one.machine].other.as_ref(), Some(&told), "{context}");
        }
        let mut roles: Vec<_> = amphorae.iter().map(|one| one.role).collect();
        roles.dedup();
        assert_eq!(roles.len(), count, "{context}");
        assert_eq!(state.machines.values().filter(|machine| machine.master).count(), 1, "{context}");
    }

    /// No machine is without a row.
    fn all_are_named(&self, context: &str) {
        let state = self.state();
        let amphorae = rows::all_amphorae(&state.connection).unwrap();
        let named: BTreeSet<&String> = amphorae.iter().map(|one| &one.machine).collect();
        assert!(state.machines.keys().all(|machine| named.contains(machine)), "{context}");
    }

    fn nothing_is_left(&self, context: &str) {
        for table in ["load_balancer", "pool", "work", "amphora", "port"] {
            assert_eq!(self.count(&format!("SELECT count(*) FROM {table}")), 0, "{table}: {context}");
        }
        assert!(self.state().machines.is_empty(), "{context}");
    }
}

const ID: &str = "11111111-2222-3333-4444-555555555555";

/// A machine that ends while nobody looks is found at the next start.
async fn settle(world: &World) {
    world.state().lives = None;
    world.state().failing = 0;
    assert!(world.serve().await);
}

#[tokio::test]
async fn whoever_is_killed_at_any_step_leaves_nothing_undone() {
    for (topology, spares) in
        [Topology::Single, Topology::ActiveStandby].into_iter().flat_map(|one| [(one, 0), (one, 1)])
    {
        // How many points there are is known when it was not killed any more.
        for lives in 0.. {
            let world = World::new(1);
            let context = format!("{topology}, {spares} spares, killed after {lives}");
            world.state().spares = spares;
            if spares > 0 && lives % 2 == 0 {
                // They are there before anybody wants one.
                settle(&world).await;
            }
            world.create(ID, topology);
            world.state().lives = Some(lives);
            let made = world.serve().await;
            settle(&world).await;
            world.check(ID, topology, &context);
            world.fail_over(ID);
            world.state().lives = Some(lives);
            let replaced = world.serve().await;
            settle(&world).await;
            world.check(ID, topology, &context);
            world.delete(ID);
            world.state().spares = 0;
            world.state().lives = Some(lives);
            let deleted = world.serve().await;
            settle(&world).await;
            world.nothing_is_left(&context);
            if made && replaced && deleted {
                break;
            }
        }
    }
}

#[tokio::test]
async fn whatever_happens_all_becomes_so() {
    let seeds =
        std::env::var("AMPHORA_SIMULATION_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let mut points = 0;
    for seed in 0..seeds {
        let world = World::new(seed);
        world.state().spares = usize::try_from(seed % 3).unwrap();
        let topology = if seed % 2 == 0 { Topology::Single } else { Topology::ActiveStandby };
        let context = format!("seed {seed}, {topology}");
        world.create(ID, topology);
        for _ in 0..8 {
            let (lives, failing) = {
                let mut state = world.state();
                (state.random.next(30), state.random.next(300))
            };
            world.state().lives = u32::try_from(lives).ok();
            world.state().failing = failing;
            // Without being killed it comes to an end, for nothing fails for ever; and leaves nothing to the next start.
            if world.serve().await {
                world.all_are_named(&context);
            }
            world.happens(ID);
        }
        settle(&world).await;
        world.check(ID, topology, &context);
        world.delete(ID);
        world.state().spares = 0;
        world.state().lives = Some(4);
        let _ = world.serve().await;
        settle(&world).await;
        world.nothing_is_left(&context);
        points += world.state().points;
    }
    eprintln!("{seeds} seeds, {points} points");
}

#[tokio::test]
async fn what_serves_takes_a_change_while_others_boot() {
    for lost in [true, false] {
        let world = World::new(1);
        world.create(ID, Topology::ActiveStandby);
        settle(&world).await;
        if lost {
            let mut state = world.state();
            let machine = state.machines.values_mut().next().unwrap();
            (machine.runs, machine.master) = (false, false);
        } else {
            world.fail_over(ID);
        }
        world.state().hangs = true;
        let serving = if lost { 1 } else { 2 };
        let document = || document::render(&world.state().connection, ID).unwrap().unwrap().document;
        let told = |expected: &serde_json::Value| {
            world.state().machines.values().filter(|one| one.document.as_ref() == Some(expected)).count()
        };
        let changes = async {
            while world.state().machines.len() < if lost { 2 } else { 4 } {
                tokio::task::yield_now().await;
            }
            for name in ["one", "two"] {
                Store::write(&world, move |t| {
                    t.execute("UPDATE load_balancer SET generation = generation + 1, name = ?1", [name])?;
                    Ok(queue::enqueue(t, Kind::LoadBalancer, ID, 1)?)
                })
                .await
                .unwrap();
                let expected = document();
                while told(&expected) < serving {
                    tokio::task::yield_now().await;
                }
            }
            world.delete(ID);
        };
        let (ended, ()) = tokio::join!(world.serve(), changes);
        assert!(ended);
        world.nothing_is_left("deleted while it boots");
    }
}

#[tokio::test]
async fn who_deletes_what_does_not_come_up_does_not_wait_for_it() {
    let world = World::new(1);
    world.create(ID, Topology::ActiveStandby);
    world.state().hangs = true;
    let deletes = async {
        while world.state().machines.len() < 2 {
            tokio::task::yield_now().await;
        }
        world.delete(ID);
    };
    let (ended, ()) = tokio::join!(world.serve(), deletes);
    assert!(ended);
    world.nothing_is_left("deleted while it boots");
}
