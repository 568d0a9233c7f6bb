//! What is written of plans.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::datagram::plan::Rate;

fn target(number: u128, address: &str) -> Target {
    Target { member: Uuid::from_u128(number), address: address.parse().unwrap(), weight: 1, backup: false }
}

fn service(listener: u128, members: Vec<Target>) -> Service {
    Service {
        listener: Uuid::from_u128(listener),
        transport: Transport::Udp,
        addresses: ["203.0.113.50:53", "[2001:db8::50]:53"].map(|text| text.parse().unwrap()).to_vec(),
        limit: None,
        member_limit: None,
        allowed: Vec::new(),
        rates: Vec::new(),
        algorithm: Algorithm::RoundRobin,
        persistence: None,
        members,
    }
}

fn rendered(services: Vec<Service>) -> (Ruleset, Marks) {
    let plan = Plan { services, transparent: Vec::new() };
    let marks = marks(&plan);
    (render(&plan, &marks, &HashMap::new()), marks)
}

#[test]
fn nothing_is_written_of_nothing() {
    assert_eq!(rendered(Vec::new()).0, Ruleset::default());
}

#[test]
fn a_family_without_members_is_unreachable() {
    let (table, _) = rendered(vec![service(1, vec![target(1, "10.9.0.2:53")])]);
    let chain = |family: &str| &table.chains[&format!("l{family}_{:032x}", 1)].rules;
    assert_eq!(chain("6"), &[vec![E::Unreachable]]);
    assert_eq!(chain("4").len(), 2);
}

/// Before a packet is of a flow, and for those listeners alone that have rates.
#[test]
fn rates_are_by_the_client_or_its_network() {
    let mut rated = service(1, vec![target(1, "10.9.0.2:53")]);
    let policy = Uuid::from_u128(6);
    rated.rates = vec![Rate { policy, rule: Uuid::from_u128(7), packets: 100, seconds: 10 }];
    let (table, _) = rendered(vec![rated, service(2, Vec::new())]);
    assert_eq!(table.chains["rates"].hook.map(|hook| hook.priority), Some(-290));
    for (family, bytes) in [("4", 4), ("6", 16)] {
        let set = format!("p{family}_{:032x}_100_10", 7);
        assert_eq!(table.sets[&set].key.1, bytes);
        let rules = &table.chains[&format!("t{family}_{:032x}", 1)].rules;
        let [.., above, whose, counted, drop] = &rules[0][..] else { panic!() };
        assert_eq!(whose, &E::Immediate(R(0), policy.as_bytes().to_vec()));
        assert_eq!(counted, &E::InSet(R(0), LIMITED.to_owned()));
        assert_eq!((rules.len(), above), (1, &E::Above(R(0), set, 100, 10)));
        assert_eq!(drop, &E::Verdict(Verdict::Drop));
        assert_eq!(rules[0].iter().any(|step| matches!(step, E::Mask(..))), family == "6");
        let Content::Verdicts(rows) = &table.sets[&format!("rated{family}")].content else { panic!() };
        assert_eq!(rows.len(), 1);
    }
    assert_eq!(table.sets[LIMITED].content, Content::Counted(vec![policy.as_bytes().to_vec()]));
    let (none, _) = rendered(vec![service(2, Vec::new())]);
    assert!(!none.chains.contains_key("rates") && !none.sets.contains_key(LIMITED));
}

#[test]
fn associations_begin_with_init_and_are_told_that_nobody_is_there() {
    let mut sctp = service(1, vec![target(1, "10.9.0.2:53")]);
    sctp.transport = Transport::Sctp;
    let (table, _) = rendered(vec![service(2, Vec::new()), sctp]);
    let chain = |family: &str| &table.chains[&format!("l{family}_{:032x}", 1)].rules;
    let [load, is] = Family { v4: true }.is();
    let gone = [load, is, E::ProtocolUnreachable];
    let first = [E::Payload(Header::Transport, 12, 1, R(0)), E::Differs(R(0), vec![1])];
    assert_eq!(chain("4")[0], [&first[..], &gone].concat());
    assert_eq!(chain("4").last().unwrap()[..], gone);
    let nobody = vec![E::Unreachable];
    assert_eq!(chain("6")[..], [[&first[..], &nobody].concat(), nobody]);
    let Content::Verdicts(rows) = &table.sets["services4"].content else { panic!() };
    let to: Vec<_> = rows.iter().map(|(key, to)| (key[0], to.clone())).collect();
    let chain = |listener: u128| goto(format!("l4_{listener:032x}"));
    assert_eq!(to, [(17, chain(2)), (132, chain(1))], "one port, two listeners");
}

#[test]
fn a_member_that_is_full_sends_flows_back() {
    let mut limited = service(1, vec![target(1, "10.9.0.2:53"), target(2, "10.9.0.3:53")]);
    limited.member_limit = Some(5);
    let (table, marks) = rendered(vec![limited]);
    let chain = |mark: u32| format!("m_{mark:08x}");
    for mark in marks.values() {
        let set = format!("n4_{:032x}_5_16", 1);
        assert_eq!(
            table.chains[&chain(*mark)].rules[0],
            [
                E::Immediate(R(0), mark_bytes(*mark)),
                E::MoreThan(R(0), set.clone(), 5),
                E::Verdict(Verdict::Return)
            ]
        );
        assert_eq!(table.sets[&set].content, Content::Flows { size: 16 });
    }
    let rules = &table.chains[&format!("l4_{:032x}", 1)].rules;
    let of = |member| Verdict::Jump(chain(marks[&(Uuid::from_u128(1), Uuid::from_u128(member))]));
    assert_eq!(rules[0], [E::Turns(2, R(0)), E::Choose(R(0), vec![of(1), of(2)])]);
    assert_eq!(rules[1..], [vec![E::Verdict(of(1))], vec![E::Verdict(of(2))], vec![E::Unreachable]]);
}

#[test]
fn marks_are_of_the_ids_and_of_one_member_each() {
    let members = || (1..200).map(|number| target(number, "10.9.0.2:53")).collect::<Vec<_>>();
    let (_, all) = rendered(vec![service(1, members()), service(2, members())]);
    let different: std::collections::HashSet<_> = all.values().collect();
    assert_eq!(different.len(), 2 * 199);
    let (_, fewer) = rendered(vec![service(2, members()[7..9].to_vec())]);
    assert!(fewer.iter().all(|(whose, mark)| all[whose] == *mark));
}

#[test]
fn masks_are_of_prefixes() {
    let v4 = Family { v4: true };
    for (prefix, mask) in [(0, [0; 4]), (1, [128, 0, 0, 0]), (12, [255, 240, 0, 0]), (32, [255; 4])] {
        assert_eq!(v4.mask(prefix), mask);
    }
    assert_eq!(Family { v4: false }.mask(64), [[255; 8], [0; 8]].concat());
}

#[test]
fn what_does_not_change_is_not_written() {
    let one = service(1, vec![target(1, "10.9.0.2:53"), target(2, "10.9.0.3:53")]);
    let mut other = one.clone();
    other.listener = Uuid::from_u128(2);
    other.addresses = vec!["203.0.113.50:54".parse().unwrap()];
    let (before, _) = rendered(vec![one.clone()]);
    let (after, _) = rendered(vec![one.clone(), other]);
    for (name, chain) in &before.chains {
        assert_eq!(after.chains[name], *chain, "{name}");
    }
    assert!(before.changes(TABLE, Some(&before)).is_empty());
    assert!(!after.changes(TABLE, Some(&before)).is_empty());
}
