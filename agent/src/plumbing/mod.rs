//! The ports of the load balancer: network interfaces that the cloud plugs into this machine, which the agent finds by
//! their MAC address, moves into the network namespace of the data plane, and configures.
//!
//! | module | what |
//! | --- | --- |
//! | [`port`] | what a port is to be: parsed from the native document and from Octavia's `plug/vip` and `plug/network` |
//! | [`plan`] | what that means in addresses, routes and rules; pure |
//! | [`apply`] | the kernel brought from whatever there is to the plan |
//! | [`world`] | interfaces found, moved there, made what they are to be, and cleared |
//! | [`record`] | what was plugged, on disk, for the next boot |
//! | `leases` | what DHCP gives to ports without addresses |
//! | [`filter`] | what may come in by a port, where a controller says it |
//! | `announce` | neighbours told who has an address |
//! | `stranded` | connections of addresses that another hand takes away |
//! | `look` | what is there: addresses, traffic |
//!
//! A change is recorded first and made second; what could not be made is undone, in the kernel and in the record. The
//! record also has what may be left of the documents before, so that whoever comes after an agent that was killed halfway
//! knows what to take away. Changes come one after another, each on a thread of its own that goes to the end, whoever
//! waits for it, and is thrown away: it has entered the namespace, and nothing else may run there by accident.

mod announce;
pub mod apply;
pub mod filter;
mod leases;
mod look;
pub mod plan;
pub mod port;
pub mod record;
mod stranded;
#[cfg(test)]
mod tests;
pub mod world;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, PoisonError},
};

use amphora_netlink::{Interface, InterfaceName, LinkChange, LinkChanges, MacAddress, Namespace, NetError};
use ipnet::{IpNet, Ipv4Net};
use tokio::{
    runtime::Handle,
    sync::{Mutex, Notify, oneshot},
};

use self::world::World;
pub use self::{
    look::Traffic,
    port::{HostRoute, Port, SubnetAddress, VipPort},
    record::{Leased, Plugged, Record},
};
use crate::{
    config::{Config, Topology},
    store::Store,
};

/// Makes the kernel look for devices on the PCI bus that it was not told of.
const PCI_RESCAN: &str = "/sys/bus/pci/rescan";

/// What a [`Plumbing`] works on.
#[derive(Clone, Debug)]
pub struct PlumbingConfig {
    /// The name of the namespace of the data plane; without one nothing can be plugged.
    pub namespace: Option<String>,
    /// Whether the VIPs are the agent's or VRRP's.
    pub topology: Topology,
    /// Written to when no interface has the MAC address: hot-plugged ones are missed at times.
    pub pci_rescan: Option<PathBuf>,
}

impl From<&Config> for PlumbingConfig {
    fn from(config: &Config) -> Self {
        Self {
            namespace: config.network_namespace.clone(),
            topology: config.topology,
            pci_rescan: Some(PathBuf::from(PCI_RESCAN)),
        }
    }
}

/// What plugging did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The interface's name in the namespace.
    pub interface: InterfaceName,
    /// It was moved there, rather than there already.
    pub moved: bool,
    /// Anything changed at all.
    pub changed: bool,
}

/// Who says what a port is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The native API, which says all of it and filters nothing.
    Native,
    /// Octavia's `plug/vip`.
    PlugVip,
    /// Octavia's `plug/network`.
    PlugNetwork,
}

/// Why a port is not plugged.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// `[amphora] network_namespace` is not set.
    #[error("no network_namespace is configured to plug interfaces into")]
    NoNamespace,
    /// No interface has this MAC address, neither here nor in the namespace.
    #[error("{NO_INTERFACE}", NO_INTERFACE = Self::NO_INTERFACE)]
    NoInterface(MacAddress),
    /// The name that it must have is another one's.
    #[error("{name} is already in use{}", by.map(|by| format!(" by {by}")).unwrap_or_default())]
    NameTaken {
        /// The name.
        name: InterfaceName,
        /// Who has it.
        by: Option<MacAddress>,
    },
    /// The record could not be read or written.
    #[error("cannot keep the record of interfaces: {0}")]
    Storage(io::Error),
    /// The namespace could not be made or entered.
    #[error("cannot use the network namespace: {0}")]
    Namespace(io::Error),
    /// The kernel refused a part.
    #[error(transparent)]
    Network(#[from] NetError),
    /// The network of a lease, and that of another port.
    #[error("the lease of {lease} is in the way of {other}, the network of another port")]
    Overlap {
        /// The address.
        lease: Ipv4Net,
        /// The other one.
        other: IpNet,
    },
    /// The sockets of a client of DHCP.
    #[error("cannot ask for an address by DHCP: {0}")]
    Dhcp(io::Error),
    /// What may come in could not be set.
    #[error("cannot filter what comes in: {0}")]
    Filter(io::Error),
    /// A defect.
    #[error("{0}")]
    Internal(&'static str),
}

impl PlugError {
    /// What is said when no interface has a MAC address. Octavia's controller retries for this very text.
    pub const NO_INTERFACE: &str = "No suitable network interface found";
}

/// The ports of this amphora.
///
/// What changes something may be cancelled, as when whoever asked is gone: it goes on, on a thread of its own. So may what only asks.
#[derive(Debug)]
pub struct Plumbing {
    config: PlumbingConfig,
    /// Held for the length of a change.
    record: Mutex<Record>,
    failures: Failures,
    clients: leases::Clients,
    leases_changed: Notify,
}

/// Recorded ports that are not as they should be, and why.
#[expect(clippy::disallowed_types, reason = "held to copy a few lines, never while something is awaited")]
type Failures = std::sync::Mutex<BTreeMap<MacAddress, String>>;

impl Plumbing {
    /// Reads the record. Nothing is changed before [`restore`](Self::restore) or [`plug`](Self::plug).
    ///
    /// # Errors
    /// When the record is there but cannot be read.
    pub fn open(config: PlumbingConfig, store: Arc<Store>) -> io::Result<Arc<Self>> {
        let record = Mutex::new(Record::open(store)?);
        Ok(Arc::new(Self {
            config,
            record,
            failures: Failures::default(),
            clients: leases::Clients::default(),
            leases_changed: Notify::new(),
        }))
    }

    /// What is plugged, in the order of the interfaces' names.
    pub async fn plugged(&self) -> Vec<Plugged> {
        self.record.lock().await.ports().to_vec()
    }

    /// The port with this MAC address.
    pub async fn find(&self, mac: MacAddress) -> Option<Plugged> {
        self.record.lock().await.find(mac).cloned()
    }

    /// Plugs a port, or brings the one with this MAC address to what it is to be now.
    ///
    /// # Errors
    /// See [`PlugError`]. The record is what it was then, and so is the kernel: a port that was not plugged before is
    /// down, without addresses and without its name. Where that fails as well, the port stays recorded, and is among the
    /// [`failures`](Self::failures).
    pub async fn plug(self: &Arc<Self>, mac: MacAddress, port: Port) -> Result<Outcome, PlugError> {
        self.change(mac, port, Origin::Native).await
    }

    /// [Plugs](Self::plug) a port that a controller says the rules of. Where it is one of SR-IOV, whose packets nothing outside
    /// filters, it is closed before it is opened: nothing that nobody asked for comes in before there are rules.
    ///
    /// # Errors
    /// As [`plug`](Self::plug).
    pub async fn plug_filtered(self: &Arc<Self>, mac: MacAddress, port: Port) -> Result<Outcome, PlugError> {
        self.change(mac, port, Origin::PlugVip).await
    }

    /// [The same](Self::plug_filtered) of a port that Octavia's controller asks for with `plug/network`. Where it is the VIPs', the
    /// controller names one of them alone, and has no way to say that it takes another away: those that the port has stay.
    ///
    /// # Errors
    /// As [`plug`](Self::plug).
    pub async fn plug_network(self: &Arc<Self>, mac: MacAddress, port: Port) -> Result<Outcome, PlugError> {
        self.change(mac, port, Origin::PlugNetwork).await
    }

    async fn change(
        self: &Arc<Self>,
        mac: MacAddress,
        mut port: Port,
        origin: Origin,
    ) -> Result<Outcome, PlugError> {
        let closed = port.is_sriov && origin != Origin::Native;
        let runtime = Handle::current();
        self.on_a_thread(move |this, namespace| async move {
            let began = tokio::time::Instant::now();
            let mut record = this.record.lock().await;
            let world = World::enter(&namespace, this.config.topology).await?;
            let place = world.place(mac, this.config.pci_rescan.as_deref()).await?;
            let name = world.choose_name(&record, mac, &port, &place).await?;
            let before = record.find(mac).cloned();
            if let Some(before) = before.as_ref().filter(|_| origin == Origin::PlugNetwork) {
                port.keep_additional_vips(&before.port);
            }
            let lease = before.as_ref().and_then(|before| before.lease.clone());
            let lease = lease.filter(|_| port.is_dynamic());
            let plugged = Plugged { mac_address: mac, interface: name.clone(), port, lease };
            let leftovers = world.leftovers(&record, &plugged);
            if closed {
                filter::set(record.store(), &name, None).map_err(PlugError::Filter)?;
            }
            let recorded = record.put(plugged.clone(), leftovers).map_err(PlugError::Storage)?;
            let (moved, made) = match world.make(&record, &plugged, &place).await {
                Ok(made) => made,
                Err(error) => {
                    let was_there = before.is_some();
                    this.undo(&world, &mut record, &plugged, before, place.mtu()).await;
                    if closed
                        && !was_there
                        && let Err(error) = filter::forget(record.store(), &name)
                    {
                        tracing::warn!(interface = %name, %error, "the rules for what comes in stay");
                    }
                    this.tend(&record, &runtime);
                    return Err(error);
                }
            };
            settle(&mut record, mac);
            this.note(mac, None);
            this.tend(&record, &runtime);
            if made && plugged.port.vip.is_some() {
                this.announce_again(&runtime);
            }
            let took = began.elapsed();
            tracing::info!(%mac, interface = %name, moved, changed = made, ?took, "the port is plugged");
            Ok(Outcome { interface: name, moved, changed: recorded || made })
        })
        .await
    }

    /// Brings the kernel and the record back to what they were before a change that failed.
    async fn undo(
        &self,
        world: &World<'_>,
        record: &mut Record,
        failed: &Plugged,
        before: Option<Plugged>,
        mtu: u32,
    ) {
        let mac = failed.mac_address;
        let undone = match before {
            Some(before) => make_again(world, record, before, mtu).await,
            // The record last: an agent that is killed meanwhile still knows of it.
            None => match world.clear(record, failed).await {
                Ok(()) => record.remove(mac).map_err(PlugError::Storage),
                Err(error) => Err(error),
            },
        };
        if let Err(error) = &undone {
            tracing::error!(%mac, interface = %failed.interface, %error, "cannot undo a change that failed");
        }
        self.note(mac, undone.err().map(|error| error.to_string()));
    }

    /// Takes the configuration from a port's interface, if it is still there, sets it down, and forgets the port.
    ///
    /// # Errors
    /// See [`PlugError`]; the port is recorded still, so that it can be asked for again.
    pub async fn unplug(self: &Arc<Self>, mac: MacAddress) -> Result<Outcome, PlugError> {
        let runtime = Handle::current();
        self.on_a_thread(move |this, namespace| async move {
            let mut record = this.record.lock().await;
            let plugged = record.find(mac).cloned().ok_or(PlugError::NoInterface(mac))?;
            let world = World::enter(&namespace, this.config.topology).await?;
            if let Some(leased) = &plugged.lease {
                world.release(mac, leased).await;
            }
            if let Err(error) = world.clear(&record, &plugged).await {
                this.note(mac, Some(error.to_string()));
                return Err(error);
            }
            if let Err(error) = record.remove(mac) {
                let again = this.restore_one(&world, &record, &plugged).await.err();
                this.note(mac, again.map(|error| error.to_string()));
                return Err(PlugError::Storage(error));
            }
            this.note(mac, None);
            this.tend(&record, &runtime);
            let interface = plugged.interface;
            if let Err(error) = filter::forget(record.store(), &interface) {
                tracing::warn!(%interface, %error, "the rules for what comes in stay");
            }
            tracing::info!(%mac, %interface, "the port is unplugged");
            Ok(Outcome { interface, moved: false, changed: true })
        })
        .await
    }

    /// Brings the kernel to the record, as after a boot: the ports that changed. One that fails, for example because its
    /// interface is missing, does not keep the others from theirs; it is logged, and among the
    /// [`failures`](Self::failures).
    ///
    /// # Errors
    /// When the namespace cannot be made or entered.
    pub async fn restore(self: &Arc<Self>) -> Result<Vec<Outcome>, PlugError> {
        let runtime = Handle::current();
        self.on_a_thread(move |this, namespace| async move {
            let mut record = this.record.lock().await;
            let world = World::enter(&namespace, this.config.topology).await?;
            // Before anything can come in.
            if let Err(error) = filter::restore(record.store()) {
                tracing::error!(%error, "cannot filter what comes in as it was filtered before");
            }
            let mut changed = Vec::new();
            for plugged in record.ports().to_vec() {
                let mac = plugged.mac_address;
                match this.restore_one(&world, &record, &plugged).await {
                    Ok(outcome) => {
                        settle(&mut record, mac);
                        this.note(mac, None);
                        if outcome.changed {
                            tracing::info!(%mac, interface = %outcome.interface, "the port is plugged again");
                            changed.push(outcome);
                        }
                    }
                    Err(error) => {
                        tracing::error!(%mac, interface = %plugged.interface, %error, "cannot plug the port again");
                        this.note(mac, Some(error.to_string()));
                    }
                }
            }
            this.tend(&record, &runtime);
            Ok(changed)
        })
        .await
    }

    async fn restore_one(
        &self,
        world: &World<'_>,
        record: &Record,
        plugged: &Plugged,
    ) -> Result<Outcome, PlugError> {
        let place = world.place(plugged.mac_address, self.config.pci_rescan.as_deref()).await?;
        world.check_name(&plugged.interface, &place).await?;
        let (moved, changed) = world.make(record, plugged, &place).await?;
        Ok(Outcome { interface: plugged.interface.clone(), moved, changed })
    }

    /// [Restores](Self::restore) whenever an interface of the record appears where interfaces are plugged: one that
    /// was late at the boot, or was taken out and put in again. Ends when the kernel tells of no more.
    pub async fn watch(self: Arc<Self>, mut changes: LinkChanges) {
        while let Ok(change) = changes.next().await {
            let concerned = match change {
                LinkChange::Now(Interface { mac: Some(mac), .. }) => self.find(mac).await.is_some(),
                LinkChange::Missed => true,
                _ => false,
            };
            if concerned && let Err(error) = self.restore().await {
                tracing::error!(%error, "cannot plug the ports again");
            }
        }
    }

    /// Recorded ports that could not be plugged again, and why.
    pub fn failures(&self) -> BTreeMap<MacAddress, String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, mac: MacAddress, failure: Option<String>) {
        // Insertions and removals are whole whenever another thread panics.
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            Some(failure) => failures.insert(mac, failure),
            None => failures.remove(&mac),
        };
    }

    async fn on_a_thread<T, F>(
        self: &Arc<Self>,
        work: impl FnOnce(Arc<Self>, Namespace) -> F + Send + 'static,
    ) -> Result<T, PlugError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, PlugError>>,
    {
        let name = self.config.namespace.clone().ok_or(PlugError::NoNamespace)?;
        let this = self.clone();
        let (done, result) = oneshot::channel();
        std::thread::Builder::new()
            .name("plumbing".to_owned())
            .spawn(move || {
                let run = || {
                    let namespace = Namespace::ensure(&name).map_err(PlugError::Namespace)?;
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_io()
                        .enable_time()
                        .build()
                        .map_err(PlugError::Namespace)?;
                    runtime.block_on(work(this, namespace))
                };
                let _ = done.send(run());
            })
            .map_err(PlugError::Namespace)?;
        result.await.unwrap_or(Err(PlugError::Internal("the thread that plugs ended early")))
    }
}

/// Makes a port what it was before a change that failed, and had this MTU.
async fn make_again(
    world: &World<'_>,
    record: &mut Record,
    mut before: Plugged,
    mtu: u32,
) -> Result<(), PlugError> {
    let mac = before.mac_address;
    let leftovers = world.leftovers(record, &before);
    record.put(before.clone(), leftovers).map_err(PlugError::Storage)?;
    before.port.mtu.get_or_insert(mtu);
    let place = world.place(mac, None).await?;
    world.make(record, &before, &place).await?;
    settle(record, mac);
    Ok(())
}

/// What was left of former documents is gone. Where that cannot be written, the disk is what is at fault, and not the
/// port: what is gone is looked for once more the next time.
fn settle(record: &mut Record, mac: MacAddress) {
    if let Err(error) = record.settle(mac) {
        tracing::warn!(%mac, %error, "cannot record that a port is what it is to be");
    }
}
