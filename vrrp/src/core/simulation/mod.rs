//! Two and three routers on a network that loses, delays and doubles what they send, in simulated time.
//!
//! A run is made from its seed alone. The routers differ: in priority (some own the addresses), in whether they preempt, in
//! how late they look at their timers, and in version 3 in their intervals. First come faults: loss, delay, doubles, cut
//! links, routers that pause (a virtual machine that is not scheduled: its clock jumps when it goes on), that are unfit, that
//! are stopped and started, that crash and come back to the addresses that they had, that are reconfigured, that hand
//! over and are never told to resume; and somebody who is none of them says that it is master. Then the network heals, while old messages are still on their way, and what
//! must hold is looked at after every step:
//!
//! - at all times: no router sends more than what is due and what it is asked for; none takes over, by itself, from a
//!   master that it has to leave alone before it has missed three of its advertisements, nor before it has listened
//!   for one interval; none that has handed over takes that back because it owns the addresses; one that has heard another
//!   master and stays one announces the addresses again, and one that hands over does not announce them;
//! - once the network has healed and delivered what is old: there are neither none nor two masters for longer than the
//!   longest master-down interval; and after a master there is always one;
//! - a master-down interval later: two are masters only until the first has heard of the second;
//! - at last: one master, the same, which alone has the addresses and advertises at its interval, no more and no less
//!   often, and by its configured priority; nobody who preempts and has not handed over has a higher one; and it was the last
//!   to announce the addresses, unless what would have told it that another had done so was lost.
//!
//! `SEEDS=10000` runs more of them, `SEED=n` one alone with its story printed.

#![allow(clippy::unwrap_used)]

mod faults;
mod network;
mod node;
mod random;

use std::{
    env,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use self::{
    network::{Flight, Message, Network},
    node::Node,
    random::Random,
};
use super::{Event, Router, Timing};
use crate::{
    config::{Instance, Preempt, Unicast},
    fixture::{GROUP, v2, v3},
    packet::{Interval, Pseudo},
};

/// How many runs there are when nothing else is asked for.
const SEEDS: u64 = 5000;
/// Longest intervals that the routers are left alone at the end.
const QUIET: u32 = 20;

#[test]
fn one_master_whatever_the_network_did() {
    if let Some(seed) = number("SEED") {
        return Run::new(seed, true).go();
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let begun = Instant::now();
    let failed: Vec<_> =
        (0..seeds).filter(|seed| std::panic::catch_unwind(|| Run::new(*seed, false).go()).is_err()).collect();
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds fail, SEED={} prints what happens: {failed:?}",
        failed.len(),
        failed[0]
    );
    println!("{seeds} seeds held in {:.1} s", begun.elapsed().as_secs_f64());
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

struct Run {
    random: Random,
    told: bool,
    begun: Instant,
    now: Instant,
    nodes: Vec<Node>,
    network: Network,
    /// Where the switches look for the addresses: at who announced them last.
    learned: Option<usize>,
    /// What that one said afterwards was lost.
    unheard: bool,
    /// The longest and the shortest that any router has, or has had.
    longest: Duration,
    shortest: Duration,
}

impl Run {
    fn new(seed: u64, told: bool) -> Self {
        let mut random = Random(seed);
        let routers = 2 + random.index(2);
        let unicast = random.chance(50);
        let configured = if random.chance(40) { v2() } else { v3() };
        let base = random.of(&[1, 1, 10, 100, 4095]);
        let addresses: Vec<IpAddr> =
            (1..=routers).map(|n| Ipv4Addr::new(192, 0, 2, u8::try_from(n).unwrap()).into()).collect();
        let alike = random.chance(30);
        let one = preempt(&mut random, Timing::of(configured.interval).interval());
        let owners = random.chance(5);
        let begun = Instant::now();
        let mut run = Self {
            random,
            told,
            begun,
            now: begun,
            nodes: Vec::new(),
            network: Network::new(Duration::ZERO),
            learned: None,
            unheard: false,
            longest: Duration::ZERO,
            shortest: Duration::MAX,
        };
        for address in &addresses {
            let mut instance: Instance = configured.clone();
            if let Interval::Centiseconds(interval) = &mut instance.interval {
                *interval = base;
                if !alike {
                    run.other_interval(&mut instance);
                }
            }
            let interval = run.of_interval(&instance);
            instance.priority =
                if owners { 255 } else { run.random.of(&[90, 100, 100, 100, 254, 254, 1, 255]) };
            instance.preempt = if alike { one } else { preempt(&mut run.random, interval) };
            put_right(&mut instance);
            instance.initially_master =
                instance.preempt == Preempt::After(Duration::ZERO) && run.random.chance(20);
            if unicast {
                let peers = addresses.iter().copied().filter(|peer| peer != address).collect();
                instance.unicast = Some(Unicast { source: *address, peers, check_source: true });
            }
            let late = if run.random.chance(50) { run.random.within(interval / 10) } else { Duration::ZERO };
            run.nodes.push(Node::new(Router::new(instance, *address, GROUP), *address, late));
        }
        run.network.delay = run.shortest / 20;
        run
    }

    /// One that does not make a run last for ever.
    fn other_interval(&mut self, instance: &mut Instance) {
        if let Interval::Centiseconds(interval) = &mut instance.interval {
            let factor = self.random.of(&[1, 1, 2, 5, 10]);
            let base = self.nodes.first().map_or(*interval, |node| match node.router.instance().interval {
                Interval::Centiseconds(first) => first,
                Interval::Seconds(_) => *interval,
            });
            *interval = if self.random.chance(50) { base / factor } else { base * factor }.clamp(1, 4095);
        }
    }

    fn of_interval(&mut self, instance: &Instance) -> Duration {
        let interval = Timing::of(instance.interval).interval();
        self.longest = self.longest.max(interval);
        self.shortest = self.shortest.min(interval);
        interval
    }

    fn go(mut self) {
        for node in 0..self.nodes.len() {
            self.nodes[node].router.start(self.now, false);
            self.settle(node);
        }
        for _ in 0..self.random.below(40) {
            self.fault();
            // They come one upon the other, or far between.
            let longest = self.longest * self.random.of(&[1, 1, 4]);
            let until = self.now + self.random.within(longest);
            self.run(until, &mut |_| {});
        }
        let oldest = self.heal();
        self.judge(oldest);
    }

    fn judge(&mut self, oldest: Duration) {
        // What was sent before has arrived; nobody has delayed it by more (see `faults`).
        let delivered = self.now + oldest;
        self.run(delivered, &mut |_| {});
        let delay = self.network.delay;
        let late = self.nodes.iter().map(|node| node.late).max().unwrap_or_default();
        let down = 4 * self.longest + self.skew_of_a_second() + late + 2 * delay;
        let (mut none_since, mut two_since) = (None, None);
        let mut had_one = false;
        let one = delivered + down;
        // Whoever preempts may be waiting for its delay, from when it heard the other, and then for its timer.
        let delays = self.nodes.iter().map(|node| match node.router.instance().preempt {
            Preempt::After(delay) => delay,
            Preempt::Never => Duration::ZERO,
        });
        let settled = one + 2 * (delays.max().unwrap_or_default() + self.longest + down);
        self.run(settled, &mut |run| {
            let at = run.now - run.begun;
            let masters = run.masters();
            had_one |= masters > 0;
            for (since, bad) in
                [(&mut none_since, masters == 0 && run.able() > 0), (&mut two_since, masters > 1)]
            {
                match bad {
                    true => drop(since.get_or_insert(run.now)),
                    false => *since = None,
                }
                let bound = if run.now > one { delay } else { down };
                let lasts = since.map_or(Duration::ZERO, |since| run.now - since);
                assert!(lasts <= bound, "{masters} masters for {lasts:?} at {at:?}");
            }
            assert!(masters > 0 || run.able() == 0 || !had_one, "no master any more at {at:?}");
            assert!(masters > 0 || run.able() == 0 || run.now <= one, "no master at {at:?}");
        });
        self.judge_the_end();
    }

    fn judge_the_end(&mut self) {
        let before = self.master();
        let sent: Vec<_> = self.nodes.iter().map(|node| node.sent).collect();
        let end = self.now + QUIET * self.longest;
        self.run(end, &mut |run| {
            let at = run.now - run.begun;
            assert_eq!(run.master(), before, "at {at:?}");
            let have = run.nodes.iter().filter(|node| node.held && !node.crashed).count();
            assert_eq!(have, usize::from(before.is_some()), "have the addresses at {at:?}");
            assert_eq!(run.masters(), have, "masters at {at:?}");
        });
        for (index, (node, sent)) in self.nodes.iter().zip(sent).enumerate() {
            let sent = node.sent - sent;
            let interval = Timing::of(node.router.instance().interval).interval();
            let due = (QUIET * self.longest).as_nanos() / interval.as_nanos();
            let due = if before == Some(index) { u64::try_from(due).unwrap() } else { 0 };
            assert!(
                (due.saturating_sub(1)..=due + 1).contains(&sent),
                "{index} sent {sent} instead of {due}"
            );
        }
        assert_eq!(before.is_some(), self.able() > 0);
        if let Some(master) = before {
            assert!(self.unheard || self.learned == before, "the switches look at {:?}", self.learned);
            let router = &self.nodes[master].router;
            let priority = router.priority();
            assert_eq!(priority, router.instance().priority, "goes by another priority than its own");
            let better = self.nodes.iter().position(|node| node.preempts(priority));
            assert_eq!(better, None, "has not taken over from {master}");
        }
    }

    fn run(&mut self, until: Instant, look: &mut dyn FnMut(&Self)) {
        loop {
            let timers = (0..self.nodes.len()).filter_map(|node| Some((self.nodes[node].due()?, node))).min();
            let flight = self.network.next();
            let next = timers.map(|(at, _)| at).into_iter().chain(flight).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            if flight == Some(next) {
                if let Some(flight) = self.network.arrive() {
                    self.deliver(flight);
                }
            } else if let Some((_, node)) = timers {
                if self.nodes[node].paused_until.is_some() {
                    self.wake(node);
                } else {
                    self.nodes[node].router.handle_timeout(self.now);
                    self.settle(node);
                }
            }
            look(self);
        }
        self.now = until;
    }

    /// A paused node goes on: what waits for it first, as the daemon does.
    fn wake(&mut self, node: usize) {
        self.nodes[node].paused_until = None;
        while let Some(message) = self.nodes[node].inbox.pop_front() {
            self.nodes[node].hand_in(self.now, &message);
            self.settle(node);
        }
        self.nodes[node].router.handle_timeout(self.now);
        self.settle(node);
    }

    fn deliver(&mut self, Flight { to, message, .. }: Flight) {
        let node = &mut self.nodes[to];
        if node.paused_until.is_some() {
            node.inbox.push_back(message);
        } else if !node.crashed {
            node.hand_in(self.now, &message);
            self.settle(to);
        }
    }

    /// Does what a router wants done.
    fn settle(&mut self, from: usize) {
        while let Some(transmit) = self.nodes[from].router.poll_transmit() {
            self.tell(|| format!("{from} sends priority {}", transmit.priority));
            let node = &mut self.nodes[from];
            node.sends(self.now);
            let (source, unicast) = (node.address, node.router.instance().unicast.is_some());
            let advertisement = node.router.advertisement(transmit);
            for to in (0..self.nodes.len()).filter(|to| *to != from) {
                let destination = if unicast { self.nodes[to].address } else { GROUP };
                let octets = advertisement.encode(Pseudo { source, destination });
                let message = Message { source, destination, octets };
                let arrives = self.network.send(self.now, from, to, &message, &mut self.random);
                self.unheard |= !arrives && self.learned == Some(from);
            }
        }
        while let Some(event) = self.nodes[from].router.poll_event() {
            if matches!(event, Event::Announce { .. }) {
                (self.learned, self.unheard) = (Some(from), false);
            }
            self.tell(|| format!("{from}: {event:?}"));
            self.nodes[from].act(self.now, event);
        }
        self.nodes[from].check_doubt();
        self.nodes[from].give_up();
        self.nodes[from].check_flood(self.now);
    }

    fn masters(&self) -> usize {
        self.nodes.iter().filter(|node| node.is_master()).count()
    }

    fn able(&self) -> usize {
        self.nodes.iter().filter(|node| node.able()).count()
    }

    fn master(&self) -> Option<usize> {
        self.nodes.iter().position(Node::is_master)
    }

    /// Skews of version 2 are counted in seconds whatever the interval.
    fn skew_of_a_second(&self) -> Duration {
        let skew = |node: &Node| Timing::of(node.router.instance().interval).skew(node.router.priority());
        self.nodes.iter().map(skew).max().unwrap_or_default()
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.told {
            println!("{:>12.6} {}", (self.now - self.begun).as_secs_f64(), what());
        }
    }
}

fn preempt(random: &mut Random, interval: Duration) -> Preempt {
    match random.below(3) {
        0 => Preempt::Never,
        1 => Preempt::After(Duration::ZERO),
        _ => Preempt::After(random.within(5 * interval)),
    }
}

/// As the reader of a configuration would have it.
fn put_right(instance: &mut Instance) {
    if instance.priority == 255 && instance.preempt == Preempt::Never {
        instance.preempt = Preempt::After(Duration::ZERO);
    }
    if instance.preempt != Preempt::After(Duration::ZERO) {
        instance.initially_master = false;
    }
}
