//! The model as the document that Octavia's template and this proxy read.

use amphora_model::{L7Action, L7Policy, L7Rule, L7Subject, Listener, Pool, RedirectCode};
use serde_json::{Value, json};
use uuid::Uuid;

/// A load balancer with these listeners and pools at one address.
pub(crate) fn load_balancer<'a>(
    vip: &str,
    listeners: impl Iterator<Item = &'a Listener>,
    pools: impl Iterator<Item = &'a Pool>,
) -> Value {
    json!({ "loadbalancer": {
        "id": Uuid::from_u128(1).to_string(),
        "vip_address": vip,
        "listeners": listeners.map(listener).collect::<Vec<_>>(),
        "pools": pools.map(pool).collect::<Vec<_>>(),
    }})
}

fn listener(listener: &Listener) -> Value {
    let mut document = json!({
        "id": listener.id.to_string(),
        "protocol": listener.protocol.as_str(),
        "protocol_port": listener.port,
        "insert_headers": {
            "X-Forwarded-For": listener.insert_headers.x_forwarded_for.to_string(),
            "X-Forwarded-Port": listener.insert_headers.x_forwarded_port.to_string(),
            "X-Forwarded-Proto": listener.insert_headers.x_forwarded_proto.to_string(),
        },
        "l7policies": listener.l7policies.iter().map(policy).collect::<Vec<_>>(),
    });
    if let Some(pool) = listener.default_pool {
        document["default_pool_id"] = json!(pool.to_string());
    }
    document
}

fn pool(pool: &Pool) -> Value {
    json!({
        "id": pool.id.to_string(),
        "admin_state_up": pool.admin_state_up,
        "protocol": pool.protocol.as_str(),
        "lb_algorithm": pool.lb_algorithm.as_str(),
        "members": pool.members.iter().map(|member| json!({
            "id": member.id.to_string(),
            "address": member.address.to_string(),
            "protocol_port": member.port,
        })).collect::<Vec<_>>(),
    })
}

fn policy(policy: &L7Policy) -> Value {
    let mut document = json!({
        "id": policy.id.to_string(),
        "admin_state_up": policy.admin_state_up,
        "position": policy.position,
        "rules": policy.rules.iter().map(rule).collect::<Vec<_>>(),
    });
    match &policy.action {
        L7Action::Reject => document["action"] = json!("REJECT"),
        L7Action::RedirectToUrl { url, code } => {
            document["action"] = json!("REDIRECT_TO_URL");
            document["redirect_url"] = json!(url);
            redirect_code(&mut document, *code, policy.position);
        }
        L7Action::RedirectPrefix { prefix, code } => {
            document["action"] = json!("REDIRECT_PREFIX");
            document["redirect_prefix"] = json!(prefix);
            redirect_code(&mut document, *code, policy.position);
        }
        L7Action::RedirectToPool(pool) => {
            document["action"] = json!("REDIRECT_TO_POOL");
            document["redirect_pool_id"] = json!(pool.to_string());
        }
        L7Action::RedirectToPools(_) | L7Action::Edit | L7Action::Answer(_) => {
            unreachable!("Octavia's templates have no such action")
        }
    }
    document
}

/// 302 is what no code means: half of the time none is written.
fn redirect_code(document: &mut Value, code: RedirectCode, position: u32) {
    if code != RedirectCode::Found || position.is_multiple_of(2) {
        document["redirect_http_code"] = json!(code.code());
    }
}

fn rule(rule: &L7Rule) -> Value {
    let (kind, key) = match &rule.subject {
        L7Subject::HostName => ("HOST_NAME", None),
        L7Subject::Path => ("PATH", None),
        L7Subject::FileType => ("FILE_TYPE", None),
        L7Subject::Header(name) => ("HEADER", Some(name)),
        L7Subject::Cookie(name) => ("COOKIE", Some(name)),
        L7Subject::SslConnHasCert => ("SSL_CONN_HAS_CERT", None),
        L7Subject::SslVerifyResult => ("SSL_VERIFY_RESULT", None),
        L7Subject::SslDnField(name) => ("SSL_DN_FIELD", Some(name)),
    };
    let mut document = json!({
        "id": rule.id.to_string(),
        "admin_state_up": rule.admin_state_up,
        "invert": rule.invert,
        "type": kind,
        "compare_type": rule.compare.as_str(),
        "value": rule.value,
    });
    if let Some(key) = key {
        document["key"] = json!(key);
    }
    document
}
