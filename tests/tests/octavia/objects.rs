//! Every kind of object that the real driver sends, and what can be changed of it, with traffic after each step.

use std::{net::SocketAddr, time::Duration};

use amphora_tests::{Message, eventually};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    controller::{CONFIG, Driver, Lan, POOL, WEB, exchange, load_balancer, member, tcp, web},
    driver::{plugged, plugged_with},
};

const OTHER_POOL: &str = "66666666-6666-4666-8666-666666666669";
const MORE: &str = "44444444-4444-4444-8444-444444444449";

/// A load balancer of one listener and one pool, which tests change in place.
pub(crate) struct Subject {
    pub(crate) driver: Driver,
    pub(crate) lan: Lan,
    pub(crate) lb: Value,
}

impl Subject {
    /// Members 1 and 2 behind a listener of HTTP.
    pub(crate) fn new(driver: Driver, lan: Lan) -> Self {
        let mut lb = load_balancer(json!([web()]), json!([member(1), member(2)]));
        let mut other = member(2);
        other["id"] = "77777777-7777-4777-8777-777777777778".into();
        let other =
            json!({"id": OTHER_POOL, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": [other]});
        lb["pools"].as_array_mut().unwrap().push(other);
        let mut this = Self { driver, lan, lb };
        this.update();
        this
    }

    pub(crate) fn update(&mut self) {
        let left_out = self.driver.does("update", json!({ "lb": self.lb }));
        assert_eq!(left_out, json!([]), "listeners are left out");
    }

    /// Changes the listener.
    pub(crate) fn listener(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.lb["listeners"][0]);
        self.update();
    }

    /// Changes the pool.
    pub(crate) fn pool(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.lb["pools"][0]);
        self.update();
    }

    pub(crate) async fn get(&self, lines: &str) -> Message {
        let request = format!("GET / HTTP/1.1\r\nHost: shop.example{lines}");
        self.lan.send(vip(80), &request).await.expect("an answer")
    }

    /// Who answers six requests with these lines.
    pub(crate) async fn members(&self, lines: &str) -> String {
        let mut members = Vec::new();
        for _ in 0..6 {
            let answer = self.get(lines).await;
            assert_eq!(answer.status(), 200, "{}", answer.head);
            members.push(answer.text());
        }
        members.sort();
        members.dedup();
        members.concat()
    }
}

pub(crate) fn vip(port: u16) -> SocketAddr {
    SocketAddr::new([10, 77, 0, 100].into(), port)
}

#[tokio::test]
async fn a_listener_changes_in_every_way() {
    let Some((ground, driver, lan)) = plugged().await else { return };
    let mut subject = Subject::new(driver, lan.clone());
    assert_eq!(lan.members().await, "12");

    subject.listener(|it| {
        it["insert_headers"] =
            json!({"X-Forwarded-For": "true", "X-Forwarded-Port": "true", "X-Forwarded-Proto": "true"});
    });
    let (_, told) = lan.get(80, "/echo").await.unwrap();
    let told = told.to_ascii_lowercase();
    for line in ["x-forwarded-for: 10.77.0.1\r\n", "x-forwarded-port: 80\r\n", "x-forwarded-proto: http\r\n"]
    {
        assert!(told.contains(line), "{line}: {told}");
    }
    subject.listener(|it| it["insert_headers"] = json!({}));
    let (_, told) = lan.get(80, "/echo").await.unwrap();
    assert!(!told.to_ascii_lowercase().contains("x-forwarded"), "{told}");

    // Another pool, none, and the first again.
    subject.listener(|it| it["default_pool_id"] = OTHER_POOL.into());
    assert_eq!(lan.members().await, "2");
    subject.listener(|it| it["default_pool_id"] = Value::Null);
    assert_eq!(lan.get(80, "/").await.unwrap().0, 503);
    subject.listener(|it| it["default_pool_id"] = POOL.into());
    assert_eq!(lan.members().await, "12");

    // Who says nothing is let go once this is short.
    subject.listener(|it| it["timeout_client_data"] = 500.into());
    let silent = ground.lan.run(|| async {
        let mut stream = TcpStream::connect(vip(80)).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.is_ok()
    });
    assert!(amphora_tests::in_time("the end of a silent client", silent).await);
    subject.listener(|it| it["timeout_client_data"] = 50_000.into());

    // One that is there is all that there may be, and the next one has its turn when it goes.
    subject.listener(|it| it["connection_limit"] = 1.into());
    let (next, goes) = ground
        .lan
        .run(|| async {
            let mut first = TcpStream::connect(vip(80)).await.unwrap();
            let request = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut first, request).await.unwrap();
            let answer =
                amphora_tests::read_message(&mut first, &mut Vec::new(), true).await.unwrap().unwrap();
            assert_eq!(answer.status(), 200);
            let mut second = TcpStream::connect(vip(80)).await.unwrap();
            let mut asked = tokio::spawn(async move { exchange(&mut second, "/").await });
            let waits = tokio::time::timeout(Duration::from_millis(500), &mut asked).await.is_err();
            drop(first);
            (waits, amphora_tests::in_time("its turn", asked).await.unwrap())
        })
        .await;
    assert!(next && goes.is_some_and(|(status, _)| status == 200), "waits: {next}");
    subject.listener(|it| it["connection_limit"] = (-1).into());
    assert_eq!(lan.members().await, "12");

    // Switched off and on; the same of the whole load balancer.
    subject.listener(|it| it["admin_state_up"] = false.into());
    assert_eq!(lan.get(80, "/").await, None);
    subject.listener(|it| it["admin_state_up"] = true.into());
    assert_eq!(lan.members().await, "12");
    subject.lb["admin_state_up"] = false.into();
    subject.update();
    assert_eq!(lan.get(80, "/").await, None);
    subject.lb["admin_state_up"] = true.into();
    subject.update();
    assert_eq!(lan.members().await, "12");
}

#[tokio::test]
async fn listeners_of_other_protocols_come_and_go_beside_it() {
    let Some((ground, driver, lan)) = plugged().await else { return };
    let mut subject = Subject::new(driver, lan.clone());
    ground.certificates.issue("member", &["shop.example"]);
    Lan::secure_member(&ground.lan, 1, &ground.certificates, "member", false).await;

    // TLS of the members' own; and the metrics of the load balancer.
    let mut secure = member(1);
    (secure["id"], secure["protocol_port"]) = ("77777777-7777-4777-8777-777777777775".into(), 443.into());
    let pool = json!({"id": "66666666-6666-4666-8666-666666666665", "protocol": "HTTPS", "lb_algorithm": "SOURCE_IP", "members": [secure]});
    let https = json!({"id": MORE, "protocol": "HTTPS", "protocol_port": 443, "default_pool_id": pool["id"]});
    let metrics = json!({"id": "44444444-4444-4444-8444-444444444450", "protocol": "PROMETHEUS", "protocol_port": 8088});
    subject.lb["pools"].as_array_mut().unwrap().push(pool);
    subject.lb["listeners"] = json!([web(), tcp(), https, metrics]);
    subject.update();
    let shown = ground.certificates.read("member").0[0].to_vec();
    assert_eq!(lan.get_securely(443).await, Some((200, shown.clone())));
    assert_eq!(
        (lan.members().await, lan.get(8080, "/").await),
        ("12".to_owned(), Some((200, "1".to_owned())))
    );
    let (status, page) = lan.get(8088, "/metrics").await.unwrap();
    let series = format!("octavia_listener_http_requests_total{{listener=\"{WEB}\"");
    assert!(status == 200 && page.contains(&series), "{status} {page}");

    // One after another goes, and the others do not notice.
    for gone in ["44444444-4444-4444-8444-444444444450", MORE] {
        subject.driver.does("delete_listener", json!({"lb": subject.lb, "listener": gone}));
        subject.lb["listeners"].as_array_mut().unwrap().retain(|it| it["id"] != gone);
        assert_eq!(lan.members().await, "12");
        assert_eq!(lan.get(8088, "/metrics").await, None);
        assert_eq!(lan.get_securely(443).await.is_some(), gone != MORE);
    }
    assert_eq!(lan.get(8080, "/").await, Some((200, "1".to_owned())));
}

#[tokio::test]
async fn a_pool_and_its_members_change_in_every_way() {
    let Some((_ground, driver, lan)) = plugged().await else { return };
    let mut subject = Subject::new(driver, lan);
    for (algorithm, both) in [("LEAST_CONNECTIONS", true), ("SOURCE_IP", false), ("ROUND_ROBIN", true)] {
        subject.pool(|it| it["lb_algorithm"] = algorithm.into());
        assert_eq!(subject.members("").await.len() == 2, both, "{algorithm}");
    }

    // Who came once stays with his member, by whichever means, for as long as there is persistence.
    subject.pool(|it| it["session_persistence"] = json!({"type": "HTTP_COOKIE"}));
    let cookie = |answer: &Message| {
        let cookie = answer.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        (answer.text(), format!("\r\nCookie: {cookie}"))
    };
    let (first, line) = cookie(&subject.get("").await);
    assert_eq!((subject.members(&line).await, subject.members("").await), (first, "12".to_owned()));
    subject.pool(|it| it["session_persistence"] = json!({"type": "APP_COOKIE", "cookie_name": "SESSION"}));
    let request = "GET /session HTTP/1.1\r\nHost: shop.example";
    let (first, line) = cookie(&subject.lan.send(vip(80), request).await.unwrap());
    assert_eq!(subject.members(&line).await, first);
    subject.pool(|it| it["session_persistence"] = json!({"type": "SOURCE_IP"}));
    assert_eq!(subject.members("").await.len(), 1);
    subject.pool(|it| it["session_persistence"] = Value::Null);
    assert_eq!(subject.members("").await, "12");

    // Members: switched off; for when no other is there; nobody at its port; another port.
    subject.pool(|it| it["members"][0]["admin_state_up"] = false.into());
    assert_eq!(subject.members("").await, "2");
    subject.pool(|it| it["members"][0] = member(1));
    subject.pool(|it| it["members"][0]["backup"] = true.into());
    assert_eq!(subject.members("").await, "2");
    subject.pool(|it| it["members"][1]["admin_state_up"] = false.into());
    assert_eq!(subject.members("").await, "1");
    subject.pool(|it| it["members"] = json!([member(1)]));
    subject.pool(|it| it["members"][0]["protocol_port"] = 81.into());
    assert_eq!(subject.get("").await.status(), 503);
    subject.pool(|it| it["members"] = json!([member(1), member(2)]));
    assert_eq!(subject.members("").await, "12");
    subject.pool(|it| it["members"] = json!([]));
    assert_eq!(subject.get("").await.status(), 503);

    // The pool itself is switched off.
    subject.pool(|it| it["members"] = json!([member(1)]));
    subject.pool(|it| it["admin_state_up"] = false.into());
    assert_eq!(subject.get("").await.status(), 503);
    subject.pool(|it| it["admin_state_up"] = true.into());
    assert_eq!(subject.members("").await, "1");
}

#[tokio::test]
async fn monitors_of_every_kind_find_who_is_dead() {
    let config = CONFIG.replace("heartbeat_interval = 10", "heartbeat_interval = 1");
    let Some((ground, mut driver, lan)) = plugged_with(&config).await else { return };
    ground.certificates.issue("member", &["shop.example"]);
    Lan::secure_member(&ground.lan, 1, &ground.certificates, "member", false).await;
    driver.does("heartbeat", json!({}));
    let mut subject = Subject::new(driver, lan.clone());
    let id = |number| member(number)["id"].as_str().unwrap().to_owned();
    // Nobody has the fourth address; nobody serves at the third; the second does not speak TLS. What Octavia sends for TLS-HELLO
    // is a connection, and no more.
    for (kind, dead, port) in
        [("TCP", 3, 80), ("HTTP", 3, 80), ("PING", 4, 80), ("TLS-HELLO", 3, 443), ("HTTPS", 2, 443)]
    {
        let monitor = json!({"id": POOL, "type": kind, "delay": 1, "timeout": 1, "fall_threshold": 1, "http_method": "GET",
            "url_path": "/", "expected_codes": "200"});
        subject.pool(|it| {
            it["members"] = json!([member(1), member(dead)]);
            it["members"][0]["monitor_port"] = port.into();
            it["healthmonitor"] = monitor;
        });
        eventually(&format!("{kind}: the dead member is found"), async || {
            let told = subject.driver.does("heartbeat", json!({}))["message"]["pools"].take();
            let told = &told[format!("{POOL}:{WEB}")]["members"];
            (*told == json!({id(1): "UP", id(dead): "DOWN"})).then_some(())
        })
        .await;
        assert_eq!(lan.members().await, "1", "{kind}");
        subject.pool(|it| it["healthmonitor"] = Value::Null);
        let told = eventually(&format!("{kind}: it is not looked any more"), async || {
            let told = subject.driver.does("heartbeat", json!({}))["message"]["pools"].take();
            let told = told[format!("{POOL}:{WEB}")]["members"].clone();
            (told[id(1)] == "no check").then_some(told)
        })
        .await;
        assert_eq!(told, json!({id(1): "no check", id(dead): "no check"}), "{kind}");
    }

    // What it wants to hear is changed: nobody says that.
    subject.pool(|it| {
        it["members"] = json!([member(1), member(2)]);
        it["healthmonitor"] = json!({"id": POOL, "type": "HTTP", "delay": 1, "timeout": 1, "fall_threshold": 1, "http_method": "GET",
            "url_path": "/", "expected_codes": "200-204"});
    });
    assert_eq!(lan.members().await, "12");
    subject.pool(|it| it["healthmonitor"]["expected_codes"] = "418".into());
    eventually("nobody is good enough", async || (lan.get(80, "/").await.unwrap().0 == 503).then_some(()))
        .await;
    subject.pool(|it| it["healthmonitor"]["enabled"] = false.into());
    eventually("nobody asks", async || (lan.get(80, "/").await.unwrap().0 == 200).then_some(())).await;
    assert_eq!(lan.members().await, "12");
}

/// HAProxy has a backend for it, checks its members, and says so; so the controller hears of it.
#[tokio::test]
async fn a_pool_that_nothing_leads_to_is_checked_and_told_of() {
    let config = CONFIG.replace("heartbeat_interval = 10", "heartbeat_interval = 1");
    let Some((_ground, mut driver, lan)) = plugged_with(&config).await else { return };
    driver.does("heartbeat", json!({}));
    let mut subject = Subject::new(driver, lan);
    let mut redirect = policy(1, "REDIRECT_TO_POOL", json!([rule("PATH", "STARTS_WITH", None, "/no")]));
    redirect["redirect_pool_id"] = OTHER_POOL.into();
    let mut dead = member(3);
    dead["id"] = "77777777-7777-4777-8777-77777777777a".into();
    subject.lb["listeners"][0] = tcp();
    subject.lb["listeners"][0]["l7policies"] = json!([redirect]);
    let pools = subject.lb["pools"].as_array_mut().unwrap();
    let other = pools.iter_mut().find(|pool| pool["id"] == OTHER_POOL).unwrap();
    other["protocol"] = "TCP".into();
    other["members"].as_array_mut().unwrap().push(dead);
    other["healthmonitor"] =
        json!({"id": OTHER_POOL, "type": "TCP", "delay": 1, "timeout": 1, "fall_threshold": 1});
    subject.update();
    let listener = tcp()["id"].as_str().unwrap().to_owned();
    eventually("the dead member is told of", async || {
        let told = subject.driver.does("heartbeat", json!({}))["message"]["pools"].take();
        let other = json!({"status": "UP", "members": {
            "77777777-7777-4777-8777-777777777778": "UP", "77777777-7777-4777-8777-77777777777a": "DOWN"}});
        (told[format!("{OTHER_POOL}:{listener}")] == other).then_some(())
    })
    .await;
}

pub(crate) fn rule(kind: &str, compare: &str, key: Option<&str>, value: &str) -> Value {
    json!({"id": "99999999-9999-4999-8999-999999999999", "type": kind, "compare_type": compare, "key": key, "value": value})
}

pub(crate) fn policy(number: u8, action: &str, rules: Value) -> Value {
    json!({"id": format!("88888888-8888-4888-8888-88888888888{number}"), "action": action, "position": number, "rules": rules})
}

#[tokio::test]
async fn rules_of_every_kind_say_whom_a_policy_is_for() {
    let Some((_ground, driver, lan)) = plugged().await else { return };
    let mut subject = Subject::new(driver, lan);
    for (rule, hit, miss) in [
        (rule("PATH", "STARTS_WITH", None, "/no"), "/nothing shop.example", "/else shop.example"),
        (rule("PATH", "EQUAL_TO", None, "/no"), "/no shop.example", "/nothing shop.example"),
        (rule("PATH", "ENDS_WITH", None, "/no"), "/a/no shop.example", "/no/a shop.example"),
        (rule("PATH", "CONTAINS", None, "no"), "/a/no/b shop.example", "/a/b shop.example"),
        (rule("PATH", "REGEX", None, "^/[a-c]+$"), "/abc shop.example", "/abcd shop.example"),
        (rule("HOST_NAME", "EQUAL_TO", None, "no.example"), "/ no.example", "/ shop.example"),
        (rule("FILE_TYPE", "EQUAL_TO", None, "php"), "/a.php shop.example", "/a.html shop.example"),
        (
            rule("HEADER", "EQUAL_TO", Some("X-Kind"), "a b"),
            "/ shop.example\r\nX-Kind: a b",
            "/ shop.example",
        ),
        (
            rule("COOKIE", "EQUAL_TO", Some("kind"), "one"),
            "/ shop.example\r\nCookie: kind=one",
            "/ shop.example",
        ),
    ] {
        for invert in [false, true] {
            let mut rule = rule.clone();
            rule["invert"] = invert.into();
            subject.listener(|it| it["l7policies"] = json!([policy(1, "REJECT", json!([rule]))]));
            for (asked, refused) in [(hit, !invert), (miss, invert)] {
                let (path, host) = asked.split_once(' ').unwrap();
                let request = format!("GET {path} HTTP/1.1\r\nHost: {host}");
                let status = subject.lan.send(vip(80), &request).await.unwrap().status();
                assert_eq!(status, if refused { 403 } else { 200 }, "{rule} {asked}");
            }
        }
    }
    // All of the rules of a policy have to hold; one that is switched off does not count, and none is for nobody.
    let mut other = rule("HOST_NAME", "EQUAL_TO", None, "no.example");
    other["id"] = "99999999-9999-4999-8999-999999999998".into();
    let both = json!([rule("PATH", "STARTS_WITH", None, "/no"), other]);
    subject.listener(|it| it["l7policies"] = json!([policy(1, "REJECT", both)]));
    assert_eq!(subject.lan.get(80, "/no").await.unwrap().0, 200);
    subject.listener(|it| it["l7policies"][0]["rules"][1]["admin_state_up"] = false.into());
    assert_eq!(subject.lan.get(80, "/no").await.unwrap().0, 403);
    subject.listener(|it| it["l7policies"][0]["rules"] = json!([]));
    assert_eq!(subject.lan.get(80, "/no").await.unwrap().0, 200);
}

#[tokio::test]
async fn policies_of_every_action_come_and_change_and_go() {
    let Some((_ground, driver, lan)) = plugged().await else { return };
    let mut subject = Subject::new(driver, lan);
    let no = || json!([rule("PATH", "STARTS_WITH", None, "/no")]);
    let ask = async |subject: &Subject| {
        let answer = subject.lan.send(vip(80), "GET /no/a HTTP/1.1\r\nHost: shop.example").await.unwrap();
        (answer.status(), answer.field("location").unwrap_or_default().to_owned(), answer.text())
    };
    let mut redirect = policy(1, "REDIRECT_TO_POOL", no());
    redirect["redirect_pool_id"] = OTHER_POOL.into();
    subject.listener(|it| it["l7policies"] = json!([redirect]));
    for _ in 0..4 {
        assert_eq!(ask(&subject).await, (200, String::new(), "2".to_owned()));
    }
    assert_eq!(subject.members("").await, "12");

    let mut url = policy(1, "REDIRECT_TO_URL", no());
    url["redirect_url"] = "https://other.example/x?a=1&b=2".into();
    subject.listener(|it| it["l7policies"] = json!([url]));
    let (status, location, _) = ask(&subject).await;
    assert_eq!((status, location.as_str()), (302, "https://other.example/x?a=1&b=2"));
    subject.listener(|it| it["l7policies"][0]["redirect_http_code"] = 308.into());
    assert_eq!(ask(&subject).await.0, 308);

    // A second one comes first once it has the first position.
    let mut prefix = policy(2, "REDIRECT_PREFIX", no());
    prefix["rules"][0]["id"] = "99999999-9999-4999-8999-999999999998".into();
    prefix["redirect_prefix"] = "https://new.example/base".into();
    subject.listener(|it| it["l7policies"].as_array_mut().unwrap().push(prefix));
    assert_eq!(ask(&subject).await.0, 308);
    subject.listener(|it| {
        (it["l7policies"][0]["position"], it["l7policies"][1]["position"]) = (2.into(), 1.into())
    });
    let (status, location, _) = ask(&subject).await;
    assert_eq!((status, location.as_str()), (302, "https://new.example/base/no/a"));
    subject.listener(|it| it["l7policies"][1]["admin_state_up"] = false.into());
    assert_eq!(ask(&subject).await.0, 308);
    subject.listener(|it| it["l7policies"] = json!([policy(1, "REJECT", no())]));
    assert_eq!(ask(&subject).await.0, 403);
    subject.listener(|it| it["l7policies"] = json!([]));
    assert_eq!((ask(&subject).await.0, subject.members("").await), (200, "12".to_owned()));
}
