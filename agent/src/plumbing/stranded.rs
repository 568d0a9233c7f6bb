//! Connections whose address has gone by another hand than a plug's: a lease or what a router has advertised has ended, or someone has
//! taken it away. Whoever waits for an answer on one waits for nothing, and an idle one to a member would be given the next request.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use amphora_netlink::{ConfigurationChanges, Netlink, end_connections};
use tokio::sync::oneshot;

use super::{PlugError, Plumbing};

impl Plumbing {
    /// Ends the connections of TCP of each address that goes, until it is dropped, or the kernel tells of no more.
    ///
    /// Those of a VIP stay, which VRRP takes away and may give back: what its clients send then is answered by the other amphora.
    pub async fn watch_addresses(self: Arc<Self>) {
        // Is closed with this future.
        let (_watching, ending) = oneshot::channel::<()>();
        let watched = self.on_a_thread(|this, namespace| async move {
            namespace.enter().map_err(PlugError::Namespace)?;
            tokio::select! {
                _ = ending => Ok(()),
                ended = this.end_stranded() => ended,
            }
        });
        if let Err(error) = watched.await {
            tracing::error!(%error, "connections of addresses that go end by their time limits alone");
        }
    }

    async fn end_stranded(&self) -> Result<(), PlugError> {
        let mut changes = ConfigurationChanges::open()?;
        let netlink = Netlink::open()?;
        let mut there = HashSet::new();
        loop {
            {
                // A change of a port may take an address away and bring it again, and ends by itself what it has to.
                let record = self.record.lock().await;
                let now: HashSet<IpAddr> =
                    netlink.addresses().await?.iter().map(|address| address.net.addr()).collect();
                let vips = record.ports().iter().filter_map(|plugged| plugged.port.vip.as_ref());
                let is_vip = |address: &IpAddr| {
                    vips.clone().any(|port| port.vips.iter().any(|vip| vip.address == *address))
                };
                let gone: Vec<IpAddr> =
                    there.difference(&now).filter(|address| !is_vip(address)).copied().collect();
                match end_connections(&gone) {
                    Ok(0) => {}
                    Ok(ended) => {
                        tracing::warn!(?gone, ended, "addresses have gone, and connections with them")
                    }
                    Err(error) => tracing::warn!(
                        ?gone, %error, "connections of addresses that have gone end by their time limits alone"
                    ),
                }
                there = now;
            }
            changes.next().await?;
        }
    }
}
