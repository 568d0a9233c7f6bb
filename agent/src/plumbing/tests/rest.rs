//! The same through the API.

use hyper::Method;
use serde_json::json;

use super::*;
use crate::testing::TestAgent;

const PORT: &str = r#"{"vrrp_ip": "10.77.0.101", "mtu": 1450, "vips": [
    {"ip_address": "10.77.0.100", "subnet_cidr": "10.77.0.0/24", "gateway": "10.77.0.1"}]}"#;

#[tokio::test]
async fn a_port_is_put_and_read() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    let inside = machine.inside.clone();
    machine
        .outside
        .run(|| async move {
            let agent = TestAgent::with(|config| config.network_namespace = Some(inside)).await;
            let path = format!("/2.0/interfaces/{}", VIP_MAC.to_uppercase());
            assert_eq!(agent.get(&path).await.code(), (404, "interface_not_found".to_owned()));
            assert_eq!(agent.get("/2.0/interfaces").await.json(), json!({ "interfaces": [] }));

            let answer = agent.put(&path, PORT).await;
            assert_eq!(
                (answer.status.as_u16(), answer.json()),
                (200, json!({ "interface": "eth1", "changed": true }))
            );
            let answer = agent.put(&path, PORT).await;
            assert_eq!(answer.json(), json!({ "interface": "eth1", "changed": false }));

            let plugged = agent.get(&path).await.json();
            assert_eq!((&plugged["mac_address"], &plugged["interface"]), (&json!(VIP_MAC), &json!("eth1")));
            // What is read can be put.
            assert_eq!(agent.put(&path, &plugged["port"].to_string()).await.json()["changed"], false);
            assert_eq!(agent.get("/2.0/interfaces").await.json(), json!({ "interfaces": [plugged] }));

            let other = format!("/2.0/interfaces/{NETWORK_MAC}");
            assert_eq!(agent.put(&other, PORT).await.code(), (409, "conflict".to_owned()));
            let unknown = agent.put("/2.0/interfaces/fa:16:3e:ff:ff:ff", PORT).await;
            assert_eq!(unknown.code(), (404, "interface_not_found".to_owned()));
            assert_eq!(unknown.json()["message"], "No suitable network interface found");
            let faulty = agent.put(&path, r#"{"vrrp_ip": "x"}"#).await;
            assert_eq!(faulty.code(), (400, "invalid_document".to_owned()));
            let misspelt = agent.put("/2.0/interfaces/eth1", PORT).await;
            assert_eq!(misspelt.code(), (400, "invalid_id".to_owned()));
        })
        .await;
    assert_lines(
        machine.addresses("eth1"),
        &["inet 10.77.0.101/24 scope global eth1", "inet 10.77.0.100/32 scope global eth1"],
    );
}

#[tokio::test]
async fn a_port_that_is_refused_is_in_nobodys_way() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    let inside = machine.inside.clone();
    machine
        .outside
        .run(|| async move {
            let agent = TestAgent::with(|config| config.network_namespace = Some(inside)).await;
            let path = |mac: &str| format!("/2.0/interfaces/{mac}");
            let answer = agent.put(&path(VIP_MAC), &PORT.replace("10.77.0.1\"", "224.0.0.1\"")).await;
            assert_eq!(answer.code(), (400, "invalid_document".to_owned()));
            assert_eq!(answer.json()["faults"][0]["path"], "vips[0].gateway");

            // An address of its own is no gateway, as the kernel knows.
            let answer = agent.put(&path(VIP_MAC), &PORT.replace("10.77.0.1\"", "10.77.0.100\"")).await;
            assert_eq!(answer.code(), (500, "network_failed".to_owned()));
            assert_eq!(agent.get("/2.0/interfaces").await.json(), json!({ "interfaces": [] }));
            assert_eq!(agent.get("/2.0/health").await.json(), json!({ "status": "healthy" }));
            let answer = agent.request(Method::DELETE, &path(VIP_MAC), "").await;
            assert_eq!(answer.code(), (404, "interface_not_found".to_owned()));
            for mac in [NETWORK_MAC, VIP_MAC] {
                let answer = agent.put(&path(mac), PORT).await;
                assert_eq!(answer.json(), json!({ "interface": "eth1", "changed": true }));
                assert_eq!(agent.request(Method::DELETE, &path(mac), "").await.status.as_u16(), 200);
            }
        })
        .await;
}

#[tokio::test]
async fn without_a_namespace_nothing_can_be_put() {
    let agent = TestAgent::new().await;
    let answer = agent.put(&format!("/2.0/interfaces/{VIP_MAC}"), PORT).await;
    assert_eq!(answer.code(), (409, "conflict".to_owned()));
}
