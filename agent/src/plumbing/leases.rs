//! The clients of DHCP of ports without addresses: each a task that asks, and hands what it gets to the port.
//!
//! A lease is recorded before it is set, as all of a port is. So after a restart or a boot the address is there at once, for the
//! time that is left of it, and the client asks for the same one again meanwhile. The kernel takes the address away at its
//! end even if no agent is there any more.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use amphora_netlink::{Interface, MacAddress, Netlink};
use ipnet::IpNet;
use tokio::{runtime::Handle, task::AbortHandle, time::timeout};

use super::{PlugError, Plugged, Plumbing, Record, record::Leased, settle, world};
use crate::dhcp::{Client, Event, Lease, Received, Sockets, Transmit, Watched};

/// Who asks for a port waits so long for its address, and then gets his answer without: a server whose first answer is lost is asked
/// again after some 4 s.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Octets of the largest IP packet that a client takes: what any Ethernet carries, and the least that any host takes
/// (RFC 2131 section 2).
const LARGEST: std::ops::RangeInclusive<u32> = 576..=1500;

/// Why there is no address, for as long as nothing was heard.
const SILENCE: &str = "DHCP has given no address: no server answers";

/// The clients that run, by the MAC addresses of their ports.
#[expect(
    clippy::disallowed_types,
    reason = "held to look at a few handles, never while something is awaited"
)]
pub(super) type Clients = std::sync::Mutex<BTreeMap<MacAddress, AbortHandle>>;

impl Plumbing {
    /// Waits until a port has an address, if it is one that DHCP gives it to, but not longer than 10 s.
    pub async fn leased(&self, mac: MacAddress) {
        let waiting = async {
            loop {
                let changed = self.leases_changed.notified();
                tokio::pin!(changed);
                // From now on, and not from when it is waited for.
                changed.as_mut().enable();
                match self.find(mac).await {
                    Some(plugged) if plugged.port.is_dynamic() && plugged.lease.is_none() => changed.await,
                    _ => return,
                }
            }
        };
        let _ = timeout(PATIENCE, waiting).await;
    }

    /// Has a client for each port that wants one, and for no other.
    pub(super) fn tend(self: &Arc<Self>, record: &Record, on: &Handle) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let dynamic = |mac: MacAddress| record.find(mac).filter(|plugged| plugged.port.is_dynamic());
        clients.retain(|mac, client| {
            let wanted = dynamic(*mac).is_some();
            if !wanted {
                client.abort();
            }
            wanted && !client.is_finished()
        });
        for plugged in record.ports().iter().filter(|plugged| plugged.port.is_dynamic()) {
            let mac = plugged.mac_address;
            if plugged.lease.is_none() && !self.failures().contains_key(&mac) {
                self.note(mac, Some(SILENCE.to_owned()));
            }
            clients
                .entry(mac)
                .or_insert_with(|| on.spawn(Tenant::new(self.clone(), plugged).run()).abort_handle());
        }
    }

    /// A port has this lease now, or for this reason none.
    async fn set_lease(
        self: &Arc<Self>,
        mac: MacAddress,
        lease: Result<Leased, String>,
    ) -> Result<(), PlugError> {
        let set = self.on_a_thread(move |this, namespace| async move {
            let mut record = this.record.lock().await;
            // It may have become another one meanwhile.
            let Some(before) = record.find(mac).filter(|plugged| plugged.port.is_dynamic()).cloned() else {
                return Ok(());
            };
            let others = world::networks_of_others(&record, mac);
            let (lease, failure) = match lease {
                Ok(leased) => (Some(leased), None),
                Err(failure) => (None, Some(failure)),
            };
            if let Some(leased) = &lease {
                apart(leased, &others)?;
            }
            let world = world::World::enter(&namespace, this.config.topology).await?;
            let plugged = Plugged { lease, ..before };
            let leftovers = world.leftovers(&record, &plugged);
            record.put(plugged.clone(), leftovers).map_err(PlugError::Storage)?;
            let made = async {
                let place = world.place(mac, None).await?;
                world.check_name(&plugged.interface, &place).await?;
                world.make(&record, &plugged, &place).await
            };
            made.await?;
            settle(&mut record, mac);
            this.note(mac, failure);
            Ok(())
        });
        let set = set.await;
        self.leases_changed.notify_waiters();
        set
    }

    /// Opened in the namespace, for the runtime of whoever calls.
    async fn sockets(self: &Arc<Self>, mac: MacAddress) -> Result<Watched, PlugError> {
        let opened = self.on_a_thread(move |_, namespace| async move {
            namespace.enter().map_err(PlugError::Namespace)?;
            let interface = Netlink::open()?.interface_by_mac(mac).await?;
            Sockets::open(&interface.ok_or(PlugError::NoInterface(mac))?).map_err(PlugError::Dhcp)
        });
        opened.await?.watch().map_err(PlugError::Dhcp)
    }
}

/// A lease in the network of another port would take that one's packets away, or be one of the VIPs.
fn apart(leased: &Leased, others: &[IpNet]) -> Result<(), PlugError> {
    let net = IpNet::from(leased.lease.address.trunc());
    match others.iter().find(|other| other.contains(&net) || net.contains(*other)) {
        Some(other) => Err(PlugError::Overlap { lease: leased.lease.address, other: *other }),
        None => Ok(()),
    }
}

/// Tells the server that an address is given back; on a thread that is in the namespace, before the address is taken away. It
/// may get lost: then the server waits for the end of the lease.
pub(super) fn release(interface: &Interface, mac: MacAddress, lease: &Lease) {
    let released = seed().and_then(|seed| {
        let sockets = Sockets::open(interface)?;
        sockets.send(&Client::release(mac, lease, seed))
    });
    if let Err(error) = released {
        tracing::info!(%mac, address = %lease.address, %error, "the server is not told that its address is free");
    }
}

fn seed() -> io::Result<u64> {
    let mut seed = [0; 8];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| io::Error::other("there are no random numbers"))?;
    Ok(u64::from_ne_bytes(seed))
}

/// A client, and the port that it asks for.
struct Tenant {
    plumbing: Arc<Plumbing>,
    mac: MacAddress,
    largest: u16,
    before: Option<Leased>,
    /// Why the lease that the client gives up could not be used.
    refused: Option<String>,
}

impl Tenant {
    fn new(plumbing: Arc<Plumbing>, plugged: &Plugged) -> Self {
        let mtu = plugged.port.mtu.unwrap_or(*LARGEST.end());
        let largest = mtu.clamp(*LARGEST.start(), *LARGEST.end()) as u16;
        Self { plumbing, mac: plugged.mac_address, largest, before: plugged.lease.clone(), refused: None }
    }

    async fn run(mut self) {
        let seed = match seed() {
            Ok(seed) => seed,
            Err(error) => return self.fail(format!("DHCP cannot begin: {error}")),
        };
        let before = self.before.take().map(|leased| (leased.lease, leased.expires));
        let mut client = Client::new(self.mac, self.largest, seed, now(), before);
        let mut sockets = None;
        loop {
            while let Some(event) = client.poll_event() {
                self.handle(event, &mut client).await;
            }
            while let Some(transmit) = client.poll_transmit() {
                self.send(&mut sockets, &transmit).await;
            }
            if !client.listens() {
                close(&mut sockets);
            }
            let received = tokio::select! {
                received = receive(&mut sockets) => received,
                () = sleep_until(client.poll_timeout()) => {
                    client.handle_timeout(now());
                    continue;
                }
            };
            match received {
                Ok(Received::Answer(answer)) => {
                    client.handle_answer(&answer, now());
                    if let Some(unfit) = client.refused() {
                        self.fail(format!("DHCP has given no address: an answer is refused: {unfit}"));
                    }
                }
                Ok(Received::Arp(sender, target)) => client.handle_arp(sender, target, now()),
                Err(error) => {
                    tracing::debug!(mac = %self.mac, %error, "a socket for DHCP failed");
                    // The next question opens others.
                    close(&mut sockets);
                }
            }
        }
    }

    async fn handle(&mut self, event: Event, client: &mut Client) {
        let mac = self.mac;
        match event {
            Event::Bound { lease, expires } => {
                let (address, server, seconds) = (lease.address, lease.server, lease.seconds);
                match self.plumbing.set_lease(mac, Ok(Leased { lease, expires })).await {
                    Ok(()) => {
                        tracing::info!(%mac, %address, %server, seconds, "the port has an address by DHCP");
                    }
                    Err(error @ PlugError::Overlap { .. }) => {
                        self.refused = Some(format!("DHCP has given no address: {error}"));
                        client.refuse(now());
                    }
                    // It is recorded, and tried again with the next answer, or when the interface appears.
                    Err(error) => self.fail(format!("the address of DHCP cannot be set: {error}")),
                }
            }
            Event::Lost => {
                let why = self.refused.take().unwrap_or_else(|| SILENCE.to_owned());
                tracing::warn!(%mac, why, "the port has no address");
                if let Err(error) = self.plumbing.set_lease(mac, Err(why)).await {
                    self.fail(format!("the address of DHCP cannot be taken away: {error}"));
                }
            }
        }
    }

    async fn send(&self, sockets: &mut Option<Watched>, transmit: &Transmit) {
        if sockets.is_none() {
            match self.plumbing.sockets(self.mac).await {
                Ok(opened) => *sockets = Some(opened),
                Err(error) => return self.fail(format!("DHCP has no sockets: {error}")),
            }
        }
        // What is lost is asked again.
        if let Some(Err(error)) = sockets.as_ref().map(|sockets| sockets.send(transmit)) {
            tracing::debug!(mac = %self.mac, %error, "a question of DHCP is not sent");
        }
    }

    fn fail(&self, why: String) {
        tracing::debug!(mac = %self.mac, why);
        self.plumbing.note(self.mac, Some(why));
    }
}

async fn receive(sockets: &mut Option<Watched>) -> io::Result<Received> {
    match sockets {
        Some(sockets) => sockets.receive().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Closing a packet socket takes the kernel some 10 ms.
fn close(sockets: &mut Option<Watched>) {
    if let Some(sockets) = sockets.take() {
        tokio::task::spawn_blocking(move || drop(sockets));
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
