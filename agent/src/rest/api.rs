//! What each request does.

use std::{convert::Infallible, sync::Arc, time::Duration};

use amphora_ipc::proxy::{Fault, ListenerStats, Members, PoolStats, Stats};
use amphora_model::{ListenerId, ListenerProtocol, LoadBalancer, LoadBalancerId, PoolId};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    http::request::Parts,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{
    OPENAPI,
    body::{self, Document, Kind, Limits},
    certificates,
    error::ApiError,
    route::Resource,
    server::Caller,
    turns::Turns,
    v1, vrrp,
};
use crate::{
    amphora::Amphora,
    config::{Config, Topology},
    document,
    heartbeat::{Vitals, report},
    metrics::Metrics,
    peers::Peers,
    plumbing::{PlugError, Plumbing, Port},
    reconfigure::Reconfigure,
    status,
    tls::ServerTls,
    vrrp::Vrrp,
};

/// The version that the paths carry.
const API_VERSION: &str = "2.0";

/// The most bytes of a document that names the other amphora; the key has 256 at most.
const MAX_PEERS: usize = 16 << 10;

/// Changes of these four do not wait for one another.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) load_balancer: Turns,
    pub(super) interfaces: Turns,
    pub(super) peers: Turns,
    pub(super) vrrp: Turns,
}

/// What is known of the agent itself.
#[derive(Clone, Debug)]
pub struct Own {
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// When its last heartbeat left.
    pub vitals: Arc<Vitals>,
    /// The certificates that are in use.
    pub tls: Arc<ServerTls>,
    /// The files that it was configured by.
    pub reconfigure: Arc<Reconfigure>,
}

/// The API over one amphora.
#[derive(Debug)]
pub struct Api {
    pub(super) amphora: Arc<Amphora>,
    pub(super) plumbing: Arc<Plumbing>,
    pub(super) vrrp: Arc<Vrrp>,
    pub(super) peers: Arc<Peers>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tls: Arc<ServerTls>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) limits: Limits,
    pub(super) changes: Changes,
    pub(super) amphora_id: String,
    pub(super) topology: Topology,
    pub(super) reconfigure: Arc<Reconfigure>,
}

impl Api {
    /// An API that serves this amphora.
    pub fn new(
        config: &Config,
        amphora: Arc<Amphora>,
        plumbing: Arc<Plumbing>,
        vrrp: Arc<Vrrp>,
        peers: Arc<Peers>,
        own: Own,
    ) -> Self {
        let Own { metrics, vitals, tls, reconfigure } = own;
        Self {
            amphora,
            plumbing,
            vrrp,
            peers,
            metrics,
            tls,
            vitals,
            limits: Limits { size: config.max_body_size, time: config.request_read_timeout },
            changes: Changes::default(),
            amphora_id: config.amphora_id.clone(),
            topology: config.topology,
            reconfigure,
        }
    }

    /// Answers one request.
    ///
    /// # Errors
    /// Never: an error is an answer.
    pub(super) async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        caller: Arc<Caller>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        caller.receives();
        let (head, mut body) = request.into_parts();
        let answered = if v1::is_ours(head.uri.path()) {
            let answered = v1::answer(&self, &head, &mut body, &caller).await;
            answered.map_err(|refused| (refused.status(), refused.answer()))
        } else {
            let answered = self.answer(&head, &mut body, &caller).await;
            answered.map_err(|error| (error.status(), error.response()))
        };
        let response = match answered {
            Ok(response) => {
                self.metrics.requests_ok.inc();
                response
            }
            Err((status, response)) => {
                if status.is_server_error() {
                    self.metrics.requests_server_error.inc();
                } else {
                    self.metrics.requests_client_error.inc();
                }
                if status != StatusCode::REQUEST_TIMEOUT {
                    caller.receives();
                    body::discard(&head.headers, &mut body).await;
                }
                response
            }
        };
        let status = response.status().as_u16();
        tracing::debug!(method = %head.method, path = head.uri.path(), status, "request");
        caller.answers();
        // All of it is in one piece.
        caller.progress().completes();
        Ok(response)
    }

    async fn answer(
        &self,
        head: &Parts,
        body: &mut Incoming,
        caller: &Caller,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let resource = Resource::parse(head.uri.path())?;
        if !resource.allows(&head.method) {
            return Err(ApiError::method_not_allowed(&resource));
        }
        let reads = head.method == Method::PUT || matches!(resource, Resource::Explain(_));
        let document = if reads {
            let (limits, kinds) = self.takes(&resource);
            body::read(&head.headers, body, limits, kinds).await?
        } else {
            Document::default()
        };
        // From here on it is carried out.
        caller.work()?;
        match (resource, &head.method) {
            (Resource::Version, _) => Ok(ok(&json!({ "api_version": API_VERSION }))),
            (Resource::Info, _) => Ok(ok(&self.info().await)),
            (Resource::Health, _) => self.health().await,
            (Resource::OpenApi, _) => Ok(bytes("application/json", Bytes::from_static(OPENAPI.as_bytes()))),
            (Resource::Metrics, _) => {
                let tls = self.tls.clone();
                let expiry = spawn_blocking(move || tls.expiry());
                let (proxy, vrrp, expiry) =
                    tokio::join!(self.amphora.proxy().metrics(), self.vrrp.daemon().metrics(), expiry);
                let kept = self.amphora.certificates_expiry();
                // That it panicked is told by then.
                let expiry = expiry.unwrap_or_default();
                let text =
                    self.metrics.text(proxy.ok(), vrrp.ok(), self.vrrp.is_configured(), &expiry, &kept);
                Ok(bytes("text/plain; version=0.0.4; charset=utf-8", text.into()))
            }
            (Resource::LoadBalancer(id), &Method::PUT) => {
                let amphora = self.amphora.clone();
                let change = async move { amphora.put(id, document.content).await };
                let applied = self.changes.load_balancer.run(caller, change).await?;
                self.metrics.changes.inc();
                tracing::info!(%id, applied.generation, applied.changed, "the load balancer was put");
                Ok(ok(&applied))
            }
            (Resource::LoadBalancer(id), &Method::DELETE) => {
                let amphora = self.amphora.clone();
                let change = async move { amphora.delete(id).await };
                let applied = self.changes.load_balancer.run(caller, change).await?;
                self.metrics.changes.inc();
                tracing::info!(%id, "the load balancer was deleted");
                Ok(ok(&applied))
            }
            (Resource::LoadBalancer(id), _) => {
                Ok(bytes("application/json", self.amphora.document(id).await?))
            }
            (Resource::Status(id), _) => {
                let model = self.model(id)?;
                let proxy = self.amphora.proxy();
                // A proxy that was there before this agent may not know what that is.
                let members = async {
                    match proxy.members().await {
                        Err(error) if error.is_not_found() => Ok(Members::default()),
                        members => members,
                    }
                };
                let (stats, info, members) = tokio::try_join!(proxy.stats(), proxy.info(), members)?;
                // Of what runs, which is another in the middle of a change.
                let mut remarks = if info.loadbalancer == Some(id) { info.remarks } else { Vec::new() };
                remarks.extend(self.amphora.text_remarks());
                Ok(ok(&status::tree(
                    &model,
                    &report::statuses(&stats, Some(&model), &self.amphora.unserved()),
                    members,
                    remarks,
                )))
            }
            (Resource::Stats(id), _) => {
                let model = self.model(id)?;
                let stats = self.amphora.proxy().stats().await?;
                Ok(ok(&Statistics::new(&model, &stats)))
            }
            (Resource::Explain(id), _) => {
                self.model(id)?;
                Ok(ok(&self.amphora.proxy().explain(document.content).await?))
            }
            (Resource::Member(id, pool, member), _) => {
                let update = document::parse_member(&document.content)
                    .map_err(crate::change_error::ChangeError::Invalid)?;
                let amphora = self.amphora.clone();
                let change = async move { amphora.set_member(id, pool, member, update).await };
                let applied = self.changes.load_balancer.run(caller, change).await?;
                self.metrics.changes.inc();
                tracing::info!(target: amphora_logging::EACH, %id, %member, ?update, "a member was changed");
                Ok(ok(&applied))
            }
            (Resource::Certificates, _) => Ok(ok(&json!({ "certificates": self.amphora.certificates() }))),
            (Resource::Certificate(id), method) => {
                let turns = (&self.changes.load_balancer, caller);
                certificates::answer(
                    &self.amphora,
                    &self.metrics,
                    id,
                    (method, &head.headers),
                    document,
                    turns,
                )
                .await
            }
            (Resource::Interfaces, _) => Ok(ok(&json!({ "interfaces": self.plumbing.plugged().await }))),
            (Resource::Interface(mac), &Method::PUT) => {
                let port =
                    Port::from_json(&document.content).map_err(crate::change_error::ChangeError::Invalid)?;
                let plumbing = self.plumbing.clone();
                let change = async move { plumbing.plug(mac, port).await };
                let outcome = self.changes.interfaces.run(caller, change).await?;
                self.plumbing.leased(mac).await;
                self.metrics.changes.inc();
                Ok(ok(&json!({ "interface": outcome.interface.as_str(), "changed": outcome.changed })))
            }
            (Resource::Interface(mac), &Method::DELETE) => {
                let plumbing = self.plumbing.clone();
                let change = async move { plumbing.unplug(mac).await };
                let outcome = self.changes.interfaces.run(caller, change).await?;
                self.metrics.changes.inc();
                Ok(ok(&json!({ "interface": outcome.interface.as_str(), "changed": outcome.changed })))
            }
            (Resource::Interface(mac), _) => {
                Ok(ok(&self.plumbing.find(mac).await.ok_or(PlugError::NoInterface(mac))?))
            }
            (Resource::Peers, &Method::PUT) => {
                let peers = self.peers.clone();
                let change = async move { peers.put(document.content).await };
                let changed = self.changes.peers.run(caller, change).await?;
                self.metrics.changes.inc();
                tracing::info!(changed = changed.changed, "the other amphora was named");
                Ok(ok(&changed))
            }
            (Resource::Peers, &Method::DELETE) => {
                let peers = self.peers.clone();
                let change = async move { peers.delete().await };
                let changed = self.changes.peers.run(caller, change).await?;
                self.metrics.changes.inc();
                tracing::info!(changed = changed.changed, "there is no other amphora any more");
                Ok(ok(&changed))
            }
            (Resource::Peers, _) => Ok(ok(&self.peers.status().await?)),
            (Resource::Vrrp(resource), _) => {
                let turns = (&self.changes.vrrp, caller);
                vrrp::answer(&self.vrrp, &self.metrics, resource, &head.method, document, turns).await
            }
        }
    }

    /// Which documents may be PUT here.
    fn takes(&self, resource: &Resource) -> (Limits, &'static [Kind]) {
        let at_most = |size: usize| Limits { size: self.limits.size.min(size), ..self.limits };
        match resource {
            Resource::Peers => (at_most(MAX_PEERS), &[Kind::Json]),
            Resource::Certificate(_) => (at_most(amphora_bundle::MAX_BYTES), &[Kind::Pem, Kind::Pkcs12]),
            Resource::Vrrp(_) => (at_most(vrrp::MAX_DOCUMENT), &[Kind::Json, Kind::Text]),
            _ => (self.limits, &[Kind::Json]),
        }
    }

    fn model(&self, id: LoadBalancerId) -> Result<Arc<LoadBalancer>, ApiError> {
        let model = self.amphora.model().filter(|model| model.id == id);
        model.ok_or_else(|| crate::change_error::ChangeError::NoLoadBalancer.into())
    }

    async fn info(&self) -> Value {
        json!({
            "amphora_id": self.amphora_id,
            "hostname": hostname(),
            "api_version": API_VERSION,
            "agent_version": env!("CARGO_PKG_VERSION"),
            "topology": self.topology.as_str(),
            "loadbalancer": self.amphora.model().map(|model| model.id),
            "proxy": self.amphora.proxy().info().await.ok(),
            "vrrp": vrrp::info(&self.vrrp).await,
        })
    }

    /// 200 when the amphora does all that it was asked to, else 503 with the parts that do not.
    async fn health(&self) -> Result<Response<Full<Bytes>>, ApiError> {
        let mut faults = Vec::new();
        let mut fault = |path: &str, reason: String| faults.push(Fault { path: path.to_owned(), reason });
        match self.amphora.proxy().info().await {
            Ok(info) => {
                let stored = self.amphora.model().map(|model| model.id);
                if info.loadbalancer != stored {
                    fault("loadbalancer", "the proxy does not run what is stored".to_owned());
                }
            }
            Err(error) if error.is_not_running() => fault("proxy", error.to_string()),
            Err(error) => fault("proxy", format!("does not answer: {error}")),
        }
        for Fault { path, reason } in self.amphora.certificates_missing() {
            fault("certificate", format!("{path}: {reason}"));
        }
        for reason in self.vrrp.troubles().await {
            fault("vrrp", reason);
        }
        if let Some(reason) = self.peers.trouble() {
            fault("peers", reason);
        }
        if let Some(silence) = self.vitals.overdue() {
            fault("heartbeat", format!("none has left for {} s", silence.as_secs()));
        }
        for reason in self.amphora.disk_troubles().await {
            fault("storage", reason);
        }
        for (mac, reason) in self.plumbing.failures() {
            fault("interface", format!("{mac}: {reason}"));
        }
        if faults.is_empty() {
            return Ok(ok(&json!({ "status": "healthy" })));
        }
        let unhealthy = ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unhealthy",
            "a part of the amphora does not work",
        );
        Err(unhealthy.with_faults(faults))
    }
}

/// Octavia's statistics, and what every object has beyond them.
#[derive(Serialize)]
struct Statistics<'a> {
    stats: Totals,
    instance: &'a str,
    generation: u64,
    listeners: std::collections::BTreeMap<ListenerId, &'a ListenerStats>,
    pools: std::collections::BTreeMap<PoolId, &'a PoolStats>,
}

/// Octavia's five numbers.
#[derive(Default, Serialize)]
struct Totals {
    active_connections: u64,
    bytes_in: u64,
    bytes_out: u64,
    request_errors: u64,
    total_connections: u64,
}

impl<'a> Statistics<'a> {
    fn new(model: &LoadBalancer, all: &'a Stats) -> Self {
        let prometheus = |id: &ListenerId| {
            model.listeners.iter().any(|l| l.id == *id && l.protocol == ListenerProtocol::Prometheus)
        };
        let tenant = all.listeners.iter().filter(|(id, _)| !prometheus(id));
        let stats = tenant.fold(Totals::default(), |sum, (_, listener)| Totals {
            active_connections: sum.active_connections + listener.active_connections,
            bytes_in: sum.bytes_in + listener.bytes_in,
            bytes_out: sum.bytes_out + listener.bytes_out,
            request_errors: sum.request_errors + listener.request_errors,
            total_connections: sum.total_connections + listener.total_connections,
        });
        Self {
            stats,
            instance: &all.instance,
            generation: all.generation,
            listeners: all.listeners.iter().map(|(id, stats)| (*id, stats)).collect(),
            pools: all.pools.iter().map(|(id, stats)| (*id, stats)).collect(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "procfs answers from memory")]
pub(super) fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim_end().to_owned())
}

pub(super) fn ok(document: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(document).expect("the keys of every answer are strings");
    bytes("application/json", body.into())
}

pub(super) fn bytes(content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// How long a peer may take for the head of a request, which is also how long a connection may idle.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
