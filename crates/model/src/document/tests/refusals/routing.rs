//! What stands in `amphora` of where requests go.

use serde_json::{Value, json};

use super::{super::accept, *};
use crate::{PoolCookie, PoolId, PoolShare, WeightedPools};

/// The base with a second pool of HTTP, and the first listener on two pools.
fn shared() -> Value {
    let mut document = base();
    let mut other = document["loadbalancer"]["pools"][0].clone();
    other["id"] = json!(id(22));
    other["name"] = json!("canary");
    other.as_object_mut().unwrap().remove("healthmonitor");
    other.as_object_mut().unwrap().remove("members");
    document["loadbalancer"]["pools"].as_array_mut().unwrap().push(other);
    let listener = &mut document["loadbalancer"]["listeners"][0];
    listener.as_object_mut().unwrap().remove("default_pool_id");
    listener["amphora"] = json!({ "default_pools": both() });
    document
}

fn both() -> Value {
    json!([{ "pool_id": id(20), "weight": 9 }, { "pool": { "name": "canary" }, "weight": 1 }])
}

/// Each sets a value at a pointer of [`shared`] below the first listener; one fault comes of it.
fn refused_of_listener(cases: &[(&str, Value, &str, &str)]) {
    for (pointer, value, path, reason) in cases {
        let mut document = shared();
        set(&mut document, &format!("/listeners/0{pointer}"), value.clone());
        let found = faults(&document);
        let start = format!("loadbalancer.listeners[0]{path}: ");
        assert!(
            found.len() == 1 && found[0].starts_with(&start) && found[0].contains(reason),
            "{pointer} = {value}: expected {start}..{reason}.., found {found:#?}"
        );
    }
}

#[test]
fn several_pools() {
    let share = |n: u32, weight| PoolShare { pool: id(n).parse::<PoolId>().unwrap(), weight };
    let lb = accept(&shared());
    let expected = WeightedPools { shares: vec![share(20, 9), share(22, 1)], cookie: None };
    assert_eq!(lb.listeners[0].routing.pools, Some(expected));
    assert_eq!(lb.listeners[0].default_pool, None);
    let mut sticky = shared();
    sticky["loadbalancer"]["listeners"][0]["amphora"]["pool_persistence"] =
        json!({ "cookie_name": "v", "max_age": 60 });
    let lb = accept(&sticky);
    let cookie = lb.listeners[0].routing.pools.as_ref().unwrap().cookie.clone();
    assert_eq!(cookie, Some(PoolCookie { name: "v".into(), max_age: Some(60) }));

    let two = |first: Value, second: Value| json!([first, second]);
    let a = || json!({ "pool_id": id(20), "weight": 1 });
    let pools = "/amphora/default_pools";
    refused_of_listener(&[
        (pools, json!([a()]), ".amphora.default_pools", "2 to 16 pools"),
        (pools, json!([]), ".amphora.default_pools", "must not be empty"),
        (pools, two(a(), a()), ".amphora.default_pools[1]", "in the list already"),
        (pools, two(a(), json!({ "weight": 1 })), ".amphora.default_pools[1].pool_id", "is required"),
        (pools, two(a(), json!({ "pool_id": id(22) })), ".amphora.default_pools[1].weight", "is required"),
        (
            pools,
            two(a(), json!({ "pool_id": id(29), "weight": 1 })),
            ".amphora.default_pools[1].pool_id",
            "not the id",
        ),
        (
            pools,
            two(a(), json!({ "pool_id": id(22), "weight": 257 })),
            ".amphora.default_pools[1].weight",
            "0 to 256",
        ),
        (
            pools,
            two(a(), json!({ "pool_id": id(21), "weight": 1 })),
            ".amphora.default_pools[1].pool_id",
            "cannot send",
        ),
        (
            pools,
            two(json!({ "pool_id": id(20), "weight": 0 }), json!({ "pool_id": id(22), "weight": 0 })),
            ".amphora.default_pools",
            "weight above 0",
        ),
        ("/default_pool_id", json!(id(20)), ".default_pool_id", "cannot be combined"),
        ("/amphora/pool_persistence", json!({}), ".amphora.pool_persistence.cookie_name", "is required"),
        (
            "/amphora/pool_persistence",
            json!({ "cookie_name": "a b" }),
            ".amphora.pool_persistence.cookie_name",
            "",
        ),
        (
            "/amphora/pool_persistence",
            json!({ "cookie_name": "SRV" }),
            ".amphora.pool_persistence.cookie_name",
            "HTTP_COOKIE",
        ),
        (
            "/amphora/pool_persistence",
            json!({ "cookie_name": "a", "max_age": 0 }),
            ".amphora.pool_persistence.max_age",
            "1 to",
        ),
    ]);
    refused(&[
        (
            "/listeners/0/amphora",
            json!({ "pool_persistence": { "cookie_name": "a" } }),
            "listeners[0].amphora.pool_persistence",
            "without default_pools",
        ),
        (
            "/listeners/1/amphora",
            json!({ "pool_persistence": { "cookie_name": "a" } }),
            "listeners[1].amphora.pool_persistence",
            "without",
        ),
        ("/amphora", json!({ "default_pools": [] }), "amphora.default_pools", "not a field"),
    ]);
}

#[test]
fn several_pools_of_a_policy() {
    let mut document = shared();
    let policy = "/listeners/0/l7policies/0";
    set(&mut document, &format!("{policy}/action"), json!("REDIRECT_TO_POOL"));
    set(&mut document, &format!("{policy}/amphora"), json!({ "redirect_pools": both() }));
    let lb = accept(&document);
    assert_eq!(lb.listeners[0].l7policies[0].action.pools().count(), 2);
    let mut beside = document.clone();
    set(&mut beside, &format!("{policy}/redirect_pool_id"), json!(id(20)));
    assert!(faults(&beside)[0].contains("redirect_pool_id: cannot be combined"));
    set(&mut document, &format!("{policy}/action"), json!("REJECT"));
    assert!(faults(&document)[0].contains("l7policies[0].amphora: has redirect_pools"));
}
