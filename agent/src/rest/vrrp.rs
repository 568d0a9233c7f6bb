//! What each request to `/2.0/vrrp` does.

use std::sync::Arc;

use amphora_ipc::proxy::{Fault, Refusal};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Response};
use serde_json::{Value, json};

use super::{
    api::{bytes, ok},
    body::{Document, Kind},
    error::ApiError,
    route::VrrpResource,
    server::Caller,
    turns::Turns,
};
use crate::{
    change_error::ChangeError,
    metrics::Metrics,
    vrrp::{Role, Vrrp, is_native},
};

/// The most bytes of a configuration: the daemon reads no larger one.
pub(super) const MAX_DOCUMENT: usize = 1 << 20;

/// Answers a request to one of the resources of VRRP.
pub(super) async fn answer(
    vrrp: &Arc<Vrrp>,
    metrics: &Metrics,
    resource: VrrpResource,
    method: &Method,
    document: Document,
    (turns, caller): (&Turns, &Caller),
) -> Result<Response<Full<Bytes>>, ApiError> {
    match (resource, method) {
        (VrrpResource::Action(action), _) => {
            let status = vrrp.act(action).await?;
            tracing::info!(action = action.as_str(), "the VRRP daemon did as it was told");
            Ok(ok(&status))
        }
        (VrrpResource::Status, _) => match vrrp.daemon().status().await {
            Ok(status) => Ok(ok(&status)),
            Err(error) if error.is_not_running() && !vrrp.is_configured() => Err(ChangeError::NoVrrp.into()),
            Err(error) => Err(error.into()),
        },
        (VrrpResource::Configuration, &Method::PUT) => {
            let Document { kind, content: document } = document;
            if kind == Some(Kind::Json) && !is_native(&document) {
                let reason = "is not a JSON object; keepalived.conf is text/plain".to_owned();
                let fault = Fault { path: String::new(), reason };
                return Err(ChangeError::Invalid(Refusal { faults: vec![fault] }).into());
            }
            let vrrp = vrrp.clone();
            let changed = turns.run(caller, async move { vrrp.put(document).await }).await?;
            metrics.changes.inc();
            tracing::info!(changed = changed.changed, "the VRRP configuration was put");
            Ok(ok(&changed))
        }
        (VrrpResource::Configuration, &Method::DELETE) => {
            let vrrp = vrrp.clone();
            let changed = turns.run(caller, async move { vrrp.delete().await }).await?;
            metrics.changes.inc();
            tracing::info!("the VRRP configuration was deleted");
            Ok(ok(&changed))
        }
        (VrrpResource::Configuration, _) => {
            let document = vrrp.document().await?;
            let kind = if is_native(&document) { "application/json" } else { "text/plain; charset=utf-8" };
            Ok(bytes(kind, document))
        }
    }
}

/// What `GET /2.0/info` says: nothing without VRRP; a role of null when the daemon does not answer.
pub(super) async fn info(vrrp: &Vrrp) -> Value {
    if !vrrp.is_configured() {
        return Value::Null;
    }
    let status = vrrp.daemon().status().await.ok();
    let role = status.as_ref().and_then(Role::of);
    let instances = status.into_iter().flat_map(|status| status.instances);
    let instances: Vec<_> = instances
        .map(
            |instance| json!({"name": instance.name, "state": instance.state, "priority": instance.priority}),
        )
        .collect();
    json!({ "role": role, "instances": instances })
}
