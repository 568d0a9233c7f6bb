//! The page for persons: what it is told, and what it is in a browser.

mod browser;
mod shown;

use super::{
    identity::HASH,
    served::{PATIENCE, Served},
    *,
};
use crate::serve::api::{page, reply::Reply};

fn wants(accept: &str) -> bool {
    let head = http::Request::builder().uri("/").header("accept", accept).body(()).unwrap().into_parts().0;
    page::is_wanted(&head.headers)
}

#[test]
fn a_browser_gets_the_page_and_clients_the_versions() {
    for browser in [
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
        "text/html, application/json;q=0.5",
        "application/json;q=0.2,TEXT/HTML;q=0.3",
    ] {
        assert!(wants(browser), "{browser}");
    }
    for client in
        ["application/json", "*/*", "", "application/json, text/html;q=0.5", "text/html;q=0", "text/*"]
    {
        assert!(!wants(client), "{client}");
    }
}

async fn ask(stage: &Stage, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = http::Request::builder().uri(path).header("host", "lb.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    stage.api.reply(&request.body(()).unwrap().into_parts().0, Bytes::new()).await
}

const HTML: (&str, &str) = ("accept", "text/html");

#[tokio::test]
async fn files_let_nothing_of_elsewhere_in() {
    let stage = Stage::new("");
    for (path, expected) in [
        ("/", "text/html; charset=utf-8"),
        ("/page/style.css", "text/css; charset=utf-8"),
        ("/page/script.js", "text/javascript; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ] {
        let Reply::Text { kind, headers, text } = ask(&stage, path, &[HTML]).await else { panic!("{path}") };
        assert_eq!(kind, expected);
        let policy = headers.iter().find(|(name, _)| *name == "content-security-policy").unwrap();
        assert!(policy.1.starts_with("default-src 'none'; script-src 'self'"), "{policy:?}");
        let text = std::str::from_utf8(&text).unwrap();
        for never in
            ["innerHTML", "insertAdjacent", "document.write", "eval(", "style=\"", "onclick=", "//cdn"]
        {
            assert!(!text.contains(never), "{path} has {never}");
        }
        let foreign = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!foreign.contains("http://") && !foreign.contains("https://"), "{path}");
    }
    let versions = ask(&stage, "/", &[("accept", "application/json")]).await;
    assert!(matches!(versions, Reply::Json(answer) if answer.body.as_ref().unwrap()["versions"].is_array()));
    assert_eq!(ask(&stage, "/page/other.js", &[]).await.status(), 404);
}

#[tokio::test]
async fn who_may_see_what() {
    let users = format!("[users]\nalice = shop member {HASH}\nroot = admin admin {HASH}\n");
    let stage = Stage::new(&format!("[api_settings]\nauth_strategy = http_basic\n{users}"));
    let basic =
        |name: &str| format!("Basic {}", data_encoding::BASE64.encode(format!("{name}:secret").as_bytes()));
    let shop = stage.api.shared.config.users[0].projects[0].id.clone();
    for project in [shop.as_str(), "other"] {
        let text = format!(
            "INSERT INTO load_balancer (id, project_id, name, provisioning_status, topology, compute_driver, provider, vip_address,
                vip_port_id, vip_subnet_id, vip_network_id, created_at)
                VALUES ('lb-{project}', '{project}', 'n', 'ACTIVE', 'SINGLE', 'namespaces', 'amphora', '192.0.2.1', '', '', '', 0);
             INSERT INTO amphora (id, load_balancer_id, status, compute_driver, compute_id, lb_network_ip, agent_port, cert_expiration,
                created_at) VALUES ('a-{project}', 'lb-{project}', 'ALLOCATED', 'namespaces', 'c-{project}', '127.0.0.1', 1, 0, 0);"
        );
        stage.api.db.write::<_, db::Error, _>(move |t| Ok(t.execute_batch(&text)?)).await.unwrap();
    }
    // The browser's own dialogue, at the first request.
    assert_eq!(ask(&stage, "/", &[HTML]).await.status(), 401);
    assert_eq!(ask(&stage, "/page/script.js", &[]).await.status(), 200);
    for path in ["/page/tree", "/page/rates"] {
        assert_eq!(ask(&stage, path, &[]).await.status(), 401, "{path}");
    }
    let tree = async |name: &str, query: &str| {
        let reply = ask(&stage, &format!("/page/tree{query}"), &[("authorization", &basic(name))]).await;
        let (status, body) = told(reply);
        let balancers = body["loadbalancers"].as_array().cloned().unwrap_or_default();
        let amphorae: usize = balancers.iter().map(|lb| lb["amphorae"].as_array().unwrap().len()).sum();
        (status, balancers.len(), amphorae, body["operator"].clone())
    };
    assert_eq!(tree("alice", "").await, (200, 1, 0, json!(false)));
    assert_eq!(tree("root", "").await, (200, 2, 2, json!(true)));
    assert_eq!(tree("root", "?loadbalancer_id=lb-other").await, (200, 1, 1, json!(true)));
    assert_eq!(tree("alice", "?loadbalancer_id=lb-other").await.1, 0);
    assert_eq!(tree("alice", "?project_id=other").await.0, 403);
    for (name, status, masters) in [("alice", 403, Value::Null), ("root", 200, json!({"a-other": null}))] {
        let path = "/page/masters?loadbalancer_id=lb-other";
        let Reply::Json(answer) = ask(&stage, path, &[("authorization", &basic(name))]).await else {
            panic!()
        };
        assert_eq!((answer.status, &answer.body.unwrap()["masters"]), (status, &masters), "{name}");
    }
}

#[tokio::test]
async fn rates_are_of_what_somebody_sees() {
    let stage = Stage::new("");
    let lb = stage.load_balancer("one").await;
    let other = stage.load_balancer("two").await;
    let listeners = [stage.listener(&lb, 80).await, stage.listener(&other, 80).await];
    let traffic = stage.api.traffic();
    let begin = tokio::time::Instant::now().into_std();
    for listener in &listeners {
        let stats = json!({"tx": 5000, "rx": 200, "conns": 3, "totconns": 20, "ereq": 1});
        let beat = json!({"id": "a", "seq": 1, "ver": 3, "pools": {}, "listeners": {listener: {"status": "OPEN", "stats": stats}}});
        traffic.heard(&serde_json::from_value(beat).unwrap(), begin);
    }
    let rates = async |project: &'static str, query: String| {
        let (traffic, later) = (traffic.clone(), begin + std::time::Duration::from_secs(25));
        let context = Context {
            project_id: Some(project.to_owned()),
            roles: vec!["reader".to_owned()],
            ..Context::default()
        };
        let read = move |t: &rusqlite::Transaction<'_>| {
            page::rates(t, &context, &Query::parse(&query), &traffic, later)
        };
        stage.api.db.read::<_, Fault, _>(read).await.unwrap().body.unwrap()
    };
    let all = rates("default", String::new()).await;
    assert_eq!((&all["every_seconds"], &all["bytes_out"]), (&json!(10), &json!([1000.0, 0.0])));
    assert_eq!((&all["connections"], &all["open_connections"]), (&json!([4.0, 0.0]), &json!([6, 0])));
    assert_eq!(rates("default", format!("loadbalancer_id={lb}")).await["bytes_in"], json!([20.0, 0.0]));
    assert_eq!(
        rates("another", String::new()).await["errors"],
        json!([0.0, 0.0]),
        "of no listener of its own"
    );
}

/// Status and body of what the page is told.
fn told(reply: Reply) -> (u16, Value) {
    match reply {
        Reply::Json(answer) => (answer.status, answer.body.unwrap_or_default()),
        Reply::Text { kind: "application/json", text, .. } => (200, serde_json::from_slice(&text).unwrap()),
        _ => panic!(),
    }
}

#[tokio::test]
async fn what_is_told_at_once_is_bounded() {
    let stage = Stage::new("");
    let id = stage.load_balancer("large").await;
    let pool = stage.pool(&id).await;
    let of_pool =
        json!({"loadbalancer_id": id, "protocol": "HTTP", "protocol_port": 80, "default_pool_id": pool});
    stage.make(LISTENERS, "listener", of_pool).await;
    let text = format!(
        "INSERT INTO member (id, project_id, pool_id, name, address, protocol_port, weight, provisioning_status, created_at, generation)
             WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 25000)
             SELECT 'm' || n, 'p', '{pool}', printf('%.*c', 600, 'x'), '192.0.2.' || n, 80, 1, 'ACTIVE', 0, 1 FROM n"
    );
    stage.api.db.write::<_, db::Error, _>(move |t| Ok(t.execute_batch(&text)?)).await.unwrap();
    let (status, body) = told(ask(&stage, "/page/tree", &[]).await);
    assert_eq!(status, 400, "{body}");
    stage.refused(GET, &format!("{LBS}/{id}/status"), Value::Null, 400, "too many members").await;
    // What is in pages is told.
    let members = stage.get(&format!("{POOLS}/{pool}/members?limit=10")).await;
    assert_eq!(members["members"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn a_tree_has_all_of_a_load_balancer() {
    let stage = Stage::new("");
    let id = stage.load_balancer("shop").await;
    let pool = stage.pool(&id).await;
    let listener = stage.listener(&id, 80).await;
    let member = json!({"address": "192.0.2.9", "protocol_port": 80});
    stage.make(&format!("{POOLS}/{pool}/members"), "member", member).await;
    let policy = json!({"listener_id": listener, "action": "REJECT"});
    let policy = stage.make(POLICIES, "l7policy", policy).await;
    let rule = json!({"type": "PATH", "compare_type": "STARTS_WITH", "value": "/x"});
    stage.make(&format!("{POLICIES}/{policy}/rules"), "rule", rule).await;
    stage
        .make(
            MONITORS,
            "healthmonitor",
            json!({"pool_id": pool, "type": "HTTP", "delay": 5, "timeout": 3, "max_retries": 3}),
        )
        .await;
    let (status, body) = told(ask(&stage, "/page/tree", &[]).await);
    assert_eq!(status, 200, "{body}");
    let lb = &body["loadbalancers"][0];
    assert_eq!((&lb["name"], &lb["id"]), (&json!("shop"), &json!(id)));
    assert_eq!(lb["listeners"][0]["l7policies"][0]["rules"][0]["value"], "/x");
    assert_eq!(lb["pools"][0]["members"][0]["address"], "192.0.2.9");
    assert_eq!(lb["pools"][0]["healthmonitors"][0]["type"], "HTTP");
    assert!(body["last_event_id"].as_i64().unwrap() > 0);
    assert_eq!(lb["listeners"][0]["default_pools"], Value::Null);

    // Of several pools the weights are told as well, in their order.
    let pools = [stage.pool(&id).await, pool, stage.pool(&id).await];
    let share = |at: usize, weight: u32| json!({"pool_id": pools[at], "weight": weight});
    let several = json!({"default_pools": [share(0, 9), share(1, 0)]});
    let path = format!("{LISTENERS}/{listener}");
    stage.must(PUT, &path, json!({"listener": {"amphora": several}})).await;
    stage.settle().await;
    let policy = json!({"listener_id": listener, "action": "REDIRECT_TO_POOL",
        "amphora": {"redirect_pools": [share(2, 1), share(0, 3)]},
        "rules": [{"type": "PATH", "compare_type": "STARTS_WITH", "value": "/y"}]});
    stage.make(POLICIES, "l7policy", policy).await;
    let (_, body) = told(ask(&stage, "/page/tree", &[]).await);
    let shown = &body["loadbalancers"][0]["listeners"][0];
    assert_eq!(shown["default_pools"], several["default_pools"]);
    let policies = shown["l7policies"].as_array().unwrap();
    let of_pools = policies.iter().find(|policy| policy["action"] == "REDIRECT_TO_POOL").unwrap();
    assert_eq!(of_pools["redirect_pools"], json!([share(2, 1), share(0, 3)]));
}
