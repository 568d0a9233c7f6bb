//! Whole load balancers, and what clients do with them, from a seed.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use amphora_model::{
    AlpnProtocol, CompareType, HealthCheck, HttpMethod, L7Policy, L7Subject, Listener, ListenerProtocol,
    ListenerTimeouts, LoadBalancer, Member, Pool, PoolProtocol, TlsVersion,
    arbitrary::{Generator, Shape},
};
use serde_json::{Value, json};

use super::{balanced::Trial, more};
use crate::{cases, prng::Prng};

/// Where members serve. Whatever they are spoken to in, they find out.
pub(super) const SERVING: u16 = 10_001;
/// The net of members that cannot be reached.
pub(super) const NOWHERE: u8 = 10;
/// Where nobody listens.
pub(super) const CLOSED: u16 = 10_009;

/// What a log of a listener says: all that need not differ.
const FORMAT: &str =
    "{{ project_id }} {{ lb_id }} %f %ci %{+Q}r %ST %B %U %[ssl_c_verify] %{+Q}[ssl_c_s_dn] %b %s %tsc";

/// A load balancer, and what is done with it.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// What it was made from.
    pub(super) seed: u64,
    pub(super) lb: LoadBalancer,
    /// Whether the controller asks for flow logs.
    pub(super) is_logged: bool,
    /// Whether it is for one amphora of two.
    pub(super) is_pair: bool,
    pub(super) visits: Vec<Visit>,
    pub(super) trial: Option<Trial>,
}

/// One connection of a client.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    /// By index, an enabled one.
    pub(super) listener: usize,
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) tls: Option<Shake>,
    /// HTTP/2 is spoken where it may be.
    pub(super) in_streams: bool,
    /// One after the other, as long as the connection is kept.
    pub(super) requests: Vec<Vec<u8>>,
    pub(super) manner: Manner,
}

/// How a client sends its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    InTurn,
    /// Without waiting for answers.
    AtOnce,
    /// In turn, and of the last one a part.
    Late,
}

/// What a client says when it shakes hands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shake {
    pub(super) name: Option<&'static str>,
    pub(super) certificate: Option<&'static str>,
    pub(super) alpn: &'static [&'static str],
    pub(super) newest: bool,
}

/// The hosts of the certificates.
pub(super) const HOSTS: [(&str, &[&str]); 4] = [
    ("c0", &["www.example.com", "shop.example"]),
    ("c1", &["*.example.org"]),
    ("c2", &["api.example.com"]),
    ("c3", &["client", "example.com"]),
];

/// An address of the test's: `10.NET.0.NUMBER` or `fd00:NET::NUMBER`.
pub(super) fn address(is_ipv4: bool, net: u8, number: usize) -> IpAddr {
    let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
    match is_ipv4 {
        true => Ipv4Addr::new(10, net, high, low).into(),
        false => Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, u16::from_be_bytes([high, low])).into(),
    }
}

impl Case {
    pub(super) fn new(seed: u64) -> Self {
        let mut g = Generator::new(seed);
        let mut rng = Prng::new(seed);
        let shape = Shape { listeners: 1..=3, pools: 0..=3, members: 0..=3, tls: true, ..Shape::default() };
        let mut lb = loop {
            let lb = g.load_balancer(&shape);
            let serves = |listener: &Listener| {
                listener.admin_state_up && listener.protocol != ListenerProtocol::Prometheus
            };
            if lb.listeners.iter().any(serves) {
                break lb;
            }
        };
        ground(&mut g, &mut lb);
        for at in 0..lb.listeners.len() {
            if lb.listeners[at].protocol.is_http() && g.one_in(2) {
                let mut policies = policies(&mut rng, &lb, &lb.listeners[at]);
                if lb.listeners[at].tls.is_some() {
                    told_by_tls(&mut g, &mut policies);
                }
                lb.listeners[at].l7policies = policies;
            }
        }
        let mut visits: Vec<Visit> = (0..g.within(6..=14)).map(|_| visit(&mut g, &mut rng, &lb)).collect();
        let is_logged = g.one_in(2);
        let last = visits.last_mut().and_then(|visit| visit.requests.last_mut());
        // What is logged of these is as different as what is done.
        if let Some(request) = last.filter(|_| !is_logged) {
            replace(
                request,
                "\r\nX-Reply: ",
                &format!("\r\nX-Reply: {}\r\nX-Instead-Of: ", g.pick(&super::member::LAST)),
            );
        }
        let mut case = Self { seed, lb, is_logged, is_pair: false, visits, trial: None };
        more::add(&mut case);
        case
    }

    /// What Octavia's templates are given.
    pub(super) fn document(&self) -> Value {
        let mut document = self.lb.to_json();
        document["topology"] = if self.is_pair { "ACTIVE_STANDBY" } else { "SINGLE" }.into();
        document["log_format"] = json!(self.is_logged.then_some(FORMAT));
        document["facility"] = 0.into();
        document["details"] = Value::Null;
        document["raw"] = true.into();
        document
    }
}

/// Whether clients of a listener speak HTTP: also those of a TCP listener whose pool is of HTTP.
pub(super) fn speaks_http(lb: &LoadBalancer, listener: &Listener) -> bool {
    let is_of_http =
        |pool: &&Pool| Some(pool.id) == listener.default_pool && pool.protocol == PoolProtocol::Http;
    listener.protocol.is_http()
        || (listener.protocol == ListenerProtocol::Tcp
            && lb.pools.iter().filter(is_of_http).any(|pool| pool.admin_state_up))
}

/// Whether its monitor takes a member down.
pub(super) fn is_sick(pool: &Pool, member: &Member) -> bool {
    let is_checked = pool.health_monitor.as_ref().is_some_and(|monitor| monitor.admin_state_up);
    let is_out_of_reach = member.address == address(member.address.is_ipv4(), NOWHERE, number_of(member));
    is_checked && member.admin_state_up && (member.monitor_port == Some(CLOSED) || is_out_of_reach)
}

/// Which of the case's members it is.
pub(super) fn number_of(member: &Member) -> usize {
    let low = match member.address {
        IpAddr::V4(address) => address.to_bits() as u16,
        IpAddr::V6(address) => address.to_bits() as u16,
    };
    low.into()
}

/// Puts a load balancer where the test can run it, and leaves out what would only take time.
pub(super) fn ground(g: &mut Generator, lb: &mut LoadBalancer) {
    lb.admin_state_up = true;
    for (n, vip) in lb.vips.iter_mut().enumerate() {
        vip.address = address(vip.address.is_ipv4(), 9, n + 1);
    }
    for listener in &mut lb.listeners {
        listener.allowed_cidrs.clear();
        listener.connection_limit = listener.connection_limit.map(|_| 1000);
        listener.timeouts = ListenerTimeouts::default();
        if let Some(tls) = &mut listener.tls {
            settings(&mut tls.settings);
        }
    }
    let mut number = 0;
    for pool in &mut lb.pools {
        if let Some(tls) = &mut pool.tls {
            settings(&mut tls.settings);
        }
        let has_streams = pool.tls.as_ref().is_some_and(|tls| tls.settings.alpn.contains(&AlpnProtocol::H2));
        if let Some(monitor) = &mut pool.health_monitor {
            (monitor.delay, monitor.timeout) = (Duration::from_secs(3), Duration::from_secs(3));
            if let HealthCheck::Http(check) | HealthCheck::Https(check) = &mut monitor.check
                && has_streams
                && check.method == HttpMethod::Connect
            {
                // HAProxy asks for a path of HTTP/2's CONNECT, which the member takes for the malformed request that it is.
                check.method = HttpMethod::Options;
            }
        }
        for member in &mut pool.members {
            number += 1;
            member.address = address(member.address.is_ipv4(), 8, number);
            member.port = SERVING;
            member.weight = g.pick(&[1, 1, 1, 1, 2, 3, 0, 256]);
            (member.monitor_address, member.monitor_port) = (None, None);
        }
        if let Some(monitor) = &mut pool.health_monitor {
            (monitor.max_retries, monitor.max_retries_down) = (g.within(1..=3) as u8, g.within(1..=2) as u8);
            if monitor.check != HealthCheck::Ping {
                for member in &mut pool.members {
                    member.monitor_port = g.one_in(3).then_some(CLOSED);
                }
            }
        }
    }
}

/// Octavia stores its default list of ciphers, and fails without one where a half of it is left out; and of versions that this
/// amphora has none of the document is refused.
fn settings(settings: &mut amphora_model::TlsSettings) {
    let old = |version: &TlsVersion| !matches!(version, TlsVersion::Tls1_2 | TlsVersion::Tls1_3);
    if settings.versions.iter().all(old) {
        settings.versions.push(TlsVersion::Tls1_2);
    }
    let newest = settings.versions.contains(&TlsVersion::Tls1_3);
    if settings.ciphers.is_none() && !(newest && settings.versions.len() > 1) {
        settings.ciphers = Some("TLS_AES_256_GCM_SHA384:ECDHE-ECDSA-AES128-GCM-SHA256".into());
    }
}

/// The pools that a listener may send to.
fn reachable(lb: &LoadBalancer, listener: &Listener) -> Vec<Pool> {
    lb.pools.iter().filter(|pool| listener.protocol.carries(pool.protocol)).cloned().collect()
}

fn policies(rng: &mut Prng, lb: &LoadBalancer, listener: &Listener) -> Vec<L7Policy> {
    let pools = reachable(lb, listener);
    if pools.is_empty() {
        return Vec::new();
    }
    let count = 1 + rng.below(5);
    let policy = |position: usize| {
        let mut policy = cases::policy(rng, position as u32, &pools);
        // Octavia's text has a tab as it is, which ends a word.
        policy.rules.iter_mut().for_each(|rule| rule.value = rule.value.replace('\t', " "));
        policy
    };
    (1..=count).map(policy).collect()
}

fn visit(g: &mut Generator, rng: &mut Prng, lb: &LoadBalancer) -> Visit {
    let is_visited = |listener: &Listener| {
        // What these tell is compared elsewhere, name by name.
        listener.admin_state_up && listener.protocol != ListenerProtocol::Prometheus
    };
    let enabled: Vec<usize> = (0..lb.listeners.len()).filter(|at| is_visited(&lb.listeners[*at])).collect();
    let at = g.pick(&enabled);
    let listener = &lb.listeners[at];
    let to = g.pick(&lb.vips).address;
    let mut shake = || Shake {
        name: g.pick(&[
            None,
            Some("www.example.com"),
            Some("a.example.org"),
            Some("api.example.com"),
            Some("other.example"),
        ]),
        certificate: g.pick(&[None, None, Some("c3"), Some("revoked"), Some("foreign")]),
        alpn: g.pick(&[&[][..], &["http/1.1"][..], &["h2", "http/1.1"][..]]),
        newest: g.one_in(2),
    };
    let tls = listener.tls.as_ref().map(|_| shake());
    let mut requests: Vec<_> = (0..g.within(1..=4)).map(|_| request(g, rng, lb, listener)).collect();
    // Behind chunks the connection of a client of HTTP/1.0 goes on with HAProxy alone.
    if let Some(at) = requests.iter().position(|request| is_old(request) && reply_of(request) == "chunked") {
        requests.truncate(at + 1);
    }
    let from = address(to.is_ipv4(), 7, g.within(1..=4));
    // With TLS it is agreed on; without, a client may know.
    let in_streams = match &tls {
        None => listener.protocol == ListenerProtocol::Http && g.one_in(6),
        Some(shake) => shake.alpn.contains(&"h2"),
    };
    Visit { listener: at, from, to, tls, in_streams, requests, manner: Manner::InTurn }
}

fn request(g: &mut Generator, rng: &mut Prng, lb: &LoadBalancer, listener: &Listener) -> Vec<u8> {
    let bytes = cases::request(rng, &listener.l7policies);
    let text = latin1(&bytes);
    let (line, rest) = text.split_once("\r\n").unwrap();
    let reply = g.pick(&super::member::REPLIES);
    let mut rest = rest.to_owned();
    if !g.one_in(4) {
        rest = rest.replacen("Connection: close\r\n", "", 1);
    }
    if line.contains("://") {
        // HAProxy takes the default port away, for members and logs as well.
        rest = rest.replace(":80\r\n", "\r\n");
    }
    if rest.contains("Content-Length: 2\r\n") {
        match g.within(0..=5) {
            0 => {
                rest = rest
                    .replace("Content-Length: 2", "Transfer-Encoding: chunked")
                    .replace("\r\n\r\nhi", "\r\n\r\n1\r\nh\r\n1;x\r\ni\r\n0\r\n\r\n")
            }
            1 => {
                rest =
                    rest.replace("Content-Length: 2", "Content-Length: 0").replace("\r\n\r\nhi", "\r\n\r\n")
            }
            _ => {}
        }
    }
    let mut line =
        if line.contains("://") { line.replace(":80/", "/").replace(":80 ", " ") } else { line.to_owned() };
    if line.ends_with("1.0") {
        rest = rest.replace("Transfer-Encoding: chunked", "Content-Length: 19");
    }
    if g.one_in(12) {
        line = line.replacen("GET ", "HEAD ", 1);
    }
    let members: Vec<String> =
        lb.pools.iter().flat_map(|pool| &pool.members).map(|m| m.id.to_string()).collect();
    let extra = match g.within(0..=13) {
        0 => "Connection: keep-alive\r\n".into(),
        1 => "Keep-Alive: 5\r\n".into(),
        2 => "X-SSL-Client-CN: me\r\n".into(),
        3 => "TE: trailers\r\n".into(),
        4 => "Cookie: JSESSIONID=s1\r\n".into(),
        5 => "Cookie: a=b; JSESSIONID=s2; c\r\n".into(),
        6 | 7 if !members.is_empty() => format!("Cookie: SRV={}\r\n", g.pick(&members)),
        8 => "Cookie: x=1; SRV=nobody; y=2\r\n".into(),
        _ => String::new(),
    };
    format!("{line}\r\nX-Reply: {reply}\r\n{extra}{rest}").chars().map(|c| c as u8).collect()
}

/// What clients say about their certificates.
fn told_by_tls(g: &mut Generator, policies: &mut [L7Policy]) {
    for rule in policies.iter_mut().flat_map(|policy| &mut policy.rules) {
        if !g.one_in(3) {
            continue;
        }
        (rule.subject, rule.compare, rule.value) = match g.within(0..=3) {
            0 => (L7Subject::SslConnHasCert, CompareType::EqualTo, "True".into()),
            1 => (L7Subject::SslVerifyResult, CompareType::EqualTo, g.pick(&["0", "23", "20", "1"]).into()),
            2 => (
                L7Subject::SslDnField("CN".into()),
                CompareType::EqualTo,
                g.pick(&["client", "revoked"]).into(),
            ),
            _ => (L7Subject::SslDnField("CN".into()), CompareType::StartsWith, g.pick(&["cli", "x"]).into()),
        };
    }
}

/// Whether it is of HTTP/1.0.
pub(super) fn is_old(request: &[u8]) -> bool {
    latin1(request).split_once("\r\n").is_some_and(|(line, _)| line.ends_with("1.0"))
}

/// How the member is to answer.
pub(super) fn reply_of(request: &[u8]) -> String {
    let text = latin1(request);
    let (_, rest) = text.split_once("\r\nX-Reply: ").unwrap_or_default();
    rest.split("\r\n").next().unwrap_or_default().to_owned()
}

/// Replaces what stands there once, byte for byte.
pub(super) fn replace(bytes: &mut Vec<u8>, old: &str, new: &str) {
    *bytes = latin1(bytes).replacen(old, new, 1).chars().map(|c| c as u8).collect();
}

/// Each byte as a character.
pub(super) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
