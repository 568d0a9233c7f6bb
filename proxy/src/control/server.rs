//! What is said on the control socket: messages to the engine. See [`amphora_ipc::proxy`] for the documents.

use std::io;

use amphora_ipc::{
    proxy::{Fault, Question, Refusal},
    server::{Answer, Content, Service},
};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::{sync::mpsc, task::spawn_blocking};

use crate::{
    engine::{ApplyError, Engine, Observation},
    metrics,
    peers::PeersConfig,
    sys,
};

/// Answers on the control socket.
#[derive(Debug)]
pub struct Control(Engine);

impl Control {
    /// For this engine.
    pub fn new(engine: Engine) -> Self {
        Self(engine)
    }
}

impl Service for Control {
    /// 5,000 members take about 2 MiB.
    const MAX_DOCUMENT: usize = 16 * 1024 * 1024;

    async fn answer(&self, method: &Method, path: &str, body: Bytes) -> Answer {
        let engine = &self.0;
        match (method, path) {
            (&Method::PUT, "/loadbalancer") => answered(engine.apply_document(body).await),
            (&Method::DELETE, "/loadbalancer") => answered(engine.apply(None).await),
            (&Method::GET, "/loadbalancer") => match engine.observe().await {
                Some(observation) => background(move || document(&observation)).await,
                None => stopping(),
            },
            (&Method::PUT, "/check") => answered(engine.check_document(body).await),
            (&Method::PUT, "/peers") => set_peers(engine, &body).await,
            (&Method::GET, "/peers") => some(engine.peers().await),
            (&Method::DELETE, "/peers") => some(engine.clear_peers().await),
            (&Method::GET, "/stats") => match engine.observe().await {
                Some(observation) => {
                    background(move || Answer::json(StatusCode::OK, &observation.stats())).await
                }
                None => stopping(),
            },
            (&Method::GET, "/summary") => match engine.observe().await {
                Some(observation) => {
                    background(move || Answer::json(StatusCode::OK, &observation.summary())).await
                }
                None => stopping(),
            },
            (&Method::GET, "/members") => match engine.observe().await {
                Some(observation) => {
                    background(move || Answer::json(StatusCode::OK, &observation.members())).await
                }
                None => stopping(),
            },
            (&Method::POST, "/explain") => explain(engine, &body).await,
            (&Method::GET, "/info") => some(engine.observe().await.map(|observation| observation.info())),
            (&Method::GET, "/metrics") => text(engine).await,
            (
                _,
                "/loadbalancer" | "/check" | "/peers" | "/stats" | "/summary" | "/members" | "/explain"
                | "/info" | "/metrics",
            ) => refused(StatusCode::METHOD_NOT_ALLOWED, "the method does not apply here"),
            (_, path) => refused(StatusCode::NOT_FOUND, &format!("no such resource: {path}")),
        }
    }

    fn refuse(&self, status: StatusCode, reason: &str) -> Answer {
        refused(status, reason)
    }
}

fn answered(document: Result<impl Serialize, ApplyError>) -> Answer {
    match document {
        Ok(document) => Answer::json(StatusCode::OK, &document),
        Err(ApplyError::Refused(refusal)) => Answer::json(StatusCode::BAD_REQUEST, &refusal),
        Err(ApplyError::Unavailable(refusal)) => Answer::json(StatusCode::CONFLICT, &refusal),
        Err(ApplyError::Failed(refusal)) => Answer::json(StatusCode::SERVICE_UNAVAILABLE, &refusal),
    }
}

fn document(observation: &Observation) -> Answer {
    match observation.model() {
        Some(model) => Answer::json(StatusCode::OK, &model.to_json()),
        None => refused(StatusCode::NOT_FOUND, "there is no load balancer"),
    }
}

async fn set_peers(engine: &Engine, body: &[u8]) -> Answer {
    let config = match PeersConfig::from_json(body) {
        Ok(config) => config,
        Err(refusal) => return Answer::json(StatusCode::BAD_REQUEST, &refusal),
    };
    match engine.set_peers(config, false).await {
        Ok(peers) => Answer::json(StatusCode::OK, &peers),
        Err(refusal) => Answer::json(StatusCode::CONFLICT, &refusal),
    }
}

async fn explain(engine: &Engine, body: &[u8]) -> Answer {
    let question: Question = match serde_json::from_slice(body) {
        Ok(question) => question,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let Some(observation) = engine.observe().await else { return stopping() };
    background(move || {
        sys::stand_back();
        match observation.explain(&question) {
            Ok(explanation) => Answer::json(StatusCode::OK, &explanation),
            Err(refusal) => Answer::json(StatusCode::BAD_REQUEST, &refusal),
        }
    })
    .await
}

/// The text of `/metrics`, as the peer reads it.
async fn text(engine: &Engine) -> Answer {
    let Some(mut scrape) = engine.scrapes().begin(None).await else { return stopping() };
    let (pieces, content) = mpsc::channel(1);
    tokio::task::spawn_local(async move {
        loop {
            let Some(piece) = scrape.next().await else {
                let _ = pieces.send(Err(io::ErrorKind::TimedOut.into())).await;
                return;
            };
            if pieces.send(Ok(piece.text())).await.is_err() || piece.is_last() {
                return;
            }
        }
    });
    Answer { status: StatusCode::OK, content_type: metrics::CONTENT_TYPE, content: Content::Pieces(content) }
}

/// What takes longer with every member is done apart from the control thread.
async fn background(work: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))
}

fn some(document: Option<impl Serialize>) -> Answer {
    document.map_or_else(stopping, |document| Answer::json(StatusCode::OK, &document))
}

fn stopping() -> Answer {
    refused(StatusCode::SERVICE_UNAVAILABLE, "the proxy is about to end")
}

fn refused(status: StatusCode, reason: &str) -> Answer {
    let fault = Fault { path: String::new(), reason: reason.to_owned() };
    Answer::json(status, &Refusal { faults: vec![fault] })
}
