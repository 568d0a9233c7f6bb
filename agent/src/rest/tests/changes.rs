//! What requests do to the load balancer, and what is left when they fail.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::testing::{Mood, TestAgent, eventually};

#[tokio::test]
async fn a_put_document_runs_is_stored_and_comes_back_as_it_was() {
    let agent = TestAgent::new().await;
    let answer = agent.put(&lb(), DOCUMENT).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.json(), json!({"generation": 1, "changed": true}));
    assert_eq!(agent.proxy.document().unwrap(), DOCUMENT);
    assert_eq!(std::fs::read_to_string(agent.base.join("loadbalancer.json")).unwrap(), DOCUMENT);
    assert_eq!(agent.get(&lb()).await.body, DOCUMENT);
    let again = agent.put(&lb(), DOCUMENT).await;
    assert_eq!(again.json(), json!({"generation": 1, "changed": false}));
}

#[tokio::test]
async fn a_document_is_refused_before_anything_is_touched() {
    let agent = TestAgent::new().await;
    let answer = agent.put(&lb(), "{").await;
    assert_eq!(answer.code(), (400, "invalid_document".to_owned()));
    assert!(answer.json()["faults"][0]["reason"].is_string());
    let answer = agent.put(&format!("/2.0/loadbalancers/{OTHER_ID}"), DOCUMENT).await;
    assert_eq!(answer.code(), (400, "invalid_document".to_owned()));
    assert_eq!(answer.json()["faults"][0]["path"], "loadbalancer.id");
    assert_eq!(agent.proxy.applications(), 0);
    assert_eq!(agent.get(&lb()).await.code(), (404, "loadbalancer_not_found".to_owned()));
}

#[tokio::test]
async fn a_document_whose_heartbeats_fit_no_datagram_is_refused_where_heartbeats_are_sent() {
    let mut agent = TestAgent::new().await;
    let mut document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
    let members = (0..6_000u16).map(|n| {
        let scattered = u128::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        json!({"id": uuid::Uuid::from_u128(scattered), "address": "192.0.2.1", "protocol_port": n + 1})
    });
    document["loadbalancer"]["listeners"][0]["default_pool"]["members"] = members.collect();
    let document = document.to_string();
    agent.amphora.must_fit_heartbeats(true);
    let answer = agent.put(&lb(), &document).await;
    assert_eq!(answer.code(), (400, "invalid_document".to_owned()));
    assert_eq!(answer.json()["faults"][0]["path"], "loadbalancer.pools");
    assert_eq!(agent.proxy.applications(), 0);
    agent.amphora.must_fit_heartbeats(false);
    assert_eq!(agent.put(&lb(), &document).await.status, StatusCode::OK);
    agent.stop().await;
}

#[tokio::test]
async fn an_amphora_carries_one_load_balancer() {
    let agent = TestAgent::new().await;
    agent.put(&lb(), DOCUMENT).await;
    let other = DOCUMENT.replace(ID, OTHER_ID);
    let answer = agent.put(&format!("/2.0/loadbalancers/{OTHER_ID}"), &other).await;
    assert_eq!(answer.code(), (409, "loadbalancer_exists".to_owned()));
    let said = format!(
        "this amphora carries load balancer {ID}, and one at a time: remove that first (amphora-controller delete {ID})"
    );
    assert_eq!(answer.json()["message"], said);
    assert_eq!(agent.proxy.document().unwrap(), DOCUMENT);
}

#[tokio::test]
async fn what_the_proxy_refuses_is_taken_back() {
    let agent = TestAgent::new().await;
    agent.put(&lb(), DOCUMENT).await;
    for (status, code) in [(StatusCode::BAD_REQUEST, "invalid_document"), (StatusCode::CONFLICT, "conflict")]
    {
        agent.proxy.be(Mood::Refusing("faulty", status));
        let answer = agent.put(&lb(), &named("faulty")).await;
        assert_eq!(answer.code(), (status.as_u16(), code.to_owned()));
        assert_eq!(answer.json()["faults"], json!([{"path": "loadbalancer.name", "reason": "has faulty"}]));
        assert_eq!(agent.get(&lb()).await.body, DOCUMENT);
        assert_eq!(agent.proxy.document().unwrap(), DOCUMENT);
    }
}

#[tokio::test]
async fn without_a_proxy_nothing_is_half_applied() {
    let mut agent = TestAgent::new().await;
    agent.put(&lb(), DOCUMENT).await;
    agent.proxy.stop();
    assert_eq!(agent.put(&lb(), &named("new")).await.code(), (503, "proxy_unavailable".to_owned()));
    assert_eq!(agent.get(&lb()).await.body, DOCUMENT);
    assert_eq!(agent.get(&format!("{}/status", lb())).await.code(), (503, "proxy_unavailable".to_owned()));
    assert_eq!(agent.get("/2.0/health").await.code(), (503, "unhealthy".to_owned()));
    let info = agent.get("/2.0/info").await.json();
    assert_eq!((&info["proxy"], &info["loadbalancer"]), (&json!(null), &json!(ID)));
}

#[tokio::test]
async fn a_proxy_that_is_about_to_end_takes_nothing() {
    let agent = TestAgent::new().await;
    agent.put(&lb(), DOCUMENT).await;
    agent.proxy.be(Mood::Refusing("new", StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(agent.put(&lb(), &named("new")).await.code(), (503, "proxy_unavailable".to_owned()));
    assert_eq!(agent.get(&lb()).await.body, DOCUMENT);
}

#[tokio::test]
async fn a_proxy_that_breaks_off_is_brought_back_to_what_is_stored() {
    let agent = TestAgent::new().await;
    agent.put(&lb(), DOCUMENT).await;
    agent.amphora.reconcile().await.unwrap();
    agent.proxy.be(Mood::BreakingOff);
    assert_eq!(agent.put(&lb(), &named("new")).await.code(), (504, "proxy_timeout".to_owned()));
    assert_eq!(agent.proxy.document().unwrap(), named("new"), "it had taken it");
    agent.proxy.be(Mood::Willing);
    agent.amphora.reconcile().await.unwrap();
    assert_eq!(agent.proxy.document().unwrap(), DOCUMENT);
}

#[tokio::test]
async fn what_comes_about_late_or_by_somebody_else_is_found_out() {
    let agent = TestAgent::new().await;
    agent.put(&lb(), DOCUMENT).await;
    agent.amphora.reconcile().await.unwrap();
    agent.proxy.be(Mood::BreakingOff);
    assert_eq!(agent.put(&lb(), &named("new")).await.code(), (504, "proxy_timeout".to_owned()));
    agent.proxy.be(Mood::Willing);
    agent.amphora.reconcile().await.unwrap();
    // It had only been slow; or another changes it.
    for document in [Some(named("new")), Some(named("other")), None] {
        agent.proxy.run(document.as_deref());
        agent.amphora.reconcile().await.unwrap();
        assert_eq!(agent.proxy.document().unwrap(), DOCUMENT);
        assert_eq!(agent.get(&lb()).await.body, DOCUMENT);
    }
    // What the agent changes itself is nothing to find out about.
    agent.put(&lb(), &named("mine")).await;
    let applications = agent.proxy.applications();
    agent.amphora.reconcile().await.unwrap();
    assert_eq!(agent.proxy.applications(), applications);
}

#[tokio::test]
async fn a_change_goes_on_when_its_request_is_gone() {
    let agent = TestAgent::new().await;
    agent.proxy.be(Mood::Hanging);
    let mut stream = agent.connect().await;
    let head = format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", lb(), DOCUMENT.len());
    stream.write_all(format!("{head}{DOCUMENT}").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let stored = agent.base.join("loadbalancer.json");
    eventually("the document is staged", async || stored.exists()).await;
    drop(stream);
    eventually("the request is gone", async || agent.get("/2.0").await.status == StatusCode::OK).await;
    agent.proxy.be(Mood::Willing);
    eventually("the change is made", async || agent.proxy.document().is_some()).await;
    agent.amphora.quiesce(Duration::from_secs(5)).await;
    assert_eq!(agent.get(&lb()).await.body, DOCUMENT);
}

#[tokio::test]
async fn delete_stops_and_forgets() {
    let mut agent = TestAgent::new().await;
    assert_eq!(
        agent.request(Method::DELETE, &lb(), "").await.code(),
        (404, "loadbalancer_not_found".to_owned())
    );
    agent.put(&lb(), DOCUMENT).await;
    agent.put(&lb(), &named("new")).await;
    assert_eq!(
        agent.request(Method::DELETE, &lb(), "").await.json(),
        json!({"generation": 3, "changed": true})
    );
    assert_eq!(agent.proxy.document(), None);
    assert_eq!(std::fs::read_dir(&agent.base).unwrap().count(), 0);
    agent.put(&lb(), DOCUMENT).await;
    agent.proxy.stop();
    assert_eq!(
        agent.request(Method::DELETE, &lb(), "").await.json(),
        json!({"generation": 0, "changed": true})
    );
    // It read the document at the last moment; it does not keep it.
    agent.proxy.start();
    agent.proxy.run(Some(DOCUMENT));
    agent.amphora.reconcile().await.unwrap();
    assert_eq!(agent.proxy.document(), None);
}

#[tokio::test]
async fn a_member_changes_alone() {
    let agent = TestAgent::new().await;
    let change = r#"{"member": {"weight": 7}}"#;
    assert_eq!(
        agent.put(&member(POOL, MEMBER), change).await.code(),
        (404, "loadbalancer_not_found".to_owned())
    );
    agent.put(&lb(), DOCUMENT).await;
    assert_eq!(
        agent.put(&member(POOL, MEMBER), change).await.json(),
        json!({"generation": 2, "changed": true})
    );
    let stored = crate::document::parse(&agent.get(&lb()).await.body).unwrap();
    let weights: Vec<_> = stored.pools[0].members.iter().map(|m| (m.weight, m.admin_state_up)).collect();
    assert_eq!(weights, [(7, true), (1, true)]);
    let answer = agent.put(&member(POOL, MEMBER), r#"{"member": {"admin_state_up": false}}"#).await;
    assert_eq!(answer.status, StatusCode::OK);
    let stored = crate::document::parse(&agent.get(&lb()).await.body).unwrap();
    assert!(!stored.pools[0].members[0].admin_state_up);
    assert_eq!(agent.put(&member(POOL, POOL), change).await.code(), (404, "member_not_found".to_owned()));
    assert_eq!(agent.put(&member(MEMBER, MEMBER), change).await.code(), (404, "member_not_found".to_owned()));
    let answer = agent.put(&member(POOL, MEMBER), r#"{"member": {"address": "10.0.0.1"}}"#).await;
    assert_eq!(answer.code(), (400, "invalid_document".to_owned()));
    assert_eq!(answer.json()["faults"][0]["path"], "member.address");
}

#[tokio::test]
async fn changes_at_once_come_one_after_another() {
    let agent = TestAgent::new().await;
    let names: Vec<_> = (0..8).map(|i| named(&format!("n{i}"))).collect();
    let path = lb();
    let (a, b, c, d) = tokio::join!(
        agent.put(&path, &names[0]),
        agent.put(&path, &names[1]),
        agent.put(&path, &names[2]),
        agent.put(&path, &names[3])
    );
    for answer in [a, b, c, d] {
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert_eq!(agent.proxy.document().unwrap(), agent.get(&lb()).await.body, "what runs is what is stored");
    assert_eq!(agent.proxy.applications(), 4);
}

#[tokio::test]
async fn a_restarted_proxy_is_given_what_is_stored() {
    let mut agent = TestAgent::new().await;
    agent.put(&lb(), DOCUMENT).await;
    agent.proxy.start();
    assert_eq!(agent.proxy.document(), None);
    agent.amphora.reconcile().await.unwrap();
    assert_eq!(agent.proxy.document().unwrap(), DOCUMENT);
    let applications = agent.proxy.applications();
    agent.amphora.reconcile().await.unwrap();
    assert_eq!(agent.proxy.applications(), applications, "once is enough");
}

#[tokio::test]
async fn a_restarted_agent_finds_everything_as_it_was() {
    let agent = TestAgent::new().await;
    agent.put(&lb(), DOCUMENT).await;
    let restarted = agent.restarted();
    assert_eq!(restarted.model().unwrap().id.to_string(), ID);
    restarted.reconcile().await.unwrap();
    assert_eq!(agent.proxy.document().unwrap(), DOCUMENT);
}

#[tokio::test]
async fn a_restarted_agent_falls_back_from_a_document_that_was_never_taken() {
    let agent = TestAgent::new().await;
    agent.put(&lb(), DOCUMENT).await;
    // Killed after the document was written and before the proxy was asked.
    let store = crate::store::Store::open(&agent.base).unwrap();
    let _ = store.stage(crate::store::Kept::LoadBalancer, named("faulty").as_bytes()).unwrap();
    agent.proxy.be(Mood::Refusing("faulty", StatusCode::BAD_REQUEST));
    let restarted = agent.restarted();
    assert_eq!(restarted.model().unwrap().name, "faulty");
    restarted.reconcile().await.unwrap();
    assert_eq!(restarted.model().unwrap().name, "lb");
    assert_eq!(agent.proxy.document().unwrap(), DOCUMENT);
    assert_eq!(std::fs::read_to_string(agent.base.join("loadbalancer.json")).unwrap(), DOCUMENT);
}

#[tokio::test]
async fn a_document_that_cannot_be_honoured_for_the_moment_is_tried_again() {
    let mut agent = TestAgent::new().await;
    agent.put(&lb(), &named("older")).await;
    agent.put(&lb(), DOCUMENT).await;
    agent.proxy.start();
    agent.proxy.be(Mood::Refusing("lb", StatusCode::CONFLICT));
    assert!(agent.amphora.reconcile().await.is_err());
    agent.proxy.be(Mood::Willing);
    agent.amphora.reconcile().await.unwrap();
    assert_eq!(agent.proxy.document().unwrap(), DOCUMENT);
}

#[tokio::test]
async fn lost_files_do_not_stop_traffic() {
    let agent = TestAgent::new().await;
    agent.proxy.run(Some(DOCUMENT));
    let restarted = agent.restarted();
    restarted.reconcile().await.unwrap();
    assert_eq!(agent.proxy.document().unwrap(), DOCUMENT);
    assert_eq!(restarted.model().unwrap().id.to_string(), ID);
    assert_eq!(std::fs::read_to_string(agent.base.join("loadbalancer.json")).unwrap(), DOCUMENT);
}

#[tokio::test]
async fn a_damaged_document_gives_way_to_the_one_before() {
    let agent = TestAgent::new().await;
    agent.put(&lb(), DOCUMENT).await;
    agent.put(&lb(), &named("new")).await;
    std::fs::write(agent.base.join("loadbalancer.json"), "{").unwrap();
    let restarted = agent.restarted();
    assert_eq!(restarted.model().unwrap().name, "lb");
    assert_eq!(std::fs::read_to_string(agent.base.join("loadbalancer.json")).unwrap(), DOCUMENT);
}

#[tokio::test]
async fn what_ran_before_can_be_recovered_after_a_refusal_too() {
    let agent = TestAgent::new().await;
    agent.put(&lb(), &named("older")).await;
    agent.put(&lb(), DOCUMENT).await;
    agent.proxy.be(Mood::Refusing("faulty", StatusCode::BAD_REQUEST));
    assert_eq!(agent.put(&lb(), &named("faulty")).await.code(), (400, "invalid_document".to_owned()));
    assert_eq!(std::fs::read_to_string(agent.base.join("loadbalancer.json")).unwrap(), DOCUMENT);
    let previous = std::fs::read_to_string(agent.base.join("loadbalancer.previous.json")).unwrap();
    assert_eq!(previous, named("older"));
}

#[tokio::test]
async fn a_disk_that_fails_changes_nothing() {
    let agent = TestAgent::new().await;
    agent.put(&lb(), DOCUMENT).await;
    std::fs::create_dir(agent.base.join("loadbalancer.json.unfinished")).unwrap();
    assert_eq!(agent.put(&lb(), &named("new")).await.code(), (500, "storage_failed".to_owned()));
    assert_eq!(agent.get(&lb()).await.body, DOCUMENT);
    assert_eq!(agent.proxy.document().unwrap(), DOCUMENT);
    for _ in 0..2 {
        let health = agent.get("/2.0/health").await;
        assert_eq!(health.code(), (503, "unhealthy".to_owned()));
        let fault = &health.json()["faults"][0];
        assert_eq!(fault["path"], "storage");
        assert!(fault["reason"].as_str().unwrap().starts_with("cannot write loadbalancer.json: "), "{fault}");
    }
    std::fs::remove_dir(agent.base.join("loadbalancer.json.unfinished")).unwrap();
    assert_eq!(agent.get("/2.0/health").await.json(), json!({"status": "healthy"}));
}

#[tokio::test]
async fn status_and_statistics_have_octavias_shape() {
    let agent = TestAgent::new().await;
    agent.put(&lb(), DOCUMENT).await;
    agent.proxy.set_stats(|stats| {
        *stats = crate::fixture::stats();
        let listener = stats.listeners.values_mut().next().unwrap();
        (listener.bytes_in, listener.bytes_out, listener.active_connections) = (1, 2, 3);
        (listener.total_connections, listener.request_errors) = (4, 5);
    });
    let status = agent.get(&format!("{}/status", lb())).await.json();
    assert_eq!(status["statuses"]["loadbalancer"]["operating_status"], "ONLINE");
    assert_eq!(status.as_object().unwrap().len(), 1);
    let remark = json!({"path": "loadbalancer.listeners[x].tls_ciphers", "text": "DES is not offered"});
    // What there is to tell of members a proxy of another age may not know.
    let member =
        |status: &serde_json::Value| status["statuses"]["loadbalancer"]["pools"][0]["members"][0].clone();
    assert!(member(&status).get("amphora").is_none(), "{status:#}");
    let ids = |pointer: &str| status["statuses"]["loadbalancer"].pointer(pointer).unwrap().as_str().unwrap();
    let (pool, id) = (ids("/pools/0/id"), ids("/pools/0/members/0/id"));
    let failure =
        json!({ "at": "2026-11-30T02:00:00.0Z", "times": 2, "what": "connect: Connection refused" });
    let members = json!({ "pools": { pool: { id: { "failures": [failure] } } } });
    agent.proxy.tell_of(serde_json::from_value(members).unwrap());
    let told = agent.get(&format!("{}/status", lb())).await.json();
    assert_eq!(member(&told)["amphora"], json!({ "failures": [failure] }));
    agent.proxy.remark(serde_json::from_value(json!([remark])).unwrap());
    let remarked = agent.get(&format!("{}/status", lb())).await.json();
    assert_eq!(remarked["remarks"], json!([remark]));
    assert_eq!(remarked["statuses"], told["statuses"]);
    let stats = agent.get(&format!("{}/stats", lb())).await.json();
    assert_eq!(
        stats["stats"],
        json!({"bytes_in": 1, "bytes_out": 2, "active_connections": 3, "total_connections": 4, "request_errors": 5})
    );
    assert_eq!(stats["pools"][POOL]["members"][MEMBER]["check"], "no check");
    for part in ["status", "stats"] {
        let answer = agent.get(&format!("/2.0/loadbalancers/{OTHER_ID}/{part}")).await;
        assert_eq!(answer.code(), (404, "loadbalancer_not_found".to_owned()));
    }
}

#[tokio::test]
async fn health_and_metrics_cover_the_proxy() {
    let agent = TestAgent::new().await;
    assert_eq!(agent.get("/2.0/health").await.json(), json!({"status": "healthy"}));
    agent.proxy.run(Some(DOCUMENT));
    let answer = agent.get("/2.0/health").await;
    assert_eq!(answer.json()["faults"][0]["path"], "loadbalancer");
    let text = String::from_utf8(agent.get("/metrics").await.body.to_vec()).unwrap();
    assert!(text.starts_with("haproxy_process_x 1\n"), "{text}");
    assert!(text.contains("\namphora_agent_proxy_up 1\n"), "{text}");
    assert_eq!(agent.request(Method::HEAD, "/metrics", "").await.body.len(), 0);
}
