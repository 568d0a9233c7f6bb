//! What a request is refused with: the bodies of WSME, with the texts of `octavia.common.exceptions`.

use serde_json::{Value, json};

use crate::serve::db;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {text}")]
pub(super) struct Fault {
    /// The status of HTTP.
    pub(super) status: u16,
    /// What a person is told.
    pub(super) text: String,
}

impl Fault {
    /// A fault with this status.
    pub(super) fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// `ValidationException`.
    pub(super) fn validation(detail: impl std::fmt::Display) -> Self {
        Self::new(400, format!("Validation failure: {detail}"))
    }

    /// `InvalidOption`.
    pub(super) fn option(value: impl std::fmt::Display, option: impl std::fmt::Display) -> Self {
        Self::new(400, format!("{value} is not a valid option for {option}"))
    }

    /// `DisabledOption`.
    pub(super) fn disabled(option: &str, value: &str) -> Self {
        Self::new(400, format!("The selected {option} is not allowed in this deployment: {value}"))
    }

    /// WSME's `InvalidInput`: a value that an attribute cannot have.
    pub(super) fn input(attribute: &str, value: impl std::fmt::Display, reason: &str) -> Self {
        Self::new(400, format!("Invalid input for field/attribute {attribute}. Value: '{value}'. {reason}"))
    }

    /// `NotFound`: what the path names is not there.
    pub(super) fn not_found(title: &str, id: &str) -> Self {
        Self::new(404, format!("{title} {id} not found."))
    }

    /// `InvalidSubresource`: what the body names is not there.
    pub(super) fn no_such(title: &str, id: &str) -> Self {
        Self::new(400, format!("{title} {id} not found."))
    }

    /// `PolicyForbidden`.
    pub(super) fn forbidden() -> Self {
        Self::new(403, "Policy does not allow this request to be performed.")
    }

    /// `QuotaException`.
    pub(super) fn quota(title: &str) -> Self {
        Self::new(403, format!("Quota has been met for resources: {title}"))
    }

    /// `ImmutableObject`.
    pub(super) fn immutable(title: &str, id: &str) -> Self {
        Self::new(409, format!("{title} {id} is immutable and cannot be updated."))
    }

    /// `ObjectInUse`.
    pub(super) fn in_use(title: &str, id: &str) -> Self {
        Self::new(409, format!("{title} {id} is in use and cannot be modified."))
    }

    /// The body of the answer.
    pub(super) fn body(&self) -> Value {
        let code = if self.status < 500 { "Client" } else { "Server" };
        json!({"faultcode": code, "faultstring": self.text, "debuginfo": null})
    }
}

impl From<db::Error> for Fault {
    fn from(error: db::Error) -> Self {
        let status = if error.is_passing() { 503 } else { 500 };
        Self::new(status, error.to_string())
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        db::Error::from(error).into()
    }
}
