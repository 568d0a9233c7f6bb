//! Quotas, flavors, availability zones, providers and amphorae.

use super::*;

const FLAVORS: &str = "/v2/lbaas/flavors";
const PROFILES: &str = "/v2/lbaas/flavorprofiles";

#[tokio::test]
async fn flavors_say_how_a_load_balancer_is_made() {
    let stage = Stage::new("");
    let data = json!({"loadbalancer_topology": "ACTIVE_STANDBY", "compute_driver": "namespaces"}).to_string();
    let profile = json!({"name": "pair", "provider_name": "amphora", "flavor_data": data});
    let profile = stage.make(PROFILES, "flavorprofile", profile).await;
    let flavor = stage.make(FLAVORS, "flavor", json!({"name": "pair", "flavor_profile_id": profile})).await;
    let body = json!({"vip_subnet_id": stage.subnet, "flavor_id": flavor});
    stage.make(LBS, "loadbalancer", body.clone()).await;
    let rows =
        stage.rows("SELECT topology || ' ' || compute_driver || ' ' || provider FROM load_balancer").await;
    assert_eq!(rows, ["ACTIVE_STANDBY namespaces amphora"]);
    stage.refused(DELETE, &format!("{FLAVORS}/{flavor}"), Value::Null, 409, "in use").await;
    stage.refused(DELETE, &format!("{PROFILES}/{profile}"), Value::Null, 409, "in use").await;
    stage.must(PUT, &format!("{FLAVORS}/{flavor}"), json!({"flavor": {"enabled": false}})).await;
    stage.refused(POST, LBS, json!({"loadbalancer": body}), 400, "not allowed in this deployment").await;
    let again = json!({"flavor": {"name": "pair", "flavor_profile_id": profile}});
    stage.refused(POST, FLAVORS, again, 409, "A flavor of pair already exists.").await;
    let nameless = || json!({"flavor": {"name": "", "flavor_profile_id": profile}});
    stage.must(POST, FLAVORS, nameless()).await;
    stage.refused(POST, FLAVORS, nameless(), 409, "A flavor of  already exists.").await;
    for (data, status, text) in [
        ("x", 400, "x is not a valid option for flavor_data"),
        ("[]", 400, "is not a valid option for flavor_data"),
        ("{\"loadbalancer_topology\": \"TRIPLE\"}", 501, "does not support a requested option"),
        ("{\"foo\": 1}", 501, "'foo' was unexpected"),
        ("{\"compute_driver\": \"qemu\"}", 501, "[compute] image is not set"),
        ("{\"compute_flavor\": \"large\"}", 501, "\"large\" is not a value of 'compute_flavor'"),
    ] {
        let body = json!({"name": "x", "provider_name": "amphora", "flavor_data": data});
        stage.refused(POST, PROFILES, json!({"flavorprofile": body}), status, text).await;
    }
}

#[tokio::test]
async fn a_flavor_may_be_of_virtual_machines() {
    let stage = Stage::new("[compute]\nimage = /image.qcow2\n");
    let data = json!({"compute_driver": "qemu", "compute_flavor": "memory=2048,cpus=2"}).to_string();
    let profile = json!({"name": "machine", "provider_name": "amphora", "flavor_data": data});
    let profile = stage.make(PROFILES, "flavorprofile", profile).await;
    let flavor =
        stage.make(FLAVORS, "flavor", json!({"name": "machine", "flavor_profile_id": profile})).await;
    stage.make(LBS, "loadbalancer", json!({"vip_subnet_id": stage.subnet, "flavor_id": flavor})).await;
    assert_eq!(stage.rows("SELECT compute_driver FROM load_balancer").await, ["qemu"]);
}

#[tokio::test]
async fn availability_zones_bound_networks() {
    let stage = Stage::new("");
    let profiles = "/v2/lbaas/availabilityzoneprofiles";
    let data = json!({"valid_vip_networks": ["9d1d7f0e-6a2e-4c0b-8f7d-5f0e2d6c3b33"]}).to_string();
    let profile = json!({"name": "far", "provider_name": "amphora", "availability_zone_data": data});
    let profile = stage.make(profiles, "availability_zone_profile", profile).await;
    let zones = "/v2/lbaas/availabilityzones";
    let body = json!({"availability_zone": {"name": "far", "availability_zone_profile_id": profile}});
    stage.must(POST, zones, body.clone()).await;
    stage.refused(POST, zones, body, 409, "A availability zone of far already exists.").await;
    let body = json!({"loadbalancer": {"vip_subnet_id": stage.subnet, "availability_zone": "far"}});
    stage.refused(POST, LBS, body, 400, "Supplied VIP network_id is not allowed").await;
    assert_eq!(stage.rows("SELECT id FROM port").await, [""; 0]);
    stage.must(DELETE, &format!("{zones}/far"), Value::Null).await;
    stage.refused(GET, &format!("{zones}/far"), Value::Null, 404, "Availability Zone far not found.").await;
}

#[tokio::test]
async fn amphorae_are_shown_replaced_and_deleted() {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    stage.settle().await;
    let id = "5a8e4d21-2b3c-4d5e-9f60-1a2b3c4d5e44";
    let insert = {
        let balancer = balancer.clone();
        move |t: &rusqlite::Transaction<'_>| {
            t.execute(
                "INSERT INTO amphora (id, load_balancer_id, status, role, compute_driver, compute_id, lb_network_ip, agent_port,
                    cert_expiration, created_at) VALUES (?1, ?2, 'ALLOCATED', 'STANDALONE', 'namespaces', 'ns', '127.0.0.1', 1,
                    1780000000000, 0)",
                [id, &balancer],
            )?;
            Ok(())
        }
    };
    stage.api.db.write::<_, db::Error, _>(insert).await.unwrap();
    let path = format!("/v2/octavia/amphorae/{id}");
    let amphora = stage.get(&path).await["amphora"].clone();
    assert_eq!(
        (&amphora["loadbalancer_id"], &amphora["cert_expiration"]),
        (&json!(balancer), &json!("2026-05-28T20:26:40"))
    );
    assert_eq!(stage.get("/v2/octavia/amphorae?status=READY").await["amphorae"], json!([]));
    let list = stage.get("/v2/octavia/amphorae?project_id=default&role=STANDALONE").await;
    assert_eq!(list["amphorae"], json!([amphora]));
    stage.must(PUT, &format!("{path}/config"), Value::Null).await;
    stage.must(PUT, &format!("{path}/failover"), Value::Null).await;
    let work = stage
        .rows("SELECT kind || ' ' || (subject = (SELECT id FROM amphora)) FROM work ORDER BY kind")
        .await;
    assert_eq!(work, ["AMPHORA_CONFIGURE 1", "AMPHORA_FAILOVER 1", "LOAD_BALANCER 0"]);
    stage.refused(DELETE, &path, Value::Null, 409, "immutable").await;
    stage.refused(GET, &format!("{path}/stats"), Value::Null, 404, "Amphora stats for").await;
}

#[tokio::test]
async fn providers_and_quotas_are_told() {
    let stage = Stage::new("");
    assert_eq!(
        stage.get("/v2/lbaas/providers?fields=name").await["providers"],
        json!([{"name": "amphora"}, {"name": "octavia"}])
    );
    stage
        .refused(
            GET,
            "/v2/lbaas/providers/x/flavor_capabilities",
            Value::Null,
            400,
            "Provider 'x' is not enabled.",
        )
        .await;
    let all = stage.get("/v2/lbaas/quotas/p").await["quota"].clone();
    assert_eq!(
        (&all["loadbalancer"], &all["load_balancer"], &all["project_id"]),
        (&json!(-1), &json!(-1), &json!("p"))
    );
    stage.must(PUT, "/v2/lbaas/quotas/p", json!({"quota": {"load_balancer": 3, "healthmonitor": 4}})).await;
    let all = stage.get("/v2/lbaas/quotas").await["quotas"][0].clone();
    assert_eq!(
        (&all["loadbalancer"], &all["health_monitor"], &all["member"]),
        (&json!(3), &json!(4), &json!(-1))
    );
    for _ in 0..2 {
        stage.must(DELETE, "/v2/lbaas/quotas/p", Value::Null).await;
        let all = stage.get("/v2/lbaas/quotas").await["quotas"].clone();
        assert_eq!((&all[0]["project_id"], &all[0]["loadbalancer"]), (&json!("p"), &json!(-1)));
    }
    stage.refused(DELETE, "/v2/lbaas/quotas/bogus", Value::Null, 404, "Quotas bogus not found.").await;
}
