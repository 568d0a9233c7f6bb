//! A client of Octavia's API, on the host of `serve`.

use std::{
    io,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request,
    header::{CONTENT_TYPE, HOST},
};
use serde_json::Value;
use tokio::{net::TcpStream, sync::oneshot, time::timeout};

use super::super::netns::Namespace;
use crate::{
    client::exchange,
    error::{Error, Result},
};

/// Where `serve` has its API when nothing else is said.
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 9876);

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A pause between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(10);

/// The API.
#[derive(Clone, Debug)]
pub(super) struct Api {
    netns: String,
}

impl Api {
    pub(super) fn new(netns: &str) -> Self {
        Self { netns: netns.to_owned() }
    }

    /// Asks for something: status and body.
    ///
    /// # Errors
    /// There is no answer.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let failed = |e: &dyn std::fmt::Display| Error::local("the API", e);
        let stream = self.connect().await?;
        let asked = async {
            let text = body.map(Value::to_string).unwrap_or_default();
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(HOST, "serve")
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(text)))
                .map_err(|e| failed(&e))?;
            let answer = exchange(stream, request, io::Error::to_string).await;
            let (status, body) = answer.map_err(|reason| failed(&reason))?;
            Ok((status.as_u16(), serde_json::from_slice(&body).unwrap_or_default()))
        };
        timeout(ANSWER, asked).await.map_err(|_| failed(&"no answer in time"))?
    }

    /// A socket belongs to the namespace that its thread was in when it was made.
    async fn connect(&self) -> Result<TcpStream> {
        let (answer, answered) = oneshot::channel::<Result<std::net::TcpStream>>();
        let netns = self.netns.clone();
        let failed = |e: &dyn std::fmt::Display| Error::local("the API", e);
        let dial = move || {
            Namespace::enter(&netns)?;
            let address = SocketAddr::from(ADDRESS);
            let stream = std::net::TcpStream::connect(address).map_err(|e| failed(&e))?;
            stream.set_nonblocking(true).map_err(|e| failed(&e))?;
            Ok(stream)
        };
        thread::spawn(move || {
            let _ = answer.send(dial());
        });
        let stream = answered.await.map_err(|e| failed(&e))??;
        TcpStream::from_std(stream).map_err(|e| failed(&e))
    }

    /// Asks for a change, and says why it was refused, if it was.
    ///
    /// # Errors
    /// No answer, or none that says that it is accepted.
    pub(super) async fn change(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, answer) = self.ask(method.clone(), path, body).await?;
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let why = answer["faultstring"].as_str().unwrap_or_default();
        Err(Error::NotTrue(format!("{method} {path}: {status} {why}")))
    }

    /// The amphorae of a load balancer.
    pub(super) async fn amphorae(&self, load_balancer: &str) -> Result<Vec<Value>> {
        let path = format!("/v2/octavia/amphorae?loadbalancer_id={load_balancer}");
        let answer = self.change(Method::GET, &path, None).await?;
        Ok(answer["amphorae"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until `found` says so of what a path has, for `limit` at most. Returns how long it took.
    ///
    /// # Errors
    /// It is not so within the limit.
    pub(super) async fn until(
        &self,
        limit: Duration,
        path: &str,
        found: impl Fn(u16, &Value) -> bool,
    ) -> Result<Duration> {
        let begin = Instant::now();
        loop {
            let answer = self.ask(Method::GET, path, None).await;
            if let Ok((status, value)) = &answer
                && found(*status, value)
            {
                return Ok(begin.elapsed());
            }
            if begin.elapsed() > limit {
                return Err(match answer {
                    Ok((status, value)) => Error::NotTrue(format!("GET {path}: still {status} {value}")),
                    Err(error) => error,
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
