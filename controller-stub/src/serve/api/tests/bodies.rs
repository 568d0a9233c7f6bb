//! Bodies, and the tables that they follow from.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{
    super::{
        attributes::{Resource, Source},
        router::ROUTES,
    },
    *,
};

/// Columns that no attribute has: they are the worker's.
const OWN: [(&str, &str); 9] = [
    ("amphora", "agent_port"),
    ("amphora", "applied_generation"),
    ("amphora", "compute_id"),
    ("amphora", "last_update"),
    ("amphora", "topology"),
    ("amphora", "taken_at"),
    ("amphora", "trust"),
    ("amphora", "applied_document"),
    ("amphora", "applied_at"),
];

#[test]
fn tables_of_attributes_are_those_of_the_database() {
    let (_dir, connection) = db::scratch();
    let mut seen = BTreeSet::new();
    for resource in ROUTES.iter().map(|route| route.resource) {
        if !seen.insert(resource.table) {
            continue;
        }
        let mut query =
            connection.prepare(&format!("SELECT name FROM pragma_table_info('{}')", resource.table)).unwrap();
        let columns: BTreeSet<String> =
            query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let mut told = BTreeSet::new();
        for attribute in resource.attributes {
            match attribute.source {
                Source::Column => drop(told.insert(attribute.name.to_owned())),
                Source::Named(column) => drop(told.insert(column.to_owned())),
                Source::Sql(_) | Source::Nowhere => {}
            }
        }
        let own = OWN.iter().filter(|(table, _)| *table == resource.table);
        told.extend(own.map(|(_, column)| (*column).to_owned()));
        if resource.table == "amphora" {
            told.insert("compute_driver".to_owned());
        }
        assert_eq!(told, columns, "{}", resource.table);
        connection.prepare(&Resource::select(resource)).unwrap();
    }
    assert_eq!(seen.len(), 15);
}

#[tokio::test]
async fn faults_are_wsme_s() {
    let stage = Stage::new("");
    for (body, status, text) in [
        ("", 400, "Missing argument: \"load_balancer\""),
        ("{", 400, "Request is not in valid JSON format"),
        ("[]", 400, "Invalid input for field/attribute load_balancer."),
        ("{\"loadbalancers\": {}}", 400, "Unknown attribute for argument load_balancer: loadbalancers"),
        (
            "{\"loadbalancer\": {\"a\": 1, \"b\": 2}}",
            400,
            "Unknown attributes for argument load_balancer.loadbalancer: a, b",
        ),
        (
            "{\"loadbalancer\": {\"listeners\": [{\"foo\": 1}]}}",
            400,
            "Unknown attribute for argument load_balancer.loadbalancer.listeners: foo",
        ),
        (
            "{\"loadbalancer\": {\"listeners\": [{\"protocol\": \"HTTP\"}]}}",
            400,
            "Invalid input for field/attribute protocol_port. Value: 'None'. Mandatory field missing.",
        ),
        (
            "{\"loadbalancer\": {\"name\": 5}}",
            400,
            "Invalid input for field/attribute name. Value: '5'. Value should be string",
        ),
        (
            "{\"loadbalancer\": {\"admin_state_up\": \"maybe\"}}",
            400,
            "Invalid input for field/attribute load_balancer. Value: '{'loadbalancer': {'admin_state_up': 'maybe'}}'. \
             Value not an unambiguous boolean: maybe",
        ),
        (
            "{\"loadbalancer\": {}}",
            400,
            "Validation failure: VIP must contain one of: vip_port_id, vip_network_id, vip_subnet_id.",
        ),
    ] {
        let answer = stage.raw(POST, LBS, Bytes::from_static(body.as_bytes())).await;
        let said = answer.body.unwrap()["faultstring"].as_str().unwrap().to_owned();
        assert!(answer.status == status && said.starts_with(text), "{body}: {} {said}", answer.status);
    }
}

#[tokio::test]
async fn other_paths_methods_and_types_are_refused() {
    let stage = Stage::new("");
    assert_eq!(stage.ask(GET, "/v3/x", Value::Null).await.0, 404);
    assert_eq!(stage.ask(GET, "/v2/lbaas/foo", Value::Null).await.0, 404);
    let answer = stage.raw(DELETE, LBS, Bytes::new()).await;
    assert_eq!((answer.status, &answer.headers[..]), (405, &[("allow", "GET, POST".to_owned())][..]));
    stage.refused(DELETE, &format!("{LBS}/x?foo=1"), Value::Null, 400, "Unknown argument: \"foo\"").await;
    for (name, value, status) in [
        ("accept", "text/html", 406),
        ("accept", "text/html, */*;q=0.1", 200),
        ("accept", "", 200),
        ("accept", "application/json;q=0", 406),
    ] {
        let request = http::Request::builder().uri(LBS).header(name, value).body(()).unwrap();
        assert_eq!(stage.api.answer(&request.into_parts().0, Bytes::new()).await.status, status, "{value}");
    }
    let request =
        http::Request::builder().method(POST).uri(LBS).header("content-type", "text/xml").body(()).unwrap();
    assert_eq!(stage.api.answer(&request.into_parts().0, Bytes::from_static(b"<a/>")).await.status, 415);
}

#[tokio::test]
async fn versions_are_told_where_clients_look() {
    let stage = Stage::new("");
    for path in ["/", "/v2", "/v2.0", "/v2.0/"] {
        let versions = stage.get(path).await["versions"].clone();
        let last = versions.as_array().unwrap().last().unwrap().clone();
        assert_eq!((&last["id"], &last["status"]), (&json!("v2.30"), &json!("CURRENT")));
        assert_eq!(last["links"][0]["href"], "http://lb.example:9876/v2");
    }
    assert_eq!(stage.get("/v2.0/loadbalancers").await, stage.get(LBS).await);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-5_i64..100_000).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "\\PC{0,8}".prop_map(Value::from),
        prop::sample::select(vec![
            "HTTP",
            "TCP",
            "UDP",
            "REJECT",
            "10.0.0.1",
            "2001:db8::1",
            "",
            "http://x/",
            "/",
            "PATH",
            "REGEX",
            "200",
            "9d1d7f0e-6a2e-4c0b-8f7d-5f0e2d6c3b33",
            "\u{0}"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever stands in a body is answered, and never with a fault of the server.
    #[test]
    fn no_body_is_a_fault_of_the_server(values in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stage = Stage::new("");
            let balancer = stage.load_balancer("one").await;
            let (listener, pool) = (stage.listener(&balancer, 80).await, stage.pool(&balancer).await);
            for route in ROUTES.iter().filter(|route| route.method == POST || route.method == PUT) {
                let path = match route.resource.table {
                    "load_balancer" => route.path.replace("{}", &balancer),
                    "listener" => route.path.replace("{}", &listener),
                    _ => route.path.replace("{}", &pool),
                };
                let mut object = json!({
                    "loadbalancer_id": balancer, "listener_id": listener, "pool_id": pool, "vip_subnet_id": stage.subnet,
                    "protocol": "HTTP", "protocol_port": 80, "lb_algorithm": "ROUND_ROBIN", "address": "10.0.0.1",
                    "type": "HTTP", "delay": 5, "timeout": 3, "max_retries": 1, "action": "REJECT", "value": "x",
                    "compare_type": "EQUAL_TO", "name": "n", "provider_name": "amphora", "flavor_data": "{}",
                    "availability_zone_data": "{}",
                });
                let known: Vec<_> = route.resource.attributes.iter().map(|attribute| attribute.name).collect();
                let map = object.as_object_mut().unwrap();
                map.retain(|name, _| known.contains(&name.as_str()));
                for (index, value) in &values {
                    map.insert(index.get(&known).to_string(), value.clone());
                }
                for body in [json!({route.resource.one: object}), json!({route.resource.many: [object]}), values[0].1.clone()] {
                    let (status, answer) = stage.ask(route.method.clone(), &format!("/v2/{path}"), body.clone()).await;
                    prop_assert!(status < 500 || status == 501, "{route:?} {body}: {status} {answer}");
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn who_says_nothing_in_place_of_a_value_is_told_what_is_wrong_with_that() {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    let (listener, pool) = (stage.listener(&balancer, 80).await, stage.pool(&balancer).await);
    let member = json!({"address": "192.0.2.9", "protocol_port": 80});
    let members = format!("{POOLS}/{pool}/members");
    let member = stage.make(&members, "member", member).await;
    let monitor = json!({"pool_id": pool, "type": "HTTP", "delay": 5, "timeout": 3, "max_retries": 2});
    let monitor = stage.make(MONITORS, "healthmonitor", monitor).await;
    let policy = stage.make(POLICIES, "l7policy", json!({"listener_id": listener, "action": "REJECT"})).await;
    let rules = format!("{POLICIES}/{policy}/rules");
    let rule = json!({"type": "PATH", "compare_type": "STARTS_WITH", "value": "/x"});
    let rule = stage.make(&rules, "rule", rule).await;
    let limits = "/v2/lbaas/ratelimitpolicies";
    let limit =
        json!({"listener_id": listener, "action": "DENY", "rules": [{"metric": "REQUESTS", "threshold": 5}]});
    let limit = stage.make(limits, "ratelimitpolicy", limit).await;
    let limiting = stage.get(&format!("{limits}/{limit}/rules")).await["rules"][0]["id"].clone();
    let profile = json!({"name": "p", "provider_name": "amphora", "flavor_data": "{}"});
    let profile = stage.make("/v2/lbaas/flavorprofiles", "flavorprofile", profile).await;
    let flavor = json!({"name": "f", "flavor_profile_id": profile});
    let flavor = stage.make("/v2/lbaas/flavors", "flavor", flavor).await;
    let paths = [
        format!("{LBS}/{balancer}"),
        format!("{LISTENERS}/{listener}"),
        format!("{POOLS}/{pool}"),
        format!("{members}/{member}"),
        format!("{MONITORS}/{monitor}"),
        format!("{POLICIES}/{policy}"),
        format!("{rules}/{rule}"),
        format!("{limits}/{limit}"),
        format!("{limits}/{limit}/rules/{}", limiting.as_str().unwrap()),
        format!("/v2/lbaas/flavorprofiles/{profile}"),
        format!("/v2/lbaas/flavors/{flavor}"),
        "/v2/lbaas/quotas/p".to_owned(),
    ];
    for path in paths {
        let Found::Route(route, _) = find(&PUT, &path) else { panic!("{path}") };
        for attribute in route.resource.attributes {
            let body = json!({route.resource.one: {attribute.name: null}});
            let (status, answer) = stage.ask(PUT, &path, body).await;
            assert!(status < 500, "{path} {}: {answer}", attribute.name);
        }
    }
}
