//! What the worker reads and writes, each function a part of one transaction.

mod due;
mod ends;
mod ports;
mod spares;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

pub use self::{
    due::{due_agents, is_more_due},
    ends::{adopt, delete, failed, finish, is_failing_over, is_made_by},
    ports::{
        Port, idle_ports, is_plugged, lacking, lacks_ports, let_go, plug_what_lacks, reach_members, unplugged,
    },
    spares::{Pool, Sort, is_spare, ready, spare, take},
};
use crate::{
    client,
    error::{Error, Result},
    serve::{
        config::{ComputeDriver, Subnet},
        network::Networks,
        queue::{self, Kind, Work},
        status::{AmphoraStatus, Role, Topology},
        worker::Given,
    },
};

/// A load balancer, as far as the worker looks at it.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadBalancer {
    /// `id`
    pub id: String,
    /// `project_id`
    pub project: String,
    /// `generation`
    pub generation: i64,
    /// `provisioning_status` is PENDING_DELETE.
    pub going: bool,
    /// `provisioning_status` is ACTIVE.
    pub active: bool,
    /// `topology`
    pub topology: Topology,
    /// `compute_driver`
    pub driver: String,
    /// `compute_flavor` of its flavor.
    pub flavor: Option<String>,
    /// `vip_address`, and the subnet's id.
    pub vip: (IpAddr, String),
    /// `vip_port_id`
    pub vip_port: String,
    /// `additional_vips`, with the ids of their subnets.
    pub additional: Vec<(IpAddr, String)>,
    /// `created_at` of its failover, where one was asked for.
    pub failover: Option<i64>,
    /// The most attempts of its work, but for what is asked of agents alone.
    pub attempts: u32,
    /// Its amphorae, the oldest first.
    pub amphorae: Vec<Amphora>,
}

/// An amphora's row.
#[derive(Clone, Debug, PartialEq)]
pub struct Amphora {
    /// `id`
    pub id: String,
    /// `load_balancer_id`
    pub load_balancer: Option<String>,
    /// `status`
    pub status: AmphoraStatus,
    /// `role`
    pub role: Option<Role>,
    /// `topology`: what its agent was made for.
    pub topology: Topology,
    /// `compute_id`
    pub machine: String,
    /// `compute_flavor`
    pub flavor: Option<String>,
    /// `lb_network_ip` and `agent_port`
    pub agent: SocketAddr,
    /// Since when it has its load balancer.
    pub made: i64,
    /// `applied_generation`
    pub applied: i64,
    /// `vrrp_port_id`
    pub vrrp_port: Option<String>,
    /// Its replacement, or its end, was asked for.
    pub leaving: bool,
    /// A new configuration of its agent was asked for.
    pub configure: bool,
    /// Its ports, but for those that are being unplugged.
    pub ports: Vec<Port>,
}

impl LoadBalancer {
    /// Those whose agents are to be configured. One that goes, or is to be replaced, need not answer.
    pub fn to_configure(&self) -> impl Iterator<Item = &Amphora> {
        let is_old = |one: &Amphora| one.leaving || self.failover.is_some_and(|time| one.made < time);
        self.amphorae.iter().filter(move |one| {
            one.configure && one.status == AmphoraStatus::Allocated && !self.going && !is_old(one)
        })
    }

    /// Whether some work on it is of one agent alone, which keeps nothing else from being done and is kept by nothing else.
    pub fn is_of_agent(&self, work: &Work) -> bool {
        work.kind == Kind::AmphoraConfigure && self.to_configure().any(|one| one.id == work.subject)
    }
}

impl Amphora {
    /// Whether it is being taken down.
    pub fn is_going(&self) -> bool {
        self.status == AmphoraStatus::PendingDelete
    }
}

fn text<T: std::str::FromStr>(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| rusqlite::Error::InvalidColumnName(format!("{column} has {text:?}")))
}

/// What the flavor of a load balancer `l` says of the size of its amphorae.
const FLAVOR: &str = "(SELECT json_extract(p.flavor_data, '$.compute_flavor') FROM flavor f
    JOIN flavor_profile p ON p.id = f.flavor_profile_id WHERE f.id = l.flavor_id)";

/// The load balancer of an id.
pub fn load_balancer(connection: &Connection, id: &str) -> Result<Option<LoadBalancer>> {
    let mut query = connection.prepare_cached(&format!(
        "SELECT *, (SELECT created_at FROM work WHERE kind = 'LOAD_BALANCER_FAILOVER' AND subject = l.id) AS failover,
         COALESCE((SELECT max(attempts) FROM work WHERE kind <> 'AMPHORA_CONFIGURE' AND (subject = l.id
             OR subject IN (SELECT id FROM amphora WHERE load_balancer_id = l.id))), 0) AS attempts,
         {FLAVOR} AS compute_flavor FROM load_balancer l WHERE id = ?1"
    ))?;
    let found = query.query_row([id], |row| {
        let additional: String = row.get("additional_vips")?;
        let additional: Vec<serde_json::Value> = serde_json::from_str(&additional).unwrap_or_default();
        let vip = |entry: &serde_json::Value| {
            Some((entry["ip_address"].as_str()?.parse().ok()?, entry["subnet_id"].as_str()?.to_owned()))
        };
        let status: String = row.get("provisioning_status")?;
        Ok(LoadBalancer {
            id: row.get("id")?,
            project: row.get("project_id")?,
            generation: row.get("generation")?,
            going: status == "PENDING_DELETE",
            active: status == "ACTIVE",
            topology: row.get("topology")?,
            driver: row.get("compute_driver")?,
            flavor: row.get("compute_flavor")?,
            vip: (text(row, "vip_address")?, row.get("vip_subnet_id")?),
            vip_port: row.get("vip_port_id")?,
            additional: additional.iter().filter_map(vip).collect(),
            failover: row.get("failover")?,
            attempts: row.get("attempts")?,
            amphorae: Vec::new(),
        })
    });
    let Some(mut found) = found.optional()? else { return Ok(None) };
    found.amphorae = amphorae(connection, "load_balancer_id = ?1", id)?;
    Ok(Some(found))
}

/// The amphora of an id.
pub fn amphora(connection: &Connection, id: &str) -> Result<Option<Amphora>> {
    Ok(amphorae(connection, "id = ?1", id)?.pop())
}

/// All of them.
pub fn all_amphorae(connection: &Connection) -> Result<Vec<Amphora>> {
    amphorae(connection, "?1 = ''", "")
}

fn amphorae(connection: &Connection, condition: &str, value: &str) -> Result<Vec<Amphora>> {
    let mut query = connection.prepare_cached(&format!(
        "SELECT *, COALESCE(taken_at, created_at) AS made, EXISTS (SELECT 1 FROM work WHERE subject = a.id AND kind IN ('AMPHORA_FAILOVER', 'AMPHORA_DELETE')) AS leaving,
         EXISTS (SELECT 1 FROM work WHERE subject = a.id AND kind = 'AMPHORA_CONFIGURE') AS configure
         FROM amphora a WHERE {condition} ORDER BY made, rowid"
    ))?;
    let rows = query.query_map([value], |row| {
        Ok(Amphora {
            id: row.get("id")?,
            load_balancer: row.get("load_balancer_id")?,
            status: row.get("status")?,
            role: row.get("role")?,
            topology: row.get::<_, Option<_>>("topology")?.unwrap_or(Topology::Single),
            machine: row.get("compute_id")?,
            flavor: row.get("compute_flavor")?,
            agent: SocketAddr::new(text(row, "lb_network_ip")?, row.get("agent_port")?),
            made: row.get("made")?,
            applied: row.get("applied_generation")?,
            vrrp_port: row.get("vrrp_port_id")?,
            leaving: row.get("leaving")?,
            configure: row.get("configure")?,
            ports: Vec::new(),
        })
    })?;
    let mut found = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    for amphora in &mut found {
        amphora.ports = ports::of(connection, &amphora.id, false)?;
    }
    Ok(found)
}

/// What a new amphora is told that no row says.
#[derive(Clone, Debug)]
pub struct New {
    /// Its id.
    pub id: String,
    /// `compute_driver`, `compute_flavor` and `compute_id`.
    pub driver: String,
    /// As above.
    pub flavor: Option<String>,
    /// As above.
    pub machine: String,
    /// Ports of agents on this host, first and last.
    pub agent_ports: (u16, u16),
    /// Where virtual machines have their agents.
    pub management: Subnet,
    /// `cert_expiration`, until it is known.
    pub expires: i64,
}

/// Names a new amphora before anything of it is made.
fn name(connection: &Connection, topology: Topology, new: &New, now: i64) -> Result<()> {
    let New { id, driver, flavor, machine, expires, .. } = new;
    let (address, port) = agent(connection, new)?;
    let address = address.to_string();
    connection
        .prepare_cached(
            "INSERT INTO amphora (id, status, topology, compute_driver, compute_flavor, compute_id, lb_network_ip, agent_port,
             cert_expiration, created_at) VALUES (?1, 'BOOTING', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![id, topology, driver, flavor, machine, address, port, expires, now])?;
    Ok(())
}

/// Names a new amphora of a load balancer, and its address.
pub fn add(
    connection: &Connection,
    networks: &Networks,
    lb: &LoadBalancer,
    new: &New,
    now: i64,
) -> Result<()> {
    name(connection, lb.topology, new, now)?;
    join(connection, networks, lb, &new.id, now)
}

/// Gives an amphora to a load balancer, and an address. Whatever the clock says, it is newer than a failover that was asked for.
fn join(connection: &Connection, networks: &Networks, lb: &LoadBalancer, id: &str, now: i64) -> Result<()> {
    let since = lb.failover.map_or(now, |asked| asked.max(now));
    connection
        .prepare_cached(
            "UPDATE amphora SET load_balancer_id = ?2, ha_ip = ?3, ha_port_id = ?4, taken_at = ?5, applied_generation = 0
             WHERE id = ?1",
        )?
        .execute(params![id, lb.id, lb.vip.0.to_string(), lb.vip_port, since])?;
    let own = ports::give(connection, networks, lb, id, &lb.vip.1, now)?;
    connection
        .prepare_cached("UPDATE amphora SET vrrp_ip = ?2, vrrp_port_id = ?3 WHERE id = ?1")?
        .execute(params![id, own.0.to_string(), own.1])?;
    forget_applied(connection, lb)
}

/// Where the agent of a new amphora is to be.
fn agent(connection: &Connection, new: &New) -> Result<(IpAddr, u16)> {
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    if new.driver != ComputeDriver::Qemu.as_str() {
        return Ok((here, agent_port(connection, &new.id, new.agent_ports)?));
    }
    let mut query =
        connection.prepare_cached("SELECT lb_network_ip FROM amphora WHERE compute_driver = ?1")?;
    let taken = query.query_map([&new.driver], |row| text(row, "lb_network_ip"))?;
    let taken = taken.collect::<rusqlite::Result<_>>()?;
    let free = new.management.free(&taken);
    let full = || {
        Error::NotDone(format!(
            "no address of [compute] management_network {} is free",
            new.management.cidr()
        ))
    };
    Ok((free.ok_or_else(full)?, client::DEFAULT_PORT))
}

/// One that no row has, begun with by chance: one that somebody else listens on is not taken for ever.
fn agent_port(connection: &Connection, id: &str, (first, last): (u16, u16)) -> Result<u16> {
    let mut query = connection.prepare_cached("SELECT agent_port FROM amphora")?;
    let taken = query
        .query_map([], |row| row.get::<_, u16>(0))?
        .collect::<rusqlite::Result<std::collections::HashSet<_>>>()?;
    let count = u32::from(last - first) + 1;
    let begin = Uuid::parse_str(id).map_or(0, |id| id.as_u64_pair().0 % u64::from(count));
    let begin = u32::try_from(begin).unwrap_or(0);
    let candidates = (0..count).filter_map(|n| u16::try_from(u32::from(first) + (begin + n) % count).ok());
    let free = candidates.into_iter().find(|port| !taken.contains(port));
    free.ok_or_else(|| Error::NotDone(format!("no port of [compute] agent_ports {first}-{last} is free")))
}

/// The agent of an amphora of which nothing is there is to have another port.
pub fn move_agent(connection: &Connection, id: &str, agent_ports: (u16, u16)) -> Result<()> {
    let port = agent_port(connection, id, agent_ports)?;
    connection
        .prepare_cached("UPDATE amphora SET agent_port = ?2 WHERE id = ?1 AND compute_driver <> 'qemu'")?
        .execute(params![id, port])?;
    Ok(())
}

/// Those of a pair are told everything again: the other one has changed.
fn forget_applied(connection: &Connection, lb: &LoadBalancer) -> Result<()> {
    if lb.topology == Topology::ActiveStandby {
        connection
            .prepare_cached("UPDATE amphora SET applied_generation = 0 WHERE load_balancer_id = ?1")?
            .execute([&lb.id])?;
    }
    Ok(())
}

/// An amphora of a load balancer answers.
pub fn booted(connection: &Connection, id: &str, given: &Given, now: i64) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE amphora SET status = 'ALLOCATED', cert_expiration = ?2, trust = ?3, updated_at = ?4
             WHERE id = ?1 AND status = 'BOOTING'",
        )?
        .execute(params![id, given.ends, given.trust, now])?;
    Ok(())
}

/// The agent has its configuration, and a certificate.
pub fn configured(connection: &Connection, id: &str, given: &Given) -> Result<()> {
    connection
        .prepare_cached("UPDATE amphora SET cert_expiration = ?2, trust = COALESCE(?3, trust), cert_busy = 0 WHERE id = ?1")?
        .execute(params![id, given.ends, given.trust])?;
    Ok(queue::done(connection, Kind::AmphoraConfigure, id)?)
}

/// An amphora goes. Its load balancer is changed by that, and worked on, at once whatever has failed before, until it has another.
pub fn retire(connection: &Connection, id: &str, now: i64) -> Result<()> {
    connection
        .prepare_cached("UPDATE amphora SET status = 'PENDING_DELETE', updated_at = ?2 WHERE id = ?1")?
        .execute(params![id, now])?;
    let lb: Option<String> = connection
        .prepare_cached("SELECT load_balancer_id FROM amphora WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?
        .flatten();
    let Some(lb) = lb else { return Ok(()) };
    // What fails again and again is in ERROR until it succeeds.
    let fails = queue::of(connection, &lb)?
        .iter()
        .any(|work| work.attempts >= ends::PATIENCE && work.kind != Kind::AmphoraConfigure);
    connection
        .prepare_cached(
            "UPDATE load_balancer SET generation = generation + 1,
             provisioning_status = IIF(?2 AND provisioning_status = 'ERROR', 'ERROR', 'PENDING_UPDATE')
             WHERE id = ?1 AND provisioning_status IN ('ACTIVE', 'ERROR')",
        )?
        .execute(params![lb, fails])?;
    if queue::find(connection, Kind::LoadBalancer, &lb)?.is_none() {
        queue::enqueue(connection, Kind::LoadBalancer, &lb, now)?;
    }
    connection
        .prepare_cached("UPDATE work SET not_before = 0 WHERE kind = 'LOAD_BALANCER' AND subject = ?1")?
        .execute([&lb])?;
    Ok(())
}

/// The project of a load balancer; empty for what is of nobody's, as spares are.
pub fn project(connection: &Connection, id: &str) -> Result<String> {
    let project = connection
        .prepare_cached("SELECT project_id FROM load_balancer WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    Ok(project.unwrap_or_default())
}

/// An amphora is not heard any more: it goes. Whether it did not go before.
pub fn silent(connection: &Connection, id: &str, now: i64) -> Result<bool> {
    let load_balancer: Option<Option<String>> = connection
        .prepare_cached(
            "SELECT load_balancer_id FROM amphora WHERE id = ?1 AND status IN ('ALLOCATED', 'READY')",
        )?
        .query_row([id], |row| row.get(0))
        .optional()?;
    match load_balancer {
        None => return Ok(false),
        Some(Some(_)) => retire(connection, id, now)?,
        Some(None) => {
            if queue::find(connection, Kind::AmphoraDelete, id)?.is_some() {
                return Ok(false);
            }
            queue::enqueue(connection, Kind::AmphoraDelete, id, now)?;
        }
    }
    Ok(true)
}

/// Nothing is left of an amphora.
pub fn removed(connection: &Connection, lb: Option<&LoadBalancer>, id: &str) -> Result<()> {
    connection.prepare_cached("DELETE FROM amphora WHERE id = ?1")?.execute([id])?;
    for kind in [Kind::AmphoraCreate, Kind::AmphoraFailover, Kind::AmphoraDelete, Kind::AmphoraConfigure] {
        queue::done(connection, kind, id)?;
    }
    lb.map_or(Ok(()), |lb| forget_applied(connection, lb))
}

/// What an amphora was told.
#[derive(Clone, Debug)]
pub struct Applied {
    /// That of its load balancer, unless something of it is lacking.
    pub generation: Option<i64>,
    /// What its heartbeats call the document.
    pub document: String,
    /// Its role.
    pub role: Role,
}

/// An amphora is what it is to be at a generation, or serves but for what is lacking.
pub fn applied(connection: &Connection, id: &str, told: &Applied, now: i64) -> Result<()> {
    let Applied { generation, document, role } = told;
    let (vrrp_id, priority) = match role {
        Role::Standalone => (None, None),
        Role::Master => (Some(1), Some(100)),
        Role::Backup => (Some(1), Some(90)),
    };
    connection
        .prepare_cached(
            "UPDATE amphora SET applied_generation = COALESCE(?2, applied_generation), role = ?3, vrrp_interface = 'eth1', vrrp_id = ?4, vrrp_priority = ?5,
             updated_at = ?6, applied_document = ?7, applied_at = ?6 WHERE id = ?1",
        )?
        .execute(params![id, generation, role, vrrp_id, priority, now, document])?;
    Ok(())
}

/// Whose work a subject is: the load balancer of an amphora that has one, else itself.
pub fn whose(connection: &Connection, kind: Kind, subject: &str) -> Result<String> {
    if matches!(kind, Kind::LoadBalancer | Kind::LoadBalancerFailover) {
        return Ok(subject.to_owned());
    }
    let of: Option<Option<String>> = connection
        .prepare_cached("SELECT load_balancer_id FROM amphora WHERE id = ?1")?
        .query_row([subject], |row| row.get(0))
        .optional()?;
    Ok(of.flatten().unwrap_or_else(|| subject.to_owned()))
}

#[cfg(test)]
mod tests;
