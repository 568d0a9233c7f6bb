//! Cases by hand.

#![allow(clippy::unwrap_used)]

use amphora_ipc::proxy::Fault;
use amphora_model::{
    CompareType, InsertHeaders, L7Action, L7Policy, L7PolicyId, L7Rule, L7RuleId, L7Subject, Listener,
    ListenerId, ListenerProtocol, ListenerTimeouts,
};
use uuid::Uuid;

use super::*;
use crate::http::RequestHead;

mod edits;
mod limits;
mod naive;

#[derive(Debug)]
struct Request {
    target: String,
    headers: Vec<(String, String)>,
}

impl RequestFacts for Request {
    fn path_and_query(&self) -> &[u8] {
        self.target.as_bytes()
    }

    fn header_count(&self) -> usize {
        self.headers.len()
    }

    fn header(&self, index: usize) -> (&[u8], &[u8]) {
        let (name, value) = &self.headers[index];
        (name.as_bytes(), value.as_bytes())
    }
}

fn request(target: &str, headers: &[(&str, &str)]) -> Request {
    let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Request { target: target.to_owned(), headers }
}

fn rule(subject: L7Subject, compare: CompareType, value: &str) -> L7Rule {
    L7Rule {
        id: L7RuleId(Uuid::nil()),
        admin_state_up: true,
        invert: false,
        subject,
        compare,
        value: value.to_owned(),
    }
}

fn policy(position: u32, action: L7Action, rules: Vec<L7Rule>) -> L7Policy {
    L7Policy {
        id: L7PolicyId(Uuid::nil()),
        name: String::new(),
        admin_state_up: true,
        position,
        action,
        edits: None,
        rules,
    }
}

fn pool(number: u128) -> PoolId {
    PoolId(Uuid::from_u128(number))
}

fn listener(l7policies: Vec<L7Policy>) -> Listener {
    Listener {
        id: ListenerId(Uuid::nil()),
        name: String::new(),
        admin_state_up: true,
        protocol: ListenerProtocol::Http,
        port: 80,
        connection_limit: None,
        member_connection_limit: None,
        rate_limit_policies: Vec::new(),
        trusted_proxies: None,
        default_pool: None,
        tls: None,
        insert_headers: InsertHeaders::default(),
        l7policies,
        timeouts: ListenerTimeouts::default(),
        allowed_cidrs: Vec::new(),
        flow_log: None,
        routing: Default::default(),
    }
}

fn compile(policies: Vec<L7Policy>) -> Result<L7Program, Vec<Fault>> {
    L7Program::compile(&listener(policies), |id| id != pool(13), &mut Budget::new(&Expressions::default()))
}

fn redirect(url: &str) -> L7Action {
    L7Action::RedirectToUrl { url: url.to_owned(), code: RedirectCode::Found }
}

/// Whether a policy with this one rule rejects the request.
fn holds<R: RequestFacts + ?Sized>(rule: L7Rule, request: &R) -> bool {
    let program = compile(vec![policy(1, L7Action::Reject, vec![rule])]).unwrap();
    program.evaluate(request, &mut Scratch::new()) == Outcome::Reject
}

#[test]
fn rejects_before_redirects_before_pools_whatever_the_positions() {
    let everything = || vec![rule(L7Subject::Path, CompareType::StartsWith, "/")];
    let root = request("/", &[]);
    let mut policies = vec![
        policy(1, L7Action::RedirectToPool(pool(1)), everything()),
        policy(4, redirect("http://late/"), everything()),
        policy(3, redirect("http://early/"), everything()),
        policy(5, L7Action::Reject, everything()),
    ];
    let mut scratch = Scratch::new();
    assert_eq!(compile(policies.clone()).unwrap().evaluate(&root, &mut scratch), Outcome::Reject);
    policies.pop();
    let location = Location::Url("http://early/");
    let expected = Outcome::Redirect { code: RedirectCode::Found, location };
    assert_eq!(compile(policies.clone()).unwrap().evaluate(&root, &mut scratch), expected);
    policies.truncate(1);
    assert_eq!(compile(policies).unwrap().evaluate(&root, &mut scratch), Outcome::Pool(pool(1)));
    assert_eq!(compile(Vec::new()).unwrap().evaluate(&root, &mut scratch), Outcome::Pass);
}

#[test]
fn disabled_things_are_as_if_they_were_not_there() {
    let hit = rule(L7Subject::Path, CompareType::StartsWith, "/");
    let miss = rule(L7Subject::Path, CompareType::StartsWith, "/no");
    let off = |rule: &L7Rule| L7Rule { admin_state_up: false, ..rule.clone() };
    let root = request("/", &[]);
    let outcome = |policy: L7Policy| {
        let program = compile(vec![policy]).unwrap();
        let outcome = program.evaluate(&root, &mut Scratch::new());
        (program.is_empty(), outcome == Outcome::Reject)
    };
    assert_eq!(outcome(policy(1, L7Action::Reject, vec![hit.clone(), off(&miss)])), (false, true));
    assert_eq!(outcome(policy(1, L7Action::Reject, vec![hit.clone(), miss.clone()])), (false, false));
    assert_eq!(outcome(policy(1, L7Action::Reject, vec![off(&hit)])), (true, false));
    assert_eq!(outcome(policy(1, L7Action::Reject, Vec::new())), (true, false));
    let disabled = L7Policy { admin_state_up: false, ..policy(1, L7Action::Reject, vec![hit.clone()]) };
    assert_eq!(outcome(disabled), (true, false));
    assert_eq!(outcome(policy(1, L7Action::RedirectToPool(pool(13)), vec![hit])), (true, false));
    // What is left out is not judged either.
    let bad = rule(L7Subject::Path, CompareType::Regex, "(?=a");
    assert_eq!(outcome(policy(1, L7Action::Reject, vec![off(&bad)])), (true, false));
}

#[test]
fn hosts_ignore_case_and_everything_else_keeps_it() {
    let host = |compare, value| rule(L7Subject::HostName, compare, value);
    let api = request("/Path", &[("HOST", "Api.Example.COM:8080"), ("Cookie", "K=v"), ("X-H", "Val")]);
    assert!(holds(host(CompareType::EqualTo, "api.example.com:8080"), &api));
    assert!(!holds(host(CompareType::EqualTo, "api.example.com"), &api));
    assert!(holds(host(CompareType::StartsWith, "API."), &api));
    assert!(holds(host(CompareType::Contains, "EXAMPLE"), &api));
    assert!(holds(host(CompareType::Regex, "^api[.]example"), &api));
    assert!(!holds(rule(L7Subject::Path, CompareType::EqualTo, "/path"), &api));
    assert!(holds(rule(L7Subject::Header("x-h".to_owned()), CompareType::EqualTo, "Val"), &api));
    assert!(!holds(rule(L7Subject::Header("x-h".to_owned()), CompareType::EqualTo, "val"), &api));
    assert!(holds(rule(L7Subject::Cookie("K".to_owned()), CompareType::EqualTo, "v"), &api));
    assert!(!holds(rule(L7Subject::Cookie("k".to_owned()), CompareType::EqualTo, "v"), &api));
}

#[test]
fn a_missing_sample_matches_nothing_and_everything_when_inverted() {
    let any = rule(L7Subject::Header("X".to_owned()), CompareType::Regex, ".*");
    let inverted = L7Rule { invert: true, ..any.clone() };
    let without = request("/", &[]);
    assert!(!holds(any.clone(), &without) && holds(inverted.clone(), &without));
    let empty = request("/", &[("x", "")]);
    assert!(holds(any, &empty) && !holds(inverted, &empty));

    let path = rule(L7Subject::Path, CompareType::Regex, ".*");
    assert!(!holds(path.clone(), &request("", &[])), "a target without a path");
    assert!(holds(path, &request("?q", &[])), "an empty path with a query");
}

#[test]
fn default_ports_of_absolute_targets_do_not_count() {
    for (target, host) in [
        ("http://h:80/x", Some("h")),
        ("HTTP://h:80", Some("h")),
        ("https://[::1]:443?q", Some("[::1]")),
        ("http://h:/", Some("h")),
        ("http://h:8080/", None),
        ("http://h:443/", None),
        ("http://h/:80", None),
        ("ftp://h:80/", None),
        ("/http://h:80", None),
        ("h:80", None),
        ("*", None),
        ("", None),
    ] {
        assert_eq!(normalized_host(target.as_bytes()), host.map(str::as_bytes), "{target}");
    }
}

#[test]
fn rules_see_the_authority_of_an_absolute_target_without_host() {
    let sees = |host: &str, text: &str| {
        let mut head = RequestHead::new();
        head.parse(text.as_bytes()).unwrap().unwrap();
        holds(rule(L7Subject::HostName, CompareType::EqualTo, host), &head.view(text.as_bytes()))
    };
    for (host, line) in [
        ("a.example", "GET http://a.example/ HTTP/1.0"),
        ("a.example", "GET http://A.Example/x?y HTTP/1.0"),
        ("A.example", "GET HTTP://a.example:80/ HTTP/1.0"),
        ("a.example", "GET http://a.example:/ HTTP/1.0"),
        ("a.example", "GET http://a.example HTTP/1.0"),
        ("a.example", "OPTIONS https://a.example:443 HTTP/1.0"),
        ("a.example:8080", "GET http://a.example:8080/ HTTP/1.0"),
        ("a.example:80", "GET ftp://a.example:80/ HTTP/1.0"),
        ("[::1]", "GET http://[::1]:80/ HTTP/1.0"),
    ] {
        assert!(sees(host, &format!("{line}\r\nConnection: close\r\n\r\n")), "{line}");
    }
    assert!(!sees("a", "GET http://b/ HTTP/1.0\r\n\r\n"));
    assert!(!sees("a", "GET / HTTP/1.0\r\n\r\n"));
    // Where both are there `Host` counts, as in HAProxy, but for a default port of the target.
    assert!(sees("a:80", "GET http://a/ HTTP/1.0\r\nHost: a:80\r\n\r\n"));
    assert!(sees("a", "GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(sees("a", "GET http://a:80/ HTTP/1.0\r\nHost: a:80\r\n\r\n"));
}

#[test]
fn a_parsed_request_shows_its_path_and_all_of_its_fields() {
    let shown = |line: &str| {
        let text = format!("{line}\r\nHost: h\r\nX-A: 1\r\nx-a: 2\r\nCookie: k=v\r\n\r\n");
        let mut head = RequestHead::new();
        head.parse(text.as_bytes()).unwrap().unwrap();
        let view = head.view(text.as_bytes());
        let fields: Vec<_> = (0..view.header_count()).map(|i| view.header(i)).collect();
        let expected: [(&[u8], &[u8]); 4] =
            [(b"Host", b"h"), (b"X-A", b"1"), (b"x-a", b"2"), (b"Cookie", b"k=v")];
        assert_eq!(fields, expected);
        let named = |subject, value| holds(rule(subject, CompareType::EqualTo, value), &view);
        assert!(
            named(L7Subject::Header("X-A".to_owned()), "1")
                && named(L7Subject::Header("X-A".to_owned()), "2")
        );
        assert!(named(L7Subject::Cookie("k".to_owned()), "v") && named(L7Subject::HostName, "h"));
        (
            String::from_utf8(RequestFacts::path_and_query(&view).to_vec()).unwrap(),
            named(L7Subject::Path, "/a/b"),
        )
    };
    for (line, path, matches) in [
        ("GET /a/b?x HTTP/1.1", "/a/b?x", true),
        ("GET http://h/a/b HTTP/1.1", "/a/b", true),
        ("GET /a HTTP/1.1", "/a", false),
        ("OPTIONS * HTTP/1.1", "", false),
    ] {
        assert_eq!(shown(line), (path.to_owned(), matches), "{line}");
    }
}

#[test]
fn options_about_the_connection_itself_are_no_values() {
    let close = rule(L7Subject::Header("Connection".to_owned()), CompareType::Regex, "close|keep-alive");
    assert!(!holds(close.clone(), &request("/", &[("connection", "Close, keep-alive")])));
    assert!(holds(close, &request("/", &[("connection", "close, x-close")])));
}

#[test]
fn paths_end_before_the_query() {
    let target = request("/a/b.php?x=/c.jpg", &[]);
    assert!(holds(rule(L7Subject::FileType, CompareType::EqualTo, "php"), &target));
    assert!(!holds(rule(L7Subject::FileType, CompareType::EqualTo, "jpg"), &target));
    assert!(holds(rule(L7Subject::FileType, CompareType::Regex, "^/a.*p$"), &target));
    assert!(holds(rule(L7Subject::Path, CompareType::EndsWith, "/b.php"), &target));
}

#[test]
fn a_prefix_redirect_keeps_path_and_query() {
    let action =
        |prefix: &str| L7Action::RedirectPrefix { prefix: prefix.to_owned(), code: RedirectCode::Permanent };
    let location = |prefix: &str, target: &str| {
        let rules = vec![L7Rule { invert: true, ..rule(L7Subject::Path, CompareType::EqualTo, "/not") }];
        let program = compile(vec![policy(1, action(prefix), rules)]).unwrap();
        let request = request(target, &[]);
        match program.evaluate(&request, &mut Scratch::new()) {
            Outcome::Redirect { code: RedirectCode::Permanent, location } => {
                String::from_utf8(location.pieces(request.path_and_query()).concat()).unwrap()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(location("https://h", "/a?b=c"), "https://h/a?b=c");
    assert_eq!(location("https://h", ""), "https://h/");
    assert_eq!(location("/", "/a"), "/a");
    assert_eq!(Location::Url("http://u").pieces(b"/a").concat(), b"http://u");
}

#[test]
fn faults_name_their_place_and_come_together() {
    let numbered = |number, rule: L7Rule| L7Rule { id: L7RuleId(Uuid::from_u128(number)), ..rule };
    let rules = vec![
        numbered(0, rule(L7Subject::Path, CompareType::EqualTo, "/")),
        numbered(1, rule(L7Subject::Header("a b".to_owned()), CompareType::EqualTo, "")),
        numbered(2, rule(L7Subject::FileType, CompareType::Contains, "a\nb")),
        numbered(3, rule(L7Subject::Path, CompareType::EqualTo, &"x".repeat(2000))),
    ];
    let look_ahead = numbered(9, rule(L7Subject::Path, CompareType::Regex, "a(?=b"));
    let first = L7Policy { id: L7PolicyId(Uuid::from_u128(1)), ..policy(1, redirect("http://a b"), rules) };
    let faults = compile(vec![policy(2, L7Action::Reject, vec![look_ahead]), first]).unwrap_err();
    let mut paths: Vec<String> =
        faults.iter().map(|f| f.path.replace("00000000-0000-0000-0000-00000000000", "")).collect();
    paths.sort_unstable();
    let expected = [
        "[0].rules[9].value",
        "[1].redirect_url",
        "[1].rules[1].key",
        "[1].rules[1].value",
        "[1].rules[2].compare_type",
        "[1].rules[2].value",
        "[1].rules[3].value",
    ];
    assert_eq!(paths, expected.map(|path| format!("loadbalancer.listeners[0].l7policies{path}")));
    assert!(faults.iter().any(|f| f.reason.contains("missing closing parenthesis (offset 5)")));
}

#[test]
fn from_16_policies_on_there_is_an_index() {
    let rules = || vec![rule(L7Subject::Path, CompareType::EqualTo, "/")];
    let indexed = |n: u32, rules: &dyn Fn() -> Vec<L7Rule>| {
        let program = compile((0..n).map(|n| policy(n, L7Action::Reject, rules())).collect()).unwrap();
        format!("{program:?}").contains("index: Some")
    };
    assert_eq!((indexed(15, &rules), indexed(16, &rules)), (false, true));
    // The rarest rule is the guard, however long the others are.
    let program = compile(
        (0..16)
            .map(|n| {
                let own = rule(L7Subject::Path, CompareType::EndsWith, &format!("{n}"));
                let common = rule(L7Subject::Path, CompareType::StartsWith, "/long");
                policy(n, L7Action::Reject, vec![common, own])
            })
            .collect(),
    );
    let shown = format!("{:?}", program.unwrap());
    assert!(shown.contains("comparison: Suffix") && !shown.contains("comparison: Prefix"), "{shown}");
    // None where no rule is a guard.
    let regex = || vec![rule(L7Subject::Path, CompareType::Regex, "a")];
    assert!(!indexed(16, &regex));
}

#[test]
fn rules_about_the_clients_certificate() {
    use crate::tls::{ClientCertificate, PeerFacts};

    let facts = |certificate: Option<ClientCertificate>| PeerFacts {
        version: "TLSv1.3",
        cipher: "TLS_AES_128_GCM_SHA256",
        sni: None,
        alpn: None,
        resumed: false,
        certificate,
    };
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "good one");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "");
    let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let shown = facts(Some(ClientCertificate::new(certificate.der().clone())));
    let without = facts(None);
    let peers = [None, Some(&without), Some(&shown)];
    let field = |name: &str| L7Subject::SslDnField(name.to_owned());
    let request = request("/", &[]);
    for (subject, compare, value, [plain, without, with]) in [
        (L7Subject::SslConnHasCert, CompareType::EqualTo, "True", [false, false, true]),
        (L7Subject::SslVerifyResult, CompareType::EqualTo, "000", [false, true, true]),
        (L7Subject::SslVerifyResult, CompareType::EqualTo, "10", [false, false, false]),
        (L7Subject::SslVerifyResult, CompareType::EqualTo, "-0", [false, true, true]),
        (field("CN"), CompareType::StartsWith, "good", [false, false, true]),
        (field("cn"), CompareType::EqualTo, "good one", [false, false, true]),
        (field("CN"), CompareType::EqualTo, "Good one", [false, false, false]),
        (field("CN"), CompareType::EndsWith, "one", [false, false, true]),
        (field("CN"), CompareType::Contains, "d o", [false, false, true]),
        (field("CN"), CompareType::Regex, "^g.*e$", [false, false, true]),
        (field("O"), CompareType::Regex, "^$", [false, false, true]),
        (field("OU"), CompareType::Regex, ".*", [false, false, false]),
    ] {
        for invert in [false, true] {
            let rule = L7Rule { invert, ..rule(subject.clone(), compare, value) };
            // Alone, and among so many that there is an index.
            for others in [0, 40] {
                let mut policies = vec![policy(1, L7Action::Reject, vec![rule.clone()])];
                policies.extend((0..others).map(|at| {
                    let rule = self::rule(L7Subject::Path, CompareType::EqualTo, "/x");
                    policy(2 + at, L7Action::Reject, vec![rule])
                }));
                let program = compile(policies).unwrap();
                for (peer, expected) in peers.into_iter().zip([plain, without, with]) {
                    let outcome = program.evaluate_over(&request, peer, &mut Scratch::new());
                    assert_eq!(
                        outcome == Outcome::Reject,
                        expected != invert,
                        "{subject:?} {value} {invert}"
                    );
                }
            }
        }
    }
}

pub(super) fn holds_over_tls(
    subject: L7Subject,
    compare: CompareType,
    value: &str,
    peer: &crate::tls::PeerFacts,
) -> bool {
    let program = compile(vec![policy(1, L7Action::Reject, vec![rule(subject, compare, value)])]).unwrap();
    program.evaluate_over(&request("/", &[]), Some(peer), &mut Scratch::new()) == Outcome::Reject
}
