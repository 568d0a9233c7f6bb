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
use serde_json::json;

use crate::{
    controller::{CONFIG, LB, POOL, TLS, load_balancer, member, web},
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
