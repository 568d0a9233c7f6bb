//! What the helper keeps of the kernel: the table as it was written last, what was counted, whose flows are to end.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use amphora_netlink::{
    NetError,
    nft::{Batch, Conntrack, Counted, FlowEntry, Nft, Ruleset},
};
use uuid::Uuid;

use super::{
    answers::Answers,
    plan::{Algorithm, Plan, Service, Target, Transport},
    render::{self, FLOWS, LIMITED, Marks, RECEIVED, REFUSED, SENT, TABLE},
    returns::Returns,
    settings::{Room, Switch, follows_associations},
    told::{Pass, Told},
    wire::{Client, Count, Limited},
};

/// How often flows are counted and the table is looked at; less often where the list of flows takes long.
const TURN: Duration = Duration::from_secs(1);
/// A list of flows may take that part of the time.
const SHARE: u32 = 20;

/// The number of a transport, and an address that a listener of it has.
type Reached = (u8, SocketAddr);

/// Everything about forwarding in one network namespace.
#[derive(Debug)]
pub(super) struct Steward {
    nft: Nft,
    conntrack: Conntrack,
    answers: Answers,
    returns: Returns,
    forwarding: [Switch; 2],
    room: Room,
    /// Whether the kernel follows associations.
    sctp: bool,
    plan: Plan,
    marks: Marks,
    /// The table as it is; `None`: whatever a predecessor has left.
    written: Option<Ruleset>,
    /// By this it is told whether another hand was there.
    seen: (u32, Vec<u8>),
    /// Where listeners were that have gone: their flows end.
    former: HashSet<Reached>,
    meters: HashMap<(Uuid, Uuid), Meter>,
    /// Of policies of rate limits.
    limited: HashMap<Uuid, Growth>,
    due: Instant,
    told: Told,
}

/// What was counted for a listener and a member.
#[derive(Debug, Default)]
struct Meter {
    /// Of `FLOWS`, `SENT`, `RECEIVED`, `REFUSED`.
    counted: [Growth; 4],
    flows: u64,
}

/// How much a counter of the kernel's has grown.
#[derive(Debug, Default)]
struct Growth {
    /// What it said last.
    raw: u64,
    /// What was not told yet.
    grown: u64,
}

impl Growth {
    /// A counter that says less has begun anew.
    fn take(&mut self, now: u64) {
        let before = std::mem::replace(&mut self.raw, now);
        self.grown += if now < before { now } else { now - before };
    }
}

impl Steward {
    /// Opens all that it needs, while it may.
    pub(super) fn new(now: Instant) -> Result<Self, NetError> {
        let mut conntrack = Conntrack::open()?;
        // Which loads conntrack where it is a module, so that its settings are there.
        conntrack.list(|_| false)?;
        Ok(Self {
            nft: Nft::open()?,
            conntrack,
            answers: Answers::open()?,
            returns: Returns::open()?,
            sctp: follows_associations(),
            forwarding: [Switch::open("net.ipv4.ip_forward"), Switch::open("net.ipv6.conf.all.forwarding")],
            room: Room::open(),
            plan: Plan::default(),
            marks: Marks::new(),
            written: None,
            seen: (0, Vec::new()),
            former: HashSet::new(),
            meters: HashMap::new(),
            limited: HashMap::new(),
            due: now,
            told: Told::default(),
        })
    }

    /// When [`turn`](Self::turn) is to be called; `None` while nothing is forwarded.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.plan.is_empty() || !self.former.is_empty()).then_some(self.due)
    }

    /// Forwards by this plan from now on, and ends the flows of members that it does not have.
    pub(super) fn apply(&mut self, plan: Plan) -> Result<(), String> {
        if plan == self.plan && self.written.is_some() {
            return Ok(());
        }
        if !self.sctp && plan.services.iter().any(|service| service.transport == Transport::Sctp) {
            return Err(
                "the kernel does not follow associations of SCTP: it has no CONFIG_NF_CT_PROTO_SCTP".into()
            );
        }
        self.turn_on(&plan)?;
        // What goes with its elements is read before.
        self.count().map_err(|error| error.to_string())?;
        let marks = render::marks(&plan);
        let here = |error| format!("answers to clients' own addresses cannot be had: {error}");
        self.returns.begin(&plan).map_err(here)?;
        let written = self.write(&plan, &marks).map_err(|error| error.to_string());
        if let Err(error) = written {
            self.returns.keep(&self.plan);
            return Err(error);
        }
        let before = std::mem::replace(&mut self.plan, plan);
        self.returns.keep(&self.plan);
        self.answers.keep(&self.plan);
        self.marks = marks;
        let addresses =
            |plan: &Plan| -> HashSet<Reached> { plan.services.iter().flat_map(reached).collect() };
        let present = addresses(&self.plan);
        self.former.extend(addresses(&before));
        self.former.retain(|address| !present.contains(address));
        // It is written: what fails from here on is tried again in the next turn.
        let followed = self.forget_clients().and_then(|()| self.look_at_flows().map(drop));
        if let Err(error) = followed {
            tracing::warn!(%error, "flows of members that are gone may go on for a moment");
        }
        Ok(())
    }

    /// Has the kernel forward what a plan wants: whether it did not.
    fn turn_on(&self, plan: &Plan) -> Result<bool, String> {
        let mut turned = false;
        for (switch, v4) in self.forwarding.iter().zip([true, false]) {
            let wanted = |address: &SocketAddr| address.is_ipv4() == v4;
            if plan.services.iter().flat_map(|service| &service.addresses).any(wanted) {
                turned |= switch.turn_on()?;
            }
        }
        Ok(turned)
    }

    fn write(&mut self, plan: &Plan, marks: &Marks) -> Result<(), NetError> {
        let flows = self.flows();
        let ruleset = render::render(plan, marks, &flows);
        if self.written.as_ref() == Some(&ruleset) {
            return Ok(());
        }
        let before = self.nft.generation()?;
        let empty = ruleset.chains.is_empty();
        let nothing = empty && self.written.as_ref().is_none_or(|written| written.chains.is_empty());
        if nothing && self.nft.fingerprint(TABLE).is_ok_and(|seen| seen.is_empty()) {
            // Where nothing is forwarded nothing is touched.
            self.written = Some(ruleset);
            return Ok(());
        }
        let intact = self.written.is_some() && self.is_intact(before)?;
        match self.written.as_ref().filter(|written| intact && !written.chains.is_empty()) {
            _ if empty => self.nft.commit(&Batch::removal(TABLE))?,
            None => self.write_anew(plan, marks, &ruleset)?,
            Some(before) => {
                let changed = self.nft.commit(&ruleset.changes(TABLE, Some(before)));
                changed.or_else(|error| {
                    // Another hand may have been there.
                    tracing::warn!(%error, "nf_tables was not as it was written: it is written anew");
                    self.write_anew(plan, marks, &ruleset)
                })?;
            }
        }
        self.written = Some(ruleset);
        let generation = self.nft.generation()?;
        self.seen = match generation == next_generation(before) {
            true => (generation, self.nft.fingerprint(TABLE)?),
            // Another hand was there at the same time, and what it has left is not known.
            false => (before, Vec::new()),
        };
        Ok(())
    }

    /// Writes it over whatever is there. The clients that are remembered there still are, for the time that they have left.
    fn write_anew(&mut self, plan: &Plan, marks: &Marks, ruleset: &Ruleset) -> Result<(), NetError> {
        let mut changes = ruleset.changes(TABLE, None);
        for service in &plan.services {
            let present = present(service, marks);
            for map in render::clients(service).iter().filter(|map| ruleset.sets.contains_key(*map)) {
                // What another hand has put in its place is none.
                let mut clients = self.nft.remembered(TABLE, map).unwrap_or_default();
                clients.retain(|client| present.contains(&client.mark));
                changes.remember(map, &clients);
            }
        }
        self.nft.commit(&changes).or_else(|error| {
            tracing::warn!(%error, "clients are remembered no more");
            self.nft.commit(&ruleset.changes(TABLE, None))
        })
    }

    fn flows(&self) -> HashMap<u32, u64> {
        let of = |whose| Some((*self.marks.get(whose)?, self.meters.get(whose)?.flows));
        self.meters.keys().filter_map(of).collect()
    }

    /// What is done every second.
    pub(super) fn turn(&mut self, now: Instant) {
        let turned = self.repair().and_then(|()| {
            let took = self.look_at_flows()?;
            self.former.clear();
            self.due = now + TURN.max(took * SHARE);
            if self.plan.services.iter().any(|service| service.algorithm == Algorithm::LeastConnections) {
                let (plan, marks) = (self.plan.clone(), self.marks.clone());
                self.write(&plan, &marks)?;
            }
            Ok(())
        });
        if let Err(error) = turned {
            self.due = now + TURN;
            tracing::warn!(%error, "flows could not be looked at");
        }
        match self.turn_on(&self.plan) {
            Ok(false) => {}
            Ok(true) => tracing::warn!("another hand had turned it off"),
            Err(error) => tracing::warn!(%error, "datagrams may not be forwarded"),
        }
        self.answers.keep(&self.plan);
        self.returns.keep(&self.plan);
        self.room.look();
    }

    /// Writes again what another hand has changed.
    fn repair(&mut self) -> Result<(), NetError> {
        if self.plan.is_empty() {
            return Ok(());
        }
        let generation = self.nft.generation()?;
        if self.is_intact(generation)? {
            self.seen.0 = generation;
            return Ok(());
        }
        self.written = None;
        let (plan, marks) = (self.plan.clone(), self.marks.clone());
        self.write(&plan, &marks)
    }

    /// Whether the table is as it was written, in this generation.
    fn is_intact(&mut self, generation: u32) -> Result<bool, NetError> {
        let intact = generation == self.seen.0 || self.nft.fingerprint(TABLE)? == self.seen.1;
        if !intact {
            tracing::warn!("another hand has changed the table {TABLE} of nf_tables: it is written anew");
        }
        Ok(intact)
    }

    /// Clients that a member was remembered for that is gone choose anew.
    fn forget_clients(&mut self) -> Result<(), NetError> {
        for service in &self.plan.services {
            let present = present(service, &self.marks);
            for map in render::clients(service) {
                if self.written.as_ref().is_none_or(|written| !written.sets.contains_key(&map)) {
                    continue;
                }
                let clients = self.nft.remembered(TABLE, &map)?;
                let gone: Vec<_> = clients
                    .into_iter()
                    .filter(|client| !present.contains(&client.mark))
                    .map(|client| client.key)
                    .collect();
                // One that ends meanwhile would refuse the others.
                for key in gone {
                    match self.nft.commit(&Batch::forget(TABLE, &map, &[key])) {
                        Err(error)
                            if error.errno().is_some_and(|errno| errno == nix::errno::Errno::ENOENT) => {}
                        forgotten => forgotten?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts flows, and ends those to members that are not there. How long the list took.
    fn look_at_flows(&mut self) -> Result<Duration, NetError> {
        let began = crate::net::now();
        let mut allowed: HashMap<Reached, HashMap<SocketAddr, (Uuid, Uuid)>> = HashMap::new();
        for service in &self.plan.services {
            for at in reached(service) {
                let members =
                    service.members.iter().filter(|member| member.address.is_ipv4() == at.1.is_ipv4());
                let members = members.map(|member| (member.address, (service.listener, member.member)));
                allowed.entry(at).or_default().extend(members);
            }
        }
        let former = &self.former;
        let ours = |flow: &FlowEntry| {
            let at = (flow.transport, flow.original.destination);
            allowed.contains_key(&at) || former.contains(&at)
        };
        let flows = self.conntrack.list(ours)?;
        let took = crate::net::now().saturating_duration_since(began);
        self.meters.values_mut().for_each(|meter| meter.flows = 0);
        for flow in flows {
            let at = (flow.transport, flow.original.destination);
            let whose = allowed.get(&at).and_then(|members| members.get(&flow.reply.source));
            match whose {
                Some(whose) => self.meters.entry(*whose).or_default().flows += 1,
                None => self.conntrack.delete(&flow)?,
            }
        }
        Ok(took)
    }

    /// Reads the counters.
    pub(super) fn count(&mut self) -> Result<(), NetError> {
        if self.written.as_ref().is_none_or(|written| written.chains.is_empty()) {
            return Ok(());
        }
        let whose: HashMap<u32, (Uuid, Uuid)> =
            self.marks.iter().map(|(whose, mark)| (*mark, *whose)).collect();
        let [refused4, refused6] = REFUSED.map(|set| (3, set));
        for (which, set) in [(0, FLOWS), (1, SENT), (2, RECEIVED), refused4, refused6] {
            let counters = match self.nft.counters(TABLE, set) {
                // It will be written anew.
                Err(error) if error.errno().is_some_and(|errno| errno == nix::errno::Errno::ENOENT) => {
                    return Ok(());
                }
                counters => counters?,
            };
            for (mark, Counted { packets, bytes }) in counters {
                let mark = mark.first_chunk().copied().map(u32::from_ne_bytes).unwrap_or_default();
                if let Some(whose) = whose.get(&mark) {
                    let grown = if matches!(which, 1 | 2) { bytes } else { packets };
                    self.meters.entry(*whose).or_default().counted[which].take(grown);
                }
            }
        }
        self.count_limited()
    }

    fn count_limited(&mut self) -> Result<(), NetError> {
        if self.written.as_ref().is_none_or(|written| !written.sets.contains_key(LIMITED)) {
            return Ok(());
        }
        let counters = match self.nft.counters(TABLE, LIMITED) {
            Err(error) if error.errno().is_some_and(|errno| errno == nix::errno::Errno::ENOENT) => {
                return Ok(());
            }
            counters => counters?,
        };
        for (key, Counted { packets, .. }) in counters {
            if let Ok(policy) = Uuid::from_slice(&key) {
                self.limited.entry(policy).or_default().take(packets);
            }
        }
        Ok(())
    }

    /// Has these listeners remember what another amphora does, and tells what they remember that was not told.
    pub(super) fn clients(
        &mut self,
        now: Instant,
        of: &[Uuid],
        learnt: &[Client],
    ) -> Result<Vec<Client>, NetError> {
        let Some(written) = &self.written else { return Ok(Vec::new()) };
        let mut told = Vec::new();
        for service in self.plan.services.iter().filter(|service| of.contains(&service.listener)) {
            let marks: HashMap<Uuid, u32> = (service.members.iter())
                .filter_map(|target| {
                    Some((target.member, *self.marks.get(&(service.listener, target.member))?))
                })
                .collect();
            for map in render::clients(service) {
                if written.sets.contains_key(&map) {
                    let timeout = service.persistence.map_or(0, |persistence| persistence.timeout);
                    let pass = Pass { now, map: &map, listener: service.listener, marks: &marks, timeout };
                    self.told.exchange(&mut self.nft, pass, learnt, &mut told)?;
                }
            }
        }
        self.told.keep(|map| written.sets.contains_key(map));
        Ok(told)
    }

    /// What was counted since the last call.
    pub(super) fn counts(&mut self) -> Vec<Count> {
        let marks = &self.marks;
        let counts = self.meters.iter_mut().map(|((listener, member), meter)| {
            let [begun, sent, received, refused] =
                meter.counted.each_mut().map(|counted| std::mem::take(&mut counted.grown));
            let flows = meter.flows;
            Count { listener: *listener, member: *member, begun, sent, received, refused, flows }
        });
        let counts = counts.collect();
        self.meters.retain(|whose, _| marks.contains_key(whose));
        counts
    }

    /// What was dropped by rate limits since the last call.
    pub(super) fn limited(&mut self) -> Vec<Limited> {
        let grown = self.limited.iter_mut().map(|(policy, packets)| Limited {
            policy: *policy,
            packets: std::mem::take(&mut packets.grown),
        });
        let grown = grown.filter(|limited| limited.packets > 0).collect();
        let rates: HashSet<Uuid> =
            self.plan.services.iter().flat_map(|service| &service.rates).map(|rate| rate.policy).collect();
        self.limited.retain(|policy, _| rates.contains(policy));
        grown
    }
}

/// After one change; none is 0.
fn next_generation(before: u32) -> u32 {
    before.checked_add(1).unwrap_or(1)
}

/// The marks of a listener's members.
fn present(service: &Service, marks: &Marks) -> HashSet<u32> {
    let mark = |target: &Target| marks.get(&(service.listener, target.member)).copied();
    service.members.iter().filter_map(mark).collect()
}

fn reached(service: &Service) -> impl Iterator<Item = Reached> + '_ {
    service.addresses.iter().map(|address| (service.transport.number(), *address))
}
