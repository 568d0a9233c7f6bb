//! Strings of tenants through the real templates: the same string comes back, or the text is refused.

use amphora_model::{
    HealthCheck, L7Action, L7Subject, LoadBalancer, SessionPersistence, TlsSettings,
    arbitrary::{Generator, Shape},
};

use super::roundtrip::{Answer, Case, render};
use crate::testing::hostile::{PIECES, names};

/// A string of a tenant's in `lb`, and the statements that would make it a policy.
fn spoil(g: &mut Generator, lb: &mut LoadBalancer) -> bool {
    let ids: Vec<String> = lb
        .listeners
        .iter()
        .flat_map(|listener| &listener.l7policies)
        .flat_map(|policy| &policy.rules)
        .map(|rule| rule.id.to_string())
        .collect();
    let listener = lb.listeners.first().map(|listener| listener.id.to_string()).unwrap_or_default();
    let new = uuid::Uuid::from_u64_pair(g.number(), g.number());
    let mut string = String::new();
    for _ in 0..g.within(1..=5) {
        string.push_str(g.pick(&PIECES));
    }
    if g.one_in(3) {
        let id = if ids.is_empty() { new.to_string() } else { g.pick(&ids) };
        let injected = [
            format!("\n    http-request deny if {id}"),
            format!(" if {id}\n    http-request deny"),
            format!("\n        acl {new} path -m str /\n    http-request deny if {new}"),
            format!(" if {id}\n        acl {new} path_end \\"),
            format!("\n    http-request deny if !{id}\n        acl {new} path -m str /"),
            format!("\n\nfrontend {new}\n    mode http\n    bind 192.0.2.9:1\n    timeout client 1"),
            format!("\n\nbackend {new}:{listener}\n    mode tcp"),
            format!("\n    server {new} 192.0.2.8:80 weight 1"),
            format!(")\n    stick match req.cook(a)\n    server {new} 192.0.2.8:80 weight 1"),
            "\n    option forwardfor".to_owned(),
            "\n    cookie SRV insert indirect nocache".to_owned(),
            "\n    maxconn 1".to_owned(),
            "\n    bind 192.0.2.9:1".to_owned(),
            "\n    default_backend prometheus-exporter-internal".to_owned(),
            "\n".to_owned(),
            "\n#".to_owned(),
            " #".to_owned(),
        ];
        string.push_str(&g.pick(&injected));
    }
    let start = g.within(0..=9);
    (start..start + 10).any(|at| put(g, lb, at % 10, &string))
}

/// Puts the string somewhere; false when there is no such place.
fn put(g: &mut Generator, lb: &mut LoadBalancer, place: usize, string: &str) -> bool {
    let policies = lb.listeners.iter_mut().flat_map(|listener| &mut listener.l7policies);
    let mut places: Vec<&mut String> = match place {
        0..=2 => policies
            .flat_map(|policy| &mut policy.rules)
            .filter(|rule| rule.subject != L7Subject::SslConnHasCert)
            .map(|rule| &mut rule.value)
            .collect(),
        3 => policies
            .flat_map(|policy| &mut policy.rules)
            .filter_map(|rule| match &mut rule.subject {
                L7Subject::Header(key) | L7Subject::Cookie(key) | L7Subject::SslDnField(key) => Some(key),
                _ => None,
            })
            .collect(),
        4 | 5 => policies
            .filter_map(|policy| match &mut policy.action {
                L7Action::RedirectToUrl { url, .. } => Some(url),
                L7Action::RedirectPrefix { prefix, .. } => Some(prefix),
                _ => None,
            })
            .collect(),
        6 => lb
            .pools
            .iter_mut()
            .filter_map(|pool| match &mut pool.health_monitor.as_mut()?.check {
                HealthCheck::Http(http) | HealthCheck::Https(http) => Some(http),
                _ => None,
            })
            .flat_map(|http| std::iter::once(&mut http.url_path).chain(&mut http.domain_name))
            .collect(),
        7 => names(lb),
        8 => {
            let mut ciphers: Vec<_> = settings(lb).filter_map(|settings| settings.ciphers.as_mut()).collect();
            if ciphers.is_empty() {
                return false;
            }
            let at = g.within(0..=ciphers.len() - 1);
            *ciphers[at] = format!("{}{string}", ciphers[at]).into();
            return true;
        }
        _ => lb
            .pools
            .iter_mut()
            .filter_map(|pool| match pool.session_persistence.as_mut()? {
                SessionPersistence::AppCookie { cookie_name } => Some(cookie_name),
                _ => None,
            })
            .collect(),
    };
    if places.is_empty() {
        return false;
    }
    let at = g.within(0..=places.len() - 1);
    let kept = if place >= 4 { 3 } else { 1 };
    // Behind what was there, so that a URL may still be one, or alone.
    let old = std::mem::take(places[at]);
    *places[at] = if g.one_in(kept) { string.to_owned() } else { old + string };
    true
}

fn called(lb: &mut LoadBalancer) -> Vec<String> {
    names(lb).into_iter().map(|name| name.clone()).collect()
}

/// Octavia leaves out those that it does not know before it renders the rest.
fn without_ciphers(mut lb: LoadBalancer) -> LoadBalancer {
    settings(&mut lb).for_each(|settings| settings.ciphers = None);
    lb
}

fn settings(lb: &mut LoadBalancer) -> impl Iterator<Item = &mut TlsSettings> {
    let listeners = lb.listeners.iter_mut().filter_map(|listener| Some(&mut listener.tls.as_mut()?.settings));
    let pools = lb.pools.iter_mut().filter_map(|pool| Some(&mut pool.tls.as_mut()?.settings));
    listeners.chain(pools)
}

#[test]
fn no_string_of_a_tenants_becomes_a_statement() {
    let mut g = Generator::new(17);
    let shape = Shape { listeners: 1..=2, policies: 1..=4, rules: 1..=3, tls: true, ..Shape::default() };
    let cases: Vec<Case> = (0..1200)
        .filter_map(|seed| {
            let mut case = Case::shaped(seed, &shape);
            let before = (case.expected(), called(&mut case.lb));
            // Of what is disabled nothing is written.
            let spoiled = spoil(&mut g, &mut case.lb);
            (spoiled && (case.expected(), called(&mut case.lb)) != before).then_some(case)
        })
        .collect();
    let Some(answers) = render(&cases) else { return };
    let (mut same, mut refused) = (0, 0);
    for (case, answer) in cases.iter().zip(answers) {
        // What Octavia itself cannot render is never sent.
        let Answer::Text(text) = answer else { continue };
        match case.translated(&text) {
            Ok(lb) => {
                assert_eq!(without_ciphers(lb), without_ciphers(case.expected()), "{text}");
                same += 1;
            }
            Err(fault) => {
                assert!(fault.line > 0, "{fault}");
                refused += 1;
            }
        }
    }
    assert!(same > 100 && refused > 200, "{same} came back, {refused} were refused");
}
