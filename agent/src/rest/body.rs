//! Reading a request's body within bounds of size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, StatusCode,
    body::{Body, Incoming},
    header::{CONTENT_TYPE, EXPECT},
};
use tokio::time::timeout;

use super::error::ApiError;

/// How much of a body that is not wanted is read away.
const DISCARDED_BYTES: usize = 64 << 20;

/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// Bounds on a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes.
    pub(super) size: usize,
    /// From the first byte of the request's body to the last.
    pub(super) time: Duration,
}

/// What a document may be, as its `Content-Type` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `application/json`.
    Json,
    /// `text/plain`.
    Text,
    /// `application/x-pem-file`.
    Pem,
    /// `application/x-pkcs12`.
    Pkcs12,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Text => "text/plain",
            Self::Pem => "application/x-pem-file",
            Self::Pkcs12 => "application/x-pkcs12",
        }
    }
}

/// A document that was PUT.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// What it is called; nothing when there is no `Content-Type`.
    pub(super) kind: Option<Kind>,
    /// What is in it.
    pub(super) content: Bytes,
}

/// Reads the body of a request that carries a document of one of these kinds.
///
/// # Errors
/// 413, 408, 415, or 400 when the peer breaks off.
pub(super) async fn read(
    headers: &HeaderMap,
    body: &mut Incoming,
    limits: Limits,
    kinds: &[Kind],
) -> Result<Document, ApiError> {
    let kind = kind(headers, kinds)?;
    read_any(body, limits).await.map(|content| Document { kind, content })
}

fn late(limits: Limits) -> ApiError {
    let message = format!("the body did not arrive within {} s", limits.time.as_secs_f32());
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
}

/// Reads the body of a request, whatever it is called.
///
/// # Errors
/// 413, 408, or 400 when the peer breaks off.
pub(super) async fn read_any(body: &mut Incoming, limits: Limits) -> Result<Bytes, ApiError> {
    timeout(limits.time, collect(body, limits.size)).await.unwrap_or_else(|_| Err(late(limits)))
}

/// Takes what is left of a body after an error: most clients read the answer only when all is sent, and closing
/// with bytes unread would destroy it. Bounded, so that it costs a peer more than this program.
pub(super) async fn discard(headers: &HeaderMap, body: &mut Incoming) {
    // A peer that waits for 100 Continue has sent nothing and must not be told to.
    if headers.contains_key(EXPECT) {
        return;
    }
    let mut left = DISCARDED_BYTES;
    let discard = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    let _ = timeout(DISCARD_TIMEOUT, discard).await;
}

fn kind(headers: &HeaderMap, kinds: &[Kind]) -> Result<Option<Kind>, ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(None) };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if let Some(kind) = kinds.iter().find(|kind| essence.eq_ignore_ascii_case(kind.as_str())) {
        return Ok(Some(*kind));
    }
    let names: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
    let message = format!("send {}", names.join(" or "));
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
}

/// The most bytes that a body is given before they are there.
const MOST_RESERVED: usize = 32 << 10;

async fn collect(body: &mut Incoming, size: usize) -> Result<Bytes, ApiError> {
    let too_large = || {
        let message = format!("a body may have at most {size} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    let announced = body.size_hint().lower();
    if announced > size as u64 {
        return Err(too_large());
    }
    // With room for all of it where that is little, so that what has a key in it is in one place.
    let mut bytes = BytesMut::with_capacity((announced as usize).min(MOST_RESERVED));
    while let Some(frame) = body.frame().await {
        let broken = |e: hyper::Error| ApiError::new(StatusCode::BAD_REQUEST, "bad_request", e.to_string());
        // Trailers say nothing here.
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if bytes.len() + data.len() > size {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}
