//! What is exported is what there is: made of it again it is the same, and Octavia's own types take it.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::{
    super::export::{Exported, NotExported, export},
    *,
};
use crate::{
    cmd::export::{Options, run},
    error::Error,
};

async fn exported(stage: &Stage) -> Vec<Exported> {
    stage.api.db.read::<_, NotExported, _>(|t| export(t, &[])).await.unwrap()
}

fn bring_certificates(stage: &Stage) {
    let clients = certificates::authority("clients");
    for (name, text) in [
        ("shop", certificates::identity()),
        ("gone", certificates::identity()),
        ("clients", clients.pem()),
        ("members", certificates::authority("members").pem()),
    ] {
        fs::write(stage.certificates().join(format!("{name}.pem")), text).unwrap();
    }
}

/// One with all that a load balancer can have.
async fn full(stage: &Stage) {
    bring_certificates(stage);
    let subnets = stage.get("/v2.0/subnets?ip_version=6").await;
    let further = subnets["subnets"][0]["id"].clone();
    let members = json!([
        {"name": "a", "address": "192.0.2.50", "protocol_port": 80, "weight": 7, "tags": ["x"], "subnet_id": stage.subnet},
        {"address": "2001:db8::50", "protocol_port": 81, "backup": true, "admin_state_up": false, "monitor_address": "192.0.2.51", "monitor_port": 8080},
    ]);
    let body = json!({"loadbalancer": {
        "name": "all", "description": "of it", "vip_subnet_id": stage.subnet, "tags": ["one", "two"], "project_id": "p",
        "additional_vips": [{"subnet_id": further}],
        "listeners": [
            {"name": "web", "protocol": "HTTP", "protocol_port": 80, "connection_limit": 500, "allowed_cidrs": ["192.0.2.0/24"],
             "insert_headers": {"X-Forwarded-For": "true"}, "timeout_client_data": 1234, "default_pool": {"name": "web"},
             "l7policies": [
                {"name": "to", "action": "REDIRECT_TO_POOL", "redirect_pool": {"name": "api"}, "rules": [
                    {"type": "PATH", "compare_type": "STARTS_WITH", "value": "/api", "invert": true},
                    {"type": "HEADER", "compare_type": "EQUAL_TO", "key": "X-Kind", "value": "7"}]},
                {"action": "REDIRECT_PREFIX", "redirect_prefix": "https://www.example.com", "redirect_http_code": 308},
                {"action": "REJECT", "admin_state_up": false}]},
            {"protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_tls_container_ref": "shop", "sni_container_refs": ["gone"],
             "client_ca_tls_container_ref": "clients", "client_authentication": "OPTIONAL", "alpn_protocols": ["http/1.1"],
             "tls_versions": ["TLSv1.3"], "hsts_max_age": 60, "hsts_preload": true, "default_pool": {"name": "api"}},
            {"protocol": "UDP", "protocol_port": 53, "default_pool": {"name": "names"}},
            {"protocol": "PROMETHEUS", "protocol_port": 9090},
        ],
        "pools": [
            {"name": "web", "protocol": "HTTP", "lb_algorithm": "LEAST_CONNECTIONS", "members": members,
             "session_persistence": {"type": "APP_COOKIE", "cookie_name": "session"},
             "healthmonitor": {"type": "HTTP", "delay": 5, "timeout": 3, "max_retries": 2, "max_retries_down": 4, "http_method": "HEAD",
                "url_path": "/health", "expected_codes": "200,202", "http_version": 1.1, "domain_name": "www.example.com"}},
            {"name": "api", "protocol": "HTTP", "lb_algorithm": "SOURCE_IP", "tls_enabled": true, "ca_tls_container_ref": "members"},
            {"name": "names", "protocol": "UDP", "lb_algorithm": "SOURCE_IP",
             "session_persistence": {"type": "SOURCE_IP", "persistence_timeout": 30, "persistence_granularity": "255.255.0.0"},
             "healthmonitor": {"type": "UDP-CONNECT", "delay": 5, "timeout": 3, "max_retries": 2}},
        ],
    }});
    stage.must(Method::POST, LBS, body).await;
    stage.settle().await;
}

/// Octavia's own types read a body, as its API does.
const TYPES: &str = "import json, sys, wsme.rest.json\n\
    from octavia.api.v2.types import load_balancer\n\
    for text in sys.stdin:\n\
    \x20   body = json.loads(text)\n\
    \x20   read = wsme.rest.json.fromjson(load_balancer.LoadBalancerRootPOST, body)\n\
    \x20   assert read.loadbalancer.to_dict(render_unsets=False), body\n\
    \x20   print('taken')\n";

/// What Octavia's types say of bodies; `None` where there is no Octavia.
fn octavia(bodies: &[&Value]) -> Option<String> {
    let python = std::env::var_os("AMPHORA_OCTAVIA_PYTHON").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/octavia-venv/bin/python"),
        Into::into,
    );
    if !python.exists() {
        eprintln!("SKIPPED: Octavia is not there (AMPHORA_OCTAVIA_PYTHON)");
        return None;
    }
    let mut child = Command::new(python)
        .args(["-W", "ignore", "-c", TYPES])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = bodies.iter().map(|body| format!("{body}\n")).collect();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(said + &String::from_utf8_lossy(&output.stderr))
}

/// Lists whose order says nothing: what was made in one request has one time.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(list) => {
            let mut list: Vec<Value> = list.iter().map(sorted).collect();
            list.sort_by_key(Value::to_string);
            list.into()
        }
        Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), sorted(value))).collect(),
        other => other.clone(),
    }
}

#[tokio::test]
async fn what_is_exported_makes_the_same_again_and_octavia_takes_it() {
    let here = Stage::new("");
    full(&here).await;
    here.load_balancer("empty").await;
    let all = exported(&here).await;
    assert_eq!(all.len(), 2);
    if let Some(said) = octavia(&all.iter().map(|one| &one.body).collect::<Vec<_>>()) {
        assert_eq!(said, "taken\ntaken\n");
    }
    let there = Stage::new("");
    bring_certificates(&there);
    for one in &all {
        there.must(Method::POST, LBS, one.body.clone()).await;
    }
    let again = exported(&there).await;
    for (first, second) in all.iter().zip(&again) {
        assert_eq!(sorted(&first.body), sorted(&second.body));
        assert_ne!(first.id, second.id);
    }
    let remarks = all[0].remarks.join("\n");
    for name in ["shop", "clients", "gone", "members"] {
        assert!(remarks.contains(name), "{remarks}");
    }
    assert!(all[0].subnets.len() == 2 && all[0].subnets.contains(&here.subnet));
}

#[tokio::test]
async fn of_several_pools_there_is_the_one_with_the_greatest_share() {
    let here = Stage::new("");
    let shares = |heavy: &str, light: &str| json!([{"pool": {"name": light}, "weight": 1}, {"pool": {"name": heavy}, "weight": 9}, {"pool": {"name": "third"}, "weight": 9}]);
    let pool = |name: &str| json!({"name": name, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"});
    let rules = json!([{"type": "PATH", "compare_type": "STARTS_WITH", "value": "/"}]);
    let body = json!({"loadbalancer": {
        "name": "several", "vip_subnet_id": here.subnet,
        "listeners": [{"name": "front", "protocol": "HTTP", "protocol_port": 80,
            "amphora": {"default_pools": shares("stable", "canary")},
            "l7policies": [{"name": "split", "action": "REDIRECT_TO_POOL", "rules": rules,
                "amphora": {"redirect_pools": shares("canary", "stable")}}]}],
        "pools": [pool("stable"), pool("canary"), pool("third")],
    }});
    here.must(Method::POST, LBS, body).await;
    here.settle().await;
    let one = exported(&here).await.remove(0);
    let listener = &one.body["loadbalancer"]["listeners"][0];
    assert_eq!(listener["default_pool"], json!({"name": "stable"}));
    assert_eq!(listener["l7policies"][0]["redirect_pool"], json!({"name": "canary"}));
    for remark in [
        "Listener front: pool stable has the greatest of its shares, and all of what comes there.",
        "L7 Policy split: pool canary has the greatest of its shares, and all of what comes there.",
    ] {
        assert!(one.remarks.iter().any(|told| told == remark), "{:?}", one.remarks);
    }
    assert!(
        one.remarks.iter().any(|told| told.starts_with("Listener front: amphora {")),
        "{:?}",
        one.remarks
    );
    if let Some(said) = octavia(&[&one.body]) {
        assert_eq!(said, "taken\n");
    }
    Stage::new("").must(Method::POST, LBS, one.body).await;
}

#[tokio::test]
async fn pools_have_names_that_differ_and_what_goes_is_left_out() {
    let stage = Stage::new("");
    let lb = stage.load_balancer("pools").await;
    let pools = [stage.pool(&lb).await, stage.pool(&lb).await, stage.pool(&lb).await];
    stage.settle().await;
    stage.must(Method::DELETE, &format!("{POOLS}/{}", pools[2]), Value::Null).await;
    let one = exported(&stage).await.remove(0);
    let names: Vec<_> =
        one.body["loadbalancer"]["pools"].as_array().unwrap().iter().map(|pool| &pool["name"]).collect();
    assert_eq!(names, [&json!(pools[0]), &json!(pools[1])]);
    let none = stage.api.db.read::<_, NotExported, _>(|t| export(t, &["x".to_owned()])).await;
    assert_eq!(none.unwrap_err().to_string(), "there is no load balancer x");
}

#[tokio::test]
async fn what_is_not_there_is_a_fault_of_the_arguments_and_subnets_of_nobody_are_told() {
    let stage = Stage::new("");
    let lb = stage.load_balancer("one").await;
    stage.settle().await;
    let output = stage.dir.path().join("export");
    let there = "2b0f9a0e-6a2e-4c0b-8f7d-5f0e2d6c3b33";
    let asked = |id: &str, data_dir: &Path, here: &str| Options {
        id: vec![id.to_owned()],
        data_dir: data_dir.to_owned(),
        api: None,
        token: None,
        ca: None,
        output: output.clone(),
        subnets: vec![(here.to_owned(), there.to_owned())],
    };
    let dir = stage.dir.path();
    let unknown = "7c0e5d44-2b1f-4f3a-8d9b-6a1e3c5b7f20";
    for (options, said) in [
        (asked(unknown, dir, &stage.subnet), format!("there is no load balancer {unknown}")),
        (
            asked(&lb, &dir.join("none"), &stage.subnet),
            "--data-dir names the directory of a `serve`".to_owned(),
        ),
    ] {
        let fault = run(&options).unwrap_err();
        assert!(matches!(&fault, Error::Usage(text) if text.contains(&said)), "{fault:?}");
    }
    let readme = run(&asked(&lb, dir, &stage.subnet)).unwrap();
    assert!(!readme.contains("--subnet"), "{readme}");
    let body = fs::read_to_string(output.join(format!("{lb}.json"))).unwrap();
    assert!(body.contains(there) && !body.contains(&stage.subnet), "{body}");
    let readme = run(&asked(&lb, dir, unknown)).unwrap();
    assert!(readme.contains(&format!("--subnet {unknown}={there} is of no use")), "{readme}");
}
