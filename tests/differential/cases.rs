//! Generated cases: sets of policies, each with requests that come close to what its rules look for.

use std::time::Duration;

use amphora_model::{
    CompareType, InsertHeaders, L7Action, L7Policy, L7PolicyId, L7Rule, L7RuleId, L7Subject, LbAlgorithm,
    Listener, ListenerId, ListenerProtocol, ListenerTimeouts, Member, MemberId, Pool, PoolId, PoolProtocol,
    RedirectCode,
};

use crate::prng::Prng;

/// One listener with its policies and pools, and the requests to send to it.
pub(crate) struct Set {
    /// What it was made from, for replay.
    pub(crate) seed: u64,
    pub(crate) listener: Listener,
    /// The pool at each index has the backend at that index as its only member.
    pub(crate) pools: Vec<Pool>,
    /// As bytes on the wire.
    pub(crate) requests: Vec<Vec<u8>>,
}

const HOSTS: &[&str] = &[
    "www.example.com",
    "www.example.com:80",
    "WWW.Example.COM",
    "api.example.com:8080",
    "api7.example.com",
    "example.org",
    "10.0.0.1",
    "example.com",
    "x",
];

const PATHS: &[&str] = &[
    "/",
    "/api/v1/users",
    "/api",
    "/index.php",
    "/img/a.jpg",
    "/img/a.JPG",
    "/a%20b",
    "//",
    "/a//b/../c",
    "/foo/bar.tar.gz",
    "/login;jsessionid=1",
    "/~user/",
    "/a+b=c,d",
    "/caf%C3%A9",
];

const HEADERS: &[&str] =
    &["X-Test", "x-test", "Accept", "User-Agent", "X-Empty", "X-A.b_c", "Cookie", "Host"];

const VALUES: &[&str] = &[
    "1",
    "a",
    "text/html",
    "Mozilla/5.0",
    "\"a b\"",
    "\"a,b\"",
    "a;b",
    "a=b",
    "x,y",
    "\\",
    "a\\b",
    "\"a\\\"b\"",
    "#frag",
    "100%",
    "%[src]",
    "$HOME",
    "${HOME}",
    "-m",
    "--",
    "!",
    "*",
    "{x}",
    "it's",
    "a&b",
    "<b>",
    "\"tab\there\"",
    "~",
];

const COOKIES: &[&str] = &["sid", "SID", "k", "a.b"];

const COOKIE_VALUES: &[&str] = &["1", "abc", "a=b", "x#y", "it's", "%20", "a&b", "~", "v-1"];

const ODD_COOKIES: &[&str] = &[
    "sid=",
    " sid=",
    "k=\"1;2\"",
    "$Version=1",
    "lone",
    "sid = abc",
    "=x",
    "k=1, sid=abc",
    "sid=\"a,k=1;k=2\"",
    "\"q;sid=abc",
    "k=\"a\\\";sid=1\"; k=2",
    "sid=1;sid=abc",
    "sid\t=\tabc\t",
    ";;k=1",
];

/// Regular expressions with subjects near to them.
const REGEXES: &[(&str, &[&str])] = &[
    ("^api[0-9]+\\.example", &["api7.example.com", "API12.example", "api.example"]),
    ("(www|api)\\.", &["www.x", "wwwx", "api."]),
    ("example\\.(com|org)$", &["example.com", "example.com:80", "EXAMPLE.ORG"]),
    ("^/api/v[12]/.*", &["/api/v1/", "/api/v2/x?y", "/api/v3/"]),
    ("\\.(jpe?g|png)$", &["/a.jpg", "/a.jpeg", "/a.jpg?x", "/apng"]),
    ("jp[e]?g", &["/a.jpg", "/a.jpeg/x", "/a.jpp"]),
    ("^$", &["", "x"]),
    (".*", &["", "anything"]),
    ("^.$", &["a", "ab", "\u{e9}"]),
    ("^\\d+$", &["123", "12a", ""]),
    ("a b", &["a b", "ab"]),
    ("a#b", &["a#b", "a"]),
    ("\"q\"", &["\"q\"", "q"]),
    ("it's", &["it's", "its"]),
    ("[^a-z]{3}", &["ABC", "abc", "1-2"]),
    ("(?i)mozilla", &["Mozilla/5.0", "MOZILLA", "moz"]),
    ("^a\\\\b$", &["a\\b", "ab"]),
    ("%[0-9A-F]{2}", &["/a%20b", "%zz"]),
    ("\\bfoo\\b", &["a foo b", "food"]),
    ("&amp;|&", &["a&b", "amp"]),
    ("^-", &["-m", "m"]),
    ("a{2,3}$", &["aa", "a", "caaa"]),
    ("[[:upper:]]", &["a", "A"]),
];

pub(crate) fn generate(seed: u64, port: u16, backends: &[u16]) -> Set {
    let mut rng = Prng::new(seed);
    let rng = &mut rng;
    let pools: Vec<Pool> = backends.iter().enumerate().map(|(n, port)| pool(rng, *port, n > 0)).collect();
    let default_pool = (!rng.chance(10)).then(|| pools[rng.below(pools.len())].id);
    let mut l7policies: Vec<L7Policy> = Vec::new();
    for _ in 0..1 + rng.below(6) {
        let position = loop {
            let position = 1 + rng.below(40) as u32;
            if l7policies.iter().all(|policy| policy.position != position) {
                break position;
            }
        };
        l7policies.push(policy(rng, position, &pools));
    }
    l7policies.sort_by_key(|policy| policy.position);
    let requests = (0..12).map(|_| request(rng, &l7policies)).collect();
    let mut listener = listener(ListenerId(rng.uuid()), port, default_pool, l7policies);
    listener.insert_headers = InsertHeaders {
        x_forwarded_for: rng.chance(30),
        x_forwarded_port: rng.chance(30),
        x_forwarded_proto: rng.chance(30),
        ..InsertHeaders::default()
    };
    Set { seed, listener, pools, requests }
}

pub(crate) fn listener(
    id: ListenerId,
    port: u16,
    default_pool: Option<PoolId>,
    l7policies: Vec<L7Policy>,
) -> Listener {
    Listener {
        id,
        name: String::new(),
        admin_state_up: true,
        protocol: ListenerProtocol::Http,
        port,
        connection_limit: None,
        member_connection_limit: None,
        rate_limit_policies: Vec::new(),
        trusted_proxies: None,
        default_pool,
        tls: None,
        insert_headers: InsertHeaders::default(),
        l7policies,
        timeouts: ListenerTimeouts { client_data: Duration::from_secs(5), ..ListenerTimeouts::default() },
        allowed_cidrs: Vec::new(),
        flow_log: None,
        routing: Default::default(),
    }
}

fn pool(rng: &mut Prng, port: u16, may_be_disabled: bool) -> Pool {
    Pool {
        id: PoolId(rng.uuid()),
        name: String::new(),
        admin_state_up: !(may_be_disabled && rng.chance(15)),
        protocol: PoolProtocol::Http,
        lb_algorithm: LbAlgorithm::RoundRobin,
        tls: None,
        session_persistence: None,
        health_monitor: None,
        member_options: Default::default(),
        members: vec![Member {
            id: MemberId(rng.uuid()),
            name: String::new(),
            admin_state_up: true,
            address: [127, 0, 0, 1].into(),
            port,
            weight: 1,
            backup: false,
            monitor_address: None,
            monitor_port: None,
        }],
    }
}

pub(crate) fn policy(rng: &mut Prng, position: u32, pools: &[Pool]) -> L7Policy {
    const CODES: [RedirectCode; 5] = [
        RedirectCode::MovedPermanently,
        RedirectCode::Found,
        RedirectCode::SeeOther,
        RedirectCode::Temporary,
        RedirectCode::Permanent,
    ];
    const URLS: [&str; 4] =
        ["http://other.example.com/x?y=1", "https://h/?a=1&b=2%20c#f", "http://[::1]:81/", "http://h/it's"];
    const PREFIXES: [&str; 4] =
        ["https://prefix.example.com", "http://p/sub", "http://p:8080/%41/", "http://p?x=&"];
    let action = match rng.below(5) {
        0 => L7Action::Reject,
        1 => L7Action::RedirectToUrl { url: rng.pick(&URLS).to_owned(), code: rng.pick(&CODES) },
        2 => L7Action::RedirectPrefix { prefix: rng.pick(&PREFIXES).to_owned(), code: rng.pick(&CODES) },
        _ => L7Action::RedirectToPool(pools[rng.below(pools.len())].id),
    };
    // Mostly one rule: with more, hardly any policy would ever apply.
    let rules = [0, 1, 1, 1, 1, 2, 2, 3][rng.below(8)];
    L7Policy {
        id: L7PolicyId(rng.uuid()),
        name: String::new(),
        admin_state_up: !rng.chance(8),
        position,
        action,
        edits: None,
        rules: (0..rules).map(|_| rule(rng)).collect(),
    }
}

fn rule(rng: &mut Prng) -> L7Rule {
    let subject = match rng.below(8) {
        0 | 1 => L7Subject::HostName,
        2 | 3 => L7Subject::Path,
        4 => L7Subject::FileType,
        5 | 6 => L7Subject::Header(rng.pick(HEADERS).to_owned()),
        _ => L7Subject::Cookie(rng.pick(COOKIES).to_owned()),
    };
    let compare = match &subject {
        L7Subject::FileType => rng.pick(&[CompareType::EqualTo, CompareType::Regex]),
        _ => rng.pick(CompareType::ALL),
    };
    let value = match (&subject, compare) {
        (_, CompareType::Regex) => rng.pick(REGEXES).0.to_owned(),
        (L7Subject::HostName, _) => cut(rng, HOSTS, compare),
        (L7Subject::Path, _) => cut(rng, PATHS, compare),
        (L7Subject::FileType, _) => rng.pick(&["jpg", "php", ".tar.gz", "/", "s"]).to_owned(),
        (L7Subject::Cookie(_), _) => rng.pick(COOKIE_VALUES).to_owned(),
        _ => rng.pick(VALUES).to_owned(),
    };
    L7Rule {
        id: L7RuleId(rng.uuid()),
        admin_state_up: !rng.chance(7),
        invert: rng.chance(20),
        subject,
        compare,
        value,
    }
}

/// A value, or for the comparisons of parts mostly a part of one.
fn cut(rng: &mut Prng, from: &[&str], compare: CompareType) -> String {
    let whole = rng.pick(from);
    let at = 1 + rng.below(whole.len());
    match compare {
        CompareType::StartsWith => whole[..at].to_owned(),
        CompareType::EndsWith => whole[at - 1..].to_owned(),
        CompareType::Contains => whole[at / 2..at].to_owned(),
        _ => whole.to_owned(),
    }
}

/// A value that a rule looks for, or one near to it.
fn near(rng: &mut Prng, rule: &L7Rule) -> String {
    let mut value = match rule.compare {
        CompareType::Regex => {
            let known = REGEXES.iter().find(|(pattern, _)| *pattern == rule.value);
            known.map_or_else(|| "x".to_owned(), |(_, subjects)| rng.pick(subjects).to_owned())
        }
        _ => rule.value.clone(),
    };
    match rng.below(10) {
        0 => value.push('x'),
        1 => value.insert(0, 'x'),
        2 => value = value.to_ascii_uppercase(),
        3 => value = value.to_ascii_lowercase(),
        4 => {
            value.pop();
        }
        _ => {}
    }
    value
}

pub(crate) fn request(rng: &mut Prng, policies: &[L7Policy]) -> Vec<u8> {
    let mut host = rng.pick(HOSTS).to_owned();
    let mut path = rng.pick(PATHS).to_owned();
    let mut fields: Vec<(String, String)> = Vec::new();
    let mut cookies: Vec<String> = Vec::new();
    let rules: Vec<&L7Rule> = policies.iter().flat_map(|policy| &policy.rules).collect();
    for rule in &rules {
        if !rng.chance(45) {
            continue;
        }
        let value = near(rng, rule);
        match &rule.subject {
            L7Subject::HostName => host = value.replace(' ', "-"),
            L7Subject::Path => path = value,
            L7Subject::FileType => path = format!("/f.{value}"),
            L7Subject::Header(name) if name == "Host" => host = value.replace(' ', "-"),
            L7Subject::Header(name) if name == "Cookie" => cookies.push(value),
            L7Subject::Header(name) => fields.push((name.clone(), value)),
            L7Subject::Cookie(name) => cookies.push(format!("{name}={value}")),
            // A plain connection has no certificate.
            L7Subject::SslConnHasCert | L7Subject::SslVerifyResult | L7Subject::SslDnField(_) => {}
        }
    }
    for _ in 0..rng.below(3) {
        fields.push((rng.pick(&HEADERS[..6]).to_owned(), rng.pick(VALUES).to_owned()));
    }
    for _ in 0..rng.below(3) {
        cookies.push(format!("{}={}", rng.pick(COOKIES), rng.pick(COOKIE_VALUES)));
    }
    if rng.chance(20) {
        cookies.push(rng.pick(ODD_COOKIES).to_owned());
    }
    if rng.chance(10) {
        // What a listener may set itself.
        let name = rng.pick(&["X-Forwarded-For", "x-forwarded-for", "X-Forwarded-Port", "X-Forwarded-Proto"]);
        fields.push((name.to_owned(), rng.pick(&["10.1.2.3", "80, 90", "https", ""]).to_owned()));
    }
    if rng.chance(4) {
        fields.extend((0..60).map(|n| (format!("X-Pad-{n}"), "p".repeat(n))));
    }
    write(rng, &host, &path, fields, cookies)
}

/// Spells the request out, with all that a client may do about it.
fn write(
    rng: &mut Prng,
    host: &str,
    path: &str,
    mut fields: Vec<(String, String)>,
    cookies: Vec<String>,
) -> Vec<u8> {
    // Values of other subjects came as they are: what cannot stand in a target or a host goes.
    let visible =
        |text: &str| -> String { text.chars().filter(|c| c.is_ascii_graphic() && *c != '#').collect() };
    let mut path = visible(path);
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    let host: String =
        visible(host).chars().filter(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(*c)).collect();
    // HAProxy takes any Host; what is not `host[:port]` is refused here before policies are asked.
    let (name, port) = host.split_once(':').unwrap_or((&host, ""));
    let port: String = port.chars().filter(char::is_ascii_digit).take(4).collect();
    let name = if name.is_empty() || name.contains(['[', ']']) { "h" } else { name };
    let host = if port.is_empty() { name.to_owned() } else { format!("{name}:{port}") };
    if rng.chance(30) {
        path.push_str(rng.pick(&["?", "?a=b", "?x=/y.jpg", "?a?b", "?q=%2F"]));
    }
    if !cookies.is_empty() {
        let separator = rng.pick(&["; ", ";", " ; ", ", "]);
        if rng.chance(30) && cookies.len() > 1 {
            let (first, rest) = cookies.split_at(1);
            fields.push(("Cookie".to_owned(), first.join(separator)));
            fields.push(("cookie".to_owned(), rest.join(separator)));
        } else {
            fields.push(("Cookie".to_owned(), cookies.join(separator)));
        }
    }
    // The same name again: one field with commas, or several.
    if fields.len() > 1 && rng.chance(30) {
        let (name, value) = fields[0].clone();
        match rng.below(5) {
            0 => fields.push((name.to_ascii_uppercase(), value)),
            1 => fields.push((name.to_ascii_lowercase(), format!("\"x,{value}\",{value}"))),
            2 => fields[0].1 = format!("\"x\\\",{value},\",y"),
            3 => fields[0].1 = format!("{value},{}", rng.pick(VALUES)),
            _ => fields[0].1 = format!("{} ,\t{value} ,", rng.pick(VALUES)),
        }
    }
    let old = rng.chance(12);
    let target = match rng.below(25) {
        0 | 1 => format!("http://{host}{path}"),
        2 if !path.contains('?') => format!("http://{host}"),
        3 => format!("HTTP://{}{path}", host.to_ascii_lowercase()),
        _ => path,
    };
    let method = rng.pick(&["GET", "GET", "GET", "GET", "GET", "POST", "PUT", "DELETE", "OPTIONS", "PURGE"]);
    let target = if method == "OPTIONS" && rng.chance(40) { "*".to_owned() } else { target };
    let mut text = format!("{method} {target} HTTP/1.{}\r\n", u8::from(!old));
    let absolute = !target.starts_with('/');
    if !old || absolute || rng.chance(50) {
        text.push_str(&format!("{}: {host}\r\n", rng.pick(&["Host", "host", "HOST"])));
    }
    for (name, value) in &fields {
        let (before, after) = rng.pick(&[(" ", ""), (" ", ""), ("", ""), ("\t ", " \t"), ("  ", " ")]);
        text.push_str(&format!("{name}:{before}{value}{after}\r\n"));
    }
    if matches!(method, "POST" | "PUT") {
        text.push_str("Content-Length: 2\r\nConnection: close\r\n\r\nhi");
    } else {
        text.push_str("Connection: close\r\n\r\n");
    }
    text.into_bytes()
}
