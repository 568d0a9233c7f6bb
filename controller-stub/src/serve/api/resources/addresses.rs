//! Addresses of members that amphorae have. Where a member is said to be there is a host, and two hosts with one address are none.

use std::{collections::BTreeSet, net::IpAddr};

use rusqlite::{OptionalExtension, params};

use super::super::{
    attributes::{LOAD_BALANCER, Object},
    change::Change,
    fault::Fault,
    scope::Scope,
};
use crate::serve::{
    policies::Rule,
    queue::{self, Kind},
};

/// An amphora that has an address.
struct Holder {
    id: String,
    load_balancer: String,
    status: String,
}

/// What a member, or a change of one, says of addresses: amphorae that have them give way, each as if it was asked to fail over. The next one does
/// not take the address of a member that is known.
///
/// # Errors
/// 400: the amphora is of a load balancer that the caller may not change, or there is no other address for the next one.
pub(super) fn give_way(scope: &Scope<'_>, change: &Change<'_>, member: &Object) -> Result<(), Fault> {
    let said = ["address", "monitor_address"].into_iter().filter_map(|name| member.text(name)?.parse().ok());
    for address in said.map(|address: IpAddr| address.to_canonical()).collect::<BTreeSet<_>>() {
        if let Some(holder) = holder(scope, address)? {
            replace(scope, change, &holder, address)?;
        }
    }
    Ok(())
}

/// Who has an address and is to go on: of subnets of the configuration one at most has it.
fn holder(scope: &Scope<'_>, address: IpAddr) -> Result<Option<Holder>, Fault> {
    let text = "SELECT a.id, a.load_balancer_id, a.status FROM port p JOIN amphora a ON a.id = p.amphora_id \
                JOIN load_balancer l ON l.id = a.load_balancer_id \
                WHERE p.ip_address = ?1 AND p.leaving = 0 AND a.status <> 'PENDING_DELETE' \
                AND l.provisioning_status <> 'PENDING_DELETE' AND NOT EXISTS \
                (SELECT 1 FROM work WHERE subject = a.id AND kind IN ('AMPHORA_FAILOVER', 'AMPHORA_DELETE'))";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Holder { id: row.get(0)?, load_balancer: row.get(1)?, status: row.get(2)? })
    };
    Ok(scope.t.prepare_cached(text)?.query_row([address.to_string()], read).optional()?)
}

fn replace(scope: &Scope<'_>, change: &Change<'_>, holder: &Holder, address: IpAddr) -> Result<(), Fault> {
    let keeps = |why: &str| {
        Fault::validation(format_args!(
            "{address} is the address of an amphora, which cannot give way to a member: {why}. [allocation_pools] in the configuration keep \
             amphorae off the addresses of members."
        ))
    };
    let load_balancer = LOAD_BALANCER.get(scope.t, &holder.load_balancer)?;
    let project = load_balancer.str("project_id");
    // Who could have the amphorae of others replaced could do so again and again.
    if change.id() != holder.load_balancer && !scope.request.context.may(Rule::Write, Some(project)) {
        return Err(keeps("it is of another project, and only an operator may make this member"));
    }
    let mut query = scope.t.prepare_cached("SELECT DISTINCT subnet_id FROM port WHERE amphora_id = ?1")?;
    let subnets = query.query_map([&holder.id], |row| row.get::<_, String>(0))?;
    for subnet in subnets.collect::<rusqlite::Result<Vec<_>>>()? {
        // Of a subnet that the configuration no longer has the next one needs nothing, or there is none.
        let Ok((_, subnet)) = scope.networks.subnet(&subnet) else { continue };
        if scope.networks.unused(scope.t, subnet)?.is_none() {
            return Err(keeps(&format!("no other address of {} is free", subnet.handed_out())));
        }
    }
    if change.id() != holder.load_balancer {
        Change::of(scope, load_balancer.clone()).pend(&LOAD_BALANCER, &holder.load_balancer)?;
        scope.enqueue(Kind::LoadBalancer, &holder.load_balancer)?;
    }
    let reason = format!("amphora {} is replaced: its address {address} is that of a member", holder.id);
    tracing::info!(load_balancer = holder.load_balancer, reason);
    queue::enqueue_because(scope.t, Kind::AmphoraFailover, &holder.id, &reason, scope.now)?;
    scope
        .t
        .prepare_cached(
            "INSERT INTO event (at, project_id, load_balancer_id, object_type, object_id, attribute, old, new, reason) \
             VALUES (?1, ?2, ?3, 'amphora', ?4, 'status', ?5, ?5, ?6)",
        )?
        .execute(params![scope.now, project, holder.load_balancer, holder.id, holder.status, reason])?;
    Ok(())
}
