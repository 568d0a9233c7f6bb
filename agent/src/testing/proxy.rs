use std::{
    io,
    path::{Path, PathBuf},
};

use amphora_ipc::{
    PeersConfig,
    proxy::{Applied, Checked, Info, Members, Peers, PeersState, Refusal, Remark, Stats, Summary},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Response, StatusCode};

use super::control_socket::{Fake, FakeSocket, json};
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
    socket: FakeSocket<State>,
}

struct State {
    mood: Mood,
    instance: u32,
    generation: u64,
    document: Option<Bytes>,
    stats: Stats,
    applied: Vec<Bytes>,
    remarks: Vec<Remark>,
    /// `None` is a proxy that does not know what is asked for.
    members: Option<Members>,
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
            remarks: Vec::new(),
            members: None,
            peers: None,
        };
        Self { socket: FakeSocket::new(directory.join("proxy.sock"), state) }
    }

    /// Starts it, as another process than before that runs nothing.
    pub(crate) fn start(&mut self) {
        self.stop();
        {
            let mut state = self.socket.state();
            state.instance += 1;
            state.generation = 0;
            state.document = None;
            state.peers = None;
        }
        self.socket.start();
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> PathBuf {
        self.socket.path.clone()
    }

    pub(crate) fn stop(&mut self) {
        self.socket.stop();
    }

    pub(crate) fn be(&self, mood: Mood) {
        self.socket.state().mood = mood;
    }

    pub(crate) fn document(&self) -> Option<Bytes> {
        self.socket.state().document.clone()
    }

    /// Makes a document run behind the agent's back.
    pub(crate) fn run(&self, document: Option<&str>) {
        let mut state = self.socket.state();
        state.generation += 1;
        state.document = document.map(|text| Bytes::copy_from_slice(text.as_bytes()));
    }

    /// What it was told of the other amphora.
    pub(crate) fn peers(&self) -> Option<Bytes> {
        self.socket.state().peers.clone()
    }

    /// Tells it of another amphora behind the agent's back.
    pub(crate) fn know(&self, peers: &str) {
        self.socket.state().peers = Some(Bytes::copy_from_slice(peers.as_bytes()));
    }

    /// The documents that were applied, in this order.
    pub(crate) fn applied(&self) -> Vec<Bytes> {
        self.socket.state().applied.clone()
    }

    /// How many documents were applied, those that were running already included.
    pub(crate) fn applications(&self) -> usize {
        self.socket.state().applied.len()
    }

    /// What every document is honoured in part in.
    pub(crate) fn remark(&self, remarks: Vec<Remark>) {
        self.socket.state().remarks = remarks;
    }

    /// What there is to tell of members.
    pub(crate) fn tell_of(&self, members: Members) {
        self.socket.state().members = Some(members);
    }

    pub(crate) fn set_stats(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.socket.state().stats);
    }
}

/// Of a document that has this text: at the object that has it for its id, if it is one.
fn refusal(text: &str) -> Refusal {
    let path = if text.parse::<uuid::Uuid>().is_ok() {
        format!("loadbalancer.listeners[{text}].tls_ciphers")
    } else {
        "loadbalancer.name".to_owned()
    };
    Refusal::one(path, format!("has {text}"))
}

impl Fake for State {
    fn is_hanging(&self) -> bool {
        self.mood == Mood::Hanging
    }

    fn answer(&mut self, method: &Method, path: &str, body: Bytes) -> io::Result<Response<Full<Bytes>>> {
        let mood = self.mood;
        let state = self;
        let answer = match (method, path) {
            (&Method::PUT, "/loadbalancer") => match mood {
                Mood::Refusing(text, status) if String::from_utf8_lossy(&body).contains(text) => {
                    json(status, &refusal(text))
                }
                _ => {
                    let changed = state.document.as_ref() != Some(&body);
                    state.generation += u64::from(changed);
                    state.document = Some(body.clone());
                    state.applied.push(body);
                    if mood == Mood::BreakingOff {
                        return Err(std::io::ErrorKind::BrokenPipe.into());
                    }
                    let remarks = state.remarks.clone();
                    json(StatusCode::OK, &Applied { generation: state.generation, changed, remarks })
                }
            },
            (&Method::PUT, "/check") => match mood {
                Mood::Refusing(text, status) if String::from_utf8_lossy(&body).contains(text) => {
                    json(status, &refusal(text))
                }
                _ => json(StatusCode::OK, &Checked { remarks: Vec::new() }),
            },
            (&Method::GET, "/loadbalancer") => match state.document.clone() {
                Some(document) => Response::new(Full::new(document)),
                None => json(StatusCode::NOT_FOUND, &()),
            },
            (&Method::DELETE, "/loadbalancer") => {
                let changed = state.document.take().is_some();
                state.generation += u64::from(changed);
                json(StatusCode::OK, &Applied { generation: state.generation, changed, remarks: Vec::new() })
            }
            (&Method::PUT, "/peers") => match mood {
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
            (&Method::GET, "/peers") => json(StatusCode::OK, &state.report()),
            (&Method::DELETE, "/peers") => {
                state.peers = None;
                json(StatusCode::OK, &state.report())
            }
            (&Method::GET, "/stats") => {
                let stats = Stats { instance: state.instance.to_string(), ..state.stats.clone() };
                json(StatusCode::OK, &stats)
            }
            (&Method::GET, "/summary") => {
                let stats = Stats { instance: state.instance.to_string(), ..state.stats.clone() };
                json(StatusCode::OK, &Summary::from(&stats))
            }
            (&Method::GET, "/members") => match &state.members {
                Some(members) => json(StatusCode::OK, members),
                None => json(StatusCode::NOT_FOUND, &()),
            },
            (&Method::GET, "/info") => {
                let model = state.document.as_ref().and_then(|document| document::parse(document).ok());
                let info = Info {
                    version: "0".to_owned(),
                    instance: state.instance.to_string(),
                    pid: std::process::id(),
                    workers: 1,
                    uptime_ms: 1,
                    loadbalancer: model.map(|model| model.id),
                    generation: state.generation,
                    remarks: state.remarks.clone(),
                };
                json(StatusCode::OK, &info)
            }
            (&Method::GET, "/metrics") => {
                Response::new(Full::new(Bytes::from_static(b"haproxy_process_x 1\n")))
            }
            _ => json(StatusCode::NOT_FOUND, &()),
        };
        Ok(answer)
    }
}
