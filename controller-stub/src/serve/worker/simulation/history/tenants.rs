//! What tenants and operators ask for, and what befalls amphorae.

use hyper::Method;
use serde_json::{Value, json};

use super::super::ground::World;
use crate::serve::health_manager;

impl World {
    fn chance(&self, below: usize) -> usize {
        usize::try_from(self.state().random.next(u64::try_from(below).unwrap())).unwrap()
    }

    async fn any(&self, query: &'static str) -> Option<String> {
        let all = self.column(query).await;
        if all.is_empty() { None } else { Some(all[self.chance(all.len())].clone()) }
    }

    fn members(&self) -> Value {
        let member = |n: usize| {
            let subnet = if n.is_multiple_of(2) { self.subnet(1) } else { self.subnet(0) };
            let prefix = if n.is_multiple_of(2) { "198.51.100" } else { "192.0.2" };
            // Of the least some are amphorae's.
            let address = format!("{prefix}.{}", 2 + self.chance(12));
            json!({"address": address, "protocol_port": 8000 + n, "subnet_id": subnet})
        };
        (0..self.chance(4)).map(|_| member(self.chance(4))).fold(json!([]), |mut all, one| {
            let ports = |one: &Value| one["protocol_port"].clone();
            if all.as_array().unwrap().iter().all(|other| ports(other) != ports(&one)) {
                all.as_array_mut().unwrap().push(one);
            }
            all
        })
    }

    /// Somebody asks for something.
    pub(super) async fn asks(&self) {
        let lb = self.any("SELECT id FROM load_balancer").await;
        let pool = self.any("SELECT id FROM pool").await;
        let listener = self.any("SELECT id FROM listener").await;
        let amphora = self.any("SELECT id FROM amphora").await;
        match (self.chance(14), lb, pool, listener, amphora) {
            (0..3, ..) | (_, None, ..) => self.creates().await,
            (3, Some(lb), ..) if self.chance(3) == 0 => self.delete(&lb).await,
            (3 | 4, Some(lb), ..) => {
                let port = 80 + self.chance(3);
                let body = json!({"loadbalancer_id": lb, "protocol": "HTTP", "protocol_port": port});
                self.post("/v2/lbaas/listeners", "listener", body).await;
            }
            (5, Some(lb), ..) => {
                let body = json!({"loadbalancer_id": lb, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"});
                self.post("/v2/lbaas/pools", "pool", body).await;
            }
            (6 | 7, _, Some(pool), ..) => {
                let members = self.members();
                let path = format!("/v2/lbaas/pools/{pool}/members");
                self.ask(Method::PUT, &path, json!({"members": members})).await;
            }
            (8, _, Some(pool), ..) if self.chance(2) == 0 => {
                let body =
                    json!({"pool_id": pool, "type": "HTTP", "delay": 5, "timeout": 3, "max_retries": 3});
                self.post("/v2/lbaas/healthmonitors", "healthmonitor", body).await;
            }
            (8, _, Some(pool), ..) => {
                self.ask(Method::DELETE, &format!("/v2/lbaas/pools/{pool}"), Value::Null).await;
            }
            (9, _, pool, Some(listener), _) => {
                let path = format!("/v2/lbaas/listeners/{listener}");
                if self.chance(2) == 0 {
                    self.ask(Method::DELETE, &path, Value::Null).await;
                } else {
                    self.ask(Method::PUT, &path, json!({"listener": {"default_pool_id": pool}})).await;
                }
            }
            (10, Some(lb), ..) => self.fail_over(&lb).await,
            (11, .., Some(amphora)) => {
                self.ask(Method::PUT, &format!("/v2/octavia/amphorae/{amphora}/failover"), Value::Null).await;
            }
            (12, .., Some(amphora)) => {
                self.configure(&amphora).await;
            }
            (13, .., Some(amphora)) => {
                self.ask(Method::DELETE, &format!("/v2/octavia/amphorae/{amphora}"), Value::Null).await;
            }
            (_, Some(lb), ..) => {
                let up = self.chance(2) == 0;
                self.change(&lb, json!({"admin_state_up": up})).await;
            }
        }
    }

    async fn creates(&self) {
        let paired = self.chance(2) == 0;
        let more = match self.chance(2) {
            0 => json!({"listeners": [{
                "protocol": "HTTP", "protocol_port": 80,
                "default_pool": {"name": "pool", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": self.members()},
            }]}),
            _ => json!({}),
        };
        // What goes has its place until it is gone, which may be in between.
        let before = self.counted().await;
        match self.create(paired, more).await {
            Ok(_) => assert!(self.counted().await <= super::QUOTA, "given though the quota is met"),
            Err(status) => {
                assert_eq!(status, 403);
                assert!(before >= super::QUOTA, "refused though there is room");
            }
        }
    }

    /// All of them go, and no spares are wanted.
    pub(super) async fn end_all(&self) {
        self.state().spares = 0;
        for lb in self.column("SELECT id FROM load_balancer").await {
            self.delete(&lb).await;
        }
    }

    /// One may end meanwhile. Nobody asks for anything.
    pub(super) async fn who_is_well_stays_whatever_is_not_known(&self, context: &str) {
        self.state().unknown = 700;
        let struck = self.any("SELECT id FROM amphora").await.filter(|_| self.chance(2) == 0);
        let machines = self.state_of_machines().into_iter();
        let well: Vec<String> =
            machines.filter(|(_, one)| Some(&one.amphora) != struck.as_ref()).map(|(name, _)| name).collect();
        if let Some(struck) = &struck {
            self.strike(struck, false);
        }
        for _ in 0..3 {
            assert!(self.serve().await);
        }
        let there = self.state_of_machines();
        assert!(well.iter().all(|name| there.contains_key(name)), "one that was well is replaced: {context}");
        self.settle().await;
        self.check(context).await;
    }

    /// An amphora ends, hangs, is cut off, is not heard though it is well, or is not configured any more.
    pub(super) async fn befalls(&self) {
        let Some(amphora) = self.any("SELECT id FROM amphora").await else { return };
        match self.chance(8) {
            0 => self.strike(&amphora, false),
            1 => self.strike(&amphora, true),
            4 => self.cut(&amphora),
            2 => health_manager::replace(&self.db, vec![amphora]).await.unwrap(),
            3 => self.is_stubborn(&amphora).await,
            _ => {}
        }
    }
}
