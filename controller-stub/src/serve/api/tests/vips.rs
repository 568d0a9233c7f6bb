//! Ports that tenants make, and what the configuration allows of VIPs.

use serde_json::{Value, json};

use super::{DELETE, GET, LBS, POST, Stage};
use crate::serve::policies::Context;

const PORTS: &str = "/v2.0/ports";

fn member(project: &str) -> Context {
    Context { project_id: Some(project.to_owned()), roles: vec!["member".to_owned()], ..Context::default() }
}

#[tokio::test]
async fn a_port_that_a_tenant_has_made_is_a_vip() {
    let stage = Stage::new("");
    let (one, other) = (member("one"), member("other"));
    let network = stage.get("/v2.0/networks?name=public").await["networks"][0]["id"].clone();
    let body = json!({"port": {"network_id": network, "name": "mine", "admin_state_up": true,
        "fixed_ips": [{"subnet_id": stage.subnet, "ip_address": "192.0.2.40"}]}});
    let made = stage.ask_as(one.clone(), POST, PORTS, body.clone()).await.unwrap();
    let port = made.body.unwrap()["port"].clone();
    assert_eq!((made.status, &port["name"], &port["project_id"]), (201, &json!("mine"), &json!("one")));
    assert_eq!(port["fixed_ips"], json!([{"subnet_id": stage.subnet, "ip_address": "192.0.2.40"}]));
    let again = stage.ask_as(one.clone(), POST, PORTS, body).await.unwrap_err();
    assert_eq!(again.status, 409, "{again}");
    let id = port["id"].as_str().unwrap();
    let of = |more: Value| {
        let mut balancer = json!({"vip_port_id": id});
        balancer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "loadbalancer": balancer })
    };
    let refused = stage.ask_as(other.clone(), POST, LBS, of(json!({}))).await.unwrap_err();
    assert_eq!((refused.status, refused.text), (400, format!("Port {id} not found.")), "another's");
    let v6 = stage.get("/v2.0/subnets?ip_version=6").await["subnets"][0]["id"].clone();
    for (more, text) in [
        (json!({"vip_address": "192.0.2.41"}), "Specified VIP address not found on the specified VIP port."),
        (
            json!({"vip_subnet_id": v6}),
            "No VIP address found on the specified VIP port within the specified subnet.",
        ),
    ] {
        let refused = stage.ask_as(one.clone(), POST, LBS, of(more)).await.unwrap_err();
        assert_eq!((refused.status, refused.text), (400, format!("Validation failure: {text}")));
    }
    let made = stage.ask_as(one.clone(), POST, LBS, of(json!({}))).await.unwrap();
    let balancer = made.body.unwrap()["loadbalancer"].clone();
    assert_eq!((&balancer["vip_address"], &balancer["vip_port_id"]), (&json!("192.0.2.40"), &json!(id)));
    assert_eq!((&balancer["vip_subnet_id"], &balancer["vip_network_id"]), (&json!(stage.subnet), &network));
    let refused = stage.ask_as(one.clone(), POST, LBS, of(json!({}))).await.unwrap_err();
    assert!(refused.status == 400 && refused.text.contains("is already used by device lb-"), "{refused}");
    let path = format!("{PORTS}/{id}");
    assert_eq!(stage.ask_as(one, DELETE, &path, Value::Null).await.unwrap_err().status, 409);
    assert_eq!(stage.ask_as(other, DELETE, &path, Value::Null).await.unwrap_err().status, 404);
    let own = balancer["vip_port_id"].as_str().unwrap();
    assert_eq!(
        stage.get(&format!("{PORTS}/{own}")).await["port"]["device_id"],
        format!("lb-{}", balancer["id"].as_str().unwrap())
    );
}

#[tokio::test]
async fn an_additional_vip_may_be_a_port_of_its_subnet() {
    let stage = Stage::new("");
    let v6 = stage.get("/v2.0/subnets?ip_version=6").await["subnets"][0].clone();
    let body = json!({"network_id": v6["network_id"], "fixed_ips": [{"subnet_id": v6["id"]}]});
    let port = stage.must(POST, PORTS, json!({ "port": body })).await["port"].clone();
    let vip = json!({"subnet_id": v6["id"], "port_id": port["id"]});
    let body = json!({"loadbalancer": {"vip_subnet_id": stage.subnet, "additional_vips": [vip]}});
    let balancer = stage.must(POST, LBS, body).await["loadbalancer"].clone();
    let told = &balancer["additional_vips"][0];
    assert_eq!((&told["port_id"], &told["ip_address"]), (&port["id"], &port["fixed_ips"][0]["ip_address"]));
}

#[tokio::test]
async fn ports_are_judged_and_free_ones_go() {
    let stage = Stage::new("");
    let network = stage.get("/v2.0/networks?name=public").await["networks"][0]["id"].clone();
    for (body, status, text) in [
        (json!({"port": {"name": "x"}}), 400, "network_id"),
        (
            json!({"port": {"network_id": network, "allowed_address_pairs": []}}),
            400,
            "Unrecognized attribute(s)",
        ),
        (json!({"port": {"network_id": network, "admin_state_up": false}}), 400, "admin_state_up"),
        (json!({"port": {"network_id": network, "fixed_ips": [{"ip_address": "x"}]}}), 400, "ip_address"),
        (json!({"port": {"network_id": network, "fixed_ips": [{}, {}]}}), 400, "one address"),
        (json!({"port": {"network_id": "x"}}), 404, "Network x could not be found."),
        (json!({"port": []}), 400, "not an object"),
        (json!([]), 400, "not an object"),
    ] {
        stage.refused(POST, PORTS, body, status, text).await;
    }
    let id = stage.make(PORTS, "port", json!({"network_id": network})).await;
    stage.must(DELETE, &format!("{PORTS}/{id}"), Value::Null).await;
    assert_eq!(stage.ask(GET, &format!("{PORTS}/{id}"), Value::Null).await.0, 404);
    assert_eq!(stage.get("/v2.0/floatingips").await, json!({"floatingips": []}));
}

#[tokio::test]
async fn what_the_configuration_does_not_allow_is_refused() {
    let stage = Stage::new("[networking]\nallow_vip_subnet_id = false\nallow_vip_port_id = false\n");
    let network = stage.get("/v2.0/networks?name=public").await["networks"][0]["id"].clone();
    let ask = async |said: Value, text: &str| {
        stage.refused(POST, LBS, json!({ "loadbalancer": said }), 400, text).await;
    };
    let disallowed = "is disallowed by this deployment's configuration.";
    ask(json!({"vip_subnet_id": stage.subnet}), disallowed).await;
    ask(json!({"vip_port_id": stage.subnet}), disallowed).await;
    ask(json!({}), "VIP must contain one of: vip_network_id.").await;
    stage.make(LBS, "loadbalancer", json!({"vip_network_id": network})).await;
    let id = network.as_str().unwrap();
    let stage = Stage::new(&format!("[networking]\nvalid_vip_networks = {id}\nreserved_ips = 10.0.0.1\n"));
    let balancer = stage.make(LBS, "loadbalancer", json!({"vip_network_id": network})).await;
    let other = stage.get("/v2.0/networks?name=other").await["networks"][0]["id"].clone();
    let text = "Supplied VIP network_id is not allowed by the configuration of this deployment.";
    stage.refused(POST, LBS, json!({"loadbalancer": {"vip_network_id": other}}), 400, text).await;
    let pool = stage.pool(&balancer).await;
    let member = json!({"member": {"address": "10.0.0.1", "protocol_port": 80}});
    let members = format!("/v2/lbaas/pools/{pool}/members");
    stage.refused(POST, &members, member, 400, "10.0.0.1 is not a valid option for member address").await;
}
