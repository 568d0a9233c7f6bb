//! Addresses of subnets: of which they are handed out, and amphorae that give way to members.

use super::*;

const POOLS_OF: &str = "[allocation_pools]\npublic = 192.0.2.100-192.0.2.101, 192.0.2.50-192.0.2.50\n";

/// A load balancer `lb` of a project, of which an amphora has 192.0.2.9 and, in the other network, 198.51.100.9.
async fn amphora(stage: &Stage) -> String {
    let balancer = stage.load_balancer("one").await;
    stage
        .execute(
            "INSERT INTO amphora (id, load_balancer_id, status, compute_driver, compute_id, lb_network_ip, agent_port, cert_expiration,
                 created_at) SELECT 'amphora', id, 'ALLOCATED', 'namespaces', 'c', '127.0.0.1', 1, 0, 1 FROM load_balancer;
             INSERT INTO port (id, network_id, subnet_id, ip_address, mac_address, amphora_id, created_at)
                 SELECT 'p1', vip_network_id, vip_subnet_id, '192.0.2.9', '', 'amphora', 1 FROM load_balancer;
             INSERT INTO port (id, network_id, subnet_id, ip_address, mac_address, amphora_id, created_at)
                 VALUES ('p2', '', '', '198.51.100.9', '', 'amphora', 1)",
        )
        .await;
    stage.settle().await;
    balancer
}

/// Who is replaced, why, and which load balancers are worked on.
async fn replaced(stage: &Stage) -> (Vec<String>, Vec<String>) {
    let work = stage.rows("SELECT kind || ' ' || COALESCE(reason, '') FROM work ORDER BY kind").await;
    let told = stage
        .rows(
            "SELECT old || ' ' || new || ' ' || reason FROM event WHERE object_type = 'amphora' AND reason IS NOT NULL ORDER BY id",
        )
        .await;
    (work, told)
}

const REASON: &str = "amphora amphora is replaced: its address 192.0.2.9 is that of a member";

#[tokio::test]
async fn what_nobody_asks_for_is_of_the_allocation_pools() {
    let stage = Stage::new(POOLS_OF);
    let subnet = stage.get(&format!("/v2.0/subnets/{}", stage.subnet)).await["subnet"].clone();
    assert_eq!(
        subnet["allocation_pools"],
        json!([{"start": "192.0.2.50", "end": "192.0.2.50"}, {"start": "192.0.2.100", "end": "192.0.2.101"}])
    );
    let v6 = stage.get("/v2.0/subnets?ip_version=6").await["subnets"][0].clone();
    let whole = json!([{"start": "2001:db8::2", "end": "2001:db8::ffff:ffff:ffff:ffff"}]);
    assert_eq!(v6["allocation_pools"], whole);
    let mut vips = Vec::new();
    for wanted in [None, Some("192.0.2.2"), Some("192.0.2.100"), None] {
        let body = json!({"vip_subnet_id": stage.subnet, "vip_address": wanted});
        let made = stage.must(POST, LBS, json!({"loadbalancer": body})).await;
        vips.push(made["loadbalancer"]["vip_address"].clone());
    }
    assert_eq!(vips, ["192.0.2.50", "192.0.2.2", "192.0.2.100", "192.0.2.101"]);
    let text = "no address of the allocation_pools of 192.0.2.0/24, 192.0.2.50-192.0.2.50, 192.0.2.100-192.0.2.101, is free";
    let body = json!({"loadbalancer": {"vip_subnet_id": stage.subnet}});
    stage.refused(POST, LBS, body, 400, text).await;
}

#[tokio::test]
async fn an_amphora_gives_way_to_a_member() {
    let member = |address: &str| json!({"address": address, "protocol_port": 80});
    let batch = |address: &str| json!({"members": [member(address)]});
    let stage = Stage::new("");
    let balancer = amphora(&stage).await;
    let pool = stage.pool(&balancer).await;
    let members = format!("{POOLS}/{pool}/members");
    let there = stage.make(&members, "member", member("192.0.2.8")).await;
    let one = format!("{members}/{there}");
    let expected = (
        vec![format!("AMPHORA_FAILOVER {REASON}"), "LOAD_BALANCER ".to_owned()],
        vec![format!("ALLOCATED ALLOCATED {REASON}")],
    );
    let monitored = json!({"address": "192.0.2.8", "protocol_port": 80, "monitor_address": "192.0.2.9"});
    let whole = json!({"loadbalancer_id": balancer, "name": "w", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN",
        "members": [member("192.0.2.9")]});
    for (method, path, body) in [
        (PUT, &one, json!({"member": {"monitor_address": "192.0.2.9"}})),
        (POST, &members, json!({"member": member("192.0.2.9")})),
        (PUT, &members, batch("192.0.2.9")),
        (PUT, &members, json!({"members": [monitored]})),
        (POST, &POOLS.to_owned(), json!({"pool": whole})),
    ] {
        stage.settle().await;
        stage.execute("DELETE FROM event").await;
        stage.must(PUT, &members, batch("192.0.2.8")).await;
        stage.settle().await;
        stage.must(method.clone(), path, body.clone()).await;
        assert_eq!(replaced(&stage).await, expected, "{method} {body}");
        let status = stage.get(&format!("{LBS}/{balancer}/status")).await;
        assert_eq!(status["statuses"]["loadbalancer"]["reason"], REASON);
        // It is asked for once.
        stage.must(POST, &members, json!({"member": {"address": "192.0.2.9", "protocol_port": 81}})).await;
        assert_eq!(replaced(&stage).await, expected);
    }
    // A host of a network of which the amphora's subnet is not known any more.
    stage.settle().await;
    stage.must(PUT, &members, batch("198.51.100.9")).await;
    assert_eq!(replaced(&stage).await.0.len(), 2);
    // One that goes has its address no longer.
    stage.execute("UPDATE amphora SET status = 'PENDING_DELETE'; DELETE FROM work").await;
    stage.must(PUT, &members, batch("192.0.2.9")).await;
    assert_eq!(replaced(&stage).await.0, ["LOAD_BALANCER "]);
}

#[tokio::test]
async fn an_amphora_of_another_load_balancer_gives_way_where_its_owner_says_so() {
    let stage = Stage::new("");
    let balancer = amphora(&stage).await;
    stage.execute("UPDATE load_balancer SET project_id = 'p'").await;
    let other = stage.load_balancer("two").await;
    stage.execute("UPDATE load_balancer SET project_id = 'q' WHERE name = 'two'").await;
    let pool = stage.pool(&other).await;
    stage.settle().await;
    let path = format!("{POOLS}/{pool}/members");
    let body = json!({"member": {"address": "192.0.2.9", "protocol_port": 80}});
    let tenant =
        Context { project_id: Some("q".to_owned()), roles: vec!["member".to_owned()], ..Context::default() };
    let refusal = stage.ask_as(tenant, POST, &path, body.clone()).await.unwrap_err();
    assert_eq!(refusal.status, 400);
    assert!(
        refusal
            .text
            .starts_with("Validation failure: 192.0.2.9 is the address of an amphora, which cannot give way")
            && refusal.text.contains("of another project")
            && refusal.text.contains("[allocation_pools]"),
        "{refusal}"
    );
    assert_eq!(replaced(&stage).await, (Vec::new(), Vec::new()));
    // Who asks here is an operator.
    stage.must(POST, &path, body).await;
    let work = stage.rows("SELECT subject FROM work ORDER BY kind, subject").await;
    let mut both = [balancer.clone(), other];
    both.sort_unstable();
    assert_eq!(work, [vec!["amphora".to_owned()], both.to_vec()].concat());
    let status = stage.get(&format!("{LBS}/{balancer}")).await["loadbalancer"]["provisioning_status"].clone();
    assert_eq!(status, "PENDING_UPDATE");
}

#[tokio::test]
async fn an_amphora_stays_where_there_is_no_other_address() {
    let stage = Stage::new("[allocation_pools]\npublic = 192.0.2.8-192.0.2.10\n");
    let balancer = amphora(&stage).await;
    let pool = stage.pool(&balancer).await;
    let path = format!("{POOLS}/{pool}/members");
    let member = |address: &str| json!({"member": {"address": address, "protocol_port": 80}});
    // The last one is a member's: the next amphora would take it from this one.
    stage.must(POST, &path, member("192.0.2.10")).await;
    let text = "no other address of the allocation_pools of 192.0.2.0/24, 192.0.2.8-192.0.2.10, is free";
    stage.refused(POST, &path, member("192.0.2.9"), 400, text).await;
    assert_eq!(replaced(&stage).await.1, [""; 0]);
}
