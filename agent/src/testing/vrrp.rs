use std::{
    io,
    path::{Path, PathBuf},
};

use amphora_ipc::vrrp::{Fault, Refusal, Status, examples};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Response, StatusCode};

use super::control_socket::{Fake, FakeSocket, json};

/// How the fake daemon answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VrrpMood {
    Willing,
    /// Refuses every configuration that contains this text.
    Refusing(&'static str),
    /// Takes a configuration and breaks off without an answer.
    BreakingOff,
    /// Answers nothing until the mood changes.
    Hanging,
}

/// The control socket of a VRRP daemon without virtual routers.
pub(crate) struct FakeVrrp {
    socket: FakeSocket<State>,
}

struct State {
    mood: VrrpMood,
    configuration: Option<Bytes>,
    applications: usize,
    status: Status,
}

impl FakeVrrp {
    /// With one virtual router, a backup.
    pub(crate) fn new(directory: &Path) -> Self {
        let instance = examples::instance("lb", "BACKUP");
        let status = Status { pid: std::process::id(), ..examples::status(vec![instance]) };
        let state = State { mood: VrrpMood::Willing, configuration: None, applications: 0, status };
        Self { socket: FakeSocket::new(directory.join("vrrp.sock"), state) }
    }

    /// Starts it, as another process than before that runs nothing.
    pub(crate) fn start(&mut self) {
        self.stop();
        self.socket.state().configuration = None;
        self.socket.start();
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> PathBuf {
        self.socket.path.clone()
    }

    pub(crate) fn stop(&mut self) {
        self.socket.stop();
    }

    pub(crate) fn be(&self, mood: VrrpMood) {
        self.socket.state().mood = mood;
    }

    pub(crate) fn configuration(&self) -> Option<Bytes> {
        self.socket.state().configuration.clone()
    }

    /// Makes a configuration run behind the agent's back.
    pub(crate) fn run(&self, configuration: Option<&'static str>) {
        self.socket.state().configuration = configuration.map(|text| text.into());
    }

    /// How many configurations were applied, those that were running already included.
    pub(crate) fn applications(&self) -> usize {
        self.socket.state().applications
    }

    pub(crate) fn set_status(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.socket.state().status);
    }
}

impl Fake for State {
    fn is_hanging(&self) -> bool {
        self.mood == VrrpMood::Hanging
    }

    fn answer(&mut self, method: &Method, path: &str, body: Bytes) -> io::Result<Response<Full<Bytes>>> {
        let mood = self.mood;
        let state = self;
        let answer = match (method, path) {
            (&Method::PUT, "/config") => match mood {
                VrrpMood::Refusing(text) if String::from_utf8_lossy(&body).contains(text) => {
                    let fault =
                        Fault { place: "instances[0].vrid".to_owned(), reason: format!("has {text}") };
                    json(StatusCode::BAD_REQUEST, &Refusal { faults: vec![fault] })
                }
                _ => {
                    state.configuration = Some(body);
                    state.applications += 1;
                    if mood == VrrpMood::BreakingOff {
                        return Err(std::io::ErrorKind::BrokenPipe.into());
                    }
                    json(StatusCode::OK, &state.status)
                }
            },
            (&Method::GET, "/config") => match state.configuration.clone() {
                Some(configuration) => Response::new(Full::new(configuration)),
                None => json(StatusCode::NOT_FOUND, &Refusal::of("there is no configuration")),
            },
            (&Method::DELETE, "/config") => {
                state.configuration = None;
                json(StatusCode::OK, &state.status)
            }
            (&Method::GET, "/status") => json(StatusCode::OK, &state.status),
            (&Method::POST, "/hand-over") => {
                let masters = state.status.instances.iter_mut().filter(|instance| instance.state == "MASTER");
                if masters.map(|instance| instance.handed_over = true).count() == 0 {
                    json(StatusCode::CONFLICT, &Refusal::of("no virtual router is master here"))
                } else {
                    json(StatusCode::OK, &state.status)
                }
            }
            (&Method::POST, "/resume") => {
                state.status.instances.iter_mut().for_each(|instance| instance.handed_over = false);
                json(StatusCode::OK, &state.status)
            }
            (&Method::POST, path @ ("/start" | "/stop")) => {
                state.status.started = path == "/start";
                json(StatusCode::OK, &state.status)
            }
            (&Method::GET, "/metrics") => Response::new(Full::new(Bytes::from_static(b"amphora_vrrp_x 1\n"))),
            _ => json(StatusCode::NOT_FOUND, &Refusal::of("no such resource")),
        };
        Ok(answer)
    }
}
