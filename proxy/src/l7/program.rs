//! A listener's policies, compiled.

use amphora_ipc::proxy::Fault;
use amphora_model::{CompareType, L7Action, L7Policy, L7Rule, L7Subject, Listener, PoolId, RedirectCode};
use memchr::memmem::Finder;

use super::{
    Budget, Location, MAX_EXPRESSION_BYTES, MAX_POLICIES, MAX_RULES_PER_POLICY, MAX_VALUE_LENGTH, Outcome,
    RequestFacts, Scratch,
    budget::Refused,
    index::Index,
    matcher::{Compare, Matcher},
    regex::Allowance,
    samples::{Subject, Subjects, View},
};
use crate::tls::PeerFacts;

/// The compiled L7 policies of one listener.
#[derive(Debug, Default)]
pub struct L7Program {
    /// In evaluation order.
    policies: Vec<Policy>,
    subjects: Subjects,
    index: Option<Index>,
}

#[derive(Debug)]
pub(super) struct Policy {
    action: Action,
    /// Never empty; cheap ones first.
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug)]
enum Action {
    Reject,
    Url(RedirectCode, Box<str>),
    Prefix(RedirectCode, Box<str>),
    Pool(PoolId),
    /// By the policy's place among the listener's.
    Pools(usize),
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) source: Source,
    pub(super) invert: bool,
    pub(super) matcher: Matcher,
}

/// Where a rule's samples come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Path,
    Named(Subject),
    /// `1` when the client has shown a certificate.
    HasCertificate,
    /// The code of its verification, in decimal.
    VerifyResult,
    /// A field of its subject.
    SubjectField(Subject),
}

impl L7Program {
    /// Compiles the policies of a listener.
    ///
    /// Disabled policies and rules are left out, as are policies without an enabled rule and those that send to a pool
    /// for which `enabled_pool` says no: Octavia renders none of them. `budget` is that of the whole load balancer.
    ///
    /// # Errors
    /// All faults, or none when it was not this listener that exceeded the budget: regular expressions that cannot be honoured, and what exceeds the limits of [this module](super).
    /// Their paths name listener, policy and rule by id, because the document's own order is not known here.
    pub fn compile(
        listener: &Listener,
        enabled_pool: impl Fn(PoolId) -> bool,
        budget: &mut Budget<'_>,
    ) -> Result<Self, Vec<Fault>> {
        let mut compiler = Compiler { budget, subjects: Subjects::default(), faults: Vec::new() };
        let path = format!("loadbalancer.listeners[{}]", listener.id);
        if listener.l7policies.len() > MAX_POLICIES {
            compiler.fault(format!("{path}.l7policies"), format!("more than {MAX_POLICIES} L7 policies"));
        }
        let mut sorted: Vec<(usize, &L7Policy)> = listener.l7policies.iter().enumerate().collect();
        sorted.sort_by_key(|(_, policy)| (stage(&policy.action), policy.position));
        let mut policies = Vec::new();
        for (place, policy) in sorted {
            let served = serves(&policy.action, &enabled_pool);
            if policy.admin_state_up && served && policy.rules.iter().any(|rule| rule.admin_state_up) {
                policies.extend(compiler.policy(policy, place, &format!("{path}.l7policies[{}]", policy.id)));
            }
        }
        if !compiler.faults.is_empty() || compiler.budget.is_exceeded() {
            return Err(compiler.faults);
        }
        let index = Index::build(&policies);
        Ok(Self { policies, subjects: compiler.subjects, index })
    }

    /// Whether no policy can ever apply.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// What the policies say about a request on a connection that is not encrypted; see
    /// [`evaluate_over`](Self::evaluate_over).
    pub fn evaluate<R: RequestFacts + ?Sized>(&self, request: &R, scratch: &mut Scratch) -> Outcome<'_> {
        self.evaluate_over(request, None, scratch)
    }

    /// What the policies say about a request, and about the client's certificate where there is TLS. Takes time linear in
    /// the size of the request's head and the number of policies that may apply, and some milliseconds at most for all
    /// regular expressions; see [`Scratch::is_exceeded`].
    pub fn evaluate_over<R: RequestFacts + ?Sized>(
        &self,
        request: &R,
        peer: Option<&PeerFacts>,
        scratch: &mut Scratch,
    ) -> Outcome<'_> {
        let Scratch { samples, allowance } = scratch;
        allowance.renew();
        if self.policies.is_empty() {
            return Outcome::Pass;
        }
        let mut view = View::new(request, peer, &self.subjects, samples);
        let applying = match &self.index {
            None => self.policies.iter().find(|policy| policy.applies(&mut view, allowance)),
            Some(index) => {
                index.find(&mut view);
                (0..view.candidates().len()).find_map(|word| {
                    let mut bits = view.candidates()[word];
                    while bits != 0 {
                        let policy = &self.policies[word * 64 + bits.trailing_zeros() as usize];
                        if policy.applies(&mut view, allowance) {
                            return Some(policy);
                        }
                        bits &= bits - 1;
                    }
                    None
                })
            }
        };
        applying.map_or(Outcome::Pass, Policy::outcome)
    }
}

/// Whether there is somebody to do what the policy says.
pub(super) fn serves(action: &L7Action, enabled_pool: impl Fn(PoolId) -> bool) -> bool {
    match action {
        L7Action::RedirectToPool(pool) => enabled_pool(*pool),
        L7Action::RedirectToPools(pools) => {
            pools.shares.iter().any(|share| share.weight > 0 && enabled_pool(share.pool))
        }
        _ => true,
    }
}

/// HAProxy's order of evaluation: `http-request deny`, `redirect`, `use_backend`.
fn stage(action: &L7Action) -> u8 {
    match action {
        L7Action::Reject => 0,
        L7Action::RedirectToUrl { .. } | L7Action::RedirectPrefix { .. } => 1,
        L7Action::RedirectToPool(_) | L7Action::RedirectToPools(_) => 2,
    }
}

impl Policy {
    fn applies<R: RequestFacts + ?Sized>(&self, view: &mut View<'_, R>, allowance: &mut Allowance) -> bool {
        self.rules.iter().all(|rule| rule.holds(view, allowance))
    }

    fn outcome(&self) -> Outcome<'_> {
        match &self.action {
            Action::Reject => Outcome::Reject,
            Action::Url(code, url) => Outcome::Redirect { code: *code, location: Location::Url(url) },
            Action::Prefix(code, prefix) => {
                Outcome::Redirect { code: *code, location: Location::Prefix(prefix) }
            }
            Action::Pool(pool) => Outcome::Pool(*pool),
            Action::Pools(place) => Outcome::Pools(*place),
        }
    }
}

impl Rule {
    /// One sample that matches is enough, and without a sample nothing matches; then `invert` turns the answer.
    #[inline]
    fn holds<R: RequestFacts + ?Sized>(&self, view: &mut View<'_, R>, allowance: &mut Allowance) -> bool {
        let matched = match self.source {
            Source::Path => view.path.is_some_and(|path| self.matcher.matches(path, allowance)),
            Source::Named(_) | Source::SubjectField(_) if self.matcher.is_exhausted(allowance) => false,
            Source::Named(subject) => {
                view.samples(subject).any(|sample| self.matcher.matches(sample, allowance))
            }
            source => view.of_peer(source).is_some_and(|sample| self.matcher.matches(sample, allowance)),
        };
        matched != self.invert
    }
}

struct Compiler<'a, 'k> {
    budget: &'a mut Budget<'k>,
    subjects: Subjects,
    faults: Vec<Fault>,
}

impl Compiler<'_, '_> {
    fn fault(&mut self, path: String, reason: impl Into<String>) {
        self.faults.push(Fault { path, reason: reason.into() });
    }

    /// `None` when there was a fault. `place` is the policy's among the listener's.
    fn policy(&mut self, policy: &L7Policy, place: usize, path: &str) -> Option<Policy> {
        let faults = self.faults.len();
        let action = match &policy.action {
            L7Action::Reject => Action::Reject,
            L7Action::RedirectToUrl { url, code } => {
                self.check_location(url, format!("{path}.redirect_url"));
                Action::Url(*code, url.as_str().into())
            }
            L7Action::RedirectPrefix { prefix, code } => {
                self.check_location(prefix, format!("{path}.redirect_prefix"));
                // HAProxy's prefix "/" adds nothing.
                Action::Prefix(*code, if prefix == "/" { "" } else { prefix }.into())
            }
            L7Action::RedirectToPool(pool) => Action::Pool(*pool),
            L7Action::RedirectToPools(_) => Action::Pools(place),
        };
        let enabled = policy.rules.iter().filter(|rule| rule.admin_state_up);
        if enabled.clone().count() > MAX_RULES_PER_POLICY {
            self.fault(format!("{path}.rules"), format!("more than {MAX_RULES_PER_POLICY} enabled rules"));
            return None;
        }
        let mut rules = Vec::new();
        for rule in enabled {
            rules.extend(self.rule(rule, &format!("{path}.rules[{}]", rule.id)));
        }
        rules.sort_by_key(|rule| rule.matcher.cost());
        (self.faults.len() == faults).then_some(Policy { action, rules })
    }

    fn check_location(&mut self, location: &str, path: String) {
        if location.is_empty() || location.bytes().any(|b| b <= b' ' || b == 0x7F) {
            self.fault(path, "must not be empty nor contain white space or control characters");
        }
    }

    fn rule(&mut self, rule: &L7Rule, path: &str) -> Option<Rule> {
        let faults = self.faults.len();
        let value_path = || format!("{path}.value");
        if rule.value.is_empty() {
            self.fault(value_path(), "must not be empty");
        }
        if rule.value.len() > MAX_VALUE_LENGTH {
            self.fault(value_path(), format!("longer than {MAX_VALUE_LENGTH} bytes"));
        }
        if rule.value.bytes().any(|b| matches!(b, b'\0' | b'\r' | b'\n')) {
            self.fault(value_path(), "contains a line break or NUL, which no request can have");
        }
        let source = match &rule.subject {
            L7Subject::HostName => Source::Named(self.subjects.header("host")),
            L7Subject::Path | L7Subject::FileType => Source::Path,
            L7Subject::Header(name) => {
                self.check_name(name, path);
                Source::Named(self.subjects.header(name))
            }
            L7Subject::Cookie(name) => {
                self.check_name(name, path);
                Source::Named(self.subjects.cookie(name))
            }
            L7Subject::SslConnHasCert => Source::HasCertificate,
            L7Subject::SslVerifyResult => Source::VerifyResult,
            L7Subject::SslDnField(name) => Source::SubjectField(self.subjects.subject_field(name)),
        };
        if rule.subject == L7Subject::FileType
            && !matches!(rule.compare, CompareType::EqualTo | CompareType::Regex)
        {
            self.fault(format!("{path}.compare_type"), "a FILE_TYPE rule compares with EQUAL_TO or REGEX");
        }
        let number = match (&rule.subject, rule.value.parse::<i64>()) {
            (L7Subject::SslVerifyResult, Err(_)) => {
                self.fault(value_path(), "must be a decimal number");
                None
            }
            (_, number) => number.ok(),
        };
        if self.faults.len() > faults {
            return None;
        }

        let ignore_case = rule.subject == L7Subject::HostName;
        let bytes = || Box::<[u8]>::from(rule.value.as_bytes());
        let compare = match rule.compare {
            _ if rule.subject == L7Subject::SslConnHasCert => Compare::Equal(Box::from(*b"1")),
            _ if rule.subject == L7Subject::SslVerifyResult => {
                Compare::Equal(number.unwrap_or_default().to_string().into_bytes().into())
            }
            CompareType::EqualTo if rule.subject == L7Subject::FileType => Compare::Suffix(bytes()),
            CompareType::EqualTo => Compare::Equal(bytes()),
            CompareType::StartsWith => Compare::Prefix(bytes()),
            CompareType::EndsWith => Compare::Suffix(bytes()),
            CompareType::Contains => Compare::Contains(Box::new(Finder::new(&rule.value).into_owned())),
            CompareType::Regex => match self.budget.expression(&rule.value, ignore_case) {
                Ok(expression) => Compare::Regex(expression),
                Err(Refused::Expression(reason)) => {
                    self.fault(value_path(), reason);
                    return None;
                }
                Err(Refused::TooMuch) => {
                    let mib = MAX_EXPRESSION_BYTES >> 20;
                    self.fault(
                            value_path(),
                            format!("with this one the regular expressions of the load balancer take more than {mib} MiB"),
                        );
                    return None;
                }
                Err(Refused::Unread) => return None,
            },
        };
        Some(Rule { source, invert: rule.invert, matcher: Matcher { compare, ignore_case } })
    }

    /// Names of headers and cookies are tokens (RFC 9110 section 5.6.2).
    fn check_name(&mut self, name: &str, path: &str) {
        if name.len() > MAX_VALUE_LENGTH || !amphora_model::is_token(name.as_bytes()) {
            self.fault(format!("{path}.key"), "is not the name of a header or cookie");
        }
    }
}
