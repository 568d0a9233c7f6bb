//! Why a message is refused.

use std::fmt;

/// Why a request is refused, and with which status. The reasons are for logs and tests, never for the client.
///
/// After any of these the connection is closed: where the next message begins is not known any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// 400: the message breaks RFC 9112, or peers might read it differently.
    BadRequest(&'static str),
    /// 405: CONNECT. What a tunnel carries no policy sees.
    MethodNotAllowed,
    /// 414: the request line alone is longer than [`MAX_HEAD`](super::MAX_HEAD).
    UriTooLong,
    /// 431: the head is longer than [`MAX_HEAD`](super::MAX_HEAD).
    HeadTooLarge,
    /// 431: the head has more than [`MAX_FIELDS`](super::MAX_FIELDS) fields.
    TooManyFields,
    /// 501: a transfer coding that the proxy does not decode.
    NotImplemented(&'static str),
    /// 505: neither HTTP/1.0 nor HTTP/1.1.
    VersionNotSupported,
}

impl Reject {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::MethodNotAllowed => 405,
            Self::UriTooLong => 414,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::NotImplemented(_) => 501,
            Self::VersionNotSupported => 505,
        }
    }

    /// The reason, for logs.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BadRequest(reason) | Self::NotImplemented(reason) => reason,
            Self::MethodNotAllowed => "CONNECT",
            Self::UriTooLong => "request line too long",
            Self::HeadTooLarge => "head too large",
            Self::TooManyFields => "too many fields",
            Self::VersionNotSupported => "version is neither HTTP/1.0 nor HTTP/1.1",
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status(), self.reason())
    }
}

/// Why a member's response cannot be passed on. The client gets 502 when nothing was sent to it yet, and the connection
/// to the member is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadResponse(pub &'static str);

impl From<Reject> for BadResponse {
    fn from(reject: Reject) -> Self {
        Self(reject.reason())
    }
}
