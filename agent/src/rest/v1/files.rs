//! `loadbalancer/<id>/certificates/<name>`: what a text will name, kept as it came and told by its MD5.

use std::sync::Arc;

use amphora_model::LoadBalancerId;
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::json;

use super::{
    answer::{Answer, Refused, done, json, tagged},
    md5,
};
use crate::{
    rest::{api::Api, server::Caller},
    store::FileName,
};

/// What is in a file is not looked at before a text names it: crt-lists come here, too. A file that goes is missed by the next
/// text alone, for what runs has its own.
pub(super) async fn answer(
    api: &Api,
    method: &Method,
    id: &str,
    name: &str,
    content: Bytes,
    caller: &Caller,
) -> Result<Answer, Refused> {
    let wrong = |message: &str| Refused::said(StatusCode::BAD_REQUEST, message);
    let file = FileName::new(name).ok_or_else(|| wrong("Filename has wrong format"))?;
    let id: LoadBalancerId = id.parse().map_err(|_| wrong("the load balancer's id is not a UUID"))?;
    let amphora = Arc::clone(&api.amphora);
    match *method {
        Method::PUT => {
            let tag = md5(&content);
            let change = async move { amphora.put_upload(id, file, content).await };
            api.changes.load_balancer.run(caller, change).await?;
            api.metrics.changes.inc();
            Ok(tagged(done(StatusCode::OK), &tag))
        }
        Method::DELETE => {
            let change = async move { amphora.delete_upload(id, file).await };
            api.changes.load_balancer.run(caller, change).await?;
            api.metrics.changes.inc();
            Ok(done(StatusCode::OK))
        }
        _ => match amphora.upload(id, file).await? {
            Some(content) => {
                let tag = md5(&content);
                Ok(tagged(json(StatusCode::OK, &json!({ "md5sum": tag })), &tag))
            }
            None => {
                let details = format!("No certificate with filename: {name}");
                Err(Refused::because(StatusCode::NOT_FOUND, "Certificate Not Found", details))
            }
        },
    }
}
