//! The driver of amphorae: what their agents are told.
//!
//! | module | what |
//! | --- | --- |
//! | [`orders`] | what one of them is to be, as the documents of its API |

pub mod orders;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use amphora_agent::vrrp_client::VrrpAction;
use amphora_model::{CertificateId, LoadBalancerId};
use futures_util::future::try_join_all;
use rustls::ClientConfig;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

pub use self::orders::Orders;
use crate::{
    client::{Client, Credential},
    error::{Error, Result},
    failpoint::reach,
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

    /// Makes an amphora what it is to be. What is so already stays untouched. May be cancelled.
    ///
    /// # Errors
    /// The first thing that the agent refused, or that it cannot be reached.
    pub async fn apply(&self, agent: &Agent, orders: &Orders) -> Result<()> {
        let client = self.client(agent)?;
        for (mac, document) in &orders.interfaces {
            reach("agent.interface");
            plug(&client, mac, document).await?;
            reach("agent.interface.done");
        }
        try_join_all(orders.certificates.iter().map(|(name, credential)| bring(&client, name, credential)))
            .await?;
        let id: LoadBalancerId = orders
            .load_balancer
            .parse()
            .map_err(|_| Error::Local(format!("no id: {}", orders.load_balancer)))?;
        reach("agent.document");
        client.put(id, &orders.document).await?;
        reach("agent.document.done");
        if let Some(pair) = &orders.pair {
            reach("agent.peers");
            client.put_peers(&pair.peers).await?;
            reach("agent.peers.done");
            client.put_vrrp(&VrrpDocument::Native(pair.vrrp.clone())).await?;
            reach("agent.vrrp.done");
        }
        Ok(())
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

/// What does not run yet, if anything.
async fn runs(client: &Client, paired: bool) -> Result<Option<&'static str>> {
    let info = client.info().await?;
    if info.get("proxy").is_none_or(serde_json::Value::is_null) {
        return Ok(Some("the proxy"));
    }
    let vrrp = !paired || client.vrrp_status().await?.is_some();
    Ok((!vrrp).then_some("the VRRP daemon"))
}

/// Has a port configured, once its interface is there: a machine takes its time to find one that was plugged in.
async fn plug(client: &Client, mac: &str, document: &serde_json::Value) -> Result<()> {
    let deadline = Instant::now() + ANSWER;
    loop {
        match client.plug(mac, document).await {
            Err(Error::Refused { status: 404, .. }) if Instant::now() < deadline => sleep(SEEN).await,
            done => return done.map(drop),
        }
    }
}

async fn bring(client: &Client, name: &str, credential: &Credential) -> Result<()> {
    let id: CertificateId = name.parse().map_err(|e| Error::Local(format!("{name}: {e}")))?;
    reach("agent.certificate");
    client.put_certificate(&id, credential).await?;
    reach("agent.certificate.done");
    Ok(())
}
