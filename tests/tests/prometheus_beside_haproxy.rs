//! The values of a PROMETHEUS listener beside those of HAProxy's own exporter, which Octavia's amphora renames: the same objects, the same
//! traffic, and each series of ours that HAProxy has. Where one may differ, `docs/metrics.md` says why.

// This is a test crate: what goes wrong here fails a test, and `unwrap` says so as well as anything.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use amphora_tests::{
    Backend, Certificates, Client, Document, HealthMonitor, L7Policy, L7Rule, Listener, Member, Message,
    PATIENCE, Pool, Proxy, Step, TlsClient, TlsMember, echo, eventually, free_port, loopback,
};
use rustls::version::TLS13;

/// Families that are counted or told in another way, without the kind of object; `docs/metrics.md` says of each why.
const OTHERS: [&str; 30] = [
    "bytes_in_total",
    "bytes_out_total",
    "check_failures_total",
    "check_last_change_seconds",
    "check_up_down_total",
    "connect_time_average_seconds",
    "connection_attempts_total",
    "connection_reuses_total",
    "connections_rate_max",
    "connections_total",
    "cpu",
    "current_connection_rate",
    "current_session_rate",
    "downtime_seconds_total",
    "http_requests_rate_max",
    "idle_connections_current",
    "idle_connections_limit",
    "last_session_seconds",
    "max_connect_time_seconds",
    "max_connection_rate",
    "max_connections",
    "max_response_time_seconds",
    "max_session_rate",
    "max_sessions",
    "max_total_time_seconds",
    "memory",
    "requests_total",
    "response_time_average_seconds",
    "status",
    "total_time_average_seconds",
];

/// The family of a series without the kind of object that it is of.
fn family(series: &str) -> &str {
    let name = series.split('{').next().unwrap();
    let kinds = ["octavia_loadbalancer_", "octavia_listener_", "octavia_pool_", "octavia_member_"];
    kinds.iter().find_map(|kind| name.strip_prefix(kind)).unwrap_or(name)
}

/// Whether a series has to have HAProxy's value.
fn is_judged(series: &str) -> bool {
    let other = match family(series) {
        // That of a listener is the same.
        "connections_total" => !series.starts_with("octavia_listener_"),
        "status" => series.contains("member=\"m3\""),
        family => OTHERS.contains(&family),
    };
    // Ours tells who scrapes within a second the same values, of before the last scrapes.
    let scraped = series.contains("\"scraped\"");
    series.starts_with("octavia_") && !other && !scraped
}

/// A connection that is not HTTP has none, and HAProxy leaves them out.
fn is_of_http(series: &str) -> bool {
    ["http_", "intercepted_"].iter().any(|of| family(series).starts_with(of))
        && ["\"tcp\"", "\"stream\""].iter().any(|object| series.contains(object))
}

/// HAProxy with Octavia's objects, and its exporter.
struct Exporter {
    child: Child,
    /// Where its frontends listen, and where it is scraped.
    addresses: [SocketAddr; 4],
    _directory: tempfile::TempDir,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Exporter {
    /// With Octavia's objects; `None`, said loudly, where there is none.
    async fn start(web: &[(&str, SocketAddr, &str)], stream: SocketAddr, dead: SocketAddr) -> Option<Self> {
        let addresses = [(); 4].map(|()| {
            let address = loopback();
            SocketAddr::new(address, free_port(address))
        });
        let [http, tcp, scraped, asked] = addresses;
        // The connection that it has with itself would count among its clients' for as long as it is kept, which is some 15 s.
        let mut text = format!(
            "global\n nbthread 1\n maxconn 200\ndefaults\n retries 3\n option redispatch\n option http-keep-alive\n timeout client 50s\n \
             timeout server 50s\n timeout connect 5s\n\
             frontend web\n maxconn 100\n bind {http}\n mode http\n acl no path -m beg /no\n http-request deny if no\n \
             acl gone path -m beg /gone\n redirect code 302 location http://elsewhere.example/ if gone\n acl down path -m beg /down\n \
             use_backend down if down\n default_backend pool\n\
             frontend tcp\n maxconn 50\n bind {tcp}\n mode tcp\n default_backend stream\n\
             frontend scraped\n bind {scraped}\n mode http\n http-request use-service prometheus-exporter if {{ path /metrics }}\n\
             frontend asked\n bind {asked}\n mode http\n default_backend internal\n\
             backend internal\n mode http\n option http-server-close\n server internal {scraped}\n\
             backend stream\n mode tcp\n balance leastconn\n option allbackups\n server only {stream} weight 1\n\
             backend down\n mode http\n http-reuse safe\n balance roundrobin\n option allbackups\n timeout check 1s\n server dead {dead} weight 1 \
             check inter 1s fall 1 rise 1\n\
             backend pool\n mode http\n http-reuse safe\n balance roundrobin\n option allbackups\n"
        );
        for (name, address, options) in web {
            let _ = writeln!(text, " server {name} {address} {options}");
        }
        Self::run(&text, addresses).await
    }

    async fn run(text: &str, addresses: [SocketAddr; 4]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, text).unwrap();
        let child = Command::new("haproxy").args(["-db", "-q", "-f"]).arg(file).stdin(Stdio::null()).spawn();
        let Ok(child) = child else {
            eprintln!("SKIPPED: there is no haproxy to compare with");
            return None;
        };
        let mut this = Self { child, addresses, _directory: directory };
        eventually("HAProxy serves", async || {
            assert!(this.child.try_wait().unwrap().is_none(), "HAProxy ended");
            Client::try_connect(addresses[2]).await.ok()
        })
        .await;
        Some(this)
    }

    async fn values(&self, names: &[(String, String)]) -> Series {
        series(&scrape(self.addresses[2]).await, names)
    }
}

async fn scrape(address: SocketAddr) -> String {
    let mut client = Client::connect(address).await;
    client.get_with("/metrics", "Connection: close\r\n").await.text()
}

type Series = BTreeMap<String, f64>;

/// By the names of ours, with HAProxy's names of the objects.
fn series(text: &str, names: &[(String, String)]) -> Series {
    let mut all = Series::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let mut name = name.to_owned();
        for (from, to) in names {
            name = name.replace(from, to);
        }
        all.insert(name, value.parse().unwrap());
    }
    all
}

/// What Octavia's exporter makes of HAProxy's names.
fn renamed() -> Vec<(String, String)> {
    [
        ("haproxy_process_", "octavia_loadbalancer_"),
        ("haproxy_frontend_", "octavia_listener_"),
        ("haproxy_backend_server_aborts", "octavia_pool_member_aborts"),
        ("haproxy_backend_active_servers", "octavia_pool_active_members"),
        ("haproxy_backend_backup_servers", "octavia_pool_backup_members"),
        ("haproxy_backend_", "octavia_pool_"),
        ("haproxy_server_", "octavia_member_"),
        ("server=", "member="),
    ]
    .map(|(from, to)| (from.to_owned(), to.to_owned()))
    .into()
}

/// The member's part.
fn answer(request: &Message) -> Vec<Step> {
    match request.target() {
        "/missing" => vec![Step::ReadBody, Step::response("404 Not Found", "", "missing")],
        "/broken" => vec![Step::ReadBody, Step::response("500 Told So", "", "")],
        "/garbage" => vec![Step::ReadBody, Step::send("SSH-2.0-OpenSSH_9.2\r\n\r\n"), Step::Close],
        "/cut" => {
            vec![Step::ReadBody, Step::send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok"), Step::Close]
        }
        "/chunks" => vec![
            Step::ReadBody,
            Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ],
        "/hints" => vec![
            Step::ReadBody,
            Step::send("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"),
            Step::response("200 OK", "", "a"),
        ],
        _ => Step::ok("a body of some bytes"),
    }
}

/// What is asked, one after the other: so that it depends on no turn that workers take.
async fn traffic(http: SocketAddr, tcp: SocketAddr, asked: SocketAddr) {
    let mut client = Client::connect(http).await;
    for path in
        ["/", "/", "/a", "/b?c=d", "/missing", "/broken", "/chunks", "/no", "/hints", "/gone", "/no/way", "/"]
    {
        client.get(path).await;
    }
    client.post("/", &[b'x'; 3000]).await;
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.response_to_head().await;
    client.finish().await;
    for path in ["/down", "/garbage", "/cut"] {
        let mut client = Client::connect(http).await;
        let _ = client.try_get(path, "").await;
    }
    for text in ["nonsense\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"] {
        let mut client = Client::connect(http).await;
        client.send(text).await;
        let _ = client.try_response(false).await;
        client.finish().await;
        client.end().await;
    }
    let client = Client::connect(http).await;
    drop(client);
    for _ in 0..3 {
        let mut client = Client::connect(tcp).await;
        client.send("some bytes").await;
        client.expect("some bytes").await;
        client.finish().await;
        client.end().await;
    }
    let mut scraper = Client::connect(asked).await;
    for _ in 0..3 {
        assert_eq!(scraper.get("/metrics").await.status(), 200);
    }
    scraper.finish().await;
    let mut client = Client::connect(asked).await;
    client.send("nonsense\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 400);
    // Who tries whether the port is there.
    drop(Client::connect(asked).await);
}

#[tokio::test]
async fn the_values_are_those_of_haproxys_own_exporter() {
    let members = [
        Backend::http("a", answer).await,
        Backend::http("b", answer).await,
        Backend::http("c", answer).await,
        Backend::http("d", answer).await,
    ];
    let echo = Backend::tcp("echo", echo).await;
    let dead = loopback();
    let dead = SocketAddr::new(dead, free_port(dead));

    let of = |backend: &Backend| Member::of(backend);
    let pool = Pool::http()
        .member(of(&members[0]))
        .member(of(&members[1]).weight(2).with("backup", true))
        .member(of(&members[2]).with("admin_state_up", false))
        .member(of(&members[3]).weight(0));
    let down = Pool::http()
        .member(Member::at(dead))
        .monitored(&HealthMonitor::new("TCP").with("max_retries", 1).with("max_retries_down", 1));
    let stream = Pool::tcp().member(of(&echo)).balanced_by("LEAST_CONNECTIONS");
    let to_url = L7Policy::new("REDIRECT_TO_URL", L7Rule::path("/gone"))
        .with("redirect_url", "http://elsewhere.example/")
        .with("redirect_http_code", 302);
    let web = Listener::http()
        .with("connection_limit", 100)
        .policy(L7Policy::new("REJECT", L7Rule::path("/no")))
        .policy(to_url)
        .policy(L7Policy::to_pool(&down, L7Rule::path("/down")));
    let document = Document::of(web, pool)
        .pool(&down)
        .pool(&stream)
        .listener(Listener::tcp().with("connection_limit", 50).to(&stream))
        .listener(Listener::prometheus())
        .listener(Listener::prometheus());
    let proxy = Proxy::start_with(document, &["--workers", "1"]).await;
    let web = [
        ("m0", members[0].address, "weight 1"),
        ("m1", members[1].address, "weight 2 backup"),
        ("m2", members[2].address, "weight 1 disabled"),
        ("m3", members[3].address, "weight 0"),
    ];
    let Some(haproxy) = Exporter::start(&web, echo.address, dead).await else { return };

    let document = &proxy.document;
    let mut names = vec![
        (document.listeners[0].id.to_string(), "web".to_owned()),
        (document.listeners[1].id.to_string(), "tcp".to_owned()),
        (document.listeners[2].id.to_string(), "scraped".to_owned()),
        (document.listeners[3].id.to_string(), "asked".to_owned()),
    ];
    for (pool, name) in document.pools.iter().zip(["pool", "down", "stream"]) {
        names.push((pool.id.to_string(), name.to_owned()));
        for (number, member) in pool.members.iter().enumerate() {
            let name = match name {
                "pool" => format!("m{number}"),
                "down" => "dead".to_owned(),
                _ => "only".to_owned(),
            };
            names.push((member.id.to_string(), name));
        }
    }
    let ours = async || series(&scrape(proxy.document.address_of(2)).await, &names);
    let mut renamed = renamed();
    for frontend in ["web", "tcp", "scraped", "asked"] {
        renamed.push((format!("proxy=\"{frontend}\""), format!("listener=\"{frontend}\"")));
    }
    renamed.push(("proxy=".to_owned(), "pool=".to_owned()));
    let is_down = "octavia_member_status{pool=\"down\",member=\"dead\",state=\"DOWN\"}";
    eventually("the dead member is found dead by both", async || {
        let both = [ours().await, haproxy.values(&renamed).await];
        both.iter().all(|all| all.get(is_down) == Some(&1.0)).then_some(())
    })
    .await;

    traffic(proxy.address(), proxy.document.address_of(1), proxy.document.address_of(3)).await;
    traffic(haproxy.addresses[0], haproxy.addresses[1], haproxy.addresses[3]).await;

    let mut compared = 0;
    let same = eventually_or_last(async || {
        let (ours, theirs) = (ours().await, haproxy.values(&renamed).await);
        let judged = ours.iter().filter(|(name, _)| is_judged(name));
        compared = judged.clone().filter(|(name, _)| theirs.contains_key(*name)).count();
        let differences: Vec<_> = judged
            .filter_map(|(name, value)| match theirs.get(name) {
                Some(theirs) if theirs == value => None,
                None if is_of_http(name) && *value == 0.0 => None,
                theirs => Some(format!("{name}: {value}, HAProxy {theirs:?}")),
            })
            .collect();
        if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
    })
    .await;
    if let Err(differences) = same {
        panic!("{differences}");
    }
    println!("{compared} series with HAProxy's values");
    assert!(compared > 60, "{compared}");
}

/// What is the same of TLS in the load balancer as a whole; what is a rate depends on when one looks.
const TLS: [&str; 5] = [
    "max_ssl_connections",
    "ssl_connections_total",
    "limit_ssl_rate",
    "ssl_cache_lookups_total",
    "ssl_cache_misses_total",
];

#[tokio::test]
async fn tls_as_a_whole_is_counted_as_by_haproxy() {
    let certificates = Certificates::new();
    let member = TlsMember::start(&certificates, "server", false).await;
    let pool = Pool::http().member(Member::of(&member.backend)).with("tls_enabled", true);
    let web = Listener::https("server");
    let document = Document::of(web, pool).listener(Listener::prometheus());
    let options = ["--workers", "1", "--certificates", &certificates.option()];
    let proxy = Proxy::start_with(document, &options).await;
    let addresses = [(); 4].map(|()| {
        let address = loopback();
        SocketAddr::new(address, free_port(address))
    });
    let pem = certificates.file("server");
    let text = format!(
        "global\n nbthread 1\n maxconn 200\ndefaults\n mode http\n timeout client 50s\n timeout server 50s\n timeout connect 5s\n\
         frontend web\n bind {} ssl crt {}\n default_backend pool\n\
         frontend scraped\n bind {}\n http-request use-service prometheus-exporter if {{ path /metrics }}\n\
         backend pool\n http-reuse never\n server only {} ssl verify none\n",
        addresses[0],
        pem.display(),
        addresses[2],
        member.backend.address
    );
    let Some(haproxy) = Exporter::run(&text, addresses).await else { return };

    let config = certificates.client(&[&TLS13], &["http/1.1"]);
    let mut open = Vec::new();
    for address in [proxy.address(), haproxy.addresses[0]] {
        let mut client = TlsClient::connect(address, &config, "shop.example").await.unwrap();
        for _ in 0..2 {
            assert_eq!(client.get("/", "").await.unwrap().status(), 200);
        }
        open.push(client);
        // One without a request, one that does not speak TLS, and one that says nothing.
        drop(TlsClient::connect(address, &config, "shop.example").await.unwrap());
        let mut plain = Client::connect(address).await;
        plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        plain.end().await;
        drop(Client::connect(address).await);
    }
    let names = renamed();
    let of = |all: &Series, family: &str| all.get(&format!("octavia_loadbalancer_{family}")).copied();
    // The connection to the member is used again by others here; HAProxy closes it with its client.
    for current in [[2.0, 2.0], [1.0, 0.0]] {
        let same = eventually_or_last(async || {
            let ours = series(&scrape(proxy.document.address_of(1)).await, &[]);
            let theirs = haproxy.values(&names).await;
            for family in TLS {
                if of(&ours, family).is_none() || of(&ours, family) != of(&theirs, family) {
                    return Err(format!(
                        "{family}: {:?}, HAProxy {:?}",
                        of(&ours, family),
                        of(&theirs, family)
                    ));
                }
            }
            for family in ["max_ssl_rate", "max_frontend_ssl_key_rate", "max_backend_ssl_key_rate"] {
                if [&ours, &theirs].iter().any(|all| of(all, family) < Some(1.0)) {
                    return Err(format!(
                        "{family}: {:?}, HAProxy {:?}",
                        of(&ours, family),
                        of(&theirs, family)
                    ));
                }
            }
            let now = [&ours, &theirs].map(|all| of(all, "current_ssl_connections"));
            match (of(&ours, "ssl_connections_total"), now) {
                (Some(5.0), now) if now == current.map(Some) => Ok(()),
                other => Err(format!("{other:?}, not 5, {current:?}")),
            }
        })
        .await;
        if let Err(difference) = same {
            panic!("{difference}");
        }
        open.clear();
    }
}

/// What is found once it is good, or after a while: HAProxy counts some of a connection when that has ended.
async fn eventually_or_last(mut look: impl AsyncFnMut() -> Result<(), String>) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let found = look().await;
        if found.is_ok() || begun.elapsed() > PATIENCE {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn what_is_counted_in_another_way_is_explained() {
    let page = include_str!("../../docs/metrics.md");
    let (_, section) = page.split_once("## Beside HAProxy's exporter").expect("the section");
    let section = section.split("\n## ").next().unwrap();
    for family in OTHERS {
        assert!(section.contains(&format!("`{family}`")), "{family}");
    }
}
