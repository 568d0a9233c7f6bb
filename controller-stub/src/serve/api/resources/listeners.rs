//! Listeners.

use std::net::IpAddr;

use amphora_bundle::Kind;
use amphora_model::RateLimitPolicy;
use serde_json::json;

use super::{
    super::{
        attributes::{Body, LISTENER, LOAD_BALANCER, Object, Resource, python},
        change::{Change, check_quota},
        fault::Fault,
        request::Answer,
        scope::Scope,
    },
    Names, fresh, is_alive, may_have_children, pool_for, tls, tree,
    within::{deleted, own, updated},
};
use crate::serve::policies::Rule;

const HEADERS: [&str; 6] = [
    "X-Forwarded-For",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X-Forwarded-IP",
    "X-Client-IP",
    "X-Real-IP",
];

const TLS_HEADERS: [&str; 8] = [
    "X-SSL-Client-Verify",
    "X-SSL-Client-Has-Cert",
    "X-SSL-Client-DN",
    "X-SSL-Client-CN",
    "X-SSL-Issuer",
    "X-SSL-Client-SHA1",
    "X-SSL-Client-Not-Before",
    "X-SSL-Client-Not-After",
];

pub(in crate::serve::api) fn post(
    scope: &Scope<'_>,
    resource: &'static Resource,
    _names: &Names<'_>,
) -> Result<Answer, Fault> {
    let mut said = scope.body(resource, Body::Post)?;
    let load_balancer = said.str("loadbalancer_id").to_owned();
    let project = LOAD_BALANCER.get(scope.t, &load_balancer)?;
    scope.permit(Rule::Write, project.str("project_id"))?;
    let change = Change::begin(scope, &load_balancer)?;
    let pools = tree::pools_within(scope, &change, &mut said)?;
    let id = create(scope, &change, said, &pools)?;
    change.finish()?;
    fresh(scope, resource, 201, &id)
}

/// Makes a listener and what its body has within. Tells its identifier.
pub(super) fn create(
    scope: &Scope<'_>,
    change: &Change<'_>,
    mut said: Object,
    pools: &tree::Pools,
) -> Result<String, Fault> {
    check_quota(scope, &LISTENER, change.project(), 1)?;
    if let Some(pool) = said.take_object("default_pool") {
        said.set("default_pool_id", pools.find(&pool)?);
    }
    let policies = said.take_objects("l7policies");
    let limits = said.take_objects("rate_limit_policies");
    if limits.len() > RateLimitPolicy::MAX_POLICIES {
        let most = RateLimitPolicy::MAX_POLICIES;
        return Err(Fault::validation(format_args!("A listener has at most {most} rate limit policies.")));
    }
    let protocol = said.str("protocol").to_owned();
    tls::fill(scope, &LISTENER, &mut said, protocol == "TERMINATED_HTTPS");
    if let Some(pool) = said.text("default_pool_id") {
        pool_for(scope, change.id(), &protocol, pool)?;
    }
    if !policies.is_empty() {
        may_have_children(&protocol)?;
    }
    validate(scope, change, &said, None)?;
    said.set("loadbalancer_id", change.id());
    let listener = change.create(&LISTENER, said)?;
    for policy in policies {
        super::l7policies::create(scope, change, &listener, policy, pools)?;
    }
    for policy in limits {
        super::rate_limits::create(scope, change, &listener, policy)?;
    }
    Ok(listener.id().to_owned())
}

pub(in crate::serve::api) fn put(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let said = scope.body(resource, Body::Put)?;
    let listener = own(scope, resource, names)?;
    is_alive(resource, &listener)?;
    let change = Change::begin(scope, listener.str("loadbalancer_id"))?;
    validate(scope, &change, &said, Some(&listener))?;
    let changes = scope.changes(resource, said);
    if let Some(pool) = changes.text("default_pool_id") {
        pool_for(scope, change.id(), listener.str("protocol"), pool)?;
    }
    updated(scope, &change, resource, listener.id(), &changes)
}

pub(in crate::serve::api) fn delete(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.request.only(&[])?;
    let listener = own(scope, resource, names)?;
    let begin = || Change::begin(scope, listener.str("loadbalancer_id"));
    deleted(resource, &listener, None, begin, |_| Ok(()))
}

/// The protocol of the transport.
fn transport(protocol: &str) -> &str {
    if matches!(protocol, "UDP" | "SCTP") { protocol } else { "TCP" }
}

/// Refuses a port that another listener has.
fn is_free(scope: &Scope<'_>, change: &Change<'_>, protocol: &str, port: i64) -> Result<(), Fault> {
    let condition =
        "load_balancer_id = ?1 AND protocol_port = ?2 AND provisioning_status <> 'PENDING_DELETE'";
    let others = LISTENER.all(scope.t, condition, &[&change.id(), &port])?;
    match others.iter().find(|other| transport(other.str("protocol")) == transport(protocol)) {
        None => Ok(()),
        Some(other) => Err(Fault::new(
            409,
            format!(
                "Another Listener on this Load Balancer is already using protocol {} and protocol_port {port}",
                other.str("protocol")
            ),
        )),
    }
}

/// What a listener cannot be. `old` is the one that is there already; then `said` has what changes.
fn validate(
    scope: &Scope<'_>,
    change: &Change<'_>,
    said: &Object,
    old: Option<&Object>,
) -> Result<(), Fault> {
    let api = &scope.config.api;
    let protocol = old.unwrap_or(said).str("protocol");
    let has_refs =
        said.text("default_tls_container_ref").is_some() || !said.list("sni_container_refs").is_empty();
    let terminates = protocol == "TERMINATED_HTTPS" || (protocol == "PROMETHEUS" && has_refs);
    let with_tls = if protocol == "PROMETHEUS" { "PROMETHEUS with TLS" } else { protocol };
    let headers: Vec<&str> = said
        .get("insert_headers")
        .and_then(serde_json::Value::as_object)
        .map(|map| map.keys().map(String::as_str).collect())
        .unwrap_or_default();
    if old.is_none() {
        insert_headers(protocol, &headers, true)?;
    }
    if matches!(protocol, "UDP" | "SCTP") && (has_refs || !headers.is_empty()) {
        let what = if old.is_some() { "TLS or header insertion" } else { "TLS" };
        return Err(Fault::validation(format_args!("{protocol} protocol listener does not support {what}.")));
    }
    if old.is_none() && terminates && !api.tls_terminated_listeners {
        return Err(Fault::disabled("protocol", with_tls));
    }
    if old.is_none() && protocol == "PROMETHEUS" && !api.prometheus_listeners {
        return Err(Fault::disabled("protocol", protocol));
    }
    if !terminates && has_refs {
        return Err(Fault::validation(format_args!(
            "Certificate container references are not allowed on {protocol} protocol listeners."
        )));
    }
    let client_ca = said.text("client_ca_tls_container_ref");
    if old.is_none() && client_ca.is_some() && !has_refs {
        return Err(Fault::validation(
            "An SNI or default certificate container reference must be provided with a client CA container \
             reference.",
        ));
    }
    if old.is_none() && terminates && !has_refs {
        return Err(Fault::validation(format_args!(
            "An SNI or default certificate container reference must be provided for {with_tls} protocol listeners."
        )));
    }
    let after = |name| if said.has(name) { said.text(name) } else { old.and_then(|old| old.text(name)) };
    let client_ca = client_ca.or_else(|| after("client_ca_tls_container_ref"));
    let authentication = said.text("client_authentication").unwrap_or("NONE");
    if authentication != "NONE" && client_ca.is_none() {
        return Err(Fault::validation(format_args!(
            "Client authentication setting {authentication} requires a client CA container reference."
        )));
    }
    if after("client_crl_container_ref").is_some() && client_ca.is_none() {
        return Err(Fault::validation(
            "A client authentication CA reference is required to specify a client authentication revocation \
             list.",
        ));
    }
    insert_headers(protocol, &headers, old.is_none())?;
    tls::ciphers(scope, said)?;
    let (crl, own) = ("client_crl_container_ref", said.texts("sni_container_refs").into_iter());
    let mut references: Vec<_> = own.map(|reference| (reference, Kind::Identity)).collect();
    for (name, kind) in [
        ("default_tls_container_ref", Kind::Identity),
        ("client_ca_tls_container_ref", Kind::Authorities),
        (crl, Kind::Revocations),
    ] {
        references.extend(said.text(name).map(|reference| (reference, kind)));
    }
    let project = change.project();
    tls::are_usable(scope, project, &references)?;
    if said.has("client_ca_tls_container_ref") || said.has(crl) {
        tls::revocations_fit(scope, project, client_ca, after(crl))?;
    }
    if old.is_none() {
        is_free(scope, change, protocol, said.integer("protocol_port").unwrap_or_default())?;
    }
    cidrs(change, &said.texts("allowed_cidrs"))?;
    if terminates || old.is_some() {
        tls::versions_and_protocols(scope, said)?;
    }
    hsts(protocol, said, old)
}

fn insert_headers(protocol: &str, headers: &[&str], is_new: bool) -> Result<(), Fault> {
    if headers.is_empty() {
        return Ok(());
    }
    if !matches!(protocol, "HTTP" | "TERMINATED_HTTPS") {
        return Err(Fault::option("insert-headers", format_args!("a {protocol} protocol listener.")));
    }
    let shown = |headers: Vec<&str>| python(&json!(headers));
    if !headers.iter().all(|header| HEADERS.contains(header) || TLS_HEADERS.contains(header)) {
        let shown = shown(headers.to_vec());
        let shown = if is_new { format!("dict_keys({shown})") } else { shown };
        return Err(Fault::option(shown, "insert_headers"));
    }
    let of_tls: Vec<_> = headers.iter().copied().filter(|header| TLS_HEADERS.contains(header)).collect();
    if protocol != "TERMINATED_HTTPS" && !of_tls.is_empty() {
        return Err(Fault::option(shown(of_tls), format_args!("{protocol} protocol listener.")));
    }
    Ok(())
}

fn cidrs(change: &Change<'_>, cidrs: &[&str]) -> Result<(), Fault> {
    let balancer = &change.load_balancer;
    if !cidrs.is_empty() && !balancer.list("vip_sg_ids").is_empty() {
        return Err(Fault::validation(
            "Allowed CIDRs are not allowed when using custom VIP Security Groups.",
        ));
    }
    let additional =
        balancer.list("additional_vips").iter().filter_map(|vip| vip.get("ip_address")?.as_str());
    let vips: Vec<_> = std::iter::once(balancer.str("vip_address")).chain(additional).collect();
    let is_v6 = |address: &str| address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
    for cidr in cidrs {
        if !vips.iter().any(|vip| is_v6(vip) == cidr.contains(':')) {
            return Err(Fault::validation(format_args!(
                "CIDR {cidr} IP version incompatible with all VIPs {} IP version.",
                python(&json!(vips))
            )));
        }
    }
    Ok(())
}

fn hsts(protocol: &str, said: &Object, old: Option<&Object>) -> Result<(), Fault> {
    let age = said.integer("hsts_max_age");
    let set = age.or_else(|| old.and_then(|old| old.integer("hsts_max_age"))).is_some();
    if (said.is("hsts_include_subdomains") || said.is("hsts_preload")) && !set {
        return Err(Fault::validation(if old.is_some() {
            "Cannot enable hsts_include_subdomains or hsts_preload if hsts_max_age was not set as well."
        } else {
            "HSTS configuration options hsts_include_subdomains and hsts_preload only make sense if \
             hsts_max_age is set as well."
        }));
    }
    if age.is_some() && protocol != "TERMINATED_HTTPS" {
        return Err(Fault::validation(
            "The HSTS feature can only be used for listeners using the TERMINATED_HTTPS protocol.",
        ));
    }
    Ok(())
}
