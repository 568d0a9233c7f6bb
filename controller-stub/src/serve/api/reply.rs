//! What is sent: an answer in JSON, a text, or a stream.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use amphora_ipc::places::Seat;
use bytes::Bytes;
use futures_util::stream::Stream;
use http_body_util::{Either, Full};
use hyper::{
    Response, StatusCode,
    body::{Body, Frame},
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue},
};
use tokio::sync::watch;

use super::{events, fault::Fault, request::Answer, room, socket::Peer};

/// The body of a response.
pub(super) type Sent = Either<Full<Bytes>, Streamed>;

/// What is sent.
#[derive(Debug)]
pub(super) enum Reply {
    /// An answer of the API.
    Json(Answer),
    /// A text.
    Text {
        /// Its content type.
        kind: &'static str,
        text: Bytes,
        /// Further header fields.
        headers: Vec<(&'static str, String)>,
    },
    /// Events, until the client or the server ends.
    Events(Box<events::Stream>),
}

impl From<Fault> for Reply {
    fn from(fault: Fault) -> Self {
        Self::Json(fault.into())
    }
}

impl Reply {
    /// The status of HTTP.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Json(answer) => answer.status,
            Self::Text { .. } | Self::Events(_) => 200,
        }
    }

    /// Whether it has an end of itself.
    pub(super) fn is_whole(&self) -> bool {
        !matches!(self, Self::Events(_))
    }

    /// As a response. A stream ends when `peer` has gone or `stop` becomes true; whoever does not read it is told from one who has nothing to read by `seat`.
    pub(super) fn into_response(
        self,
        seat: &Arc<Seat<IpAddr>>,
        peer: Peer,
        stop: watch::Receiver<bool>,
    ) -> Response<Sent> {
        match self {
            Self::Json(answer) => match answer.body.map(|body| room::answer(body.to_string())).transpose() {
                Ok(body) => whole(answer.status, answer.headers, body.map(|body| ("application/json", body))),
                Err(fault) => {
                    let body = fault.body().to_string().into();
                    whole(fault.status, Vec::new(), Some(("application/json", body)))
                }
            },
            Self::Text { kind, text, headers } => whole(200, headers, Some((kind, text))),
            Self::Events(stream) => {
                let body = Streamed { stream: Box::pin(stream.body(peer, stop)), seat: seat.clone() };
                let mut response = Response::new(Either::Right(body));
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                // What nginx gathers nobody sees in time.
                headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
                response
            }
        }
    }
}

fn whole(
    status: u16,
    fields: Vec<(&'static str, String)>,
    body: Option<(&'static str, Bytes)>,
) -> Response<Sent> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    if let Some((kind, body)) = body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        *response.body_mut() = Either::Left(Full::new(body));
    }
    response
}

/// A body that goes on for as long as its stream does.
pub(super) struct Streamed {
    stream: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    seat: Arc<Seat<IpAddr>>,
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = self.stream.as_mut().poll_next(cx);
        match &polled {
            Poll::Ready(Some(_)) => self.seat.answers(),
            // Once what there was is read, the client keeps nobody waiting.
            Poll::Ready(None) | Poll::Pending => self.seat.progress().completes(),
        }
        polled.map(|frame| frame.map(|frame| Ok(Frame::data(frame))))
    }
}
