//! One machine: a router, what it has in its kernel, and what it may not do.

use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::network::{Message, says};
use crate::{
    config::Preempt,
    core::{Event, Reason, Router, State, Timing},
    fixture::GROUP,
    packet::Envelope,
};

/// More than this nobody sends in one of its intervals, however many answers it is asked for by routers whose intervals are
/// shorter: there, two routers answer each other.
const FLOOD: usize = 500;
/// The priority of who owns the addresses.
const OWNER: u8 = 255;

pub(super) struct Node {
    pub(super) router: Router,
    pub(super) address: IpAddr,
    /// Each of its timers is looked at so much too late.
    pub(super) late: Duration,
    /// It does nothing until then; what comes meanwhile waits.
    pub(super) paused_until: Option<Instant>,
    pub(super) inbox: VecDeque<Message>,
    pub(super) stopped: bool,
    pub(super) crashed: bool,
    /// The kernel has the addresses.
    pub(super) held: bool,
    pub(super) sent: u64,
    /// It has handed over, and was not told to resume.
    handed_over: bool,
    /// It has heard a master that it has to leave alone until then.
    respects: Option<Instant>,
    /// It has listened since then, and heard nobody.
    alone_since: Option<Instant>,
    /// As master it has heard another, and has not announced the addresses since.
    in_doubt: bool,
    lately: Lately,
}

/// What was in the last interval.
#[derive(Default)]
struct Lately {
    sent: VecDeque<Instant>,
    heard: VecDeque<Instant>,
    told: VecDeque<Instant>,
}

impl Node {
    pub(super) fn new(router: Router, address: IpAddr, late: Duration) -> Self {
        Self {
            router,
            address,
            late,
            paused_until: None,
            inbox: VecDeque::new(),
            stopped: false,
            crashed: false,
            held: false,
            sent: 0,
            handed_over: false,
            respects: None,
            alone_since: None,
            in_doubt: false,
            lately: Lately::default(),
        }
    }

    /// Whether it can be master.
    pub(super) fn able(&self) -> bool {
        !self.stopped && !self.crashed && self.router.is_fit()
    }

    pub(super) fn is_master(&self) -> bool {
        !self.crashed && self.router.state() == State::Master
    }

    /// Whether it takes over from a master of this priority.
    pub(super) fn preempts(&self, priority: u8) -> bool {
        self.able()
            && !self.router.has_handed_over()
            && self.router.instance().preempt != Preempt::Never
            && (self.router.priority() > priority || (priority < OWNER && self.is_owner()))
    }

    /// Whether it was configured to own the addresses, whoever else has said that it does.
    fn is_owner(&self) -> bool {
        self.router.instance().priority == OWNER
    }

    /// When it has something to do by itself.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.crashed {
            return None;
        }
        self.paused_until.or_else(|| Some(self.router.poll_timeout()? + self.late))
    }

    /// The process is gone, and the addresses stay.
    pub(super) fn crash(&mut self) {
        self.crashed = true;
        self.paused_until = None;
        self.inbox.clear();
        self.forget();
    }

    /// A new process finds what the old one left.
    pub(super) fn restart(&mut self, now: Instant) {
        self.crashed = false;
        self.handed_over = false;
        let fit = self.router.is_fit();
        self.router = Router::new(self.router.instance().clone(), self.address, GROUP);
        self.router.set_fit(now, fit);
        if !self.stopped {
            self.router.start(now, self.held);
        }
    }

    /// Something was done to it.
    pub(super) fn told(&mut self, now: Instant) {
        self.lately.told.push_back(now);
    }

    /// It has another interval now, by which what it did before does not count.
    pub(super) fn forget(&mut self) {
        self.lately = Lately::default();
        if self.crashed || self.router.state() != State::Backup {
            self.respects = None;
        }
    }

    pub(super) fn hand_in(&mut self, now: Instant, message: &Message) {
        let was_backup = self.router.state() == State::Backup;
        let was_master = self.is_master();
        let handing_over = self.is_handing_over();
        let envelope = Envelope { source: message.source, destination: message.destination, ttl: Some(255) };
        if self.router.handle_packet(now, &envelope, &message.octets).is_err() {
            return;
        }
        self.lately.heard.push_back(now);
        self.alone_since = None;
        self.in_doubt = was_master && !handing_over;
        let (priority, interval) = says(&message.octets);
        // Another reading of the same rule: who heard a master that is not to be replaced misses three of its
        // advertisements first.
        let leaves_alone = priority >= self.router.priority()
            || self.router.instance().preempt == Preempt::Never
            || self.router.has_handed_over();
        let delays = matches!(self.router.instance().preempt, Preempt::After(delay) if !delay.is_zero());
        if priority == 0 || (delays && !leaves_alone) {
            // While it waits before it preempts it goes by the one that it hears.
            self.respects = None;
        } else if self.router.state() == State::Backup && (leaves_alone || !was_backup) {
            self.respects = Some(now + 3 * Timing::of(interval).interval());
        }
    }

    pub(super) fn sends(&mut self, now: Instant) {
        self.sent += 1;
        self.lately.sent.push_back(now);
    }

    /// Does what the daemon would.
    pub(super) fn act(&mut self, now: Instant, event: Event) {
        match event {
            Event::Changed { from, to: State::Master, reason } => {
                assert!(from != State::Master, "becomes what it is");
                self.held = true;
                let interval = Timing::of(self.router.instance().interval).interval();
                assert!(
                    self.alone_since
                        .take()
                        .is_none_or(|since| reason == Reason::Owner || now - since >= interval),
                    "has not listened for an interval"
                );
                let respects = self.respects.take();
                assert!(!self.handed_over || reason != Reason::Owner, "takes back what it has handed over");
                assert!(
                    reason == Reason::Owner || respects.is_none_or(|until| now >= until),
                    "takes over from a master that it has to leave alone"
                );
            }
            Event::Announce { .. } => {
                assert!(!self.is_handing_over(), "announces what it hands over");
                self.in_doubt = false;
            }
            Event::HandOverFailed => self.in_doubt = true,
            Event::Changed { from, to, .. } => {
                if from == State::Master {
                    self.held = false;
                }
                if to == State::Initialize {
                    self.respects = None;
                }
                self.alone_since = (from == State::Initialize).then_some(now);
            }
            _ => {}
        }
    }

    /// Everything was done that it wanted done.
    pub(super) fn check_doubt(&mut self) {
        assert!(!self.in_doubt || !self.is_master(), "stays master, and the network may look elsewhere");
        self.in_doubt = false;
    }

    fn is_handing_over(&self) -> bool {
        self.is_master() && self.router.is_handing_over()
    }

    /// What a predecessor left goes once another master is heard.
    pub(super) fn give_up(&mut self) {
        self.handed_over = self.router.has_handed_over();
        let heard = self.router.peer().is_some_and(|peer| peer.priority > 0);
        let undecided = self.router.state() == State::Backup && !heard;
        if self.held && !self.is_master() && !undecided && !self.crashed {
            self.held = false;
        }
    }

    /// In one interval a router sends what is due, and besides at most one answer to each advertisement, one more when it
    /// takes over again after it yielded to that, and one for each thing that was done to it.
    pub(super) fn check_flood(&mut self, now: Instant) {
        let interval = Timing::of(self.router.instance().interval).interval();
        let Lately { sent, heard, told } = &mut self.lately;
        for times in [&mut *sent, &mut *heard, &mut *told] {
            while times.front().is_some_and(|at| now.saturating_duration_since(*at) >= interval) {
                times.pop_front();
            }
        }
        let bound = FLOOD.min(2 + 2 * heard.len() + 2 * told.len());
        assert!(
            sent.len() <= bound,
            "{} sent in an interval, {} heard, {} things were done to it",
            sent.len(),
            heard.len(),
            told.len()
        );
    }
}
