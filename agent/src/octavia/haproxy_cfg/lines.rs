//! Where a text says what a document says elsewhere: a fault that is found in the document is told with the line.

use std::collections::HashMap;

use amphora_model::LoadBalancer;
use uuid::Uuid;

use super::{Fault, draft::Draft, words::Place};

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// The section of a listener.
    Listener,
    /// Its first `bind`, with all of TLS.
    Bind,
    /// `Strict-Transport-Security`.
    Hsts,
    /// Its `maxconn`.
    Limit,
    /// Its `timeout client`.
    Timeouts,
    /// `default_backend`.
    DefaultPool,
    /// `log-format`.
    Log,
    /// What an L7 policy does.
    Policy,
    /// An `acl`.
    Rule,
    /// The first section of a pool.
    Pool,
    /// Its first `server`, with what all have of TLS.
    Servers,
    /// What its health monitor does.
    Monitor,
    /// What its session persistence goes by.
    Persistence,
    /// `balance`.
    Algorithm,
    /// A `server`.
    Member,
}

/// The lines of a text, by what they are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines(HashMap<(What, Uuid), usize>);

impl Lines {
    /// What `draft` has said where.
    pub(super) fn of(draft: &Draft<'_>) -> Self {
        let mut lines = HashMap::new();
        let mut note = |what: What, id: Uuid, place: Place<'_>| {
            // A pool comes once for each listener; the first one is it.
            lines.entry((what, id)).or_insert(place.number);
        };
        draft.listeners.iter().for_each(|listener| listener.places(&mut note));
        draft.pools.iter().for_each(|pool| pool.places(&mut note));
        Self(lines)
    }

    /// A fault of the load balancer's document as one of the `text` that it was made from. Between the brackets of its path is the index of
    /// what `parsed` has there, as the parser tells it, or an id, as whoever compiles the document does.
    pub fn told(&self, text: &[u8], fault: &amphora_model::Fault, parsed: Option<&LoadBalancer>) -> Fault {
        let field = fault.path.rsplit('.').next().unwrap_or_default();
        // What the parser says of a field begins with the verb.
        let joint = if parsed.is_some() { "" } else { ":" };
        let reason = self.with_lines(&fault.reason, parsed);
        let reason = match field.is_empty() || field.ends_with(']') {
            true => reason,
            false => format!("{field}{joint} {reason}"),
        };
        let Some(number) = self.line(&fault.path, parsed) else { return Fault::whole(reason) };
        let line = text.split(|b| *b == b'\n').nth(number.saturating_sub(1)).unwrap_or_default();
        Fault::new(number, String::from_utf8_lossy(line).trim(), reason)
    }

    /// A reason with lines in place of the paths that it names.
    fn with_lines(&self, reason: &str, parsed: Option<&LoadBalancer>) -> String {
        let word = |word: &str| match word.starts_with("loadbalancer.").then(|| self.line(word, parsed)) {
            Some(Some(line)) => format!("line {line}"),
            _ => word.to_owned(),
        };
        reason.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }

    /// The line of what a path names, or of what that is in.
    fn line(&self, path: &str, parsed: Option<&LoadBalancer>) -> Option<usize> {
        let mut steps = path.strip_prefix("loadbalancer.").unwrap_or(path).split('.');
        let (list, key) = element(steps.next()?)?;
        let (field, inner) = steps.next().map_or(("", None), |step| match element(step) {
            Some((list, key)) => (list, Some(key)),
            None => (step, None),
        });
        match list {
            "listeners" => {
                let listeners = parsed.map(|model| &model.listeners[..]);
                let (id, listener) = find(key, listeners, |listener| listener.id.0)?;
                let whole = || self.get(What::Listener, id);
                let ("l7policies", Some(key)) = (field, inner) else {
                    return of_listener(field).and_then(|what| self.get(what, id)).or_else(whole);
                };
                let policies = listener.map(|listener| &listener.l7policies[..]);
                let Some((policy, of_policy)) = find(key, policies, |policy| policy.id.0) else {
                    return whole();
                };
                let rules = of_policy.map(|policy| &policy.rules[..]);
                let rule = steps.next().and_then(element).filter(|(list, _)| *list == "rules");
                let rule = rule.and_then(|(_, key)| find(key, rules, |rule| rule.id.0));
                let rule = rule.and_then(|(id, _)| self.get(What::Rule, id));
                rule.or_else(|| self.get(What::Policy, policy)).or_else(whole)
            }
            "pools" => {
                let pools = parsed.map(|model| &model.pools[..]);
                let (id, pool) = find(key, pools, |pool| pool.id.0)?;
                let part = match (field, inner) {
                    ("members", Some(key)) => {
                        let members = pool.map(|pool| &pool.members[..]);
                        find(key, members, |member| member.id.0)
                            .and_then(|(id, _)| self.get(What::Member, id))
                    }
                    (field, _) => of_pool(field).and_then(|what| self.get(what, id)),
                };
                part.or_else(|| self.get(What::Pool, id))
            }
            _ => None,
        }
    }

    fn get(&self, what: What, id: Uuid) -> Option<usize> {
        self.0.get(&(what, id)).copied()
    }
}

/// `name[key]`.
fn element(step: &str) -> Option<(&str, &str)> {
    let (list, key) = step.split_once('[')?;
    Some((list, key.strip_suffix(']')?))
}

/// The id of an element, and it, where the list is known.
fn find<'m, T>(key: &str, list: Option<&'m [T]>, id: impl Fn(&T) -> Uuid) -> Option<(Uuid, Option<&'m T>)> {
    if let Ok(key) = key.parse::<Uuid>() {
        return Some((key, list.and_then(|list| list.iter().find(|element| id(element) == key))));
    }
    let element = list?.get(key.parse::<usize>().ok()?)?;
    Some((id(element), Some(element)))
}

/// What says a field of a listener.
fn of_listener(field: &str) -> Option<What> {
    Some(match field {
        "connection_limit" => What::Limit,
        "default_pool_id" => What::DefaultPool,
        // What documents of this amphora's own have beside Octavia's.
        "amphora" => What::Log,
        "protocol_port" | "alpn_protocols" | "default_tls_container_ref" | "sni_container_refs" => What::Bind,
        _ if field.starts_with("tls_") || field.starts_with("client_") => What::Bind,
        _ if field.starts_with("hsts_") => What::Hsts,
        _ if field.starts_with("timeout_") => What::Timeouts,
        _ => return None,
    })
}

/// What says a field of a pool.
fn of_pool(field: &str) -> Option<What> {
    Some(match field {
        "alpn_protocols" | "ca_tls_container_ref" | "crl_container_ref" => What::Servers,
        _ if field.starts_with("tls_") => What::Servers,
        "healthmonitor" => What::Monitor,
        "session_persistence" => What::Persistence,
        "lb_algorithm" => What::Algorithm,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    #[test]
    fn paths_lead_to_the_line_or_to_that_of_what_they_are_in() {
        use What::{Bind, Hsts, Limit, Listener, Log, Member, Monitor, Policy, Pool, Rule, Servers};
        let (listener, policy, rule, pool, member) = (id(1), id(2), id(3), id(4), id(5));
        let of = |entries: &[(What, Uuid)]| {
            Lines((1..).zip(entries).map(|(line, (what, id))| ((*what, *id), line)).collect())
        };
        let all = [
            (Listener, listener),
            (Bind, listener),
            (Hsts, listener),
            (Limit, listener),
            (Log, listener),
            (Policy, policy),
            (Rule, rule),
            (Pool, pool),
            (Servers, pool),
            (Monitor, pool),
            (Member, member),
        ];
        let line = |path: &str| {
            let path = path
                .replace("L", &format!("listeners[{listener}]"))
                .replace("P", &format!("pools[{pool}]"))
                .replace("Y", &format!("l7policies[{policy}]"));
            let path = path.replace("R", &format!("rules[{rule}]"));
            let path = path.replace("M", &format!("members[{member}]"));
            of(&all).line(&path, None).map(|line| all[line - 1].0)
        };
        for (path, what) in [
            ("loadbalancer.L", Listener),
            ("L.protocol", Listener),
            ("L.tls_ciphers", Bind),
            ("L.tls_versions[0]", Bind),
            ("L.sni_container_refs", Bind),
            ("L.client_crl_container_ref", Bind),
            ("L.alpn_protocols", Bind),
            ("L.protocol_port", Bind),
            ("L.hsts_max_age", Hsts),
            ("L.connection_limit", Limit),
            ("L.timeout_client_data", Listener),
            ("L.amphora.user_log_format", Log),
            ("L.Y", Policy),
            ("L.Y.redirect_url", Policy),
            ("L.Y.R.value", Rule),
            ("L.Y.rules[00000000-0000-0000-0000-0000000000aa].value", Policy),
            ("L.l7policies[7].R.value", Listener),
            ("P", Pool),
            ("P.tls_ciphers", Servers),
            ("P.tls_container_ref", Servers),
            ("P.healthmonitor.type", Monitor),
            ("P.lb_algorithm", Pool),
            ("P.M.weight", Member),
            ("P.members[0].weight", Pool),
        ] {
            assert_eq!(line(path), Some(what), "{path}");
        }
        for path in
            ["", "loadbalancer", "loadbalancer.vip_address", "listeners[0].protocol", "L[", "vips[0].x"]
        {
            assert_eq!(line(path), None, "{path}");
        }
    }
}
