//! Neighbours are told who has an address: by gratuitous ARP (RFC 5227 §1.1) and unsolicited neighbour advertisements (RFC 4861 §7.2.6).

use std::{net::IpAddr, sync::Arc, time::Duration};

use amphora_netlink::{Announcer, Interface, NetError, Netlink};

use tokio::{runtime::Handle, time::sleep};

use super::{PlugError, Plumbing};
use crate::config::Topology;

/// The pauses before the VIPs of a port that was plugged are announced again. What is sent when its link comes up may be lost: what
/// is at the other end, a bridge or a switch, forwards a moment later.
const AGAIN: [Duration; 4] =
    [Duration::from_millis(30), Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(4)];

/// Announces these addresses of an interface of this thread's namespace. Where that fails it is logged.
pub(super) fn announce(interface: &Interface, addresses: &[IpAddr]) {
    if let Err(error) = try_to_announce(interface, addresses) {
        // Neighbours find out by themselves, only later.
        tracing::debug!(interface = %interface.name, %error, "addresses were not announced");
    }
}

fn try_to_announce(interface: &Interface, addresses: &[IpAddr]) -> Result<(), NetError> {
    let announcer = Announcer::open()?;
    let announced = addresses.iter().try_for_each(|&address| announcer.announce(interface, address));
    // Closing a packet socket takes the kernel some 10 ms, which nobody has to wait for. Where there is no thread, it is
    // closed here.
    let _ = std::thread::Builder::new().spawn(move || drop(announcer));
    announced
}

impl Plumbing {
    /// Announces the VIPs that the plugged ports have, in the background. Those of a pair are VRRP's, which does it by itself.
    ///
    /// Octavia counts on it at each start and reload (`send_vip_advertisements`): while it replaces an amphora, the one
    /// that goes has the addresses as well, and may have been asked for them last.
    pub fn announce_vips(self: &Arc<Self>) {
        if !self.has_vips() {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = this.try_to_announce_vips().await {
                tracing::debug!(%error, "the VIPs were not announced");
            }
        });
    }

    /// Announces them again, some times, on `runtime`.
    pub(super) fn announce_again(self: &Arc<Self>, runtime: &Handle) {
        if !self.has_vips() {
            return;
        }
        let this = Arc::clone(self);
        runtime.spawn(async move {
            for pause in AGAIN {
                sleep(pause).await;
                if let Err(error) = this.try_to_announce_vips().await {
                    tracing::debug!(%error, "the VIPs were not announced again");
                }
            }
        });
    }

    fn has_vips(&self) -> bool {
        self.config.topology == Topology::Single && self.config.namespace.is_some()
    }

    async fn try_to_announce_vips(self: &Arc<Self>) -> Result<(), PlugError> {
        self.on_a_thread(|this, namespace| async move {
            let record = this.record.lock().await;
            namespace.enter().map_err(PlugError::Namespace)?;
            let netlink = Netlink::open()?;
            for plugged in record.ports() {
                let Some(port) = &plugged.port.vip else { continue };
                let Some(interface) = netlink.interface(&plugged.interface).await? else { continue };
                let there = netlink.addresses_of(interface.index).await?;
                let vips: Vec<_> = (port.vips.iter().map(|vip| vip.address))
                    .filter(|vip| there.iter().any(|address| address.net.addr() == *vip))
                    .collect();
                announce(&interface, &vips);
            }
            Ok(())
        })
        .await
    }
}
