//! Rows as the API writes them.

use amphora_controller::serve::{
    config::Config,
    network::{Networks, Owner},
    queue::{self, Kind},
};
use rusqlite::{Connection, TransactionBehavior, params};
use uuid::Uuid;

use crate::ground::Serve;

/// A load balancer with one listener of HTTP, a pool and members.
pub(crate) struct LoadBalancer {
    pub(crate) id: String,
    pub(crate) vip: String,
    pub(crate) pool: String,
}

fn id() -> String {
    Uuid::new_v4().to_string()
}

impl LoadBalancer {
    /// Asks for one.
    pub(crate) fn create(serve: &Serve, db: &mut Connection, topology: &str, member: (&str, u16)) -> Self {
        let networks = Networks::new(Config::parse("[networks]\nlb = 10.250.0.0/24\n").unwrap().networks);
        let network = &networks.all()[0];
        let (lb, pool) = (id(), id());
        let t = db.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let owner = Owner {
            name: "vip",
            project: "p",
            device_owner: "Octavia",
            device: &lb,
            load_balancer: None,
            amphora: None,
        };
        let port = networks.allocate(&t, &network.subnets[0].id.to_string(), None, &owner, 1).unwrap();
        t.execute(
            "INSERT INTO load_balancer (id, project_id, provisioning_status, topology, compute_driver, provider, vip_address,
             vip_port_id, vip_subnet_id, vip_network_id, created_at)
             VALUES (?1, 'p', 'PENDING_CREATE', ?2, 'namespaces', 'amphora', ?3, ?4, ?5, ?6, 1)",
            params![lb, topology, port.address.to_string(), port.id, port.subnet_id, port.network_id],
        )
        .unwrap();
        t.execute("UPDATE port SET load_balancer_id = ?1 WHERE id = ?2", params![lb, port.id]).unwrap();
        t.execute(
            "INSERT INTO pool (id, project_id, load_balancer_id, provisioning_status, protocol, lb_algorithm, created_at, generation)
             VALUES (?1, 'p', ?2, 'PENDING_CREATE', 'HTTP', 'ROUND_ROBIN', 1, 1)",
            params![pool, lb],
        )
        .unwrap();
        t.execute(
            "INSERT INTO listener (id, project_id, load_balancer_id, provisioning_status, protocol, protocol_port, default_pool_id,
             timeout_client_data, timeout_member_connect, timeout_member_data, timeout_tcp_inspect, created_at, generation)
             VALUES (?1, 'p', ?2, 'PENDING_CREATE', 'HTTP', 80, ?3, 50000, 5000, 50000, 0, 1, 1)",
            params![id(), lb, pool],
        )
        .unwrap();
        let this = Self { id: lb, vip: format!("{}:80", port.address), pool };
        this.add_member(&t, member, 1);
        queue::enqueue(&t, Kind::LoadBalancer, &this.id, 1).unwrap();
        t.commit().unwrap();
        serve.wake();
        this
    }

    fn add_member(&self, t: &Connection, (address, port): (&str, u16), generation: i64) {
        t.execute(
            "INSERT INTO member (id, project_id, pool_id, provisioning_status, address, protocol_port, created_at, generation)
             VALUES (?1, 'p', ?2, 'PENDING_CREATE', ?3, ?4, 1, ?5)",
            params![id(), self.pool, address, port, generation],
        )
        .unwrap();
    }

    /// Does something in the next generation, and asks for it.
    fn change(&self, serve: &Serve, db: &mut Connection, status: &str, work: impl FnOnce(&Connection, i64)) {
        let t = db.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        t.execute(
            "UPDATE load_balancer SET generation = generation + 1, provisioning_status = ?2 WHERE id = ?1",
            [&self.id, status],
        )
        .unwrap();
        let generation = t
            .query_row("SELECT generation FROM load_balancer WHERE id = ?1", [&self.id], |row| row.get(0))
            .unwrap();
        work(&t, generation);
        queue::enqueue(&t, Kind::LoadBalancer, &self.id, 1).unwrap();
        t.commit().unwrap();
        serve.wake();
    }

    /// Another member takes the place of those that are there.
    pub(crate) fn replace_members(&self, serve: &Serve, db: &mut Connection, member: (&str, u16)) {
        self.change(serve, db, "PENDING_UPDATE", |t, generation| {
            t.execute(
                "UPDATE member SET provisioning_status = 'PENDING_DELETE', generation = ?2 WHERE pool_id = ?1",
                params![self.pool, generation],
            )
            .unwrap();
            self.add_member(t, member, generation);
        });
    }

    /// It is to go.
    pub(crate) fn delete(&self, serve: &Serve, db: &mut Connection) {
        self.change(serve, db, "PENDING_DELETE", |_, _| {});
    }

    /// Asks for other work on it.
    pub(crate) fn ask(&self, serve: &Serve, db: &Connection, kind: Kind, subject: &str, now: i64) {
        queue::enqueue(db, kind, subject, now).unwrap();
        serve.wake();
    }

    /// `provisioning_status`; `None` when it is gone.
    pub(crate) fn status(&self, db: &Connection) -> Option<String> {
        let mut query = db.prepare("SELECT provisioning_status FROM load_balancer WHERE id = ?1").unwrap();
        query.query_map([&self.id], |row| row.get(0)).unwrap().next().map(Result::unwrap)
    }

    /// Its amphorae: id and status, the oldest first.
    pub(crate) fn amphorae(&self, db: &Connection) -> Vec<(String, String)> {
        let mut query = db
            .prepare("SELECT id, status FROM amphora WHERE load_balancer_id = ?1 ORDER BY created_at, rowid")
            .unwrap();
        query
            .query_map([&self.id], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }
}

/// How many rows are not as they are to be, or wait for work.
pub(crate) fn pending(db: &Connection) -> i64 {
    let mut count = db.query_row("SELECT count(*) FROM work", [], |row| row.get::<_, i64>(0)).unwrap();
    for table in ["load_balancer", "listener", "pool", "member"] {
        let query = format!("SELECT count(*) FROM {table} WHERE provisioning_status <> 'ACTIVE'");
        count += db.query_row(&query, [], |row| row.get::<_, i64>(0)).unwrap();
    }
    count
}
