//! `listeners/<amphora>/<id>/udp_listener`, `listeners/<id>/udp_listener`, and what is done with such a listener: each has a text of its own.

use std::sync::Arc;

use amphora_model::ListenerId;
use bytes::Bytes;
use hyper::StatusCode;

use super::{
    answer::{Answer, Refused, body_of, done, done_so, tagged},
    loadbalancer::vips,
    md5,
};
use crate::{
    change_error::ChangeError,
    rest::{api::Api, server::Caller},
};

/// `PUT listeners/<amphora>/<id>/udp_listener`.
pub(super) async fn upload(api: &Api, id: &str, content: Bytes, caller: &Caller) -> Result<Answer, Refused> {
    const REFUSED: &str = "Invalid request";
    let id: ListenerId = id
        .parse()
        .map_err(|_| Refused::because(StatusCode::BAD_REQUEST, REFUSED, "the listener's id is not a UUID"))?;
    let (amphora, vips, tag) = (Arc::clone(&api.amphora), vips(api).await, md5(&content));
    let change = async move { amphora.put_datagrams(id, content, vips).await };
    let uploaded = api.changes.load_balancer.run(caller, change).await;
    uploaded.map_err(|error| Refused::under(REFUSED, error))?;
    api.metrics.changes.inc();
    tracing::info!(%id, "the text of a listener of datagrams was uploaded");
    Ok(tagged(done(StatusCode::OK), &tag))
}

/// `GET listeners/<id>/udp_listener`.
pub(super) async fn text(api: &Api, id: &str) -> Result<Answer, Refused> {
    let listener = named(api, id).ok_or_else(|| not_found(id))?;
    match api.amphora.datagrams_text(listener).await {
        Ok(text) => Ok(body_of("text/plain; charset=UTF-8", text.into())),
        Err(ChangeError::NoLoadBalancer) => Err(not_found(id)),
        Err(error) => Err(error.into()),
    }
}

/// The listener of datagrams of this id.
pub(super) fn named(api: &Api, id: &str) -> Option<ListenerId> {
    id.parse().ok().filter(|id| api.amphora.has_datagrams(*id))
}

/// `PUT loadbalancer/<id>/<action>` of a listener, with an action that there is. What does not run is started by `reload`, too.
pub(super) async fn act(api: &Api, id: ListenerId, action: &str, caller: &Caller) -> Result<Answer, Refused> {
    let (amphora, vips, stops) = (Arc::clone(&api.amphora), vips(api).await, action == "stop");
    let change = async move {
        let outcome = match stops {
            true => amphora.stop_datagrams(id).await,
            false => amphora.start_datagrams(id, vips).await.map(drop),
        };
        // It may have been deleted meanwhile.
        match outcome {
            Err(ChangeError::NoLoadBalancer) => Ok(false),
            outcome => outcome.map(|()| true),
        }
    };
    let (action, done) = match action {
        "stop" => ("stop", "stoped"),
        "start" => ("start", "started"),
        // Octavia's own agent restarts it.
        _ => ("restart", "restarted"),
    };
    match api.changes.load_balancer.run(caller, change).await {
        Ok(true) => {}
        Ok(false) => return Err(not_found(&id.to_string())),
        Err(error) => {
            return Err(Refused::under(format!("Failed to {action} keepalivedlvs listener {id}"), error));
        }
    }
    if !stops {
        api.plumbing.announce_vips();
    }
    api.metrics.changes.inc();
    tracing::info!(%id, action, "Octavia had something done with a listener of datagrams");
    Ok(done_so(StatusCode::ACCEPTED, format!("keepalivedlvs listener {id} {done}")))
}

/// `DELETE listeners/<id>` of a listener.
pub(super) async fn delete(api: &Api, id: ListenerId, caller: &Caller) -> Result<Answer, Refused> {
    let amphora = Arc::clone(&api.amphora);
    let change = async move { amphora.delete_datagrams(id).await };
    let deleted = api.changes.load_balancer.run(caller, change).await;
    deleted.map_err(|error| Refused::under("Error stopping keepalivedlvs", error))?;
    api.metrics.changes.inc();
    tracing::info!(%id, "Octavia had a listener of datagrams deleted");
    Ok(done(StatusCode::OK))
}

fn not_found(id: &str) -> Refused {
    let details = format!("No UDP listener with UUID: {id}");
    Refused::because(StatusCode::NOT_FOUND, "UDP Listener Not Found", details)
}
