//! A listener's policies, compiled.

mod alone;

use std::sync::Arc;

use amphora_ipc::proxy::Fault;

use amphora_model::{
    CompareType, L7Action, L7Policy, L7Rule, L7Subject, Listener, PoolId, RedirectCode, ReplacementPiece,
    replacement_pieces,
};
use memchr::memmem::Finder;

pub use self::alone::Verdict;
use super::{
    Answer, Budget, Edits, Location, MAX_EDITS, MAX_EXPRESSION_BYTES, MAX_POLICIES, MAX_RULES_PER_POLICY,
    MAX_VALUE_LENGTH, Outcome, RequestFacts, Scratch,
    budget::Refused,
    edits::PathEdit,
    index::Index,
    matcher::{Compare, Matcher},
    regex::Allowance,
    samples::{Subject, Subjects, View},
};
use crate::{http::TooLong, tls::PeerFacts};

/// The compiled L7 policies of one listener.
#[derive(Debug, Default)]
pub struct L7Program {
    /// In evaluation order.
    policies: Vec<Policy>,
    subjects: Subjects,
    index: Option<Index>,
    /// Those that change requests and go on, which all apply.
    changing: Option<Box<Self>>,
    /// One of its policies, or of those, changes something.
    has_edits: bool,
}

#[derive(Debug)]
pub(super) struct Policy {
    action: Action,
    edits: Option<Arc<Edits>>,
    /// Never empty; cheap ones first.
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug)]
enum Action {
    /// It changes something, and that is all.
    Edit,
    Reject,
    Answer(Arc<Answer>),
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
        let edits = |policy: &L7Policy| {
            policy.edits.as_ref().map_or(0, |edits| edits.request.len() + edits.response.len())
        };
        if listener.l7policies.iter().map(edits).sum::<usize>() > MAX_EDITS {
            compiler.fault(format!("{path}.l7policies"), format!("more than {MAX_EDITS} edits of fields"));
        }
        let mut sorted: Vec<(usize, &L7Policy)> = listener.l7policies.iter().enumerate().collect();
        sorted.sort_by_key(|(_, policy)| (stage(&policy.action), policy.position));
        sorted.retain(|(_, policy)| {
            let served = serves(&policy.action, &enabled_pool);
            policy.admin_state_up && served && policy.rules.iter().any(|rule| rule.admin_state_up)
        });
        let (changing, deciding): (Vec<_>, Vec<_>) =
            sorted.into_iter().partition(|(_, policy)| policy.action == L7Action::Edit);
        let changing = (!changing.is_empty()).then(|| compiler.program(&changing, &path));
        let mut program = compiler.program(&deciding, &path);
        if !compiler.faults.is_empty() || compiler.budget.is_exceeded() {
            return Err(compiler.faults);
        }
        program.has_edits =
            changing.is_some() || program.policies.iter().any(|policy| policy.edits.is_some());
        program.changing = changing.map(Box::new);
        Ok(program)
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
        let Scratch { samples, allowance, applied } = scratch;
        allowance.renew();
        *applied = None;
        if self.policies.is_empty() {
            return Outcome::Pass;
        }
        let mut view = View::new(request, peer, &self.subjects, samples);
        self.each_applying(&mut view, allowance, |place| {
            *applied = Some(place);
            false
        });
        applied.map_or(Outcome::Pass, |place| self.policies[place].outcome())
    }

    /// Whether any policy changes requests or responses.
    #[inline]
    pub fn has_edits(&self) -> bool {
        self.has_edits
    }

    /// The edits of all policies that change the request that was evaluated last: of those that do nothing else in their order,
    /// then of the one that has chosen its pool.
    pub fn edits_over<'p, R: RequestFacts + ?Sized>(
        &'p self,
        request: &R,
        peer: Option<&PeerFacts>,
        scratch: &mut Scratch,
        mut each: impl FnMut(&'p Arc<Edits>),
    ) {
        let Scratch { samples, allowance, applied } = scratch;
        if let Some(changing) = &self.changing {
            let mut view = View::new(request, peer, &changing.subjects, samples);
            changing.each_applying(&mut view, allowance, |place| {
                changing.policies[place].edits.iter().for_each(&mut each);
                true
            });
        }
        if let Some(place) = *applied {
            self.policies[place].edits.iter().for_each(each);
        }
    }

    /// Tells of the policies that apply, in order, while it is told to go on.
    fn each_applying<R: RequestFacts + ?Sized>(
        &self,
        view: &mut View<'_, R>,
        allowance: &mut Allowance,
        mut go_on: impl FnMut(usize) -> bool,
    ) {
        let Some(index) = &self.index else {
            for (place, policy) in self.policies.iter().enumerate() {
                if policy.applies(view, allowance) && !go_on(place) {
                    return;
                }
            }
            return;
        };
        index.find(view);
        for word in 0..view.candidates().len() {
            let mut bits = view.candidates()[word];
            while bits != 0 {
                let place = word * 64 + bits.trailing_zeros() as usize;
                if self.policies[place].applies(view, allowance) && !go_on(place) {
                    return;
                }
                bits &= bits - 1;
            }
        }
    }
}

/// What a request's path becomes by these edits, one after the other; `None` when it stays as it is. It is part of what the
/// request's expressions may cost.
///
/// # Errors
/// When it is too long.
pub fn rewritten_path<'e>(
    path: &[u8],
    edits: impl Iterator<Item = &'e Arc<Edits>>,
    scratch: &mut Scratch,
) -> Result<Option<Vec<u8>>, TooLong> {
    let mut new: Option<Vec<u8>> = None;
    for edits in edits {
        if let Some(changed) = edits.path(new.as_deref().unwrap_or(path), &mut scratch.allowance)? {
            new = Some(changed);
        }
    }
    Ok(new)
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
        L7Action::Reject | L7Action::Answer(_) => 0,
        L7Action::RedirectToUrl { .. } | L7Action::RedirectPrefix { .. } => 1,
        // Of those that only change something the order alone matters.
        L7Action::RedirectToPool(_) | L7Action::RedirectToPools(_) | L7Action::Edit => 2,
    }
}

impl Policy {
    fn applies<R: RequestFacts + ?Sized>(&self, view: &mut View<'_, R>, allowance: &mut Allowance) -> bool {
        self.rules.iter().all(|rule| rule.holds(view, allowance))
    }

    fn outcome(&self) -> Outcome<'_> {
        match &self.action {
            Action::Edit => Outcome::Pass,
            Action::Reject => Outcome::Reject,
            Action::Answer(answer) => Outcome::Answer(answer),
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

    fn program(&mut self, sorted: &[(usize, &L7Policy)], path: &str) -> L7Program {
        self.subjects = Subjects::default();
        let mut policies = Vec::new();
        for (place, policy) in sorted {
            policies.extend(self.policy(policy, *place, &format!("{path}.l7policies[{}]", policy.id)));
        }
        let index = Index::build(&policies);
        let subjects = std::mem::take(&mut self.subjects);
        L7Program { policies, subjects, index, changing: None, has_edits: false }
    }

    /// `None` when there was a fault. `place` is the policy's among the listener's.
    fn policy(&mut self, policy: &L7Policy, place: usize, path: &str) -> Option<Policy> {
        let faults = self.faults.len();
        let action = match &policy.action {
            L7Action::Edit => Action::Edit,
            L7Action::Reject => Action::Reject,
            L7Action::Answer(answer) => Action::Answer(Arc::new(Answer::new(answer))),
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
        let edits = policy.edits.as_ref().map(|edits| Arc::new(self.edits(edits, path)));
        (self.faults.len() == faults).then_some(Policy { action, edits, rules })
    }

    fn edits(&mut self, edits: &amphora_model::Edits, path: &str) -> Edits {
        let compiled = match &edits.path {
            None => None,
            Some(amphora_model::PathEdit::Prefix { prefix, replacement }) => {
                Some(PathEdit::Prefix(prefix.as_bytes().into(), replacement.as_bytes().into()))
            }
            Some(amphora_model::PathEdit::Regex { regex, replacement }) => {
                let at = format!("{path}.amphora.edits.path");
                let pieces = replacement_pieces(replacement)
                    .map_err(|reason| self.fault(format!("{at}.replacement"), reason));
                let regex = self.budget.rewrite(regex).map_err(|refused| match refused {
                    Refused::Expression(reason) => self.fault(format!("{at}.regex"), reason),
                    Refused::TooMuch => self.fault(format!("{at}.regex"), too_much()),
                    Refused::Unread => {}
                });
                match (regex, pieces) {
                    (Ok(regex), Ok(pieces)) => {
                        if let Some(reason) = missing_group(&pieces, regex.groups()) {
                            self.fault(format!("{at}.replacement"), reason);
                        }
                        Some(PathEdit::Regex(regex, pieces.into()))
                    }
                    _ => None,
                }
            }
        };
        Edits::new(edits, compiled)
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
                    self.fault(value_path(), too_much());
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

/// What is wrong with a replacement of an expression that has so many groups, if it names one that nothing can be in.
fn missing_group(pieces: &[ReplacementPiece], groups: u32) -> Option<String> {
    let missing = pieces.iter().find_map(|piece| match piece {
        ReplacementPiece::Group(group) if u32::from(*group) > groups => Some(group),
        _ => None,
    })?;
    Some(match groups {
        0 => format!("names group \\{missing}, and the expression has no groups"),
        1 => format!("names group \\{missing}, and the expression has one group"),
        _ => format!("names group \\{missing}, and the expression has {groups} groups"),
    })
}

fn too_much() -> String {
    let mib = MAX_EXPRESSION_BYTES >> 20;
    format!("with this one the regular expressions of the load balancer take more than {mib} MiB")
}
