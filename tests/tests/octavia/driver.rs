//! The real driver of Octavia 19.0.0 against the real programs: what it does with every kind of object, with traffic after each step.

use std::{fs, process::Command, time::Duration};

use amphora_tests::eventually;
use serde_json::{Value, json};

use crate::{
    controller::{CONFIG, Driver, LB, Lan, POOL, TCP, TLS, WEB, load_balancer, member, tcp, web},
    ground::{AMPHORA, Ground},
};

/// A machine whose VIP the driver has plugged.
pub(crate) async fn plugged() -> Option<(Ground, Driver, Lan)> {
    let (ground, mut driver, lan) = plugged_as("SINGLE").await?;
    assert_eq!(driver.does("interface", json!({"ip": "10.77.0.100"})), "eth1");
    Some((ground, driver, lan))
}

/// The same of an amphora of this topology: of a pair, the address is VRRP's.
async fn plugged_as(topology: &str) -> Option<(Ground, Driver, Lan)> {
    plugged_with(&CONFIG.replace("SINGLE", topology)).await
}

/// The same with this file of Octavia's.
pub(crate) async fn plugged_with(config: &str) -> Option<(Ground, Driver, Lan)> {
    plug(Ground::start(config).await?).await
}

/// The driver plugs the VIP's port into this machine.
pub(crate) async fn plug(ground: Ground) -> Option<(Ground, Driver, Lan)> {
    let mut driver = Driver::start(&ground)?;
    ground.hot_plug("lan1", "fa:16:3e:00:21:01");
    let lan = Lan::new(&ground).await;
    driver.does("plug_vip", json!({"mac": "fa:16:3e:00:21:01"}));
    // Again: a conflict, which the driver only warns of.
    driver.does("plug_vip", json!({"mac": "fa:16:3e:00:21:01"}));
    assert_eq!(driver.does("interface", json!({"ip": "10.77.0.101"})), "eth1");
    Some((ground, driver, lan))
}

#[tokio::test]
async fn objects_come_and_change_and_go() {
    let Some((ground, mut driver, lan)) = plugged().await else { return };
    let both = json!([member(1), member(2)]);
    let update = |driver: &mut Driver, lb: &Value| drop(driver.does("update", json!({ "lb": lb })));

    // A listener, a pool, members; one member less, and another that is new.
    update(&mut driver, &load_balancer(json!([web()]), both.clone()));
    assert_eq!(lan.members().await, "12");
    update(&mut driver, &load_balancer(json!([web()]), json!([member(2)])));
    assert_eq!(lan.members().await, "2");
    let mut weighted = both.clone();
    weighted[1]["weight"] = 0.into();
    update(&mut driver, &load_balancer(json!([web()]), weighted));
    assert_eq!(lan.members().await, "1");
    assert_eq!(driver.does("details", json!({}))["haproxy_count"], 1);

    // A monitor finds the third member dead, which nobody serves.
    let mut monitored = load_balancer(json!([web()]), json!([member(1), member(3)]));
    monitored["pools"][0]["healthmonitor"] = json!({
        "id": POOL, "type": "HTTP", "delay": 1, "timeout": 1, "fall_threshold": 1, "http_method": "GET",
        "url_path": "/", "expected_codes": "200",
    });
    update(&mut driver, &monitored);
    let client = ground.client();
    eventually("the third member is found dead", async || {
        let status =
            client.request("GET", &format!("/2.0/loadbalancers/{LB}/status"), None, b"").await.ok()?;
        status.text().contains("\"ERROR\"").then_some(())
    })
    .await;
    assert_eq!(lan.members().await, "1");

    // A policy, and none.
    let mut denied = load_balancer(json!([web()]), both.clone());
    denied["listeners"][0]["l7policies"] = json!([{
        "id": "88888888-8888-4888-8888-888888888888", "action": "REJECT", "position": 1,
        "rules": [{"id": "99999999-9999-4999-8999-999999999999", "type": "PATH", "compare_type": "STARTS_WITH", "value": "/no"}],
    }]);
    update(&mut driver, &denied);
    assert_eq!(lan.get(80, "/nothing").await.unwrap().0, 403);
    assert_eq!(lan.members().await, "12");
    update(&mut driver, &load_balancer(json!([web()]), both.clone()));
    assert_eq!(lan.get(80, "/nothing").await.unwrap().0, 200);

    // A second listener, and its end; the first serves on. Then the end of all.
    let two = load_balancer(json!([web(), tcp()]), both.clone());
    update(&mut driver, &two);
    assert_eq!(lan.get(8080, "/").await, Some((200, "1".to_owned())));
    assert_eq!(driver.does("listeners", json!({})).as_array().unwrap().len(), 2);
    driver.does("delete_listener", json!({"lb": two, "listener": TCP}));
    assert_eq!(lan.get(8080, "/").await, None);
    assert_eq!(lan.members().await, "12");
    let one = load_balancer(json!([web()]), both);
    driver.does("delete_listener", json!({"lb": one, "listener": WEB}));
    assert_eq!(lan.get(80, "/").await, None);
    assert_eq!(driver.does("listeners", json!({})), json!([]));
}

#[tokio::test]
async fn certificates_come_and_are_replaced_and_go() {
    let Some((ground, mut driver, lan)) = plugged().await else { return };
    ground.certificates.issue("shop", &["shop.example"]);
    let https = json!({
        "id": TLS, "protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_pool_id": POOL,
        "tls_certificate_id": ground.certificates.file("shop"),
    });
    let lb = load_balancer(json!([web(), https]), json!([member(1)]));
    driver.does("update", json!({ "lb": lb }));
    let (status, first) = lan.get_securely(443).await.unwrap();
    assert_eq!(status, 200);
    ground.certificates.issue("shop", &["shop.example"]);
    driver.does("update", json!({ "lb": lb }));
    let (_, second) = lan.get_securely(443).await.unwrap();
    assert_ne!(first, second);
    // The driver deletes the certificate first, and sends the text without the listener then.
    driver.does("delete_listener", json!({"lb": lb, "listener": TLS}));
    assert_eq!(lan.get_securely(443).await, None);
    assert_eq!(lan.members().await, "1");

    // The agent's own, by which the next connection knows it, and its configuration.
    ground.certificates.issue("next", &[AMPHORA]);
    driver.does("rotate", json!({"pem": ground.certificates.file("next")}));
    driver.does("details", json!({}));
    fs::write(ground.path("garbage"), "garbage").unwrap();
    assert_eq!(driver.is_refused("rotate", json!({"pem": ground.path("garbage")})), "InvalidRequest");
    driver.does("details", json!({}));
    let config = ground.translated(CONFIG);
    driver.does(
        "configure",
        json!({"text": config.replace("heartbeat_interval = 10", "heartbeat_interval = 3")}),
    );
    assert_eq!(driver.is_refused("configure", json!({"text": "not an ini"})), "InvalidRequest");
    assert!(fs::read_to_string(ground.path("octavia.conf")).unwrap().contains("heartbeat_interval = 3"));
}

#[tokio::test]
async fn traffic_goes_on_when_a_text_is_refused_and_the_agent_killed() {
    let Some((mut ground, mut driver, lan)) = plugged().await else { return };
    let before = load_balancer(json!([web()]), json!([member(1)]));
    driver.does("update", json!({ "lb": before }));
    let bad = json!({"lb": before, "text": "global\n    bogus directive\n"});
    assert_eq!(driver.is_refused("upload", bad), "InvalidRequest");
    assert_eq!(lan.members().await, "1");

    // Killed between the text and its reload: what ran runs on, whoever is there, and the text is taken up when it is asked for.
    let after = load_balancer(json!([web()]), json!([member(2)]));
    driver.does("upload", json!({ "lb": after }));
    ground.kill_agent();
    assert_eq!(lan.members().await, "1");
    ground.start_agent().await;
    assert_eq!(lan.members().await, "1");
    driver.does("reload", json!({ "lb": after }));
    assert_eq!(lan.members().await, "2");
}

#[tokio::test]
async fn a_load_balancer_that_is_stopped_keeps_its_address() {
    let Some((ground, mut driver, lan)) = plugged_as("ACTIVE_STANDBY").await else { return };
    let lb = load_balancer(json!([web()]), json!([member(1)]));
    driver.does("update", json!({ "lb": lb }));
    let vip = json!({"ip": "10.77.0.100"});
    assert_eq!(driver.is_refused("interface", vip.clone()), "NotFound", "the address is VRRP's");
    driver.does("start_vrrp", json!({}));
    eventually("it is master", async || (driver.ask("interface", vip.clone())["ok"] == "eth1").then_some(()))
        .await;
    eventually("the address answers", async || lan.get(80, "/").await).await;
    assert_eq!(lan.members().await, "1");

    driver.does("stop", json!({ "lb": lb }));
    assert_eq!(lan.get(80, "/").await, None);
    driver.does("reload_vrrp", json!({}));
    driver.does("reload", json!({ "lb": lb }));
    assert_eq!(lan.members().await, "1");
    let status = ground.client().request("GET", "/2.0/vrrp/status", None, b"").await.unwrap();
    let status: Value = serde_json::from_slice(&status.body).unwrap();
    let router = &status["instances"][0];
    assert_eq!(
        (&router["state"], &router["counters"]["became_master"]),
        (&json!("MASTER"), &json!(1)),
        "{router}"
    );

    driver.does("stop_vrrp", json!({}));
    assert_eq!(driver.is_refused("interface", vip), "NotFound");
}

#[tokio::test]
async fn neighbours_are_told_at_each_start_and_reload() {
    let Some((ground, mut driver, lan)) = plugged().await else { return };
    let lb = load_balancer(json!([web()]), json!([member(1)]));
    driver.does("update", json!({ "lb": lb }));
    assert_eq!(lan.members().await, "1");
    let client = ground.client();
    // As in a fail-over: another amphora, which goes, has answered for the address last.
    for done in ["reload", "start"] {
        let other = "02:00:00:00:00:99";
        ground.lan.ip(&["neigh", "replace", "10.77.0.100", "lladdr", other, "nud", "stale", "dev", "lan1"]);
        let path = format!("/1.0/loadbalancer/{LB}/{done}");
        let answer = client.request("PUT", &path, None, b"").await.unwrap();
        assert_eq!(answer.status(), 202, "{}", answer.text());
        let told = || {
            let there = Command::new("ip")
                .args(["-n", ground.lan.name(), "neigh", "show", "10.77.0.100"])
                .output()
                .unwrap();
            String::from_utf8(there.stdout).unwrap().contains("lladdr fa:16:3e:00:21:01")
        };
        eventually(done, async || told().then_some(())).await;
    }
    assert_eq!(lan.members().await, "1");
}

#[tokio::test]
async fn what_no_rule_lets_in_stays_out() {
    let Some((mut ground, mut driver, lan)) = plugged().await else { return };
    driver.does("update", json!({"lb": load_balancer(json!([web(), tcp()]), json!([member(1)]))}));
    assert_eq!((lan.members().await, lan.get(8080, "/").await.is_some()), ("1".to_owned(), true));
    let allow = |port: u16| json!({"rules": [{"protocol": "TCP", "cidr": "10.77.0.0/24", "port": port}]});
    let comes_in =
        async |port| tokio::time::timeout(Duration::from_secs(1), lan.get(port, "/")).await.is_ok();
    // In force from the first time on, which with Octavia's own agent they are not.
    driver.does("rules", allow(80));
    assert_eq!((comes_in(80).await, comes_in(8080).await), (true, false));
    let wrong = json!({"rules": [{"protocol": "TCP", "cidr": "10.77.0.0/24 accept", "port": 8080}]});
    assert_eq!(driver.is_refused("rules", wrong), "InvalidRequest");
    assert_eq!((comes_in(80).await, comes_in(8080).await), (true, false));
    driver.does("rules", allow(8080));
    assert_eq!((comes_in(80).await, comes_in(8080).await), (false, true));
    ground.kill_agent();
    ground
        .data_plane
        .run(|| async { assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success()) })
        .await;
    assert!(comes_in(80).await);
    ground.start_agent().await;
    assert_eq!((comes_in(80).await, comes_in(8080).await), (false, true), "as after a boot");
    driver.does("rules", json!({"rules": []}));
    assert!(!comes_in(8080).await);
}
