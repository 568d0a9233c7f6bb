//! An agent that keeps documents in memory: mutual TLS and the routes of the native API, nothing behind them.

use std::{
    collections::HashMap,
    convert::Infallible,
    fs::File,
    io::BufReader,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use amphora_ipc::proxy::PeersState;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) documents: HashMap<String, Value>,
    /// The pools of every status tree.
    pub(crate) pools: Vec<Value>,
    /// The VRRP configuration and its `Content-Type`.
    pub(crate) vrrp: Option<(String, String)>,
    /// `INIT`, `BACKUP` or `MASTER`: the state of its one virtual router.
    pub(crate) vrrp_state: String,
    /// The document that names the other amphora.
    pub(crate) peers: Option<Value>,
    /// The status with which requests to `/2.0/peers` are refused: 404 is an older agent.
    pub(crate) peers_refused: Option<u16>,
    /// Who takes over when this one hands over.
    pub(crate) successor: Option<Arc<Mutex<State>>>,
    /// Certificates: the kind of body, the password and the body itself.
    pub(crate) certificates: std::collections::BTreeMap<String, (String, Option<String>, Vec<u8>)>,
    /// `METHOD path body`, in order.
    pub(crate) requests: Vec<(String, Value)>,
}

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<Mutex<State>>,
}

impl Fake {
    /// Serves with the certificates that `certs init` made.
    pub(crate) fn start(certs: &Path, amphora: &str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(certs, amphora)));
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, acceptor, shared));
        });
        Self { address, state }
    }
}

/// Until the test's process ends.
async fn serve(listener: std::net::TcpListener, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, state) = (acceptor.clone(), state.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(|request| answer(state.clone(), request));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn server_config(certs: &Path, amphora: &str) -> ServerConfig {
    let read = |name: &str| BufReader::new(File::open(certs.join(name)).unwrap());
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_reader_iter(read("ca.pem")) {
        roots.add(ca.unwrap()).unwrap();
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let pem = format!("server-{amphora}.pem");
    let chain = CertificateDer::pem_reader_iter(read(&pem)).collect::<Result<_, _>>().unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, PrivateKeyDer::from_pem_reader(read(&pem)).unwrap())
        .unwrap()
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let text = body.collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
    let mut state = state.lock().unwrap();
    let path = parts.uri.path();
    state.requests.push((format!("{} {path}", parts.method), body.clone()));
    let (status, answer) = match path.strip_prefix("/2.0/vrrp") {
        Some(rest) => {
            let kind = parts.headers["content-type"].to_str().unwrap();
            vrrp(&mut state, &parts.method, rest, kind, String::from_utf8(text.to_vec()).unwrap())
        }
        None if path.starts_with("/2.0/certificates") => {
            let header = |name: &str| {
                parts.headers.get(name).map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap())
            };
            let body = (header("content-type").unwrap(), header("x-certificate-password"), text.to_vec());
            certificates(&mut state, &parts.method, path, body)
        }
        None if path == "/2.0/peers" => peers(&mut state, &parts.method, body),
        None => route(&mut state, &parts.method, path, body),
    };
    Ok(Response::builder().status(status).body(Full::new(Bytes::from(answer.to_string()))).unwrap())
}

fn vrrp(state: &mut State, method: &Method, rest: &str, kind: &str, text: String) -> (u16, Value) {
    let refusal = |status: u16, code: &str, message: &str, faults: Value| {
        (status, json!({"code": code, "message": message, "faults": faults}))
    };
    if (method, rest) == (&Method::PUT, "") {
        if text.contains("faulty") {
            let faults = json!([{"path": "instances[0].vrid", "reason": "is required"}]);
            return refusal(400, "invalid_document", "the document cannot be honoured", faults);
        }
        let new = Some((kind.to_owned(), text));
        let changed = state.vrrp != new;
        state.vrrp = new;
        return (200, json!({"changed": changed, "status": null}));
    }
    if state.vrrp.is_none() {
        return refusal(404, "vrrp_not_found", "this amphora has no VRRP configuration", json!([]));
    }
    match (method, rest) {
        (&Method::DELETE, "") => {
            state.vrrp = None;
            return (200, json!({"changed": true, "status": null}));
        }
        (&Method::POST, "/hand-over") if state.vrrp_state != "MASTER" => {
            return refusal(409, "vrrp_conflict", "no virtual router is master here", json!([]));
        }
        (&Method::POST, "/hand-over") => {
            if let Some(successor) = &state.successor {
                state.vrrp_state = "BACKUP".to_owned();
                successor.lock().unwrap().vrrp_state = "MASTER".to_owned();
            }
        }
        (&Method::POST, "/stop") => state.vrrp_state = "INIT".to_owned(),
        _ => {}
    }
    let instance = json!({"name": "lb", "state": state.vrrp_state, "since_ms": 0, "reason": "started",
        "interface": "eth1", "vrid": 1, "version": 3, "priority": 100, "interval_ms": 1000,
        "master_interval_ms": 1000, "fit": true, "handed_over": false, "addresses": [], "peer": null,
        "counters": {"sent": 7, "received": 3, "priority_zero_sent": 0, "priority_zero_received": 0,
            "became_master": 2, "released_master": 1, "refused": {}}, "error": null});
    (
        200,
        json!({"version": "0", "pid": 1, "uptime_ms": 1, "started": true, "data_plane": null,
        "instances": [instance]}),
    )
}

fn certificates(
    state: &mut State,
    method: &Method,
    path: &str,
    body: (String, Option<String>, Vec<u8>),
) -> (u16, Value) {
    let told = |id: &str| {
        json!({"id": id, "kind": "identity", "certificates": [{"subject": "CN=www", "issuer": "CN=\u{1b}ca", "serial": "01",
            "not_before": "2026-01-02T00:00:00Z", "not_after": "2027-01-02T00:00:00Z", "names": ["DNS:www"],
            "key": "ECDSA P-256", "sha256": "ab"}], "revocation_lists": [], "used_by": ["loadbalancer.x"]})
    };
    let Some(id) = path.strip_prefix("/2.0/certificates/") else {
        let all: Vec<_> = state.certificates.keys().map(|id| told(id)).collect();
        return (200, json!({"certificates": all}));
    };
    match *method {
        Method::PUT if body.2.starts_with(b"bad") => {
            let fault = json!({"path": "", "reason": "has a private key and no certificate"});
            (
                400,
                json!({"code": "invalid_document", "message": "the document cannot be honoured", "faults": [fault]}),
            )
        }
        Method::PUT => {
            let changed = state.certificates.insert(id.to_owned(), body.clone()) != Some(body);
            let remarks = state.documents.values().next().map(remarks);
            (200, json!({"changed": changed, "serving": changed, "remarks": remarks}))
        }
        _ if !state.certificates.contains_key(id) => {
            (404, json!({"code": "certificate_not_found", "message": "no such certificate"}))
        }
        Method::DELETE => {
            state.certificates.remove(id);
            (200, json!({"changed": true}))
        }
        _ => (200, json!({"certificate": told(id)})),
    }
}

fn peers(state: &mut State, method: &Method, body: Value) -> (u16, Value) {
    match (state.peers_refused, method) {
        // An address that is not there yet is found out when it is to be listened on.
        (Some(409), &Method::PUT) => {
            let fault = json!({"path": "peers.listen", "reason": "Cannot assign requested address"});
            return (409, json!({"code": "conflict", "message": "not at present", "faults": [fault]}));
        }
        (Some(409), _) => {}
        (Some(status), _) => return (status, json!({"code": "x", "message": "it cannot", "faults": []})),
        (None, _) => {}
    }
    let changed = match *method {
        Method::PUT => state.peers.replace(body.clone()) != Some(body),
        Method::DELETE => state.peers.take().is_some(),
        _ => false,
    };
    let named = state.peers.as_ref().map(|document| &document["peers"]);
    let status = amphora_ipc::proxy::Peers {
        state: if named.is_some() { PeersState::Connected } else { PeersState::Off },
        listen: named.map(|peers| peers["listen"].as_str().unwrap().parse().unwrap()),
        peer: named.map(|peers| peers["peer"].as_str().unwrap().parse().unwrap()),
        entries_sent: 7,
        ..amphora_ipc::proxy::Peers::default()
    };
    if *method == Method::GET {
        return (200, json!(status));
    }
    (200, json!({"changed": changed, "status": status}))
}

/// What of a document is honoured in part.
fn remarks(document: &Value) -> Value {
    let ciphers = document.pointer("/loadbalancer/listeners/0/tls_ciphers").is_some();
    let remark = json!({"path": "loadbalancer.listeners[x].tls_ciphers", "text": "leaves out DES"});
    if ciphers { json!([remark]) } else { json!([]) }
}

fn route(state: &mut State, method: &Method, path: &str, body: Value) -> (u16, Value) {
    let refusal =
        |status: u16, message: &str| (status, json!({"code": status, "message": message, "faults": []}));
    if path == "/2.0/info" {
        let vrrp = state.vrrp.as_ref().map(|_| json!({"role": state.vrrp_state, "instances": []}));
        let loadbalancer = state.documents.keys().next();
        return (200, json!({"amphora_id": "amp", "loadbalancer": loadbalancer, "vrrp": vrrp}));
    }
    let Some(rest) = path.strip_prefix("/2.0/loadbalancers/") else {
        return refusal(404, "no such resource");
    };
    let (id, tail) = rest.split_once('/').unwrap_or((rest, ""));
    if method == Method::PUT && tail.is_empty() {
        if body.pointer("/loadbalancer/listeners/0/protocol_port") == Some(&json!(0)) {
            let fault =
                json!({"path": "loadbalancer.listeners[0].protocol_port", "reason": "must be 1 to 65535"});
            return (400, json!({"code": 400, "message": "the document has 1 fault", "faults": [fault]}));
        }
        let remarks = remarks(&body);
        state.documents.insert(id.to_owned(), body);
        return (200, json!({"changed": true, "remarks": remarks}));
    }
    if !state.documents.contains_key(id) {
        return refusal(404, "no such load balancer");
    }
    match (method, tail) {
        (&Method::GET, "") => (200, state.documents[id].clone()),
        (&Method::DELETE, "") => (200, state.documents.remove(id).unwrap()),
        (&Method::GET, "status") => (
            200,
            json!({"statuses": {"loadbalancer": {"id": id, "name": "shop", "operating_status": "ONLINE",
                "pools": state.pools}}, "remarks": remarks(&state.documents[id])}),
        ),
        (&Method::GET, "stats") => (
            200,
            json!({"stats": {"bytes_in": 1, "bytes_out": 2, "active_connections": 3,
            "total_connections": 4, "request_errors": 5}}),
        ),
        (&Method::PUT, tail) if tail.contains("/members/") => (200, body),
        _ => refusal(404, "no such resource"),
    }
}
