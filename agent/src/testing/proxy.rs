use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use amphora_proxy::{
    control::api::{Applied, Fault, Info, Peers, PeersState, Refusal, Stats},
    peers::PeersConfig,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixListener, task::JoinHandle};

use crate::document;

/// How the fake proxy answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Willing,
    /// Refuses every document that contains this text, with this status.
    Refusing(&'static str, StatusCode),
    /// Takes a document and breaks off without an answer.
    BreakingOff,
    /// Answers nothing until the mood changes.
    Hanging,
}

/// The control socket of a proxy that carries no traffic.
pub(crate) struct FakeProxy {
    pub(crate) socket: PathBuf,
    state: Arc<Mutex<State>>,
    server: Option<JoinHandle<()>>,
}

struct State {
    mood: Mood,
    instance: u32,
    generation: u64,
    document: Option<Bytes>,
    stats: Stats,
    applied: Vec<Bytes>,
    peers: Option<Bytes>,
}

impl State {
    fn report(&self) -> Peers {
        let config = self.peers.as_ref().map(|document| PeersConfig::from_json(document).unwrap());
        config.map_or_else(Peers::default, |config| Peers {
            state: PeersState::Disconnected,
            listen: Some(config.listen),
            peer: Some(config.peer),
            ..Peers::default()
        })
    }
}

impl FakeProxy {
    pub(crate) fn new(directory: &Path) -> Self {
        let state = State {
            mood: Mood::Willing,
            instance: 0,
            generation: 0,
            document: None,
            stats: Stats::default(),
            applied: Vec::new(),
            peers: None,
        };
        Self { socket: directory.join("proxy.sock"), state: Arc::new(Mutex::new(state)), server: None }
    }

    /// Starts it, as another process than before that runs nothing.
    pub(crate) fn start(&mut self) {
        self.stop();
        {
            let mut state = self.state.lock().unwrap();
            state.instance += 1;
            state.generation = 0;
            state.document = None;
            state.peers = None;
        }
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

    pub(crate) fn be(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    pub(crate) fn document(&self) -> Option<Bytes> {
        self.state.lock().unwrap().document.clone()
    }

    /// Makes a document run behind the agent's back.
    pub(crate) fn run(&self, document: Option<&str>) {
        self.state.lock().unwrap().document = document.map(|text| Bytes::copy_from_slice(text.as_bytes()));
    }

    /// What it was told of the other amphora.
    pub(crate) fn peers(&self) -> Option<Bytes> {
        self.state.lock().unwrap().peers.clone()
    }

    /// Tells it of another amphora behind the agent's back.
    pub(crate) fn know(&self, peers: &str) {
        self.state.lock().unwrap().peers = Some(Bytes::copy_from_slice(peers.as_bytes()));
    }

    /// How many documents were applied, those that were running already included.
    pub(crate) fn applications(&self) -> usize {
        self.state.lock().unwrap().applied.len()
    }

    pub(crate) fn set_stats(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.state.lock().unwrap().stats);
    }
}

impl Drop for FakeProxy {
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
    while mood() == Mood::Hanging {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mood = mood();
    let mut state = state.lock().unwrap();
    let answer = match (head.method, head.uri.path()) {
        (Method::PUT, "/loadbalancer") => match mood {
            Mood::Refusing(text, status) if String::from_utf8_lossy(&body).contains(text) => {
                let fault = Fault { path: "loadbalancer.name".to_owned(), reason: format!("has {text}") };
                json(status, &Refusal { faults: vec![fault] })
            }
            _ => {
                let changed = state.document.as_ref() != Some(&body);
                state.generation += u64::from(changed);
                state.document = Some(body.clone());
                state.applied.push(body);
                if mood == Mood::BreakingOff {
                    return Err(std::io::ErrorKind::BrokenPipe.into());
                }
                json(StatusCode::OK, &Applied { generation: state.generation, changed })
            }
        },
        (Method::GET, "/loadbalancer") => match state.document.clone() {
            Some(document) => Response::new(Full::new(document)),
            None => json(StatusCode::NOT_FOUND, &()),
        },
        (Method::DELETE, "/loadbalancer") => {
            let changed = state.document.take().is_some();
            state.generation += u64::from(changed);
            json(StatusCode::OK, &Applied { generation: state.generation, changed })
        }
        (Method::PUT, "/peers") => match mood {
            Mood::Refusing(text, status) if String::from_utf8_lossy(&body).contains(text) => {
                json(status, &Refusal::one("peers.listen", "Cannot assign requested address"))
            }
            _ => {
                state.peers = Some(body);
                if mood == Mood::BreakingOff {
                    return Err(std::io::ErrorKind::BrokenPipe.into());
                }
                json(StatusCode::OK, &state.report())
            }
        },
        (Method::GET, "/peers") => json(StatusCode::OK, &state.report()),
        (Method::DELETE, "/peers") => {
            state.peers = None;
            json(StatusCode::OK, &state.report())
        }
        (Method::GET, "/stats") => {
            let stats = Stats { instance: state.instance.to_string(), ..state.stats.clone() };
            json(StatusCode::OK, &stats)
        }
        (Method::GET, "/info") => {
            let model = state.document.as_ref().and_then(|document| document::parse(document).ok());
            let info = Info {
                version: "0".to_owned(),
                instance: state.instance.to_string(),
                pid: std::process::id(),
                workers: 1,
                uptime_ms: 1,
                loadbalancer: model.map(|model| model.id),
                generation: state.generation,
            };
            json(StatusCode::OK, &info)
        }
        (Method::GET, "/metrics") => Response::new(Full::new(Bytes::from_static(b"haproxy_process_x 1\n"))),
        _ => json(StatusCode::NOT_FOUND, &()),
    };
    Ok(answer)
}

fn json(status: StatusCode, document: &impl serde::Serialize) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(serde_json::to_vec(document).unwrap().into()));
    *response.status_mut() = status;
    response
}
