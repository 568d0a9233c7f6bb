//! What of a load balancer may be done now: for it, or by one of its agents alone.

use rusqlite::Connection;

use super::{Amphora, LoadBalancer, load_balancer};
use crate::{
    error::Result,
    serve::queue::{self, Work},
};

/// Whether something may be done now for a load balancer, or for an amphora that has none, but for what is of agents alone.
pub fn is_more_due(connection: &Connection, id: &str, now: i64) -> Result<bool> {
    let due = due(connection, id, now)?;
    let Some(lb) = load_balancer(connection, id)? else { return Ok(!due.is_empty()) };
    Ok(due.iter().any(|work| !lb.is_of_agent(work)))
}

/// A load balancer, and its amphorae whose agents may be configured now.
pub fn due_agents(
    connection: &Connection,
    id: &str,
    now: i64,
) -> Result<Option<(LoadBalancer, Vec<Amphora>)>> {
    let Some(lb) = load_balancer(connection, id)? else { return Ok(None) };
    let due = due(connection, id, now)?;
    let is_due = |one: &&Amphora| due.iter().any(|work| lb.is_of_agent(work) && work.subject == one.id);
    let agents = lb.to_configure().filter(is_due).cloned().collect();
    Ok(Some((lb, agents)))
}

fn due(connection: &Connection, id: &str, now: i64) -> Result<Vec<Work>> {
    let mut all = queue::of(connection, id)?;
    all.retain(|work| work.is_due(now));
    Ok(all)
}
