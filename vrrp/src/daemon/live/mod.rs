//! A virtual router with what it has in the kernel.

mod status;

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use self::status::RefusalLog;
use super::holdings::Holdings;
use crate::{
    config::{Instance, InterfaceName},
    core::{Event, Reason, Router, State, Transmit},
    net::{
        Address, AdvertisementSocket, Announcer, Interface, InterfaceIndex, Netlink, SocketOptions,
        socket::{PacketBuffer, group},
    },
    packet::{Family, Pseudo},
};

/// What another hand removes is taken again no more often than this.
const TAKE_AGAIN: Duration = Duration::from_millis(500);

/// What the virtual routers share.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) netlink: Netlink,
    pub(super) announcer: Announcer,
    /// As of the last change that was told.
    pub(super) interfaces: HashMap<InterfaceName, Interface>,
    /// Of all interfaces, as of the last look after a change.
    pub(super) addresses: Vec<Address>,
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
    /// Giving that up came to nothing, because the kernel could not be asked.
    still_held: bool,
    /// Nothing but the data plane's first answer is missing for it to take part.
    unanswered: bool,
    reason: Option<Reason>,
    /// What keeps it from taking part.
    waits: Option<String>,
    /// Why the last advertisement was not sent.
    unsent: Option<String>,
    /// What could not be had in the kernel, or given up.
    fault: Option<String>,
    refusals: RefusalLog,
    /// When what others had removed was taken again last.
    taken_again: Option<Instant>,
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
            still_held: false,
            unanswered: false,
            reason: None,
            waits: None,
            unsent: None,
            fault: None,
            refusals: RefusalLog::default(),
            taken_again: None,
        };
        match wanted.are_there(&kernel.netlink).await {
            // A predecessor crashed as master: what it left serves on until it is decided who is master.
            Ok(true) => live.held = Some(wanted),
            // Or it was interrupted in the middle of something.
            Ok(false) => live.fault = wanted.give_up(&kernel.netlink).await,
            Err(error) => live.fault = Some(error.to_string()),
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
        self.is_master() && self.router.has_handed_over()
    }

    /// The addresses that it has, with their interfaces.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&Interface, IpAddr)> {
        self.held.iter().flat_map(Holdings::addresses)
    }

    /// Looks whether everything that it tracks is up, and opens its socket when that has become possible.
    /// `data_plane_fit` is none before the first answer.
    pub(super) fn look(&mut self, now: Instant, kernel: &Kernel, data_plane_fit: Option<bool>) {
        let interfaces = &kernel.interfaces;
        let instance = self.router.instance();
        let down = [&instance.interface].into_iter().chain(&instance.track_interfaces).find_map(|name| {
            match interfaces.get(name) {
                None => Some(format!("there is no interface {name}")),
                Some(interface) if !interface.is_usable() => Some(format!("{name} is down")),
                Some(_) => None,
            }
        });
        let asks = instance.track.is_some();
        let waits = match (down, interfaces.get(&instance.interface)) {
            (None, Some(interface)) => self.open(interface, kernel).err(),
            (down, _) => {
                self.socket = None;
                down
            }
        };
        let data_plane = match data_plane_fit {
            _ if !asks => None,
            None => Some("the data plane has not answered yet"),
            Some(false) => Some("the data plane is not fit"),
            Some(true) => None,
        };
        self.unanswered = asks && data_plane_fit.is_none() && self.socket.is_some();
        let waits = waits.or_else(|| data_plane.map(str::to_owned));
        if waits != self.waits {
            if let Some(waits) = &waits {
                tracing::warn!(instance = %self.instance().name, "takes no part: {waits}");
            }
            self.waits = waits;
        }
        self.router.set_fit(now, self.waits.is_none());
    }

    /// Opens the socket unless it is open and can go on.
    fn open(&mut self, interface: &Interface, kernel: &Kernel) -> Result<(), String> {
        let source = self.find_source(interface, kernel);
        if let Some(socket) = &self.socket {
            let options = socket.options();
            // Of several addresses the one that was chosen stays for as long as it is there.
            let stays = match &source {
                Ok(source) if options.unicast => *source == options.source,
                _ => kernel.addresses.iter().any(|address| {
                    address.interface == interface.index && address.net.addr() == options.source
                }),
            };
            if options.interface.index == interface.index && stays {
                return Ok(());
            }
            self.socket = None;
        }
        let source = source?;
        let unicast = self.instance().unicast.is_some();
        let options = SocketOptions { interface: interface.clone(), source, unicast };
        self.socket = Some(AdvertisementSocket::open(options).map_err(|error| error.to_string())?);
        self.source = source;
        self.router.set_source(source);
        Ok(())
    }

    /// The configured source, or the interface's first address that is not a virtual one; in IPv6 the link-local one (RFC
    /// 9568 section 5.1.2.1).
    /// A configured one must be where its peers' answers arrive: on that interface, or on the loopback one, which answers
    /// whatever interface they come by.
    fn find_source(&self, interface: &Interface, kernel: &Kernel) -> Result<IpAddr, String> {
        let instance = self.instance();
        let Some(unicast) = &instance.unicast else {
            let source = source_of(instance, interface.index, &kernel.addresses);
            return source.ok_or_else(|| format!("{} has no address to advertise from", interface.name));
        };
        let loopback = kernel.interfaces.values().find(|interface| interface.loopback);
        let is_there = kernel.addresses.iter().any(|address| {
            address.net.addr() == unicast.source
                && !address.tentative
                && (address.interface == interface.index
                    || loopback.is_some_and(|loopback| address.interface == loopback.index))
        });
        let missing = || format!("{} does not have {}, to advertise from", interface.name, unicast.source);
        is_there.then_some(unicast.source).ok_or_else(missing)
    }

    /// Has again what another hand has removed. False when it has to be looked at once more a little later.
    pub(super) async fn verify(&mut self, now: Instant, kernel: &Kernel) -> bool {
        let Some(held) = self.held.as_ref().filter(|_| self.is_master()) else { return true };
        match held.are_whole(&kernel.netlink).await {
            Ok(true) => true,
            Ok(false) => {
                let soon = |last: Instant| now.saturating_duration_since(last) < TAKE_AGAIN;
                if self.taken_again.is_some_and(soon) {
                    return false;
                }
                self.taken_again = Some(now);
                tracing::warn!(instance = %self.instance().name, "an address, a route or a rule is gone, and taken again");
                self.take(kernel).await;
                self.announce(1, kernel);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "what it has is not known");
                false
            }
        }
    }

    /// Whether it has lost its socket and may have another.
    pub(super) fn has_lost_its_socket(&self) -> bool {
        self.socket.is_none() && self.waits.is_none()
    }

    /// Says where the addresses are now: an interface has another link-layer address.
    pub(super) fn announce_again(&self, index: InterfaceIndex, kernel: &Kernel) {
        let holds = self.addresses().any(|(interface, _)| interface.index == index);
        if self.is_master() && holds {
            self.announce(self.instance().garp.repeat, kernel);
        }
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
                let now = super::now();
                if let Err(reason) = self.router.handle_packet(now, &envelope, message) {
                    self.refusals.note(now, &self.router.instance().name, envelope.source, reason);
                }
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
            self.send(transmit);
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
        if self.held.is_some() && !self.is_master() && (!undecided || self.still_held) {
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
                self.take(kernel).await;
                self.announce(1, kernel);
            }
            Event::Reconfigured => {}
            Event::Announce { repeat } => self.announce(repeat, kernel),
            Event::HandOverFailed => tracing::warn!(instance = %name, "nobody took over"),
            Event::OwnerConflict(address) => {
                tracing::error!(instance = %name, %address, "another owner advertises; the priority is 254 while it does");
            }
        }
    }

    /// Has what a master has, and nothing that it had before besides.
    async fn take(&mut self, kernel: &Kernel) {
        self.still_held = false;
        let before = self.held.take();
        let holdings = Holdings::of(self.instance(), &kernel.interfaces);
        self.fault = holdings.take(&kernel.netlink).await;
        if let Some(before) = before
            && let Some(fault) = before.give_up_but(&holdings, &kernel.netlink).await
        {
            self.fault = Some(fault);
        }
        self.held = Some(holdings);
    }

    /// Whether giving up what it had came to nothing.
    pub(super) fn still_holds(&self) -> bool {
        self.still_held
    }

    /// Leaves nothing in the kernel.
    pub(super) async fn give_up(&mut self, kernel: &Kernel) {
        if kernel.netlink.has_ended() {
            self.still_held = self.held.is_some();
            return;
        }
        if let Some(held) = self.held.take() {
            self.fault = held.give_up(&kernel.netlink).await;
            // Then some of it may be there.
            self.still_held = kernel.netlink.has_ended();
            self.held = self.still_held.then_some(held);
        }
    }

    fn announce(&self, repeat: u32, kernel: &Kernel) {
        // Whoever takes over announces, and nobody behind it.
        let Some(held) = self.held.as_ref().filter(|_| !self.router.is_handing_over()) else { return };
        for (interface, address) in held.addresses() {
            // As it is now: its link-layer address may be another than when the address was taken.
            let Some(interface) = kernel.interfaces.values().find(|known| known.index == interface.index)
            else {
                continue;
            };
            for _ in 0..repeat {
                if let Err(error) = kernel.announcer.announce(interface, address) {
                    tracing::warn!(%address, %error, "not announced");
                    break;
                }
            }
        }
    }

    fn send(&mut self, transmit: Transmit) {
        let Some(socket) = &self.socket else {
            self.unsent = Some("an advertisement was not sent: there is no socket".to_owned());
            return;
        };
        let advertisement = self.router.advertisement(transmit);
        let group = group(self.router.instance().family);
        let peers = match &self.router.instance().unicast {
            Some(unicast) => unicast.peers.as_slice(),
            None => std::slice::from_ref(&group),
        };
        let mut unsent = None;
        for peer in peers {
            let destination = if transmit.old_checksum { group } else { *peer };
            let message = advertisement.encode(Pseudo { source: self.source, destination });
            if let Err(error) = socket.send(&message, *peer) {
                unsent = Some(format!("{peer}: {error}"));
            }
        }
        if unsent != self.unsent {
            if let Some(unsent) = &unsent {
                tracing::warn!(instance = %self.router.instance().name, "not advertised to {unsent}");
            }
            self.unsent = unsent;
        }
    }
}

/// The first address of an interface that is no virtual one and can be used; in IPv6 the link-local one.
fn source_of(instance: &Instance, interface: InterfaceIndex, addresses: &[Address]) -> Option<IpAddr> {
    let is_virtual =
        |address| instance.addresses.iter().chain(&instance.excluded).any(|ours| ours.net.addr() == address);
    addresses
        .iter()
        .filter(|address| address.interface == interface && !address.tentative)
        .filter(|address| instance.family == Family::V4 || address.link_local)
        .map(|address| address.net.addr())
        .find(|address| Family::of(*address) == instance.family && !is_virtual(*address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config;

    #[test]
    fn advertisements_leave_from_the_first_address_or_the_link_local_one() {
        let on = |interface, net: &str, tentative| Address {
            interface: InterfaceIndex(interface),
            net: net.parse().unwrap(),
            permanent: true,
            tentative,
            deprecated: false,
            link_local: net.starts_with("fe80"),
        };
        let addresses = [
            on(1, "127.0.0.1/8", false),
            on(2, "192.0.2.100/32", false),
            on(2, "192.0.2.1/24", false),
            on(2, "192.0.2.2/24", false),
            on(2, "2001:db8::1/64", false),
            on(2, "fe80::1/64", true),
            on(2, "fe80::2/64", false),
        ];
        let source = |vip: &str, interface| {
            let text = format!(
                r#"{{"instances": [{{"name": "a", "interface": "eth1", "vrid": 1, "addresses": [{{"address": "{vip}"}}]}}]}}"#
            );
            let config = config::parse(&text).unwrap();
            source_of(&config.instances[0], InterfaceIndex(interface), &addresses).map(|ip| ip.to_string())
        };
        assert_eq!(source("192.0.2.100", 2).as_deref(), Some("192.0.2.1"));
        assert_eq!(source("2001:db8::100", 2).as_deref(), Some("fe80::2"));
        assert_eq!(source("192.0.2.100", 3), None);
    }
}
