//! What Octavia has no word for.

use super::*;

#[tokio::test]
async fn objects_of_the_amphora_are_kept_told_and_judged_by_its_model() {
    let stage = Stage::new("");
    let logs = json!({"connection_logging": true, "user_log_format": "%ci %ST"});
    let made = stage
        .must(
            POST,
            LBS,
            json!({"loadbalancer": {
                "name": "own", "vip_subnet_id": stage.subnet, "amphora": {"user_log_facility": 3},
                "listeners": [{"protocol": "HTTP", "protocol_port": 80, "amphora": logs}],
            }}),
        )
        .await["loadbalancer"]
        .clone();
    assert_eq!(made["amphora"], json!({"user_log_facility": 3}));
    let listener = &made["listeners"][0];
    assert_eq!(listener["amphora"], logs);
    let path = format!("/v2/lbaas/listeners/{}", listener["id"].as_str().unwrap());
    assert_eq!(stage.get(&path).await["listener"]["amphora"], logs);
    // What it does not know is refused with the place, and nothing has changed.
    let put = |amphora: Value| json!({"listener": {"amphora": amphora}});
    let (status, refused) = stage.ask(Method::PUT, &path, put(json!({"colour": "blue"}))).await;
    let reason = refused["faultstring"].as_str().unwrap();
    assert!(status == 400 && reason.contains("listeners[0].amphora.colour"), "{status} {refused}");
    assert_eq!(stage.get(&path).await["listener"]["amphora"], logs);
    for (amphora, why) in [
        (json!("blue"), "Value should be an object"),
        (json!([]), "Value should be an object"),
        (json!({"user_log_format": "x".repeat(200_000)}), "at most 131072 bytes"),
    ] {
        let (status, refused) = stage.ask(Method::PUT, &path, put(amphora)).await;
        assert!(status == 400 && refused.to_string().contains(why), "{why}: {status} {refused}");
    }
    stage.must(Method::PUT, &path, put(Value::Null)).await;
    assert_eq!(stage.get(&path).await["listener"].get("amphora"), None, "nothing is not told");
}

#[tokio::test]
async fn rate_limits_are_made_changed_and_deleted_below_their_listener() {
    let stage = Stage::new("");
    let limit = json!({"name": "busy", "action": "DENY", "rules": [{"metric": "REQUESTS", "threshold": 10}]});
    let made = stage
        .must(
            POST,
            LBS,
            json!({"loadbalancer": {
                "name": "limited", "vip_subnet_id": stage.subnet,
                "listeners": [{"protocol": "HTTP", "protocol_port": 80, "rate_limit_policies": [limit]}],
            }}),
        )
        .await["loadbalancer"]
        .clone();
    let listener = &made["listeners"][0];
    let policy = &listener["rate_limit_policies"][0];
    assert_eq!((&policy["action"], &policy["enabled"]), (&json!("DENY"), &json!(true)));
    assert_eq!((&policy["rules"][0]["threshold"], &policy["rules"][0]["interval"]), (&json!(10), &json!(30)));
    let listener = format!("/v2/lbaas/listeners/{}", listener["id"].as_str().unwrap());
    let ids = json!([{ "id": policy["id"] }]);
    assert_eq!(stage.get(&listener).await["listener"]["rate_limit_policies"], ids);

    // One that has no rules yet limits nothing, and what is for another protocol is refused by name.
    let all = "/v2/lbaas/ratelimitpolicies";
    let id = listener.rsplit('/').next().unwrap();
    let another = json!({"ratelimitpolicy": {"listener_id": id, "action": "REJECT"}});
    let another = stage.must(POST, all, another).await["ratelimitpolicy"].clone();
    let rules = format!("{all}/{}/rules", another["id"].as_str().unwrap());
    let packets = json!({"rule": {"metric": "PACKETS", "threshold": 5}});
    let (status, refused) = stage.ask(POST, &rules, packets).await;
    let reason = refused["faultstring"].as_str().unwrap();
    assert!(status == 400 && reason.contains("rate_limit_policies[1].rules[0].metric"), "{status} {refused}");
    let rule = json!({"rule": {"metric": "CONNECTIONS", "threshold": 5, "interval": 2}});
    let rule = stage.must(POST, &rules, rule).await["rule"].clone();
    let rule = format!("{rules}/{}", rule["id"].as_str().unwrap());
    let put = json!({"rule": {"interval": null, "threshold": 6}});
    let changed = stage.must(Method::PUT, &rule, put).await["rule"].clone();
    assert_eq!((&changed["threshold"], &changed["interval"]), (&json!(6), &json!(30)));
    for (body, status) in [
        (json!({"rule": {"threshold": 0}}), 400),
        (json!({"rule": {"metric": "COLOURS"}}), 400),
        (json!({"rule": {"listener_id": id}}), 400),
    ] {
        assert_eq!(stage.ask(Method::PUT, &rule, body.clone()).await.0, status, "{body}");
    }
    // Whose requests they are may be said before, and stays when the last limit goes.
    let proxies = json!({"listener": {"amphora": {"trusted_proxies": ["10.0.0.0/8"]}}});
    stage.must(Method::PUT, &listener, proxies.clone()).await;
    let early = json!({"loadbalancer_id": made["id"], "protocol": "HTTP", "protocol_port": 81,
        "amphora": proxies["listener"]["amphora"]});
    stage.must(POST, "/v2/lbaas/listeners", json!({"listener": early})).await;
    // A rule is of its policy.
    let first = format!("{all}/{}/rules", policy["id"].as_str().unwrap());
    assert_eq!(stage.ask(Method::GET, &rule.replace(&rules, &first), Value::Null).await.0, 404);
    assert_eq!(stage.get(&first).await["rules"].as_array().unwrap().len(), 1);

    assert_eq!(stage.ask(Method::DELETE, &rule, Value::Null).await.0, 204);
    let path = format!("{all}/{}", policy["id"].as_str().unwrap());
    assert_eq!(stage.ask(Method::DELETE, &path, Value::Null).await.0, 204);
    assert_eq!(
        stage.rows("SELECT provisioning_status FROM rate_limit_policy ORDER BY name").await,
        ["PENDING_CREATE", "PENDING_DELETE"]
    );
    assert_eq!(
        stage.rows("SELECT DISTINCT provisioning_status FROM rate_limit_rule").await,
        ["PENDING_DELETE"]
    );
}

/// Also what limits nobody yet, so that nobody who says more is told of it.
#[tokio::test]
async fn limits_without_rules_are_judged_as_those_with() {
    let stage = Stage::new("");
    let listener = |protocol: &str, port: u16| json!({"protocol": protocol, "protocol_port": port});
    let made = stage
        .must(
            POST,
            LBS,
            json!({"loadbalancer": {"vip_subnet_id": stage.subnet,
                "listeners": [listener("HTTP", 80), listener("TCP", 81), listener("UDP", 82)]}}),
        )
        .await["loadbalancer"]
        .clone();
    let of = |protocol: &str| {
        let mut listeners = made["listeners"].as_array().unwrap().iter();
        listeners.find(|listener| listener["protocol"] == protocol).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let all = "/v2/lbaas/ratelimitpolicies";
    for (protocol, body, why) in [
        ("HTTP", json!({"action": "QUEUE", "amphora": {"colour": "blue"}}), "amphora.colour: is not a field"),
        ("HTTP", json!({"action": "QUEUE", "amphora": {"queue_timeout": 61}}), "amphora.queue_timeout: "),
        ("HTTP", json!({"action": "DENY", "amphora": {"queue_size": 5}}), "no meaning with action DENY"),
        ("TCP", json!({"action": "DENY"}), "DENY is not for listeners of protocol TCP"),
        ("UDP", json!({"action": "REJECT"}), "REJECT is not for listeners of protocol UDP"),
    ] {
        let mut body = json!({ "ratelimitpolicy": body });
        body["ratelimitpolicy"]["listener_id"] = of(protocol).into();
        let (status, refused) = stage.ask(POST, all, body).await;
        assert!(status == 400 && refused.to_string().contains(why), "{why}: {status} {refused}");
    }
    for (protocol, amphora, why) in [
        ("TCP", json!({"trusted_proxies": ["10.0.0.0/8"]}), "which need a listener of protocol HTTP"),
        ("HTTP", json!({"trusted_proxies": ["10.0.0.0/33"]}), "trusted_proxies[0]"),
        ("HTTP", json!({"client_address_header": "X-Client"}), "no meaning without trusted_proxies"),
    ] {
        let path = format!("/v2/lbaas/listeners/{}", of(protocol));
        let body = json!({"listener": {"amphora": amphora}});
        let (status, refused) = stage.ask(Method::PUT, &path, body).await;
        assert!(status == 400 && refused.to_string().contains(why), "{why}: {status} {refused}");
    }
    for (protocol, action) in [("HTTP", "QUEUE"), ("TCP", "REJECT"), ("UDP", "SILENT_DROP")] {
        stage
            .must(POST, all, json!({"ratelimitpolicy": {"listener_id": of(protocol), "action": action}}))
            .await;
    }
}

#[tokio::test]
async fn pools_that_share_requests_are_named_and_stay() {
    let stage = Stage::new("");
    let pool = |name: &str| json!({"name": name, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"});
    let shares = json!([
        {"pool": {"name": "stable"}, "weight": 9},
        {"pool": {"name": "canary"}, "weight": 1},
    ]);
    let answer = json!({"action": "ANSWER", "answer": {"status": 418, "body": "tea"}});
    let made = stage
        .must(
            POST,
            LBS,
            json!({"loadbalancer": {
                "name": "shared", "vip_subnet_id": stage.subnet, "pools": [pool("stable"), pool("canary")],
                "listeners": [{"protocol": "HTTP", "protocol_port": 80, "amphora": {"default_pools": shares},
                    "l7policies": [{"amphora": answer,
                        "rules": [{"type": "PATH", "compare_type": "EQUAL_TO", "value": "/tea"}]}]}],
            }}),
        )
        .await["loadbalancer"]
        .clone();
    let canary = made["pools"].as_array().unwrap().iter().find(|pool| pool["name"] == "canary").unwrap();
    let canary = format!("/v2/lbaas/pools/{}", canary["id"].as_str().unwrap());
    // Who is named is not deleted, nor called otherwise.
    for (method, body) in [(Method::DELETE, Value::Null), (Method::PUT, json!({"pool": {"name": "bird"}}))] {
        let (status, refused) = stage.ask(method, &canary, body).await;
        let user = format!("is in use by listener {}", made["listeners"][0]["id"].as_str().unwrap());
        assert!(status == 409 && refused.to_string().contains(&user), "{status} {refused}");
    }
    let listener = format!("/v2/lbaas/listeners/{}", made["listeners"][0]["id"].as_str().unwrap());
    stage.must(Method::PUT, &listener, json!({"listener": {"amphora": null}})).await;
    assert_eq!(stage.ask(Method::DELETE, &canary, Value::Null).await.0, 204);

    let policy = &made["listeners"][0]["l7policies"][0];
    assert_eq!((&policy["action"], &policy["amphora"]), (&json!("ANSWER"), &answer));
    let policy = format!("/v2/lbaas/l7policies/{}", policy["id"].as_str().unwrap());
    let put = |body: Value| json!({ "l7policy": body });
    for (body, reason) in [
        (json!({"action": "REJECT"}), "cannot be specified at the same time"),
        (json!({"amphora": null}), "Invalid L7 Policy action specified: None"),
        (json!({"amphora": {"action": "SING"}}), "should be one of: EDIT, ANSWER"),
    ] {
        let (status, refused) = stage.ask(Method::PUT, &policy, put(body)).await;
        assert!(status == 400 && refused.to_string().contains(reason), "{status} {refused}");
    }
    let changed = stage.must(Method::PUT, &policy, put(json!({"action": "REJECT", "amphora": null}))).await;
    assert_eq!(changed["l7policy"]["action"], "REJECT");
    for (action, reason) in [
        ("EDIT", "REDIRECT_TO_POOL, REDIRECT_PREFIX; EDIT is said as amphora.action, in place of this"),
        ("SING", "REDIRECT_TO_POOL, REDIRECT_PREFIX\""),
    ] {
        let body =
            json!({"l7policy": {"listener_id": listener.rsplit('/').next().unwrap(), "action": action}});
        let (status, refused) = stage.ask(POST, "/v2/lbaas/l7policies", body).await;
        assert!(status == 400 && refused.to_string().contains(reason), "{status} {refused}");
    }
    let nothing = json!({"l7policy": {"listener_id": listener.rsplit('/').next().unwrap()}});
    stage.refused(POST, "/v2/lbaas/l7policies", nothing, 400, "Mandatory field missing.").await;
}

#[tokio::test]
async fn pools_that_share_are_told_as_their_listeners() {
    let stage = Stage::new("");
    let pool = |name: &str| json!({"name": name, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"});
    let member = json!({"address": "10.0.0.1", "protocol_port": 80});
    let mut stable = pool("stable");
    stable["members"] = json!([member]);
    let named = |names: [&str; 2]| json!(names.map(|name| json!({"pool": {"name": name}, "weight": 1})));
    let rule = json!({"type": "PATH", "compare_type": "STARTS_WITH", "value": "/beta"});
    let policy = |up: bool, names: [&str; 2]| {
        json!({"action": "REDIRECT_TO_POOL", "admin_state_up": up, "rules": [rule],
            "amphora": {"redirect_pools": named(names)}})
    };
    let body = json!({"loadbalancer": {
        "name": "shared", "vip_subnet_id": stage.subnet,
        "pools": [stable, pool("canary"), pool("blue"), pool("green"), pool("unused")],
        "listeners": [{"name": "web", "protocol": "HTTP", "protocol_port": 80,
            "amphora": {"default_pools": named(["stable", "canary"])},
            "l7policies": [policy(true, ["blue", "canary"]), policy(false, ["green", "blue"])]}],
    }});
    let made = stage.must(POST, LBS, body).await["loadbalancer"].clone();
    stage.settle().await;
    let (id, listener) = (made["id"].as_str().unwrap(), made["listeners"][0]["id"].as_str().unwrap());
    let all = stage.get("/v2/lbaas/pools").await["pools"].clone();
    let of = |name: &str| all.as_array().unwrap().iter().find(|pool| pool["name"] == name).unwrap().clone();
    let listeners = |name: &str| of(name)["listeners"].as_array().unwrap().len();
    // A policy that is disabled uses none.
    let names = ["stable", "canary", "blue", "green", "unused"];
    assert_eq!(names.map(listeners), [1, 1, 1, 0, 0]);
    assert_eq!(of("canary")["listeners"], json!([{"id": listener}]));
    let status = stage.get(&format!("{LBS}/{id}/status")).await["statuses"]["loadbalancer"].clone();
    let told = &status["listeners"][0]["pools"];
    let members = |pool: &Value| pool["members"].as_array().unwrap().len();
    let told = told.as_array().unwrap().iter().map(|pool| (pool["name"].as_str().unwrap(), members(pool)));
    let told: std::collections::BTreeSet<_> = told.collect();
    assert_eq!(told, [("blue", 0), ("canary", 0), ("stable", 1)].into());
    let balancer = stage.get(&format!("{LBS}/{id}")).await["loadbalancer"].clone();
    assert_eq!(balancer["pools"].as_array().unwrap().len(), 5);

    // By id it is the same, and a change of a pool is one of its listeners.
    let share = |name: &str| json!({"pool_id": of(name)["id"], "weight": 1});
    let pools = json!({"amphora": {"default_pools": [share("stable"), share("unused")]}});
    stage.must(Method::PUT, &format!("/v2/lbaas/listeners/{listener}"), json!({ "listener": pools })).await;
    stage.settle().await;
    let path = format!("/v2/lbaas/pools/{}", of("unused")["id"].as_str().unwrap());
    assert_eq!(stage.get(&path).await["pool"]["listeners"], json!([{"id": listener}]));
    for (name, pends) in [("unused", true), ("blue", true), ("canary", true), ("stable", true)] {
        let path = format!("/v2/lbaas/pools/{}", of(name)["id"].as_str().unwrap());
        stage.must(Method::PUT, &path, json!({"pool": {"description": "changed"}})).await;
        let listener = &stage.get(&format!("/v2/lbaas/listeners/{listener}")).await["listener"];
        assert_eq!(listener["provisioning_status"] == "PENDING_UPDATE", pends, "{name}");
        stage.settle().await;
    }
}

#[tokio::test]
async fn what_others_need_is_not_taken_from_under_them() {
    let stage = Stage::new("");
    let monitor = json!({"type": "TCP", "delay": 5, "timeout": 3, "max_retries": 2});
    let pool = |name: &str, more: Value| {
        let mut pool = json!({"name": name, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"});
        pool.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        pool
    };
    let cookies = json!({"protocol": "PROXY", "session_persistence": {"type": "HTTP_COOKIE"}});
    let made = stage
        .must(
            POST,
            LBS,
            json!({"loadbalancer": {
                "name": "needs", "vip_subnet_id": stage.subnet,
                "pools": [pool("checked", json!({"healthmonitor": monitor, "amphora": {"first_check": true}})),
                    pool("sticky", cookies)],
                "listeners": [
                    {"protocol": "HTTP", "protocol_port": 80, "default_pool": {"name": "sticky"}},
                    {"protocol": "TCP", "protocol_port": 81, "default_pool": {"name": "sticky"}}],
            }}),
        )
        .await["loadbalancer"]
        .clone();
    let of = |list: &str, name: &str, value: Value| {
        let all = made[list].as_array().unwrap();
        all.iter().find(|object| object[name] == value).unwrap()["id"].as_str().unwrap().to_owned()
    };
    let checked = format!("/v2/lbaas/pools/{}", of("pools", "name", json!("checked")));
    let monitor = stage.get(&checked).await["pool"]["healthmonitor_id"].as_str().unwrap().to_owned();
    let monitor = format!("/v2/lbaas/healthmonitors/{monitor}");
    let listener = format!("/v2/lbaas/listeners/{}", of("listeners", "protocol", json!("HTTP")));
    for (path, reason) in [(&monitor, "first_check"), (&listener, "session persistence")] {
        let (status, refused) = stage.ask(Method::DELETE, path, Value::Null).await;
        assert!(status == 400 && refused.to_string().contains(reason), "{path}: {status} {refused}");
    }
    // Of what is in ERROR all may be taken away.
    stage.execute("UPDATE load_balancer SET provisioning_status = 'ERROR'").await;
    assert_eq!(stage.ask(Method::DELETE, &listener, Value::Null).await.0, 204);
}

#[tokio::test]
async fn what_is_too_much_for_an_amphora_is_refused_before_it_is_written() {
    let stage = Stage::new("");
    let rule = json!({"metric": "REQUESTS", "threshold": 1});
    let limit = |rules: usize| json!({"action": "DENY", "rules": vec![rule.clone(); rules]});
    let body = |listener: Value| {
        let listener = json!({"protocol": "HTTP", "protocol_port": 80, "rate_limit_policies": listener["limits"],
            "l7policies": listener["policies"]});
        json!({"loadbalancer": {"name": "much", "vip_subnet_id": stage.subnet, "listeners": [listener]}})
    };
    let answer = json!({"amphora": {"action": "ANSWER", "answer": {"status": 200, "body": "\u{1}".repeat(16_000)}},
        "rules": [{"type": "PATH", "compare_type": "EQUAL_TO", "value": "/"}]});
    for (listener, reason) in [
        (json!({"limits": [limit(9_000)]}), "A rate limit policy has at most 8 rules."),
        (json!({"limits": vec![limit(1); 17]}), "A listener has at most 16 rate limit policies."),
        (json!({"policies": vec![answer; 105]}), "and its amphorae take 8388608"),
        (json!({"policies": vec![json!({"action": "REJECT"}); 10_000]}), "at most 10000 are taken at once"),
    ] {
        let (status, refused) = stage.ask(POST, LBS, body(listener)).await;
        assert!(status == 400 && refused.to_string().contains(reason), "{reason}: {status} {refused}");
    }
}
