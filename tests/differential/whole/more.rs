//! What a case has besides, from a generator of its own: short timeouts, requests at once, members that do not answer, pairs.

use std::time::Duration;

use amphora_model::{
    CompareType, HealthCheck, L7Action, L7Policy, L7PolicyId, L7Rule, L7RuleId, L7Subject, Listener,
    ListenerProtocol, PoolProtocol, RedirectCode, SessionPersistence, arbitrary::Generator,
};
use uuid::Uuid;

use super::{
    generate::{Case, Manner, NOWHERE, address, is_old, latin1, number_of, replace, reply_of, speaks_http},
    member::LATE,
};

/// A timeout that a case waits for. What takes a busy machine longer than this would be a difference.
const SHORT: Duration = Duration::from_millis(1500);

/// Replies behind which the connection goes on.
const SAFE: [&str; 8] =
    ["length", "chunked", "none", "unchanged", "missing", "cookie", "cacheable", "odd-fields"];

/// Whether neither the client nor the member wants the connection closed behind it.
fn goes_on(request: &[u8]) -> bool {
    let wants_close = latin1(request).contains("Connection: close");
    !is_old(request) && !wants_close && SAFE.contains(&reply_of(request).as_str())
}

/// Adds it.
pub(super) fn add(case: &mut Case) {
    let mut g = Generator::new(case.seed ^ (1 << 63));
    case.is_pair = g.one_in(4);
    out_of_reach(&mut g, case);
    without_effect(&mut Generator::new(case.seed ^ (1 << 62)), case);
    plain(&mut g, case);
    expectations(&mut g, case);
    at_once(&mut g, case);
    if g.one_in(8) {
        late(&mut g, case);
    }
}

/// Members that no ping comes to.
fn out_of_reach(g: &mut Generator, case: &mut Case) {
    for pool in &mut case.lb.pools {
        let is_pinged =
            pool.health_monitor.as_ref().is_some_and(|monitor| monitor.check == HealthCheck::Ping);
        for member in pool.members.iter_mut().filter(|_| is_pinged) {
            if g.one_in(3) {
                member.address = address(member.address.is_ipv4(), NOWHERE, number_of(member));
            }
        }
    }
}

/// Policies of listeners in mode tcp, and cookies of pools in mode tcp: Octavia's API takes both. None chooses a pool: whether a request is there
/// when HAProxy looks is chance.
fn without_effect(g: &mut Generator, case: &mut Case) {
    // Where the pool is of HTTP they hold, and HAProxy's log has the pool in it, which it has chosen before it denied.
    let is_told = |listener: &Listener| case.is_logged && speaks_http(&case.lb, listener);
    let told: Vec<bool> = case.lb.listeners.iter().map(is_told).collect();
    for (listener, is_told) in case.lb.listeners.iter_mut().zip(told) {
        let is_tcp = matches!(listener.protocol, ListenerProtocol::Tcp | ListenerProtocol::Https);
        if is_tcp && !is_told && g.one_in(3) {
            let url = "http://example.com/elsewhere".to_owned();
            let away = L7Action::RedirectToUrl { url, code: RedirectCode::default() };
            let actions = if g.one_in(2) { [L7Action::Reject, away] } else { [away, L7Action::Reject] };
            let values = ["a", "b"];
            let policies = (1..).zip(actions).zip(values).map(|((position, action), value)| L7Policy {
                id: L7PolicyId(id(g)),
                name: String::new(),
                admin_state_up: true,
                position,
                action,
                edits: None,
                rules: vec![L7Rule {
                    id: L7RuleId(id(g)),
                    admin_state_up: true,
                    invert: false,
                    subject: L7Subject::Path,
                    compare: CompareType::Contains,
                    value: value.to_owned(),
                }],
            });
            listener.l7policies = policies.collect();
        }
    }
    for pool in &mut case.lb.pools {
        if matches!(pool.protocol, PoolProtocol::Tcp | PoolProtocol::Https) && g.one_in(3) {
            pool.session_persistence = Some(match g.one_in(2) {
                true => SessionPersistence::HttpCookie,
                false => SessionPersistence::AppCookie { cookie_name: "session".to_owned() },
            });
        }
    }
}

/// An id that nothing else has.
fn id(g: &mut Generator) -> Uuid {
    Uuid::from_u64_pair(g.number(), g.number())
}

/// Clients who do not know that TLS is spoken.
fn plain(g: &mut Generator, case: &mut Case) {
    for visit in &mut case.visits {
        if visit.tls.is_some() && g.one_in(12) {
            (visit.tls, visit.in_streams) = (None, false);
            visit.requests.truncate(1);
        }
    }
}

/// Clients who ask whether a body is wanted, and send it anyway.
fn expectations(g: &mut Generator, case: &mut Case) {
    for visit in &mut case.visits {
        for request in &mut visit.requests {
            if goes_on(request) && latin1(request).contains("\r\n\r\nhi") && g.one_in(3) {
                replace(request, "\r\n", "\r\nExpect: 100-continue\r\n");
            }
        }
    }
}

/// Clients who do not wait for answers.
fn at_once(g: &mut Generator, case: &mut Case) {
    for visit in &mut case.visits {
        let listener = &case.lb.listeners[visit.listener];
        let is_served = speaks_http(&case.lb, listener) && listener.l7policies.is_empty();
        if !is_served || visit.in_streams || visit.requests.len() < 2 || !g.one_in(3) {
            continue;
        }
        if visit.requests.iter().all(|request| goes_on(request)) {
            visit.manner = Manner::AtOnce;
        }
    }
}

/// A visit in which somebody takes too long.
fn late(g: &mut Generator, case: &mut Case) {
    let at = g.within(0..=case.visits.len() - 1);
    let visit = &mut case.visits[at];
    let listener = &mut case.lb.listeners[visit.listener];
    // What begins like no handshake is refused here before more comes.
    let is_plain = listener.tls.is_some() && visit.tls.is_none();
    if listener.protocol == ListenerProtocol::Https
        || visit.in_streams
        || is_plain
        || visit.manner == Manner::AtOnce
    {
        return;
    }
    if g.one_in(2) {
        listener.timeouts.client_data = SHORT;
        visit.manner = Manner::Late;
    } else {
        listener.timeouts.member_data = SHORT;
        let last = visit.requests.last_mut().unwrap();
        replace(last, "\r\nX-Reply: ", &format!("\r\nX-Reply: {LATE}\r\nX-Instead-Of: "));
    }
}
