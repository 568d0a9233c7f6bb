#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::{
    health::HealthEngine,
    logs::calendar::Wall,
    snapshot,
    state::{CheckState, Failed, Registry},
};

fn id(n: u32) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

/// A listener of HTTP with two pools and three policies, and one of TCP.
fn document() -> Value {
    let member = |n: u32, more: Value| {
        let mut member = json!({ "id": id(n), "address": "127.0.0.1", "protocol_port": n });
        more.as_object().into_iter().flatten().for_each(|(name, value)| member[name] = value.clone());
        member
    };
    let policy = |n: u32, action: &str, more: Value, rules: Value| {
        let mut policy = json!({ "id": id(n), "action": action, "position": n, "rules": rules });
        more.as_object().into_iter().flatten().for_each(|(name, value)| policy[name] = value.clone());
        policy
    };
    let path = |n: u32, value: &str| json!({ "id": id(n), "type": "PATH", "compare_type": "STARTS_WITH", "value": value });
    json!({ "loadbalancer": { "id": id(1), "vip_address": "127.0.0.1", "listeners": [{
        "id": id(10), "protocol": "HTTP", "protocol_port": 80, "default_pool_id": id(20),
        "allowed_cidrs": ["192.0.2.0/24", "127.0.0.0/8"],
        "l7policies": [
            policy(30, "REDIRECT_TO_POOL", json!({ "redirect_pool_id": id(21) }), json!([
                path(40, "/api"),
                { "id": id(41), "type": "HEADER", "key": "X-Canary", "compare_type": "EQUAL_TO", "value": "yes" },
            ])),
            policy(31, "REJECT", json!({}), json!([path(42, "/admin")])),
            policy(32, "REJECT", json!({ "admin_state_up": false }), json!([path(43, "/")])),
        ],
    }, { "id": id(11), "protocol": "TCP", "protocol_port": 81, "default_pool_id": id(22) }],
    "pools": [
        { "id": id(20), "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN",
          "session_persistence": { "type": "HTTP_COOKIE" }, "members": [
            member(60, json!({})), member(61, json!({ "admin_state_up": false })), member(62, json!({ "weight": 0 })),
            member(63, json!({ "backup": true })), member(64, json!({})), member(65, json!({})),
        ] },
        { "id": id(21), "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": [] },
        { "id": id(22), "protocol": "TCP", "lb_algorithm": "SOURCE_IP", "members": [
            member(70, json!({})), member(71, json!({})),
        ] },
    ] } })
}

fn ask(snapshot: &Snapshot, question: Value) -> Result<Explanation, Refusal> {
    let health = HealthEngine::start(1, 16).unwrap();
    let (now, health) = (Instant::now(), health.assignments());
    let moment = member_reports::Moment::new(now, Wall::now(), &[], &health);
    let explainer = Explainer { snapshot, moment, epoch: now - Duration::from_secs(1) };
    explainer.explain(&serde_json::from_value(question).unwrap())
}

fn snapshot() -> Snapshot {
    let model = LoadBalancer::from_value(&document()).unwrap();
    let source = snapshot::TlsSource::default();
    snapshot::compile(Arc::new(model), 1, &Registry::new(1), &source).unwrap()
}

#[test]
fn a_request_is_told_its_way_and_why_it_is_no_other() {
    let snapshot = snapshot();
    let plan = &snapshot.pools[0];
    plan.members[4].state.set_health(CheckState::Down);
    plan.members[5].state.outlier.set_ejected(true);
    plan.members[5].state.failed(Failed::Status(502), &plan.member_options);
    let told = ask(&snapshot, json!({ "listener": id(10), "target": "/api/v1" })).unwrap();
    assert_eq!(told.outcome, "goes to a member");
    let policies: Vec<_> = told.policies.iter().map(|p| (p.position, p.matches, p.why_not.len())).collect();
    assert_eq!(policies, [(2, false, 1), (3, false, 1), (1, false, 1)], "those that reject come first");
    assert!(told.policies[2].why_not[0].contains("X-Canary"), "{:?}", told.policies[2].why_not);
    assert_eq!(told.policies[1].why_not, ["it is disabled"]);
    let members = &told.pools[0].members;
    let may: Vec<_> = members.iter().map(|member| member.may_get_it).collect();
    assert_eq!(may, [true, false, false, false, false, false]);
    let why: Vec<_> = members[1..].iter().map(|member| member.why_not.as_deref().unwrap_or("?")).collect();
    assert_eq!(
        why,
        [
            "it is disabled",
            "its weight is 0: it gets clients that belong to it alone",
            "it is a backup, and others are there",
            "its health checks say DOWN",
            "it is taken out as an outlier",
        ]
    );
    assert_eq!(members[5].amphora.failures[0].what, "response: status 502");

    // By its cookie a client comes to the one that drains.
    let cookie = json!([["cookie", format!("SRV={}", id(62))]]);
    let told = ask(&snapshot, json!({ "listener": id(10), "headers": cookie })).unwrap();
    assert_eq!(told.pools[0].persistent.map(|id| id.to_string()), Some(id(62)));
    let may: Vec<_> =
        told.pools[0].members.iter().filter(|m| m.may_get_it).map(|m| m.id.to_string()).collect();
    assert_eq!(may, [id(62)]);
    let first = told.pools[0].members[0].why_not.as_deref();
    assert_eq!(first, Some("the client belongs to another by session persistence"));
}

#[test]
fn session_persistence_that_is_not_followed_is_told() {
    let mut document = document();
    let pools = &mut document["loadbalancer"]["pools"];
    pools[2]["session_persistence"] = json!({ "type": "SOURCE_IP" });
    let model = LoadBalancer::from_value(&document).unwrap();
    let source = snapshot::TlsSource::default();
    let snapshot = snapshot::compile(Arc::new(model), 1, &Registry::new(1), &source).unwrap();
    let member = |pool: usize, n: usize| &snapshot.pools[pool].members[n].state;
    member(0, 4).set_health(CheckState::Down);
    member(0, 5).outlier.set_ejected(true);
    let told = |n: u32| {
        let cookie = json!([["cookie", format!("a=b; SRV={}", id(n))]]);
        ask(&snapshot, json!({ "listener": id(10), "headers": cookie })).unwrap()
    };
    for (n, named, why) in [
        (64, true, "its health checks say DOWN"),
        (65, true, "it is taken out as an outlier"),
        (61, true, "it is disabled"),
        (99, false, "no member of this pool is known by it"),
    ] {
        let told = told(n);
        let member = named.then(|| id(n).parse().unwrap());
        let expected = NotFollowed { by: "cookie SRV".to_owned(), member, why: why.to_owned() };
        assert_eq!(told.pools[0].not_followed, Some(expected), "{n}");
        assert_eq!((told.pools[0].persistent, &*told.outcome), (None, "goes to a member"));
        assert!(told.pools[0].members[0].may_get_it);
    }
    assert_eq!(told(60).pools[0].not_followed, None, "it is followed");

    let Some(Persistence::Source(stick)) = &snapshot.pools[2].persistence else { panic!() };
    let told = || ask(&snapshot, json!({ "listener": id(11), "client": "127.0.0.9" })).unwrap();
    assert_eq!(told().pools[0].not_followed, None, "nothing is known of it");
    stick.store(stick.state().source_key("127.0.0.9".parse().unwrap()), 1, 1);
    assert_eq!(told().pools[0].persistent.map(|id| id.to_string()), Some(id(71)));
    member(2, 1).set_health(CheckState::Down);
    let (by, why) = ("address 127.0.0.9".to_owned(), "its health checks say DOWN".to_owned());
    let expected = NotFollowed { by, member: Some(id(71).parse().unwrap()), why };
    let told = told();
    assert_eq!((told.pools[0].persistent, told.pools[0].not_followed.clone()), (None, Some(expected)));
    assert!(told.pools[0].members[0].may_get_it);
}

#[test]
fn a_target_names_the_host() {
    let snapshot = snapshot();
    let outcome = |question: Value| ask(&snapshot, question).unwrap().outcome;
    for target in [
        "http://www.example.org/x",
        "http://www.example.org:8080/?x",
        "HTTP://[2001:db8::1]/",
        "/a?b=http://c/",
    ] {
        assert_eq!(outcome(json!({ "listener": id(10), "target": target })), "goes to a member", "{target}");
    }
    let other = json!({ "listener": id(10), "target": "http://a/", "headers": [["Host", "b"]] });
    assert_eq!(outcome(other), "refused with 400: Host differs from the authority of the target");
    let tunnel = json!({ "listener": id(10), "method": "CONNECT", "target": "a:443" });
    assert!(outcome(tunnel).starts_with("refused with 405: "));
}

#[test]
fn what_goes_to_no_member_is_told_why() {
    let snapshot = snapshot();
    let outcome = |question: Value| ask(&snapshot, question).unwrap().outcome;
    let by = format!("answered with 403 by policy {}", id(31));
    assert_eq!(outcome(json!({ "listener": id(10), "target": "/admin" })), by);
    let canary = json!([["x-canary", "yes"]]);
    let empty = json!({ "listener": id(10), "target": "/api", "headers": canary });
    assert_eq!(outcome(empty), "answered with 503: no member may be used");
    let away = json!({ "listener": id(10), "client": "198.51.100.1" });
    assert_eq!(outcome(away), "closed: allowed_cidrs does not let the client in");
    let odd = json!({ "listener": id(10), "headers": [["Host", "a"], ["Host", "b"]] });
    assert!(outcome(odd).starts_with("refused with 400"), "a request is read as any");
    for question in [
        json!({ "listener": id(99) }),
        json!({ "listener": id(10), "target": "/ HTTP/1.1\r\nX: y" }),
        json!({ "listener": id(10), "headers": [["a", "b\r\nc: d"]] }),
    ] {
        assert!(ask(&snapshot, question.clone()).is_err(), "{question}");
    }
    let told = ask(&snapshot, json!({ "listener": id(11), "client": "127.0.0.9" })).unwrap();
    let may = told.pools[0].members.iter().filter(|member| member.may_get_it).count();
    assert_eq!((told.policies.len(), may), (0, 1), "by its address");
}

#[test]
fn several_pools_edits_and_answers_are_told() {
    let mut document = document();
    let listener = &mut document["loadbalancer"]["listeners"][0];
    listener.as_object_mut().unwrap().remove("default_pool_id");
    let share = |n: u32, weight: u32| json!({ "pool_id": id(n), "weight": weight });
    listener["amphora"] = json!({
        "default_pools": [share(20, 9), share(21, 1)], "pool_persistence": { "cookie_name": "v" },
    });
    let policies = listener["l7policies"].as_array_mut().unwrap();
    let path = |n: u32, value: &str| json!([{ "id": id(n), "type": "PATH", "compare_type": "STARTS_WITH", "value": value }]);
    policies.push(json!({ "id": id(33), "position": 33, "rules": path(44, "/old"), "amphora": { "action": "EDIT", "edits": {
        "path": { "prefix": "/old", "replacement": "/new" }, "host": "inner",
    } } }));
    policies.push(
        json!({ "id": id(35), "position": 35, "action": "REDIRECT_TO_URL", "redirect_url": "http://other/",
        "redirect_http_code": 302, "rules": path(46, "/away") }),
    );
    policies.push(json!({ "id": id(34), "name": "tea", "position": 34, "rules": path(45, "/tea"), "amphora": { "action": "ANSWER", "answer": {
        "status": 418,
    } } }));
    let model = LoadBalancer::from_value(&document).unwrap();
    let source = snapshot::TlsSource::default();
    let snapshot = snapshot::compile(Arc::new(model), 1, &Registry::new(1), &source).unwrap();
    let told = |target: &str, cookie: &str| {
        ask(&snapshot, json!({ "listener": id(10), "target": target, "headers": [["Cookie", cookie]] }))
            .unwrap()
    };
    let pools = |told: &Explanation| -> Vec<(String, Option<u16>)> {
        told.pools.iter().map(|pool| (pool.id.to_string(), pool.weight)).collect()
    };
    let both = told("/", "a=b");
    assert_eq!(both.outcome, "goes to a member");
    assert_eq!(pools(&both), [(id(20), Some(9)), (id(21), Some(1))]);
    // What a client of the first has been given, and one of the second, which has nobody.
    let split = snapshot.listeners[0].splits.as_ref().unwrap().default().unwrap();
    let given = |able: usize| {
        let chosen = split.choose(0, std::iter::empty(), |pool| pool == able).unwrap();
        String::from_utf8(chosen.set_cookie.unwrap().to_vec()).unwrap().split(';').next().unwrap().to_owned()
    };
    assert_eq!(pools(&told("/", &given(0))), [(id(20), Some(9))]);
    let not_followed = |pool: Option<u32>, why: &str| {
        let (by, pool) = ("cookie v".to_owned(), pool.map(|n| id(n).parse().unwrap()));
        Some(PoolNotFollowed { by, pool, name: String::new(), why: why.to_owned() })
    };
    let to_nobody = told("/", &given(1));
    assert_eq!(pools(&to_nobody), [(id(20), Some(9)), (id(21), Some(1))]);
    assert_eq!(to_nobody.pool_not_followed, not_followed(Some(21), "it has no member that could be chosen"));
    assert_eq!(
        told("/", "a=b; v=x").pool_not_followed,
        not_followed(None, "none of these pools is known by it")
    );
    for gone_by in ["a=b", &given(0), &format!("{}; {}", given(1), given(0))] {
        assert_eq!(told("/", gone_by).pool_not_followed, None, "{gone_by}");
    }
    assert_eq!(told("/old/x", "").outcome, "goes to a member, with the path /new/x, for the host inner");
    assert_eq!(told("/tea", "").outcome, "answered with 418 by policy tea");
    let there = format!("redirected with 302 to http://other/ by policy {}", id(35));
    assert_eq!(told("/away", "").outcome, there);
    document["loadbalancer"]["pools"][1]["admin_state_up"] = json!(false);
    let model = LoadBalancer::from_value(&document).unwrap();
    let snapshot = snapshot::compile(Arc::new(model), 1, &Registry::new(1), &source).unwrap();
    let question = json!({ "listener": id(10), "headers": [["Cookie", given(1)]] });
    let told = ask(&snapshot, question).unwrap();
    assert_eq!(told.pool_not_followed, not_followed(Some(21), "it is disabled"));
}

/// The document with these rate limits at its listener of HTTP.
fn limited(policies: Value) -> Snapshot {
    let mut document = document();
    document["loadbalancer"]["listeners"][0]["rate_limit_policies"] = policies;
    let model = LoadBalancer::from_value(&document).unwrap();
    let source = snapshot::TlsSource::default();
    snapshot::compile(Arc::new(model), 1, &Registry::new(1), &source).unwrap()
}

#[test]
fn who_has_asked_too_much_is_told_so_and_nobody_else() {
    let rule = |n: u32, metric: &str, urls: Value| {
        let mut rule = json!({ "id": id(n), "metric": metric, "threshold": 2, "interval": 86400 });
        if !urls.is_null() {
            rule["urls"] = urls;
        }
        json!([rule])
    };
    let policy = |n: u32, action: &str, rules: Value| json!({ "id": id(n), "name": format!("limit {n}"), "action": action, "rules": rules });
    let snapshot = limited(json!([
        policy(80, "REJECT", rule(90, "REQUESTS_PER_URL", json!(["/login"]))),
        policy(81, "DENY", rule(91, "REQUESTS", Value::Null)),
    ]));
    let limits = snapshot.listeners[0].limits.clone().unwrap();
    let client: IpAddr = "192.0.2.7".parse().unwrap();
    let of = limits.client(client);
    let told = |client: &str, target: &str| {
        ask(&snapshot, json!({ "listener": id(10), "client": client, "target": target })).unwrap()
    };
    for asked in 0..2 {
        let told = told("192.0.2.7", "/login");
        let counts: Vec<_> = told.rate_limits.iter().map(|limit| limit.counts[0].count).collect();
        assert_eq!(counts, [Some(asked), Some(asked)]);
        assert_eq!(told.outcome, "goes to a member");
        // As long after the clock's beginning as who is asked here believes.
        let now = rate::Moment::after(Duration::from_secs(1));
        assert!(limits.request(of, of, b"/login", now).is_none());
    }
    let login = told("192.0.2.7", "/login");
    assert_eq!(login.outcome, "closed by rate limit limit 80", "the first does it");
    assert_eq!(login.rate_limits[0].verdict.as_deref(), Some("closed"));
    assert!(login.policies.is_empty() && login.pools.is_empty(), "it comes no further");
    let other = told("192.0.2.7", "/other");
    assert_eq!(other.outcome, "answered with 429 by rate limit limit 81");
    assert_eq!(other.rate_limits[0].counts[0].count, None, "this path is not counted there");
    let count = &other.rate_limits[1].counts[0];
    assert_eq!((&count.client[..], count.count, count.threshold), ("192.0.2.7", Some(2), 2));
    assert_eq!(told("192.0.2.8", "/login").outcome, "goes to a member");
}

#[test]
fn a_certificate_is_for_those_who_are_asked_for_one() {
    let snapshot = snapshot();
    for certificate in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let question = json!({ "listener": id(10), "certificate": certificate });
        let refused = ask(&snapshot, question).unwrap_err();
        assert_eq!(refused.faults[0].path, "certificate", "{certificate}");
    }
}

/// As many rules as a load balancer may well have, and as many members: nothing is looked for once for each of them.
#[test]
fn ten_thousand_rules_and_members_take_no_more_than_that() {
    let mut document = document();
    let rule = |policy: usize, at: usize| {
        let (compare, value) = match at {
            0 => ("STARTS_WITH", format!("/policy/{policy}")),
            _ => ("REGEX", format!("^/policy/{policy}/(a+)+{at}$")),
        };
        json!({ "id": uuid::Uuid::new_v4().to_string(), "type": "PATH", "compare_type": compare, "value": value })
    };
    let policies = (0..1000).map(|policy| {
        let rules: Vec<_> = (0..10).map(|at| rule(policy, at)).collect();
        json!({ "id": uuid::Uuid::new_v4().to_string(), "action": "REJECT", "position": policy + 1, "rules": rules })
    });
    document["loadbalancer"]["listeners"][0]["l7policies"] = policies.collect();
    let members = (0..10_000_u32).map(|at| {
        let address = Ipv4Addr::from_bits(0x0a00_0000 + at).to_string();
        json!({ "id": uuid::Uuid::new_v4().to_string(), "address": address, "protocol_port": 80 })
    });
    document["loadbalancer"]["pools"][0]["members"] = members.collect();
    let model = LoadBalancer::from_value(&document).unwrap();
    let source = snapshot::TlsSource::default();
    let snapshot = snapshot::compile(Arc::new(model), 1, &Registry::new(1), &source).unwrap();
    let begun = Instant::now();
    let question = json!({ "listener": id(10), "target": format!("/policy/7/{}", "a".repeat(4000)) });
    let told = ask(&snapshot, question).unwrap();
    let took = begun.elapsed();
    assert_eq!((told.policies.len(), told.pools[0].members.len()), (1000, 10_000));
    assert!(told.pools[0].members.iter().all(|member| member.may_get_it));
    assert_eq!(told.policies[7].why_not.len(), 9, "{:?}", told.policies[7]);
    // It was a minute, and each expression may take some milliseconds.
    assert!(took < Duration::from_secs(10), "{took:?}");
}
