//! Errors of the API: one shape, one table of codes.

use amphora_ipc::client::ControlError;
use amphora_ipc::places::Busy;
use amphora_ipc::proxy::Fault;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use serde::Serialize;

use super::route::{NoResource, Resource};
use crate::{change_error::ChangeError, plumbing::PlugError, store};

/// The code of what cannot be carried out now, but in a moment.
const BUSY: &str = "busy";

/// The code of a MAC address that no interface has.
const NO_INTERFACE: &str = "interface_not_found";

/// An answer that is not 2xx: `{"code", "message", "faults"}`.
#[derive(Clone, Debug, Serialize)]
pub struct ApiError {
    #[serde(skip)]
    status: StatusCode,
    #[serde(skip)]
    allow: Option<&'static str>,
    /// For programs: one of `docs/agent.md`'s table, and never another for the same thing.
    code: &'static str,
    /// For humans.
    message: String,
    /// The places of the document that are at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<Fault>,
}

impl ApiError {
    /// An error without faults.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, allow: None, code, message: message.into(), faults: Vec::new() }
    }

    /// The same with faults.
    pub fn with_faults(self, faults: Vec<Fault>) -> Self {
        Self { faults, ..self }
    }

    /// 405 with what is allowed.
    pub fn method_not_allowed(resource: &Resource) -> Self {
        let allow = resource.allow();
        let message = format!("this resource takes {allow}");
        Self {
            allow: Some(allow),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether it is that no interface has a MAC address.
    pub(super) fn is_no_interface(&self) -> bool {
        self.code == NO_INTERFACE
    }

    /// The message and every fault, for a human.
    pub(super) fn in_words(&self) -> String {
        let faults = self.faults.iter().map(|fault| match fault.path.as_str() {
            "" => fault.reason.clone(),
            path => format!("{path}: {}", fault.reason),
        });
        let faults: Vec<_> = faults.collect();
        if faults.is_empty() { self.message.clone() } else { faults.join("; ") }
    }

    /// The answer itself.
    pub fn response(&self) -> Response<Full<Bytes>> {
        let body = serde_json::to_vec(self).expect("strings serialize");
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(allow) = self.allow {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.code == BUSY {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Busy> for ApiError {
    fn from(Busy: Busy) -> Self {
        let message = "too much is being done for others, or was asked for before; nothing changed";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, message)
    }
}

impl From<NoResource> for ApiError {
    fn from(error: NoResource) -> Self {
        match error {
            NoResource::Unknown => Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such path"),
            NoResource::NotAnId(name) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_id", "an id is not a UUID").with_faults(vec![
                    Fault { path: name.to_owned(), reason: "must be a UUID with hyphens".to_owned() },
                ])
            }
            NoResource::NotACertificate => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_id", "not the id of a certificate").with_faults(
                    vec![Fault {
                        path: "certificate_id".to_owned(),
                        reason: "must be a letter or digit, then at most 127 letters, digits and ._-"
                            .to_owned(),
                    }],
                )
            }
            NoResource::NotAMacAddress => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_id", "not a MAC address").with_faults(vec![
                    Fault {
                        path: "mac_address".to_owned(),
                        reason: "must be six octets in hexadecimal with colons between them".to_owned(),
                    },
                ])
            }
        }
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        let message = error.to_string();
        match error {
            ChangeError::Invalid(refusal) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_document", "the document cannot be honoured")
                    .with_faults(refusal.faults)
            }
            ChangeError::Conflict(refusal) => {
                Self::new(StatusCode::CONFLICT, "conflict", "the document cannot be honoured at present")
                    .with_faults(refusal.faults)
            }
            ChangeError::OtherLoadBalancer(_) => {
                Self::new(StatusCode::CONFLICT, "loadbalancer_exists", message)
            }
            ChangeError::OtherApi { .. } | ChangeError::OtherVrrpApi { .. } => {
                Self::new(StatusCode::CONFLICT, "other_api", message)
            }
            ChangeError::NoLoadBalancer => {
                Self::new(StatusCode::NOT_FOUND, "loadbalancer_not_found", message)
            }
            ChangeError::NoMember => Self::new(StatusCode::NOT_FOUND, "member_not_found", message),
            ChangeError::NoCertificate => Self::new(StatusCode::NOT_FOUND, "certificate_not_found", message),
            ChangeError::CertificateInUse(refusal) => {
                Self::new(StatusCode::CONFLICT, "certificate_in_use", message).with_faults(refusal.faults)
            }
            ChangeError::ProxyDown(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "proxy_unavailable", message)
            }
            ChangeError::ProxyLate(_) => Self::new(StatusCode::GATEWAY_TIMEOUT, "proxy_timeout", message),
            ChangeError::NoVrrp => Self::new(StatusCode::NOT_FOUND, "vrrp_not_found", message),
            ChangeError::VrrpStopped => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message),
            ChangeError::VrrpConflict(_) => Self::new(StatusCode::CONFLICT, "vrrp_conflict", message),
            ChangeError::VrrpDown(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "vrrp_unavailable", message)
            }
            ChangeError::VrrpLate(_) => Self::new(StatusCode::GATEWAY_TIMEOUT, "vrrp_timeout", message),
            ChangeError::Storage(e) if store::is_full(&e) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "storage_full", message)
            }
            ChangeError::Storage(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "storage_failed", message)
            }
            ChangeError::Internal(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message),
        }
    }
}

impl From<PlugError> for ApiError {
    fn from(error: PlugError) -> Self {
        let message = error.to_string();
        match error {
            PlugError::NoInterface(_) => Self::new(StatusCode::NOT_FOUND, NO_INTERFACE, message),
            PlugError::NoNamespace | PlugError::NameTaken { .. } | PlugError::Overlap { .. } => {
                Self::new(StatusCode::CONFLICT, "conflict", message)
            }
            PlugError::Storage(error) => ChangeError::Storage(error).into(),
            PlugError::Namespace(_) | PlugError::Network(_) | PlugError::Filter(_) | PlugError::Dhcp(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "network_failed", message)
            }
            PlugError::Internal(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message),
        }
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        ChangeError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_manual_has_every_code() {
        let manual = include_str!("../../../docs/agent.md");
        let sources = [include_str!("error.rs"), include_str!("api.rs"), include_str!("body.rs")];
        for code in [
            "invalid_document",
            "invalid_id",
            "bad_request",
            "not_found",
            "loadbalancer_not_found",
            "member_not_found",
            "certificate_not_found",
            "certificate_in_use",
            "interface_not_found",
            "network_failed",
            "method_not_allowed",
            "request_timeout",
            "loadbalancer_exists",
            "other_api",
            "conflict",
            "body_too_large",
            "unsupported_media_type",
            "storage_failed",
            "internal",
            "proxy_unavailable",
            "unhealthy",
            "busy",
            "proxy_timeout",
            "storage_full",
            "vrrp_not_found",
            "vrrp_conflict",
            "vrrp_unavailable",
            "vrrp_timeout",
        ] {
            assert!(manual.contains(&format!("| `{code}` |")), "{code}");
            assert!(sources.iter().any(|source| source.contains(&format!("\"{code}\""))), "{code}");
        }
    }

    #[test]
    fn a_full_disk_has_a_status_of_its_own() {
        let of = |kind: io::ErrorKind| ApiError::from(ChangeError::Storage(kind.into())).status().as_u16();
        assert_eq!(of(io::ErrorKind::StorageFull), 507);
        assert_eq!(of(io::ErrorKind::QuotaExceeded), 507);
        assert_eq!(of(io::ErrorKind::PermissionDenied), 500);
    }
}
