//! Amphorae that wait for a load balancer.

use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use rusqlite::Connection;

use crate::{
    MEMBER, active, agent_of,
    ground::Serve,
    rows::{LoadBalancer, pending},
};

/// Spares that are ready, by topology.
fn ready(db: &Connection, topology: &str) -> Vec<String> {
    let mut query = db
        .prepare(
            "SELECT id FROM amphora WHERE load_balancer_id IS NULL AND status = 'READY' AND topology = ?1",
        )
        .unwrap();
    query.query_map([topology], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn filled(serve: &Serve, db: &Connection, topology: &str, count: usize) -> Vec<String> {
    serve.eventually("spares", |_| {
        let found = ready(db, topology);
        (found.len() == count && pending(db) == 0).then_some(found)
    })
}

#[test]
fn spares_are_taken_by_who_needs_an_amphora_and_replaced() {
    let Some(mut serve) = Serve::start_with("[house_keeping]\nspare_amphora_pool_size = 2\n") else { return };
    serve.member("10.250.0.1:8081", "one");
    serve.neighbours_stay();
    let mut db = serve.db();
    // Of the sort of load balancers without a flavor; those of the other one come with the first that is so.
    filled(&serve, &db, "SINGLE", 2);
    assert_eq!(ready(&db, "ACTIVE_STANDBY"), [""; 0]);
    for topology in ["SINGLE", "ACTIVE_STANDBY"] {
        let first = LoadBalancer::create(&serve, &mut db, topology, MEMBER);
        active(&serve, &first);
        let spares = filled(&serve, &db, topology, 2);
        let begin = Instant::now();
        let lb = LoadBalancer::create(&serve, &mut db, topology, MEMBER);
        serve.eventually("ACTIVE", |_| (lb.status(&db).as_deref() == Some("ACTIVE")).then_some(()));
        eprintln!("{topology}: from the rows to ACTIVE {} ms", begin.elapsed().as_millis());
        let taken: Vec<String> = lb.amphorae(&db).into_iter().map(|(id, _)| id).collect();
        assert!(taken.iter().all(|id| spares.contains(id)), "{taken:?} of {spares:?}");
        serve.eventually("traffic", |serve| serve.get(&lb.vip));

        let spares = filled(&serve, &db, topology, 2);
        let begin = Instant::now();
        kill(agent_of(&serve, &taken[0]), Signal::SIGKILL).unwrap();
        serve.eventually("another amphora", |_| {
            lb.amphorae(&db).iter().all(|(id, _)| *id != taken[0]).then_some(())
        });
        serve.eventually("ACTIVE", |_| (lb.status(&db).as_deref() == Some("ACTIVE")).then_some(()));
        eprintln!("{topology}: redundant again after {} ms", begin.elapsed().as_millis());
        let after = lb.amphorae(&db);
        assert_eq!(after.len(), taken.len());
        assert!(after.iter().all(|(id, _)| spares.contains(id) || taken.contains(id)));
        serve.eventually("traffic", |serve| serve.get(&lb.vip));
        for lb in [lb, first] {
            lb.delete(&serve, &mut db);
            serve.eventually("its end", |_| lb.status(&db).is_none().then_some(()));
        }
    }
    // Nobody needs those of pairs any more.
    let spares = filled(&serve, &db, "SINGLE", 2);
    filled(&serve, &db, "ACTIVE_STANDBY", 0);
    // One that ends is replaced, and so is one that hangs.
    for (spare, signal) in spares.iter().zip([Signal::SIGKILL, Signal::SIGSTOP]) {
        kill(agent_of(&serve, spare), signal).unwrap();
        serve.eventually("another spare", |_| {
            let now = ready(&db, "SINGLE");
            (now.len() == 2 && !now.contains(spare)).then_some(())
        });
    }
    let spares = filled(&serve, &db, "SINGLE", 2);
    serve.kill();
    serve.restart();
    assert_eq!(filled(&serve, &db, "SINGLE", 2), spares, "they outlive serve");
    assert_eq!(serve.machines().len(), 2);
    serve.kill();
    serve.configure("");
    serve.restart();
    filled(&serve, &db, "SINGLE", 0);
    serve.eventually("the end of all", |serve| serve.machines().is_empty().then_some(()));
    serve.stop();
}
