//! Who may read `/metrics`.

use super::{identity::HASH, *};
use crate::serve::api::{reply::Reply, router::word};

async fn ask(stage: &Stage, method: Method, user: Option<&str>) -> Reply {
    let mut request = http::Request::builder().method(method).uri("/metrics");
    if let Some(user) = user {
        let text = data_encoding::BASE64.encode(format!("{user}:secret").as_bytes());
        request = request.header("authorization", format!("Basic {text}"));
    }
    stage.api.reply(&request.body(()).unwrap().into_parts().0, Bytes::new()).await
}

#[tokio::test]
async fn counters_are_for_operators() {
    let users = format!("[users]\nalice = shop member {HASH}\nroot = admin admin {HASH}\n");
    for (settings, user, status) in [
        ("auth_strategy = noauth", None, 200),
        ("auth_strategy = http_basic", None, 401),
        ("auth_strategy = http_basic", Some("alice"), 403),
        ("auth_strategy = http_basic", Some("root"), 200),
        ("auth_strategy = keystone", None, 401),
        ("auth_strategy = keystone", Some("root"), 200),
        ("auth_strategy = keystone\nmetrics_auth = false", None, 200),
    ] {
        let stage = Stage::new(&format!("[api_settings]\n{settings}\n{users}"));
        let reply = ask(&stage, GET, user).await;
        assert_eq!(reply.status(), status, "{settings} {user:?}: {reply:?}");
        if let Reply::Text { kind, text, .. } = reply {
            assert!(kind.starts_with("text/plain; version=0.0.4"));
            assert!(text.starts_with(b"# HELP amphora_controller_"), "{text:?}");
        }
    }
    let reply = ask(&Stage::new(""), POST, None).await;
    assert_eq!(reply.status(), 405);
}

#[test]
fn a_request_is_about_one_of_few_words() {
    for (path, expected) in [
        ("/", "versions"),
        ("/v2.0/lbaas/loadbalancers/x/failover", "none"),
        ("/v2.0/lbaas/loadbalancers/x/stats", "loadbalancers"),
        ("/v2/lbaas/pools/x/members/y", "members"),
        ("/v2/lbaas/l7policies/x/rules", "rules"),
        ("/v2/octavia/amphorae/x", "amphorae"),
        ("/v2/lbaas/quotas/x/default", "quotas"),
        ("/v2/networks", "networks"),
        ("/v2/lbaas/events", "events"),
        ("/v3/auth/tokens", "identity"),
        ("/metrics", "metrics"),
        ("/anything/else", "none"),
    ] {
        assert_eq!(word(&GET, path), expected, "{path}");
    }
}
