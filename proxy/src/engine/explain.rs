//! What a request would meet: the plan that runs is asked, and nothing is sent or counted.
//!
//! Takes time linear in policies, rules and members, and is for another thread than the control thread.

mod limits;
mod policies;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use amphora_ipc::proxy::{
    Explanation, MemberVerdict, NotFollowed, PoolNotFollowed, PoolVerdict, Question, Refusal,
};
use amphora_model::{L7Action, Listener, LoadBalancer, MemberId, Pool, PoolId, WeightedPools};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject as _};

use self::limits::Limited;
use super::member_reports;
use crate::{
    balance::{Balance, Balancer as _, Flow, MembersView as _, eligible::Eligible},
    http::{Known, RequestHead, RequestView, TooLong},
    http1,
    l7::{self, Outcome, Scratch},
    limits::rate,
    persist::{CookieVerdict, Persistence, app_cookie, server_cookie},
    snapshot::{ListenerPlan, MemberPlan, PoolPlan, Snapshot, Split},
    tls::PeerFacts,
};

/// What is asked of, and when; `epoch` is where the clock begins that all workers share.
pub(super) struct Explainer<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) moment: member_reports::Moment<'a>,
    pub(super) epoch: Instant,
}

/// Who asks, and for what.
struct Asked<'a> {
    view: Option<RequestView<'a>>,
    client: IpAddr,
}

/// Pools that share, and how they do where one of them is enabled.
type Several<'a> = Option<(&'a WeightedPools, Option<&'a Split>)>;

const TO_A_MEMBER: &str = "goes to a member";

impl<'a> Asked<'a> {
    fn cookies(&self) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.view.into_iter().flat_map(|view| view.fields());
        fields.filter(|(_, _, known)| *known == Known::Cookie).map(|(_, value, _)| value)
    }
}

/// The listener's own.
fn several<'a>(listener: &'a Listener, plan: &'a ListenerPlan) -> Several<'a> {
    let split = plan.splits.as_ref().and_then(|splits| splits.default());
    listener.routing.pools.as_ref().map(|pools| (pools, split))
}

/// What policies make of the path and the host of the request that was evaluated last.
fn changed(
    plan: &ListenerPlan,
    view: &RequestView<'_>,
    peer: Option<&PeerFacts>,
    scratch: &mut Scratch,
) -> String {
    let mut edits = Vec::new();
    plan.l7.edits_over(view, peer, scratch, |found| edits.push(found));
    let path = view.path().unwrap_or_default();
    let mut text = String::new();
    match l7::rewritten_path(path, edits.iter().copied(), scratch) {
        Ok(Some(path)) => text += &format!(", with the path {}", String::from_utf8_lossy(&path)),
        Ok(None) => {}
        // As when it is written.
        Err(TooLong) => text += ", or is answered with 431: its path grows too long",
    }
    if let Some(host) = edits.iter().rev().find_map(|edits| edits.host()) {
        text += &format!(", for the host {}", String::from_utf8_lossy(host));
    }
    text
}

impl Explainer<'_> {
    /// Answers.
    ///
    /// # Errors
    /// When there is no such listener, or the request is none.
    pub(super) fn explain(&self, question: &Question) -> Result<Explanation, Refusal> {
        let found = self.snapshot.model.as_deref().and_then(|model| {
            let listener = model.listeners.iter().find(|listener| listener.id == question.listener)?;
            Some((model, listener))
        });
        let Some((model, listener)) = found else {
            return Err(Refusal::one("listener", "is not the id of a listener"));
        };
        let plan = self.snapshot.listeners.iter().find(|plan| plan.state.id == listener.id);
        let mut explanation = Explanation {
            listener: listener.id,
            outcome: String::new(),
            rate_limits: limits::enabled(listener),
            policies: Vec::new(),
            pool_not_followed: None,
            pools: Vec::new(),
        };
        let Some(plan) = plan else {
            explanation.outcome = "refused: the listener or the load balancer is disabled".to_owned();
            return Ok(explanation);
        };
        let client = question.client.unwrap_or(Ipv4Addr::new(192, 0, 2, 1).into());
        if !plan.access.allows(client) {
            explanation.outcome = "closed: allowed_cidrs does not let the client in".to_owned();
            return Ok(explanation);
        }
        let shown = match supposed(question, plan)? {
            Ok(shown) => shown,
            Err(reason) => {
                explanation.outcome = format!("refused in the TLS handshake: {reason}");
                return Ok(explanation);
            }
        };
        let peer = shown.as_ref();
        if !listener.protocol.is_http() {
            let limited = self.limited(&mut explanation, listener, plan, client, None);
            if let Some(Limited::Refused(outcome)) = limited {
                explanation.outcome = outcome;
                return Ok(explanation);
            }
            let (pool, several) = (listener.default_pool, several(listener, plan));
            self.pools(&mut explanation, model, listener, &Asked { view: None, client }, pool, several);
            after(&mut explanation, limited);
            return Ok(explanation);
        }
        let text = text(question, plan)?;
        let mut head = RequestHead::new();
        match head.parse(text.as_bytes()) {
            Ok(Some(length)) if length == text.len() => {}
            Ok(_) => return Err(Refusal::one("headers", "is no head of a request")),
            Err(reject) => {
                explanation.outcome = format!("refused with {reject}");
                return Ok(explanation);
            }
        }
        let view = head.view(text.as_bytes());
        if let Err(reject) = http1::request_framing(&view) {
            explanation.outcome = format!("refused with {reject}");
            return Ok(explanation);
        }
        let limited = self.limited(&mut explanation, listener, plan, client, Some((&view, text.len())));
        if let Some(Limited::Refused(outcome)) = limited {
            explanation.outcome = outcome;
            return Ok(explanation);
        }
        let mut scratch = Scratch::default();
        explanation.policies = policies::of(self.snapshot, listener, &view, peer, &mut scratch);
        let outcome = plan.l7.evaluate_over(&view, peer, &mut scratch);
        let changed = changed(plan, &view, peer, &mut scratch);
        let asked = Asked { view: Some(view), client };
        match outcome {
            Outcome::Reject => {
                explanation.outcome = format!("answered with 403{}", policies::which(&explanation.policies));
            }
            Outcome::Answer(answer) => {
                let which = policies::which(&explanation.policies);
                explanation.outcome = format!("answered with {}{which}", answer.status);
            }
            Outcome::Redirect { code, location } => {
                let to = location.pieces(view.path_and_query().unwrap_or_default());
                let to = to.map(String::from_utf8_lossy).concat();
                let which = policies::which(&explanation.policies);
                explanation.outcome = format!("redirected with {} to {to}{which}", code.code());
            }
            Outcome::Pass => {
                let several = several(listener, plan);
                self.pools(&mut explanation, model, listener, &asked, listener.default_pool, several);
            }
            Outcome::Pool(pool) => {
                self.pools(&mut explanation, model, listener, &asked, Some(pool), None);
            }
            Outcome::Pools(place) => {
                let several = match listener.l7policies.get(place).map(|policy| &policy.action) {
                    Some(L7Action::RedirectToPools(pools)) => {
                        Some((pools, plan.splits.as_ref().and_then(|splits| splits.of_policy(place))))
                    }
                    _ => None,
                };
                self.pools(&mut explanation, model, listener, &asked, None, several);
            }
        }
        if explanation.outcome == TO_A_MEMBER {
            explanation.outcome += &changed;
        }
        after(&mut explanation, limited);
        Ok(explanation)
    }

    /// Has the rate limits look at it: a request with the length of its head, or a connection.
    fn limited(
        &self,
        explanation: &mut Explanation,
        listener: &Listener,
        plan: &ListenerPlan,
        peer: IpAddr,
        request: Option<(&RequestView<'_>, usize)>,
    ) -> Option<Limited> {
        let limits = plan.limits.as_deref()?;
        let client = request.map_or(peer, |(view, _)| limits::client(limits, peer, view));
        // As where it is judged: what has no path is one of its own.
        let request = request.map(|(view, length)| (view.path().unwrap_or(b"*"), length as u64));
        let now = limits::moment(self.moment.now, self.epoch);
        limits::look(
            &mut explanation.rate_limits,
            listener,
            limits,
            &rate::Asked { client, peer, request, now },
        )
    }

    fn pools(
        &self,
        explanation: &mut Explanation,
        model: &LoadBalancer,
        listener: &Listener,
        asked: &Asked<'_>,
        one: Option<PoolId>,
        several: Several<'_>,
    ) {
        let one = one.into_iter().map(|pool| (pool, None));
        let stays = several.and_then(|(_, split)| {
            split?.by_cookie(asked.cookies(), |pool| self.snapshot.pools[pool].is_able())
        });
        let stays = stays.map(|pool| self.snapshot.pools[pool].id());
        if stays.is_none() {
            explanation.pool_not_followed =
                several.and_then(|(pools, split)| self.pool_not_followed(model, pools, split?, asked));
        }
        let several = several.into_iter().flat_map(|(pools, _)| &pools.shares);
        // Who belongs to one by a cookie goes there, whatever its weight.
        let several = several.filter(|share| match stays {
            Some(pool) => share.pool == pool,
            None => share.weight > 0,
        });
        let several = several.map(|share| (share.pool, Some(share.weight)));
        let wanted: Vec<_> = one.chain(several).collect();
        for (id, weight) in &wanted {
            let known = model.pools.iter().zip(&self.snapshot.pools).find(|(pool, _)| pool.id == *id);
            if let Some((pool, plan)) = known.filter(|(pool, _)| pool.admin_state_up) {
                explanation.pools.push(self.pool(pool, plan, *weight, asked));
            }
        }
        let nobody = if listener.protocol.is_http() { "answered with 503" } else { "closed" };
        let some = explanation.pools.iter().any(|pool| pool.members.iter().any(|member| member.may_get_it));
        explanation.outcome = if wanted.is_empty() {
            format!("{nobody}: there is no pool for it")
        } else if explanation.pools.is_empty() {
            format!("{nobody}: its pool is disabled")
        } else if !some {
            format!("{nobody}: no member may be used")
        } else {
            TO_A_MEMBER.to_owned()
        };
    }

    /// What the cookie of pools says of a client who is given another all the same.
    fn pool_not_followed(
        &self,
        model: &LoadBalancer,
        pools: &WeightedPools,
        split: &Split,
        asked: &Asked<'_>,
    ) -> Option<PoolNotFollowed> {
        let (cookie, named) = split.named(asked.cookies(), pools.shares.iter().map(|share| share.pool))?;
        let by = format!("cookie {}", String::from_utf8_lossy(cookie));
        let pool = named.and_then(|id| model.pools.iter().find(|pool| pool.id == id));
        let why = match pool {
            None => "none of these pools is known by it",
            Some(pool) if !pool.admin_state_up => "it is disabled",
            Some(_) => "it has no member that could be chosen",
        };
        let name = pool.map_or_else(String::new, |pool| pool.name.clone());
        Some(PoolNotFollowed { by, pool: named, name, why: why.to_owned() })
    }

    fn pool(&self, pool: &Pool, plan: &Arc<PoolPlan>, weight: Option<u16>, asked: &Asked<'_>) -> PoolVerdict {
        let (persistent, not_followed) = match self.persistent(plan, asked) {
            Some(Belongs::To(member)) => (Some(member), None),
            Some(Belongs::NotFollowed(told)) => (None, Some(told)),
            None => (None, None),
        };
        let mut eligible = Eligible::default();
        eligible.refresh(&**plan);
        let only = |members: &mut dyn Iterator<Item = usize>| {
            let mut is_in = vec![false; plan.members.len()];
            members.for_each(|member| is_in[member] = true);
            is_in
        };
        let among = only(&mut eligible.members().iter().map(|member| *member as usize));
        let mut chosen = among.clone();
        if let Some(member) = persistent {
            chosen = only(&mut std::iter::once(member));
        } else if let mut balance @ Balance::SourceHash(_) = Balance::new(plan.algorithm, 0) {
            // Of a client that comes from a port that nobody knows yet, the address alone decides.
            let flow = Flow { source: asked.client, source_port: 0 };
            if plan.algorithm == amphora_model::LbAlgorithm::SourceIp {
                chosen = only(&mut balance.pick(&**plan, &flow, |_| false).into_iter());
            }
        }
        let members = pool.members.iter().zip(&plan.members).enumerate();
        let members = members.map(|(index, (member, of))| {
            let may_get_it = chosen[index];
            let elsewhere = || match persistent {
                Some(_) => "the client belongs to another by session persistence",
                None => "the client's address is another's",
            };
            let why_not = match why_not(of, !among[index]) {
                _ if may_get_it => None,
                None => Some(elsewhere().to_owned()),
                why => why,
            };
            MemberVerdict {
                id: member.id,
                name: member.name.clone(),
                address: SocketAddr::new(member.address, member.port),
                weight: member.weight,
                connections: of.state.sessions.load(std::sync::atomic::Ordering::Relaxed).into(),
                may_get_it,
                why_not,
                amphora: self.moment.member(plan, of),
            }
        });
        PoolVerdict {
            id: pool.id,
            name: pool.name.clone(),
            weight,
            algorithm: pool.lb_algorithm.as_str().to_owned(),
            persistent: persistent.map(|member| -> MemberId { plan.members[member].state.id }),
            not_followed,
            members: members.collect(),
        }
    }

    /// Seconds of the clock that all workers share.
    fn seconds(&self) -> u32 {
        let since = self.moment.now.saturating_duration_since(self.epoch);
        u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
    }

    /// What session persistence says of the client, where it says anything.
    fn persistent(&self, plan: &PoolPlan, asked: &Asked<'_>) -> Option<Belongs> {
        let cookies = || asked.cookies();
        let cookie = |name: &[u8]| format!("cookie {}", String::from_utf8_lossy(name));
        let (by, named) = match plan.persistence.as_ref()? {
            Persistence::Network(_) => return None,
            Persistence::Source(stick) => {
                let named = stick.named(stick.state().source_key(asked.client), self.seconds())?;
                (format!("address {}", asked.client), Some(named))
            }
            Persistence::AppCookie { name, stick } => {
                let value = app_cookie::of_request(cookies(), name.as_bytes())?;
                (cookie(name.as_bytes()), stick.named(stick.state().cookie_key(value), self.seconds()))
            }
            Persistence::ServerCookie(servers) => match servers.judge(cookies(), plan) {
                CookieVerdict::Use(member) => return Some(Belongs::To(member)),
                CookieVerdict::Insert => (cookie(server_cookie::NAME), servers.named(cookies())?),
            },
        };
        Some(match named {
            Some(member) if plan.usable(member) => Belongs::To(member),
            Some(member) => {
                let member = &plan.members[member];
                let why = unusable(member).unwrap_or_else(|| "it may not be used".to_owned());
                Belongs::NotFollowed(NotFollowed { by, member: Some(member.state.id), why })
            }
            None => {
                let why = "no member of this pool is known by it".to_owned();
                Belongs::NotFollowed(NotFollowed { by, member: None, why })
            }
        })
    }
}

/// What session persistence says of a client.
enum Belongs {
    /// It goes to this member.
    To(usize),
    /// It is balanced all the same.
    NotFollowed(NotFollowed),
}

/// Why a member gets nobody, not even who belongs to it.
fn unusable(member: &MemberPlan) -> Option<String> {
    let state = &member.state;
    let health = state.health.get();
    if !member.admin_state_up {
        Some("it is disabled".to_owned())
    } else if state.is_drained() {
        Some("it drains, and its time is over".to_owned())
    } else if !health.is_up() {
        Some(format!("its health checks say {health}"))
    } else if state.outlier.is_ejected() {
        Some("it is taken out as an outlier".to_owned())
    } else {
        None
    }
}

/// Why a member is not among those that are chosen from.
fn why_not(member: &MemberPlan, is_out: bool) -> Option<String> {
    let unusable = is_out.then(|| unusable(member)).flatten();
    if !is_out || unusable.is_some() {
        unusable
    } else if member.weight == 0 {
        Some("its weight is 0: it gets clients that belong to it alone".to_owned())
    } else if member.backup {
        Some("it is a backup, and others are there".to_owned())
    } else {
        Some("others are preferred".to_owned())
    }
}

/// A limit lets it go on only after a while.
fn after(explanation: &mut Explanation, limited: Option<Limited>) {
    if let Some(Limited::Waits(how)) = limited {
        explanation.outcome += &format!("; {how}");
    }
}

/// What is known of a client over TLS that has what the question says; or why there is no handshake with it.
fn supposed(question: &Question, plan: &ListenerPlan) -> Result<Result<Option<PeerFacts>, String>, Refusal> {
    let mut chain = Vec::new();
    for certificate in
        CertificateDer::pem_slice_iter(question.certificate.as_deref().unwrap_or("").as_bytes())
    {
        chain.push(certificate.map_err(|_| Refusal::one("certificate", "is not PEM"))?);
    }
    if question.certificate.is_some() && chain.is_empty() {
        return Err(Refusal::one("certificate", "has no certificate in PEM"));
    }
    let Some(tls) = &plan.tls else {
        return match chain.is_empty() {
            true => Ok(Ok(None)),
            false => Err(Refusal::one("certificate", "the listener does not terminate TLS")),
        };
    };
    Ok(match tls.admits(&chain, UnixTime::now()) {
        Ok(shown) => Ok(Some(PeerFacts::supposed(shown.map(|shown| shown.clone().into_owned())))),
        Err(reason) => Err(reason),
    })
}

/// The head of the request.
fn text(question: &Question, plan: &ListenerPlan) -> Result<String, Refusal> {
    let Question { method, target, headers, .. } = question;
    let method = method.as_deref().unwrap_or("GET");
    let target = target.as_deref().unwrap_or("/");
    let plain = |text: &str| !text.contains(['\r', '\n', '\0']);
    if !plain(method) || !plain(target) || method.contains(' ') || target.contains(' ') {
        return Err(Refusal::one("target", "must be a method and a target without spaces and line breaks"));
    }
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        // What a target names itself, any client says once more.
        let named = match target.split_once("://") {
            Some((_, rest)) if !target.starts_with('/') => rest.split(['/', '?', '#']).next(),
            _ if method == "CONNECT" => Some(target),
            _ => None,
        };
        let own = || plan.bindings.first().map_or_else(|| "localhost".to_owned(), |b| b.address.to_string());
        text.push_str(&format!("Host: {}\r\n", named.map_or_else(own, str::to_owned)));
    }
    for (name, value) in headers {
        if !plain(name) || !plain(value) {
            return Err(Refusal::one("headers", "must not contain line breaks"));
        }
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    Ok(text)
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
