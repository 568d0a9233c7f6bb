//! Generations, PENDING states, work, and who may do what.

use super::*;

const STATES: &str = "SELECT 'lb ' || provisioning_status || ' ' || generation FROM load_balancer \
    UNION ALL SELECT 'listener ' || provisioning_status || ' ' || generation FROM listener \
    UNION ALL SELECT 'pool ' || provisioning_status || ' ' || generation FROM pool \
    UNION ALL SELECT 'member ' || provisioning_status || ' ' || generation FROM member \
    UNION ALL SELECT 'work ' || kind FROM work";

#[tokio::test]
async fn a_change_is_of_one_generation_and_has_work() {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    assert_eq!(stage.rows(STATES).await, ["lb PENDING_CREATE 1", "work LOAD_BALANCER"]);
    stage.settle().await;
    stage.listener(&balancer, 80).await;
    assert_eq!(
        stage.rows(STATES).await,
        ["lb PENDING_UPDATE 2", "listener PENDING_CREATE 2", "work LOAD_BALANCER"]
    );
    stage.settle().await;
    let pool = stage.pool(&balancer).await;
    let listener = stage.rows("SELECT id FROM listener").await.remove(0);
    stage.must(PUT, &format!("{LISTENERS}/{listener}"), json!({"listener": {"default_pool_id": pool}})).await;
    stage.settle().await;
    let member = json!({"address": "10.0.0.1", "protocol_port": 80});
    stage.make(&format!("{POOLS}/{pool}/members"), "member", member).await;
    let expected = [
        "lb PENDING_UPDATE 5",
        "listener PENDING_UPDATE 5",
        "pool PENDING_UPDATE 5",
        "member PENDING_CREATE 5",
        "work LOAD_BALANCER",
    ];
    assert_eq!(stage.rows(STATES).await, expected);
}

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    stage.listener(&balancer, 80).await;
    stage.settle().await;
    let before = stage.rows(STATES).await;
    let body = json!({"listener": {"loadbalancer_id": balancer, "protocol": "TCP", "protocol_port": 80}});
    stage.refused(POST, LISTENERS, body, 409, "already using protocol HTTP and protocol_port 80").await;
    assert_eq!(stage.rows(STATES).await, before);
}

#[tokio::test]
async fn changes_are_folded_unless_octavia_s_way_is_asked_for() {
    for (settings, folds) in [("", true), ("[api_settings]\nstrict_immutable = True\n", false)] {
        let stage = Stage::new(settings);
        let balancer = stage.load_balancer("one").await;
        let path = format!("{LBS}/{balancer}");
        let body = json!({"loadbalancer": {"name": "two"}});
        let listener =
            json!({"listener": {"loadbalancer_id": balancer, "protocol": "HTTP", "protocol_port": 80}});
        if folds {
            stage.must(PUT, &path, body).await;
            stage.must(POST, LISTENERS, listener).await;
            assert_eq!(stage.get(&path).await["loadbalancer"]["provisioning_status"], "PENDING_CREATE");
            stage.must(DELETE, &format!("{path}?cascade=true"), Value::Null).await;
        } else {
            let text = format!("Invalid state PENDING_CREATE of loadbalancer resource {balancer}");
            stage.refused(PUT, &path, body, 409, &text).await;
            let text = format!("Load Balancer {balancer} is immutable and cannot be updated.");
            stage.refused(POST, LISTENERS, listener, 409, &text).await;
            stage.refused(DELETE, &path, Value::Null, 409, "Invalid state PENDING_CREATE").await;
        }
    }
}

#[tokio::test]
async fn nothing_to_be_done_in_what_is_pending_is_refused_like_all_else() {
    let stage = Stage::new("[api_settings]\nstrict_immutable = True\n");
    let balancer = stage.load_balancer("one").await;
    stage.settle().await;
    let pool = stage.pool(&balancer).await;
    let members = format!("{POOLS}/{pool}/members");
    stage.refused(PUT, &members, json!({"members": []}), 409, "immutable").await;
    stage.settle().await;
    stage.must(PUT, &members, json!({"members": []})).await;
}

#[tokio::test]
async fn what_is_about_to_go_is_deleted_again_and_not_changed() {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    let (listener, pool) = (stage.listener(&balancer, 80).await, stage.pool(&balancer).await);
    stage.settle().await;
    let path = format!("{LBS}/{balancer}");
    stage.refused(DELETE, &path, Value::Null, 400, "it has children").await;
    stage.must(DELETE, &format!("{path}?cascade=true"), Value::Null).await;
    for path in [path.clone(), format!("{LISTENERS}/{listener}"), format!("{POOLS}/{pool}")] {
        let answer = stage.get(&path).await;
        let object = answer.as_object().unwrap().values().next().unwrap();
        assert_eq!(object["provisioning_status"], "PENDING_DELETE", "{path}");
        stage.must(DELETE, &path, Value::Null).await;
    }
    stage.refused(PUT, &path, json!({"loadbalancer": {"name": "x"}}), 409, "PENDING_DELETE").await;
    stage.refused(PUT, &format!("{POOLS}/{pool}"), json!({"pool": {"name": "x"}}), 409, "immutable").await;
    let body = json!({"loadbalancer_id": balancer, "protocol": "HTTP", "protocol_port": 81});
    stage.refused(POST, LISTENERS, json!({"listener": body}), 409, "immutable").await;
    stage.settle().await;
    stage.refused(GET, &path, Value::Null, 404, "not found").await;
    assert_eq!(stage.rows("SELECT id FROM port").await, [""; 0], "its address is free again");
}

#[tokio::test]
async fn what_is_about_to_go_makes_room_at_once() {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    let (listener, pool) = (stage.listener(&balancer, 80).await, stage.pool(&balancer).await);
    let members = format!("{POOLS}/{pool}/members");
    let member = json!({"address": "10.0.0.1", "protocol_port": 80});
    let first = stage.make(&members, "member", member.clone()).await;
    let monitor = json!({"pool_id": pool, "type": "TCP", "delay": 5, "timeout": 3, "max_retries": 2});
    let old_monitor = stage.make(MONITORS, "healthmonitor", monitor.clone()).await;
    stage.settle().await;
    stage.refused(POST, &members, json!({"member": member}), 409, "already using ip 10.0.0.1").await;
    stage
        .refused(POST, MONITORS, json!({"healthmonitor": monitor}), 409, "already has a health monitor")
        .await;
    stage.must(DELETE, &format!("{members}/{first}"), Value::Null).await;
    stage.must(DELETE, &format!("{MONITORS}/{old_monitor}"), Value::Null).await;
    stage.must(DELETE, &format!("{LISTENERS}/{listener}"), Value::Null).await;
    assert_ne!(stage.make(&members, "member", member).await, first);
    assert_ne!(stage.make(MONITORS, "healthmonitor", monitor).await, old_monitor);
    assert_ne!(stage.listener(&balancer, 80).await, listener);
}

#[tokio::test]
async fn who_may_not_is_refused() {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    let path = format!("{LBS}/{balancer}");
    let who = |project: &str, role: &str| Context {
        project_id: Some(project.to_owned()),
        roles: vec![role.to_owned()],
        ..Context::default()
    };
    let rename = json!({"loadbalancer": {"name": "two"}});
    let failover = format!("{path}/failover");
    for (project, role, get, put, failover_status, listed) in [
        ("default", "reader", 200, 403, 403, 1),
        ("default", "member", 200, 200, 403, 1),
        ("other", "member", 403, 403, 403, 0),
        ("other", "admin", 200, 200, 202, 1),
    ] {
        let ask = async |method: Method, path: &str, body: Value| {
            let answer = stage.ask_as(who(project, role), method, path, body).await;
            answer.map_or_else(|fault| fault.status, |answer| answer.status)
        };
        let statuses = [
            ask(GET, &path, Value::Null).await,
            ask(PUT, &path, rename.clone()).await,
            ask(PUT, &failover, Value::Null).await,
        ];
        assert_eq!(statuses, [get, put, failover_status], "{role} of {project}");
        let list = stage.ask_as(who(project, role), GET, LBS, Value::Null).await.unwrap().body.unwrap();
        assert_eq!(list["loadbalancers"].as_array().unwrap().len(), listed, "{role} of {project}");
    }
}

#[tokio::test]
async fn quotas_hold() {
    let stage = Stage::new("[quotas]\ndefault_member_quota = 2\n");
    let balancer = stage.load_balancer("one").await;
    let pool = stage.pool(&balancer).await;
    stage.must(PUT, "/v2/lbaas/quotas/default", json!({"quota": {"loadbalancer": 1}})).await;
    let body = json!({"loadbalancer": {"vip_subnet_id": stage.subnet}});
    stage.refused(POST, LBS, body, 403, "Quota has been met for resources: Load Balancer").await;
    let members = format!("{POOLS}/{pool}/members");
    let three = (1..=3).map(|n| json!({"address": format!("10.0.0.{n}"), "protocol_port": 80}));
    let three: Vec<_> = three.collect();
    stage.refused(PUT, &members, json!({"members": three}), 403, "Member").await;
    stage.must(PUT, &members, json!({"members": three[..2]})).await;
    stage.must(PUT, &members, json!({"members": three[1..]})).await;
    // It has its addresses until it is gone.
    stage.must(DELETE, &format!("{LBS}/{balancer}?cascade=true"), Value::Null).await;
    let body = json!({"loadbalancer": {"vip_subnet_id": stage.subnet}});
    stage.refused(POST, LBS, body.clone(), 403, "Quota has been met for resources: Load Balancer").await;
    let gone = |t: &rusqlite::Transaction<'_>| Ok(t.execute("DELETE FROM load_balancer", [])?);
    stage.api.db.write::<_, db::Error, _>(gone).await.unwrap();
    stage.must(POST, LBS, body).await;
}

#[tokio::test]
async fn the_status_says_why_it_is_not_so_yet() {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    let path = format!("{LBS}/{balancer}/status");
    assert_eq!(stage.get(&path).await["statuses"]["loadbalancer"].get("reason"), None);
    let fail = |t: &rusqlite::Transaction<'_>| {
        Ok(t.execute("UPDATE work SET attempts = 1, reason = 'no room'", [])?)
    };
    stage.api.db.write::<_, db::Error, _>(fail).await.unwrap();
    assert_eq!(stage.get(&path).await["statuses"]["loadbalancer"]["reason"], "no room");
    stage.settle().await;
    assert_eq!(stage.get(&path).await["statuses"]["loadbalancer"].get("reason"), None);
}
