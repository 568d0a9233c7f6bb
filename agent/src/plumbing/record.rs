//! What was plugged, as the [`Store`] keeps it.

use std::{io, sync::Arc};

use amphora_proxy::model::Refusal;
use amphora_vrrp::{config::InterfaceName, net::MacAddress};
use serde::{Deserialize, Serialize};

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
}

/// A [`Plugged`] in the file and in the API's answers.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct RawPlugged {
    mac_address: String,
    interface: String,
    port: RawPort,
}

#[derive(Debug, Default, Deserialize)]
struct RawRecord {
    interfaces: Vec<RawPlugged>,
}

impl From<Plugged> for RawPlugged {
    fn from(plugged: Plugged) -> Self {
        Self {
            mac_address: plugged.mac_address.to_string(),
            interface: plugged.interface.to_string(),
            port: (&plugged.port).into(),
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
        })
    }
}

/// The ports that are plugged, and their file.
#[derive(Debug)]
pub struct Record {
    store: Arc<Store>,
    ports: Vec<Plugged>,
}

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
        Ok(Self { store, ports })
    }

    /// In the order of the interfaces' names.
    pub fn ports(&self) -> &[Plugged] {
        &self.ports
    }

    /// The port with this MAC address.
    pub fn find(&self, mac: MacAddress) -> Option<&Plugged> {
        self.ports.iter().find(|plugged| plugged.mac_address == mac)
    }

    /// Adds or replaces a port. Whether anything changed.
    ///
    /// # Errors
    /// When the file cannot be written: the record is what it was.
    pub fn put(&mut self, plugged: Plugged) -> io::Result<bool> {
        if self.find(plugged.mac_address) == Some(&plugged) {
            return Ok(false);
        }
        self.put_back(plugged.mac_address, Some(plugged)).map(|()| true)
    }

    /// Makes a port what it was, or unknown.
    ///
    /// # Errors
    /// When the file cannot be written: the record is what it was.
    pub fn put_back(&mut self, mac: MacAddress, plugged: Option<Plugged>) -> io::Result<()> {
        let mut ports = self.ports.clone();
        ports.retain(|other| other.mac_address != mac);
        ports.extend(plugged);
        sort(&mut ports);
        if ports != self.ports {
            let text = serde_json::to_vec_pretty(&serde_json::json!({ "interfaces": ports }))?;
            self.store.write_interfaces(&text)?;
            self.ports = ports;
        }
        Ok(())
    }
}

/// `eth2` before `eth10`.
fn sort(ports: &mut [Plugged]) {
    ports.sort_by_key(|plugged| (plugged.interface.as_str().len(), plugged.interface.clone()));
}
