//! Cases that are a little less than one that shows a difference.

use amphora_model::InsertHeaders;

use super::generate::{Case, latin1};

/// Each of them lacks one thing; what takes most away comes first.
pub(super) fn smaller(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    visits(case, &mut all);
    objects(case, &mut all);
    fields(case, &mut all);
    all
}

fn push(all: &mut Vec<Case>, case: &Case, change: impl FnOnce(&mut Case)) {
    let mut new = case.clone();
    change(&mut new);
    all.push(new);
}

fn visits(case: &Case, all: &mut Vec<Case>) {
    for (at, visit) in case.visits.iter().enumerate() {
        if case.visits.len() > 1 {
            push(all, case, |new| new.visits = vec![visit.clone()]);
        }
        if case.visits.len() > 2 {
            push(all, case, |new| drop(new.visits.remove(at)));
        }
        for request in 0..visit.requests.len() {
            if visit.requests.len() > 1 {
                push(all, case, |new| drop(new.visits[at].requests.remove(request)));
            }
        }
    }
}

fn objects(case: &Case, all: &mut Vec<Case>) {
    for (at, listener) in case.lb.listeners.iter().enumerate() {
        if case.visits.iter().all(|visit| visit.listener != at) {
            push(all, case, |new| {
                new.lb.listeners.remove(at);
                new.visits
                    .iter_mut()
                    .filter(|visit| visit.listener > at)
                    .for_each(|visit| visit.listener -= 1);
            });
        }
        for (policy, rules) in listener.l7policies.iter().map(|policy| policy.rules.len()).enumerate() {
            push(all, case, |new| drop(new.lb.listeners[at].l7policies.remove(policy)));
            for rule in 0..if rules > 1 { rules } else { 0 } {
                push(all, case, |new| drop(new.lb.listeners[at].l7policies[policy].rules.remove(rule)));
            }
        }
        if listener.insert_headers != InsertHeaders::default() {
            push(all, case, |new| new.lb.listeners[at].insert_headers = InsertHeaders::default());
        }
        if listener.tls.as_ref().is_some_and(|tls| tls.client_authentication.is_some() || tls.hsts.is_some())
        {
            push(all, case, |new| {
                let tls = new.lb.listeners[at].tls.as_mut();
                tls.into_iter().for_each(|tls| (tls.client_authentication, tls.hsts) = (None, None));
            });
        }
    }
    for (at, pool) in case.lb.pools.iter().enumerate() {
        if pool.health_monitor.is_some() {
            push(all, case, |new| new.lb.pools[at].health_monitor = None);
        }
        if pool.session_persistence.is_some() {
            push(all, case, |new| new.lb.pools[at].session_persistence = None);
        }
        if pool.tls.is_some() {
            push(all, case, |new| new.lb.pools[at].tls = None);
        }
        for member in 0..pool.members.len() {
            push(all, case, |new| drop(new.lb.pools[at].members.remove(member)));
        }
    }
}

/// Fields of requests but those that say how they end and where they go.
fn fields(case: &Case, all: &mut Vec<Case>) {
    for (at, visit) in case.visits.iter().enumerate() {
        for (number, request) in visit.requests.iter().enumerate() {
            let text = latin1(request);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let lines: Vec<&str> = head.split("\r\n").collect();
            for line in 1..lines.len() {
                let name = lines[line].split(':').next().unwrap_or_default().to_ascii_lowercase();
                if matches!(name.as_str(), "host" | "x-reply" | "content-length" | "transfer-encoding") {
                    continue;
                }
                let kept: Vec<&str> =
                    lines.iter().enumerate().filter(|(n, _)| *n != line).map(|(_, line)| *line).collect();
                let text = format!("{}\r\n\r\n{body}", kept.join("\r\n"));
                let bytes = text.chars().map(|c| c as u8).collect();
                push(all, case, |new| new.visits[at].requests[number] = bytes);
            }
        }
    }
}
