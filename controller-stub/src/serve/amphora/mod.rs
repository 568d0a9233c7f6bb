//! The driver of amphorae: what their agents are told.
//!
//! | module | what |
//! | --- | --- |
//! | [`orders`] | what one of them is to be, as the documents of its API |

pub mod orders;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use amphora_agent::vrrp_client::VrrpAction;
use amphora_ipc::proxy::Fault;
use amphora_model::{CertificateId, LoadBalancer, LoadBalancerId};
use futures_util::future::try_join_all;
use rustls::ClientConfig;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

pub use self::orders::Orders;
use self::orders::Pair;
use crate::{
    client::{Client, Credential},
    error::{Error, Result},
    failpoint::reach,
    serve::document,
    vrrp_document::VrrpDocument,
};

/// How long an agent has for one answer.
const ANSWER: Duration = Duration::from_secs(30);

/// How long it has to say who is master.
const GLANCE: Duration = Duration::from_secs(1);

/// How often an agent that starts is asked whether it has: a connection that is refused costs next to nothing.
const POLL: Duration = Duration::from_millis(4);

/// How often is asked whether an interface is there that was plugged in.
const SEEN: Duration = Duration::from_millis(50);

/// Who an agent is, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Agent {
    /// The amphora's id, which its certificate carries.
    pub id: String,
    /// Its API.
    pub address: SocketAddr,
}

/// Speaks to agents, with the certificate of the controller's that is the newest.
#[derive(Clone, Debug)]
pub struct Driver {
    tls: watch::Receiver<Arc<ClientConfig>>,
}

impl Driver {
    /// What comes by `tls` is used from the next request on.
    pub fn new(tls: watch::Receiver<Arc<ClientConfig>>) -> Self {
        Self { tls }
    }

    /// For further requests: status, statistics.
    ///
    /// # Errors
    /// The id is none.
    pub fn client(&self, agent: &Agent) -> Result<Client> {
        let endpoint = format!("https://{}@{}", agent.id, agent.address).parse().map_err(Error::Local)?;
        Ok(Client::new(endpoint, self.tls.borrow().clone(), None, ANSWER))
    }

    /// Waits until an agent answers and its daemons run. May be cancelled.
    ///
    /// # Errors
    /// What kept it, when it is not so within `patience`.
    pub async fn ready(&self, agent: &Agent, paired: bool, patience: Duration) -> Result<()> {
        let client = self.client(agent)?;
        let deadline = Instant::now() + patience;
        loop {
            let missing = match runs(&client, paired).await {
                Ok(None) => return Ok(()),
                Ok(Some(what)) => Error::NotDone(format!("{} does not run in {}", what, client.endpoint())),
                Err(error) => error,
            };
            if Instant::now() >= deadline {
                return Err(missing);
            }
            sleep(POLL).await;
        }
    }

    /// Makes an amphora what it is to be, unless it refuses certificates. What is so already stays untouched. May be cancelled.
    ///
    /// # Errors
    /// The first other thing that the agent refused, or that it cannot be reached.
    pub async fn apply(&self, agent: &Agent, orders: &Orders) -> Result<Applied> {
        let client = self.client(agent)?;
        for (mac, document) in &orders.interfaces {
            reach("agent.interface");
            plug(&client, mac, document).await?;
            reach("agent.interface.done");
        }
        let brought = orders.certificates.iter().map(|(name, credential)| bring(&client, name, credential));
        let refused: BTreeMap<_, _> = try_join_all(brought).await?.into_iter().flatten().collect();
        if !refused.is_empty() {
            keep_paired(&client, orders).await;
            return Ok(Applied::NotTaken(refused));
        }
        reach("agent.document");
        if let Err(error) = client.put(id(&orders.load_balancer)?, &orders.document).await {
            let refused = blamed(&error, &orders.document);
            if refusal(&error).is_some() {
                keep_paired(&client, orders).await;
            }
            return if refused.is_empty() { Err(error) } else { Ok(Applied::NotUsed(refused)) };
        }
        reach("agent.document.done");
        if let Some(told) = &orders.pair {
            pair(&client, told).await?;
        }
        Ok(Applied::Wholly)
    }

    /// A document without certificates that are not to be had. Those of them that the amphora has are used on, but for `refused` ones; what names others
    /// stays as it is there, or is left out. `None` when that is no document that an amphora takes. May be cancelled.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn without(
        &self,
        agent: &Agent,
        load_balancer: &str,
        document: &Value,
        (lacking, refused): (BTreeSet<CertificateId>, &BTreeSet<CertificateId>),
    ) -> Result<Option<Value>> {
        let client = self.client(agent)?;
        let (told, uses) = (client.certificates().await?, document::uses(document));
        let has = |id: &CertificateId| {
            let all = told.get("certificates").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let text = |one: &Value, field| one.get(field).and_then(Value::as_str).map(str::to_owned);
            let kinds = uses.get(id).map_or(&[][..], Vec::as_slice);
            // One whose file there is not usable has no kind.
            all.iter().any(|one| {
                text(one, "id").is_some_and(|name| name == id.to_string())
                    && text(one, "kind").is_some_and(|is| kinds.iter().all(|kind| is == kind.as_str()))
            })
        };
        let missing: BTreeSet<_> =
            lacking.into_iter().filter(|id| refused.contains(id) || !has(id)).collect();
        if missing.is_empty() {
            return Ok(Some(document.clone()));
        }
        let before = client.get(id(load_balancer)?).await?;
        let left = document::without(document, &missing, before.as_ref());
        Ok(LoadBalancer::from_value(&left).is_ok().then_some(left))
    }

    /// Has an amphora forget a port. May be cancelled.
    ///
    /// # Errors
    /// It does not answer, or cannot.
    pub async fn unplug(&self, agent: &Agent, mac: &str) -> Result<()> {
        match self.client(agent)?.unplug(mac).await {
            // As one that was plugged half, or is forgotten already.
            Err(Error::Refused { status: 404, .. }) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Whether an amphora holds the addresses of its pair; `None` when it cannot be asked.
    pub async fn is_master(&self, agent: &Agent) -> Option<bool> {
        let client = self.client(agent).ok()?;
        // One that hangs must not keep the others waiting.
        let status = timeout(GLANCE, client.vrrp_status()).await.ok()?.ok()??;
        Some(
            !status.instances.is_empty()
                && status.instances.iter().all(|instance| instance.state == "MASTER"),
        )
    }

    /// Lets one of a pair hand over to the other, and waits until that is master.
    ///
    /// # Errors
    /// It is not within `patience`.
    pub async fn hand_over(&self, from: &Agent, to: &Agent, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let (leaves, takes) = (self.client(from)?, self.client(to)?);
        // Whoever is to take over must have found its place first: asked for too early, nobody hears of it.
        while !takes.vrrp_status().await?.is_some_and(|status| {
            status.started && status.instances.iter().all(|instance| instance.fit && instance.state != "INIT")
        }) {
            if Instant::now() >= deadline {
                return Err(Error::NotDone(format!("{} is not fit to take over", takes.endpoint())));
            }
            sleep(POLL).await;
        }
        if self.is_master(to).await == Some(true) {
            return Ok(());
        }
        reach("agent.hand_over");
        leaves.act(VrrpAction::HandOver).await?;
        reach("agent.hand_over.done");
        loop {
            if self.is_master(to).await == Some(true) && self.is_master(from).await == Some(false) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::NotDone(format!("{} did not take over", takes.endpoint())));
            }
            sleep(POLL).await;
        }
    }
}

/// What became of orders.
#[derive(Debug, PartialEq, Eq)]
pub enum Applied {
    /// The amphora is what it is to be.
    Wholly,
    /// It has not taken these certificates, for this reason, and was told nothing that comes after them.
    NotTaken(BTreeMap<CertificateId, String>),
    /// It has, and refuses a document that names them.
    NotUsed(BTreeMap<CertificateId, String>),
}

fn id(load_balancer: &str) -> Result<LoadBalancerId> {
    load_balancer.parse().map_err(|_| Error::Local(format!("no id: {load_balancer}")))
}

/// The reason of a refusal that is of what was sent, and would be the same again.
fn refusal(error: &Error) -> Option<&[Fault]> {
    match error {
        Error::Refused { status: 400 | 409 | 413 | 422, faults, .. } => Some(faults),
        _ => None,
    }
}

/// The certificates for which a document was refused; none when there is another reason as well.
fn blamed(error: &Error, document: &Value) -> BTreeMap<CertificateId, String> {
    let mut blamed = BTreeMap::new();
    for fault in refusal(error).unwrap_or_default() {
        let named = document::at(document, &fault.path, &fault.reason);
        if named.is_empty() {
            return BTreeMap::new();
        }
        blamed.extend(named.into_iter().map(|id| (id, format!("{}: {}", fault.path, fault.reason))));
    }
    blamed
}

/// Tells one of a pair of the other.
async fn pair(client: &Client, told: &Pair) -> Result<()> {
    reach("agent.peers");
    client.put_peers(&told.peers).await?;
    reach("agent.peers.done");
    client.put_vrrp(&VrrpDocument::Native(told.vrrp.clone())).await?;
    reach("agent.vrrp.done");
    Ok(())
}

/// The same of one that refuses what it is to be, where it serves something: else it would hear nothing of the other one, and both would
/// have the addresses. What fails of it is done when all is tried again.
async fn keep_paired(client: &Client, orders: &Orders) {
    let Some(told) = &orders.pair else { return };
    let done = async {
        match client.get(id(&orders.load_balancer)?).await? {
            Some(_) => pair(client, told).await,
            None => Ok(()),
        }
    };
    if let Err(error) = done.await {
        tracing::debug!(amphora = %client.endpoint(), %error, "it is not told of the other one");
    }
}

/// What does not run yet, if anything.
async fn runs(client: &Client, paired: bool) -> Result<Option<&'static str>> {
    let info = client.info().await?;
    if info.get("proxy").is_none_or(Value::is_null) {
        return Ok(Some("the proxy"));
    }
    let vrrp = !paired || client.vrrp_status().await?.is_some();
    Ok((!vrrp).then_some("the VRRP daemon"))
}

/// Has a port configured, once its interface is there: a machine takes its time to find one that was plugged in.
async fn plug(client: &Client, mac: &str, document: &Value) -> Result<()> {
    let deadline = Instant::now() + ANSWER;
    loop {
        match client.plug(mac, document).await {
            Err(Error::Refused { status: 404, .. }) if Instant::now() < deadline => sleep(SEEN).await,
            done => return done.map(drop),
        }
    }
}

/// Brings a certificate, and tells its name and the reason if it is refused.
async fn bring(
    client: &Client,
    id: &CertificateId,
    credential: &Credential,
) -> Result<Option<(CertificateId, String)>> {
    reach("agent.certificate");
    match client.put_certificate(id, credential).await {
        Err(error) if refusal(&error).is_some() => {
            return Ok(Some((id.clone(), format!("the certificate {id}: {error}"))));
        }
        done => done?,
    };
    reach("agent.certificate.done");
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_for_certificates_when_nothing_else_is_wrong() {
        let document = json!({"loadbalancer": {
            "listeners": [{"id": "L", "default_tls_container_ref": "one", "sni_container_refs": ["https://s/v1/two", "three"]}],
            "pools": [{"id": "P", "ca_tls_container_ref": "four"}],
        }});
        let refused = |status, faults: &[(&str, &str)]| {
            let faults =
                faults.iter().map(|(path, reason)| Fault { path: (*path).into(), reason: (*reason).into() });
            let error = Error::Refused {
                amphora: "a".to_owned(),
                status,
                message: "no".to_owned(),
                faults: faults.collect(),
            };
            let names = blamed(&error, &document).into_keys().map(|id| id.to_string());
            names.collect::<Vec<_>>().join(" ")
        };
        let (sni, default) = (
            "loadbalancer.listeners[L].sni_container_refs",
            "loadbalancer.listeners[L].default_tls_container_ref",
        );
        let pool = "loadbalancer.pools[P].ca_tls_container_ref";
        for (status, faults, expected) in [
            (400, &[(default, "is not usable")][..], "one"),
            (400, &[(sni, "needs a private key with its certificate; three has revocation lists")], "three"),
            (400, &[(sni, "is not usable")], "three two"),
            (409, &[(default, "no"), (pool, "there is no certificate four")], "four one"),
            (400, &[(default, "no"), ("loadbalancer.listeners[L].protocol_port", "is taken")], ""),
            (400, &[("loadbalancer.listeners[M].default_tls_container_ref", "no")], ""),
            (400, &[], ""),
            (503, &[(default, "is not usable")], ""),
        ] {
            assert_eq!(refused(status, faults), expected, "{status} {faults:?}");
        }
    }
}
