//! Whole histories: tenants and operators ask the API, which writes to the database as ever; workers are killed, machines end, hang, are slow and
//! refuse; and once nobody asks for more, all is as it was answered.
//!
//! ```text
//! AMPHORA_SIMULATION_SEEDS=10000 cargo test -p amphora-controller --lib simulation::history -- --nocapture
//! ```

mod ground;
mod tenants;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use self::ground::World;
use super::Random;
use crate::serve::{
    document,
    status::{AmphoraStatus, Topology},
    worker::rows,
};

/// How many histories are tried, when nobody says.
const SEEDS: u64 = 50;

/// The load balancers that the quota permits.
const QUOTA: usize = 3;

impl World {
    /// Nothing is undone, nothing is left over, and all that was answered is there.
    async fn check(&self, context: &str) {
        let tables = [
            "load_balancer",
            "listener",
            "pool",
            "member",
            "health_monitor",
            "l7policy",
            "l7rule",
            "rate_limit_policy",
            "rate_limit_rule",
        ];
        for table in tables {
            let query = format!("SELECT count(*) FROM {table} WHERE provisioning_status <> 'ACTIVE'");
            assert_eq!(self.count(&query).await, 0, "{table}: {context}");
        }
        assert_eq!(self.count("SELECT count(*) FROM work").await, 0, "{context}");
        let there: BTreeSet<String> = self.column("SELECT id FROM load_balancer").await.into_iter().collect();
        assert_eq!(there, self.state().answered, "those that were answered, and not deleted: {context}");
        let going = "SELECT count(*) FROM amphora WHERE status = 'PENDING_DELETE'";
        assert_eq!(self.count(going).await, 0, "nobody takes them down: {context}");
        self.check_ports(context).await;
        self.check_generations(context).await;
        let mut amphorae = self.db.read(|t| rows::all_amphorae(t)).await.unwrap();
        let state = self.state_of_machines();
        let named: BTreeSet<&String> = amphorae.iter().map(|one| &one.machine).collect();
        assert_eq!(named, state.keys().collect(), "{context}");
        assert!(state.values().all(|machine| machine.runs && !machine.hangs), "{context}");
        let spares: Vec<_> = amphorae.extract_if(.., |one| one.load_balancer.is_none()).collect();
        assert!(spares.iter().all(|one| one.status == AmphoraStatus::Ready), "{context}");
        assert!(spares.iter().all(|one| state[&one.machine].document.is_none()), "{context}");
        let mut sorts = BTreeSet::from([Topology::Single]);
        for id in &there {
            let own: Vec<_> = amphorae.iter().filter(|one| one.load_balancer.as_ref() == Some(id)).collect();
            let subject = id.clone();
            let (lb, rendered) = self
                .db
                .read::<_, crate::error::Error, _>(move |t| {
                    Ok((rows::load_balancer(t, &subject)?.unwrap(), document::render(t, &subject)?.unwrap()))
                })
                .await
                .unwrap();
            sorts.insert(lb.topology);
            let count = if lb.topology == Topology::Single { 1 } else { 2 };
            assert_eq!(own.len(), count, "{context}");
            for one in &own {
                assert_eq!(one.applied, lb.generation, "{context}");
                let machine = &state[&one.machine];
                assert_eq!(machine.document.as_ref(), Some(&rendered.document), "{context}");
                assert_eq!(machine.load_balancer.as_ref(), Some(id), "{context}");
                assert_eq!(
                    machine.ports,
                    one.ports.iter().map(|port| port.id.clone()).collect(),
                    "{context}"
                );
                if let Some(other) = own.iter().find(|other| other.id != one.id) {
                    assert_eq!(machine.other, Some((other.id.clone(), one.role.unwrap())), "{context}");
                    assert_ne!(one.role, other.role, "{context}");
                }
            }
            let masters = own.iter().filter(|one| state[&one.machine].master).count();
            assert_eq!(masters, 1, "masters: {context}");
        }
        let wanted = self.state().spares;
        for sort in sorts {
            let count = spares.iter().filter(|one| one.topology == sort).count();
            assert_eq!(count, wanted, "spares of {sort}: {context}");
        }
    }

    /// Each address has one owner, which is there: that it is given once is the database's.
    async fn check_ports(&self, context: &str) {
        let orphans = "SELECT count(*) FROM port WHERE load_balancer_id IS NULL AND amphora_id IS NULL";
        assert_eq!(self.count(orphans).await, 0, "{context}");
        let vips = "SELECT count(*) FROM load_balancer l WHERE NOT EXISTS (SELECT 1 FROM port p WHERE p.id = l.vip_port_id
            AND p.ip_address = l.vip_address AND p.load_balancer_id = l.id)";
        assert_eq!(self.count(vips).await, 0, "{context}");
        let idle = "SELECT count(*) FROM port p JOIN amphora a ON a.id = p.amphora_id WHERE p.id <> a.vrrp_port_id AND (p.leaving
            OR NOT EXISTS (SELECT 1 FROM member m JOIN pool o ON o.id = m.pool_id WHERE o.load_balancer_id = a.load_balancer_id
                AND m.subnet_id = p.subnet_id))";
        assert_eq!(self.count(idle).await, 0, "nobody needs them: {context}");
        let spares = "SELECT count(*) FROM port WHERE amphora_id IN (SELECT id FROM amphora WHERE load_balancer_id IS NULL)";
        assert_eq!(self.count(spares).await, 0, "{context}");
    }

    /// They only grow.
    async fn check_generations(&self, context: &str) {
        let found: Vec<(String, i64)> = self
            .db
            .read::<_, crate::error::Error, _>(|t| {
                let mut query = t.prepare("SELECT id, generation FROM load_balancer")?;
                let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            })
            .await
            .unwrap();
        let mut state = self.state();
        for (id, generation) in &found {
            let before = state.generations.get(id).copied().unwrap_or_default();
            assert!(*generation >= before, "{id} went from {before} to {generation}: {context}");
        }
        state.generations = found.into_iter().collect::<BTreeMap<_, _>>();
    }

    /// Those that the quota counts.
    async fn counted(&self) -> usize {
        usize::try_from(self.count("SELECT count(*) FROM load_balancer").await).unwrap()
    }

    async fn nothing_is_left(&self, context: &str) {
        for table in ["load_balancer", "listener", "pool", "member", "work", "amphora", "port"] {
            assert_eq!(self.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}: {context}");
        }
        assert!(self.state_of_machines().is_empty(), "{context}");
    }
}

/// One history.
async fn history(seed: u64) -> u64 {
    let world = World::new(seed).await;
    let context = format!("seed {seed}");
    for _ in 0..6 {
        let (lives, failing, asked) = world.fortune();
        {
            let mut state = world.state();
            (state.lives, state.failing) = (u32::try_from(lives).ok(), failing);
        }
        // Who asks does not wait for who works.
        let (_, ()) = tokio::join!(world.serve(), async {
            for _ in 0..asked {
                world.asks().await;
                world.befalls().await;
            }
        });
        world.check_generations(&context).await;
    }
    world.settle().await;
    world.check(&context).await;
    world.end_all().await;
    world.state().lives = Some(4);
    let _ = world.serve().await;
    world.settle().await;
    world.nothing_is_left(&context).await;
    world.state().points
}

#[test]
fn what_was_answered_becomes_so_whatever_happens() {
    let told = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = told("AMPHORA_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let first = told("AMPHORA_SIMULATION_FIRST").unwrap_or(0);
    let (next, points, violations) = (AtomicU64::new(first), AtomicU64::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    // The next seed, whatever becomes of this one.
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    match catch_unwind(AssertUnwindSafe(|| runtime.block_on(history(seed)))) {
                        Ok(counted) => _ = points.fetch_add(counted, Ordering::Relaxed),
                        Err(_) => violations.lock().unwrap().push(seed),
                    }
                }
            });
        }
    });
    let violations = violations.into_inner().unwrap();
    eprintln!("{seeds} seeds, {} points, violations in {violations:?}", points.into_inner());
    assert_eq!(violations, [0; 0]);
}

impl World {
    /// Points until it is killed, failures of a thousand, and how often somebody asks.
    fn fortune(&self) -> (u64, u64, u64) {
        let random: &mut Random = &mut self.state().random;
        (random.next(60), random.next(200), random.next(4))
    }
}
