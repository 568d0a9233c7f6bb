use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixListener, task::JoinHandle};

/// What a fake daemon does about a request.
pub(crate) trait Fake: Send + 'static {
    /// True while it answers nothing.
    fn is_hanging(&self) -> bool;

    /// An error breaks off without an answer.
    fn answer(&mut self, method: &Method, path: &str, body: Bytes) -> io::Result<Response<Full<Bytes>>>;
}

/// A control socket behind which nothing is.
pub(crate) struct FakeSocket<F> {
    pub(crate) path: PathBuf,
    state: Arc<Mutex<F>>,
    server: Option<JoinHandle<()>>,
}

impl<F: Fake> FakeSocket<F> {
    pub(crate) fn new(path: PathBuf, state: F) -> Self {
        Self { path, state: Arc::new(Mutex::new(state)), server: None }
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, F> {
        self.state.lock().unwrap()
    }

    pub(crate) fn start(&mut self) {
        let listener = UnixListener::bind(&self.path).unwrap();
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
        let _ = std::fs::remove_file(&self.path);
    }
}

impl<F> Drop for FakeSocket<F> {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve<F: Fake>(
    state: Arc<Mutex<F>>,
    request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let is_hanging = || state.lock().unwrap().is_hanging();
    while is_hanging() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    state.lock().unwrap().answer(&head.method, head.uri.path(), body)
}

pub(crate) fn json(status: StatusCode, document: &impl serde::Serialize) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(serde_json::to_vec(document).unwrap().into()));
    *response.status_mut() = status;
    response
}
