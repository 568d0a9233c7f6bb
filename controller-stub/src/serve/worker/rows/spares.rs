//! Spares: amphorae that run, and have no load balancer yet.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::{FLAVOR, LoadBalancer, New, join, name};
use crate::{
    error::Result,
    serve::{
        network::Networks,
        queue::{self, Kind},
        status::Topology,
        worker::Given,
    },
};

/// What a spare can be of use for: its driver, what its agent was made for, and its size.
pub type Sort = (String, Topology, Option<String>);

/// Which spares there are, and which there are to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// How many lack of each sort.
    pub lacking: Vec<(Sort, usize)>,
    /// Those that are more than there are to be.
    pub surplus: Vec<String>,
}

impl Pool {
    /// There are to be `size` of `common`, the sort of load balancers without a flavor, and of each sort that a load balancer has.
    pub fn read(connection: &Connection, size: usize, common: Sort) -> Result<Self> {
        let mut query = connection.prepare_cached(&format!(
            "SELECT DISTINCT compute_driver, topology, {FLAVOR} FROM load_balancer l WHERE provisioning_status <> 'PENDING_DELETE'"
        ))?;
        let mut wanted = query
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<rusqlite::Result<Vec<Sort>>>()?;
        wanted.push(common);
        // Those that are about to go count, so that what does not come up is tried again at their pace.
        let mut query = connection.prepare_cached(
            "SELECT compute_driver, topology, compute_flavor, id, status = 'PENDING_DELETE' FROM amphora
             WHERE load_balancer_id IS NULL AND topology IS NOT NULL ORDER BY status = 'READY', created_at DESC",
        )?;
        let mut there: BTreeMap<Sort, Vec<(String, bool)>> = BTreeMap::new();
        let rows = query
            .query_map([], |row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), (row.get(3)?, row.get(4)?))))?;
        for row in rows {
            let (sort, one) = row?;
            there.entry(sort).or_default().push(one);
        }
        let mut pool = Self::default();
        wanted.sort();
        wanted.dedup();
        for sort in wanted {
            let count = there.get(&sort).map_or(0, Vec::len);
            if size > count {
                pool.lacking.push((sort.clone(), size - count));
            }
            if let Some(all) = there.get_mut(&sort) {
                all.truncate(count.saturating_sub(size));
            }
        }
        let stays = there.into_values().flatten().filter(|(_, going)| !going);
        pool.surplus = stays.map(|(id, _)| id).collect();
        Ok(pool)
    }

    /// Whether all is as it is to be.
    pub fn is_right(&self) -> bool {
        self.lacking.is_empty() && self.surplus.is_empty()
    }
}

/// Names a spare, and asks for it.
pub fn spare(connection: &Connection, topology: Topology, new: &New, now: i64) -> Result<()> {
    name(connection, topology, new, now)?;
    Ok(queue::enqueue(connection, Kind::AmphoraCreate, &new.id, now)?)
}

/// Whether nobody has taken it.
pub fn is_spare(connection: &Connection, id: &str) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM amphora WHERE id = ?1 AND load_balancer_id IS NULL)";
    Ok(connection.prepare_cached(query)?.query_row([id], |row| row.get(0))?)
}

/// A spare answers.
pub fn ready(connection: &Connection, id: &str, given: &Given, now: i64) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE amphora SET status = 'READY', cert_expiration = ?2, trust = ?3, updated_at = ?4
             WHERE id = ?1 AND status = 'BOOTING' AND load_balancer_id IS NULL",
        )?
        .execute(params![id, given.ends, given.trust, now])?;
    Ok(queue::done(connection, Kind::AmphoraCreate, id)?)
}

/// Gives a load balancer a spare, the oldest; true when there was one. One that is to go, for whatever reason, is none.
pub fn take(connection: &Connection, networks: &Networks, lb: &LoadBalancer, now: i64) -> Result<bool> {
    let found: Option<String> = connection
        .prepare_cached(
            "SELECT id FROM amphora a WHERE load_balancer_id IS NULL AND status = 'READY' AND compute_driver = ?1 AND topology = ?2
             AND compute_flavor IS ?3 AND NOT EXISTS (SELECT 1 FROM work WHERE subject = a.id AND kind <> 'AMPHORA_CONFIGURE')
             ORDER BY created_at LIMIT 1",
        )?
        .query_row(params![lb.driver, lb.topology, lb.flavor], |row| row.get(0))
        .optional()?;
    let Some(id) = found else { return Ok(false) };
    connection
        .prepare_cached("UPDATE amphora SET status = 'ALLOCATED', updated_at = ?2 WHERE id = ?1")?
        .execute(params![id, now])?;
    join(connection, networks, lb, &id, now)?;
    Ok(true)
}
