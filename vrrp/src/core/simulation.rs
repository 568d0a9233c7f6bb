//! Two and three routers on a network that loses, delays and doubles what they send, in simulated time.
//!
//! A run is made from its seed alone. First come faults: loss, delay, doubles, cut links, routers that pause (a virtual
//! machine that is not scheduled: its clock jumps when it goes on), that are unfit, that are stopped and started. Then
//! the network heals, and what must hold is looked at after every step:
//!
//! - before it heals, no router floods the network;
//! - once it has healed, there is one master within the longest master-down interval, and from then on never none or two;
//! - where all preempt, it is the router of the highest priority.
//!
//! `SEEDS=10000` runs more of them, `SEED=n` one alone with its story printed.

#![allow(clippy::unwrap_used)]

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    env,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use super::{Event, Router, State, Timing};
use crate::{
    config::{Instance, Preempt, Unicast},
    fixture::{GROUP, v2, v3},
    packet::{Envelope, Interval, Pseudo},
};

/// How many runs there are when nothing else is asked for.
const SEEDS: u64 = 2000;

#[test]
fn one_master_whatever_the_network_did() {
    if let Some(seed) = number("SEED") {
        return Run::new(seed, true).go();
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let begun = Instant::now();
    for seed in 0..seeds {
        let run = std::panic::catch_unwind(|| Run::new(seed, false).go());
        assert!(run.is_ok(), "seed {seed} fails: SEED={seed} prints what happens");
    }
    println!("{seeds} seeds held in {:.1} s", begun.elapsed().as_secs_f64());
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// More than this nobody sends in one interval, whatever happened to three routers in it.
const FLOOD: usize = 40;

/// splitmix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn within(&mut self, longest: Duration) -> Duration {
        Duration::from_nanos(self.below(u64::try_from(longest.as_nanos()).unwrap() + 1))
    }
}

struct Node {
    router: Router,
    address: IpAddr,
    /// It does nothing until then; what comes meanwhile waits.
    paused_until: Option<Instant>,
    inbox: VecDeque<(IpAddr, IpAddr, Vec<u8>)>,
    /// When it sent, and when it heard, lately.
    sent: VecDeque<Instant>,
    heard: VecDeque<Instant>,
    stopped: bool,
}

/// A message on its way.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Instant,
    /// In the order of sending among those that arrive at once.
    number: u64,
    to: usize,
    source: IpAddr,
    destination: IpAddr,
    message: Vec<u8>,
}

struct Run {
    random: Random,
    told: bool,
    begun: Instant,
    now: Instant,
    nodes: Vec<Node>,
    flights: BinaryHeap<Reverse<Flight>>,
    flown: u64,
    /// Percent.
    loss: u64,
    doubles: u64,
    delay: Duration,
    /// Who does not reach whom.
    cut: [[bool; 3]; 3],
    interval: Duration,
    preempts: bool,
}

impl Run {
    fn new(seed: u64, told: bool) -> Self {
        let mut random = Random(seed);
        let routers = 2 + usize::try_from(random.below(2)).unwrap();
        let unicast = random.chance(50);
        let mut configured = if random.chance(50) { v2() } else { v3() };
        if let Interval::Centiseconds(interval) = &mut configured.interval {
            *interval = [1, 10, 100, 4095][usize::try_from(random.below(4)).unwrap()];
        }
        let interval = Timing::of(configured.interval).interval();
        configured.preempt = match random.below(3) {
            0 => Preempt::Never,
            1 => Preempt::After(Duration::ZERO),
            _ => Preempt::After(random.within(5 * interval)),
        };
        let preempts = configured.preempt != Preempt::Never;
        let addresses: Vec<IpAddr> =
            (1..=routers).map(|n| Ipv4Addr::new(192, 0, 2, u8::try_from(n).unwrap()).into()).collect();
        let begun = Instant::now();
        let nodes = addresses
            .iter()
            .map(|address| {
                let mut instance: Instance = configured.clone();
                instance.priority = [90, 100, 100, 254, 1][usize::try_from(random.below(5)).unwrap()];
                instance.initially_master = random.chance(10);
                if unicast {
                    let peers = addresses.iter().copied().filter(|peer| peer != address).collect();
                    instance.unicast = Some(Unicast { source: *address, peers, check_source: true });
                }
                Node {
                    router: Router::new(instance, *address, GROUP),
                    address: *address,
                    paused_until: None,
                    inbox: VecDeque::new(),
                    sent: VecDeque::new(),
                    heard: VecDeque::new(),
                    stopped: false,
                }
            })
            .collect();
        Self {
            random,
            told,
            begun,
            now: begun,
            nodes,
            flights: BinaryHeap::new(),
            flown: 0,
            loss: 0,
            doubles: 0,
            delay: interval / 20,
            cut: [[false; 3]; 3],
            interval,
            preempts,
        }
    }

    fn go(mut self) {
        for node in 0..self.nodes.len() {
            self.nodes[node].router.start(self.now, false);
            self.settle(node);
        }
        for _ in 0..self.random.below(30) {
            self.fault();
            let until = self.now + self.random.within(4 * self.interval);
            self.run(until, &mut |_| {});
        }
        self.heal();
        // The longest master-down interval, and the time that the last message takes to tell of it.
        let one = self.now + 4 * self.interval + skew_of_a_second(&self.nodes) + 2 * self.delay;
        self.run(one, &mut |_| {});
        // With preemption the right one may still be waiting for its delay and its timer.
        let settled = one + 10 * self.interval + skew_of_a_second(&self.nodes);
        let handover = self.delay;
        let mut two_since = None;
        self.run(settled, &mut |run| {
            let masters = run.masters();
            assert!(masters > 0 || run.able() == 0, "no master at {:?}", run.now - run.begun);
            // One that preempts is a second master until the first has heard of it.
            if masters > 1 {
                let since = *two_since.get_or_insert(run.now);
                assert!(run.now - since <= handover, "{masters} masters at {:?}", run.now - run.begun);
            } else {
                two_since = None;
            }
        });
        let before = self.master();
        let end = settled + 20 * self.interval;
        self.run(end, &mut |run| assert_eq!(run.master(), before, "at {:?}", run.now - run.begun));
        if self.preempts
            && let Some(master) = before
        {
            let best = self.nodes.iter().filter(|node| node.able()).map(|node| node.router.priority()).max();
            assert_eq!(Some(self.nodes[master].router.priority()), best);
        }
    }

    /// Something goes wrong, or becomes right again.
    fn fault(&mut self) {
        let node = usize::try_from(self.random.below(self.nodes.len() as u64)).unwrap();
        let other = usize::try_from(self.random.below(3)).unwrap();
        let fault = self.random.below(10);
        self.tell(|| format!("fault {fault} of {node}, {other}"));
        match fault {
            0 => self.loss = self.random.below(101),
            1 => self.doubles = self.random.below(101),
            2 => self.delay = self.random.within(2 * self.interval),
            3 => self.cut[node][other] = true,
            4 => self.cut = [[false; 3]; 3],
            5 => self.nodes[node].paused_until = Some(self.now + self.random.within(10 * self.interval)),
            6 => {
                let fit = !self.nodes[node].router.is_fit();
                self.nodes[node].router.set_fit(self.now, fit);
            }
            7 => {
                self.nodes[node].stopped ^= true;
                if self.nodes[node].stopped {
                    self.nodes[node].router.stop(self.now);
                } else {
                    self.nodes[node].router.start(self.now, false);
                }
            }
            8 => {
                self.nodes[node].router.hand_over(self.now);
            }
            _ => self.nodes[node].router.resume(),
        }
        self.settle(node);
    }

    fn heal(&mut self) {
        self.tell(|| "healed".to_owned());
        self.loss = 0;
        self.doubles = 0;
        self.delay = self.interval / 20;
        self.cut = [[false; 3]; 3];
        self.flights.clear();
        for node in 0..self.nodes.len() {
            self.nodes[node].router.resume();
            self.wake(node);
        }
    }

    fn run(&mut self, until: Instant, look: &mut dyn FnMut(&Self)) {
        loop {
            let timers = (0..self.nodes.len()).filter_map(|node| Some((self.due(node)?, node))).min();
            let flight = self.flights.peek().map(|Reverse(flight)| flight.at);
            let next = timers.map(|(at, _)| at).into_iter().chain(flight).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            if flight == Some(next) {
                if let Some(Reverse(flight)) = self.flights.pop() {
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

    /// When a node has something to do by itself.
    fn due(&self, node: usize) -> Option<Instant> {
        let node = &self.nodes[node];
        node.paused_until.or_else(|| node.router.poll_timeout())
    }

    /// A paused node goes on: what waits for it first, as the daemon does.
    fn wake(&mut self, node: usize) {
        self.nodes[node].paused_until = None;
        while let Some((source, destination, message)) = self.nodes[node].inbox.pop_front() {
            self.hand_in(node, source, destination, &message);
        }
        self.nodes[node].router.handle_timeout(self.now);
        self.settle(node);
    }

    fn deliver(&mut self, flight: Flight) {
        let node = &mut self.nodes[flight.to];
        if node.paused_until.is_some() {
            node.inbox.push_back((flight.source, flight.destination, flight.message));
        } else {
            self.hand_in(flight.to, flight.source, flight.destination, &flight.message);
        }
    }

    fn hand_in(&mut self, node: usize, source: IpAddr, destination: IpAddr, message: &[u8]) {
        let envelope = Envelope { source, destination, ttl: Some(255) };
        let heard = self.nodes[node].router.handle_packet(self.now, &envelope, message);
        if heard.is_ok() {
            self.nodes[node].heard.push_back(self.now);
        }
        self.settle(node);
    }

    /// Does what a router wants done.
    fn settle(&mut self, from: usize) {
        while let Some(transmit) = self.nodes[from].router.poll_transmit() {
            self.tell(|| format!("{from} sends priority {}", transmit.priority));
            self.nodes[from].sent.push_back(self.now);
            let source = self.nodes[from].address;
            for to in (0..self.nodes.len()).filter(|to| *to != from) {
                let unicast = self.nodes[from].router.instance().unicast.is_some();
                let destination = if unicast { self.nodes[to].address } else { GROUP };
                let message =
                    self.nodes[from].router.advertisement(transmit).encode(Pseudo { source, destination });
                let copies = 1 + u64::from(self.random.chance(self.doubles));
                for _ in 0..copies {
                    if self.cut[from][to] || self.random.chance(self.loss) {
                        continue;
                    }
                    let at = self.now + self.random.within(self.delay);
                    let number = self.flown;
                    self.flown += 1;
                    let message = message.clone();
                    self.flights.push(Reverse(Flight { at, number, to, source, destination, message }));
                }
            }
        }
        while let Some(event) = self.nodes[from].router.poll_event() {
            if let Event::Changed { .. } | Event::HandOverFailed = event {
                self.tell(|| format!("{from}: {event:?}"));
            }
        }
        self.check_flood(from);
    }

    /// In one interval a router sends what is due, and besides at most one answer to each advertisement and one
    /// for each thing that was done to it; and answers are not answered for ever.
    fn check_flood(&mut self, node: usize) {
        let (now, interval) = (self.now, self.interval);
        let node = &mut self.nodes[node];
        for times in [&mut node.sent, &mut node.heard] {
            while times.front().is_some_and(|at| now.saturating_duration_since(*at) >= interval) {
                times.pop_front();
            }
        }
        let bound = FLOOD.min(2 + node.heard.len() + 4);
        assert!(
            node.sent.len() <= bound,
            "{} sent in an interval, {} heard",
            node.sent.len(),
            node.heard.len()
        );
    }

    fn masters(&self) -> usize {
        self.nodes.iter().filter(|node| node.router.state() == State::Master).count()
    }

    fn able(&self) -> usize {
        self.nodes.iter().filter(|node| node.able()).count()
    }

    fn master(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.router.state() == State::Master)
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.told {
            println!("{:>12.6} {}", (self.now - self.begun).as_secs_f64(), what());
        }
    }
}

impl Node {
    fn able(&self) -> bool {
        !self.stopped && self.router.is_fit()
    }
}

/// Skews of version 2 are counted in seconds whatever the interval.
fn skew_of_a_second(nodes: &[Node]) -> Duration {
    nodes
        .iter()
        .map(|node| Timing::of(node.router.instance().interval).skew(node.router.priority()))
        .max()
        .unwrap_or_default()
}
