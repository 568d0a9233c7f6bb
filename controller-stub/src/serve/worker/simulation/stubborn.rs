//! What is asked while an agent cannot be configured, and what befalls while a certificate is lacking.

use serde_json::json;

use super::ground::World;
use crate::serve::worker::schedule;

/// Seed 0 wants no spares.
async fn a_pair() -> (World, String, Vec<String>) {
    let world = World::new(0).await;
    let lb = world.create(true, json!({})).await.unwrap();
    world.settle().await;
    let amphorae = world.column("SELECT id FROM amphora ORDER BY id").await;
    (world, lb, amphorae)
}

const STATUS: &str = "SELECT provisioning_status FROM load_balancer";

#[tokio::test]
async fn what_one_agent_does_not_take_keeps_nothing_else() {
    let (world, lb, before) = a_pair().await;
    world.is_stubborn(&before[0]).await;
    world.configure(&before[1]).await;
    world.change(&lb, json!({"name": "other"})).await;
    assert!(world.serve().await);
    assert_eq!(world.column(STATUS).await, ["ACTIVE"]);
    let left = "SELECT kind || ' ' || subject || ' ' || attempts || ' ' || reason FROM work";
    let told = format!("AMPHORA_CONFIGURE {} 3 it takes no other certificate", before[0]);
    assert_eq!(world.column(left).await, [told], "it is told, and tried again by itself");
    // What it has failed to do is no reason to be careful with anything else.
    world.fail_over(&lb).await;
    assert!(world.serve().await);
    assert_eq!(world.column(STATUS).await, ["ACTIVE"]);
    let after = world.column("SELECT id FROM amphora").await;
    assert!(after.iter().all(|one| !before.contains(one)), "{before:?} {after:?}");
    world.check("failed over").await;
    world.is_stubborn(&after[0]).await;
    world.delete(&lb).await;
    assert!(world.serve().await);
    world.nothing_is_left("deleted").await;
}

#[tokio::test]
async fn who_asks_for_more_does_not_wait_for_an_agent_that_is_silent() {
    let (world, lb, before) = a_pair().await;
    world.state().none_listens = true;
    world.configure(&before[0]).await;
    let deletes = async {
        // Until it is waited for.
        let points = world.state().points;
        while world.state().points == points {
            tokio::task::yield_now().await;
        }
        world.delete(&lb).await;
    };
    let (ended, ()) = tokio::join!(world.serve(), deletes);
    assert!(ended);
    world.nothing_is_left("deleted").await;
}

#[tokio::test]
async fn whose_certificate_has_ended_is_replaced_when_it_takes_no_other() {
    let (world, _, before) = a_pair().await;
    world.is_stubborn(&before[0]).await;
    world.configure(&before[1]).await;
    world.settle().await;
    world.check("replaced").await;
    let after = world.column("SELECT id FROM amphora").await;
    assert!(!after.contains(&before[0]) && after.contains(&before[1]), "{before:?} {after:?}");
}

#[tokio::test]
async fn while_a_certificate_is_lacking_who_is_lost_of_a_pair_is_replaced() {
    let (world, lb, before) = a_pair().await;
    let context = world.context();
    let try_once = async || {
        world.state().ahead += 60_000;
        context.work(&lb).await.unwrap()
    };
    world.state().lacking = true;
    world.change(&lb, json!({"name": "other"})).await;
    for _ in 0..4 {
        assert!(!try_once().await);
    }
    assert_eq!(world.column(STATUS).await, ["ERROR"]);
    world.strike(&before[0], false);
    schedule::look(&context).await.unwrap();
    assert!(!try_once().await);
    let after = world.column("SELECT id FROM amphora ORDER BY id").await;
    assert!(after.contains(&before[1]) && !after.contains(&before[0]), "{before:?} {after:?}");
    let machines = world.state_of_machines();
    assert!(machines.len() == 2 && machines.values().all(|one| one.runs && one.other.is_some()));
    let roles = world.column("SELECT COALESCE(role, 'none') FROM amphora ORDER BY 1").await;
    assert_eq!(roles, ["BACKUP", "MASTER"], "whoever serves has one");
    world.state().lacking = false;
    world.settle().await;
    world.check("the certificate is there").await;
}
