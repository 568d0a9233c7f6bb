//! Pairs under the driver's texts for VRRP, of two amphorae of ours and of one with one of Octavia's own: the VIP moves, and
//! traffic with it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use amphora_tests::{Certificates, Namespace, eventually};
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    controller::{CONFIG, Driver, Lan, Machine, exchange, load_balancer, member, web},
    ground::{AMPHORA, Ground, OTHER, hot_plug},
    reference::Reference,
};

#[derive(Clone, Copy, Debug)]
enum Kind {
    Ours,
    Octavias,
}

enum Programs {
    Ours(Box<Ground>),
    Octavias(Box<Reference>),
}

struct Amphora {
    programs: Programs,
    driver: Driver,
    /// The port of the switch that it is at.
    port: &'static str,
}

impl Amphora {
    async fn start(kind: Kind, first: bool, lan: &Namespace) -> Option<Self> {
        let config = CONFIG.replace("SINGLE", "ACTIVE_STANDBY");
        let (id, role, port, mac) = match first {
            true => (AMPHORA, "MASTER", "lan1", "fa:16:3e:00:21:01"),
            false => (OTHER, "BACKUP", "lan2", "fa:16:3e:00:21:02"),
        };
        let programs = match kind {
            Kind::Ours => Programs::Ours(Box::new(Ground::start_as(id, &config).await?)),
            Kind::Octavias => Programs::Octavias(Box::new(Reference::start_as(id, &config)?)),
        };
        let (management, certificates, base_path) = match &programs {
            Programs::Ours(it) => (&it.management, &it.certificates, it.path("state")),
            Programs::Octavias(it) => {
                (&it.management, &it.certificates, Path::new("/var/lib/octavia").into())
            }
        };
        let mut driver =
            Driver::start_for(&Machine { management, certificates, base_path: &base_path, role })?;
        eventually("its agent answers", async || driver.ask("details", json!({})).get("ok").map(drop)).await;
        hot_plug(management, lan, port, mac);
        lan.ip(&["link", "set", port, "master", "br0"]);
        driver.does("plug_vip", json!({ "mac": mac }));
        Some(Self { programs, driver, port })
    }

    fn has_vip(&mut self) -> bool {
        self.driver.ask("interface", json!({"ip": "10.77.0.100"}))["ok"] == "eth1"
    }

    /// It says nothing any more, and nothing reaches it.
    fn power_off(&mut self, lan: &Namespace) {
        lan.ip(&["link", "set", self.port, "down"]);
        match &mut self.programs {
            Programs::Ours(ground) => ground.power_off(),
            Programs::Octavias(reference) => reference.power_off(),
        }
    }
}

/// Clients that ask for something through the VIP, one after another, for as long as it lives.
#[derive(Default)]
struct Traffic {
    answered: AtomicU64,
    failed: AtomicU64,
    /// Milliseconds.
    longest_gap: AtomicU64,
}

impl Traffic {
    fn through_the_vip(lan: &Namespace) -> Arc<Self> {
        let (this, begun) = (Arc::<Self>::default(), Instant::now());
        let watched = Arc::downgrade(&this);
        drop(lan.spawn(move || async move {
            let mut last = begun;
            while let Some(this) = watched.upgrade() {
                let ask = async {
                    let mut stream = TcpStream::connect("10.77.0.100:80").await.ok()?;
                    exchange(&mut stream, "/").await.filter(|(status, _)| *status == 200)
                };
                match timeout(Duration::from_millis(200), ask).await {
                    Ok(Some(_)) => {
                        let gap = u64::try_from(last.elapsed().as_millis()).unwrap();
                        this.longest_gap.fetch_max(gap, Ordering::Relaxed);
                        this.answered.fetch_add(1, Ordering::Relaxed);
                        last = Instant::now();
                    }
                    _ => drop(this.failed.fetch_add(1, Ordering::Relaxed)),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }));
        this
    }

    /// Waits until this many more have been answered.
    async fn goes_on(&self, what: &str) {
        let before = self.answered.load(Ordering::Relaxed);
        let more = async || (self.answered.load(Ordering::Relaxed) >= before + 20).then_some(());
        eventually(&format!("traffic {what}"), more).await;
    }

    /// What has happened since this was asked last.
    fn told(&self) -> String {
        let [answered, failed, gap] =
            [&self.answered, &self.failed, &self.longest_gap].map(|it| it.swap(0, Ordering::Relaxed));
        format!("{answered} answered, {failed} failed, at the longest {gap} ms without an answer")
    }
}

/// The VIP is at the first of these, and not at the second.
async fn moves(what: &str, [to, from]: [&mut Amphora; 2]) {
    eventually(what, async || (to.has_vip() && !from.has_vip()).then_some(())).await;
}

/// Hand-overs to and fro, and the end of the master's machine.
async fn fails_over(first: Kind, second: Kind) {
    let Some(lan) = Namespace::create() else { return };
    lan.ip(&["link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"]);
    lan.ip(&["link", "set", "br0", "up"]);
    let Some(mut a) = Amphora::start(first, true, &lan).await else { return };
    let Some(mut b) = Amphora::start(second, false, &lan).await else { return };
    let clients = Lan::on(&lan, &Certificates::new(), "br0").await;
    // HAProxy wants two descriptors for each, and more than a container may have for what is usual.
    let mut listener = web();
    listener["connection_limit"] = 2000.into();
    let lb = load_balancer(json!([listener]), json!([member(1), member(2)]));
    for amphora in [&mut a, &mut b] {
        amphora.driver.does("update", json!({ "lb": lb }));
    }
    a.driver.does("start_vrrp", json!({}));
    eventually("the first is master", async || a.has_vip().then_some(())).await;
    b.driver.does("start_vrrp", json!({}));

    let traffic = Traffic::through_the_vip(&lan);
    traffic.goes_on("by the first").await;
    moves("the first stays master", [&mut a, &mut b]).await;
    traffic.told();

    let say = |what: &str| println!("{first:?} and {second:?}: {what}: {}", traffic.told());
    a.driver.does("stop_vrrp", json!({}));
    moves("the second takes over", [&mut b, &mut a]).await;
    traffic.goes_on("by the second").await;
    say("the first's VRRP is stopped");
    // The higher priority is back, and `nopreempt` keeps it from taking over.
    a.driver.does("start_vrrp", json!({}));
    traffic.goes_on("by the second still").await;
    moves("the second stays master", [&mut b, &mut a]).await;
    b.driver.does("stop_vrrp", json!({}));
    moves("the first takes over", [&mut a, &mut b]).await;
    traffic.goes_on("by the first again").await;
    say("the second's VRRP is stopped");
    b.driver.does("start_vrrp", json!({}));
    traffic.goes_on("with both").await;

    // A change of the load balancer reaches both; what one serves then, the other does, too.
    let changed = load_balancer(json!([listener]), json!([member(2)]));
    for amphora in [&mut a, &mut b] {
        amphora.driver.does("update", json!({ "lb": changed }));
    }
    traffic.goes_on("after the change").await;
    say("the driver changes both");
    a.power_off(&lan);
    eventually("the second takes over", async || b.has_vip().then_some(())).await;
    traffic.goes_on("by the second, after the first's end").await;
    say("the first's machine is off");
    assert_eq!(clients.members().await, "2");
}

#[tokio::test]
async fn two_of_ours_fail_over() {
    fails_over(Kind::Ours, Kind::Ours).await;
}

#[tokio::test]
async fn ours_is_followed_by_octavias_own() {
    fails_over(Kind::Ours, Kind::Octavias).await;
}

#[tokio::test]
async fn octavias_own_is_followed_by_ours() {
    fails_over(Kind::Octavias, Kind::Ours).await;
}
