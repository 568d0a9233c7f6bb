//! The client of the VRRP daemon's control socket ([`amphora_ipc::vrrp`]).

use std::{path::PathBuf, time::Duration};

use amphora_ipc::vrrp::Status;
use bytes::Bytes;
use hyper::Method;

use amphora_ipc::client::{ControlError, ControlSocket, Daemon};

/// How long a configuration may take until it runs.
const APPLY_DEADLINE: Duration = Duration::from_secs(10);

/// How long anything else may take: the daemon does nothing that lasts.
const READ_DEADLINE: Duration = Duration::from_secs(2);

/// The daemon tells the two kinds of configuration apart by the text itself.
const CONTENT_TYPE: &str = "text/plain; charset=utf-8";

/// The most bytes of an answer.
const MAX_ANSWER: usize = 8 << 20;

/// A VRRP daemon, by its control socket.
///
/// A request may be cancelled; what the daemon has got of it comes about all the same.
#[derive(Clone, Debug)]
pub struct VrrpClient {
    socket: ControlSocket,
}

/// What the daemon is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VrrpAction {
    /// Take part.
    Start,
    /// Take no part.
    Stop,
    /// Let the peer take over.
    HandOver,
    /// Take places by priority again, after a hand-over.
    Resume,
}

impl VrrpAction {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Start, Self::Stop, Self::HandOver, Self::Resume];

    /// Its name in paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::HandOver => "hand-over",
            Self::Resume => "resume",
        }
    }
}

impl VrrpClient {
    /// A client of the daemon that listens on this socket, now or later.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket: ControlSocket::new(Daemon::Vrrp, socket, MAX_ANSWER) }
    }

    /// Makes a configuration run: keepalived.conf or the native document.
    ///
    /// # Errors
    /// When what ran before runs on.
    pub async fn apply(&self, configuration: Bytes) -> Result<Status, ControlError> {
        self.socket.json(Method::PUT, "/config", CONTENT_TYPE, configuration, APPLY_DEADLINE).await
    }

    /// What runs, as the native document.
    ///
    /// # Errors
    /// Also when nothing does.
    pub async fn configuration(&self) -> Result<Bytes, ControlError> {
        self.socket.request(Method::GET, "/config", CONTENT_TYPE, Bytes::new(), READ_DEADLINE).await
    }

    /// Stops every virtual router and forgets it.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub async fn delete(&self) -> Result<Status, ControlError> {
        self.socket.json(Method::DELETE, "/config", CONTENT_TYPE, Bytes::new(), APPLY_DEADLINE).await
    }

    /// The daemon and its virtual routers.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub async fn status(&self) -> Result<Status, ControlError> {
        self.socket.json(Method::GET, "/status", CONTENT_TYPE, Bytes::new(), READ_DEADLINE).await
    }

    /// Tells the daemon what to do.
    ///
    /// # Errors
    /// When the daemon does not answer, or refuses: for one when there is nothing to hand over.
    pub async fn act(&self, action: VrrpAction) -> Result<Status, ControlError> {
        let path = match action {
            VrrpAction::Start => "/start",
            VrrpAction::Stop => "/stop",
            VrrpAction::HandOver => "/hand-over",
            VrrpAction::Resume => "/resume",
        };
        self.socket.json(Method::POST, path, CONTENT_TYPE, Bytes::new(), READ_DEADLINE).await
    }

    /// Its series as Prometheus text.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub async fn metrics(&self) -> Result<Bytes, ControlError> {
        self.socket.request(Method::GET, "/metrics", CONTENT_TYPE, Bytes::new(), READ_DEADLINE).await
    }
}
