//! The daemon: one thread for the protocol, which owns the virtual routers, their sockets and what they have in the
//! kernel.
//!
//! ```text
//!  raw sockets ──┐                       ┌─> raw sockets
//!  timers ───────┤                       ├─> netlink: addresses, routes, rules
//!  link changes ─┼─> Daemon::run, Router ┼─> gratuitous ARP, neighbour advertisements
//!  data plane ───┤                       └─> replies
//!  control ──────┘
//! ```

mod fitness;
mod hand_over;
mod holdings;
mod live;

use std::{
    collections::HashMap,
    future::poll_fn,
    net::IpAddr,
    path::PathBuf,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use amphora_ipc::vrrp::{DataPlane, Refusal, Status};
use tokio::{sync::mpsc, time::sleep_until};

use self::{
    fitness::Watch,
    hand_over::{HandOver, Stage},
    live::{Kernel, Live},
};
use crate::{
    config::{Config, Instance, Track},
    control::{Asked, Command, Reply},
    net::{
        Announcer, ConfigurationChanges, DeferredSyns, Interface, InterfaceIndex, LinkChange, LinkChanges,
        NetError, Netlink,
    },
};

/// What time it is, for what is told the time.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How often is looked for what was missing, such as an address to advertise from.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How soon after a change of addresses, routes or rules: they seldom come alone.
const LOOK_SOON: Duration = Duration::from_millis(20);
/// How long an answer of the kernel is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Packets that are taken in a row while something else waits: what a socket holds when its thread was late is less.
const BURST: u32 = 512;

/// How the data plane is watched.
#[derive(Clone, Debug)]
pub(crate) struct WatchOptions {
    /// The proxy's fitness socket.
    pub(crate) socket: PathBuf,
    /// Time between questions.
    pub(crate) interval: Duration,
    /// How long a hand-over waits for its clients to be served.
    pub(crate) drain_limit: Duration,
}

/// The virtual routers of one process.
#[derive(Debug)]
pub(crate) struct Daemon {
    begun: Instant,
    kernel: Kernel,
    /// `None` when it failed, until there is another.
    links: Option<LinkChanges>,
    /// Likewise.
    changes: Option<ConfigurationChanges>,
    /// Interfaces may have changed without that it was heard.
    unlisted: bool,
    /// Somebody has changed addresses, routes or rules since they were looked at.
    changed: bool,
    next_look: Instant,
    watch_options: WatchOptions,
    watch: Option<(Track, Watch)>,
    config: Option<Config>,
    started: bool,
    live: Vec<Live>,
    hand_over: Option<HandOver>,
}

/// What [`Daemon::run`] waits for.
enum Happened {
    Received,
    Timeout,
    Link(Result<LinkChange, NetError>),
    Changed(Result<(), NetError>),
    Look,
    HandOver(Stage),
    Asked(Option<Asked>),
    Stop,
}

impl Daemon {
    /// In the network namespace of this thread. To be called within a `LocalSet`.
    ///
    /// # Errors
    /// Without `CAP_NET_ADMIN` and `CAP_NET_RAW`.
    pub(crate) async fn new(watch_options: WatchOptions) -> Result<Self, NetError> {
        let links = Some(LinkChanges::open()?);
        let changes = Some(ConfigurationChanges::open()?);
        let netlink = netlink()?;
        let announcer = Announcer::open()?;
        let mut kernel = Kernel { netlink, announcer, interfaces: HashMap::new(), addresses: Vec::new() };
        kernel.list().await?;
        Ok(Self {
            begun: now(),
            kernel,
            links,
            changes,
            unlisted: false,
            changed: true,
            next_look: now() + LOOK_AGAIN,
            watch_options,
            watch: None,
            config: None,
            started: true,
            live: Vec::new(),
            hand_over: None,
        })
    }

    /// Runs `config` from now on. A virtual router that was there before keeps its state.
    pub(crate) async fn configure(&mut self, config: Option<Config>) {
        let now = now();
        let instances = config.as_ref().map_or(&[][..], |config| &config.instances);
        let mut before = std::mem::take(&mut self.live);
        for instance in instances {
            let known = before.iter().position(|live| is_same_router(live.instance(), instance));
            let live = match known {
                Some(known) => {
                    let mut live = before.swap_remove(known);
                    live.reconfigure(now, instance.clone());
                    live
                }
                None => Live::new(instance.clone(), &self.kernel).await,
            };
            self.live.push(live);
        }
        for mut live in before {
            live.set_started(now, false);
            live.settle(&self.kernel).await;
            live.give_up(&self.kernel).await;
            if live.still_holds() {
                self.listen().await;
                live.give_up(&self.kernel).await;
            }
        }
        let track = instances.iter().find_map(|instance| instance.track);
        if track != self.watch.as_ref().map(|(track, _)| *track) {
            self.watch = track.map(|track| {
                (track, Watch::start(&self.watch_options.socket, track, self.watch_options.interval))
            });
        }
        self.config = config;
        // What one gave up another may have had, too.
        self.changed = true;
        // Fit or not is settled before it starts: a router whose data plane is not known yet waits.
        self.look().await;
        for live in &mut self.live {
            live.set_started(now, self.started);
        }
        self.settle().await;
    }

    /// Runs until `stop` resolves; leaves nothing in the kernel.
    pub(crate) async fn run(&mut self, mut commands: mpsc::Receiver<Asked>, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut received = 0;
        loop {
            let happened = {
                let Self { live, links, changes, watch, hand_over, next_look, .. } = &mut *self;
                let timeout = live.iter().filter_map(Live::poll_timeout).min();
                let next_look = (*next_look).into();
                let mut receive = pin!(receive_any(live));
                tokio::select! {
                    biased;
                    // First, so that a thread that was late hears of a master before it misses it.
                    () = &mut receive, if received < BURST => Happened::Received,
                    () = sleep_until(timeout.unwrap_or_else(now).into()), if timeout.is_some() => Happened::Timeout,
                    () = data_plane(watch) => Happened::Look,
                    stage = next_stage(hand_over) => Happened::HandOver(stage),
                    change = link(links) => Happened::Link(change),
                    change = configuration(changes) => Happened::Changed(change),
                    asked = commands.recv() => Happened::Asked(asked),
                    () = &mut stop => Happened::Stop,
                    () = sleep_until(next_look) => Happened::Look,
                    // Nothing else waits.
                    () = std::future::ready(()), if received >= BURST => Happened::Received,
                }
            };
            received =
                if matches!(happened, Happened::Received) && received < BURST { received + 1 } else { 0 };
            match happened {
                Happened::Received => {
                    if self.live.iter().any(Live::has_lost_its_socket) {
                        self.look_soon();
                    }
                }
                Happened::Timeout => {
                    let now = now();
                    self.live.iter_mut().for_each(|live| live.handle_timeout(now));
                }
                Happened::Look => self.look().await,
                Happened::Changed(change) => {
                    if let Err(error) = change {
                        tracing::error!(%error, "changes of addresses, routes and rules");
                        self.changes = None;
                    }
                    self.changed = true;
                    self.look_soon();
                }
                Happened::Link(change) => {
                    let moved = self.kernel.moved(&change);
                    match change {
                        Ok(change) => self.unlisted |= !self.kernel.update(change),
                        Err(error) => {
                            tracing::error!(%error, "changes of interfaces");
                            self.links = None;
                        }
                    }
                    if let Some(index) = moved {
                        self.live.iter().for_each(|live| live.announce_again(index, &self.kernel));
                    }
                    self.look().await;
                }
                Happened::HandOver(Stage::Drained) => self.hand_over(),
                Happened::HandOver(Stage::Over) => {
                    if !self.live.iter().any(Live::is_handing_over) {
                        self.hand_over = None;
                    }
                }
                Happened::Asked(Some((command, reply))) => {
                    let answer = self.answer(command).await;
                    // Whoever asked may have gone.
                    let _ = reply.send(answer);
                }
                Happened::Asked(None) | Happened::Stop => break,
            }
            self.settle().await;
            if self.kernel.netlink.has_ended() {
                self.look_soon();
            }
        }
        self.configure(None).await;
    }

    /// Opens anew what has ended, and lists what may have changed meanwhile. The rest does not wait for it to succeed.
    async fn listen(&mut self) {
        if self.kernel.netlink.has_ended() {
            match netlink() {
                Ok(netlink) => {
                    tracing::warn!("the kernel is asked by another socket: the one before has failed");
                    self.kernel.netlink = netlink;
                    (self.unlisted, self.changed) = (true, true);
                }
                Err(error) => tracing::error!(%error, "the kernel cannot be asked"),
            }
        }
        if self.links.is_none() {
            self.links = LinkChanges::open().ok();
            self.unlisted = true;
        }
        if self.changes.is_none() {
            self.changes = ConfigurationChanges::open().ok();
            self.changed = true;
        }
        if self.unlisted {
            match self.kernel.list().await {
                // Without changes they are listed each time.
                Ok(()) => self.unlisted = self.links.is_none(),
                Err(error) => tracing::warn!(%error, "interfaces stay as they were known"),
            }
        }
        if self.changed
            && let Err(error) = self.kernel.list_addresses().await
        {
            tracing::warn!(%error, "addresses stay as they were known");
        }
    }

    async fn look(&mut self) {
        self.next_look = now() + LOOK_AGAIN;
        self.listen().await;
        let fit = match self.watch.as_ref().map(|(_, watch)| watch.verdict()) {
            None => Some(true),
            Some(verdict) => verdict.known.then_some(verdict.fit),
        };
        let now = now();
        for live in &mut self.live {
            live.look(now, &self.kernel, fit);
        }
        // Whoever changes an address is heard; without that they are listed each time.
        if self.changed {
            self.changed = self.changes.is_none() || self.kernel.netlink.has_ended();
            for live in &mut self.live {
                self.changed |= !live.verify(now, &self.kernel).await;
            }
        }
    }

    fn look_soon(&mut self) {
        self.next_look = self.next_look.min(now() + LOOK_SOON);
    }

    async fn settle(&mut self) {
        for live in &mut self.live {
            live.settle(&self.kernel).await;
        }
    }

    async fn answer(&mut self, command: Command) -> Reply {
        let now = now();
        match command {
            Command::Status => {}
            Command::Config => return Reply::Config(self.config.clone()),
            Command::Configure(config) => self.configure(config).await,
            Command::Start(started) => {
                self.started = started;
                self.hand_over = None;
                for live in &mut self.live {
                    live.set_started(now, started);
                }
            }
            Command::HandOver => {
                if !self.live.iter().any(Live::is_master) {
                    return Reply::Refused(Refusal::of("no virtual router is master here"));
                }
                // One that came to nothing a moment ago is no reason not to begin anew.
                let is_under_way = self.hand_over.as_ref().is_some_and(HandOver::is_draining)
                    || self.live.iter().any(Live::is_handing_over);
                if !is_under_way {
                    self.begin_hand_over();
                }
            }
            Command::Resume => {
                // Once it has drained, who connects is still sent on for a moment.
                self.hand_over.take_if(|hand_over| hand_over.is_draining());
                self.live.iter_mut().for_each(Live::resume);
            }
        }
        self.settle().await;
        Reply::Status(Box::new(self.status(now)))
    }

    /// Lets the clients go before the virtual routers do, where there is a data plane that can.
    fn begin_hand_over(&mut self) {
        let limit = self.watch_options.drain_limit;
        let watch = self.watch.as_ref().filter(|(_, watch)| watch.verdict().connected && !limit.is_zero());
        let Some((_, watch)) = watch else { return self.hand_over() };
        let mut by_interface: HashMap<InterfaceIndex, (&Interface, Vec<IpAddr>)> = HashMap::new();
        for (interface, address) in self.live.iter().filter(|live| live.is_master()).flat_map(Live::addresses)
        {
            by_interface.entry(interface.index).or_insert((interface, Vec::new())).1.push(address);
        }
        let vips = by_interface.values().flat_map(|(_, addresses)| addresses).copied().collect();
        let deferred = by_interface.into_values().filter_map(|(interface, addresses)| {
            DeferredSyns::open(interface, addresses).unwrap_or_else(|error| {
                tracing::warn!(%error, "who connects while the VIP moves has to ask again");
                None
            })
        });
        self.hand_over = Some(HandOver::start(watch.drainer(), vips, deferred.collect(), limit));
    }

    fn hand_over(&mut self) {
        let now = now();
        for live in self.live.iter_mut().filter(|live| live.is_master()) {
            live.hand_over(now);
        }
    }

    fn status(&self, now: Instant) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(now.saturating_duration_since(self.begun).as_millis())
                .unwrap_or(u64::MAX),
            started: self.started,
            data_plane: self.watch.as_ref().map(|(_, watch)| {
                let verdict = watch.verdict();
                DataPlane { fit: verdict.fit, connected: verdict.connected, went_unfit: verdict.went_unfit }
            }),
            instances: self.live.iter().map(|live| live.status(now)).collect(),
        }
    }
}

/// Whether one can become the other without leaving its state.
fn is_same_router(before: &Instance, after: &Instance) -> bool {
    (before.vrid, before.family, before.version(), &before.interface)
        == (after.vrid, after.family, after.version(), &after.interface)
}

/// Resolves when a virtual router has received something. Dropping it loses nothing.
async fn receive_any(live: &mut [Live]) {
    let mut receiving: Vec<_> = live.iter_mut().map(|live| Box::pin(live.receive())).collect();
    poll_fn(|cx| {
        let received = receiving.iter_mut().filter_map(|receive| match receive.as_mut().poll(cx) {
            Poll::Ready(()) => Some(()),
            Poll::Pending => None,
        });
        if received.count() > 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A socket by which the kernel is asked, on the thread that must not be late: whatever it does not answer in this time is
/// asked once more by another.
fn netlink() -> Result<Netlink, NetError> {
    Ok(Netlink::open()?.with_patience(PATIENCE))
}

async fn link(links: &mut Option<LinkChanges>) -> Result<LinkChange, NetError> {
    match links {
        Some(links) => links.next().await,
        None => std::future::pending().await,
    }
}

async fn configuration(changes: &mut Option<ConfigurationChanges>) -> Result<(), NetError> {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

async fn next_stage(hand_over: &mut Option<HandOver>) -> Stage {
    match hand_over {
        Some(hand_over) => hand_over.next().await,
        None => std::future::pending().await,
    }
}

async fn data_plane(watch: &mut Option<(Track, Watch)>) {
    match watch {
        Some((_, watch)) => watch.changed().await,
        None => std::future::pending().await,
    }
}

impl Kernel {
    async fn list(&mut self) -> Result<(), NetError> {
        let interfaces = self.netlink.interfaces().await?;
        self.interfaces =
            interfaces.into_iter().map(|interface| (interface.name.clone(), interface)).collect();
        Ok(())
    }

    async fn list_addresses(&mut self) -> Result<(), NetError> {
        self.addresses = self.netlink.addresses().await?;
        Ok(())
    }

    /// The interface that has another link-layer address now.
    fn moved(&self, change: &Result<LinkChange, NetError>) -> Option<InterfaceIndex> {
        let Ok(LinkChange::Now(now)) = change else { return None };
        let before = self.interfaces.values().find(|known| known.index == now.index)?;
        (before.mac != now.mac).then_some(now.index)
    }

    /// False when all of them have to be listed.
    fn update(&mut self, change: LinkChange) -> bool {
        match change {
            LinkChange::Now(interface) => {
                self.interfaces.retain(|_, known| known.index != interface.index);
                self.interfaces.insert(interface.name.clone(), interface);
                true
            }
            LinkChange::Gone(index) => {
                self.interfaces.retain(|_, known| known.index != index);
                true
            }
            LinkChange::Missed => false,
        }
    }
}
