//! The state machine of RFC 9568 section 6.4, with what keepalived adds to it.
//!
//! ```text
//!                  start, fit                        master-down timer
//!   +------------+ ----------> +--------+ ---------------------------------> +--------+
//!   | Initialize |             | Backup |                                    | Master |
//!   +------------+ <---------- +--------+ <--------------------------------- +--------+
//!         ^      stop, unfit              higher priority heard, handed over      |
//!         +-----------------------------------------------------------------------+
//!                               stop, unfit: priority 0 is sent
//! ```
//!
//! Whoever has heard of another master and stays one announces the addresses again, because the network may have learned the
//! other last; and whoever yields to another says so by one more advertisement, or that one may never know.
//!
//! An owner of the addresses (priority 255) goes from Initialize to Master at once. keepalived calls Initialize FAULT when
//! something that is tracked is down.

mod admit;
mod reconfigure;
mod timers;

use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

use self::timers::{Down, Timers, Wait, after, again, take_due};
use super::{Counters, Event, Peer, Reason, State, Timing, Transmit};
use crate::{
    config::{Instance, Preempt},
    packet::{Advertisement, Envelope, Refusal},
};

/// The priority that means "I stop".
const STOP: u8 = 0;
/// The priority of who owns the addresses.
const OWNER: u8 = 255;
/// Intervals that a router which hands over waits for its successor.
const HAND_OVER_PATIENCE: u32 = 3;

/// A virtual router; see the [module](super).
#[derive(Debug)]
pub struct Router {
    instance: Instance,
    /// The address that its advertisements come from, which breaks ties.
    source: IpAddr,
    multicast: IpAddr,
    addresses: Vec<IpAddr>,
    priority: u8,
    state: State,
    since: Option<Instant>,
    started: bool,
    fit: bool,
    /// The next time that it becomes backup it waits for one interval alone.
    soon: bool,
    /// Not to take over from a master, whatever its priority: it has handed over.
    handed_over: bool,
    own: Timing,
    /// Of the master that was heard: in version 3 it may be another (RFC 9568 Active_Adver_Interval).
    learned: Option<Timing>,
    old_checksum: bool,
    timers: Timers,
    /// Until when a master of lower priority is left alone.
    preempt_at: Option<Instant>,
    peer: Option<Peer>,
    counters: Counters,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Router {
    /// A router that takes no part yet. `source` is the address that its advertisements will come from, `multicast` the
    /// group of its family.
    pub fn new(instance: Instance, source: IpAddr, multicast: IpAddr) -> Self {
        let own = Timing::of(instance.interval);
        Self {
            source,
            multicast,
            addresses: instance.advertised(),
            priority: instance.priority,
            state: State::Initialize,
            since: None,
            started: false,
            fit: true,
            soon: false,
            handed_over: false,
            own,
            learned: None,
            old_checksum: false,
            timers: Timers::default(),
            preempt_at: None,
            peer: None,
            counters: Counters::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            instance,
        }
    }

    /// Says which address its advertisements come from.
    pub fn set_source(&mut self, source: IpAddr) {
        self.source = source;
    }

    /// Takes part from now on, if it is fit. `had_addresses`: a predecessor that crashed as master left them, so it waits
    /// for another master no longer than one that was configured to be master.
    pub fn start(&mut self, now: Instant, had_addresses: bool) {
        if !self.started {
            self.started = true;
            self.soon = had_addresses || self.instance.initially_master;
            if self.fit {
                self.enter(now, Reason::Started);
            }
        }
    }

    /// Takes no part any more.
    pub fn stop(&mut self, now: Instant) {
        if self.started {
            self.started = false;
            self.leave(now, Reason::Stopped);
        }
    }

    /// Says whether everything that is tracked is up. It is, before the first call.
    pub fn set_fit(&mut self, now: Instant, fit: bool) {
        if fit == self.fit {
            return;
        }
        self.fit = fit;
        if !self.started {
            return;
        }
        if fit {
            self.enter(now, Reason::Fit);
        } else {
            self.leave(now, Reason::Unfit);
        }
    }

    /// Lets a backup take over while this router goes on until it does. False when it is not master. From then on it
    /// takes over only when no master is heard, until [`resume`](Self::resume).
    pub fn hand_over(&mut self, now: Instant) -> bool {
        if self.state != State::Master {
            return false;
        }
        self.handed_over = true;
        if self.timers.hand_over.is_none() {
            self.transmit(STOP);
            // What it announced behind its successor would draw the network back to it.
            self.timers = Timers::default();
            self.timers.hand_over = Some(now + HAND_OVER_PATIENCE * self.own.interval() + self.own.skew(0));
        }
        true
    }

    /// Takes its place by priority again, after it has handed over.
    pub fn resume(&mut self) {
        self.handed_over = false;
    }

    /// An advertisement has come.
    ///
    /// # Errors
    /// Why it is not taken. That is counted, and changes nothing else.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        envelope: &Envelope,
        message: &[u8],
    ) -> Result<(), Refusal> {
        let advertisement =
            self.admit(envelope, message).inspect_err(|reason| self.counters.refuse(*reason))?;
        self.counters.received += 1;
        if advertisement.priority == STOP {
            self.counters.priority_zero_received += 1;
        }
        self.peer = Some(Peer { address: envelope.source, priority: advertisement.priority, at: now });
        match self.state {
            State::Master => self.heard_as_master(now, envelope.source, &advertisement),
            State::Backup => self.heard_as_backup(now, envelope.source, &advertisement),
            State::Initialize => {}
        }
        Ok(())
    }

    /// The time that [`poll_timeout`](Self::poll_timeout) named has come. Harmless when called too early.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(down) = self.timers.down.take_if(|down| down.at <= now) {
            self.become_master(now, down.wait.reason());
        }
        if take_due(&mut self.timers.hand_over, now).is_some() {
            self.handed_over = false;
            self.events.push_back(Event::HandOverFailed);
            self.timers.advertise = Some(now);
            // A successor that it has not heard may have had the addresses.
            self.announce_as_new(now);
        }
        if let Some(due) = take_due(&mut self.timers.advertise, now) {
            self.transmit(self.priority);
            self.timers.advertise = Some(again(due, self.own.interval(), now));
        }
        if take_due(&mut self.timers.announce, now).is_some() {
            self.announce(self.instance.garp.repeat);
        }
        if take_due(&mut self.timers.announce_lower, now).is_some() {
            self.announce(self.instance.garp.lower_repeat);
        }
        if let Some(due) = take_due(&mut self.timers.refresh, now) {
            self.announce(self.instance.garp.refresh_repeat);
            self.timers.refresh = Some(again(due, self.instance.garp.refresh, now));
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next advertisement to be sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing to be done.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The message that a [`Transmit`] asks for.
    pub fn advertisement(&self, transmit: Transmit) -> Advertisement {
        Advertisement {
            vrid: self.instance.vrid,
            priority: transmit.priority,
            interval: self.instance.interval,
            addresses: self.addresses.clone(),
            auth: self.instance.auth,
        }
    }

    /// What it is configured to be.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// What it is at present.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when; `None` before it was started.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Its priority: the configured one, unless it has yielded to another owner that is still heard.
    pub fn priority(&self) -> u8 {
        self.priority
    }

    /// Whether what it tracks is up.
    pub fn is_fit(&self) -> bool {
        self.fit
    }

    /// Whether it has handed over, or is about to.
    pub fn has_handed_over(&self) -> bool {
        self.handed_over
    }

    /// Whether it is master and waits for its successor.
    pub fn is_handing_over(&self) -> bool {
        self.timers.hand_over.is_some()
    }

    /// The time between advertisements that it goes by, which in version 3 is the master's.
    pub fn master_interval(&self) -> Duration {
        self.timing().interval()
    }

    /// The router that was heard last.
    pub fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// What it has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn heard_as_backup(&mut self, now: Instant, source: IpAddr, heard: &Advertisement) {
        if heard.priority == STOP {
            // The skew is for backups to come one after the other. Where the one that stops was the only peer,
            // there is nobody to wait for.
            let alone = self.instance.unicast.as_ref().is_some_and(|unicast| unicast.peers == [source]);
            self.wait(now, if alone { Wait::StoppedAlone } else { Wait::Stopped });
            return;
        }
        if heard.priority != OWNER {
            // The other owner is not there any more, or never was: anybody can have said that it is.
            self.priority = self.instance.priority;
        }
        if self.accepts_master(now, heard.priority) {
            self.learn(heard);
            self.wait(now, Wait::Missed);
        }
    }

    /// Whether a backup leaves this master alone.
    fn accepts_master(&mut self, now: Instant, priority: u8) -> bool {
        if priority >= self.priority {
            self.preempt_at = None;
            return true;
        }
        match self.instance.preempt {
            _ if self.handed_over => true,
            Preempt::Never => true,
            Preempt::After(delay) => *self.preempt_at.get_or_insert(now + delay) > now,
        }
    }

    fn heard_as_master(&mut self, now: Instant, source: IpAddr, heard: &Advertisement) {
        if heard.priority == STOP {
            // Who stops has been master.
            if self.timers.hand_over.is_none() {
                self.advertise(now);
                self.announce_after_rival(now);
            }
            return;
        }
        if self.timers.hand_over.take().is_some() {
            self.learn(heard);
            self.release(now, State::Backup, Reason::HandedOver);
            self.wait(now, Wait::Missed);
            return;
        }
        if (heard.priority, source) > (self.priority, self.source) {
            // The other may have been master all along and not know of this one, which the network has learned last: by
            // this it knows, and announces the addresses again (keepalived: higher_prio_send_advert).
            self.transmit(self.priority);
            // Of two owners one must yield, and one alone: keepalived's both do when their advertisements cross, and then
            // there is no master for as long as it takes to miss one.
            if self.priority == OWNER {
                self.priority = OWNER - 1;
                self.events.push_back(Event::OwnerConflict(source));
            }
            self.learn(heard);
            self.release(now, State::Backup, Reason::HigherPriority);
            self.wait(now, Wait::Missed);
        } else {
            self.transmit(self.priority);
            self.announce_after_rival(now);
        }
    }

    /// A rival has had the addresses, too, so switches and neighbours may look for them there.
    fn announce_after_rival(&mut self, now: Instant) {
        self.announce(self.instance.garp.lower_repeat);
        self.timers.announce_lower = after(now, self.instance.garp.lower_delay);
    }

    fn announce_as_new(&mut self, now: Instant) {
        self.announce(self.instance.garp.repeat);
        self.timers.announce = after(now, self.instance.garp.delay);
        self.timers.refresh = after(now, self.instance.garp.refresh);
    }

    /// Goes by the master's interval; in version 2 it is the same anyway.
    fn learn(&mut self, heard: &Advertisement) {
        self.learned = Some(Timing::of(heard.interval));
    }

    fn timing(&self) -> Timing {
        self.learned.unwrap_or(self.own)
    }

    /// Takes over after this.
    fn wait(&mut self, since: Instant, wait: Wait) {
        let wait_for = match wait {
            Wait::Soon => self.own.interval() + self.own.skew(OWNER),
            Wait::Missed => self.timing().master_down(self.priority),
            Wait::Stopped => self.timing().skew(self.priority),
            Wait::StoppedAlone => Duration::ZERO,
        };
        self.timers.down = Some(Down { since, wait, at: since + wait_for });
    }

    /// From Initialize.
    fn enter(&mut self, now: Instant, reason: Reason) {
        self.learned = None;
        if self.priority == OWNER && !self.handed_over {
            self.become_master(now, Reason::Owner);
            return;
        }
        self.change(now, State::Backup, reason);
        let wait = if std::mem::take(&mut self.soon) { Wait::Soon } else { Wait::Missed };
        self.wait(now, wait);
    }

    /// To Initialize.
    fn leave(&mut self, now: Instant, reason: Reason) {
        match self.state {
            State::Master => {
                self.transmit(STOP);
                self.release(now, State::Initialize, reason);
            }
            State::Backup => self.change(now, State::Initialize, reason),
            State::Initialize => {}
        }
        self.timers = Timers::default();
        self.preempt_at = None;
    }

    fn become_master(&mut self, now: Instant, reason: Reason) {
        self.learned = None;
        self.handed_over = false;
        self.preempt_at = None;
        self.timers.down = None;
        self.counters.became_master += 1;
        // Nor is another owner heard any more.
        self.priority = self.instance.priority;
        self.advertise(now);
        self.change(now, State::Master, reason);
        self.announce_as_new(now);
    }

    fn release(&mut self, now: Instant, to: State, reason: Reason) {
        self.counters.released_master += 1;
        self.timers = Timers::default();
        self.change(now, to, reason);
    }

    fn change(&mut self, now: Instant, to: State, reason: Reason) {
        let from = std::mem::replace(&mut self.state, to);
        self.since = Some(now);
        self.events.push_back(Event::Changed { from, to, reason });
    }

    fn advertise(&mut self, now: Instant) {
        self.transmit(self.priority);
        self.timers.advertise = Some(now + self.own.interval());
    }

    fn transmit(&mut self, priority: u8) {
        self.counters.sent += 1;
        if priority == STOP {
            self.counters.priority_zero_sent += 1;
        }
        self.transmits.push_back(Transmit { priority, old_checksum: self.old_checksum });
    }

    fn announce(&mut self, repeat: u32) {
        if repeat > 0 {
            self.events.push_back(Event::Announce { repeat });
        }
    }
}
