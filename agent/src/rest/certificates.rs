//! What each request to `/2.0/certificates/{certificate_id}` does.

use std::sync::Arc;

use amphora_bundle::Bundle;
use amphora_model::{CertificateId, Refusal};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{HeaderMap, Method, Response};
use zeroize::Zeroizing;

use super::{
    api::ok,
    body::{Document, Kind},
    error::ApiError,
    server::Caller,
    turns::Turns,
};
use crate::{
    amphora::{Amphora, wipe},
    change_error::ChangeError,
    metrics::Metrics,
};

/// The password of a body in PKCS #12, in UTF-8.
const PASSWORD: &str = "x-certificate-password";

/// Answers a request to a certificate. Keys go in, and nothing of them comes out again.
pub(super) async fn answer(
    amphora: &Arc<Amphora>,
    metrics: &Metrics,
    id: CertificateId,
    (method, headers): (&Method, &HeaderMap),
    document: Document,
    (turns, caller): (&Turns, &Caller),
) -> Result<Response<Full<Bytes>>, ApiError> {
    match *method {
        Method::PUT => {
            let password = password(headers, document.kind)?;
            let Document { kind, content } = document;
            let read = move || {
                let bundle = match kind {
                    Some(Kind::Pkcs12) => {
                        Bundle::from_pkcs12(&content, password.as_ref().map(|password| password.as_str()))
                    }
                    _ => Bundle::from_pem(&content),
                };
                wipe(content);
                bundle
            };
            let (amphora, name) = (amphora.clone(), id.clone());
            let change = async move { amphora.put_certificate(name, read).await };
            let changed = turns.run(caller, change).await?;
            metrics.changes.inc();
            tracing::info!(%id, changed.changed, changed.serving, "a certificate was put");
            Ok(ok(&changed))
        }
        Method::DELETE => {
            let (amphora, name) = (amphora.clone(), id.clone());
            turns.run(caller, async move { amphora.delete_certificate(name).await }).await?;
            metrics.changes.inc();
            tracing::info!(%id, "a certificate was deleted");
            Ok(ok(&serde_json::json!({ "changed": true })))
        }
        _ => Ok(ok(&serde_json::json!({ "certificate": amphora.certificate(&id)? }))),
    }
}

fn password(headers: &HeaderMap, kind: Option<Kind>) -> Result<Option<Zeroizing<String>>, ChangeError> {
    let refused = |reason: &str| ChangeError::Invalid(Refusal::one(PASSWORD, reason));
    let mut values = headers.get_all(PASSWORD).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refused("is given twice"));
    }
    if kind != Some(Kind::Pkcs12) {
        return Err(refused("is for application/x-pkcs12; a key in PEM comes without a passphrase"));
    }
    match str::from_utf8(value.as_bytes()) {
        Ok(password) => Ok(Some(password.to_owned().into())),
        Err(_) => Err(refused("is not UTF-8")),
    }
}
