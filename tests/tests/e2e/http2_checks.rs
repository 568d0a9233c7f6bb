//! Health monitors of members that speak HTTP/2 alone, beside HAProxy's (`check-alpn h2`).

use amphora_model::CheckState;
use amphora_tests::{
    Certificates, Document, HaProxy, HaProxyConfig, HealthMonitor, Http2Member, Listener, Pool, Proxy, Seen,
    eventually,
};
use h2::server::Builder;

/// Method, path, version, domain name, and what HAProxy calls the result.
const CASES: [(&str, &str, &str, Option<&str>, &str); 15] = [
    ("GET", "/", "1.0", None, "L7OK"),
    ("GET", "/a?b=1", "1.1", Some("www.example.com"), "L7OK"),
    ("GET", "/", "1.1", None, "L7OK"),
    ("HEAD", "/", "1.1", Some("www.example.com"), "L7OK"),
    ("POST", "/p", "1.1", Some("www.example.com"), "L7OK"),
    ("PUT", "/p", "1.0", None, "L7OK"),
    ("DELETE", "/p", "1.0", None, "L7OK"),
    ("OPTIONS", "/p", "1.0", None, "L7OK"),
    ("GET", "/hints", "1.0", None, "L7STS"),
    ("GET", "/none", "1.0", None, "L7STS"),
    ("GET", "/trailers", "1.0", None, "L7OK"),
    ("GET", "/stream", "1.0", None, "L7OK"),
    ("GET", "/bytes/300000", "1.0", None, "L7OK"),
    ("GET", "/leave", "1.0", None, "L7OK"),
    // Of a stream that was reset: ours is L7RSP.
    ("GET", "/reset", "1.0", None, "SOCKERR"),
];

/// The first request, without the host that is the member's own address, which HAProxy does not name.
fn asked(member: &Http2Member) -> Seen {
    let mut seen = member.requests().remove(0);
    let own = format!("host: {}", member.backend.address);
    seen.fields.retain(|field| *field != own);
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_speak_nothing_else_are_asked_and_judged_as_by_haproxy() {
    let certificates = Certificates::new();
    for (method, path, version, domain, result) in CASES {
        let case = format!("{method} {path} {version} {domain:?}");
        let member = Http2Member::start(&certificates, "server", &["h2"], Builder::new()).await;
        let host = domain.map_or_else(String::new, |domain| format!("\\r\\nHost:\\ {domain}"));
        let backend = format!(
            "timeout check 10s\n option httpchk {method} {path} HTTP/{version}{host}\n http-check expect rstatus 200"
        );
        let options = "ssl verify none alpn h2 check check-alpn h2 inter 50 rise 1 fall 1".to_owned();
        let servers = vec![("0".to_owned(), member.backend.address, options)];
        let config = HaProxyConfig { backend, servers, ..HaProxyConfig::http([]) };
        let Some(haproxy) = HaProxy::start(&config).await else { return };
        let found = eventually(&case, async || {
            let found = haproxy.text("0", "check_status").await;
            (found.starts_with("L7") || found == "SOCKERR").then_some(found)
        });
        assert_eq!(found.await, result, "{case}");
        let theirs = asked(&member);
        drop(haproxy);

        let member = Http2Member::start(&certificates, "server", &["h2"], Builder::new()).await;
        let mut monitor = HealthMonitor::new("HTTP")
            .with("http_method", method)
            .with("url_path", path)
            .with("http_version", version.parse::<f64>().unwrap())
            .with("max_retries_down", 2);
        if let Some(domain) = domain {
            monitor = monitor.with("domain_name", domain);
        }
        let pool = Pool::http().members([&member.backend]).with("tls_enabled", true).monitored(&monitor);
        let options = ["--certificates", &certificates.option()];
        let proxy = Proxy::start_with(Document::of(Listener::http(), pool), &options).await;
        // HAProxy takes an interim response for the answer, in HTTP/1.1 too.
        let passes = result == "L7OK" || path == "/hints";
        let state = if passes { CheckState::Up } else { CheckState::Down };
        proxy.until_member(0, &case, |member| member.check == state).await;
        assert_eq!(asked(&member), theirs, "{case}");
    }
}
