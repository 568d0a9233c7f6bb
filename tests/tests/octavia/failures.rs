//! What fails while the driver works, and certificates that come anew while clients are served.

use std::{
    fs::{self, File},
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use amphora_tests::eventually;
use serde_json::{Value, json};

use crate::{
    controller::{CONFIG, LB, POOL, TLS, WEB, load_balancer, member, web},
    driver::{plug, plugged},
    ground::{AMPHORA, Ground},
};

/// Enough for an amphora that is small.
const DISK: u32 = 1 << 20;

#[tokio::test]
async fn what_runs_runs_on_when_the_disk_is_full() {
    let Some(ground) = Ground::start_with_disk(CONFIG, DISK).await else { return };
    let Some((mut ground, mut driver, lan)) = plug(ground).await else { return };
    ground.certificates.issue("shop", &["shop.example"]);
    let before = load_balancer(json!([web()]), json!([member(1)]));
    driver.does("update", json!({ "lb": before }));
    assert_eq!(lan.members().await, "1");

    let filler = ground.path("state/filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let https = json!({
        "id": TLS, "protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_pool_id": POOL,
        "tls_certificate_id": ground.certificates.file("shop"),
    });
    let after = load_balancer(json!([web(), https]), json!([member(2)]));
    // The text; and the load balancer that has a certificate, which comes before it.
    let plain = load_balancer(json!([web()]), json!([member(2)]));
    assert_eq!(driver.is_refused("update", json!({ "lb": plain })), "InternalServerError");
    driver.is_refused("start_vrrp", json!({}));
    let client = ground.client();
    let path = format!("/1.0/loadbalancer/{AMPHORA}/{LB}/haproxy");
    let text = client.request("GET", &format!("/1.0/loadbalancer/{LB}/haproxy"), None, b"").await.unwrap();
    let mut same = text.body.clone();
    same.extend_from_slice(b"\n\n");
    let refused = client.request("PUT", &path, Some("text/plain"), &same).await.unwrap();
    assert_eq!(refused.status(), 500);
    assert!(refused.text().contains("No space left on device"), "{}", refused.text());
    let health = client.request("GET", "/2.0/health", None, b"").await.unwrap();
    assert!(health.status() == 503 && health.text().contains("No space left on device"), "{}", health.text());
    assert_eq!(lan.members().await, "1");
    // Also after a restart of the agent, which finds a disk that is full.
    ground.kill_agent();
    ground.start_agent().await;
    assert_eq!(lan.members().await, "1");

    drop(file);
    fs::remove_file(filler).unwrap();
    driver.does("update", json!({ "lb": after }));
    assert_eq!(lan.members().await, "2");
    assert_eq!(lan.get_securely(443).await.unwrap().0, 200);
}

/// So they are in an amphora of Octavia's own, and who has failed to stop what a tenant has deleted leaves it open.
#[tokio::test]
async fn listeners_go_while_the_disk_is_full() {
    let Some(ground) = Ground::start_with_disk(CONFIG, DISK).await else { return };
    let Some((ground, mut driver, lan)) = plug(ground).await else { return };
    let udp = ["55555555-5555-4555-8555-555555555551", "55555555-5555-4555-8555-555555555552"];
    let mut lb = load_balancer(json!([web()]), json!([member(1)]));
    for (id, port) in udp.iter().zip([53, 54]) {
        let pool = id.replace('5', "6");
        let listener =
            json!({"id": id, "protocol": "UDP", "protocol_port": port, "default_pool_id": pool.clone()});
        lb["listeners"].as_array_mut().unwrap().push(listener);
        let member = json!({"id": id.replace('5', "8"), "address": "10.77.0.11", "protocol_port": 53});
        let pool = json!({"id": pool, "protocol": "UDP", "lb_algorithm": "ROUND_ROBIN", "members": [member]});
        lb["pools"].as_array_mut().unwrap().push(pool);
    }
    driver.does("update", json!({ "lb": lb }));
    assert_eq!(lan.members().await, "1");
    let mut file = File::create(ground.path("state/filler")).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}

    let actives = |driver: &mut crate::controller::Driver| {
        let listed = driver.does("listeners", json!({}));
        let active = listed.as_array().unwrap().iter().filter(|one| one["status"] == "ACTIVE");
        active.map(|one| one["uuid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    driver.does("delete_listener", json!({"lb": lb, "listener": udp[0]}));
    assert_eq!(actives(&mut driver), [WEB, udp[1]]);
    assert_eq!(lan.members().await, "1");
    driver.does("stop", json!({ "lb": lb }));
    assert_eq!(actives(&mut driver), [udp[1]]);
    driver.does("delete_listener", json!({"lb": lb, "listener": udp[1]}));
    assert_eq!(actives(&mut driver), [""; 0]);
    let health = ground.client().request("GET", "/2.0/health", None, b"").await.unwrap();
    assert!(health.status() == 503 && health.text().contains("KiB are free"), "{}", health.text());
}

#[tokio::test]
async fn what_only_the_proxy_finds_is_told_when_the_text_comes() {
    let Some((mut ground, mut driver, lan)) = plugged().await else { return };
    ground.certificates.issue("shop", &["shop.example"]);
    let https = json!({
        "id": TLS, "protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_pool_id": POOL,
        "tls_certificate_id": ground.certificates.file("shop"),
    });
    let lb = load_balancer(json!([web(), https]), json!([member(1)]));
    driver.does("update", json!({ "lb": lb }));
    let client = ground.client();
    let config = format!("/1.0/loadbalancer/{AMPHORA}/{LB}/haproxy");
    let kept = format!("/1.0/loadbalancer/{LB}/haproxy");
    let running = client.request("GET", &kept, None, b"").await.unwrap().text();

    // A rule that the driver sends like any other.
    let mut ruled = lb.clone();
    ruled["listeners"][0]["l7policies"] = json!([{
        "id": "88888888-8888-4888-8888-888888888888", "action": "REJECT", "position": 1,
        "rules": [{"id": "99999999-9999-4999-8999-999999999999", "type": "PATH", "compare_type": "REGEX", "value": "/a("}],
    }]);
    assert_eq!(driver.is_refused("update", json!({ "lb": ruled })), "InvalidRequest");

    // The text that runs with something else in it, and what is told of which line.
    let changed = |from: &str, to: &str| {
        let (number, line) = (1..).zip(running.lines()).find(|(_, line)| line.contains(from)).unwrap();
        let new = line.replace(from, to);
        let begins: String = new.trim().lines().next().unwrap().chars().take(80).collect();
        (running.replacen(line, &new, 1), format!("line {number}: {begins}"))
    };
    let rule = "99999999-9999-4999-8999-999999999999";
    let expression = |value: &str| {
        let rules = format!(
            "    acl {rule} path -m reg {value}\n    http-request deny if {rule}\n    default_backend"
        );
        changed("    default_backend", &rules)
    };
    let costly = "(([a-z]{1,200}){1,200}){1,200}";
    let files = format!("/1.0/loadbalancer/{LB}/certificates");
    let put = async |path: &str, body: &[u8]| {
        let answer = client.request("PUT", path, Some("text/plain"), body).await.unwrap();
        let told: Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status(), told["details"].as_str().unwrap_or_default().to_owned())
    };
    let authorities = fs::read(ground.certificates.file("ca")).unwrap();
    assert_eq!(put(&format!("{files}/ca.pem"), &authorities).await.0, 200);
    for ((text, place), reason) in [
        (changed(" no-sslv3", " ciphers AES128-SHA no-sslv3"), "tls_ciphers: none of these"),
        (expression("/a("), "value: not a valid regular expression"),
        (expression(costly), "value: "),
        (changed(" %ST", " %Tz"), "user_log_format: "),
    ] {
        let (status, told) = put(&config, text.as_bytes()).await;
        assert!(status == 400 && told.contains(&place) && told.contains(reason), "{place} {reason}: {told}");
    }
    // Nor does it have to be the text that is wrong.
    let (_, place) = changed("ssl crt-list", "ssl crt-list");
    for (list, reason) in [
        (format!("/x/{LB}/missing.pem\n"), "missing.pem, which is not there"),
        (format!("/x/{LB}/ca.pem\n"), "default_tls_container_ref: needs"),
        (format!("/x/{LB}/ca.pem [alpn h2] shop.example\n"), "line 1 has options or filters"),
    ] {
        assert_eq!(put(&format!("{files}/{TLS}.pem"), list.as_bytes()).await.0, 200);
        let (status, told) = put(&config, running.as_bytes()).await;
        assert!(status == 400 && told.contains(&place) && told.contains(reason), "{place} {reason}: {told}");
    }
    assert_eq!(client.request("GET", &kept, None, b"").await.unwrap().text(), running);
    assert_eq!((lan.members().await, lan.get_securely(443).await.unwrap().0), ("1".to_owned(), 200));
    ground.kill_agent();
    ground.start_agent().await;
    assert_eq!((lan.members().await, lan.get_securely(443).await.unwrap().0), ("1".to_owned(), 200));
}

#[tokio::test]
async fn certificates_are_replaced_while_clients_come() {
    let Some((ground, mut driver, lan)) = plugged().await else { return };
    ground.certificates.issue("shop", &["shop.example"]);
    let https = json!({
        "id": TLS, "protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_pool_id": POOL,
        "tls_certificate_id": ground.certificates.file("shop"),
    });
    let lb = load_balancer(json!([web(), https]), json!([member(1), member(2)]));
    driver.does("update", json!({ "lb": lb }));

    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (lan, stop) = (lan.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut answers = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    answers.push(lan.get_securely(443).await);
                }
                answers
            })
        })
        .collect();
    let mut shown = Vec::new();
    for _ in 0..5 {
        let (_, certificate) = lan.get_securely(443).await.unwrap();
        assert!(!shown.contains(&certificate), "each is a new one");
        shown.push(certificate);
        ground.certificates.issue("shop", &["shop.example"]);
        driver.does("update", json!({ "lb": lb }));
    }
    let last = lan.get_securely(443).await.unwrap().1;
    shown.push(last.clone());
    eventually("only the last is shown", async || {
        (lan.get_securely(443).await.unwrap().1 == last).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let mut served = 0;
    for client in clients {
        for answer in client.await.unwrap() {
            let (status, certificate) = answer.expect("no client is turned away");
            assert!(status == 200 && shown.contains(&certificate));
            served += 1;
        }
    }
    println!("{served} clients were served while five certificates were replaced");
    assert!(served >= 3);
}
