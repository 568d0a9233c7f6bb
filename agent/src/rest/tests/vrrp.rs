//! What requests do to VRRP, and what is left when they fail.

use hyper::{Method, Request, StatusCode};
use serde_json::json;

use super::*;
use crate::{
    store::{Kept, Store},
    testing::{TestAgent, VrrpMood},
};

const PATH: &str = "/2.0/vrrp";
const KEEPALIVED: &str = "vrrp_instance lb {\n  interface eth1\n}\n";

fn other(name: &str) -> String {
    VRRP.replace(r#""name": "lb""#, &format!(r#""name": "{name}""#))
}

fn stored(agent: &TestAgent) -> Option<String> {
    std::fs::read_to_string(agent.base.join("vrrp.conf")).ok()
}

pub(super) async fn put_as(agent: &TestAgent, kind: &str, body: &str) -> crate::testing::agent::Answer {
    let request = Request::put(PATH).header("host", "x").header("content-type", kind);
    agent.send(request.body(body.to_owned().into()).unwrap()).await
}

#[tokio::test]
async fn a_configuration_runs_is_stored_and_comes_back_as_it_was() {
    let agent = TestAgent::new().await;
    assert_eq!(agent.get(PATH).await.code(), (404, "vrrp_not_found".to_owned()));
    let answer = agent.put(PATH, VRRP).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.json()["changed"], true);
    assert_eq!(answer.json()["status"]["instances"][0]["state"], "BACKUP");
    assert_eq!(agent.daemon.configuration().unwrap(), VRRP);
    assert_eq!(stored(&agent).unwrap(), VRRP);
    let answer = agent.get(PATH).await;
    assert_eq!(
        (&answer.body[..], &answer.headers["content-type"]),
        (VRRP.as_bytes(), &"application/json".parse().unwrap())
    );
    assert_eq!(agent.put(PATH, VRRP).await.json()["changed"], false);

    let answer = put_as(&agent, "text/plain; charset=utf-8", KEEPALIVED).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let answer = agent.get(PATH).await;
    assert_eq!(answer.body, KEEPALIVED);
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
}

#[tokio::test]
async fn what_is_not_what_it_is_called_is_refused() {
    let agent = TestAgent::new().await;
    let answer = put_as(&agent, "application/json", KEEPALIVED).await;
    assert_eq!(answer.code(), (400, "invalid_document".to_owned()));
    assert_eq!(
        put_as(&agent, "application/yaml", VRRP).await.code(),
        (415, "unsupported_media_type".to_owned())
    );
    assert_eq!(agent.put(PATH, &"x".repeat(2 << 20)).await.code(), (413, "body_too_large".to_owned()));
    assert_eq!((agent.daemon.applications(), stored(&agent)), (0, None));
}

#[tokio::test]
async fn what_the_daemon_refuses_is_taken_back() {
    let agent = TestAgent::new().await;
    agent.daemon.be(VrrpMood::Refusing("faulty"));
    assert_eq!(agent.put(PATH, &other("faulty")).await.code(), (400, "invalid_document".to_owned()));
    assert_eq!(stored(&agent), None);
    agent.put(PATH, VRRP).await;
    let answer = agent.put(PATH, &other("faulty")).await;
    assert_eq!(answer.json()["faults"], json!([{"path": "instances[0].vrid", "reason": "has faulty"}]));
    assert_eq!(stored(&agent).unwrap(), VRRP);
    assert_eq!(agent.daemon.configuration().unwrap(), VRRP);
}

#[tokio::test]
async fn without_a_daemon_nothing_is_half_applied() {
    let mut agent = TestAgent::new().await;
    agent.put(PATH, VRRP).await;
    agent.daemon.stop();
    let unavailable = (503, "vrrp_unavailable".to_owned());
    assert_eq!(agent.put(PATH, &other("new")).await.code(), unavailable);
    assert_eq!(agent.get(PATH).await.body, VRRP);
    assert_eq!(agent.get("/2.0/vrrp/status").await.code(), unavailable);
    assert_eq!(agent.request(Method::POST, "/2.0/vrrp/stop", "").await.code(), unavailable);
    assert_eq!(agent.get("/2.0/info").await.json()["vrrp"], json!({"role": null, "instances": []}));
    let answer = agent.request(Method::DELETE, PATH, "").await;
    assert_eq!(answer.json(), json!({"changed": true, "status": null}));
    assert_eq!(agent.get("/2.0/vrrp/status").await.code(), (404, "vrrp_not_found".to_owned()));
}

#[tokio::test]
async fn a_disk_that_fails_changes_nothing() {
    let agent = TestAgent::new().await;
    agent.put(PATH, VRRP).await;
    std::fs::create_dir(agent.base.join("vrrp.conf.unfinished")).unwrap();
    assert_eq!(agent.put(PATH, &other("new")).await.code(), (500, "storage_failed".to_owned()));
    assert_eq!(agent.daemon.configuration().unwrap(), VRRP);
    let fault = agent.get("/2.0/health").await.json()["faults"][0].clone();
    assert_eq!(fault["path"], "storage");
}

#[tokio::test]
async fn a_daemon_that_breaks_off_is_brought_back_to_what_is_stored() {
    let agent = TestAgent::new().await;
    agent.put(PATH, VRRP).await;
    agent.daemon.be(VrrpMood::BreakingOff);
    assert_eq!(agent.put(PATH, &other("new")).await.code(), (504, "vrrp_timeout".to_owned()));
    assert_eq!(agent.daemon.configuration().unwrap(), other("new"), "it had taken it");
    agent.daemon.be(VrrpMood::Willing);
    agent.vrrp.reconcile().await.unwrap();
    assert_eq!(agent.daemon.configuration().unwrap(), VRRP);
}

#[tokio::test]
async fn a_daemon_that_runs_something_else_is_given_what_is_stored() {
    let mut agent = TestAgent::new().await;
    agent.put(PATH, VRRP).await;
    agent.vrrp.reconcile().await.unwrap();
    assert_eq!(agent.daemon.applications(), 1, "it is left alone while it runs that");
    agent.daemon.run(Some("other"));
    agent.vrrp.reconcile().await.unwrap();
    assert_eq!(agent.daemon.configuration().unwrap(), VRRP);
    agent.daemon.start();
    agent.vrrp.reconcile().await.unwrap();
    assert_eq!(agent.daemon.configuration().unwrap(), VRRP);
    agent.daemon.stop();
    assert!(agent.vrrp.reconcile().await.is_err());
}

#[tokio::test]
async fn an_agent_that_restarts_goes_on_with_what_is_stored_or_runs() {
    let mut agent = TestAgent::new().await;
    agent.put(PATH, VRRP).await;
    agent.daemon.start();
    agent.restarted_vrrp().reconcile().await.unwrap();
    assert_eq!(agent.daemon.configuration().unwrap(), VRRP);

    // The files were lost: the address must not be.
    Store::open(&agent.base).unwrap().remove(Kept::Vrrp).unwrap();
    let restarted = agent.restarted_vrrp();
    restarted.reconcile().await.unwrap();
    assert!(restarted.is_configured());
    assert_eq!(stored(&agent).unwrap(), VRRP);

    // Killed while it waited for the daemon, which refuses it now.
    agent.daemon.be(VrrpMood::Refusing("faulty"));
    let _ = Store::open(&agent.base).unwrap().stage(Kept::Vrrp, other("faulty").as_bytes()).unwrap();
    agent.restarted_vrrp().reconcile().await.unwrap();
    assert_eq!(stored(&agent).unwrap(), VRRP);
}

#[tokio::test]
async fn what_was_deleted_stays_deleted() {
    let agent = TestAgent::new().await;
    agent.put(PATH, VRRP).await;
    let answer = agent.request(Method::DELETE, PATH, "").await;
    assert_eq!(answer.json()["changed"], true);
    assert_eq!((agent.daemon.configuration(), stored(&agent)), (None, None));
    assert_eq!(agent.request(Method::DELETE, PATH, "").await.code(), (404, "vrrp_not_found".to_owned()));
    agent.daemon.run(Some(VRRP));
    agent.vrrp.reconcile().await.unwrap();
    assert_eq!(agent.daemon.configuration(), None);
}

#[tokio::test]
async fn the_daemon_does_what_it_is_told() {
    let agent = TestAgent::new().await;
    let post = async |action: &str| agent.request(Method::POST, &format!("{PATH}/{action}"), "").await;
    assert_eq!(post("stop").await.code(), (404, "vrrp_not_found".to_owned()));
    agent.put(PATH, VRRP).await;
    assert_eq!(post("stop").await.json()["started"], false);
    assert_eq!(post("start").await.json()["started"], true);
    let answer = post("hand-over").await;
    assert_eq!(answer.code(), (409, "vrrp_conflict".to_owned()));
    assert_eq!(answer.json()["message"], "no virtual router is master here");
    agent.daemon.set_status(|status| status.instances[0].state = "MASTER".to_owned());
    assert_eq!(agent.get("/2.0/info").await.json()["vrrp"]["role"], "MASTER");
    assert_eq!(post("hand-over").await.json()["instances"][0]["handed_over"], true);
    assert_eq!(post("resume").await.json()["instances"][0]["handed_over"], false);
    assert_eq!(agent.get("/2.0/vrrp/status").await.json()["pid"], std::process::id());
}

#[tokio::test]
async fn health_and_metrics_cover_the_daemon_when_there_should_be_one() {
    let mut agent = TestAgent::new().await;
    let text =
        async |agent: &TestAgent| String::from_utf8(agent.get("/metrics").await.body.to_vec()).unwrap();
    assert_eq!(agent.get("/2.0/info").await.json()["vrrp"], json!(null));
    agent.put(PATH, VRRP).await;
    assert_eq!(agent.get("/2.0/health").await.json(), json!({"status": "healthy"}));
    let metrics = text(&agent).await;
    assert!(metrics.starts_with("haproxy_process_x 1\namphora_vrrp_x 1\n"), "{metrics}");
    assert!(metrics.contains("\namphora_agent_vrrp_up 1\n"), "{metrics}");

    agent.daemon.set_status(|status| status.instances[0].error = Some("no address".to_owned()));
    let faults = agent.get("/2.0/health").await.json()["faults"].clone();
    assert_eq!(faults, json!([{"path": "vrrp", "reason": "lb: no address"}]));
    agent.daemon.stop();
    let fault = agent.get("/2.0/health").await.json()["faults"][0].clone();
    assert_eq!(fault["path"], "vrrp");
    assert!(fault["reason"].as_str().unwrap().starts_with("the VRRP daemon does not run: "), "{fault}");
    assert!(text(&agent).await.contains("\namphora_agent_vrrp_up 0\n"));

    agent.request(Method::DELETE, PATH, "").await;
    assert_eq!(agent.get("/2.0/health").await.json(), json!({"status": "healthy"}));
    assert!(!text(&agent).await.contains("amphora_agent_vrrp_up"));
}
