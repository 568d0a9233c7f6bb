//! The scenario of `serve`.

use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

use hyper::Method;
use serde_json::{Value, json};

use super::{
    super::{
        HEALTH_PATH,
        pair::{Hopes, Ledger, RATE, SOME, Steady},
        stage::Stage,
        steps::LIMIT,
    },
    HOST, MEMBERS, Served,
};
use crate::error::{Error, Result};

/// The load balancer that is made.
#[derive(Debug)]
struct Made {
    /// Of the API.
    path: String,
    id: String,
    pool: String,
    vip: SocketAddr,
}

impl Stage {
    /// Shows `serve`, where there are namespaces for it.
    ///
    /// # Errors
    /// What made going on pointless.
    pub(in crate::demo) async fn show_serve(&mut self) -> Result<()> {
        if self.topology().client_netns().is_none() {
            // It was said when that came to light.
            return Ok(());
        }
        self.board.step("start serve: Octavia's API and all behind it in one program, on an empty directory");
        let begin = Instant::now();
        let served = Served::start(self.topology(), &self.options.programs)?;
        let api = self.served.insert(served).api.clone();
        api.until(LIMIT, "/v2/lbaas/loadbalancers", |status, _| status == 200).await?;
        self.board.check(true, format!("its API answers after {:.2} s", begin.elapsed().as_secs_f64()));
        let made = self.make().await?;
        self.use_it(&made).await?;
        self.change_it(&made).await?;
        self.fail_over(&made).await?;
        self.lose_a_host(&made).await?;
        self.delete(&made).await?;
        self.linger().await?;
        if let Some(served) = &mut self.served {
            served.stop().await;
        }
        self.served = None;
        Ok(())
    }

    async fn make(&mut self) -> Result<Made> {
        self.board
            .step("POST /v2/lbaas/loadbalancers: listener, pool, two members and a monitor, ACTIVE_STANDBY");
        let api = self.served().api.clone();
        let subnets = api.change(Method::GET, "/v2.0/subnets", None).await?;
        let body = json!({"loadbalancer": {
            "name": "demo",
            "vip_subnet_id": subnets["subnets"][0]["id"],
            "listeners": [{"name": "web", "protocol": "HTTP", "protocol_port": 80, "default_pool": {
                "name": "web",
                "protocol": "HTTP",
                "lb_algorithm": "ROUND_ROBIN",
                "members": [member(0), member(1)],
                "healthmonitor": {"name": "web", "type": "HTTP", "delay": 1, "timeout": 1, "max_retries": 1, "url_path": HEALTH_PATH},
            }}],
        }});
        let begin = Instant::now();
        let answer = api.change(Method::POST, "/v2/lbaas/loadbalancers", Some(&body)).await?;
        let lb = &answer["loadbalancer"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let id = text(&lb["id"]);
        let vip = text(&lb["vip_address"]).parse().map_err(|e| Error::local("vip_address", e))?;
        let made = Made {
            path: format!("/v2/lbaas/loadbalancers/{id}"),
            id,
            pool: text(&lb["pools"][0]["id"]),
            vip: SocketAddr::new(vip, 80),
        };
        api.until(LIMIT, &made.path, is_active).await?;
        self.board.check(true, format!("ACTIVE after {:.2} s", begin.elapsed().as_secs_f64()));
        let amphorae = api.amphorae(&made.id).await?;
        let roles: BTreeSet<_> = amphorae.iter().filter_map(|one| one["role"].as_str()).collect();
        self.board.check(roles == BTreeSet::from(["BACKUP", "MASTER"]), "two amphorae, MASTER and BACKUP");
        self.board.note(format!("VIP {vip}; load balancer {}", made.id));
        Ok(made)
    }

    async fn use_it(&mut self, made: &Made) -> Result<()> {
        self.board.step(&format!("a client asks the VIP {RATE} times a second, on a connection each"));
        let netns = self.served().host.name().to_owned();
        let steady = Steady::start(made.vip, &netns, Ledger::default())?;
        self.served_mut().steady = Some(steady);
        let ledger = self.client_of_serve();
        self.more_of(&ledger, SOME).await?;
        ledger.next();
        self.seen("nothing happens", Hopes::NothingLost).await
    }

    async fn change_it(&mut self, made: &Made) -> Result<()> {
        self.board.step("PUT members: one goes, another comes, under load");
        let api = self.served().api.clone();
        let body = json!({"members": [member(1), member(2)]});
        let begin = Instant::now();
        api.change(Method::PUT, &format!("/v2/lbaas/pools/{}/members", made.pool), Some(&body)).await?;
        api.until(LIMIT, &made.path, is_active).await?;
        let ms = begin.elapsed().as_secs_f64() * 1e3;
        self.board.check(true, format!("ACTIVE after {ms:.0} ms"));
        self.seen("members changed", Hopes::NothingLost).await
    }

    async fn fail_over(&mut self, made: &Made) -> Result<()> {
        self.board.step("PUT failover: both amphorae are replaced, one after the other, under load");
        let api = self.served().api.clone();
        let before = ids(&api.amphorae(&made.id).await?);
        let begin = Instant::now();
        api.change(Method::PUT, &format!("{}/failover", made.path), None).await?;
        self.redundant(made, |now| now.is_disjoint(&before)).await?;
        self.board.check(true, format!("two others, ACTIVE after {:.1} s", begin.elapsed().as_secs_f64()));
        self.seen("planned failover", Hopes::NothingLost).await
    }

    async fn lose_a_host(&mut self, made: &Made) -> Result<()> {
        let api = self.served().api.clone();
        let amphorae = api.amphorae(&made.id).await?;
        let ports = api.change(Method::GET, "/v2.0/ports", None).await?;
        let mac = |amphora: &Value| {
            let ports = ports["ports"].as_array().into_iter().flatten();
            let own = ports.into_iter().find(|port| port["id"] == amphora["vrrp_port_id"]);
            own.and_then(|port| port["mac_address"].as_str()).unwrap_or_default().to_owned()
        };
        let vip = made.vip.ip().to_string();
        let mut master = None;
        for amphora in &amphorae {
            let mac = mac(amphora);
            if !mac.is_empty() && self.served().is_at(&vip, &mac)? {
                master = Some(amphora);
            }
        }
        let Some(master) = master else {
            return Err(Error::NotTrue(format!("no amphora has {vip}")));
        };
        self.board.step(
            "the amphora that has the VIP dies with its host: link gone, all its programs killed (SIGKILL)",
        );
        let before = ids(&amphorae);
        let begin = Instant::now();
        self.served().kill_host(master)?;
        self.redundant(made, |now| *now != before).await?;
        let text = format!("another is in its place, ACTIVE after {:.2} s", begin.elapsed().as_secs_f64());
        self.board.check(true, text);
        self.seen("host killed", Hopes::None).await
    }

    /// Waits until there are two amphorae, of which `found` is true, and all is ACTIVE.
    async fn redundant(&self, made: &Made, found: impl Fn(&BTreeSet<String>) -> bool) -> Result<()> {
        let api = self.served().api.clone();
        let path = format!("/v2/octavia/amphorae?loadbalancer_id={}", made.id);
        api.until(LIMIT, &path, |_, value| {
            let listed = value["amphorae"].as_array().cloned().unwrap_or_default();
            let ready = listed.iter().all(|one| one["status"] == "ALLOCATED" && one["role"].is_string());
            ready && listed.len() == 2 && found(&ids(&listed))
        })
        .await?;
        api.until(LIMIT, &made.path, is_active).await.map(drop)
    }

    async fn delete(&mut self, made: &Made) -> Result<()> {
        self.board.step("DELETE, with cascade");
        self.served_mut().steady = None;
        let api = self.served().api.clone();
        let begin = Instant::now();
        api.change(Method::DELETE, &format!("{}?cascade=true", made.path), None).await?;
        api.until(LIMIT, &made.path, |status, _| status == 404).await?;
        self.board.check(true, format!("gone after {:.2} s", begin.elapsed().as_secs_f64()));
        let amphorae = api.change(Method::GET, "/v2/octavia/amphorae", None).await?;
        let left = amphorae["amphorae"].as_array().map_or(0, Vec::len);
        let (links, files) = (self.served().links()?.len(), self.served().machines());
        let processes = super::processes_of(&self.served().dir.join("amphorae").display().to_string()).len();
        self.board.check(
            left + links + files + processes == 0,
            format!("left: {left} amphorae, {links} links, {files} directories, {processes} processes"),
        );
        Ok(())
    }

    /// What the client has noticed.
    async fn seen(&mut self, what: &'static str, hopes: Hopes) -> Result<()> {
        let ledger = self.client_of_serve();
        let seen = self.close_window(&ledger).await?;
        self.judge(hopes, what, &seen);
        Ok(())
    }

    fn client_of_serve(&self) -> Ledger {
        self.served().steady.as_ref().expect("use_it started it").ledger().clone()
    }

    fn served(&self) -> &Served {
        self.served.as_ref().expect("show_serve started it")
    }

    fn served_mut(&mut self) -> &mut Served {
        self.served.as_mut().expect("show_serve started it")
    }
}

fn member(n: usize) -> Value {
    let (name, port) = MEMBERS[n];
    json!({"name": name, "address": std::net::IpAddr::from(HOST), "protocol_port": port})
}

fn ids(amphorae: &[Value]) -> BTreeSet<String> {
    amphorae.iter().filter_map(|one| one["id"].as_str().map(str::to_owned)).collect()
}

fn is_active(status: u16, value: &Value) -> bool {
    status == 200 && value["loadbalancer"]["provisioning_status"] == "ACTIVE"
}
