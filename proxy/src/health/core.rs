//! When to probe which target, and what the results make of its state; without sockets and without a clock.
//!
//! The caller passes the time in and does what comes out:
//! 1. after [`update`](Scheduler::update), [`handle_result`](Scheduler::handle_result) or at
//!    [`poll_timeout`](Scheduler::poll_timeout), call [`handle_timeout`](Scheduler::handle_timeout);
//! 2. start every probe that [`poll_probe`](Scheduler::poll_probe) returns, and report each exactly once with
//!    [`handle_result`](Scheduler::handle_result);
//! 3. pass on every event of [`poll_event`](Scheduler::poll_event).
//!
//! A target's probes start at a fixed rate, `delay` apart, never two at once: one that takes longer than `delay`
//! costs the starts it overlaps. New targets start soon, but spread over a window, and their second probe comes
//! up to half a `delay` early, at random, so that targets that came together drift apart; from then on a target's starts
//! are on a grid, so that a few of them fall together. Nothing is ever
//! probed less often than its `delay` says, unless [`in_flight`](Scheduler::in_flight) reaches its bound.
//!
//! The state is HAProxy's counter: `rise + fall` values, of which `rise` and more are up. A success of a member that is
//! up forgives all failures, a failure of one that is down forgets all successes. A new target is up, on
//! its last chance; or down, and one success from being up, where it is to be looked at first.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use amphora_model::HealthCheck;

use super::TargetTls;
use crate::{balance::hash::mix, conn::proxy_protocol, state::CheckState};

/// What is probed and how. Equal targets are one: they are probed once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// `monitor_address`, else the member's own.
    pub address: IpAddr,
    /// `monitor_port`, else the member's own; 0 for `PING`.
    pub port: u16,
    /// `type` and what belongs to it; one for all members of a pool.
    pub check: Arc<HealthCheck>,
    /// `delay`: from the start of a probe to the start of the next.
    pub delay: Duration,
    /// The PROXY header that comes before all else, where the pool's members expect one.
    pub proxy_protocol: Option<proxy_protocol::Version>,
    /// With what it is spoken to over TLS; `None` is plainly, and for `HTTPS` with no verification.
    pub tls: Option<TargetTls>,
    /// `timeout` of one probe, all of its steps together.
    pub timeout: Duration,
    /// `max_retries`: successes in a row that bring a target up.
    pub rise: u8,
    /// `max_retries_down`: failures in a row that bring a target down.
    pub fall: u8,
    /// `amphora.first_check`: a new target is down until a probe has passed.
    pub first_check: bool,
}

/// One success from being up: HAProxy's `init-state down`.
pub(super) fn held_back(rise: u8) -> CheckState {
    if rise <= 1 { CheckState::Down } else { CheckState::DownRising { passed: rise - 1, of: rise } }
}

/// What a probe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The target works.
    Passed,
    /// It does not.
    Failed,
    /// The probe could not be made, for a reason on our side: says nothing about the target.
    Unknown,
}

/// A target of the [`Scheduler`]; never refers to another one, even after the target is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId {
    slot: u32,
    generation: u32,
}

/// The state of a target changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which.
    pub target: TargetId,
    /// To what.
    pub state: CheckState,
}

/// The timetable and the states.
#[derive(Debug)]
pub struct Scheduler {
    random: u64,
    max_in_flight: usize,
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_target: HashMap<Arc<Target>, u32>,
    /// (start, slot) of the targets whose turn is to come.
    due: BTreeSet<(Instant, u32)>,
    /// Targets whose turn has come.
    ready: VecDeque<TargetId>,
    in_flight: usize,
    events: VecDeque<Event>,
    max_lateness: Duration,
    /// Where the grid begins that starts are on.
    origin: Option<Instant>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

#[derive(Debug)]
struct Entry {
    target: Arc<Target>,
    health: Health,
    /// When the next probe starts, or was to start.
    next: Instant,
    /// In `due`.
    waiting: bool,
    /// The second probe is to come, and with it a place on the grid.
    first: bool,
    /// The interval to the second probe is shortened.
    of_many: bool,
    /// While the first probe is under way, and the interval after it is shortened: when that one would end in full.
    in_full: Option<Instant>,
}

impl Scheduler {
    /// A scheduler without targets. Start times depend on `seed` alone; at most `max_in_flight` probes are
    /// under way at once.
    pub fn new(seed: u64, max_in_flight: usize) -> Self {
        Self {
            random: seed,
            max_in_flight,
            slots: Vec::new(),
            free: Vec::new(),
            by_target: HashMap::new(),
            due: BTreeSet::new(),
            ready: VecDeque::new(),
            in_flight: 0,
            events: VecDeque::new(),
            max_lateness: Duration::ZERO,
            origin: None,
        }
    }

    /// Makes these the targets. One that was there before keeps its state and its timetable. A new one starts
    /// with the state given, which is that of its members so far; [`CheckState::NoCheck`] is that of a new
    /// member. Where a target comes more than once, its first state counts. Returns their ids, in order.
    #[expect(clippy::mutable_key_type, reason = "what a target speaks TLS with is told by a digest")]
    pub fn update(
        &mut self,
        now: Instant,
        targets: impl IntoIterator<Item = (Target, CheckState)>,
    ) -> Vec<TargetId> {
        if self.by_target.is_empty() {
            self.origin = Some(now);
        }
        let mut gone = std::mem::take(&mut self.by_target);
        let mut new = Vec::new();
        let mut ids = Vec::new();
        for (target, state) in targets {
            if let Some(&slot) = self.by_target.get(&target) {
                ids.push(self.id(slot));
            } else if let Some((target, slot)) = gone.remove_entry(&target) {
                ids.push(self.id(slot));
                self.by_target.insert(target, slot);
            } else {
                let target = Arc::new(target);
                let slot = self.insert(now, target.clone(), state);
                new.push(slot);
                ids.push(self.id(slot));
                self.by_target.insert(target, slot);
            }
        }
        for slot in gone.into_values() {
            self.remove(slot);
        }
        self.spread(now, &new);
        ids
    }

    /// Takes up the starts that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(start, slot)) = self.due.first()
            && start <= now
        {
            self.due.pop_first();
            let id = self.id(slot);
            if let Some(entry) = self.entry_mut(id) {
                entry.waiting = false;
            }
            self.ready.push_back(id);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|&(start, _)| start)
    }

    /// A probe to start now, unless as many as allowed are under way.
    pub fn poll_probe(&mut self, now: Instant) -> Option<(TargetId, Arc<Target>)> {
        while self.in_flight < self.max_in_flight {
            let id = self.ready.pop_front()?;
            let fraction = self.fraction();
            let (origin, targets) = (self.origin.unwrap_or(now), self.by_target.len());
            // Targets that went away while they waited are skipped.
            let Some(entry) = self.entry_mut(id) else { continue };
            let late = now.saturating_duration_since(entry.next);
            let delay = entry.target.delay;
            let early = std::mem::take(&mut entry.of_many);
            let in_full = entry.next + delay;
            let next = if early { entry.next + delay.mul_f64(1.0 - fraction / 2.0) } else { in_full };
            let first = std::mem::take(&mut entry.first);
            entry.next = if first { on_grid(origin, next, delay, targets) } else { next };
            entry.in_full = early.then(|| on_grid(origin, in_full, delay, targets));
            let target = entry.target.clone();
            self.max_lateness = self.max_lateness.max(late);
            self.in_flight += 1;
            return Some((id, target));
        }
        None
    }

    /// Takes the result of a probe that [`poll_probe`](Self::poll_probe) returned.
    pub fn handle_result(&mut self, now: Instant, id: TargetId, verdict: Verdict) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(entry) = self.entry_mut(id) else { return };
        let before = entry.health.state();
        entry.health.take(verdict);
        let state = entry.health.state();
        // Starts that the probe overlapped are left out; the timetable stays.
        let delay = entry.target.delay.max(Duration::from_millis(1));
        if let Some(in_full) = entry.in_full.take()
            && entry.next < now
        {
            entry.next = in_full;
        }
        let behind = now.saturating_duration_since(entry.next);
        if !behind.is_zero() {
            let missed = behind.as_nanos().div_ceil(delay.as_nanos());
            entry.next += delay * u32::try_from(missed).unwrap_or(u32::MAX);
        }
        entry.waiting = true;
        let next = entry.next;
        self.due.insert((next, id.slot));
        if state != before {
            self.events.push_back(Event { target: id, state });
        }
    }

    /// A change of state to pass on.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The present state of a target; `NoCheck` once it is gone.
    pub fn state(&self, id: TargetId) -> CheckState {
        self.entry(id).map_or(CheckState::NoCheck, |entry| entry.health.state())
    }

    /// What the target is, while it is probed.
    pub fn target(&self, id: TargetId) -> Option<&Target> {
        self.entry(id).map(|entry| &*entry.target)
    }

    /// Probes under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Targets.
    pub fn len(&self) -> usize {
        self.by_target.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_target.is_empty()
    }

    /// The most that a probe ever started behind its time.
    pub fn max_lateness(&self) -> Duration {
        self.max_lateness
    }

    fn id(&self, slot: u32) -> TargetId {
        TargetId { slot, generation: self.slots[slot as usize].generation }
    }

    fn entry(&self, id: TargetId) -> Option<&Entry> {
        let slot = self.slots.get(id.slot as usize)?;
        slot.entry.as_ref().filter(|_| slot.generation == id.generation)
    }

    fn entry_mut(&mut self, id: TargetId) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        slot.entry.as_mut().filter(|_| slot.generation == id.generation)
    }

    fn insert(&mut self, now: Instant, target: Arc<Target>, state: CheckState) -> u32 {
        let state = match state {
            CheckState::NoCheck if target.first_check => held_back(target.rise),
            state => state,
        };
        let health = Health::new(state, target.rise, target.fall);
        let entry = Some(Entry {
            target,
            health,
            next: now,
            waiting: true,
            first: true,
            of_many: false,
            in_full: None,
        });
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize].entry = entry;
                slot
            }
            None => {
                self.slots.push(Slot { generation: 0, entry });
                self.slots.len() as u32 - 1
            }
        }
    }

    fn remove(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        if let Some(entry) = slot.entry.take()
            && entry.waiting
        {
            self.due.remove(&(entry.next, index));
        }
        self.free.push(index);
    }

    /// First starts: one new target at once; many at 20 ms from each other while that takes no more than a second, at
    /// 1 ms at the least, and each within its own `delay`; each somewhere in its share of the window.
    fn spread(&mut self, now: Instant, new: &[u32]) {
        let count = new.len() as u32;
        let window = (Duration::from_millis(20) * count)
            .min(Duration::from_secs(1))
            .max(Duration::from_millis(1) * count);
        for (i, &slot) in new.iter().enumerate() {
            let place = (i as f64 + self.fraction()) / f64::from(count);
            let id = self.id(slot);
            let Some(entry) = self.entry_mut(id) else { continue };
            if count > 1 {
                entry.next = now + window.min(entry.target.delay).mul_f64(place);
                entry.of_many = true;
            }
            let next = entry.next;
            self.due.insert((next, slot));
        }
    }

    /// The next random number in [0, 1).
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.random) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The last point of the grid until then. Targets of one `delay` meet on its points, 24 to 48 on each if there are
/// so many: one waking of the thread that probes, for which the caches are cold, serves them all; that takes one to two
/// milliseconds of a core. A point is a sixteenth of `delay` from the next at the
/// most, and grids for more targets have those for fewer in them.
fn on_grid(origin: Instant, at: Instant, delay: Duration, targets: usize) -> Instant {
    let points = (targets / 48).next_power_of_two().clamp(16, 65_536) as u128;
    let step = delay.as_nanos() / points;
    let since = at.saturating_duration_since(origin).as_nanos();
    match since.checked_rem(step) {
        Some(beyond) => at - Duration::from_nanos(beyond as u64),
        None => at,
    }
}

/// HAProxy's `health` of a server: 0 to `rise + fall - 1`, up from `rise` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Health {
    value: u8,
    rise: u8,
    fall: u8,
}

impl Health {
    fn new(state: CheckState, rise: u8, fall: u8) -> Self {
        let (rise, fall) = (rise.clamp(1, 100), fall.clamp(1, 100));
        let value = match state {
            CheckState::NoCheck => rise,
            CheckState::Up => rise + fall - 1,
            CheckState::UpFailing { passed, .. } => rise + passed.clamp(1, fall) - 1,
            CheckState::Down => 0,
            CheckState::DownRising { passed, .. } => passed.min(rise - 1),
        };
        Self { value, rise, fall }
    }

    fn take(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Passed if self.value + 1 >= self.rise => self.value = self.rise + self.fall - 1,
            Verdict::Passed => self.value += 1,
            Verdict::Failed if self.value > self.rise => self.value -= 1,
            Verdict::Failed => self.value = 0,
            Verdict::Unknown => {}
        }
    }

    fn state(self) -> CheckState {
        match self.value {
            0 => CheckState::Down,
            value if value < self.rise => CheckState::DownRising { passed: value, of: self.rise },
            value if value < self.rise + self.fall - 1 => {
                CheckState::UpFailing { passed: value - self.rise + 1, of: self.fall }
            }
            _ => CheckState::Up,
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
