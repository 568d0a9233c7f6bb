//! What is asked while machines boot that never answer.

use serde_json::{Value, json};

use super::ground::World;
use crate::{error::Error, serve::document};

/// Seed 0 wants no spares.
impl World {
    async fn until_booting(&self, count: usize) {
        let boots = |world: &Self| {
            let machines = world.state_of_machines().into_values();
            machines.filter(|one| one.runs && one.document.is_none()).count()
        };
        while boots(self) < count {
            tokio::task::yield_now().await;
        }
    }

    /// How many machines have its document as it is to be.
    async fn told(&self, lb: &str) -> usize {
        let id = lb.to_owned();
        let read = self.db.read::<_, Error, _>(move |t| Ok(document::render(t, &id)?));
        let expected: Value = read.await.unwrap().unwrap().document;
        self.state_of_machines().values().filter(|one| one.document.as_ref() == Some(&expected)).count()
    }
}

#[tokio::test]
async fn what_serves_takes_a_change_while_others_boot() {
    for lost in [true, false] {
        let world = World::new(0).await;
        let lb = world.create(true, json!({})).await.unwrap();
        world.settle().await;
        if lost {
            let amphora = world.column("SELECT id FROM amphora").await.remove(0);
            world.strike(&amphora, false);
        } else {
            world.fail_over(&lb).await;
        }
        world.state().none_boots = true;
        let (serving, booting) = if lost { (1, 1) } else { (2, 2) };
        let changes = async {
            world.until_booting(booting).await;
            for name in ["one", "two"] {
                world.change(&lb, json!({"name": name})).await;
                while world.told(&lb).await < serving {
                    tokio::task::yield_now().await;
                }
            }
            world.delete(&lb).await;
        };
        let (ended, ()) = tokio::join!(world.serve(), changes);
        assert!(ended);
        world.nothing_is_left("deleted while it boots").await;
    }
}

#[tokio::test]
async fn who_deletes_what_does_not_come_up_does_not_wait_for_it() {
    let world = World::new(0).await;
    let lb = world.create(true, json!({})).await.unwrap();
    world.state().none_boots = true;
    let deletes = async {
        world.until_booting(2).await;
        world.delete(&lb).await;
    };
    let (ended, ()) = tokio::join!(world.serve(), deletes);
    assert!(ended);
    world.nothing_is_left("deleted while it boots").await;
}
