//! The canonical document of a model: every field spelled out, every pool under `pools`, references by id.

use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

use super::{edits, member_options, routing};
use crate::{
    HealthCheck, HealthMonitor, HttpCheck, HttpVersion, InsertHeaders, L7Action, L7Policy, L7Rule, Listener,
    ListenerTls, LoadBalancer, Member, Pool, PoolTls, SessionPersistence, SourceNetwork, TlsSettings,
};

impl LoadBalancer {
    /// The document that [`from_value`](Self::from_value) makes this of.
    pub fn to_json(&self) -> Value {
        let mut vips = self.vips.iter().map(|vip| vip.address.to_string());
        let mut document = json!({
            "id": self.id,
            "name": self.name,
            "admin_state_up": self.admin_state_up,
            "vip_address": vips.next(),
            "listeners": self.listeners.iter().map(listener).collect::<Value>(),
            "pools": self.pools.iter().map(pool).collect::<Value>(),
        });
        let additional: Vec<Value> = vips.map(|address| json!({ "ip_address": address })).collect();
        if !additional.is_empty() {
            document["additional_vips"] = additional.into();
        }
        json!({ "loadbalancer": document })
    }
}

fn listener(listener: &Listener) -> Value {
    let timeouts = &listener.timeouts;
    let millis = |timeout: std::time::Duration| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let mut document = json!({
        "id": listener.id,
        "name": listener.name,
        "admin_state_up": listener.admin_state_up,
        "protocol": listener.protocol.as_str(),
        "protocol_port": listener.port,
        "connection_limit": listener.connection_limit.map_or(-1, i64::from),
        "timeout_client_data": millis(timeouts.client_data),
        "timeout_member_connect": millis(timeouts.member_connect),
        "timeout_member_data": millis(timeouts.member_data),
        "timeout_tcp_inspect": millis(timeouts.tcp_inspect),
    });
    if let Some(pool) = listener.default_pool {
        document["default_pool_id"] = json!(pool);
    }
    if let Some(tls) = &listener.tls {
        listener_tls(&mut document, tls);
    }
    if let Some(log) = &listener.flow_log {
        document["amphora"] = json!({
            "connection_logging": true,
            "user_log_format": log.format,
            "user_log_facility": log.facility,
        });
    }
    if let Some(limit) = listener.member_connection_limit {
        document["amphora"]["member_connection_limit"] = limit.into();
    }
    if let Some(trusted) = &listener.trusted_proxies {
        document["amphora"]["trusted_proxies"] = trusted.networks.iter().map(ToString::to_string).collect();
        document["amphora"]["client_address_header"] = trusted.header.as_str().into();
    }
    if !listener.rate_limit_policies.is_empty() {
        document["rate_limit_policies"] =
            listener.rate_limit_policies.iter().map(super::rate_limit::write).collect();
    }
    routing::write(&mut document, &listener.routing);
    let headers = insert_headers(listener.insert_headers);
    if !headers.is_empty() {
        document["insert_headers"] = headers.into();
    }
    if !listener.allowed_cidrs.is_empty() {
        document["allowed_cidrs"] = listener.allowed_cidrs.iter().map(ToString::to_string).collect();
    }
    if !listener.l7policies.is_empty() {
        document["l7policies"] = listener.l7policies.iter().map(l7policy).collect();
    }
    document
}

fn listener_tls(document: &mut Value, tls: &ListenerTls) {
    document["default_tls_container_ref"] = tls.certificate.as_str().into();
    if !tls.sni_certificates.is_empty() {
        document["sni_container_refs"] = tls.sni_certificates.iter().map(|id| id.as_str()).collect();
    }
    if let Some(authentication) = &tls.client_authentication {
        document["client_authentication"] =
            if authentication.mandatory { "MANDATORY" } else { "OPTIONAL" }.into();
        document["client_ca_tls_container_ref"] = authentication.authorities.as_str().into();
        if let Some(id) = &authentication.revocations {
            document["client_crl_container_ref"] = id.as_str().into();
        }
    }
    tls_settings(document, &tls.settings);
    if let Some(hsts) = &tls.hsts {
        document["hsts_max_age"] = hsts.max_age.into();
        document["hsts_include_subdomains"] = hsts.include_subdomains.into();
        document["hsts_preload"] = hsts.preload.into();
    }
}

fn pool_tls(document: &mut Value, tls: &PoolTls) {
    document["tls_enabled"] = true.into();
    let references = [
        ("ca_tls_container_ref", &tls.authorities),
        ("crl_container_ref", &tls.revocations),
        ("tls_container_ref", &tls.client_certificate),
    ];
    for (name, id) in references {
        if let Some(id) = id {
            document[name] = id.as_str().into();
        }
    }
    tls_settings(document, &tls.settings);
}

fn tls_settings(document: &mut Value, settings: &TlsSettings) {
    document["tls_versions"] = settings.versions.iter().map(|version| version.as_str()).collect();
    document["alpn_protocols"] = settings.alpn.iter().map(|protocol| protocol.as_str()).collect();
    if let Some(ciphers) = &settings.ciphers {
        document["tls_ciphers"] = json!(ciphers);
    }
}

fn insert_headers(headers: InsertHeaders) -> Map<String, Value> {
    [
        ("X-Forwarded-For", headers.x_forwarded_for),
        ("X-Forwarded-Port", headers.x_forwarded_port),
        ("X-Forwarded-Proto", headers.x_forwarded_proto),
        ("X-SSL-Client-Verify", headers.ssl.client_verify),
        ("X-SSL-Client-Has-Cert", headers.ssl.client_has_cert),
        ("X-SSL-Client-DN", headers.ssl.client_dn),
        ("X-SSL-Client-CN", headers.ssl.client_cn),
        ("X-SSL-Issuer", headers.ssl.issuer),
        ("X-SSL-Client-SHA1", headers.ssl.client_sha1),
        ("X-SSL-Client-Not-Before", headers.ssl.client_not_before),
        ("X-SSL-Client-Not-After", headers.ssl.client_not_after),
    ]
    .into_iter()
    .filter(|(_, on)| *on)
    .map(|(name, _)| (name.to_owned(), "true".into()))
    .collect()
}

fn pool(pool: &Pool) -> Value {
    let mut document = json!({
        "id": pool.id,
        "name": pool.name,
        "admin_state_up": pool.admin_state_up,
        "protocol": pool.protocol.as_str(),
        "lb_algorithm": pool.lb_algorithm.as_str(),
        "members": pool.members.iter().map(member).collect::<Value>(),
    });
    if let Some(tls) = &pool.tls {
        pool_tls(&mut document, tls);
    }
    if let Some(persistence) = &pool.session_persistence {
        document["session_persistence"] = match persistence {
            SessionPersistence::SourceIp => json!({ "type": "SOURCE_IP" }),
            SessionPersistence::SourceNetwork(network) => source_network(*network),
            SessionPersistence::HttpCookie => json!({ "type": "HTTP_COOKIE" }),
            SessionPersistence::AppCookie { cookie_name } => {
                json!({ "type": "APP_COOKIE", "cookie_name": cookie_name })
            }
        };
    }
    if let Some(monitor) = &pool.health_monitor {
        document["healthmonitor"] = health_monitor(monitor);
    }
    if let Some(amphora) = member_options::write(&pool.member_options) {
        document["amphora"] = amphora;
    }
    document
}

/// A document has one granularity: that of the family that has one.
fn source_network(network: SourceNetwork) -> Value {
    let mut document = json!({ "type": "SOURCE_IP", "persistence_timeout": network.timeout.as_secs() });
    if network.v4_prefix != SourceNetwork::default().v4_prefix {
        let bits = u32::MAX.checked_shl(32 - u32::from(network.v4_prefix)).unwrap_or(0);
        document["persistence_granularity"] = json!(Ipv4Addr::from(bits));
    } else if network.v6_prefix != SourceNetwork::default().v6_prefix {
        document["persistence_granularity"] = json!(network.v6_prefix.to_string());
    }
    document
}

fn member(member: &Member) -> Value {
    let mut document = json!({
        "id": member.id,
        "name": member.name,
        "admin_state_up": member.admin_state_up,
        "address": member.address,
        "protocol_port": member.port,
        "weight": member.weight,
        "backup": member.backup,
    });
    if let Some(address) = member.monitor_address {
        document["monitor_address"] = json!(address);
    }
    if let Some(port) = member.monitor_port {
        document["monitor_port"] = json!(port);
    }
    document
}

fn health_monitor(monitor: &HealthMonitor) -> Value {
    let mut document = json!({
        "id": monitor.id,
        "name": monitor.name,
        "admin_state_up": monitor.admin_state_up,
        "delay": monitor.delay.as_secs(),
        "timeout": monitor.timeout.as_secs(),
        "max_retries": monitor.max_retries,
        "max_retries_down": monitor.max_retries_down,
    });
    let (kind, http) = match &monitor.check {
        HealthCheck::Http(http) => ("HTTP", Some(http)),
        HealthCheck::Https(http) => ("HTTPS", Some(http)),
        HealthCheck::Tcp => ("TCP", None),
        HealthCheck::TlsHello => ("TLS-HELLO", None),
        HealthCheck::Ping => ("PING", None),
        HealthCheck::UdpConnect => ("UDP-CONNECT", None),
        HealthCheck::Sctp => ("SCTP", None),
    };
    document["type"] = kind.into();
    if let Some(HttpCheck { method, url_path, version, domain_name, expected_codes }) = http {
        document["http_method"] = method.as_str().into();
        document["url_path"] = url_path.as_str().into();
        document["http_version"] = match version {
            HttpVersion::Http10 => 1.0.into(),
            HttpVersion::Http11 => 1.1.into(),
        };
        if let Some(name) = domain_name {
            document["domain_name"] = name.as_str().into();
        }
        let codes = expected_codes.iter().map(|(low, high)| match low == high {
            true => low.to_string(),
            false => format!("{low}-{high}"),
        });
        document["expected_codes"] = codes.collect::<Vec<_>>().join(",").into();
    }
    document
}

fn l7policy(policy: &L7Policy) -> Value {
    let mut document = json!({
        "id": policy.id,
        "name": policy.name,
        "admin_state_up": policy.admin_state_up,
        "position": policy.position,
        "rules": policy.rules.iter().map(l7rule).collect::<Value>(),
    });
    if let Some(edits) = &policy.edits {
        document["amphora"]["edits"] = edits::write_edits(edits);
    }
    let action = match &policy.action {
        L7Action::Reject => "REJECT",
        L7Action::RedirectToUrl { url, code } => {
            document["redirect_url"] = url.as_str().into();
            document["redirect_http_code"] = code.code().into();
            "REDIRECT_TO_URL"
        }
        L7Action::RedirectPrefix { prefix, code } => {
            document["redirect_prefix"] = prefix.as_str().into();
            document["redirect_http_code"] = code.code().into();
            "REDIRECT_PREFIX"
        }
        L7Action::RedirectToPool(pool) => {
            document["redirect_pool_id"] = json!(pool);
            "REDIRECT_TO_POOL"
        }
        L7Action::RedirectToPools(pools) => {
            routing::write_pools(&mut document["amphora"], "redirect_pools", pools);
            "REDIRECT_TO_POOL"
        }
        L7Action::Edit => {
            document["amphora"]["action"] = "EDIT".into();
            return document;
        }
        L7Action::Answer(answer) => {
            document["amphora"]["action"] = "ANSWER".into();
            document["amphora"]["answer"] = edits::write_answer(answer);
            return document;
        }
    };
    document["action"] = action.into();
    document
}

fn l7rule(rule: &L7Rule) -> Value {
    let (kind, key) = rule.subject.type_and_key();
    let mut document = json!({
        "id": rule.id,
        "admin_state_up": rule.admin_state_up,
        "invert": rule.invert,
        "type": kind,
        "compare_type": rule.compare.as_str(),
        "value": rule.value,
    });
    if let Some(key) = key {
        document["key"] = key.into();
    }
    document
}
