//! What is there in the namespace, and who may come in: asked and told by Octavia's API.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use amphora_netlink::{InterfaceName, Netlink};

use super::{PlugError, Plumbing, filter};

/// Octets that an interface has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Received.
    pub rx: u64,
    /// Sent.
    pub tx: u64,
}

impl Plumbing {
    /// The interface of the namespace that has this address at present, VRRP's included.
    ///
    /// # Errors
    /// When the namespace cannot be looked into.
    pub async fn interface_of(self: &Arc<Self>, address: IpAddr) -> Result<Option<InterfaceName>, PlugError> {
        self.on_a_thread(move |_, namespace| async move {
            namespace.enter().map_err(PlugError::Namespace)?;
            let netlink = Netlink::open()?;
            let addresses = netlink.addresses().await?;
            let Some(found) = addresses.iter().find(|found| found.net.addr() == address) else {
                return Ok(None);
            };
            Ok(netlink.interface_by_index(found.interface).await?.map(|interface| interface.name))
        })
        .await
    }

    /// What the ports have carried, by their names.
    ///
    /// # Errors
    /// When the namespace cannot be looked into.
    pub async fn traffic(self: &Arc<Self>) -> Result<BTreeMap<String, Traffic>, PlugError> {
        self.on_a_thread(move |_, namespace| async move {
            namespace.enter().map_err(PlugError::Namespace)?;
            #[expect(
                clippy::disallowed_methods,
                reason = "procfs answers from memory, and this thread is plumbing's own"
            )]
            let text = std::fs::read_to_string("/proc/thread-self/net/dev").map_err(PlugError::Namespace)?;
            Ok(read_traffic(&text))
        })
        .await
    }

    /// Lets in by an interface what these rules name, and nothing else that nobody asked for; `None` leaves the rules that there
    /// are, and where there are none lets nothing in.
    ///
    /// # Errors
    /// When they are not in force; those before are.
    pub async fn set_filter(
        self: &Arc<Self>,
        interface: InterfaceName,
        rules: Option<Vec<filter::Allowed>>,
    ) -> Result<(), PlugError> {
        self.on_a_thread(move |this, namespace| async move {
            let record = this.record.lock().await;
            namespace.enter().map_err(PlugError::Namespace)?;
            filter::set(record.store(), &interface, rules).map_err(PlugError::Filter)
        })
        .await
    }
}

/// The table of `/proc/net/dev`: after the name and a colon eight columns of what was received, then of what was sent.
fn read_traffic(text: &str) -> BTreeMap<String, Traffic> {
    let read = |line: &str| {
        let (name, columns) = line.trim().split_once(':')?;
        let mut columns = columns.split_whitespace();
        let traffic = Traffic { rx: columns.next()?.parse().ok()?, tx: columns.nth(7)?.parse().ok()? };
        name.starts_with("eth").then(|| (name.to_owned(), traffic))
    };
    text.lines().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_alone_are_told_of() {
        let text = "Inter-|   Receive                  |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n\
            \x20   lo: 11 1 0 0 0 0 0 0 12 1 0 0 0 0 0 0\n  eth1:3680 31 0 0 0 0 0 0     1958 22 0 0 0 0 0 0\n";
        let expected = BTreeMap::from([("eth1".to_owned(), Traffic { rx: 3680, tx: 1958 })]);
        assert_eq!(read_traffic(text), expected);
    }
}
