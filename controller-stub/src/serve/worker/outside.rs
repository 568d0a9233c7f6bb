//! Machines and agents as they are: [`Compute`], certificates, the driver of agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use amphora_agent::heartbeat::mark;
use amphora_model::CertificateId;
use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use tokio::task::spawn_blocking;

use super::{Given, Outside, Severed, Taken, Told, rows};
use crate::{
    client::Credential,
    error::{Error, Result},
    failpoint::reach,
    serve::{
        amphora::{
            Agent, Applied, Driver, Orders,
            orders::{self, PRIORITIES, Vip},
        },
        certificates::{Certificates, Papers, reads::Reads},
        compute::{Compute, Drivers, Interface, Liveness, Machine, Size},
        config::ComputeDriver,
        document,
        network::{
            Networks,
            bridges::{self, Bridges},
            links,
        },
        status::{AmphoraStatus, Role, Topology},
    },
};

/// How long a hand-over may take: three intervals, and what the proxy's clients need to go.
const HAND_OVER: Duration = Duration::from_secs(10);

/// All of it.
#[derive(Debug)]
pub struct Ground {
    /// Who makes machines.
    pub compute: Drivers,
    /// That of load balancers without a flavor, and how large machines are whose flavor does not say.
    pub usual: (ComputeDriver, Size),
    /// What they are known by.
    pub certificates: Arc<Certificates>,
    /// Reads tenants' own.
    pub reads: Reads,
    /// Speaks to agents.
    pub agents: Driver,
    /// Networks of the configuration.
    pub networks: Networks,
    /// Their bridges, and that of virtual machines, where there are any.
    pub bridges: Bridges,
    /// What keys of pairs are made of.
    pub secret: hmac::Key,
}

impl Ground {
    async fn machine(&self, amphora: &rows::Amphora, paired: bool) -> Result<(Machine, Given, bool)> {
        let (certificates, id) = (Arc::clone(&self.certificates), amphora.id.clone());
        let Papers { issued, authorities, mark, announces } = spawn_blocking(move || certificates.issue(&id))
            .await
            .map_err(|e| Error::local("a certificate", e))??;
        let flavor = amphora.flavor.as_deref().unwrap_or_default();
        let size = self.usual.1.parse(flavor).map_err(|e| Error::NotDone(format!("compute_flavor: {e}")))?;
        let ends = issued.not_after.unix_timestamp().saturating_mul(1000);
        let given = Given { ends, trust: Some(mark) };
        let machine = Machine {
            name: amphora.machine.clone(),
            amphora: amphora.id.clone(),
            agent: amphora.agent,
            paired,
            size,
            authority: authorities,
            certificate: issued.both(),
        };
        Ok((machine, given, announces))
    }

    /// The certificates that a document names, and why those of them are lacking that are.
    async fn tenants(&self, told: &Told) -> (BTreeMap<CertificateId, Arc<Credential>>, Lacking) {
        let uses = document::uses(&told.rendered.document);
        let (mut tenants, mut lacking) = (BTreeMap::new(), BTreeMap::new());
        for (name, found) in self.reads.read(&told.lb.project, uses).await {
            match found {
                Ok(credential) => drop(tenants.insert(name, Arc::new(credential))),
                Err(error) => drop(lacking.insert(name, error.to_string())),
            }
        }
        (tenants, lacking)
    }

    fn vips(&self, lb: &rows::LoadBalancer) -> Result<Vec<Vip>> {
        std::iter::once(&lb.vip)
            .chain(&lb.additional)
            .map(|(address, subnet)| {
                let (_, subnet) = self.networks.subnet(subnet).map_err(|e| Error::NotDone(e.to_string()))?;
                Ok(Vip { address: *address, subnet: subnet.clone() })
            })
            .collect()
    }

    /// What an amphora that has to be told everything is told of its ports.
    async fn interfaces(
        &self,
        amphora: &rows::Amphora,
        vips: &[Vip],
    ) -> Result<Vec<(String, serde_json::Value)>> {
        let mut documents = Vec::new();
        for port in &amphora.ports {
            let (network, subnet) =
                self.networks.subnet(&port.subnet).map_err(|e| Error::NotDone(e.to_string()))?;
            let interface = Interface {
                port: port.id.clone(),
                bridge: bridges::name(&network.id),
                mac: port.mac.clone(),
            };
            reach("plug");
            self.compute.plug(&amphora.machine, &interface).await?;
            reach("plug.done");
            let document = if Some(&port.id) == amphora.vrrp_port.as_ref() {
                orders::vip_port(port.address, vips)
            } else {
                orders::member_port(port.address, subnet)
            };
            documents.push((port.mac.clone(), document));
        }
        // The VIPs' first: it is eth1.
        documents.sort_by_key(|(_, document)| document.get("vips").is_none());
        Ok(documents)
    }

    /// What one of a pair is told of the other.
    fn pair(&self, told: &Told, amphora: &rows::Amphora, vips: &[Vip]) -> Option<orders::Pair> {
        if told.lb.topology == Topology::Single {
            return None;
        }
        let other = told.other(amphora)?;
        let (own, others) = (vrrp_address(amphora)?, vrrp_address(other)?);
        let priority = PRIORITIES[usize::from(told.role(&amphora.id) == Role::Backup)];
        let key = HEXLOWER.encode(hmac::sign(&self.secret, told.lb.id.as_bytes()).as_ref());
        Some(orders::pair(&told.lb.id, vips, [own, others], priority, &key))
    }
}

/// Certificates that are lacking, and why.
type Lacking = BTreeMap<CertificateId, String>;

/// How many of them are told of.
const TOLD: usize = 4;

fn lack(lacking: &Lacking) -> Error {
    let mut text = lacking.values().take(TOLD).cloned().collect::<Vec<_>>().join("; ");
    if lacking.len() > TOLD {
        text = format!("{text}; and {} more", lacking.len() - TOLD);
    }
    Error::NotDone(text)
}

fn vrrp_address(amphora: &rows::Amphora) -> Option<IpAddr> {
    let port = amphora.ports.iter().find(|port| Some(&port.id) == amphora.vrrp_port.as_ref());
    port.map(|port| port.address)
}

/// What is plugged in for a port; of a network's id that is none there is no bridge.
fn interface(port: &rows::Port) -> Option<Interface> {
    let bridge = bridges::name(&port.network.parse().ok()?);
    Some(Interface { port: port.id.clone(), bridge, mac: port.mac.clone() })
}

fn agent(amphora: &rows::Amphora) -> Agent {
    Agent { id: amphora.id.clone(), address: amphora.agent }
}

impl Outside for Ground {
    fn driver(&self) -> &'static str {
        self.usual.0.as_str()
    }

    fn name(&self, driver: &str, amphora: &str) -> Result<String> {
        let driver = ComputeDriver::parse(driver).map_err(Error::NotDone)?;
        self.compute.name(driver, amphora)
    }

    fn boot_time(&self, machine: &str) -> Duration {
        self.compute.boot_time(machine)
    }

    fn validity_ms(&self) -> i64 {
        self.certificates.validity_ms()
    }

    async fn alive(&self, amphora: &rows::Amphora) -> Result<Liveness> {
        self.compute.alive(&amphora.machine).await
    }

    async fn boot(&self, amphora: &rows::Amphora, paired: bool) -> Result<Given> {
        let (machine, given, _) = self.machine(amphora, paired).await?;
        reach("create");
        self.compute.create(&machine).await?;
        reach("create.done");
        let agent = agent(amphora);
        let mut deaths = self.compute.deaths();
        let ready = self.agents.ready(&agent, paired, self.compute.boot_time(&amphora.machine));
        tokio::pin!(ready);
        loop {
            tokio::select! {
                ready = &mut ready => return ready.map(|()| given),
                Ok(()) = deaths.changed() => {
                    let alive = self.compute.alive(&amphora.machine).await;
                    if matches!(alive, Ok(Liveness::Absent | Liveness::Dead)) {
                        return Err(Error::NotDone(format!("amphora {} ended while starting", amphora.id)));
                    }
                }
            }
        }
    }

    async fn remove(&self, machine: &str) -> Result<()> {
        reach("delete");
        self.compute.delete(machine).await?;
        reach("delete.done");
        Ok(())
    }

    async fn apply(&self, told: &Told, amphora: &rows::Amphora) -> Result<Taken> {
        let vips = self.vips(&told.lb)?;
        let fresh = amphora.applied == 0;
        let (certificates, mut lacking) = self.tenants(told).await;
        let mut orders = Orders {
            load_balancer: told.lb.id.clone(),
            interfaces: if fresh { self.interfaces(amphora, &vips).await? } else { Vec::new() },
            certificates,
            document: told.rendered.document.clone(),
            pair: fresh.then(|| self.pair(told, amphora, &vips)).flatten(),
        };
        let (agent, mut refused) = (agent(amphora), BTreeSet::new());
        // A certificate keeps nothing else from the amphora; each is found to be lacking once.
        loop {
            if !lacking.is_empty() {
                let names = (lacking.keys().cloned().collect(), &refused);
                let document = &told.rendered.document;
                let left = self.agents.without(&agent, &orders.load_balancer, document, names).await?;
                orders.document = left.ok_or_else(|| lack(&lacking))?;
            }
            match self.agents.apply(&agent, &orders).await? {
                Applied::Wholly => break,
                Applied::NotTaken(more) => {
                    orders.certificates.retain(|name, _| !more.contains_key(name));
                    lacking.extend(more);
                }
                Applied::NotUsed(more) => {
                    let known = refused.len();
                    refused.extend(more.keys().cloned());
                    lacking.extend(more);
                    if refused.len() == known {
                        return Err(lack(&lacking));
                    }
                }
            }
        }
        Ok(Taken {
            // As the client writes it.
            document: mark(orders.document.to_string().as_bytes()),
            lacking: (!lacking.is_empty()).then(|| lack(&lacking)),
        })
    }

    async fn unplug(&self, amphora: &rows::Amphora, port: &rows::Port) -> Result<()> {
        reach("unplug");
        self.agents.unplug(&agent(amphora), &port.mac).await?;
        reach("unplug.agent");
        self.compute.unplug(&amphora.machine, &port.id).await?;
        reach("unplug.done");
        Ok(())
    }

    async fn configure(&self, amphora: &rows::Amphora, paired: bool) -> Result<Given> {
        let (machine, mut given, announces) = self.machine(amphora, paired).await?;
        if announces && !self.compute.brings_authorities(&machine.name) {
            given.trust = None;
        }
        reach("configure");
        self.compute.configure(&machine).await?;
        reach("configure.done");
        Ok(given)
    }

    async fn is_master(&self, amphora: &rows::Amphora) -> Option<bool> {
        self.agents.is_master(&agent(amphora)).await
    }

    async fn hand_over(&self, from: &rows::Amphora, to: &rows::Amphora) -> Result<()> {
        self.agents.hand_over(&agent(from), &agent(to), HAND_OVER).await
    }

    async fn mend(&self, amphorae: &[rows::Amphora]) -> Result<Vec<Severed>> {
        let (mut whose, mut ends) = (Vec::new(), Vec::new());
        for one in amphorae {
            if !matches!(one.status, AmphoraStatus::Allocated | AmphoraStatus::Ready) {
                continue;
            }
            // Of one that has to be told everything ports are yet to be plugged in.
            let plugged = if one.applied == 0 { &[][..] } else { &one.ports[..] };
            let interfaces: Vec<Interface> = plugged.iter().filter_map(interface).collect();
            let own = self.compute.ends(&one.machine, &interfaces);
            whose.extend(own.iter().map(|end| Severed { amphora: one.id.clone(), port: end.port.clone() }));
            ends.extend(own);
        }
        let bridges = self.bridges.clone();
        let severed = spawn_blocking(move || links::mend(&bridges, &ends));
        let severed = severed.await.map_err(|e| Error::local("links", e))??;
        Ok(severed.into_iter().filter_map(|place| whose.get(place).cloned()).collect())
    }

    async fn list(&self) -> Result<BTreeSet<String>> {
        self.compute.list().await
    }
}
