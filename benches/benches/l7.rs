//! L7 policies: the evaluation of one request, and the compilation of a listener's policies.

use std::hint::black_box;

use amphora_benches::document::{self, kind};
use amphora_model::{
    CompareType, InsertHeaders, L7Action, L7Policy, L7PolicyId, L7Rule, L7RuleId, L7Subject, Listener,
    ListenerId, ListenerProtocol, ListenerTimeouts, PoolId,
};
use amphora_proxy::l7::{Budget, Expressions, L7Program, Outcome, RequestFacts, Scratch};
use divan::{Bencher, counter::ItemsCount};

const COUNTS: [u64; 3] = [1, 10, 1000];

fn main() {
    divan::main();
}

/// A browser's request.
struct Request {
    target: &'static [u8],
    headers: &'static [(&'static [u8], &'static [u8])],
}

impl RequestFacts for Request {
    fn path_and_query(&self) -> &[u8] {
        self.target
    }

    fn header_count(&self) -> usize {
        self.headers.len()
    }

    fn header(&self, index: usize) -> (&[u8], &[u8]) {
        self.headers[index]
    }
}

const REQUEST: Request = Request {
    target: b"/catalogue/items/4711?colour=blue&sort=price",
    headers: &[
        (b"Host", b"shop.example.com"),
        (b"User-Agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0.0.0 Safari/537.36"),
        (b"Accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        (b"Accept-Encoding", b"gzip, deflate, br, zstd"),
        (b"Accept-Language", b"en-GB,en;q=0.9,de;q=0.8"),
        (b"Cookie", b"session=0123456789abcdef0123456789abcdef; theme=dark"),
        (b"X-Group", b"blue"),
    ],
};

/// A rule that does not match [`REQUEST`].
type NoMatch = fn(u64) -> (L7Subject, CompareType, String);

fn path_prefix(n: u64) -> (L7Subject, CompareType, String) {
    (L7Subject::Path, CompareType::StartsWith, format!("/application/{n}/"))
}

fn host(n: u64) -> (L7Subject, CompareType, String) {
    (L7Subject::HostName, CompareType::EqualTo, format!("tenant{n}.example.com"))
}

fn header(n: u64) -> (L7Subject, CompareType, String) {
    (L7Subject::Header("X-Group".into()), CompareType::Contains, format!("green{n}"))
}

fn path_regex(n: u64) -> (L7Subject, CompareType, String) {
    (L7Subject::Path, CompareType::Regex, format!("^/v[0-9]+/(users|groups)/{n}$"))
}

/// Expressions of kinds that people write, none of which matches [`REQUEST`].
const TYPICAL: [&str; 6] = [
    r"^/api/v[0-9]+/",
    r"\.(jpe?g|png|gif)$",
    "/(login|logout)(/|$)",
    "^/(static|media)/.*",
    "(?i)admin",
    r"^/[a-z]+/items/[0-9]+/[a-z]+$",
];

fn path_typical(n: u64) -> (L7Subject, CompareType, String) {
    (L7Subject::Path, CompareType::Regex, TYPICAL[(n as usize - 1) % TYPICAL.len()].to_owned())
}

/// Expressions that only an interpreter can run, none of which matches [`REQUEST`].
const INTERPRETED: [&str; 4] =
    ["^/(?!catalogue/)", r"^/(?<a>[a-z]+)/\k<a>/", r"(?<=/v1/)users", r"^(?>/[a-z]+)+\.php"];

fn path_interpreted(n: u64) -> (L7Subject, CompareType, String) {
    (L7Subject::Path, CompareType::Regex, INTERPRETED[(n as usize - 1) % INTERPRETED.len()].to_owned())
}

/// Expressions whose tables are given up late: of few states, of many, and of as many as an automaton may have.
const SLOW: [&str; 3] = ["a.{12}Z", "[a-f].{60}[0-9]Z", "(?:[a-z]{1,20}[xy]){1,9}Z"];

fn slow_regex(n: u64, kind: &str) -> (L7Subject, CompareType, String) {
    (L7Subject::Path, CompareType::Regex, format!("{kind}{n}"))
}

fn user_agent_regex(n: u64) -> (L7Subject, CompareType, String) {
    let value = format!("(Mobile|Android|iPhone) {n}");
    (L7Subject::Header("User-Agent".into()), CompareType::Regex, value)
}

/// An HTTP listener whose policies each have one such rule.
fn listener(policies: u64, rule: NoMatch) -> Listener {
    let l7policies = (1..=policies).map(|n| {
        let (subject, compare, value) = rule(n);
        let id = L7RuleId(document::id(kind::L7RULE, n));
        L7Policy {
            id: L7PolicyId(document::id(kind::L7POLICY, n)),
            name: String::new(),
            admin_state_up: true,
            position: n as u32,
            action: L7Action::RedirectToPool(PoolId(document::id(kind::POOL, 1))),
            edits: None,
            rules: vec![L7Rule { id, admin_state_up: true, invert: false, subject, compare, value }],
        }
    });
    Listener {
        id: ListenerId(document::id(kind::LISTENER, 1)),
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
        l7policies: l7policies.collect(),
        timeouts: ListenerTimeouts::default(),
        allowed_cidrs: Vec::new(),
        flow_log: None,
        routing: Default::default(),
    }
}

fn program(policies: u64, rule: NoMatch) -> L7Program {
    L7Program::compile(&listener(policies, rule), |_| true, &mut Budget::new(&Expressions::default()))
        .expect("the policies can be honoured")
}

/// The longest way: no policy applies.
fn evaluate(bencher: Bencher<'_, '_>, policies: u64, rule: NoMatch) {
    let program = program(policies, rule);
    let mut scratch = Scratch::new();
    assert_eq!(program.evaluate(&REQUEST, &mut scratch), Outcome::Pass);
    bencher
        .counter(ItemsCount::new(policies))
        .bench_local(|| program.evaluate(black_box(&REQUEST), &mut scratch) == Outcome::Pass);
}

#[divan::bench(args = COUNTS)]
fn evaluate_path_prefixes(bencher: Bencher<'_, '_>, policies: u64) {
    evaluate(bencher, policies, path_prefix);
}

#[divan::bench(args = COUNTS)]
fn evaluate_host_names(bencher: Bencher<'_, '_>, policies: u64) {
    evaluate(bencher, policies, host);
}

#[divan::bench(args = COUNTS)]
fn evaluate_header_substrings(bencher: Bencher<'_, '_>, policies: u64) {
    evaluate(bencher, policies, header);
}

#[divan::bench(args = COUNTS)]
fn evaluate_path_regexes(bencher: Bencher<'_, '_>, policies: u64) {
    evaluate(bencher, policies, path_regex);
}

#[divan::bench(args = [6, 996])]
fn evaluate_typical_regexes(bencher: Bencher<'_, '_>, policies: u64) {
    evaluate(bencher, policies, path_typical);
}

#[divan::bench(args = [4, 400])]
fn evaluate_interpreted_regexes(bencher: Bencher<'_, '_>, policies: u64) {
    evaluate(bencher, policies, path_interpreted);
}

#[divan::bench(args = COUNTS)]
fn evaluate_user_agent_regexes(bencher: Bencher<'_, '_>, policies: u64) {
    evaluate(bencher, policies, user_agent_regex);
}

#[divan::bench(args = COUNTS)]
fn compile_path_prefixes(bencher: Bencher<'_, '_>, policies: u64) {
    let listener = listener(policies, path_prefix);
    bencher.bench_local(|| {
        L7Program::compile(black_box(&listener), |_| true, &mut Budget::new(&Expressions::default()))
    });
}

#[divan::bench(args = COUNTS)]
fn compile_path_regexes(bencher: Bencher<'_, '_>, policies: u64) {
    let listener = listener(policies, path_regex);
    bencher.bench_local(|| {
        L7Program::compile(black_box(&listener), |_| true, &mut Budget::new(&Expressions::default()))
    });
}

#[divan::bench(args = [1, 100, 4096], consts = [0, 1, 2], sample_count = 3)]
fn compile_slow_regexes<const KIND: usize>(bencher: Bencher<'_, '_>, policies: u64) {
    let listener = listener(policies, |n| slow_regex(n, SLOW[KIND]));
    bencher.bench_local(|| {
        L7Program::compile(black_box(&listener), |_| true, &mut Budget::new(&Expressions::default()))
    });
}
