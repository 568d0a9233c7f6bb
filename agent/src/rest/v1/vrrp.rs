//! `vrrp/upload`, `vrrp/start`, `vrrp/stop`, `vrrp/reload`: keepalived.conf, taken up by `start` and `reload`.

use std::sync::Arc;

use amphora_vrrp::config::keepalived;
use bytes::Bytes;
use hyper::StatusCode;

use super::{
    answer::{Answer, Refused, done, done_so, tagged},
    md5,
};
use crate::{
    change_error::ChangeError,
    rest::{api::Api, server::Caller},
    vrrp::Vrrp,
    vrrp_client::VrrpAction,
};

/// `PUT vrrp/upload`: read whole, and kept for the next `start` or `reload`.
pub(super) async fn upload(api: &Api, content: Bytes, caller: &Caller) -> Result<Answer, Refused> {
    let refused = |details: String| Refused::because(StatusCode::BAD_REQUEST, "Invalid request", details);
    let text = str::from_utf8(&content).map_err(|_| refused("keepalived.conf is not UTF-8".to_owned()))?;
    keepalived::parse(text).map_err(|refusal| refused(refusal.to_string()))?;
    let tag = md5(&content);
    let vrrp = Arc::clone(&api.vrrp);
    api.changes.vrrp.run(caller, async move { vrrp.upload(content).await }).await?;
    api.metrics.changes.inc();
    tracing::info!("keepalived.conf was uploaded");
    Ok(tagged(done(StatusCode::OK), &tag))
}

/// `PUT vrrp/<action>`.
pub(super) async fn act(api: &Api, action: &str, caller: &Caller) -> Result<Answer, Refused> {
    let action = action.to_lowercase();
    let vrrp = Arc::clone(&api.vrrp);
    let turns = &api.changes.vrrp;
    let done = match action.as_str() {
        "start" => turns.run(caller, async move { start(&vrrp).await }).await,
        "stop" => {
            turns
                .run(caller, async move { vrrp.act(VrrpAction::Stop).await.map(|_| "keepalived stoped") })
                .await
        }
        "reload" => turns.run(caller, async move { reload(&vrrp).await }).await,
        _ => return Err(Refused::unknown_action(&action)),
    };
    let details = done.map_err(|error| {
        let refused = Refused::under(format!("Failed to {action} octavia-keepalived service"), error);
        // As of a unit that there is not; 404 would say that there is no such path.
        refused.unless_not_found()
    })?;
    api.metrics.changes.inc();
    tracing::info!(action, "the VRRP daemon did as Octavia told it");
    Ok(done_so(StatusCode::ACCEPTED, details))
}

/// What runs already is reloaded.
async fn start(vrrp: &Arc<Vrrp>) -> Result<&'static str, ChangeError> {
    let ran = vrrp.is_configured() && vrrp.daemon().status().await.is_ok_and(|status| status.started);
    vrrp.take_up().await?;
    vrrp.act(VrrpAction::Start).await?;
    Ok(if ran { "keepalived reloaded" } else { "keepalived started" })
}

async fn reload(vrrp: &Arc<Vrrp>) -> Result<&'static str, ChangeError> {
    if !vrrp.is_configured() {
        return Err(ChangeError::NoVrrp);
    }
    if !vrrp.daemon().status().await?.started {
        return Err(ChangeError::VrrpStopped);
    }
    vrrp.take_up().await?;
    Ok("keepalived reloaded")
}
