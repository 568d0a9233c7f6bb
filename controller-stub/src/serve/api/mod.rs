//! Octavia's API, version 2, over the database.
//!
//! Handlers do everything in one transaction: they read, judge, write rows, raise the generation of the load balancer and ask for the
//! work that makes it so. A change of what is PENDING is folded into the work under way.
//!
//! | file | what |
//! | --- | --- |
//! | `server`, `socket`, `room`, `tls` | connections, bodies, bounds; TLS in front of them |
//! | `router` | which handler a request is for |
//! | `context`, `identity` | who asks; tokens and the catalog, as of Keystone |
//! | `attributes` | the tables of attributes, from which bodies, rows, answers and filters follow |
//! | `lists` | filters, sorting, pages |
//! | `events` | what changes, as a stream |
//! | `openapi` | the description of all this, for programs |
//! | `page` | the page for persons |
//! | `change` | generations, PENDING states, quotas, work |
//! | `judge`, `expressions` | what no amphora would take; regular expressions, which the proxy judges |
//! | `certificates`, `turns` | tenants' certificates, looked at before the transaction; who may look and write, and how many at a time |
//! | `resources` | what is special of a resource |
//! | `export` | load balancers as bodies for another Octavia |
//! | `fault`, `versions`, `request`, `reply`, `scope` | answers of errors, the document of versions, requests, what is sent, what handlers have |

mod attributes;
mod certificates;
mod change;
mod context;
mod events;
pub mod export;
mod expressions;
mod fault;
mod identity;
mod judge;
mod lists;
mod openapi;
mod page;
mod reply;
mod request;
mod resources;
mod room;
mod router;
mod scope;
pub mod server;
mod socket;
#[cfg(test)]
mod tests;
pub mod tls;
mod versions;

use std::sync::Arc;

use bytes::Bytes;
use hyper::{
    HeaderMap, Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST},
    http::request::Parts,
};
use rusqlite::Transaction;
use serde_json::json;

use self::{
    attributes::L7RULE,
    certificates::{Known, Looks, Wanted},
    events::Events,
    expressions::Expressions,
    fault::Fault,
    identity::Identity,
    reply::Reply,
    request::{Answer, Query, Request},
    router::{Found, Route, find},
    scope::Scope,
};
use super::{
    amphora::Driver,
    certificates::tenants::Tenants,
    config::{AuthStrategy, Config},
    db::{self, Db},
    health_manager::traffic::Traffic,
    metrics::{self, rows::Rows},
    network::Networks,
    policies::{Context, Rule},
    turns::Turns,
};

/// The API of one database.
#[derive(Debug)]
pub struct Api {
    db: Db,
    shared: Arc<Shared>,
    identity: Identity,
    expressions: Expressions,
    looks: Looks,
    /// Who waits to write: a project's writes are before those of others, and of the worker, no more than a few at a time.
    writes: Turns,
    events: Events,
    traffic: Arc<Traffic>,
    agents: Option<Driver>,
}

/// Requests that are written, or wait for it, at a time, and of one project.
const WRITES: (usize, usize) = (256, 4);

#[derive(Debug)]
struct Shared {
    config: Config,
    networks: Networks,
}

impl Api {
    /// The API over a database.
    pub fn new(db: Db, config: Config, certificates: Tenants) -> Self {
        let networks = Networks::new(config.networks.clone());
        let identity = Identity::new(config.users.clone());
        let expressions = Expressions::new(config.compute.proxy_cmd.clone());
        let events = Events::new(db.clone());
        let traffic = Traffic::new(tokio::time::Instant::now().into_std(), config.health.interval).into();
        let looks = Looks::new(certificates);
        let shared = Arc::new(Shared { config, networks });
        let writes = Turns::new(WRITES.0, WRITES.1);
        Self { db, identity, expressions, looks, writes, events, traffic, agents: None, shared }
    }

    /// The page asks agents who is master.
    #[must_use]
    pub fn with_agents(self, agents: Driver) -> Self {
        Self { agents: Some(agents), ..self }
    }

    /// Where heartbeats tell the traffic that the page shows.
    pub fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }

    /// What is to run while requests are answered; never ends.
    async fn follow(&self) {
        self.events.follow().await;
    }

    /// Replies to one request: most are answered in JSON.
    async fn reply(&self, head: &Parts, body: Bytes) -> Reply {
        let api = &self.shared.config.api;
        if api.auth == AuthStrategy::NoAuth && context::is_misled(&head.headers, api.base_uri.as_deref()) {
            let text = "A browser is served under an address, as localhost, or as api_base_uri says: others' pages can make any other name \
                mean this host, and nobody is asked here who it is.";
            return Fault::new(403, text).into();
        }
        let replied = match find(&head.method, head.uri.path()) {
            Found::Events => self.stream(head).await,
            Found::Metrics => self.metrics(head).await,
            Found::Page(path) => self.page(head, path).await,
            Found::Versions if head.uri.path() == "/" && page::is_wanted(&head.headers) => {
                self.page(head, page::INDEX).await
            }
            _ => return Reply::Json(self.answer(head, body).await),
        };
        replied.unwrap_or_else(|fault| Reply::Json(self.with_way_in(fault.into())))
    }

    async fn stream(&self, head: &Parts) -> Result<Reply, Fault> {
        if head.method != Method::GET {
            return Ok(Reply::Json(not_allowed(&[&Method::GET])));
        }
        let context = self.caller(&head.headers).await?;
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let is_by_token = self.shared.config.api.auth == AuthStrategy::Keystone;
        let leave = if is_by_token { self.identity.leave(&head.headers, seconds()) } else { None };
        let stream = self.events.open((&context, leave), &head.headers, &query).await?;
        Ok(Reply::Events(Box::new(stream)))
    }

    /// The page for persons, and what it asks for.
    async fn page(&self, head: &Parts, path: &str) -> Result<Reply, Fault> {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return Ok(Reply::Json(not_allowed(&[&Method::GET])));
        }
        let auth = self.shared.config.api.auth;
        if path == page::INDEX && auth == AuthStrategy::HttpBasic {
            // So a browser asks for name and password, and sends them with all that follows.
            self.caller(&head.headers).await?;
        }
        if let Some(file) = page::file(path, auth) {
            return Ok(file);
        }
        let context = self.caller(&head.headers).await?;
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let answer = match path {
            page::TREE => {
                let tree = self.db.read(move |t| page::tree(t, &context, &query)).await?;
                return Ok(Reply::Text {
                    kind: "application/json",
                    text: room::answer(tree)?,
                    headers: Vec::new(),
                });
            }
            page::MASTERS => page::masters(&self.db, self.agents.as_ref(), &context, &query).await?,
            page::RATES => {
                let traffic = self.traffic.clone();
                let now = tokio::time::Instant::now().into_std();
                self.db.read(move |t| page::rates(t, &context, &query, &traffic, now)).await?
            }
            _ => return Err(Fault::new(404, "The resource could not be found.")),
        };
        Ok(Reply::Json(answer))
    }

    /// Counters. Prometheus asks for no token, so a password does as well.
    async fn metrics(&self, head: &Parts) -> Result<Reply, Fault> {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return Ok(Reply::Json(not_allowed(&[&Method::GET])));
        }
        let api = &self.shared.config.api;
        if api.auth != AuthStrategy::NoAuth && api.metrics_auth {
            let context = if head.headers.contains_key(AUTHORIZATION) {
                self.identity.basic(&head.headers).await?
            } else {
                self.caller(&head.headers).await?
            };
            if !context.may(Rule::ReadGlobal, None) {
                return Err(Fault::forbidden());
            }
        }
        let path = self.db.path();
        let rows = self.db.read(move |t| Ok::<_, Fault>(Rows::read(t, now(t)?, &path)?)).await?;
        let text = metrics::metrics().text(&rows, self.events.streams());
        Ok(Reply::Text { kind: metrics::TEXT, text: text.into(), headers: Vec::new() })
    }

    /// Who asks.
    async fn caller(&self, headers: &HeaderMap) -> Result<Context, Fault> {
        match self.shared.config.api.auth {
            AuthStrategy::NoAuth => Ok(context::unasked(headers)),
            AuthStrategy::Keystone => self.identity.token(headers, seconds()),
            AuthStrategy::HttpBasic => self.identity.basic(headers).await,
        }
    }

    /// Status and body of an answer, for tests of others.
    #[cfg(test)]
    pub(in crate::serve) async fn told(&self, head: &Parts, body: Bytes) -> (u16, serde_json::Value) {
        let answer = self.answer(head, body).await;
        (answer.status, answer.body.unwrap_or_default())
    }

    /// Answers one request. An error is an answer.
    async fn answer(&self, head: &Parts, body: Bytes) -> Answer {
        self.with_way_in(self.try_answer(head, body).await.unwrap_or_else(Answer::from))
    }

    /// Tells who is not known how to say who it is.
    fn with_way_in(&self, mut answer: Answer) -> Answer {
        if answer.status == 401 {
            let way = match self.shared.config.api.auth {
                AuthStrategy::HttpBasic => "Basic realm=\"octavia\"",
                AuthStrategy::NoAuth | AuthStrategy::Keystone => "Keystone",
            };
            answer.headers.push(("www-authenticate", way.to_owned()));
        }
        answer
    }

    async fn try_answer(&self, head: &Parts, body: Bytes) -> Result<Answer, Fault> {
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(refused) = text(ACCEPT).and_then(not_acceptable) {
            return Ok(refused);
        }
        let host = head.uri.authority().map(|authority| authority.as_str()).or_else(|| text(HOST));
        let api = &self.shared.config.api;
        let base = api.base_uri.clone().unwrap_or_else(|| {
            let scheme = if api.tls.is_some() { "https" } else { "http" };
            format!("{scheme}://{}", host.unwrap_or("localhost"))
        });
        let (route, names) = match find(&head.method, head.uri.path()) {
            Found::Versions if matches!(head.method, Method::GET | Method::HEAD) => {
                return Ok(Answer::new(200, versions::document(&base)));
            }
            Found::Description if matches!(head.method, Method::GET | Method::HEAD) => {
                return Ok(Answer::new(200, openapi::document(self.shared.config.api.auth)));
            }
            Found::Versions | Found::Description => return Ok(not_allowed(&[&Method::GET])),
            Found::Methods(methods) => return Ok(not_allowed(&methods)),
            Found::Identity(path) if self.shared.config.api.auth == AuthStrategy::Keystone => {
                let query = Query::parse(head.uri.query().unwrap_or_default());
                let said = (&head.headers, &body[..]);
                let answer =
                    self.identity.answer((&head.method, &path), (&base, &query), said, seconds()).await;
                return Ok(answer.unwrap_or_else(|fault| identity::refused(&fault)));
            }
            Found::Identity(path) if self.shared.config.api.auth == AuthStrategy::NoAuth => {
                let query = Query::parse(head.uri.query().unwrap_or_default());
                return identity::any_project(&path, &query);
            }
            Found::Nothing | Found::Identity(_) | Found::Events | Found::Metrics | Found::Page(_) => {
                return Err(Fault::new(404, "The resource could not be found."));
            }
            Found::Route(route, names) => (route, names),
        };
        let context = self.caller(&head.headers).await?;
        let request = Request {
            base,
            path: head.uri.path().to_owned(),
            query: Query::parse(head.uri.query().unwrap_or_default()),
            content_type: text(CONTENT_TYPE).unwrap_or_default().to_owned(),
            body,
            context,
        };
        if route.method != Method::GET && !request.body.is_empty() {
            let changes_rule = route.method == Method::PUT && route.resource.table == L7RULE.table;
            let changed = if changes_rule { names.last().map(String::as_str) } else { None };
            self.expressions.judge(&self.db, &request.context, &request.body, changed).await?;
        }
        self.handle(route, names, request).await
    }

    /// Has a handler answer, in a transaction: again, where it wants to know of certificates that were not looked at.
    async fn handle(
        &self,
        route: &'static Route,
        names: Vec<String>,
        request: Request,
    ) -> Result<Answer, Fault> {
        let shared = Arc::new((names, request));
        let mut known = Known::default();
        // What it wants to know follows from the request and from rows, which may change meanwhile, though not again and again.
        for _ in 0..4 {
            let (of_all, of_this) = (self.shared.clone(), shared.clone());
            let piece = move |t: &Transaction<'_>| {
                let (names, request) = &*of_this;
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                let Shared { config, networks } = &*of_all;
                let scope = Scope { t, request, config, networks, certificates: &known, now: now(t)? };
                let answer = (route.handler)(&scope, route.resource, &names);
                match known.wanted() {
                    None => answer.map_err(Undone::from),
                    Some(wanted) => Err(Undone::Wants(known, wanted)),
                }
            };
            let done = if route.method == Method::GET {
                self.db.read(piece).await
            } else {
                let project = shared.1.context.project_id.as_deref().unwrap_or_default();
                let _turn = self.writes.take(project).await.ok_or_else(|| Fault::new(503, "closing"))?;
                self.db.write(piece).await
            };
            known = match done {
                Ok(answer) => return Ok(answer),
                Err(Undone::Refused(fault)) => return Err(fault),
                Err(Undone::Wants(known, wanted)) => self.looks.look(known, wanted).await?,
            };
        }
        Err(Fault::new(503, "Certificates are changed meanwhile. Please try again."))
    }
}

/// Why what a handler has done is undone.
enum Undone {
    Refused(Fault),
    /// It wants to know more.
    Wants(Known, Wanted),
}

impl From<Fault> for Undone {
    fn from(fault: Fault) -> Self {
        Self::Refused(fault)
    }
}

impl From<db::Error> for Undone {
    fn from(error: db::Error) -> Self {
        Self::Refused(error.into())
    }
}

/// The time in seconds since 1970.
fn seconds() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

/// The time of a transaction, in milliseconds since 1970.
fn now(t: &Transaction<'_>) -> Result<i64, Fault> {
    let text = "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)";
    Ok(t.prepare_cached(text)?.query_row([], |row| row.get(0))?)
}

/// The answer to a client that takes no JSON.
fn not_acceptable(accept: &str) -> Option<Answer> {
    let takes_json = accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused = parts.any(|part| part == "q=0");
        !refused && matches!(kind.as_str(), "*/*" | "application/*" | "application/json" | "*")
    });
    if takes_json || accept.trim().is_empty() {
        return None;
    }
    let detail = "Only content type application/json is accepted.";
    let error = json!({"status": 406, "title": "Not Acceptable", "detail": detail});
    Some(Answer::new(406, json!({"errors": [error]})))
}

fn not_allowed(methods: &[&Method]) -> Answer {
    let mut answer = Answer::from(Fault::new(405, "The method is not allowed for this resource."));
    let methods: Vec<_> = methods.iter().map(|method| method.as_str()).collect();
    answer.headers.push(("allow", methods.join(", ")));
    answer
}
