//! What is said on the control socket: commands to the daemon. See [`amphora_ipc::vrrp`] for the documents.

use amphora_ipc::{
    server::{Answer, Service},
    usage::Usage,
    vrrp::{Fault, Refusal, Status},
};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use tokio::sync::{mpsc, oneshot};

use super::metrics;
use crate::config::{self, Config};

/// What the daemon is asked for over the socket.
#[derive(Debug)]
pub(crate) enum Command {
    /// How it stands.
    Status,
    /// What it runs.
    Config,
    /// Run this from now on; nothing if `None`.
    Configure(Option<Config>),
    /// Take part, or not.
    Start(bool),
    /// Let the peer take over.
    HandOver,
    /// Take places by priority again.
    Resume,
}

/// What the daemon says to a [`Command`].
#[derive(Debug)]
pub(crate) enum Reply {
    Status(Box<Status>),
    Config(Option<Config>),
    Refused(Refusal),
}

/// A command and where its reply goes.
pub(crate) type Asked = (Command, oneshot::Sender<Reply>);

/// Answers on the control socket.
#[derive(Debug)]
pub(crate) struct Control(mpsc::Sender<Asked>);

impl Control {
    /// For the daemon that takes these commands.
    pub(crate) fn new(commands: mpsc::Sender<Asked>) -> Self {
        Self(commands)
    }
}

impl Service for Control {
    const MAX_DOCUMENT: usize = 1024 * 1024;

    async fn answer(&self, method: &Method, path: &str, body: Bytes) -> Answer {
        let command = match (method, path) {
            (&Method::GET, "/status" | "/metrics") => Command::Status,
            (&Method::GET, "/config") => Command::Config,
            (&Method::PUT, "/config") => match read_config(&body) {
                Ok(config) => Command::Configure(Some(config)),
                Err(refusal) => return Answer::json(StatusCode::BAD_REQUEST, &refusal),
            },
            (&Method::DELETE, "/config") => Command::Configure(None),
            (&Method::POST, "/start") => Command::Start(true),
            (&Method::POST, "/stop") => Command::Start(false),
            (&Method::POST, "/hand-over") => Command::HandOver,
            (&Method::POST, "/resume") => Command::Resume,
            (_, "/status" | "/metrics" | "/config" | "/start" | "/stop" | "/hand-over" | "/resume") => {
                return self.refuse(StatusCode::METHOD_NOT_ALLOWED, "the method does not apply here");
            }
            (_, path) => return self.refuse(StatusCode::NOT_FOUND, &format!("no such resource: {path}")),
        };
        let (reply, replied) = oneshot::channel();
        let replied = match self.0.send((command, reply)).await {
            Ok(()) => replied.await.ok(),
            Err(_) => None,
        };
        match replied {
            Some(Reply::Status(status)) if path == "/metrics" => {
                Answer::whole(StatusCode::OK, metrics::CONTENT_TYPE, metrics::text(&status, &Usage::read()))
            }
            Some(Reply::Status(status)) => Answer::json(StatusCode::OK, &status),
            Some(Reply::Config(Some(config))) => {
                Answer::whole(StatusCode::OK, "application/json", config::native::to_json(&config))
            }
            Some(Reply::Config(None)) => self.refuse(StatusCode::NOT_FOUND, "there is no configuration"),
            Some(Reply::Refused(refusal)) => Answer::json(StatusCode::CONFLICT, &refusal),
            None => self.refuse(StatusCode::SERVICE_UNAVAILABLE, "the daemon stops"),
        }
    }

    fn refuse(&self, status: StatusCode, reason: &str) -> Answer {
        Answer::json(status, &Refusal::of(reason))
    }
}

fn read_config(body: &[u8]) -> Result<Config, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| Refusal::of("the document is not UTF-8"))?;
    config::parse(text).map_err(|refusal| {
        let faults = refusal.faults.into_iter();
        Refusal { faults: faults.map(|fault| Fault { place: fault.path, reason: fault.reason }).collect() }
    })
}
