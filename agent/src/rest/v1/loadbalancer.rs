//! `loadbalancer/<amphora>/<id>/haproxy`, `loadbalancer/<id>/{haproxy,start,stop,reload}`, `listeners`.

use std::{net::IpAddr, sync::Arc};

use amphora_model::LoadBalancerId;
use bytes::Bytes;
use hyper::StatusCode;
use serde_json::json;

use super::{
    answer::{Answer, Refused, body_of, done, done_so, json, tagged},
    datagrams, md5,
};
use crate::{
    change_error::ChangeError,
    rest::{api::Api, server::Caller},
};

/// `GET listeners`.
pub(super) fn listeners(api: &Api) -> Answer {
    let listeners: Vec<_> = api
        .amphora
        .listeners()
        .into_iter()
        .map(|listener| {
            let status = if listener.runs { "ACTIVE" } else { "OFFLINE" };
            json!({ "status": status, "uuid": listener.id, "type": listener.kind })
        })
        .collect();
    json(StatusCode::OK, &listeners)
}

/// `PUT loadbalancer/<amphora>/<id>/haproxy`.
pub(super) async fn upload(api: &Api, id: &str, content: Bytes, caller: &Caller) -> Result<Answer, Refused> {
    const REFUSED: &str = "Invalid request";
    let id: LoadBalancerId = id.parse().map_err(|_| {
        Refused::because(StatusCode::BAD_REQUEST, REFUSED, "the load balancer's id is not a UUID")
    })?;
    let (amphora, vips, tag) = (Arc::clone(&api.amphora), vips(api).await, md5(&content));
    let change = async move { amphora.put_text(id, content, vips).await };
    let uploaded = api.changes.load_balancer.run(caller, change).await;
    uploaded.map_err(|error| Refused::under(REFUSED, error))?;
    api.metrics.changes.inc();
    tracing::info!(%id, "the text of a load balancer was uploaded");
    Ok(tagged(done(StatusCode::ACCEPTED), &tag))
}

/// `GET loadbalancer/<id>/haproxy`.
pub(super) async fn text(api: &Api, id: &str) -> Result<Answer, Refused> {
    let parsed: LoadBalancerId = id.parse().map_err(|_| not_found(id))?;
    match api.amphora.text(parsed).await {
        Ok(text) => {
            let tag = md5(&text);
            Ok(tagged(body_of("text/plain; charset=UTF-8", text.into()), &tag))
        }
        Err(ChangeError::NoLoadBalancer) => Err(not_found(id)),
        Err(error) => Err(error.into()),
    }
}

/// `PUT loadbalancer/<id>/<action>`. What does not run is started by `reload`, too.
pub(super) async fn act(api: &Api, id: &str, action: &str, caller: &Caller) -> Result<Answer, Refused> {
    let action = action.to_lowercase();
    if !matches!(action.as_str(), "start" | "stop" | "reload") {
        return Err(Refused::unknown_action(&action));
    }
    if let Some(listener) = datagrams::named(api, id) {
        return datagrams::act(api, listener, &action, caller).await;
    }
    let parsed: LoadBalancerId = id.parse().map_err(|_| not_found(id))?;
    let (amphora, vips, stops) = (Arc::clone(&api.amphora), vips(api).await, action == "stop");
    let change = async move {
        let outcome = match stops {
            true => amphora.stop(parsed).await.map(|()| None),
            false => amphora.start(parsed, vips).await.map(Some),
        };
        // Told apart from a document that names what is not there.
        match outcome {
            Err(ChangeError::NoLoadBalancer) => Ok(None),
            outcome => outcome.map(Some),
        }
    };
    let outcome = api.changes.load_balancer.run(caller, change).await;
    let outcome = outcome.map_err(|error| Refused::under(format!("Error {action}ing haproxy"), error))?;
    let started = outcome.ok_or_else(|| not_found(id))?;
    api.metrics.changes.inc();
    tracing::info!(id, action, "Octavia had something done with the load balancer");
    if started.is_some() {
        api.plumbing.announce_vips();
    }
    let details = match started {
        None => format!("Listener {id} stoped"),
        Some(started) if started.ran && action == "reload" => format!("Listener {id} reloaded"),
        Some(_) => format!("Configuration file is valid\nhaproxy daemon for {id} started"),
    };
    Ok(done_so(StatusCode::ACCEPTED, details))
}

/// `DELETE listeners/<id>`: of a load balancer, whose listeners go with its next text, or of a listener of datagrams.
pub(super) async fn delete(api: &Api, id: &str, caller: &Caller) -> Result<Answer, Refused> {
    if let Some(listener) = datagrams::named(api, id) {
        return datagrams::delete(api, listener, caller).await;
    }
    // What has no such id is none that there is.
    if let Ok(id) = id.parse::<LoadBalancerId>() {
        let amphora = Arc::clone(&api.amphora);
        let change = async move { amphora.delete_text(id).await };
        let deleted = api.changes.load_balancer.run(caller, change).await;
        deleted.map_err(|error| Refused::under("Error stopping haproxy", error))?;
        api.metrics.changes.inc();
        tracing::info!(%id, "Octavia had a load balancer or a listener deleted");
    }
    Ok(done(StatusCode::OK))
}

fn not_found(id: &str) -> Refused {
    let details = format!("No loadbalancer with UUID: {id}");
    Refused::because(StatusCode::NOT_FOUND, "Loadbalancer Not Found", details)
}

/// The addresses of the load balancer, as they are plugged.
pub(super) async fn vips(api: &Api) -> Vec<IpAddr> {
    let plugged = api.plumbing.plugged().await;
    let ports = plugged.iter().filter_map(|plugged| plugged.port.vip.as_ref());
    ports.flat_map(|port| port.vips.iter().map(|vip| vip.address)).collect()
}
