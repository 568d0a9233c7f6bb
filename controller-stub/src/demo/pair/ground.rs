//! The network of the pair: one switch, and what is on it.

use std::net::Ipv4Addr;

use super::super::{netns::Namespace, topology::MEMBER_NETWORK};
use crate::{error::Result, host::ip};

/// TEST-NET-1 (RFC 5737).
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The amphorae's own addresses.
pub(super) const OWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 11), Ipv4Addr::new(192, 0, 2, 12)];
const CLIENTS: &str = "192.0.2.2";
/// The members have their own network, and are the way to it.
const MEMBERS: &str = "192.0.2.3";

/// The roles that the amphorae's namespaces are named after, and their ports on the switch.
const ROLES: [&str; 2] = ["amphora-1", "amphora-2"];

/// Namespaces and links. Dropping it removes them.
#[derive(Debug)]
pub(super) struct Ground {
    /// Those of clients and members, which are not ours and have a leg here.
    guests: [String; 2],
    amphorae: [Option<Namespace>; 2],
    switch: Namespace,
}

impl Ground {
    /// Makes the switch, with both amphorae on it and these two namespaces.
    ///
    /// # Errors
    /// [`Error::Local`](crate::error::Error::Local): this host does not permit it.
    pub(super) fn create(clients: &str, members: &str) -> Result<Self> {
        let switch = Namespace::create("switch")?;
        // Made before its links, so that whatever fails is removed.
        let mut ground =
            Self { guests: [clients.to_owned(), members.to_owned()], amphorae: [None, None], switch };
        let bridge = ["link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"];
        ground.switch.ip(&bridge)?;
        ground.switch.ip(&["link", "set", "br0", "up"])?;
        ground.link("clients", clients, "pair", CLIENTS)?;
        ground.link("members", members, "pair", MEMBERS)?;
        for n in 0..OWN.len() {
            ground.attach(n)?;
        }
        Ok(ground)
    }

    /// An amphora's host: a namespace on the switch, with nothing but its own address.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub(super) fn attach(&mut self, n: usize) -> Result<()> {
        let namespace = self.amphorae[n].insert(Namespace::create(ROLES[n])?).name().to_owned();
        self.link(ROLES[n], &namespace, "eth1", &OWN[n].to_string())?;
        ip(&["-n", &namespace, "route", "add", MEMBER_NETWORK, "via", MEMBERS])
    }

    /// Takes the host away, as its death does: first the link, and with it every address and connection.
    ///
    /// # Errors
    /// The link cannot be removed.
    pub(super) fn detach(&mut self, n: usize) -> Result<()> {
        self.switch.ip(&["link", "delete", ROLES[n]])?;
        self.amphorae[n] = None;
        Ok(())
    }

    /// The namespace of an amphora; `None` while its host is gone.
    pub(super) fn amphora(&self, n: usize) -> Option<&str> {
        self.amphorae[n].as_ref().map(Namespace::name)
    }

    fn link(&self, port: &str, namespace: &str, name: &str, address: &str) -> Result<()> {
        // Both ends are made in their namespaces: nothing ever shows in the host's own.
        self.switch.ip(&["link", "add", port, "type", "veth", "peer", "name", name, "netns", namespace])?;
        self.switch.ip(&["link", "set", port, "master", "br0", "up"])?;
        ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", name])?;
        ip(&["-n", namespace, "link", "set", name, "up"])
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // The kernel takes its time to remove links with a namespace, and the guests stay: the next pair wants the names.
        for guest in &self.guests {
            let _ = ip(&["-n", guest, "link", "delete", "pair"]);
        }
    }
}
