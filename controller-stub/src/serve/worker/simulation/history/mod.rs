//! Whole histories: tenants and operators ask the API, which writes to the database as ever; workers are killed, machines end, hang, are slow and
//! refuse; and once nobody asks for more, all is as it was answered.
//!
//! ```text
//! AMPHORA_SIMULATION_SEEDS=10000 cargo test -p amphora-controller --lib simulation::history -- --nocapture
//! ```

mod tenants;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::{Random, ground::World};

/// How many histories are tried, when nobody says.
const SEEDS: u64 = 50;

/// The load balancers that the quota permits.
const QUOTA: usize = 3;

/// One history.
async fn history(seed: u64) -> u64 {
    let world = World::new(seed).await;
    let context = format!("seed {seed}");
    for _ in 0..6 {
        let (lives, failing, asked) = world.fortune();
        {
            let mut state = world.state();
            (state.lives, state.failing) = (u32::try_from(lives).ok(), failing);
            state.unknown = state.random.next(2) * state.random.next(800);
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
    world.who_is_well_stays_whatever_is_not_known(&context).await;
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
