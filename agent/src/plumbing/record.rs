//! What was plugged, as the [`Store`] keeps it.

mod lease;

use std::{collections::BTreeMap, io, sync::Arc};

use amphora_model::Refusal;
use amphora_netlink::{InterfaceName, MacAddress};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::lease::Leased;
use self::lease::RawLeased;
use super::port::{Port, RawPort};
use crate::store::Store;

/// A port that is plugged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "RawPlugged")]
pub struct Plugged {
    /// What it is found by.
    pub mac_address: MacAddress,
    /// Its name in the namespace.
    pub interface: InterfaceName,
    /// What it is to be.
    pub port: Port,
    /// What DHCP gave it.
    pub lease: Option<Leased>,
}

/// A [`Plugged`] in the file and in the API's answers.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct RawPlugged {
    mac_address: String,
    interface: String,
    port: RawPort,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<RawLeased>,
}

#[derive(Debug, Default, Deserialize)]
struct RawRecord {
    interfaces: Vec<RawPlugged>,
    #[serde(default)]
    leftovers: BTreeMap<String, Vec<String>>,
}

impl From<Plugged> for RawPlugged {
    fn from(plugged: Plugged) -> Self {
        Self {
            mac_address: plugged.mac_address.to_string(),
            interface: plugged.interface.to_string(),
            port: (&plugged.port).into(),
            lease: plugged.lease.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<RawPlugged> for Plugged {
    type Error = io::Error;

    fn try_from(raw: RawPlugged) -> io::Result<Self> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        Ok(Self {
            mac_address: raw.mac_address.parse().map_err(|error| wrong(format!("mac_address: {error}")))?,
            interface: InterfaceName::new(&raw.interface)
                .ok_or_else(|| wrong("interface: no name".to_owned()))?,
            port: raw.port.try_into().map_err(|error: Refusal| wrong(error.to_string()))?,
            lease: raw.lease.map(RawLeased::read).transpose()?.flatten(),
        })
    }
}

/// The ports that are plugged, and their file.
#[derive(Debug)]
pub struct Record {
    store: Arc<Store>,
    ports: Vec<Plugged>,
    leftovers: Leftovers,
}

/// By MAC address.
type Leftovers = BTreeMap<MacAddress, Vec<IpNet>>;

impl Record {
    /// Reads the file; none is as good as an empty one.
    ///
    /// # Errors
    /// When it is there but cannot be read, or is not right.
    pub fn open(store: Arc<Store>) -> io::Result<Self> {
        let raw: RawRecord = match store.read_interfaces()? {
            Some(text) => serde_json::from_slice(&text)?,
            None => RawRecord::default(),
        };
        let mut ports = raw.interfaces.into_iter().map(Plugged::try_from).collect::<io::Result<Vec<_>>>()?;
        sort(&mut ports);
        let leftovers = raw.leftovers.into_iter().map(leftovers).collect::<io::Result<_>>()?;
        Ok(Self { store, ports, leftovers })
    }

    /// Where it is kept.
    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// In the order of the interfaces' names.
    pub fn ports(&self) -> &[Plugged] {
        &self.ports
    }

    /// The port with this MAC address.
    pub fn find(&self, mac: MacAddress) -> Option<&Plugged> {
        self.ports.iter().find(|plugged| plugged.mac_address == mac)
    }

    /// Addresses that the agent gave this port, and that its document does not have: they may still be there, because
    /// a change did not get to its end.
    pub fn leftovers(&self, mac: MacAddress) -> &[IpNet] {
        self.leftovers.get(&mac).map_or(&[], Vec::as_slice)
    }

    /// Adds or replaces a port, with what may be there of what it was. Whether the port changed.
    ///
    /// # Errors
    /// When the file cannot be written: the record is what it was.
    pub fn put(&mut self, plugged: Plugged, leftovers: Vec<IpNet>) -> io::Result<bool> {
        let changed = self.find(plugged.mac_address) != Some(&plugged);
        self.set(plugged.mac_address, Some(plugged), leftovers).map(|()| changed)
    }

    /// The port is what its document says, without leftovers.
    ///
    /// # Errors
    /// When the file cannot be written: the record is what it was.
    pub fn settle(&mut self, mac: MacAddress) -> io::Result<()> {
        self.set(mac, self.find(mac).cloned(), Vec::new())
    }

    /// Forgets a port.
    ///
    /// # Errors
    /// When the file cannot be written: the record is what it was.
    pub fn remove(&mut self, mac: MacAddress) -> io::Result<()> {
        self.set(mac, None, Vec::new())
    }

    fn set(&mut self, mac: MacAddress, plugged: Option<Plugged>, left: Vec<IpNet>) -> io::Result<()> {
        let mut ports = self.ports.clone();
        ports.retain(|other| other.mac_address != mac);
        ports.extend(plugged);
        sort(&mut ports);
        let mut leftovers = self.leftovers.clone();
        leftovers.remove(&mac);
        if !left.is_empty() {
            leftovers.insert(mac, left);
        }
        if ports == self.ports && leftovers == self.leftovers {
            return Ok(());
        }
        let mut document = serde_json::json!({ "interfaces": ports });
        if !leftovers.is_empty() {
            let text = |net: &IpNet| net.to_string();
            let text: BTreeMap<_, Vec<_>> = leftovers
                .iter()
                .map(|(mac, nets)| (mac.to_string(), nets.iter().map(text).collect()))
                .collect();
            document["leftovers"] = serde_json::json!(text);
        }
        self.store.write_interfaces(&serde_json::to_vec_pretty(&document)?)?;
        (self.ports, self.leftovers) = (ports, leftovers);
        Ok(())
    }
}

fn leftovers((mac, nets): (String, Vec<String>)) -> io::Result<(MacAddress, Vec<IpNet>)> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("leftovers: {what}"));
    let mac = mac.parse().map_err(|error| wrong(format!("{error}")))?;
    let nets = nets.iter().map(|net| net.parse().map_err(|error| wrong(format!("{net}: {error}"))));
    Ok((mac, nets.collect::<io::Result<_>>()?))
}

/// `eth2` before `eth10`.
fn sort(ports: &mut [Plugged]) {
    ports.sort_by_key(|plugged| (plugged.interface.as_str().len(), plugged.interface.clone()));
}
