//! Load balancers and what is in them.

use super::*;

#[tokio::test]
async fn a_load_balancer_is_made_with_all_that_is_in_it() {
    let stage = Stage::new("");
    let body = json!({"loadbalancer": {
        "name": "full", "vip_subnet_id": stage.subnet, "vip_address": "192.0.2.50",
        "listeners": [{
            "protocol": "HTTP", "protocol_port": 80,
            "default_pool": {
                "name": "first", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN",
                "members": [{"address": "10.0.0.1", "protocol_port": 80}, {"address": "10.0.0.2", "protocol_port": 80}],
                "healthmonitor": {"type": "HTTP", "delay": 5, "timeout": 3, "max_retries": 2},
            },
            "l7policies": [
                {"action": "REDIRECT_TO_POOL", "redirect_pool": {"name": "second"},
                 "rules": [{"type": "PATH", "compare_type": "STARTS_WITH", "value": "/x"}]},
                {"action": "REJECT"},
            ],
        }],
        "pools": [{"name": "second", "protocol": "HTTP", "lb_algorithm": "SOURCE_IP"}],
    }});
    let made = stage.must(POST, LBS, body.clone()).await["loadbalancer"].clone();
    assert_eq!(made["vip_address"], "192.0.2.50");
    let listener = &made["listeners"][0];
    let pool = made["pools"].as_array().unwrap().iter().find(|pool| pool["name"] == "first").unwrap();
    assert_eq!(listener["default_pool_id"], pool["id"]);
    assert_eq!(pool["members"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&pool["healthmonitor"]["url_path"], &pool["healthmonitor"]["expected_codes"]),
        (&json!("/"), &json!("200"))
    );
    assert_eq!(listener["l7policies"][0]["rules"][0]["value"], "/x");
    assert_eq!([&listener["l7policies"][0]["position"], &listener["l7policies"][1]["position"]], [1, 2]);
    assert_eq!(stage.rows("SELECT DISTINCT generation || '' FROM pool").await, ["1"]);
    let status = stage.get(&format!("{LBS}/{}/status", made["id"].as_str().unwrap())).await;
    let pools = &status["statuses"]["loadbalancer"]["listeners"][0]["pools"];
    assert_eq!(pools.as_array().unwrap().len(), 2, "{status}");
    stage.refused(POST, LBS, body, 409, "The VIP IP address is already in use").await;
    assert_eq!(stage.rows("SELECT id FROM load_balancer").await.len(), 1);
}

#[tokio::test]
async fn vips_are_of_the_networks_that_there_are() {
    let stage = Stage::new("");
    let network = stage.api.shared.config.networks[0].clone();
    let (v4, v6) = (network.subnets[0].id.to_string(), network.subnets[1].id.to_string());
    let other = stage.api.shared.config.networks[1].subnets[0].id.to_string();
    let id = network.id.to_string();
    let ask = |body: Value| {
        let stage = &stage;
        async move { stage.ask(POST, LBS, json!({"loadbalancer": body})).await }
    };
    for (body, expected) in [
        (json!({"vip_network_id": id}), "192.0.2.2"),
        (json!({"vip_network_id": id, "vip_address": "2001:db8::9"}), "2001:db8::9"),
        (json!({"vip_network_id": id, "vip_subnet_id": v6}), "2001:db8::2"),
        (json!({"vip_subnet_id": v4}), "192.0.2.3"),
    ] {
        let (status, answer) = ask(body.clone()).await;
        assert_eq!(
            (status, &answer["loadbalancer"]["vip_address"]),
            (201, &json!(expected)),
            "{body} {answer}"
        );
        assert_eq!(answer["loadbalancer"]["vip_network_id"], json!(id));
    }
    for (body, status, text) in [
        (json!({"vip_subnet_id": id}), 400, "not found."),
        (json!({"vip_network_id": v4}), 400, "not found."),
        (json!({"vip_network_id": id, "vip_subnet_id": other}), 400, "not found."),
        (
            json!({"vip_network_id": id, "vip_address": "198.51.100.9"}),
            400,
            "does not contain a subnet for VIP address",
        ),
        (json!({"vip_subnet_id": v4, "vip_address": "198.51.100.9"}), 400, "198.51.100.9"),
        (json!({"vip_subnet_id": v4, "vip_address": "192.0.2.1"}), 409, "already in use"),
        (json!({"vip_port_id": id}), 400, "Port"),
        (
            json!({"vip_subnet_id": v4, "additional_vips": [{"subnet_id": v4}]}),
            400,
            "Duplicate VIP subnet(s)",
        ),
        (
            json!({"vip_subnet_id": v4, "additional_vips": [{"subnet_id": other}]}),
            400,
            "must belong to the same network",
        ),
        (json!({"vip_subnet_id": v4, "vip_sg_ids": [id]}), 400, "Security Group"),
        (json!({"vip_subnet_id": v4, "vip_qos_policy_id": id}), 400, "VIP QoS policy is not allowed"),
    ] {
        let (got, answer) = ask(body.clone()).await;
        let said = answer["faultstring"].as_str().unwrap_or_default();
        assert!(got == status && said.contains(text), "{body}: {got} {answer}");
    }
    let (_, answer) = ask(json!({"vip_subnet_id": v4, "additional_vips": [{"subnet_id": v6}]})).await;
    assert_eq!(answer["loadbalancer"]["additional_vips"][0]["ip_address"], "2001:db8::3");
    assert_eq!(stage.rows("SELECT id FROM port WHERE load_balancer_id IS NOT NULL").await.len(), 6);
}

#[tokio::test]
async fn null_is_the_default() {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    let listener = stage.listener(&balancer, 80).await;
    let path = format!("{LISTENERS}/{listener}");
    let said = json!({"name": "x", "connection_limit": 5, "timeout_client_data": 1, "allowed_cidrs": ["10.1.2.3/8"],
        "insert_headers": {"X-Forwarded-For": "true"}, "tags": ["t"]});
    let now = stage.must(PUT, &path, json!({"listener": said})).await["listener"].clone();
    assert_eq!((&now["allowed_cidrs"], &now["connection_limit"]), (&json!(["10.0.0.0/8"]), &json!(5)));
    let nothing = json!({"name": null, "connection_limit": null, "timeout_client_data": null, "allowed_cidrs": null,
        "insert_headers": null, "tags": null, "admin_state_up": null});
    let now = stage.must(PUT, &path, json!({"listener": nothing})).await["listener"].clone();
    for (name, expected) in [
        ("name", json!("")),
        ("connection_limit", json!(-1)),
        ("timeout_client_data", json!(50000)),
        ("allowed_cidrs", Value::Null),
        ("insert_headers", json!({})),
        ("tags", json!(["t"])),
        ("admin_state_up", json!(false)),
    ] {
        assert_eq!(now[name], expected, "{name}");
    }
}

#[tokio::test]
async fn policies_are_in_order_without_gaps() {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    let listener = stage.listener(&balancer, 80).await;
    let mut ids = Vec::new();
    for (name, position) in
        [("a", json!(null)), ("b", json!(null)), ("c", json!(1)), ("d", json!(2)), ("e", json!(99))]
    {
        let mut body = json!({"listener_id": listener, "action": "REJECT", "name": name});
        if !position.is_null() {
            body["position"] = position;
        }
        ids.push(stage.make(POLICIES, "l7policy", body).await);
    }
    let order = "SELECT name || position FROM l7policy WHERE provisioning_status <> 'PENDING_DELETE' ORDER BY position";
    assert_eq!(stage.rows(order).await, ["c1", "d2", "a3", "b4", "e5"]);
    stage.must(PUT, &format!("{POLICIES}/{}", ids[4]), json!({"l7policy": {"position": 2}})).await;
    assert_eq!(stage.rows(order).await, ["c1", "e2", "d3", "a4", "b5"]);
    stage.must(DELETE, &format!("{POLICIES}/{}", ids[3]), Value::Null).await;
    assert_eq!(stage.rows(order).await, ["c1", "e2", "a3", "b4"]);
}

#[tokio::test]
async fn a_policy_keeps_what_its_action_needs() {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    let listener = stage.listener(&balancer, 80).await;
    let pool = stage.pool(&balancer).await;
    let id = stage.make(POLICIES, "l7policy", json!({"listener_id": listener, "action": "REJECT"})).await;
    let path = format!("{POLICIES}/{id}");
    for (said, action, url, to_pool, prefix, code) in [
        (
            json!({"redirect_url": "http://a/"}),
            "REDIRECT_TO_URL",
            json!("http://a/"),
            json!(null),
            json!(null),
            json!(302),
        ),
        (
            json!({"redirect_pool_id": pool}),
            "REDIRECT_TO_POOL",
            json!(null),
            json!(pool),
            json!(null),
            json!(null),
        ),
        (
            json!({"redirect_prefix": "https://b/", "redirect_http_code": 307}),
            "REDIRECT_PREFIX",
            json!(null),
            json!(null),
            json!("https://b/"),
            json!(307),
        ),
        (json!({"action": "REJECT"}), "REJECT", json!(null), json!(null), json!(null), json!(null)),
    ] {
        let now = stage.must(PUT, &path, json!({"l7policy": said})).await["l7policy"].clone();
        assert_eq!(now["action"], action, "{said}");
        for (name, expected) in [
            ("redirect_url", url),
            ("redirect_pool_id", to_pool),
            ("redirect_prefix", prefix),
            ("redirect_http_code", code),
        ] {
            assert_eq!(now[name], expected, "{said} {name}");
        }
    }
    stage.must(PUT, &path, json!({"l7policy": {"redirect_pool_id": pool}})).await;
    let text = format!("Pool {pool} is in use by L7 policy {id}");
    stage.refused(DELETE, &format!("{POOLS}/{pool}"), Value::Null, 409, &text).await;
    stage.must(DELETE, &path, Value::Null).await;
    stage.must(DELETE, &format!("{POOLS}/{pool}"), Value::Null).await;
}

#[tokio::test]
async fn a_batch_makes_changes_and_takes_away_members() {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    let pool = stage.pool(&balancer).await;
    let path = format!("{POOLS}/{pool}/members");
    let member = |n: u8, more: Value| {
        let mut member = json!({"address": format!("10.0.0.{n}"), "protocol_port": 80});
        member.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        member
    };
    let batch = async |query: &str, members: Vec<Value>| {
        stage.must(PUT, &format!("{path}{query}"), json!({"members": members})).await;
    };
    let state = "SELECT address || ' ' || weight || ' ' || name || ' ' || provisioning_status FROM member ORDER BY address";
    batch("", vec![member(1, json!({"weight": 5, "name": "a"})), member(2, json!({}))]).await;
    assert_eq!(stage.rows(state).await, ["10.0.0.1 5 a PENDING_CREATE", "10.0.0.2 1  PENDING_CREATE"]);
    stage.settle().await;
    batch("", vec![member(1, json!({})), member(3, json!({}))]).await;
    let expected =
        ["10.0.0.1 1 a PENDING_UPDATE", "10.0.0.2 1  PENDING_DELETE", "10.0.0.3 1  PENDING_CREATE"];
    assert_eq!(stage.rows(state).await, expected);
    batch("?additive_only=True", vec![member(2, json!({"weight": 7}))]).await;
    let expected =
        ["10.0.0.1 1 a PENDING_UPDATE", "10.0.0.2 7  PENDING_UPDATE", "10.0.0.3 1  PENDING_CREATE"];
    assert_eq!(stage.rows(state).await, expected);
    let twice = json!({"members": [member(1, json!({})), member(1, json!({}))]});
    stage.refused(PUT, &path, twice, 400, "Member must be updated only once in the same request.").await;
    let twice = json!({"members": [member(9, json!({})), member(9, json!({}))]});
    stage.refused(PUT, &path, twice, 409, "Another member on this pool is already using ip 10.0.0.9").await;
    batch("", vec![]).await;
    stage.settle().await;
    assert_eq!(stage.rows(state).await, [""; 0]);
}

#[tokio::test]
async fn certificates_must_be_there() {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    let body = json!({"listener": {"loadbalancer_id": balancer, "protocol": "TERMINATED_HTTPS", "protocol_port": 443,
        "default_tls_container_ref": "https://secrets.example/v1/containers/shop"}});
    let text = "Could not retrieve certificate: ['https://secrets.example/v1/containers/shop']";
    stage.refused(POST, LISTENERS, body.clone(), 400, text).await;
    let made = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).unwrap();
    let pem = made.cert.pem() + &made.signing_key.serialize_pem();
    std::fs::write(stage.certificates().join("shop.pem"), pem).unwrap();
    let listener = stage.must(POST, LISTENERS, body).await["listener"].clone();
    assert_eq!(listener["tls_versions"], json!(["TLSv1.2", "TLSv1.3"]));
    assert_eq!(listener["alpn_protocols"], json!(["h2", "http/1.1", "http/1.0"]));
    let body = json!({"listener": {"loadbalancer_id": balancer, "protocol": "TERMINATED_HTTPS", "protocol_port": 444,
        "default_tls_container_ref": "../serve"}});
    stage.refused(POST, LISTENERS, body, 400, "Could not retrieve certificate").await;
}

#[tokio::test]
async fn expressions_are_judged_by_the_proxy() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let proxy = dir.path().join("proxy");
    // It refuses what has an opening parenthesis, at the begin as of an edit, and a replacement that names a ninth group.
    let verdict = |path: &str, reason: &str| json!({"faults": [{"path": path, "reason": reason}]});
    let script = format!(
        "#!/bin/sh\nbody=$(cat)\ncase \"$body\" in\n*'^('*) echo '{}';;\n*'('*) echo '{}';;\n*'/\\\\9'*) echo '{}';;\n*) exit 0;;\nesac\nexit 1\n",
        verdict("x.amphora.edits.path.regex", "unmatched"),
        verdict("x", "missing closing parenthesis"),
        verdict("x.amphora.edits.path.replacement", "names group 9"),
    );
    std::fs::write(&proxy, script).unwrap();
    std::fs::set_permissions(&proxy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let stage = Stage::new(&format!("[compute]\nproxy_cmd = {}\n", proxy.display()));
    let balancer = stage.load_balancer("one").await;
    let web = stage.listener(&balancer, 80).await;
    let policy = stage.make(POLICIES, "l7policy", json!({"listener_id": web, "action": "REJECT"})).await;
    let rules = format!("{POLICIES}/{policy}/rules");
    let rule = |compare: &str, value: &str| json!({"type": "PATH", "compare_type": compare, "value": value});
    let text = "Error parsing L7Rule: Unable to parse regular expression: missing closing parenthesis";
    stage.refused(POST, &rules, json!({"rule": rule("REGEX", "/a(")}), 400, text).await;
    stage.make(&rules, "rule", rule("EQUAL_TO", "/a(")).await;
    let id = stage.make(&rules, "rule", rule("REGEX", "/a")).await;
    let path = format!("{rules}/{id}");
    stage.refused(PUT, &path, json!({"rule": {"value": "/a("}}), 400, text).await;
    stage.must(PUT, &path, json!({"rule": {"compare_type": "EQUAL_TO", "value": "/a("}})).await;
    stage.refused(PUT, &path, json!({"rule": {"compare_type": "REGEX"}}), 400, text).await;
    let listener = json!({"loadbalancer_id": balancer, "protocol": "HTTP", "protocol_port": 81,
        "l7policies": [{"action": "REJECT", "rules": [rule("REGEX", "(")]}]});
    stage.refused(POST, LISTENERS, json!({"listener": listener}), 400, text).await;
    let edit_of = |regex: &str, replacement: &str| {
        let edits = json!({"path": {"regex": regex, "replacement": replacement}});
        json!({"l7policy": {"listener_id": web, "rules": [rule("EQUAL_TO", "/")],
            "amphora": {"action": "EDIT", "edits": edits}}})
    };
    let edit = |replacement: &str| edit_of("^/a", replacement);
    let text = "Error parsing amphora.edits.path.regex: Unable to parse regular expression: unmatched";
    stage.refused(POST, POLICIES, edit_of("^(", "/"), 400, text).await;
    let text = "Error parsing amphora.edits.path.replacement: names group 9";
    stage.refused(POST, POLICIES, edit("/\\9"), 400, text).await;
    stage.must(POST, POLICIES, edit("/\\0")).await;
}

#[tokio::test]
async fn what_no_amphora_would_take_is_refused_with_its_reason() {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    let pool = stage.pool(&balancer).await;
    let monitor = json!({"pool_id": pool, "type": "HTTP", "delay": 5, "timeout": 3, "max_retries": 2, "expected_codes": "204-200"});
    stage.refused(POST, MONITORS, json!({"healthmonitor": monitor}), 400, "expected_codes").await;
    assert_eq!(stage.get(MONITORS).await["healthmonitors"], json!([]));
}
