use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use amphora_vrrp::control::api::{Fault, InstanceStatus, Refusal, Status};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixListener, task::JoinHandle};

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
    pub(crate) socket: PathBuf,
    state: Arc<Mutex<State>>,
    server: Option<JoinHandle<()>>,
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
        let instance = InstanceStatus {
            name: "lb".to_owned(),
            state: "BACKUP".to_owned(),
            since_ms: 1,
            reason: "started".to_owned(),
            interface: "eth1".to_owned(),
            vrid: 1,
            version: 3,
            priority: 100,
            interval_ms: 1000,
            master_interval_ms: 1000,
            fit: true,
            handed_over: false,
            addresses: vec!["192.0.2.100/32".to_owned()],
            peer: None,
            counters: Default::default(),
            error: None,
        };
        let status = Status {
            version: "0".to_owned(),
            pid: std::process::id(),
            uptime_ms: 1,
            started: true,
            data_plane: None,
            instances: vec![instance],
        };
        let state = State { mood: VrrpMood::Willing, configuration: None, applications: 0, status };
        Self { socket: directory.join("vrrp.sock"), state: Arc::new(Mutex::new(state)), server: None }
    }

    /// Starts it, as another process than before that runs nothing.
    pub(crate) fn start(&mut self) {
        self.stop();
        self.state.lock().unwrap().configuration = None;
        let listener = UnixListener::bind(&self.socket).unwrap();
        let state = self.state.clone();
        self.server = Some(tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = state.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| serve(state.clone(), request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        }));
    }

    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
        let _ = std::fs::remove_file(&self.socket);
    }

    pub(crate) fn be(&self, mood: VrrpMood) {
        self.state.lock().unwrap().mood = mood;
    }

    pub(crate) fn configuration(&self) -> Option<Bytes> {
        self.state.lock().unwrap().configuration.clone()
    }

    /// Makes a configuration run behind the agent's back.
    pub(crate) fn run(&self, configuration: Option<&'static str>) {
        self.state.lock().unwrap().configuration = configuration.map(|text| text.into());
    }

    /// How many configurations were applied, those that were running already included.
    pub(crate) fn applications(&self) -> usize {
        self.state.lock().unwrap().applications
    }

    pub(crate) fn set_status(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.state.lock().unwrap().status);
    }
}

impl Drop for FakeVrrp {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let mood = || state.lock().unwrap().mood;
    while mood() == VrrpMood::Hanging {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mood = mood();
    let mut state = state.lock().unwrap();
    let answer = match (head.method, head.uri.path()) {
        (Method::PUT, "/config") => match mood {
            VrrpMood::Refusing(text) if String::from_utf8_lossy(&body).contains(text) => {
                let fault = Fault { place: "instances[0].vrid".to_owned(), reason: format!("has {text}") };
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
        (Method::GET, "/config") => match state.configuration.clone() {
            Some(configuration) => Response::new(Full::new(configuration)),
            None => json(StatusCode::NOT_FOUND, &Refusal::of("there is no configuration")),
        },
        (Method::DELETE, "/config") => {
            state.configuration = None;
            json(StatusCode::OK, &state.status)
        }
        (Method::GET, "/status") => json(StatusCode::OK, &state.status),
        (Method::POST, "/hand-over") => {
            let masters = state.status.instances.iter_mut().filter(|instance| instance.state == "MASTER");
            if masters.map(|instance| instance.handed_over = true).count() == 0 {
                json(StatusCode::CONFLICT, &Refusal::of("no virtual router is master here"))
            } else {
                json(StatusCode::OK, &state.status)
            }
        }
        (Method::POST, "/resume") => {
            state.status.instances.iter_mut().for_each(|instance| instance.handed_over = false);
            json(StatusCode::OK, &state.status)
        }
        (Method::POST, path @ ("/start" | "/stop")) => {
            state.status.started = path == "/start";
            json(StatusCode::OK, &state.status)
        }
        (Method::GET, "/metrics") => Response::new(Full::new(Bytes::from_static(b"amphora_vrrp_x 1\n"))),
        _ => json(StatusCode::NOT_FOUND, &Refusal::of("no such resource")),
    };
    Ok(answer)
}

fn json(status: StatusCode, document: &impl serde::Serialize) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(serde_json::to_vec(document).unwrap().into()));
    *response.status_mut() = status;
    response
}
