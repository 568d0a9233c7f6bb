//! L7 rules, from operators, on request heads, from clients.
//!
//! The input is a line for each rule and, behind an empty line, a request head. A rule is the letter of its type
//! (`p`ath, `f`ile type, `h`ost name, `d` for a header, `c`ookie), one for its comparison (`=`, `^` starts with, `$`
//! ends with, `*` contains, `~` regular expression), perhaps `!` for `invert`, then its value; headers and cookies
//! have their key and a colon before the value.

use amphora_model::{
    CompareType, InsertHeaders, L7Action, L7Policy, L7PolicyId, L7Rule, L7RuleId, L7Subject, Listener,
    ListenerId, ListenerProtocol, ListenerTimeouts, PoolId,
};
use amphora_proxy::{
    http::RequestHead,
    l7::{Budget, Expressions, L7Program, Outcome, RequestFacts, Scratch},
};
use uuid::Uuid;

/// More would only be slow.
const MAX_RULES: usize = 4;
/// Policies that are added so that all are looked up in an index.
const FILLERS: usize = 16;

/// Rules: none panics, and those that compile alone compile together; the first policy that applies alone is the one
/// that applies among all, with an index and without; and `invert` turns each answer.
pub(crate) fn l7(data: &[u8]) {
    let (text, request) = split(data);
    let mut rules = Vec::new();
    let mut alone = Vec::new();
    for rule in text.lines().take(MAX_RULES).filter_map(rule) {
        match compile(&[&rule]) {
            Ok(program) => {
                let inverted = L7Rule { invert: !rule.invert, ..rule.clone() };
                alone.push([program, compile(&[&inverted]).expect("as its contrary")]);
                rules.push(rule);
            }
            Err(reasons) => assert!(reasons > 0),
        }
    }
    let filler = rule("p=never").expect("a rule");
    let count = rules.len();
    let few: Vec<&L7Rule> = rules.iter().collect();
    let many: Vec<&L7Rule> = few.iter().copied().chain([&filler; FILLERS]).collect();
    let programs = Programs { alone, together: [few, many].map(|all| compile(&all).expect("each compiles")) };
    let mut head = RequestHead::new();
    if let Ok(Some(_)) = head.parse(request) {
        programs.evaluate(&head.view(request), count);
    }
    programs.evaluate(&Raw::read(request), count);
}

struct Programs {
    /// Each rule and its contrary.
    alone: Vec<[L7Program; 2]>,
    together: [L7Program; 2],
}

impl Programs {
    fn evaluate(&self, request: &impl RequestFacts, rules: usize) {
        let mut scratch = Scratch::new();
        let mut exceeded = false;
        let mut applies = |program: &L7Program| {
            let applies = program.evaluate(request, &mut scratch) != Outcome::Pass;
            exceeded |= scratch.is_exceeded();
            applies
        };
        let answers: Vec<[bool; 2]> =
            self.alone.iter().map(|pair| [&pair[0], &pair[1]].map(&mut applies)).collect();
        assert!(exceeded || answers.iter().all(|[rule, inverted]| rule != inverted), "{answers:?}");
        let first = answers.iter().position(|[applies, _]| *applies);
        for program in &self.together {
            // Twice, because the scratch is used again.
            for _ in 0..2 {
                let found = match program.evaluate(request, &mut scratch) {
                    Outcome::Pool(id) => (0..rules).find(|&number| pool(number) == id),
                    _ => None,
                };
                // What costs too much does not match, and alone each rule costs less.
                exceeded |= scratch.is_exceeded();
                assert!(exceeded || found == first, "{found:?} {first:?}");
            }
        }
    }
}

fn split(data: &[u8]) -> (&str, &[u8]) {
    let end = data.windows(2).position(|window| window == b"\n\n");
    let (rules, request) = end.map_or((data, &[] as &[u8]), |at| (&data[..at], &data[at + 2..]));
    let valid = match std::str::from_utf8(rules) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&rules[..error.valid_up_to()]).expect("valid up to there"),
    };
    (valid, request)
}

fn rule(line: &str) -> Option<L7Rule> {
    let mut letters = line.chars();
    let (subject, compare) = (letters.next()?, letters.next()?);
    let rest = letters.as_str();
    let (invert, rest) = rest.strip_prefix('!').map_or((false, rest), |rest| (true, rest));
    let (subject, value) = match subject {
        'p' => (L7Subject::Path, rest),
        'f' => (L7Subject::FileType, rest),
        'h' => (L7Subject::HostName, rest),
        'd' => rest.split_once(':').map(|(key, value)| (L7Subject::Header(key.into()), value))?,
        'c' => rest.split_once(':').map(|(key, value)| (L7Subject::Cookie(key.into()), value))?,
        _ => return None,
    };
    let compare = match compare {
        '=' => CompareType::EqualTo,
        '^' => CompareType::StartsWith,
        '$' => CompareType::EndsWith,
        '*' => CompareType::Contains,
        '~' => CompareType::Regex,
        _ => return None,
    };
    let id = L7RuleId(Uuid::nil());
    Some(L7Rule { id, admin_state_up: true, invert, subject, compare, value: value.into() })
}

/// A policy for each rule, which sends to the pool of its number; or how many faults there are.
fn compile(rules: &[&L7Rule]) -> Result<L7Program, usize> {
    let policies = rules.iter().enumerate().zip(1..).map(|((number, rule), position)| L7Policy {
        id: L7PolicyId(Uuid::nil()),
        name: String::new(),
        admin_state_up: true,
        position,
        action: L7Action::RedirectToPool(pool(number)),
        edits: None,
        rules: vec![L7Rule::clone(rule)],
    });
    let listener = Listener {
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
        l7policies: policies.collect(),
        timeouts: ListenerTimeouts::default(),
        allowed_cidrs: Vec::new(),
        flow_log: None,
        routing: Default::default(),
    };
    L7Program::compile(&listener, |_| true, &mut Budget::new(&Expressions::default()))
        .map_err(|faults| faults.len())
}

fn pool(number: usize) -> PoolId {
    PoolId(Uuid::from_u128(number as u128))
}

/// Lines taken for a request, however little they are one.
struct Raw<'a> {
    target: &'a [u8],
    fields: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Raw<'a> {
    fn read(data: &'a [u8]) -> Self {
        let mut lines = data.split(|&byte| byte == b'\n');
        let target = lines.next().unwrap_or_default();
        let fields = lines.map(|line| {
            let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
            (&line[..colon], line.get(colon + 1..).unwrap_or_default())
        });
        Self { target, fields: fields.collect() }
    }
}

impl RequestFacts for Raw<'_> {
    fn path_and_query(&self) -> &[u8] {
        self.target
    }

    fn normalized_host(&self) -> Option<&[u8]> {
        amphora_proxy::l7::normalized_host(self.target)
    }

    fn header_count(&self) -> usize {
        self.fields.len()
    }

    fn header(&self, index: usize) -> (&[u8], &[u8]) {
        self.fields[index]
    }
}
