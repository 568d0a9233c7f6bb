//! Answers of `/1.0`, and its errors in their two shapes: `{"error", "http_code"}` where Flask answers in Octavia's own agent, and
//! `{"message", "details"}` where that itself does.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, ETAG, HeaderValue, RETRY_AFTER},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{change_error::ChangeError, plumbing::PlugError, rest::error::ApiError};

/// An answer.
pub(super) type Answer = Response<Full<Bytes>>;

/// JSON with a status.
pub(super) fn json(status: StatusCode, document: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(document).expect("the keys of every answer are strings");
    let mut answer = body_of("application/json", body.into());
    *answer.status_mut() = status;
    answer
}

/// `{"message": "OK"}` with a status.
pub(super) fn done(status: StatusCode) -> Answer {
    json(status, &json!({ "message": "OK" }))
}

/// The same with details.
pub(super) fn done_so(status: StatusCode, details: impl Into<String>) -> Answer {
    json(status, &json!({ "message": "OK", "details": details.into() }))
}

/// 200 with this body.
pub(super) fn body_of(content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// The MD5 of what was sent, bare, as the controller compares it.
pub(super) fn tagged(mut answer: Answer, tag: &str) -> Answer {
    let tag = HeaderValue::from_str(tag).expect("hexadecimal");
    answer.headers_mut().insert(ETAG, tag);
    answer
}

/// 200 without a body, with what is allowed.
pub(super) fn options(allow: &'static str) -> Answer {
    let mut answer = body_of("text/html; charset=utf-8", Bytes::new());
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

/// Every answer of this API is the last one of its connection.
pub(super) fn last(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// An answer that is not 2xx.
#[derive(Debug)]
pub(in crate::rest) struct Refused {
    status: StatusCode,
    allow: Option<&'static str>,
    body: Value,
}

impl Refused {
    /// What Flask says of a path that it does not know.
    pub(super) fn not_found() -> Self {
        Self::routing(
            StatusCode::NOT_FOUND,
            "The requested URL was not found on the server. If you entered the URL manually please check your \
             spelling and try again.",
        )
    }

    /// What Flask says of a method that a path does not take.
    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let refused = Self::routing(status, "The method is not allowed for the requested URL.");
        Self { allow: Some(allow), ..refused }
    }

    /// A body that is not what it has to be.
    pub(super) fn bad_request(description: &str) -> Self {
        Self::routing(StatusCode::BAD_REQUEST, description)
    }

    fn routing(status: StatusCode, description: &str) -> Self {
        let reason = status.canonical_reason().unwrap_or_default();
        let error = format!("{} {reason}: {description}", status.as_u16());
        Self { status, allow: None, body: json!({ "error": error, "http_code": status.as_u16() }) }
    }

    /// A message alone.
    pub(super) fn said(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, allow: None, body: json!({ "message": message.into() }) }
    }

    /// A message and what is behind it.
    pub(super) fn because(
        status: StatusCode,
        message: impl Into<String>,
        details: impl Into<String>,
    ) -> Self {
        let body = json!({ "message": message.into(), "details": details.into() });
        Self { status, allow: None, body }
    }

    /// An action that there is not.
    pub(super) fn unknown_action(action: &str) -> Self {
        Self::because(StatusCode::BAD_REQUEST, "Invalid Request", format!("Unknown action: {action}"))
    }

    /// The same as `error`, under this message.
    pub(super) fn under(message: impl Into<String>, error: impl Into<ApiError>) -> Self {
        let error = error.into();
        Self::because(legible(error.status()), message, error.in_words())
    }

    /// The same with 500 for 404.
    pub(super) fn unless_not_found(mut self) -> Self {
        if self.status == StatusCode::NOT_FOUND {
            self.status = StatusCode::INTERNAL_SERVER_ERROR;
        }
        self
    }

    /// No interface has the MAC address: the controller asks again for these very words.
    pub(super) fn no_interface() -> Self {
        let body = json!({ "details": PlugError::NO_INTERFACE });
        Self { status: StatusCode::NOT_FOUND, allow: None, body }
    }

    /// The status.
    pub(in crate::rest) fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer itself.
    pub(in crate::rest) fn answer(&self) -> Answer {
        let mut answer = json(self.status, &self.body);
        if let Some(allow) = self.allow {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        last(answer)
    }
}

/// The controller takes any status for success that it does not know as an error (`exceptions.check_exception`), 413 and
/// 507 among them.
fn legible(status: StatusCode) -> StatusCode {
    match status.as_u16() {
        400 | 404 | 405 | 409 | 500 | 503 => status,
        code if code < 500 => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        let status = legible(error.status());
        Self::because(status, status.canonical_reason().unwrap_or_default(), error.in_words())
    }
}

impl From<ChangeError> for Refused {
    fn from(error: ChangeError) -> Self {
        ApiError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_done_has_a_status_that_the_controller_knows() {
        let of = |status: u16| legible(StatusCode::from_u16(status).expect("a status")).as_u16();
        for (status, told) in [(400, 400), (404, 404), (405, 405), (409, 409), (500, 500), (503, 503)] {
            assert_eq!(of(status), told);
        }
        for (status, told) in [(408, 400), (413, 400), (415, 400), (504, 500), (507, 500)] {
            assert_eq!(of(status), told);
        }
    }
}
