//! Spares: amphorae that are there before anybody wants one.

use uuid::Uuid;

use super::{Outside, Store, rows, task::Context};
use crate::{
    error::Result,
    serve::{
        queue::{self, Kind},
        status::Topology,
    },
};

/// How many there are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spares {
    /// `[house_keeping] spare_amphora_pool_size`: so many of each sort that is of use.
    pub size: usize,
    /// `[controller_worker] loadbalancer_topology`: of load balancers without a flavor.
    pub topology: Topology,
}

/// Asks for those that lack, and for the end of those that nobody needs. True when there is something to be done.
pub async fn keep<S: Store, O: Outside>(context: &Context<S, O>) -> Result<bool> {
    let size = context.spares.size;
    let common = (context.outside.driver().to_owned(), context.spares.topology, None);
    let pool = context.store.read(move |t| rows::Pool::read(t, size, common)).await?;
    // As it is most of the time.
    if pool.is_right() {
        return Ok(false);
    }
    let now = context.store.now();
    let mut new = Vec::new();
    for ((driver, topology, flavor), count) in pool.lacking {
        for _ in 0..count {
            let id = Uuid::new_v4().to_string();
            // Only what this `serve` can make.
            let Ok(machine) = context.outside.name(&driver, &id) else { break };
            let new_one = rows::New {
                machine,
                id,
                driver: driver.clone(),
                flavor: flavor.clone(),
                agent_ports: context.agent_ports,
                management: context.management.clone(),
                expires: now.saturating_add(context.outside.validity_ms()),
            };
            new.push((topology, new_one));
        }
    }
    let surplus = pool.surplus;
    context
        .store
        .write(move |t| {
            new.iter().try_for_each(|(topology, new)| rows::spare(t, *topology, new, now))?;
            for id in &surplus {
                if rows::is_spare(t, id)? && queue::find(t, Kind::AmphoraDelete, id)?.is_none() {
                    queue::enqueue(t, Kind::AmphoraDelete, id, now)?;
                }
            }
            Ok(())
        })
        .await?;
    Ok(true)
}
