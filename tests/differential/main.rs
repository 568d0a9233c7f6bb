//! L7 policies: this project against HAProxy running what Octavia renders, on the same requests.
//!
//! Cases are generated from seeds. `AMPHORA_L7_SEED=n` replays one seed and prints its policies and requests,
//! `AMPHORA_L7_SETS=n` runs another number of them. Needs `haproxy`, and Python with octavia: see
//! [`haproxy::octavia_python`].

#![allow(clippy::unwrap_used, missing_docs)]

mod cases;
mod corners;
mod document;
mod facts;
mod haproxy;
mod peers;
mod prng;
mod regexes;
mod whole;

use std::{
    collections::{HashMap, HashSet},
    env,
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::PathBuf,
    process::Command,
    sync::OnceLock,
};

use amphora_model::{Listener, PoolId};
use amphora_proxy::l7::{Budget, Expressions, L7Program, Outcome, Scratch};
use amphora_tests::{Judge, is_of_haproxy_2_6};
use tempfile::TempDir;

use crate::{cases::Set, facts::Facts, haproxy::Running, peers::Answer, prng::Prng};

const SETS: u64 = 200;
const EXPRESSIONS: usize = 600;

/// Where the proxy listens: HAProxy has the same ports at 127.0.0.1.
const PROXY_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// All cases, with what HAProxy answered.
struct Lab {
    sets: Vec<Set>,
    /// Per set and request.
    answers: Vec<Vec<Answer>>,
    restored: usize,
}

/// The lab, or `None` on a machine that cannot have one.
fn lab() -> Option<&'static Lab> {
    static LAB: OnceLock<Option<Lab>> = OnceLock::new();
    LAB.get_or_init(|| Some(Lab::run(&haproxy::octavia_python()?))).as_ref()
}

fn number_from(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} must be a number")))
}

/// Ports that are free at both addresses now.
fn free_ports(count: usize) -> Vec<u16> {
    let mut held = Vec::new();
    while held.len() < count {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind((PROXY_ADDRESS, port)) {
            held.push((port, first, second));
        }
    }
    held.into_iter().map(|(port, ..)| port).collect()
}

impl Lab {
    fn run(python: &std::path::Path) -> Self {
        let seeds: Vec<u64> = match number_from("AMPHORA_L7_SEED") {
            Some(seed) => vec![seed],
            None => (1..=number_from("AMPHORA_L7_SETS").unwrap_or(SETS)).collect(),
        };
        let backends = peers::backends(3);
        let mut ports = free_ports(seeds.len() + 2);
        let directory = TempDir::new().unwrap();
        let regexes = regexes::set(&expressions(directory.path()), ports.pop().unwrap(), u64::from(u32::MAX));
        let corners_port = ports.pop().unwrap();
        let mut sets: Vec<Set> =
            seeds.iter().zip(&ports).map(|(seed, port)| cases::generate(*seed, *port, &backends)).collect();
        sets.push(corners::set(corners_port));
        sets.push(regexes);
        if !Judge::HaProxy.judges("requests that it has since come to read otherwise") {
            sets.iter_mut().for_each(|set| set.requests.retain(|request| !is_of_haproxy_2_6(request)));
        }

        let document = document(&sets, Ipv4Addr::LOCALHOST);
        let (configuration, restored) = haproxy::render(python, &document);
        let all: Vec<u16> = sets.iter().map(|set| set.listener.port).collect();
        let _haproxy = Running::haproxy(directory.path(), &configuration, &all);
        let answers = ask_all(&sets, Ipv4Addr::LOCALHOST.into());
        Self { sets, answers, restored }
    }
}

fn document(sets: &[Set], vip: Ipv4Addr) -> serde_json::Value {
    let listeners = sets.iter().map(|set| &set.listener);
    document::load_balancer(&vip.to_string(), listeners, sets.iter().flat_map(|set| &set.pools))
}

fn ask_all(sets: &[Set], address: IpAddr) -> Vec<Vec<Answer>> {
    let ask = |set: &Set| {
        let address = (address, set.listener.port).into();
        set.requests.iter().map(|request| peers::ask(address, request).unwrap()).collect()
    };
    sets.iter().map(ask).collect()
}

/// What is accepted here and refused by HAProxy with PCRE2 10.42: references to groups without a name, which it does not
/// number, and what its compiler for the machine or a later PCRE2 makes the difference for.
const ONLY_HERE: [&str; 3] = [
    "reference to non-existent subpattern",
    "lookbehind assertion is not fixed length",
    "jit compilation failed",
];

/// Expressions that are accepted here and by HAProxy; each must accept what the other does.
fn expressions(directory: &std::path::Path) -> Vec<String> {
    let mut rng = Prng::new(7);
    let judged = Judge::Pcre2.judges("regular expressions with \\x without digits, {,n} or { n }");
    let mut seen = HashSet::new();
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    while accepted.len() < EXPRESSIONS {
        let expression = regexes::expression(&mut rng);
        let is_judged = judged || !regexes::of_old_pcre2(&expression);
        if expression.is_empty() || !is_judged || !seen.insert(expression.clone()) {
            continue;
        }
        match compile(&regexes::set(std::slice::from_ref(&expression), 1, 1)) {
            Ok(_) => accepted.push(expression),
            Err(_) => refused.push(expression),
        }
    }
    let complaints = complaints(directory, &refused);
    let wrongly: Vec<&String> = refused.iter().filter(|e| !complaints.contains_key(*e)).collect();
    assert!(wrongly.is_empty(), "refused here, accepted by HAProxy: {wrongly:#?}");
    let complaints = self::complaints(directory, &accepted);
    let unexpected = |reason: &str| !ONLY_HERE.iter().any(|known| reason.contains(known));
    let wrongly: Vec<_> = complaints.iter().filter(|(_, reason)| unexpected(reason)).collect();
    assert!(wrongly.is_empty(), "accepted here, refused by HAProxy: {wrongly:#?}");
    accepted.retain(|expression| !complaints.contains_key(expression));
    println!(
        "regular expressions: {} accepted by both, {} refused by both, {} accepted here alone",
        accepted.len(),
        refused.len(),
        complaints.len()
    );
    accepted
}

/// The expressions that HAProxy refuses, with what it says.
fn complaints(directory: &std::path::Path, expressions: &[String]) -> HashMap<String, String> {
    let head = "defaults\n    mode http\n    timeout client 1s\nfrontend f\n    bind 127.0.0.1:1\n";
    let before = head.lines().count();
    let mut found = HashMap::new();
    // HAProxy stops reading after some 50 errors.
    for some in expressions.chunks(40) {
        let mut configuration = head.to_owned();
        for (number, expression) in some.iter().enumerate() {
            let quoted = expression.replace('\'', r"'\''");
            configuration.push_str(&format!("    acl a{number} path -m reg -- '{quoted}'\n"));
        }
        found.extend(
            haproxy::complaints(directory, &configuration)
                .into_iter()
                .filter_map(|(line, text)| Some((some.get(line.checked_sub(before + 1)?)?.clone(), text))),
        );
    }
    found
}

fn compile(set: &Set) -> Result<L7Program, String> {
    let enabled = |id: PoolId| set.pools.iter().any(|pool| pool.id == id && pool.admin_state_up);
    L7Program::compile(&set.listener, enabled, &mut Budget::new(&Expressions::default()))
        .map_err(|faults| format!("{faults:?}"))
}

/// What the evaluator's outcome means on the wire.
fn expected(set: &Set, program: &L7Program, facts: &Facts) -> Answer {
    use amphora_proxy::l7::RequestFacts as _;
    let answer = |status, location, backend| Answer { status, location, backend, received: Vec::new() };
    let from_pool = |id: Option<PoolId>| match set
        .pools
        .iter()
        .position(|pool| Some(pool.id) == id && pool.admin_state_up)
    {
        Some(backend) => answer(200, None, Some(backend)),
        None => answer(503, None, None),
    };
    match program.evaluate(facts, &mut Scratch::new()) {
        Outcome::Reject => answer(403, None, None),
        Outcome::Redirect { code, location } => {
            let bytes = location.pieces(facts.path_and_query()).concat();
            answer(code.code(), Some(bytes.into_iter().map(char::from).collect()), None)
        }
        Outcome::Pool(id) => from_pool(Some(id)),
        Outcome::Pools(_) | Outcome::Answer(_) => unreachable!("no case has it"),
        Outcome::Pass => from_pool(set.listener.default_pool),
    }
}

fn describe(listener: &Listener) -> String {
    let mut text = format!("default pool {:?}\n", listener.default_pool);
    for policy in &listener.l7policies {
        text.push_str(&format!(
            "  {} {} {:?}\n",
            policy.position,
            if policy.admin_state_up { "on" } else { "off" },
            policy.action
        ));
        for rule in &policy.rules {
            text.push_str(&format!(
                "      {} {}{:?} {} {:?}\n",
                if rule.admin_state_up { "on" } else { "off" },
                if rule.invert { "not " } else { "" },
                rule.subject,
                rule.compare,
                rule.value
            ));
        }
    }
    text
}

/// Collects differences and reports them with what replays them.
#[derive(Default)]
struct Differences {
    cases: usize,
    found: Vec<String>,
}

impl Differences {
    fn compare(&mut self, set: &Set, request: &[u8], haproxy: &Answer, ours: &Answer) {
        self.cases += 1;
        if haproxy != ours {
            // The policies of hand-written and regular-expression sets are as many as their cases.
            let policies = if set.pools.is_empty() { String::new() } else { describe(&set.listener) };
            self.found.push(format!(
                "seed {}\n{policies}{}\nHAProxy: {haproxy:?}\nhere:    {ours:?}",
                set.seed,
                String::from_utf8_lossy(request),
            ));
        }
    }

    fn finish(self, what: &str, least: usize) {
        println!("{what}: {} cases, {} differences", self.cases, self.found.len());
        assert!(
            self.found.is_empty(),
            "{} of {} cases differ; replay with AMPHORA_L7_SEED. The first ones:\n\n{}",
            self.found.len(),
            self.cases,
            self.found[..self.found.len().min(20)].join("\n\n")
        );
        assert!(number_from("AMPHORA_L7_SEED").is_some() || self.cases >= least, "only {} cases", self.cases);
    }
}

/// The evaluator alone, fed by another HTTP parser.
#[test]
fn the_evaluator_agrees_with_haproxy() {
    let Some(lab) = lab() else { return };
    let replay = number_from("AMPHORA_L7_SEED").is_some();
    let mut differences = Differences::default();
    let mut outcomes = std::collections::BTreeMap::<u16, usize>::new();
    let mut refused = 0;
    for (set, answers) in lab.sets.iter().zip(&lab.answers) {
        let program = compile(set).unwrap();
        if replay && !set.pools.is_empty() {
            println!("{}", describe(&set.listener));
        }
        for (request, answer) in set.requests.iter().zip(answers) {
            let facts = Facts::parse(request);
            if answer.status == 400 || facts.is_none() {
                // The parser's business, not the policies'.
                refused += 1;
                continue;
            }
            *outcomes.entry(answer.status).or_default() += 1;
            let seen = Answer { received: Vec::new(), ..answer.clone() };
            let ours = expected(set, &program, &facts.unwrap());
            if replay && !set.pools.is_empty() {
                println!("{}HAProxy: {seen:?}\nhere:    {ours:?}\n", String::from_utf8_lossy(request));
            }
            differences.compare(set, request, &seen, &ours);
        }
    }
    println!(
        "HAProxy's answers by status: {outcomes:?}; {refused} requests refused by a parser; {} rendered lines restored",
        lab.restored
    );
    assert!(refused * 20 < differences.cases, "too many requests never reached the policies: {refused}");
    differences.finish("evaluator", 1500);
}

/// The whole proxy, when it is built: `AMPHORA_PROXY_BIN`, or beside this test in the target directory.
#[test]
fn the_proxy_agrees_with_haproxy() {
    let beside =
        env::current_exe().unwrap().parent().and_then(|deps| deps.parent()).unwrap().join("amphora-proxy");
    let binary = env::var_os("AMPHORA_PROXY_BIN").map(PathBuf::from).unwrap_or(beside);
    if !binary.exists() {
        eprintln!("SKIPPED: {} is not built; set AMPHORA_PROXY_BIN", binary.display());
        return;
    }
    let Some(lab) = lab() else { return };
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("loadbalancer.json");
    std::fs::write(&file, document(&lab.sets, PROXY_ADDRESS).to_string()).unwrap();
    let mut command = Command::new(&binary);
    command.arg("--load-balancer").arg(&file).arg("--workers").arg("1");
    command.arg("--control-socket").arg(directory.path().join("control.sock"));
    let addresses: Vec<_> = lab.sets.iter().map(|set| (PROXY_ADDRESS, set.listener.port).into()).collect();
    let _proxy = Running::start(command, &addresses);

    let mut differences = Differences::default();
    let mut stricter = 0;
    let ours = ask_all(&lab.sets, PROXY_ADDRESS.into());
    for ((set, theirs), ours) in lab.sets.iter().zip(&lab.answers).zip(&ours) {
        for ((request, theirs), ours) in set.requests.iter().zip(theirs).zip(ours) {
            if ours.status == 400 && theirs.status != 400 {
                // Some requests that HAProxy lets pass are refused here on purpose, before any policy.
                stricter += 1;
                continue;
            }
            differences.compare(set, request, &comparable(request, theirs), &comparable(request, ours));
        }
    }
    println!("{stricter} requests are refused here that HAProxy accepts");
    assert!(stricter * 100 < differences.cases, "too many requests are refused: {stricter}");
    differences.finish("proxy", 1500);
}

/// Without the fields of each hop, which each proxy handles in its own right, and with the host as HAProxy spells it
/// for an absolute target: it removes a port that the scheme implies (RFC 3986 section 6.2.3), which a member cannot
/// tell apart.
fn comparable(request: &[u8], answer: &Answer) -> Answer {
    let end_to_end = |field: &&String| !field.starts_with("connection:") && !field.starts_with("keep-alive:");
    let host = request.split(|b| *b == b' ').nth(1).and_then(amphora_proxy::l7::normalized_host);
    let received = answer
        .received
        .iter()
        .filter(end_to_end)
        .map(|field| match host {
            Some(host) if field.starts_with("host:") => format!("host: {}", String::from_utf8_lossy(host)),
            _ => field.clone(),
        })
        .collect();
    Answer { received, ..answer.clone() }
}
