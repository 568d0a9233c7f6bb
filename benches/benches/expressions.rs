//! The longest time that one request holds its worker with regular expressions made to be slow, as many as a load balancer
//! may have: `cargo bench -p amphora-benches --bench expressions`. Ends with an error where it is above 5 ms.

use std::time::Duration;

use amphora_benches::document::{self, kind};
use amphora_model::{
    CompareType, InsertHeaders, L7Action, L7Policy, L7PolicyId, L7Rule, L7RuleId, L7Subject, Listener,
    ListenerId, ListenerProtocol, ListenerTimeouts, PoolId,
};
use amphora_proxy::l7::{Budget, Expressions, L7Program, RequestFacts, Scratch};
use nix::time::{ClockId, clock_gettime};

/// What is promised.
const LIMIT: Duration = Duration::from_millis(5);

/// Length of a value: a request's head fits into 16 KiB.
const LENGTH: usize = 15_000;

/// Each case is measured so many times; the machine's own pauses are in none of the fastest.
const ROUNDS: usize = 5;

const EXPRESSIONS: &[&str] = &[
    "^/v[0-9]+/(users|groups)/17$",
    "[a-z]+[0-9]z|Q",
    "a.{999}Z",
    "(.?){1500}Z",
    r"(\w{50}){20}Z",
    r"(\w{50}){20}[Z]",
    "(a+)+$",
    r"/.{1,255}/.{1,255}\.phpx?y|Q",
    r"(?=(a+))\1b",
    "(x+x+)+y",
    "(x+x+)+[yz]",
    "(?<=(?<=(?<=a)a)a)a+(?<!a)b",
    "(?:a(?R)?)+[bc]",
    "(?<p>a|(?&p)?a)+[bc]",
    "^(?<p>[ax/](?&p)?)$[bc]",
    "(a*)*[bc](?!c)",
    r"(.*)(.*)(.*)(.*)\1\2\3[xy]?Q",
    r"(?<a>\w+)(?<b>\w+)(?<c>\w+)\k<c>\k<b>\k<a>[-]",
    "((a{1,60}){1,60}){1,10}(?=b)",
    r"(*UTF)(?:\X?){99}(?=[ZQ])",
    r"(*UTF)(*UCP)(\w+\s?)+[-]",
    "(?:(?!q).)*[pq]{2}",
    "[^Z]{14990}[qZ]{99}(?=b)",
    "(?i)[^Z]{7000}[pq](?!b)",
    "(?:[0-9a-f]+[^z]{2}){1250}(?<=q)$",
    "(?:a?){500}(?:a{1,9}){99}(?=[bc])",
    r"(?:(?<n>a|x|/)(?=.*\k<n>))*[bc]",
    "(?>(?>a+|x+|/+)+)+[bc]",
    "^(?:a|x|/|(?:a|x|/)(?:a|x|/))*$[bc]",
];

struct Request {
    target: Vec<u8>,
    headers: Vec<(&'static [u8], Vec<u8>)>,
}

impl RequestFacts for Request {
    fn path_and_query(&self) -> &[u8] {
        &self.target
    }

    fn header_count(&self) -> usize {
        self.headers.len()
    }

    fn header(&self, index: usize) -> (&[u8], &[u8]) {
        let (name, value) = &self.headers[index];
        (name, value)
    }
}

/// A value of each kind, as the path, as one field, and cut into many fields of one name.
fn requests() -> Vec<(&'static str, Request)> {
    let cycle = |piece: &[u8]| piece.iter().copied().cycle().take(LENGTH).collect::<Vec<u8>>();
    let mut late = cycle(b"a");
    late.extend_from_slice(b"Z-b");
    let mut requests = Vec::new();
    for (name, value) in [
        ("a...", cycle(b"a")),
        ("a...Z", late),
        ("x...", cycle(b"x")),
        ("/ax/Z...", cycle(b"/ax/Zxxaa")),
        ("short words", cycle(b"ab1 xx/pq-")),
    ] {
        let fields = value.chunks(20).map(|piece| (&b"X-Value"[..], piece.to_vec())).collect();
        requests.push((name, Request { target: b"/".to_vec(), headers: fields }));
        requests.push((
            name,
            Request { target: [b"/", &value[..]].concat(), headers: vec![(b"X-Value", value)] },
        ));
    }
    requests
}

fn program(expressions: &[&str], rules: u64) -> L7Program {
    let l7policies = (1..=rules).map(|n| L7Policy {
        id: L7PolicyId(document::id(kind::L7POLICY, n)),
        name: String::new(),
        admin_state_up: true,
        position: n as u32,
        action: L7Action::RedirectToPool(PoolId(document::id(kind::POOL, 1))),
        edits: None,
        rules: vec![L7Rule {
            id: L7RuleId(document::id(kind::L7RULE, n)),
            admin_state_up: true,
            // What does not match goes on to the next rule.
            invert: false,
            subject: if n % 2 == 0 { L7Subject::Path } else { L7Subject::Header("X-Value".into()) },
            compare: CompareType::Regex,
            value: expressions[n as usize % expressions.len()].to_owned(),
        }],
    });
    let listener = Listener {
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
    };
    L7Program::compile(&listener, |_| true, &mut Budget::new(&Expressions::default()))
        .expect("PCRE2 takes them all")
}

/// The thread's own time: who else uses the machine is not in it.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}

fn main() {
    let requests = requests();
    let mut worst = Duration::ZERO;
    println!("{:>9} {:>8} {:>9}  expression, rules", "held", "limited", "compiled");
    let mut measure = |name: &str, expressions: &[&str], rules: u64| {
        let begun = cpu_time();
        let program = program(expressions, rules);
        let compiled = cpu_time() - begun;
        let mut scratch = Scratch::new();
        let (mut longest, mut limited) = (Duration::ZERO, 0);
        for (_, request) in &requests {
            let mut hold = Duration::MAX;
            for _ in 0..ROUNDS {
                let begun = cpu_time();
                program.evaluate(request, &mut scratch);
                hold = hold.min(cpu_time() - begun);
            }
            longest = longest.max(hold);
            limited += usize::from(scratch.is_exceeded());
        }
        println!(
            "{:>6.2} ms {limited:>5}/{} {:>6.1} ms  {name}, {rules}",
            longest.as_secs_f64() * 1e3,
            requests.len(),
            compiled.as_secs_f64() * 1e3
        );
        worst = worst.max(longest);
    };
    for expression in EXPRESSIONS {
        measure(expression, &[expression], 2);
        measure(expression, &[expression], 200);
    }
    measure("all", EXPRESSIONS, 1000);
    println!("longest hold: {:.2} ms", worst.as_secs_f64() * 1e3);
    if worst > LIMIT {
        std::process::exit(1);
    }
}
