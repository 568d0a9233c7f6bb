//! The ports of the load balancer: network interfaces that the cloud plugs into this machine, which the agent finds by
//! their MAC address, moves into the network namespace of the data plane, and configures.
//!
//! | module | what |
//! | --- | --- |
//! | [`port`] | what a port is to be: parsed from the native document and from Octavia's `plug/vip` and `plug/network` |
//! | [`plan`] | what that means in addresses, routes and rules; pure |
//! | [`apply`] | the kernel brought from whatever there is to the plan |
//! | [`namespace`] | the namespace itself |
//! | [`record`] | what was plugged, on disk, for the next boot |
//!
//! A change is recorded first and made second; what could not be made is taken back from the record. Changes come one
//! after another, each on a thread of its own that goes to the end, whoever waits for it, and is thrown away: it has
//! entered the namespace, and nothing else may run there by accident.

pub mod apply;
pub mod namespace;
pub mod plan;
pub mod port;
pub mod record;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::Instant,
};

use amphora_vrrp::{
    config::InterfaceName,
    net::{Interface, LinkChange, LinkChanges, MacAddress, NetError, Netlink},
};
use tokio::sync::{Mutex, oneshot};

use self::{namespace::Namespace, plan::Plan};
pub use self::{
    port::{HostRoute, Port, SubnetAddress, VipPort},
    record::{Plugged, Record},
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

/// Why a port is not plugged.
#[derive(Debug)]
pub enum PlugError {
    /// `[amphora] network_namespace` is not set.
    NoNamespace,
    /// No interface has this MAC address, neither here nor in the namespace.
    NoInterface(MacAddress),
    /// The name that it must have is another one's.
    NameTaken {
        /// The name.
        name: InterfaceName,
        /// Who has it.
        by: Option<MacAddress>,
    },
    /// The record could not be read or written.
    Storage(io::Error),
    /// The namespace could not be made or entered.
    Namespace(io::Error),
    /// The kernel refused a part.
    Network(NetError),
    /// A defect.
    Internal(&'static str),
}

impl fmt::Display for PlugError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNamespace => f.write_str("no network_namespace is configured to plug interfaces into"),
            // Octavia's controller retries for this very text.
            Self::NoInterface(_) => f.write_str("No suitable network interface found"),
            Self::NameTaken { name, by: Some(by) } => write!(f, "{name} is already in use by {by}"),
            Self::NameTaken { name, by: None } => write!(f, "{name} is already in use"),
            Self::Storage(error) => write!(f, "cannot keep the record of interfaces: {error}"),
            Self::Namespace(error) => write!(f, "cannot use the network namespace: {error}"),
            Self::Network(error) => error.fmt(f),
            Self::Internal(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for PlugError {}

impl From<NetError> for PlugError {
    fn from(error: NetError) -> Self {
        Self::Network(error)
    }
}

/// The ports of this amphora.
#[derive(Debug)]
pub struct Plumbing {
    config: PlumbingConfig,
    /// Held for the length of a change.
    record: Mutex<Record>,
    failures: Failures,
}

/// Recorded ports that are not as they should be, and why.
type Failures = std::sync::Mutex<BTreeMap<MacAddress, String>>;

impl Plumbing {
    /// Reads the record. Nothing is changed before [`restore`](Self::restore) or [`plug`](Self::plug).
    ///
    /// # Errors
    /// When the record is there but cannot be read.
    pub fn open(config: PlumbingConfig, store: Arc<Store>) -> io::Result<Arc<Self>> {
        let record = Mutex::new(Record::open(store)?);
        Ok(Arc::new(Self { config, record, failures: Failures::default() }))
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
    /// See [`PlugError`]. The record is what it was then; the kernel may have a part of the change, which the same
    /// request completes.
    pub async fn plug(self: &Arc<Self>, mac: MacAddress, port: Port) -> Result<Outcome, PlugError> {
        self.on_a_thread(move |this, namespace| async move {
            let began = Instant::now();
            let mut record = this.record.lock().await;
            let world = World::enter(&namespace).await?;
            let place = world.place(mac, this.config.pci_rescan.as_deref()).await?;
            let name = choose_name(&world, &record, mac, &port, &place).await?;
            let before = record.find(mac).cloned();
            let plugged = Plugged { mac_address: mac, interface: name.clone(), port };
            let recorded = record.put(plugged.clone()).map_err(PlugError::Storage)?;
            let outcome = world.make(&plugged, &place, this.config.topology).await;
            if outcome.is_err() {
                record.put_back(mac, before).map_err(PlugError::Storage)?;
            }
            let (moved, made) = outcome?;
            this.note(mac, None);
            let took = began.elapsed();
            tracing::info!(%mac, interface = %name, moved, changed = made, ?took, "the port is plugged");
            Ok(Outcome { interface: name, moved, changed: recorded || made })
        })
        .await
    }

    /// Forgets a port. Its interface, if it is still there, stays in the namespace, down and without addresses.
    ///
    /// # Errors
    /// See [`PlugError`]; the port is forgotten all the same when the kernel refuses a part.
    pub async fn unplug(self: &Arc<Self>, mac: MacAddress) -> Result<Outcome, PlugError> {
        self.on_a_thread(move |this, namespace| async move {
            let mut record = this.record.lock().await;
            let Plugged { interface, port, .. } =
                record.find(mac).cloned().ok_or(PlugError::NoInterface(mac))?;
            record.put_back(mac, None).map_err(PlugError::Storage)?;
            this.note(mac, None);
            let world = World::enter(&namespace).await?;
            if let Some(there) = world.inside.interface_by_mac(mac).await? {
                apply::apply(&world.inside, &there, &Plan::nothing(&port)).await?;
                world.inside.set_down(there.index).await?;
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
        self.on_a_thread(move |this, namespace| async move {
            let record = this.record.lock().await;
            let world = World::enter(&namespace).await?;
            let mut changed = Vec::new();
            for plugged in record.ports() {
                let mac = plugged.mac_address;
                match this.restore_one(&world, plugged).await {
                    Ok(outcome) => {
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
            Ok(changed)
        })
        .await
    }

    async fn restore_one(&self, world: &World<'_>, plugged: &Plugged) -> Result<Outcome, PlugError> {
        let place = world.place(plugged.mac_address, self.config.pci_rescan.as_deref()).await?;
        world.check_name(&plugged.interface, &place).await?;
        let (moved, changed) = world.make(plugged, &place, self.config.topology).await?;
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

/// Where the interface of a port is.
#[derive(Debug)]
enum Place {
    /// Where it was plugged, outside.
    Outside(Interface),
    /// In the namespace.
    Inside(Interface),
}

/// Both sides: where interfaces are plugged, and the namespace that they go to.
#[derive(Debug)]
struct World<'a> {
    outside: Netlink,
    inside: Netlink,
    namespace: &'a Namespace,
}

impl<'a> World<'a> {
    /// Enters the namespace with the calling thread, for good.
    async fn enter(namespace: &'a Namespace) -> Result<Self, PlugError> {
        let outside = Netlink::open()?;
        namespace.enter().map_err(PlugError::Namespace)?;
        let inside = Netlink::open()?;
        if let Some(lo) =
            inside.interfaces().await?.into_iter().find(|interface| interface.loopback && !interface.up)
        {
            inside.set_up(lo.index).await?;
        }
        Ok(Self { outside, inside, namespace })
    }

    async fn place(&self, mac: MacAddress, pci_rescan: Option<&Path>) -> Result<Place, PlugError> {
        if let Some(interface) = self.inside.interface_by_mac(mac).await? {
            return Ok(Place::Inside(interface));
        }
        if let Some(interface) = self.outside.interface_by_mac(mac).await? {
            return Ok(Place::Outside(interface));
        }
        if let Some(file) = pci_rescan.filter(|file| file.is_file()) {
            // Whether it helped shows when the controller asks again.
            if let Err(error) = fs::write(file, "1") {
                tracing::debug!(%error, "cannot have the PCI bus scanned");
            }
        }
        Err(PlugError::NoInterface(mac))
    }

    /// The kernel would move an interface first and refuse its name then.
    async fn check_name(&self, name: &InterfaceName, place: &Place) -> Result<(), PlugError> {
        let own = match place {
            Place::Inside(interface) => Some(interface.index),
            Place::Outside(_) => None,
        };
        match self.inside.interface(name).await? {
            Some(other) if Some(other.index) != own => {
                Err(PlugError::NameTaken { name: name.clone(), by: other.mac })
            }
            _ => Ok(()),
        }
    }

    /// Whether it was moved, and whether anything changed.
    async fn make(
        &self,
        plugged: &Plugged,
        place: &Place,
        topology: Topology,
    ) -> Result<(bool, bool), PlugError> {
        let (interface, moved) = match place {
            Place::Outside(interface) => {
                self.outside.move_to_namespace(interface.index, self.namespace, &plugged.interface).await?;
                (self.inside.interface(&plugged.interface).await?, true)
            }
            Place::Inside(interface) if interface.name != plugged.interface => {
                self.inside.rename(interface.index, &plugged.interface).await?;
                (self.inside.interface(&plugged.interface).await?, true)
            }
            Place::Inside(interface) => (Some(interface.clone()), false),
        };
        let interface = interface.ok_or(PlugError::NoInterface(plugged.mac_address))?;
        let plan = Plan::new(&plugged.port, topology);
        let changed = apply::apply(&self.inside, &interface, &plan).await?;
        Ok((moved, moved || changed))
    }
}

/// `eth1` for the VIPs' port, as Octavia has it; for others the one that they had, or the first that is free.
async fn choose_name(
    world: &World<'_>,
    record: &Record,
    mac: MacAddress,
    port: &Port,
    place: &Place,
) -> Result<InterfaceName, PlugError> {
    let known = record.find(mac).map(|plugged| plugged.interface.clone());
    if port.vip.is_some() {
        let name = numbered(plan::VIP_INTERFACE);
        if let Some(other) =
            record.ports().iter().find(|other| other.interface == name && other.mac_address != mac)
        {
            return Err(PlugError::NameTaken { name, by: Some(other.mac_address) });
        }
        world.check_name(&name, place).await?;
        return Ok(name);
    }
    if let Some(name) = known.filter(|name| *name != numbered(plan::VIP_INTERFACE)) {
        world.check_name(&name, place).await?;
        return Ok(name);
    }
    let mut taken: Vec<_> = record.ports().iter().map(|plugged| plugged.interface.clone()).collect();
    taken.extend(world.inside.interfaces().await?.into_iter().map(|interface| interface.name));
    let mut free = (plan::VIP_INTERFACE + 1..).map(numbered).filter(|name| !taken.contains(name));
    free.next().ok_or(PlugError::Internal("there are no more names"))
}

fn numbered(number: u32) -> InterfaceName {
    InterfaceName::new(&format!("eth{number}")).expect("at most 13 octets, letters and digits")
}
