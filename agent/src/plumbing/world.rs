//! Both sides: where interfaces are plugged, and the namespace that they go to.

use std::{fs, path::Path};

use amphora_netlink::{Interface, InterfaceName, MacAddress, Namespace, Netlink, Rule};
use ipnet::IpNet;

use super::{
    Leased, PlugError, Plugged, Port, Record, apply, leases,
    plan::{self, Plan},
};
use crate::config::Topology;

/// Where the interface of a port is.
#[derive(Debug)]
pub enum Place {
    /// Where it was plugged, outside.
    Outside(Interface),
    /// In the namespace.
    Inside(Interface),
}

impl Place {
    /// Octets of the largest packet there.
    pub fn mtu(&self) -> u32 {
        let (Self::Outside(interface) | Self::Inside(interface)) = self;
        interface.mtu
    }
}

/// Handles on both sides.
///
/// What changes something is not to be cancelled: a part would be made. Nobody does, on the thread that plumbing has.
#[derive(Debug)]
pub struct World<'a> {
    outside: Netlink,
    inside: Netlink,
    namespace: &'a Namespace,
    topology: Topology,
}

impl<'a> World<'a> {
    /// Enters the namespace with the calling thread, for good.
    ///
    /// # Errors
    /// When it cannot be entered, or the kernel does not answer.
    pub async fn enter(namespace: &'a Namespace, topology: Topology) -> Result<Self, PlugError> {
        let outside = Netlink::open()?;
        namespace.enter().map_err(PlugError::Namespace)?;
        let inside = Netlink::open()?;
        if let Some(lo) =
            inside.interfaces().await?.into_iter().find(|interface| interface.loopback && !interface.up)
        {
            inside.set_up(lo.index).await?;
        }
        Ok(Self { outside, inside, namespace, topology })
    }

    /// Looks for an interface.
    ///
    /// # Errors
    /// When there is none.
    pub async fn place(&self, mac: MacAddress, pci_rescan: Option<&Path>) -> Result<Place, PlugError> {
        if let Some(interface) = self.inside.interface_by_mac(mac).await? {
            return Ok(Place::Inside(interface));
        }
        if let Some(interface) = self.outside.interface_by_mac(mac).await? {
            return Ok(Place::Outside(interface));
        }
        if let Some(file) = pci_rescan.filter(|file| file.is_file()) {
            // Whether it helped shows when the controller asks again.
            #[expect(clippy::disallowed_methods, reason = "plumbing has a thread of its own")]
            if let Err(error) = fs::write(file, "1") {
                tracing::debug!(%error, "cannot have the PCI bus scanned");
            }
        }
        Err(PlugError::NoInterface(mac))
    }

    /// The kernel would move an interface first and refuse its name then.
    ///
    /// # Errors
    /// When another one has the name.
    pub async fn check_name(&self, name: &InterfaceName, place: &Place) -> Result<(), PlugError> {
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

    /// `eth1` for the VIPs' port, as Octavia has it; for others the one that they had, or the first that is free.
    ///
    /// # Errors
    /// When another one has the name.
    pub async fn choose_name(
        &self,
        record: &Record,
        mac: MacAddress,
        port: &Port,
        place: &Place,
    ) -> Result<InterfaceName, PlugError> {
        let vip_name = plan::vip_interface();
        if port.vip.is_some() {
            let other = |other: &&Plugged| other.interface == vip_name && other.mac_address != mac;
            if let Some(other) = record.ports().iter().find(other) {
                return Err(PlugError::NameTaken { name: vip_name, by: Some(other.mac_address) });
            }
            self.check_name(&vip_name, place).await?;
            return Ok(vip_name);
        }
        let known = record.find(mac).map(|plugged| plugged.interface.clone());
        if let Some(name) = known.filter(|name| *name != vip_name) {
            self.check_name(&name, place).await?;
            return Ok(name);
        }
        let recorded = record.ports().iter().map(|plugged| plugged.interface.clone()).collect();
        self.free_name(PREFIX, plan::VIP_INTERFACE + 1, mac, recorded).await
    }

    async fn free_name(
        &self,
        prefix: &str,
        first: u32,
        mac: MacAddress,
        mut taken: Vec<InterfaceName>,
    ) -> Result<InterfaceName, PlugError> {
        let mut others = self.inside.interfaces().await?;
        others.retain(|interface| interface.mac != Some(mac));
        taken.extend(others.into_iter().map(|interface| interface.name));
        let mut free = (first..).map(|number| numbered(prefix, number)).filter(|name| !taken.contains(name));
        free.next().ok_or(PlugError::Internal("there are no more names"))
    }

    /// Makes a port what the record says. Whether it was moved, and whether anything changed.
    ///
    /// # Errors
    /// When the kernel refuses a part; the parts before it are made.
    pub async fn make(
        &self,
        record: &Record,
        plugged: &Plugged,
        place: &Place,
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
        let mut plan = Plan::new(&plugged.port, self.topology);
        plan.leftovers = record.leftovers(plugged.mac_address).to_vec();
        if let Some(leased) = &plugged.lease {
            plan.add_lease(leased, &networks_of_others(record, plugged.mac_address));
        }
        plan.rules = self.rules(record.ports().iter());
        let changed = apply::apply(&self.inside, &interface, &plan).await?;
        Ok((moved, moved || changed))
    }

    /// Takes from an interface all that the agent gave it for a port, and its name, which another one may want. It stays
    /// in the namespace, where no other program of the machine takes it up, and can be plugged again from there.
    ///
    /// # Errors
    /// When the kernel refuses a part; the parts before it are made.
    pub async fn clear(&self, record: &Record, plugged: &Plugged) -> Result<(), PlugError> {
        let mac = plugged.mac_address;
        let rules = self.rules(record.ports().iter().filter(|other| other.mac_address != mac));
        let Some(interface) = self.inside.interface_by_mac(mac).await? else {
            apply::rules(&self.inside, &rules).await?;
            return Ok(());
        };
        let leftovers = [record.leftovers(mac), &self.addresses(plugged)].concat();
        let plan = Plan { leftovers, rules, ..Plan::nothing() };
        apply::apply(&self.inside, &interface, &plan).await?;
        if interface.name == plugged.interface {
            let name = self.free_name(UNPLUGGED, 0, mac, Vec::new()).await?;
            self.inside.rename(interface.index, &name).await?;
        }
        Ok(())
    }

    /// Gives the address of a port back to who leased it, when the port is to be cleared.
    pub(super) async fn release(&self, mac: MacAddress, leased: &Leased) {
        if let Ok(Some(interface)) = self.inside.interface_by_mac(mac).await {
            leases::release(&interface, mac, &leased.lease);
        }
    }

    /// What may be there of a port's former documents, once the record has this one.
    pub fn leftovers(&self, record: &Record, plugged: &Plugged) -> Vec<IpNet> {
        let mac = plugged.mac_address;
        let former = record.find(mac).map(|former| self.addresses(former)).unwrap_or_default();
        let now = self.addresses(plugged);
        let mut leftovers = [record.leftovers(mac), &former].concat();
        leftovers.retain(|net| !now.contains(net));
        leftovers.sort();
        leftovers.dedup();
        leftovers
    }

    fn addresses(&self, plugged: &Plugged) -> Vec<IpNet> {
        let mut addresses = Plan::new(&plugged.port, self.topology).addresses;
        addresses.extend(plugged.lease.iter().map(|leased| IpNet::from(leased.lease.address)));
        addresses
    }

    /// The rules of the namespace, which all ports share.
    fn rules<'p>(&self, ports: impl Iterator<Item = &'p Plugged>) -> Vec<Rule> {
        ports.flat_map(|plugged| Plan::new(&plugged.port, self.topology).rules).collect()
    }
}

/// The networks that ports but this one are in.
pub fn networks_of_others(record: &Record, mac: MacAddress) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for other in record.ports().iter().filter(|other| other.mac_address != mac) {
        let vip = other.port.vip.iter();
        networks.extend(vip.flat_map(|vip| vip.vips.iter().map(|vip| vip.subnet).chain([vip.vrrp.trunc()])));
        networks.extend(other.port.fixed_ips.iter().map(|fixed| fixed.subnet));
        networks.extend(other.lease.iter().map(|leased| IpNet::from(leased.lease.address.trunc())));
    }
    networks
}

/// What the names of ports begin with.
const PREFIX: &str = "eth";

/// What the names of interfaces begin with that are no ports any more.
const UNPLUGGED: &str = "unplugged";

fn numbered(prefix: &str, number: u32) -> InterfaceName {
    InterfaceName::new(&format!("{prefix}{number}")).expect("short, of letters and digits")
}
