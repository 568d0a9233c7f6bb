//! Clients that come back to their member.

use std::collections::BTreeMap;

use amphora_tests::{Backend, Client, Document, L7Policy, L7Rule, Listener, Member, Pool, Proxy, Step};
use serde_json::json;

async fn two() -> [Backend; 2] {
    [Backend::named("a").await, Backend::named("b").await]
}

#[tokio::test]
async fn http_cookie_inserts_a_cookie_that_the_member_never_sees() {
    // A response that caches would keep: the cookie in it must not be given to others.
    let cacheable = |name: &'static str| {
        Backend::http(name, move |_| vec![Step::ReadBody, Step::response("200 OK", "ETag: \"1\"\r\n", name)])
    };
    let members = [cacheable("a").await, cacheable("b").await];
    let pool = Pool::http().members(&members).with("session_persistence", json!({ "type": "HTTP_COOKIE" }));
    let mut proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    for _ in 0..4 {
        let first = proxy.client().await.get("/").await;
        let cookie = first.field("set-cookie").unwrap().to_owned();
        let id =
            cookie.strip_prefix("SRV=").and_then(|rest| rest.strip_suffix("; path=/")).unwrap().to_owned();
        assert_eq!(first.field("cache-control"), Some("private"));
        let index = if first.text() == "a" { 0 } else { 1 };
        assert_eq!(id, proxy.document.pools[0].members[index].id.to_string());
        for _ in 0..5 {
            let lines = format!("Cookie: x=1; SRV={id}; y=2\r\n");
            let again = proxy.client().await.get_with("/", &lines).await;
            assert_eq!(again.text(), first.text());
            assert!(!again.has("set-cookie") && !again.has("cache-control"), "{}", again.head);
            let request = members[index].last_request();
            assert_eq!(request.field("cookie"), Some("x=1; y=2"));
        }
        let alone = proxy.client().await.get_with("/", &format!("Cookie: SRV={id}\r\n")).await;
        assert_eq!(alone.text(), first.text());
        assert!(!members[index].last_request().has("cookie"));
    }
    // A member that is gone: another one and its cookie.
    let gone = proxy.document.pools[0].members[0].id;
    proxy
        .change(|document| {
            document.pools[0].members.remove(0);
        })
        .await;
    let moved = proxy.client().await.get_with("/", &format!("Cookie: SRV={gone}\r\n")).await;
    assert_eq!(moved.text(), "b");
    assert!(moved.field("set-cookie").unwrap().contains(&proxy.document.pools[0].members[0].id.to_string()));
    // Members cannot pass the proxy's cookie for theirs.
    let liar = Backend::http("liar", |_| {
        vec![Step::response("200 OK", "Set-Cookie: SRV=x\r\nSet-Cookie: own=1\r\n", "liar")]
    })
    .await;
    proxy.change(|document| document.pools[0].members = vec![Member::of(&liar)]).await;
    let answer = proxy.client().await.get("/").await;
    let cookies: Vec<_> = answer.fields("set-cookie").collect();
    assert!(cookies.len() == 2 && cookies.contains(&"own=1") && !cookies.contains(&"SRV=x"), "{cookies:?}");
}

#[tokio::test]
async fn app_cookie_learns_the_applications_session() {
    let session = |name: &'static str| {
        Backend::http(name, move |request| {
            let lines = if request.target() == "/login" {
                format!("Set-Cookie: SID={name}-1; Path=/\r\n")
            } else {
                String::new()
            };
            vec![Step::ReadBody, Step::response("200 OK", &lines, name)]
        })
    };
    let members = [session("a").await, session("b").await];
    let persistence = json!({ "type": "APP_COOKIE", "cookie_name": "SID" });
    let pool = Pool::http().members(&members).with("session_persistence", persistence);
    let mut proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    let mut seen = BTreeMap::new();
    while seen.len() < 2 {
        let login = proxy.client().await.get("/login").await;
        seen.insert(login.text(), format!("Cookie: SID={}-1\r\n", login.text()));
    }
    for round in 0..3 {
        for (member, cookie) in &seen {
            for _ in 0..6 {
                let answer = proxy.client().await.get_with("/", cookie).await;
                assert_eq!(&answer.text(), member);
                assert!(!answer.has("set-cookie"));
            }
        }
        // Kept over changes: here to the listener, to the weights, and to another pool.
        proxy
            .change(|document| {
                let member = document.pools[0].members[0].clone();
                document.pools[0].members[0] = member.weight(5 + round);
                document.listeners[0] = document.listeners[0].clone().with("connection_limit", 5000 + round);
            })
            .await;
    }
    // The cookie passes to the member, unlike the proxy's own.
    proxy.client().await.get_with("/", &seen["a"]).await;
    assert_eq!(members[0].last_request().field("cookie"), Some("SID=a-1"));
}

#[tokio::test]
async fn source_ip_keeps_an_address_at_its_member_over_changes_and_workers() {
    let members = two().await;
    let pool = Pool::http().members(&members).with("session_persistence", json!({ "type": "SOURCE_IP" }));
    let mut proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    let source = |host| std::net::Ipv4Addr::new(127, 8, 8, host).into();
    let mut of = BTreeMap::new();
    for host in 1..=10 {
        of.insert(host, Client::connect_from(source(host), proxy.address()).await.get("/").await.text());
    }
    assert!(of.values().any(|name| name == "a") && of.values().any(|name| name == "b"), "{of:?}");
    for change in 0..3_u16 {
        for (host, member) in &of {
            for _ in 0..2 {
                let mut client = Client::connect_from(source(*host), proxy.address()).await;
                assert_eq!(&client.get("/").await.text(), member, "after change {change}");
            }
        }
        proxy
            .change(|document| {
                // Order and neighbours change; the two stay.
                let members = &mut document.pools[0].members;
                if change == 0 {
                    members.insert(0, Member::at("127.0.0.1:9".parse().unwrap()).weight(0));
                }
                members.rotate_left(1);
            })
            .await;
    }
}

#[tokio::test]
async fn a_cookie_leads_nowhere_while_its_member_is_disabled() {
    let members = two().await;
    let pool = Pool::http().members(&members).with("session_persistence", json!({ "type": "HTTP_COOKIE" }));
    let mut proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    let cookie = format!("Cookie: SRV={}\r\n", proxy.document.pools[0].members[0].id);
    assert_eq!(proxy.client().await.get_with("/", &cookie).await.text(), "a");
    proxy
        .change(|document| {
            document.pools[0].members[0] = document.pools[0].members[0].clone().with("admin_state_up", false);
        })
        .await;
    assert_eq!(proxy.client().await.get_with("/", &cookie).await.text(), "b");
    proxy
        .change(|document| {
            document.pools[0].members[0] = document.pools[0].members[0].clone().with("admin_state_up", true);
        })
        .await;
    assert_eq!(proxy.client().await.get_with("/", &cookie).await.text(), "a");
}

/// A refused version of the pool that has lost nearly all of its members.
#[tokio::test]
async fn a_refused_document_moves_no_client() {
    let mut members = Vec::new();
    for number in 0..300 {
        members.push(Backend::named(&number.to_string()).await);
    }
    let pool = Pool::http().members(&members).with("session_persistence", json!({ "type": "SOURCE_IP" }));
    let mut proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    let address = proxy.address();
    let ask = async |host: u8| {
        Client::connect_from(std::net::Ipv4Addr::new(127, 8, 9, host).into(), address).await.get("/").await
    };
    let mut of = BTreeMap::new();
    for host in 1..=50 {
        of.insert(host, ask(host).await.text());
    }
    // Refused for an expression, and for a port that somebody else has.
    let taken = std::net::TcpListener::bind((proxy.document.vip, 0)).unwrap();
    let mut bad = proxy.document.clone();
    bad.pools[0].members = vec![Member::of(&members[0])];
    let mut unbound = bad.clone();
    let rule = L7Rule::new("PATH", "REGEX", "(unclosed");
    bad.listeners[0].policies.push(L7Policy::new("REJECT", rule));
    unbound = unbound.listener(Listener::http().port(taken.local_addr().unwrap().port()));
    assert_eq!(proxy.try_apply(&bad).await.unwrap_err().status, 400);
    assert_eq!(proxy.try_apply(&unbound).await.unwrap_err().status, 409);
    proxy.change(|document| document.listeners[0] = document.listeners[0].clone().with("name", "good")).await;
    for (host, member) in &of {
        assert_eq!(&ask(*host).await.text(), member, "127.8.9.{host}");
    }
}
