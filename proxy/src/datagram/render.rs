//! A plan as rules of nf_tables.
//!
//! The first packet of a flow comes through `in`: its address and port lead to the chain of a listener, that to the chain of a
//! member, which marks the flow and sets its destination. Packets that follow go the same way by conntrack and meet no rule but
//! those that count. The source of what goes to members becomes the amphora's address, as with IPVS in Octavia's own amphora,
//! so that answers come back this way.

mod family;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    time::Duration,
};

use amphora_netlink::nft::{
    Chain, Content, Expression as E, Flow, Header, Hook, Meta, Place, Register as R, Rule, Ruleset, Set,
    Type, Verdict,
};
use uuid::Uuid;

use self::family::{Family, octets};
use super::{
    answers::ANSWER,
    choice,
    plan::{Algorithm, Persistence, Plan, Service, Target, Transport},
    returns::RETURN,
};

/// Ours alone.
pub(super) const TABLE: &str = "amphora_datagram";
/// Sets of marks, each with a counter: first packets of flows; what went to members; what came from them.
pub(super) const FLOWS: &str = "flows";
pub(super) const SENT: &str = "sent";
pub(super) const RECEIVED: &str = "received";
/// Of marks and members' addresses: ICMP errors from members that nobody listens on their port.
pub(super) const REFUSED: [&str; 2] = ["refused4", "refused6"];
/// Of marks: the chains that renew what is remembered of the client of a flow that goes on.
const RENEWED: &str = "renewed";
/// Of the ids of policies: packets that were beyond their rates.
pub(super) const LIMITED: &str = "limited";
const TCP: u8 = 6;
/// The type of the chunk that an association of SCTP begins with, alone in its packet, and where that stands in one.
const INIT: u8 = 1;
const FIRST_CHUNK: u32 = 12;
/// The chain of what members answer to clients' own addresses.
const RETURNED: &str = "returned";
/// Clients that a listener remembers, at most; about 150 bytes each.
pub(super) const CLIENTS: u32 = 262_144;
/// Of the hash of clients' addresses: the same on both amphorae of a pair.
const SEED: u32 = 0x616d_7068;

/// A mark, and whose flows have it.
pub(super) type Marks = HashMap<(Uuid, Uuid), u32>;

/// The marks of all members of all listeners. They follow from the ids, so that flows keep their meaning when the proxy starts
/// anew.
pub(super) fn marks(plan: &Plan) -> Marks {
    let mut marks = Marks::new();
    let mut taken = HashMap::new();
    for service in &plan.services {
        for target in &service.members {
            let whose = (service.listener, target.member);
            let ids = whose.0.as_bytes().iter().chain(whose.1.as_bytes());
            // FNV-1a.
            let mut mark =
                ids.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
            while mark == 0 || taken.get(&mark).is_some_and(|other| *other != whose) {
                mark = mark.wrapping_add(1);
            }
            taken.insert(mark, whose);
            marks.insert(whose, mark);
        }
    }
    marks
}

fn mark_bytes(mark: u32) -> Vec<u8> {
    mark.to_ne_bytes().to_vec()
}

/// Room for the counts of so many members. It is another seldom, for with another set counts begin anew.
fn limited(members: usize) -> u32 {
    u32::try_from(members).unwrap_or(u32::MAX).clamp(16, 1 << 20).next_power_of_two()
}

fn goto(chain: String) -> Verdict {
    Verdict::Goto(chain)
}

/// To the chain of a member, which may be full and send it back where members have a limit.
fn to_member(service: &Service, mark: u32) -> Verdict {
    match service.member_limit {
        Some(_) => Verdict::Jump(member_chain(mark)),
        None => goto(member_chain(mark)),
    }
}

fn member_chain(mark: u32) -> String {
    format!("m_{mark:08x}")
}

fn rates_map(family: Family) -> &'static str {
    if family.v4 { "rated4" } else { "rated6" }
}

fn rates_chain(service: &Service, family: Family) -> String {
    format!("t{}_{}", family.name(), service.listener.simple())
}

/// The maps of the clients that a listener remembers, of IPv4 and IPv6, if it does.
pub(super) fn clients(service: &Service) -> Vec<String> {
    let map = |persistence| Family::ALL.map(|family| clients_of(service, persistence, family)).to_vec();
    service.persistence.map(map).unwrap_or_default()
}

fn clients_of(service: &Service, persistence: Persistence, family: Family) -> String {
    let (prefix, timeout) = (prefix(persistence, family), persistence.timeout);
    // What is hashed has another name than what was not.
    let kind = if family.v4 { 'p' } else { 'h' };
    format!("{kind}{}_{}_{prefix}_{timeout}", family.name(), service.listener.simple())
}

fn prefix(persistence: Persistence, family: Family) -> u8 {
    if family.v4 { persistence.v4 } else { persistence.v6 }
}

/// The table; empty when nothing is forwarded. `flows` are the flows that each mark has.
pub(super) fn render(plan: &Plan, marks: &Marks, flows: &HashMap<u32, u64>) -> Ruleset {
    let mut table = Table::default();
    table.returns(&plan.transparent);
    if plan.services.is_empty() {
        return table.0;
    }
    table.base();
    let every: Vec<_> = marks.values().copied().map(mark_bytes).collect();
    for counted in [FLOWS, SENT, RECEIVED] {
        table.set(counted, (Type::MARK, 4), Content::Counted(sorted(every.clone())));
    }
    for (family, refused) in Family::ALL.into_iter().zip(REFUSED) {
        let udp = plan.services.iter().filter(|service| service.transport == Transport::Udp);
        let members = udp.flat_map(|service| service.members.iter().map(move |member| (service, member)));
        let of_family = members.filter(|(_, member)| family.has(&member.address));
        let keys = of_family.filter_map(|(service, member)| {
            let mark = mark_bytes(*marks.get(&(service.listener, member.member))?);
            Some([mark, octets(member.address.ip())].concat())
        });
        let key = (Type::MARK.and(family.key()), 4 + family.bytes());
        table.set(refused, key, Content::Counted(sorted(keys.collect())));
        let mut rows = BTreeMap::new();
        let mut rated = BTreeMap::new();
        for service in &plan.services {
            let addresses = service.addresses.iter().filter(|address| family.has(address));
            for address in addresses {
                let mut key = vec![service.transport.number(), 0, 0, 0];
                key.extend(octets(address.ip()));
                key.extend(address.port().to_be_bytes());
                key.extend([0, 0]);
                if !service.rates.is_empty() {
                    rated.insert(key.clone(), goto(rates_chain(service, family)));
                }
                rows.insert(key, goto(listener_chain(service, family)));
            }
        }
        let key = Type::TRANSPORT.and(family.key()).and(Type::PORT);
        table.set(services_map(family), (key, 8 + family.bytes()), Content::Verdicts(rows));
        if !rated.is_empty() {
            table.set(rates_map(family), (key, 8 + family.bytes()), Content::Verdicts(rated));
        }
        for service in &plan.services {
            if service.addresses.iter().any(|address| family.has(address)) {
                table.service(service, family, marks, flows);
                table.rates(service, family);
            }
        }
    }
    let rates = plan.services.iter().flat_map(|service| &service.rates);
    let policies: BTreeSet<_> = rates.map(|rate| policy_key(rate.policy)).collect();
    if !policies.is_empty() {
        table.rated();
        // Of sixteen bytes, as an address of IPv6: nft(8) has no type for ids.
        table.set(LIMITED, (Type::IPV6, 16), Content::Counted(policies.into_iter().collect()));
    }
    table.0
}

/// How the table knows a policy.
pub(super) fn policy_key(policy: Uuid) -> Vec<u8> {
    policy.as_bytes().to_vec()
}

fn sorted(mut keys: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    keys.sort_unstable();
    keys
}

fn services_map(family: Family) -> &'static str {
    if family.v4 { "services4" } else { "services6" }
}

/// That nobody is there, as where no socket is. What ends an association at once (RFC 9260, 10) is that the protocol is not there,
/// which nf_tables can say in IPv4 alone.
fn nobody(service: &Service, family: Family) -> Rule {
    match service.transport {
        Transport::Sctp if family.v4 => {
            let [load, is] = family.is();
            vec![load, is, E::ProtocolUnreachable]
        }
        Transport::Sctp | Transport::Udp => vec![E::Unreachable],
    }
}

fn listener_chain(service: &Service, family: Family) -> String {
    format!("l{}_{}", family.name(), service.listener.simple())
}

#[derive(Default)]
struct Table(Ruleset);

impl Table {
    fn chain(&mut self, name: impl Into<String>, hook: Option<Hook>, rules: Vec<Rule>) {
        self.0.chains.insert(name.into(), Chain { hook, rules });
    }

    fn set(&mut self, name: impl Into<String>, key: (Type, u32), content: Content) {
        self.0.sets.insert(name.into(), Set { key, content });
    }

    /// What comes from where these members listen is marked.
    fn returns(&mut self, members: &[SocketAddr]) {
        let mut rules = Vec::new();
        for family in Family::ALL {
            let of_family = members.iter().filter(|member| family.has(member));
            let rows: BTreeMap<_, _> = of_family
                .map(|member| {
                    let mut key = vec![TCP, 0, 0, 0];
                    key.extend(octets(member.ip()));
                    key.extend(member.port().to_be_bytes());
                    key.extend([0, 0]);
                    (key, goto(RETURNED.to_owned()))
                })
                .collect();
            if rows.is_empty() {
                continue;
            }
            let set = format!("transparent{}", family.name());
            let mut rule = family.is().to_vec();
            rule.extend([E::Meta(Meta::Transport, R(0)), family.source(R(1))]);
            rule.push(E::Payload(Header::Transport, 0, 2, R(1 + family.bytes() as u8 / 4)));
            rule.push(E::VerdictMap(R(0), set.clone()));
            rules.push(rule);
            let key = Type::TRANSPORT.and(family.key()).and(Type::PORT);
            self.set(set, (key, 8 + family.bytes()), Content::Verdicts(rows));
        }
        if rules.is_empty() {
            return;
        }
        let mark = vec![E::Meta(Meta::Mark, R(0)), E::Or(R(0), RETURN), E::SetPacketMark(R(0))];
        self.chain(RETURNED, None, vec![mark]);
        let hook = Hook { kind: "filter", place: Place::Prerouting, priority: -151 };
        self.chain("returns", Some(hook), rules);
    }

    /// Where packets come in, are counted, and leave.
    fn base(&mut self) {
        let hook = |kind, place, priority| Some(Hook { kind, place, priority });
        // What has NAT follows all flows; those of TCP, which end here, are none of its business.
        let tcp = [E::Meta(Meta::Transport, R(0)), E::Equal(R(0), vec![TCP]), E::NotFollowed];
        self.chain("raw_in", hook("filter", Place::Prerouting, -300), vec![tcp.to_vec()]);
        self.chain("raw_out", hook("filter", Place::Output, -300), vec![tcp.to_vec()]);
        let dispatch = |family: Family| family.to_service(services_map(family));
        // Before routing, and again where it was routed already.
        let mut answer = vec![E::LoadFlow(Flow::Direction, R(0)), E::Equal(R(0), vec![1])];
        answer.extend([E::LoadFlow(Flow::Mark, R(0)), E::Differs(R(0), mark_bytes(0))]);
        answer.extend([E::Meta(Meta::Mark, R(0)), E::Or(R(0), ANSWER), E::SetPacketMark(R(0))]);
        self.chain("answers", hook("filter", Place::Prerouting, -150), vec![answer.clone()]);
        self.chain("answers_out", hook("route", Place::Output, -150), vec![answer]);
        self.chain("in", hook("nat", Place::Prerouting, -100), Family::ALL.map(dispatch).to_vec());
        let ours = |set: &str| [E::LoadFlow(Flow::Mark, R(0)), E::InSet(R(0), set.to_owned())];
        let out = [&ours(FLOWS)[..], &[E::Masquerade]].concat();
        self.chain("out", hook("nat", Place::Postrouting, 100), vec![out]);
        let direction = |which, set| {
            let direction = [E::LoadFlow(Flow::Direction, R(0)), E::Equal(R(0), vec![which])];
            [&direction[..], &ours(set)].concat()
        };
        // An error has the flow's mark where conntrack has found what it is about among flows, and this direction where that was
        // sent to the member. From another address than the member's it says nothing of its port.
        let refused = |(family, set): (Family, &str)| {
            let direction = [E::LoadFlow(Flow::Direction, R(0)), E::Equal(R(0), vec![1])];
            let mut rule = [&family.is()[..], &family.is_port_unreachable(), &direction].concat();
            rule.extend([E::LoadFlow(Flow::Mark, R(0)), family.source(R(1)), E::InSet(R(0), set.to_owned())]);
            rule.push(E::Verdict(Verdict::Accept));
            rule
        };
        let mut across: Vec<_> = Family::ALL.into_iter().zip(REFUSED).map(refused).collect();
        across.extend([direction(0, SENT), direction(1, RECEIVED)]);
        self.chain("across", hook("filter", Place::Forward, 0), across);
    }

    /// What comes for a listener that has rates goes by them before it is a flow.
    fn rated(&mut self) {
        let has = |family: &Family| self.0.sets.contains_key(rates_map(*family));
        let rules = Family::ALL.into_iter().filter(has).map(|family| family.to_service(rates_map(family)));
        let (hook, rules) =
            (Hook { kind: "filter", place: Place::Prerouting, priority: -290 }, rules.collect());
        self.chain("rates", Some(hook), rules);
    }

    /// What of a client is beyond a rate is counted, and dropped.
    fn rates(&mut self, service: &Service, family: Family) {
        if service.rates.is_empty() {
            return;
        }
        let mut rules = Vec::new();
        for rate in &service.rates {
            let set = format!("p{}_{}_{}_{}", family.name(), rate.rule.simple(), rate.packets, rate.seconds);
            let timeout = Duration::from_secs(u64::from(rate.seconds));
            self.set(&set, (family.key(), family.bytes()), Content::Rates { timeout, size: CLIENTS });
            let mut rule = family.client(if family.v4 { 32 } else { 64 });
            rule.push(E::Above(R(0), set, rate.packets, rate.seconds));
            rule.extend([E::Immediate(R(0), policy_key(rate.policy)), E::InSet(R(0), LIMITED.to_owned())]);
            rule.push(E::Verdict(Verdict::Drop));
            rules.push(rule);
        }
        self.chain(rates_chain(service, family), None, rules);
    }

    fn service(&mut self, service: &Service, family: Family, marks: &Marks, flows: &HashMap<u32, u64>) {
        let members: Vec<Target> =
            service.members.iter().copied().filter(|member| family.has(&member.address)).collect();
        let mark =
            |member: &Target| marks.get(&(service.listener, member.member)).copied().unwrap_or_default();
        let mut rules = Vec::new();
        if service.transport == Transport::Sctp {
            // What belongs to an association that is not known here belongs to no member.
            let mut other =
                vec![E::Payload(Header::Transport, FIRST_CHUNK, 1, R(0)), E::Differs(R(0), vec![INIT])];
            other.extend(nobody(service, family));
            rules.push(other);
        }
        if let Some(limit) = service.limit {
            let set = format!("c_{}_{limit}", service.listener.simple());
            self.set(&set, (Type::TRANSPORT, 1), Content::Flows { size: 1 });
            let mut full = vec![E::Meta(Meta::Transport, R(0)), E::MoreThan(R(0), set, limit)];
            full.extend(nobody(service, family));
            rules.push(full);
        }
        let persistence = service.persistence.filter(|_| !members.is_empty());
        if let Some(persistence) = persistence {
            let map = clients_of(service, persistence, family);
            let (timeout, size) = (Duration::from_secs(persistence.timeout.max(1)), CLIENTS);
            let key = if family.v4 { (family.key(), 4) } else { (Type::MARK.and(Type::MARK), 8) };
            self.set(&map, key, Content::Remembered { timeout, size });
            let mut known = family.known(prefix(persistence, family));
            known.extend([E::Map(family.known_by(), map, R(0)), E::SetMark(R(0))]);
            rules.push(known);
            let marks = members.iter().map(mark);
            self.renews(service, family, persistence, marks.collect());
            // A member that is gone is not among them, and the next rules choose another.
            let rows =
                members.iter().map(|member| (mark_bytes(mark(member)), to_member(service, mark(member))));
            let limited = if service.member_limit.is_some() { "l" } else { "" };
            let present = format!("b{}{limited}_{}", family.name(), service.listener.simple());
            self.set(&present, (Type::MARK, 4), Content::Verdicts(rows.collect()));
            rules.push(vec![E::LoadFlow(Flow::Mark, R(0)), E::VerdictMap(R(0), present)]);
        }
        let chosen = choice::eligible(members.iter().copied());
        let to_members = |indexes: Vec<usize>| -> Vec<Verdict> {
            indexes.into_iter().map(|index| to_member(service, mark(&chosen[index]))).collect()
        };
        let rows = to_members(match service.algorithm {
            Algorithm::RoundRobin => choice::turns(&chosen),
            Algorithm::LeastConnections => {
                let flows: Vec<_> = chosen
                    .iter()
                    .map(|member| flows.get(&mark(member)).copied().unwrap_or_default())
                    .collect();
                choice::fewest(&chosen, &flows)
            }
            Algorithm::SourceIp => choice::places(&chosen),
        });
        if !rows.is_empty() {
            let count = rows.len() as u32;
            rules.push(match service.algorithm {
                Algorithm::SourceIp => {
                    let mut rule = family.is().to_vec();
                    rule.push(family.source(R(4)));
                    rule.push(E::Hash(R(4), family.bytes(), count, SEED, R(0)));
                    rule.push(E::Choose(R(0), rows));
                    rule
                }
                _ => vec![E::Turns(count, R(0)), E::Choose(R(0), rows)],
            });
        }
        if service.member_limit.is_some() && chosen.len() > 1 {
            // Who was chosen is full: the first one that is not.
            rules.extend(chosen.iter().map(|member| vec![E::Verdict(to_member(service, mark(member)))]));
        }
        rules.push(nobody(service, family));
        self.allowed(service, family, rules);
        for member in &members {
            let mark = mark(member);
            let mut rules = Vec::new();
            if let Some(limit) = service.member_limit {
                let (set, size) = (
                    format!("n{}_{}_{limit}", family.name(), service.listener.simple()),
                    limited(members.len()),
                );
                let set = format!("{set}_{size}");
                self.set(&set, (Type::MARK, 4), Content::Flows { size });
                let key = E::Immediate(R(0), mark_bytes(mark));
                rules.push(vec![key, E::MoreThan(R(0), set, limit), E::Verdict(Verdict::Return)]);
            }
            rules.push(vec![E::Immediate(R(0), mark_bytes(mark)), E::SetMark(R(0))]);
            if let Some(persistence) = persistence {
                let mut remember = family.known(prefix(persistence, family));
                remember.push(E::Immediate(R(6), mark_bytes(mark)));
                let map = clients_of(service, persistence, family);
                remember.push(E::Remember(family.known_by(), map, R(6)));
                rules.push(remember);
            }
            let mut destination = family.is().to_vec();
            destination.push(E::Immediate(R(0), octets(member.address.ip())));
            destination.push(E::Immediate(R(4), member.address.port().to_be_bytes().to_vec()));
            destination.push(E::ToDestination(family.v4, R(0), R(4)));
            rules.push(destination);
            self.chain(member_chain(mark), None, rules);
        }
    }

    /// A client is remembered while flows of it go on. Flows of members that are gone renew nothing.
    fn renews(&mut self, service: &Service, family: Family, persistence: Persistence, marks: Vec<u32>) {
        let chain = format!("r{}_{}", family.name(), service.listener.simple());
        // Errors of the path are of the flow as well, and from others than the client.
        let number = vec![service.transport.number()];
        let mut renew = vec![E::Meta(Meta::Transport, R(0)), E::Equal(R(0), number)];
        renew.extend(family.known(prefix(persistence, family)));
        renew.push(E::LoadFlow(Flow::Mark, R(6)));
        renew.push(E::Remember(family.known_by(), clients_of(service, persistence, family), R(6)));
        self.chain(&chain, None, vec![renew]);
        let none = || Set { key: (Type::MARK, 4), content: Content::Verdicts(BTreeMap::new()) };
        let set = self.0.sets.entry(RENEWED.to_owned()).or_insert_with(none);
        if let Content::Verdicts(rows) = &mut set.content {
            rows.extend(marks.into_iter().map(|mark| (mark_bytes(mark), goto(chain.clone()))));
        }
        // The first packet of a flow has no mark yet.
        let mut rule = vec![E::LoadFlow(Flow::Direction, R(0)), E::Equal(R(0), vec![0])];
        rule.extend([E::LoadFlow(Flow::Mark, R(0)), E::VerdictMap(R(0), RENEWED.to_owned())]);
        let hook = Hook { kind: "filter", place: Place::Prerouting, priority: -150 };
        self.chain("goes_on", Some(hook), vec![rule]);
    }

    /// The chain of a listener, for whom it is for.
    fn allowed(&mut self, service: &Service, family: Family, rules: Vec<Rule>) {
        let name = listener_chain(service, family);
        if service.allowed.is_empty() {
            return self.chain(name, None, rules);
        }
        let inner = format!("a{}_{}", family.name(), service.listener.simple());
        let networks = service.allowed.iter().filter(|(network, _)| Family::of(network).v4 == family.v4);
        let mut gate: Vec<Rule> = networks
            .map(|(network, prefix)| {
                let mut rule = family.client(*prefix);
                rule.push(E::Equal(R(0), octets(*network)));
                rule.push(E::Verdict(goto(inner.clone())));
                rule
            })
            .collect();
        gate.push(vec![E::Verdict(Verdict::Drop)]);
        self.chain(name, None, gate);
        self.chain(inner, None, rules);
    }
}

#[cfg(test)]
mod tests;
