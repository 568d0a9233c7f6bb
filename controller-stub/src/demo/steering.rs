//! The steps about what Octavia specified and never built, or has no word for: requests shared among pools, and rate limits.

use std::{collections::BTreeMap, net::SocketAddr};

use hyper::{StatusCode, header};
use tokio::sync::oneshot;

use super::{
    HEADER_POOL,
    document::{API, Demo, THRESHOLD, Third, Variant, WEB},
    exchange::{Ask, Kind},
    sender::{Failure, Route, Sender},
    stage::Stage,
    worker::Worker,
};
use crate::error::{Error, Result};

/// Requests of the one client that asks the third listener.
const REQUESTS: u32 = 200;

/// What that client was told.
#[derive(Debug, Default)]
struct Told {
    /// How often by which pool.
    pools: BTreeMap<String, u32>,
    /// How often that it has asked too often, and the shortest time after which it may ask again, in seconds.
    denied: u32,
    retry_after: Option<u64>,
    /// What else.
    other: Vec<String>,
}

impl Stage {
    /// A canary, all of it, and then a limit.
    pub(super) async fn steer(&mut self, demo: &Demo) -> Result<()> {
        self.board.step("a canary: one request in ten goes to pool api");
        let phase = self.next_phase();
        let seen = self.third(demo, Third::Canary { weights: [9, 1] }).await?;
        let of = |seen: &Told, pool: &str| seen.pools.get(pool).copied().unwrap_or_default();
        let (web, api) = (of(&seen, WEB.0), of(&seen, API.0));
        // Each worker counts for itself, and connections are on any of them.
        self.board.check(
            web + api == REQUESTS && api.abs_diff(REQUESTS / 10) <= 2 && seen.is_right(),
            format!("{web} of {REQUESTS} requests by pool web, {api} by pool api: {}", seen.harm()),
        );
        let seen = self.third(demo, Third::Canary { weights: [0, 1] }).await?;
        self.board.check(
            of(&seen, API.0) == REQUESTS && seen.is_right(),
            format!(
                "weights 0 and 1: all of {REQUESTS} by pool api, on the connection that was there: {}",
                seen.harm()
            ),
        );
        self.board.step(&format!("a rate limit: {THRESHOLD} requests a minute for each client"));
        let seen = self.third(demo, Third::Limited).await?;
        let served = of(&seen, WEB.0);
        // A minute may begin meanwhile, and then rounds once.
        self.board.check(
            served.abs_diff(THRESHOLD) <= 1 && served + seen.denied == REQUESTS && seen.other.is_empty(),
            format!(
                "{served} of {REQUESTS} requests answered, {} denied with 429: {}",
                seen.denied,
                seen.harm()
            ),
        );
        self.board.check(
            seen.retry_after.is_some_and(|seconds| (1..=120).contains(&seconds)),
            format!("Retry-After says when: after {} s", seen.retry_after.unwrap_or_default()),
        );
        self.client().put(demo.id(), &demo.document(Variant::default())).await?;
        self.unharmed(phase, "at the other listeners meanwhile");
        self.linger().await
    }

    /// Applies the document with this listener, and asks there.
    async fn third(&mut self, demo: &Demo, third: Third) -> Result<Told> {
        let variant = Variant { third_listener: Some(third), ..Variant::default() };
        self.client().put(demo.id(), &demo.document(variant)).await?;
        let address = demo.third_address();
        let (tell, told) = oneshot::channel();
        let mut worker = Worker::start(self.topology().client_netns(), move || async move {
            let _ = tell.send(ask(address).await);
        })?;
        worker.finish().await?;
        told.await.unwrap_or_else(|_| Err(Error::Local("the clients' thread told nothing".to_owned())))
    }
}

async fn ask(address: SocketAddr) -> Result<Told> {
    let unreachable = |error| Error::local(address, error);
    let route = Route::from(address);
    let mut sender: Sender = route.connect().await.map_err(unreachable)?;
    let mut told = Told::default();
    for n in 0..REQUESTS {
        if !sender.ready().await {
            sender = route.connect().await.map_err(unreachable)?;
        }
        match sender.exchange(&Ask::new(Kind::Page, n.into(), None), false).await {
            Ok((response, _)) => told.take(response.status(), response.headers()),
            Err(Failure::Unsent) => told.other.push("not sent".to_owned()),
            Err(Failure::Broken(reason)) => told.other.push(reason),
        }
    }
    Ok(told)
}

impl Told {
    fn take(&mut self, status: StatusCode, headers: &hyper::HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        match (status, text(HEADER_POOL)) {
            (StatusCode::OK, Some(pool)) => *self.pools.entry(pool.to_owned()).or_default() += 1,
            (StatusCode::TOO_MANY_REQUESTS, None) => {
                self.denied += 1;
                let seconds = text(header::RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
                self.retry_after = self.retry_after.into_iter().chain(seconds).min();
            }
            _ => self.other.push(status.to_string()),
        }
    }

    fn is_right(&self) -> bool {
        self.denied == 0 && self.other.is_empty()
    }

    fn harm(&self) -> String {
        match self.other.first() {
            None => "nothing else".to_owned(),
            Some(first) => format!("{} others, such as {first}", self.other.len()),
        }
    }
}
