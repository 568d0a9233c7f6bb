//! The API that Octavia's controller speaks to an amphora, `/1.0`, beside the native one and over the same store: what comes by one is
//! seen, and not overwritten, by the other.
//!
//! | module | what |
//! | --- | --- |
//! | `route` | paths and methods |
//! | `answer` | the shapes of answers and errors |
//! | `info` | `info`, `details` |
//! | `plug` | `plug/vip`, `plug/network`, `interface` |
//! | `loadbalancer` | haproxy.cfg, and what is done with it; `listeners` |
//! | `datagrams` | the same of listeners of UDP, each with its own text |
//! | `files` | certificates of load balancers |
//! | `vrrp` | keepalived.conf |
//!
//! Statuses and texts are those of Octavia's own agent, as they were recorded; `docs/agent.md` has the differences.

mod answer;
mod datagrams;
mod files;
mod info;
mod loadbalancer;
mod plug;
mod route;
mod vrrp;

use std::sync::Arc;

use bytes::Bytes;
use hyper::{
    Method, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderMap},
    http::request::Parts,
};
use serde_json::json;

pub(super) use self::route::{fuzz, is_ours};
use self::{
    answer::{Answer, Refused, done, done_so, json, options},
    route::Resource,
};
use super::{
    api::Api,
    body::{self, Limits},
    server::Caller,
    vrrp::MAX_DOCUMENT as MAX_VRRP,
};
use crate::{amphora::wipe, reconfigure::NotReconfigured, tls::NotReplaced};

/// The version that the paths carry.
const API_VERSION: &str = "1.0";

/// The most bytes of what is no load balancer and no certificate.
const MAX_SMALL: usize = 1 << 20;

/// Answers a request to a path that is not the native API's.
///
/// # Errors
/// An answer that is not 2xx.
pub(super) async fn answer(
    api: &Api,
    head: &Parts,
    body: &mut Incoming,
    caller: &Caller,
) -> Result<Answer, Refused> {
    let resource = Resource::parse(head.uri.path()).ok_or_else(Refused::not_found)?;
    let allow = resource.allow();
    if !resource.allows(&head.method) {
        return Err(Refused::method_not_allowed(allow));
    }
    if head.method == Method::OPTIONS {
        return Ok(answer::last(options(allow)));
    }
    let content = if matches!(head.method, Method::PUT | Method::POST) {
        body::read_any(body, limits(api, &resource)).await?
    } else {
        Bytes::new()
    };
    // From here on it is carried out.
    caller.work().map_err(super::ApiError::from)?;
    carry_out(api, head, resource, content, caller).await.map(answer::last)
}

async fn carry_out(
    api: &Api,
    head: &Parts,
    resource: Resource,
    content: Bytes,
    caller: &Caller,
) -> Result<Answer, Refused> {
    let method = &head.method;
    match resource {
        Resource::Discovery => Ok(json(StatusCode::OK, &json!({ "api_version": API_VERSION }))),
        Resource::Info => Ok(json(StatusCode::OK, &info::info())),
        Resource::Details => info::details(api).await,
        Resource::Listeners => Ok(loadbalancer::listeners(api)),
        Resource::Object(id) => loadbalancer::delete(api, &id, caller).await,
        Resource::Upload(id) => loadbalancer::upload(api, &id, content, caller).await,
        Resource::Text(id) if *method != Method::PUT => loadbalancer::text(api, &id).await,
        Resource::Text(id) => loadbalancer::act(api, &id, "haproxy", caller).await,
        Resource::Action(id, action) => loadbalancer::act(api, &id, &action, caller).await,
        Resource::UploadUdp(id) => datagrams::upload(api, &id, content, caller).await,
        Resource::Udp(id) => datagrams::text(api, &id).await,
        Resource::PlugVip(vip) => plug::vip(api, &vip, is_json(&head.headers), &content, caller).await,
        Resource::PlugNetwork => plug::network(api, is_json(&head.headers), &content, caller).await,
        Resource::Interface(ip) => plug::interface(api, &ip).await,
        Resource::Rules(ip) => plug::rules(api, &ip, is_json(&head.headers), &content, caller).await,
        Resource::Certificate(id, name) => files::answer(api, method, &id, &name, content, caller).await,
        Resource::UploadVrrp => vrrp::upload(api, content, caller).await,
        Resource::Vrrp(action) => vrrp::act(api, &action, caller).await,
        Resource::ServerCertificate => server_certificate(api, content).await,
        Resource::Config => config(api, content).await,
    }
}

fn limits(api: &Api, resource: &Resource) -> Limits {
    let size = match resource {
        Resource::Upload(_) | Resource::UploadUdp(_) => api.limits.size,
        Resource::Certificate(..) => amphora_bundle::MAX_BYTES,
        Resource::UploadVrrp => MAX_VRRP,
        _ => MAX_SMALL,
    };
    Limits { size: api.limits.size.min(size), ..api.limits }
}

/// Flask reads as JSON only what is called so.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let kind = essence.strip_prefix("application/");
    kind.is_some_and(|kind| kind == "json" || kind.ends_with("+json"))
}

/// The MD5 that Octavia compares; nothing is protected by it.
fn md5(content: &[u8]) -> String {
    format!("{:x}", md5::compute(content))
}

/// Replaces the agent's own key and certificate.
async fn server_certificate(api: &Api, content: Bytes) -> Result<Answer, Refused> {
    let (tls, id) = (Arc::clone(&api.tls), api.amphora_id.clone());
    let replaced = tokio::task::spawn_blocking(move || {
        let replaced = tls.replace(&content, &id);
        wipe(content);
        replaced
    })
    .await;
    let refused =
        |status, error: String| Refused::because(status, "Unable to replace the certificate.", error);
    match replaced {
        Ok(Ok(())) => {
            api.metrics.changes.inc();
            Ok(done(StatusCode::ACCEPTED))
        }
        Ok(Err(error @ NotReplaced::Unusable(_))) => Err(refused(StatusCode::BAD_REQUEST, error.to_string())),
        Ok(Err(error)) => Err(refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
        Err(error) => Err(refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// Replaces Octavia's file of the agent's configuration.
async fn config(api: &Api, content: Bytes) -> Result<Answer, Refused> {
    match api.reconfigure.replace(content.to_vec()).await {
        Ok(waits) => {
            api.metrics.changes.inc();
            Ok(match waits {
                Some(waits) => done_so(StatusCode::ACCEPTED, waits),
                None => done(StatusCode::ACCEPTED),
            })
        }
        Err(error) => {
            let status = match error {
                NotReconfigured::Faulty(_) | NotReconfigured::Certificates(_) | NotReconfigured::NotText => {
                    StatusCode::BAD_REQUEST
                }
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Err(Refused::because(status, "Unable to update amphora-agent configuration.", error.to_string()))
        }
    }
}
