//! Regular expressions of policies: what they match, what they may cost, and how a wrong one is refused.

use std::fmt::Write as _;

use amphora_tests::{
    Amphora, Backend, Client, Document, HaProxy, HaProxyConfig, L7Policy, L7Rule, Listener, Pool, Proxy,
};

/// Expressions that no automaton decides, with one path that each matches and one that it does not. All of them are in
/// one configuration, so each begins with a letter of its own.
const EXPRESSIONS: &[(&str, &str, &str)] = &[
    ("^/a/(?!public/)", "/a/private/x", "/a/public/x"),
    ("^/b/.*(?=[.]php)", "/b/x.php", "/b/x.html"),
    ("^/c/.*(?<=[.]bak)$", "/c/x.bak", "/c/x.bak.gz"),
    ("^/d/.*(?<!/v1)/users", "/d/v2/users", "/d/v1/users"),
    (r"^/e/(?<n>[a-z]+)/\k<n>$", "/e/same/same", "/e/same/other"),
    (r"^/f/(?<n>[0-9])\1", "/f/77", "/f/78"),
    ("^/g/(?>x+)y", "/g/xxy", "/g/xx"),
    (r"^/h/(?<p>\((?:[^()]|(?&p))*\))$", "/h/(a(b)c)", "/h/(a(b)c"),
    (r"^/i/(?<n>x)?(?(<n>)y|z)$", "/i/xy", "/i/xz"),
];

#[tokio::test]
async fn look_around_and_references_match_as_in_haproxy() {
    let member = Backend::named("a").await;
    let pool = Pool::http().members([&member]);
    let mut listener = Listener::http().to(&pool);
    let mut config = HaProxyConfig::http([member.address]);
    for (expression, ..) in EXPRESSIONS {
        listener = listener.policy(L7Policy::new("REJECT", L7Rule::new("PATH", "REGEX", expression)));
        writeln!(config.backend, " http-request deny deny_status 403 if {{ path -m reg '{expression}' }}")
            .unwrap();
    }
    let proxy = Proxy::start(Document::of(listener, pool)).await;
    let haproxy = HaProxy::start(&config).await;
    for (expression, matching, other) in EXPRESSIONS {
        for (path, expected) in [(matching, 403), (other, 200)] {
            let status = proxy.client().await.get(path).await.status();
            assert_eq!(status, expected, "{expression}: {path}");
            if let Some(haproxy) = &haproxy {
                let theirs = haproxy.client().await.get(path).await.status();
                assert_eq!(theirs, expected, "HAProxy, {expression}: {path}");
            }
        }
    }
    assert_eq!(proxy.listener().await.requests_regex_limited, 0);
}

/// An expression that would take longer than the world has existed does not match, so the inverted rule holds; the
/// request is answered and counted, and so is no other.
#[tokio::test]
async fn a_request_that_exceeds_its_allowance_is_answered_and_counted() {
    let (web, other) = (Backend::named("web").await, Backend::named("other").await);
    let (web_pool, other_pool) = (Pool::http().members([&web]), Pool::http().members([&other]));
    let endless = || L7Rule::new("HEADER", "REGEX", "(x+x+)+(?=y)").with("key", "X-Value");
    let listener = Listener::http()
        .to(&web_pool)
        .policy(L7Policy::new("REJECT", endless()))
        .policy(L7Policy::to_pool(&other_pool, endless().with("invert", true)));
    let proxy = Proxy::start(Document::new().listener(listener).pool(&web_pool).pool(&other_pool)).await;
    let mut client = proxy.client().await;
    let field = |value: &str| format!("X-Value: {value}\r\n");
    assert_eq!(client.get_with("/", &field("xxy")).await.status(), 403);
    assert_eq!(client.get_with("/", &field("x")).await.text(), "other");
    assert_eq!(proxy.listener().await.requests_regex_limited, 0);
    let value = "x".repeat(4096);
    for limited in 1..=3 {
        assert_eq!(client.get_with("/", &field(&value)).await.text(), "other");
        assert_eq!(proxy.listener().await.requests_regex_limited, limited);
    }
    assert_eq!(client.get_with("/", &field("xxy")).await.status(), 403, "the next request has its own");
    assert_eq!(proxy.listener().await.requests_regex_limited, 3);
}

#[tokio::test]
async fn a_wrong_expression_is_refused_with_its_path_by_a_whole_amphora() {
    let Some(amphora) = Amphora::start().await else { return };
    let member = Backend::named("a").await;
    let document = Document::http([&member]);
    amphora.apply(&document);
    assert_eq!(Client::connect(document.address()).await.get("/").await.text(), "a");
    for (expression, reason) in [
        ("[a", "missing terminating ]"),
        ("(?<=a+)b", "lookbehind"),
        (r"^/\y", "unrecognized character follows"),
    ] {
        let mut wrong = document.clone();
        let rule = L7Rule::new("PATH", "REGEX", expression);
        wrong.listeners[0].policies.push(L7Policy::new("REJECT", L7Rule::path("/right")));
        wrong.listeners[0].policies.push(L7Policy::new("REJECT", rule.clone()));
        let said = amphora.refusal(&wrong);
        let faults = |said: &str| said.split_once("\n").unwrap().1.to_owned();
        assert_eq!(faults(&amphora.dry_refusal(&wrong)), faults(&said), "a dry run finds the same");
        let path = format!(".rules[{}].value: not a valid regular expression: ", rule.id());
        assert!(said.contains("refused with 400: "), "{said}");
        assert_eq!(said.matches("\n  loadbalancer.listeners[").count(), 1, "{said}");
        assert!(said.contains(&path) && said.contains(reason), "{path} {reason}: {said}");
        // What ran before runs on.
        assert_eq!(Client::connect(document.address()).await.get("/right").await.text(), "a");
    }
}
