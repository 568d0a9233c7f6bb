//! One load balancer is made, gives way to members, loses its member's network, is failed over and deleted; of each the worker is killed at every step.

use hyper::Method;
use serde_json::json;

use super::ground::World;

/// The worker, until it is killed, and then another until all is done. True when it was not killed.
async fn worked(world: &World, lives: u32) -> bool {
    world.state().lives = Some(lives);
    let all = world.serve().await;
    world.settle().await;
    all
}

/// Whether nobody was killed any more.
async fn life(paired: bool, spares: usize, lives: u32) -> bool {
    let context = format!("paired: {paired}, {spares} spares, killed after {lives}");
    let world = World::new(1).await;
    world.state().spares = spares;
    if spares > 0 && lives.is_multiple_of(2) {
        // They are there before anybody wants one.
        world.settle().await;
    }
    let member = json!({"address": "198.51.100.9", "protocol_port": 80, "subnet_id": world.subnet(1)});
    let pool =
        json!({"name": "pool", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": [member]});
    let listener = json!({"protocol": "HTTP", "protocol_port": 80, "default_pool": pool});
    let lb = world.create(paired, json!({"listeners": [listener]})).await.unwrap();
    let made = worked(&world, lives).await;
    world.check(&context).await;

    // Where the amphorae are, of which each has a port for the VIP and one for members.
    let pool = world.column("SELECT id FROM pool").await.remove(0);
    let addresses = world.column("SELECT ip_address FROM port WHERE amphora_id IS NOT NULL").await;
    assert_eq!(addresses.len(), if paired { 4 } else { 2 }, "{context}");
    for address in &addresses {
        let body = json!({"address": address, "protocol_port": 80});
        world.post(&format!("/v2/lbaas/pools/{pool}/members"), "member", body).await.unwrap();
    }
    let gave_way = worked(&world, lives).await;
    world.check(&context).await;

    world.ask(Method::PUT, &format!("/v2/lbaas/pools/{pool}/members"), json!({"members": []})).await;
    let unplugged = worked(&world, lives).await;
    world.check(&context).await;

    world.fail_over(&lb).await;
    let replaced = worked(&world, lives).await;
    world.check(&context).await;

    world.delete(&lb).await;
    world.state().spares = 0;
    let deleted = worked(&world, lives).await;
    world.nothing_is_left(&context).await;
    made && gave_way && unplugged && replaced && deleted
}

#[tokio::test]
async fn whoever_is_killed_at_any_step_leaves_nothing_undone() {
    for (paired, spares) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
        // How many points there are is known when it was not killed any more.
        for lives in 0.. {
            if life(paired, spares, lives).await {
                eprintln!("paired: {paired}, {spares} spares: {lives} points");
                break;
            }
        }
    }
}
