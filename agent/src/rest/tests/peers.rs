//! What requests do to the peers of session persistence, and what is left when they fail.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use hyper::{Method, StatusCode};
use serde_json::json;

use super::*;
use crate::{
    store::{Kept, Store},
    testing::{Mood, TestAgent, eventually},
};

const PATH: &str = "/2.0/peers";
const KEY: &str = "0123456789abcdef";

fn other(key: &str) -> String {
    PEERS.replace(KEY, key)
}

fn stored(agent: &TestAgent) -> Option<String> {
    std::fs::read_to_string(agent.base.join("peers.json")).ok()
}

async fn delete(agent: &TestAgent) -> crate::testing::agent::Answer {
    agent.request(Method::DELETE, PATH, "").await
}

#[tokio::test]
async fn the_other_amphora_is_named_and_stored_and_the_key_never_told() {
    let agent = TestAgent::new().await;
    assert_eq!(agent.get(PATH).await.json()["state"], "OFF");
    let answer = agent.put(PATH, PEERS).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let json = answer.json();
    assert_eq!((&json["changed"], &json["status"]["peer"]), (&json!(true), &json!("192.0.2.2:1025")));
    let told = [answer.body, agent.get(PATH).await.body, agent.put(PATH, PEERS).await.body];
    assert!(told.iter().all(|body| !String::from_utf8_lossy(body).contains(KEY)), "{told:?}");
    assert_eq!(agent.proxy.peers().unwrap(), PEERS);
    assert_eq!(stored(&agent).unwrap(), PEERS);
    assert_eq!(agent.put(PATH, PEERS).await.json()["changed"], false);

    // Nobody but this user reads a key, be it of now or of before.
    assert_eq!(agent.put(PATH, &other("another key, longer")).await.json()["changed"], true);
    for name in ["peers.json", "peers.previous.json"] {
        let mode = std::fs::metadata(agent.base.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn faults_are_told_by_their_paths_and_change_nothing() {
    let agent = TestAgent::new().await;
    let answer = agent.put(PATH, &PEERS.replace("192.0.2.2:1025", "nowhere").replace(KEY, "short")).await;
    assert_eq!(answer.code(), (400, "invalid_document".to_owned()));
    let paths: Vec<_> =
        answer.json()["faults"].as_array().unwrap().iter().map(|f| f["path"].clone()).collect();
    assert_eq!(paths, [json!("peers.peer"), json!("peers.key")]);
    assert_eq!(agent.put(PATH, &"x".repeat(20 << 10)).await.code(), (413, "body_too_large".to_owned()));
    assert_eq!((agent.proxy.peers(), stored(&agent)), (None, None));

    // Only the proxy can tell that the address is not there yet.
    agent.proxy.be(Mood::Refusing("192.0.2.1", StatusCode::CONFLICT));
    let answer = agent.put(PATH, PEERS).await;
    assert_eq!(answer.code(), (409, "conflict".to_owned()));
    assert_eq!(answer.json()["faults"][0]["path"], "peers.listen");
    assert_eq!((agent.proxy.peers(), stored(&agent)), (None, None));
}

#[tokio::test]
async fn without_a_proxy_nothing_is_half_applied() {
    let mut agent = TestAgent::new().await;
    agent.put(PATH, PEERS).await;
    agent.proxy.stop();
    let unavailable = (503, "proxy_unavailable".to_owned());
    assert_eq!(agent.put(PATH, &other("another key, longer")).await.code(), unavailable);
    assert_eq!(agent.get(PATH).await.code(), unavailable);
    assert_eq!(stored(&agent).unwrap(), PEERS);
    assert_eq!(delete(&agent).await.json(), json!({"changed": true, "status": null}));
    assert_eq!(stored(&agent), None);
}

#[tokio::test]
async fn a_disk_that_fails_changes_nothing() {
    let agent = TestAgent::new().await;
    agent.put(PATH, PEERS).await;
    std::fs::create_dir(agent.base.join("peers.json.unfinished")).unwrap();
    let answer = agent.put(PATH, &other("another key, longer")).await;
    assert_eq!(answer.code(), (500, "storage_failed".to_owned()));
    assert_eq!(agent.proxy.peers().unwrap(), PEERS);
    assert_eq!(stored(&agent).unwrap(), PEERS);
}

#[tokio::test]
async fn a_proxy_that_breaks_off_is_brought_back_to_what_is_stored() {
    let agent = TestAgent::new().await;
    agent.proxy.be(Mood::BreakingOff);
    assert_eq!(agent.put(PATH, PEERS).await.code(), (504, "proxy_timeout".to_owned()));
    assert_eq!(agent.proxy.peers().unwrap(), PEERS, "it had taken it");
    agent.proxy.be(Mood::Willing);
    agent.peers.reconcile().await.unwrap();
    assert_eq!((agent.proxy.peers(), stored(&agent)), (None, None));
    agent.put(PATH, PEERS).await;
    agent.proxy.be(Mood::BreakingOff);
    agent.put(PATH, &other("another key, longer")).await;
    agent.proxy.be(Mood::Willing);
    agent.peers.reconcile().await.unwrap();
    assert_eq!(agent.proxy.peers().unwrap(), PEERS);
}

#[tokio::test]
async fn a_proxy_that_restarts_is_given_what_is_stored_by_whichever_agent() {
    let mut agent = TestAgent::new().await;
    agent.put(PATH, PEERS).await;
    agent.peers.reconcile().await.unwrap();
    agent.proxy.start();
    assert_eq!(agent.proxy.peers(), None);
    agent.peers.reconcile().await.unwrap();
    assert_eq!(agent.proxy.peers().unwrap(), PEERS);
    agent.proxy.start();
    agent.restarted_peers().reconcile().await.unwrap();
    assert_eq!(agent.proxy.peers().unwrap(), PEERS);
    agent.proxy.stop();
    assert!(agent.peers.reconcile().await.is_err());
}

#[tokio::test]
async fn an_address_that_is_not_there_yet_is_tried_until_it_is() {
    let mut agent = TestAgent::new().await;
    agent.put(PATH, PEERS).await;
    agent.proxy.start();
    agent.proxy.be(Mood::Refusing("192.0.2.1", StatusCode::CONFLICT));
    let running = tokio::spawn(agent.peers.clone().run());
    eventually("it is told", async || {
        let faults = agent.get("/2.0/health").await.json()["faults"].clone();
        faults[0]["path"] == "peers" && faults[0]["reason"].as_str().unwrap().contains("Cannot assign")
    })
    .await;
    agent.proxy.be(Mood::Willing);
    eventually("the proxy has it", async || agent.proxy.peers().is_some()).await;
    eventually("that is told, too", async || agent.get("/2.0/health").await.status == StatusCode::OK).await;
    running.abort();
}

#[tokio::test]
async fn what_was_deleted_stays_deleted_and_what_was_never_named_is_left_alone() {
    let mut agent = TestAgent::new().await;
    // From the proxy's own command line.
    agent.proxy.know(PEERS);
    agent.peers.reconcile().await.unwrap();
    assert_eq!(agent.proxy.peers().unwrap(), PEERS);
    assert_eq!(delete(&agent).await.json()["changed"], false);
    assert_eq!(agent.proxy.peers(), None);
    agent.put(PATH, PEERS).await;
    agent.put(PATH, &other("another key, longer")).await;
    let answer = delete(&agent).await.json();
    assert_eq!((&answer["changed"], &answer["status"]["state"]), (&json!(true), &json!("OFF")));
    assert_eq!(agent.proxy.peers(), None);
    let left = std::fs::read_dir(&agent.base).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("peers")).collect();
    assert!(left.is_empty(), "no key stays on the disk: {left:?}");
    assert_eq!(delete(&agent).await.json()["changed"], false);
    agent.proxy.start();
    agent.peers.reconcile().await.unwrap();
    assert_eq!(agent.proxy.peers(), None);
}

#[tokio::test]
async fn a_file_of_the_operators_is_not_for_a_request_to_change() {
    let agent = TestAgent::with(|config| config.peers_file = Some("/etc/peers.json".into())).await;
    let _ = Store::open(&agent.base).unwrap().stage(Kept::Peers, PEERS.as_bytes()).unwrap();
    for answer in [agent.put(PATH, PEERS).await, delete(&agent).await] {
        assert_eq!(answer.code(), (409, "conflict".to_owned()));
        assert!(answer.json()["faults"][0]["reason"].as_str().unwrap().contains("peers_file"));
    }
    agent.peers.reconcile().await.unwrap();
    assert_eq!(agent.proxy.peers(), None);
    assert_eq!(agent.get(PATH).await.json()["state"], "OFF");
    agent.peers.quiesce(Duration::from_secs(1)).await;
}
