//! What Octavia's API takes and HAProxy serves with a warning is served here too, and told. The texts are of Octavia's own templates.

use amphora_model::{HealthCheck, HttpVersion, L7Action, ListenerProtocol};

use super::*;

const TCP: &str = include_str!("../samples/legal-tcp.cfg");
const HTTP: &str = include_str!("../samples/legal-http.cfg");

/// What was asked for and is left out, by line.
fn left_out(translated: &Translated) -> Vec<(usize, &'static str)> {
    let asked_for = translated.remarks.iter().filter(|remark| remark.is_asked_for);
    asked_for.map(|remark| (remark.line, remark.reason)).collect()
}

#[test]
fn policies_and_cookies_in_mode_tcp_are_left_out_and_told() {
    let translated = translate(TCP.as_bytes(), &NO_VIPS).unwrap();
    let model = &translated.load_balancer;
    for listener in &model.listeners {
        assert_eq!((listener.protocol, listener.l7policies.len()), (ListenerProtocol::Tcp, 0));
    }
    // Also those that nothing leads to, which HAProxy checks, too.
    assert_eq!((model.pools.len(), translated.backends.len()), (3, 3));
    let backend = |line: &str| {
        let (pool, listener) = line.strip_prefix("backend ")?.split_once(':')?;
        Some((pool.parse().unwrap(), listener.parse().unwrap()))
    };
    assert_eq!(translated.backends, TCP.lines().filter_map(backend).collect::<Vec<_>>());
    assert!(model.pools.iter().all(|pool| pool.session_persistence.is_none()));
    assert_eq!(
        left_out(&translated),
        [
            (27, "policies need a listener or a pool of mode http"),
            (29, "a listener of mode tcp chooses no pool by requests"),
            (39, "a pool of mode tcp has no session persistence by cookie"),
        ]
    );
}

/// HAProxy makes such connections HTTP, and denies and redirects then, though it warns that it would not.
#[test]
fn policies_of_a_tcp_listener_hold_where_its_pool_speaks_http() {
    let translated = translate(HTTP.as_bytes(), &NO_VIPS).unwrap();
    let model = &translated.load_balancer;
    let listener = &model.listeners[0];
    assert_eq!(listener.protocol, ListenerProtocol::Http);
    assert_eq!(listener.connection_limit, Some(i32::MAX.unsigned_abs()));
    let seen: Vec<_> =
        listener.l7policies.iter().map(|policy| (policy.position, policy.action.clone())).collect();
    let url = "http://a/".to_owned();
    let redirect = L7Action::RedirectToUrl { url, code: amphora_model::RedirectCode::default() };
    assert_eq!(seen, [(1, L7Action::Reject), (2, redirect)]);
    assert!(model.pools[0].session_persistence.is_some());
    let told = left_out(&translated);
    assert_eq!(
        told,
        [
            (27, "a listener of mode tcp chooses no pool by requests"),
            (75, "the name of a cookie is ASCII (RFC 6265 section 4.1.1)"),
        ]
    );
    // With nothing but the choice of a pool it stays what it is.
    let without: Vec<&str> = HTTP
        .lines()
        .filter(|line| !line.contains("-request deny") && !line.contains("redirect location"))
        .collect();
    let translated = translate(without.join("\n").as_bytes(), &NO_VIPS).unwrap();
    assert_eq!(translated.load_balancer.listeners[0].protocol, ListenerProtocol::Tcp);
}

#[test]
fn monitors_ask_for_what_haproxy_asks_for() {
    let model = translate(HTTP.as_bytes(), &NO_VIPS).unwrap().load_balancer;
    let asked: Vec<_> = model
        .pools
        .iter()
        .filter_map(|pool| match &pool.health_monitor.as_ref()?.check {
            HealthCheck::Http(http) => Some((http.url_path.as_str(), http.version, http.domain_name.clone())),
            _ => None,
        })
        .collect();
    let host = Some("a.example".to_owned());
    assert_eq!(asked, [("/a", HttpVersion::Http11, host), ("/%C3%A9", HttpVersion::Http10, None)]);
}
