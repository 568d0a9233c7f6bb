//! A virtual router with what it has in the kernel.

use std::{collections::HashMap, net::IpAddr, time::Instant};

use super::holdings::Holdings;
use crate::{
    config::{Instance, InterfaceName},
    control::api::{CountersStatus, InstanceStatus, PeerStatus},
    core::{Event, Reason, Router, State, Transmit},
    net::{
        AdvertisementSocket, Announcer, Interface, NetError, Netlink, SocketOptions,
        socket::{PacketBuffer, group},
    },
    packet::{Envelope, Family, Pseudo, Refusal, Version},
};

/// What the virtual routers share.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) netlink: Netlink,
    pub(super) announcer: Announcer,
    /// As of the last change that was told.
    pub(super) interfaces: HashMap<InterfaceName, Interface>,
}

/// One virtual router.
#[derive(Debug)]
pub(super) struct Live {
    router: Router,
    source: IpAddr,
    socket: Option<AdvertisementSocket>,
    buffer: PacketBuffer,
    /// What it has in the kernel as master, or has from a predecessor.
    held: Option<Holdings>,
    /// Nothing but the data plane's first answer is missing for it to take part.
    unanswered: bool,
    reason: Option<Reason>,
    error: Option<String>,
    /// The last thing that was logged of refusals, so that a rival does not fill the log.
    refused: Option<Refusal>,
}

impl Live {
    /// Takes part as soon as it can, if `started`.
    pub(super) async fn new(instance: Instance, kernel: &Kernel) -> Self {
        let family = instance.family;
        let unspecified = match family {
            Family::V4 => IpAddr::from([0; 4]),
            Family::V6 => IpAddr::from([0; 16]),
        };
        let wanted = Holdings::of(&instance, &kernel.interfaces);
        let mut live = Self {
            router: Router::new(instance, unspecified, group(family)),
            source: unspecified,
            socket: None,
            buffer: PacketBuffer::default(),
            held: None,
            unanswered: false,
            reason: None,
            error: None,
            refused: None,
        };
        match wanted.are_there(&kernel.netlink).await {
            // A predecessor crashed as master: what it left serves on until it is decided who is master.
            Ok(true) => live.held = Some(wanted),
            // Or it was interrupted in the middle of something.
            Ok(false) => live.error = wanted.give_up(&kernel.netlink).await,
            Err(error) => live.error = Some(error.to_string()),
        }
        live
    }

    pub(super) fn instance(&self) -> &Instance {
        self.router.instance()
    }

    pub(super) fn is_master(&self) -> bool {
        self.router.state() == State::Master
    }

    /// Whether it waits for its successor.
    pub(super) fn is_handing_over(&self) -> bool {
        self.is_master() && self.router.has_abdicated()
    }

    /// The addresses that it has, with their interfaces.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&Interface, IpAddr)> {
        self.held.iter().flat_map(Holdings::addresses)
    }

    /// Looks whether everything that it tracks is up, and opens its socket when that has become possible.
    /// `data_plane_fit` is none before the first answer.
    pub(super) async fn look(&mut self, now: Instant, kernel: &Kernel, data_plane_fit: Option<bool>) {
        let up = |name: &InterfaceName| kernel.interfaces.get(name).is_some_and(Interface::is_usable);
        let instance = self.router.instance();
        let tracked = up(&instance.interface) && instance.track_interfaces.iter().all(up);
        let asks = instance.track.is_some();
        let fit = tracked && (data_plane_fit == Some(true) || !asks);
        if tracked {
            self.open(kernel).await;
        } else {
            self.socket = None;
        }
        self.unanswered = asks && data_plane_fit.is_none() && self.socket.is_some();
        self.router.set_fit(now, fit && self.socket.is_some());
    }

    /// Opens the socket unless it is open.
    async fn open(&mut self, kernel: &Kernel) {
        let Some(interface) = kernel.interfaces.get(&self.instance().interface) else { return };
        if let Some(socket) = &self.socket {
            if socket.options().interface.index == interface.index {
                return;
            }
            self.socket = None;
        }
        let opened = match self.find_source(interface, &kernel.netlink).await {
            Ok(Some(source)) => {
                let unicast = self.instance().unicast.is_some();
                let options = SocketOptions { interface: interface.clone(), source, unicast };
                AdvertisementSocket::open(options)
                    .map_err(|error| error.to_string())
                    .map(|socket| (source, socket))
            }
            Ok(None) => Err(format!("{} has no address to advertise from", interface.name)),
            Err(error) => Err(error.to_string()),
        };
        match opened {
            Ok((source, socket)) => {
                self.source = source;
                self.router.set_source(source);
                self.socket = Some(socket);
                self.error = None;
            }
            Err(error) => {
                if self.error.as_deref() != Some(&error) {
                    tracing::warn!(instance = %self.instance().name, "{error}");
                    self.error = Some(error);
                }
            }
        }
    }

    /// The configured source, or the interface's first address that is not a virtual one; in IPv6 the link-local one (RFC
    /// 9568 section 5.1.2.1).
    async fn find_source(
        &self,
        interface: &Interface,
        netlink: &Netlink,
    ) -> Result<Option<IpAddr>, NetError> {
        let instance = self.instance();
        if let Some(unicast) = &instance.unicast {
            return Ok(Some(unicast.source));
        }
        let is_virtual = |address: IpAddr| {
            instance.addresses.iter().chain(&instance.excluded).any(|ours| ours.net.addr() == address)
        };
        let addresses = netlink.addresses_of(interface.index).await?;
        Ok(addresses
            .iter()
            .filter(|address| !address.tentative && !is_virtual(address.net.addr()))
            .filter(|address| Family::of(address.net.addr()) == instance.family)
            .find(|address| instance.family == Family::V4 || address.link_local)
            .map(|address| address.net.addr()))
    }

    /// Takes part, or stops.
    pub(super) fn set_started(&mut self, now: Instant, started: bool) {
        if started {
            self.router.start(now, self.held.is_some());
        } else {
            self.router.stop(now);
        }
    }

    pub(super) fn hand_over(&mut self, now: Instant) -> bool {
        self.router.hand_over(now)
    }

    pub(super) fn resume(&mut self) {
        self.router.resume();
    }

    /// Becomes what `instance` says; it is the same virtual router.
    pub(super) fn reconfigure(&mut self, now: Instant, instance: Instance) {
        if instance.unicast != self.instance().unicast {
            self.socket = None;
        }
        let source = instance.unicast.as_ref().map_or(self.source, |unicast| unicast.source);
        self.router.reconfigure(now, instance, source);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.router.poll_timeout()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.router.handle_timeout(now);
    }

    /// Waits for the next advertisement and hands it in. Dropping the future loses nothing.
    pub(super) async fn receive(&mut self) {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        match socket.receive(&mut self.buffer).await {
            Ok((envelope, message)) => {
                let outcome = self.router.handle_packet(Instant::now(), &envelope, message);
                note(&mut self.refused, self.router.instance(), &envelope, outcome);
            }
            // The interface is gone or down, of which the kernel tells in another way, too.
            Err(error) => {
                tracing::warn!(instance = %self.instance().name, %error, "no advertisements");
                self.socket = None;
            }
        }
    }

    /// Does what the router wants done: what is to be sent first, then the rest.
    pub(super) async fn settle(&mut self, kernel: &Kernel) {
        while let Some(transmit) = self.router.poll_transmit() {
            self.send(transmit).await;
        }
        while let Some(event) = self.router.poll_event() {
            self.act(event, kernel).await;
        }
        // What a predecessor left goes once another master is heard.
        let heard = self.router.peer().is_some_and(|peer| peer.priority > 0);
        let undecided = !heard
            && match self.router.state() {
                State::Backup => true,
                State::Initialize => self.unanswered,
                State::Master => false,
            };
        if self.held.is_some() && !self.is_master() && !undecided {
            self.give_up(kernel).await;
        }
    }

    async fn act(&mut self, event: Event, kernel: &Kernel) {
        let name = &self.router.instance().name;
        match event {
            Event::Changed { from, to, reason } => {
                tracing::info!(instance = %name, from = from.as_str(), to = to.as_str(), reason = reason.as_str(), "state");
                self.reason = Some(reason);
                match to {
                    State::Master => self.take(kernel).await,
                    _ if from == State::Master => self.give_up(kernel).await,
                    _ => {}
                }
            }
            Event::Reconfigured if self.is_master() => {
                let before = self.held.take();
                self.take(kernel).await;
                if let (Some(before), Some(held)) = (before, &self.held)
                    && let Some(error) = before.give_up_but(held, &kernel.netlink).await
                {
                    self.error = Some(error);
                }
                self.announce(1, kernel);
            }
            Event::Reconfigured => {}
            Event::Announce { repeat } => self.announce(repeat, kernel),
            Event::HandOverFailed => tracing::warn!(instance = %name, "nobody took over"),
            Event::OwnerConflict(address) => {
                tracing::error!(instance = %name, %address, "another owner advertises; the priority is now 254");
            }
        }
    }

    async fn take(&mut self, kernel: &Kernel) {
        let holdings = Holdings::of(self.instance(), &kernel.interfaces);
        self.error = holdings.take(&kernel.netlink).await;
        self.held = Some(holdings);
    }

    /// Leaves nothing in the kernel.
    pub(super) async fn give_up(&mut self, kernel: &Kernel) {
        if let Some(held) = self.held.take() {
            self.error = held.give_up(&kernel.netlink).await;
        }
    }

    fn announce(&self, repeat: u32, kernel: &Kernel) {
        let Some(held) = &self.held else { return };
        for _ in 0..repeat {
            for (interface, address) in held.addresses() {
                if let Err(error) = kernel.announcer.announce(interface, address) {
                    tracing::warn!(%address, %error, "not announced");
                    return;
                }
            }
        }
    }

    async fn send(&mut self, transmit: Transmit) {
        let Some(socket) = &self.socket else { return };
        let advertisement = self.router.advertisement(transmit);
        let group = group(self.router.instance().family);
        let peers = match &self.router.instance().unicast {
            Some(unicast) => unicast.peers.as_slice(),
            None => std::slice::from_ref(&group),
        };
        for peer in peers {
            let destination = if transmit.old_checksum { group } else { *peer };
            let message = advertisement.encode(Pseudo { source: self.source, destination });
            if let Err(error) = socket.send(&message, *peer).await {
                tracing::warn!(instance = %self.router.instance().name, %peer, %error, "not advertised");
            }
        }
    }

    pub(super) fn status(&self, now: Instant) -> InstanceStatus {
        let instance = self.instance();
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let counters = self.router.counters();
        InstanceStatus {
            name: instance.name.clone(),
            state: self.router.state().as_str().to_owned(),
            since_ms: self.router.since().map_or(0, |since| millis(now.saturating_duration_since(since))),
            reason: self.reason.map(Reason::as_str).unwrap_or_default().to_owned(),
            interface: instance.interface.to_string(),
            vrid: instance.vrid,
            version: match instance.version() {
                Version::V2 => 2,
                Version::V3 => 3,
            },
            priority: self.router.priority(),
            interval_ms: millis(crate::core::Timing::of(instance.interval).interval()),
            master_interval_ms: millis(self.router.master_interval()),
            fit: self.router.is_fit(),
            handed_over: self.router.has_abdicated(),
            addresses: instance
                .addresses
                .iter()
                .chain(&instance.excluded)
                .map(|address| address.net.to_string())
                .collect(),
            peer: self.router.peer().map(|peer| PeerStatus {
                address: peer.address,
                priority: peer.priority,
                ago_ms: millis(now.saturating_duration_since(peer.at)),
            }),
            counters: CountersStatus {
                sent: counters.sent,
                received: counters.received,
                priority_zero_sent: counters.priority_zero_sent,
                priority_zero_received: counters.priority_zero_received,
                became_master: counters.became_master,
                released_master: counters.released_master,
                refused: Refusal::ALL
                    .into_iter()
                    .filter(|reason| counters.refused(*reason) > 0)
                    .map(|reason| (reason.as_str().to_owned(), counters.refused(reason)))
                    .collect(),
            },
            error: self.error.clone(),
        }
    }
}

/// Tells of the first refusal of a kind, until something else comes.
fn note(last: &mut Option<Refusal>, instance: &Instance, envelope: &Envelope, outcome: Result<(), Refusal>) {
    let refused = outcome.err().filter(|reason| !matches!(reason, Refusal::Inactive | Refusal::Own));
    if refused != *last
        && let Some(reason) = refused
    {
        tracing::warn!(instance = %instance.name, from = %envelope.source, "an advertisement is not taken: {reason}");
    }
    *last = refused;
}
