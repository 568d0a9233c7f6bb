//! What was written of nf_tables is what `nft` lists; it takes `nft` to look, and a kernel with nf_tables.

use std::{collections::BTreeMap, process::Command, time::Duration};

use amphora_netlink::{
    Table,
    nft::{
        Batch, Chain, Conntrack, Content, Expression as E, Flow, Header, Hook, MarkRule, Memory, Meta, Nft,
        Place, Register as R, Routing, Ruleset, Set, Type, Verdict,
    },
};
use amphora_tests::Namespace;

const TABLE: &str = "amphora_test";

fn ground() -> Option<Namespace> {
    if Command::new("nft").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no nft(8)");
        return None;
    }
    let namespace = Namespace::create()?;
    let lists =
        Command::new("ip").args(["netns", "exec", namespace.name(), "nft", "list", "tables"]).output();
    if !lists.is_ok_and(|listed| listed.status.success()) {
        eprintln!("SKIPPED: the kernel has no nf_tables");
        return None;
    }
    Some(namespace)
}

fn listed(namespace: &str) -> String {
    let output =
        Command::new("ip").args(["netns", "exec", namespace, "nft", "list", "ruleset"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn goto(chain: &str) -> Verdict {
    Verdict::Goto(chain.to_owned())
}

fn mark() -> Vec<u8> {
    0x77_u32.to_ne_bytes().to_vec()
}

/// One of every expression.
fn everything() -> Ruleset {
    let hook = |kind, place, priority| Some(Hook { kind, place, priority });
    let v4 = [E::Meta(Meta::Family, R(0)), E::Equal(R(0), vec![2])];
    let saddr = [E::Payload(Header::Network, 12, 4, R(0)), E::Mask(R(0), vec![255, 255, 0, 0])];
    let rules = |rules: &[&[E]]| rules.iter().map(|rule| rule.to_vec()).collect::<Vec<_>>();
    let mut ruleset = Ruleset::default();
    let mut chain = |name: &str, hook, rules| ruleset.chains.insert(name.to_owned(), Chain { hook, rules });
    chain(
        "before",
        hook("filter", Place::Prerouting, -300),
        rules(&[&[E::Meta(Meta::Transport, R(0)), E::Equal(R(0), vec![6]), E::NotFollowed]]),
    );
    let key = [
        E::Meta(Meta::Transport, R(0)),
        E::Payload(Header::Network, 16, 4, R(1)),
        E::Payload(Header::Transport, 2, 2, R(2)),
        E::VerdictMap(R(0), "services".into()),
    ];
    chain("in", hook("nat", Place::Prerouting, -100), rules(&[&[&v4[..], &key].concat()]));
    let masquerade = [E::LoadFlow(Flow::Mark, R(0)), E::InSet(R(0), "flows".into()), E::Masquerade];
    chain("out", hook("nat", Place::Postrouting, 100), rules(&[&masquerade]));
    let direction = [E::LoadFlow(Flow::Direction, R(0)), E::Equal(R(0), vec![1])];
    let counted = [E::LoadFlow(Flow::Mark, R(0)), E::InSet(R(0), "flows".into())];
    chain("across", hook("filter", Place::Forward, 0), rules(&[&[&direction[..], &counted].concat()]));
    let marked = [E::Meta(Meta::Mark, R(0)), E::Or(R(0), 1 << 30), E::SetPacketMark(R(0))];
    chain("again", hook("route", Place::Output, -150), rules(&[&marked]));
    let remembered = [E::Map(R(0), "clients".into(), R(0)), E::SetMark(R(0))];
    chain(
        "service",
        None,
        rules(&[
            &[&v4[..], &saddr, &[E::Equal(R(0), vec![10, 1, 0, 0]), E::Verdict(Verdict::Drop)]].concat(),
            &[
                E::Meta(Meta::Transport, R(0)),
                E::MoreThan(R(0), "limit".into(), 5),
                E::Verdict(Verdict::Drop),
            ],
            &[
                &v4[..],
                &[
                    E::Payload(Header::Network, 12, 4, R(0)),
                    E::Above(R(0), "rate".into(), 100, 60),
                    E::Verdict(Verdict::Drop),
                ],
            ]
            .concat(),
            &[&v4[..], &saddr, &remembered].concat(),
            &[E::LoadFlow(Flow::Mark, R(0)), E::VerdictMap(R(0), "members".into())],
            &[E::Turns(3, R(0)), E::Choose(R(0), vec![goto("a"), Verdict::Drop, goto("a")])],
            &[
                &v4[..],
                &[
                    E::Payload(Header::Network, 12, 4, R(4)),
                    E::Hash(R(4), 4, 2, 0xdead_beef, R(0)),
                    E::Choose(R(0), vec![goto("a"), goto("a")]),
                ],
            ]
            .concat(),
            &[
                &[E::Payload(Header::Transport, 12, 1, R(0)), E::Differs(R(0), vec![1])],
                &v4[..],
                &[E::ProtocolUnreachable],
            ]
            .concat(),
            &[E::Unreachable],
        ]),
    );
    let remember = [E::Immediate(R(4), mark()), E::Remember(R(0), "clients".into(), R(4))];
    let destination = [
        E::Immediate(R(0), vec![10, 0, 0, 2]),
        E::Immediate(R(4), 53_u16.to_be_bytes().to_vec()),
        E::ToDestination(true, R(0), R(4)),
    ];
    chain(
        "a",
        None,
        rules(&[
            &[E::Immediate(R(0), mark()), E::SetMark(R(0))],
            &[&v4[..], &saddr, &remember].concat(),
            &[&v4[..], &destination].concat(),
        ]),
    );
    let mut set = |name: &str, key, content| ruleset.sets.insert(name.to_owned(), Set { key, content });
    let service = vec![17, 0, 0, 0, 10, 0, 0, 1, 0, 53, 0, 0];
    let key = Type::TRANSPORT.and(Type::IPV4).and(Type::PORT);
    set("services", (key, 12), Content::Verdicts(BTreeMap::from([(service, goto("service"))])));
    set("members", (Type::MARK, 4), Content::Verdicts(BTreeMap::from([(mark(), goto("a"))])));
    set("flows", (Type::MARK, 4), Content::Counted(vec![mark()]));
    let timeout = Duration::from_secs(60);
    set("clients", (Type::IPV4, 4), Content::Remembered { timeout, size: 1000 });
    set("rate", (Type::IPV4, 4), Content::Rates { timeout, size: 1000 });
    set("limit", (Type::TRANSPORT, 1), Content::Flows { size: 1 });
    ruleset
}

#[tokio::test]
async fn a_table_is_what_nft_lists() {
    let Some(namespace) = ground() else { return };
    let inside = namespace.name().to_owned();
    namespace
        .run(move || async move {
            let mut nft = Nft::open().unwrap();
            // Of another hand: it stays.
            let made = Command::new("ip")
                .args(["netns", "exec", &inside, "nft", "add", "table", "inet", "other"])
                .status();
            assert!(made.unwrap().success());
            let ruleset = everything();
            nft.commit(&ruleset.changes(TABLE, None)).unwrap();
            let text = listed(&inside);
            for line in [
                "type inet_proto . ipv4_addr . inet_service : verdict",
                "elements = { udp . 10.0.0.1 . 53 : goto service }",
                "elements = { 0x00000077 : goto a }",
                "elements = { 0x00000077 counter packets 0 bytes 0 }",
                "type filter hook prerouting priority raw; policy accept;",
                "meta l4proto tcp notrack",
                "type nat hook prerouting priority dstnat; policy accept;",
                "ip daddr . th dport vmap @services",
                "type nat hook postrouting priority srcnat; policy accept;",
                "ct mark @flows masquerade",
                "ct direction reply ct mark @flows",
                "type route hook output priority mangle; policy accept;",
                "meta mark set meta mark | 0x40000000",
                "ip saddr 10.1.0.0/16 drop",
                "add @limit { meta l4proto ct count over 5 } drop",
                "update @rate { ip saddr limit rate over 100/minute burst 100 packets } drop",
                "size 1000",
                "ct mark set ip saddr & 255.255.0.0 map @clients",
                "ct mark vmap @members",
                "numgen inc mod 3 vmap { 0 : goto a, 1 : drop, 2 : goto a }",
                "jhash ip saddr mod 2 seed 0xdeadbeef vmap { 0 : goto a, 1 : goto a }",
                "@th,96,8 != 0x1 reject with icmp prot-unreachable",
                "reject",
                "ct mark set 0x00000077",
                "update @clients { ip saddr & 255.255.0.0 : 0x00000077 }",
                "dnat ip to 10.0.0.2:53",
            ] {
                assert!(text.contains(line), "{line} in {text}");
            }
            assert!(ruleset.changes(TABLE, Some(&ruleset)).is_empty(), "nothing is to be done twice");
            let counters = nft.counters(TABLE, "flows").unwrap();
            assert_eq!(counters.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [mark()]);
            assert_eq!(nft.remembered(TABLE, "clients").unwrap(), []);

            // Another hand is noticed.
            let (generation, seen) = (nft.generation().unwrap(), nft.fingerprint(TABLE).unwrap());
            assert_eq!(nft.fingerprint(TABLE).unwrap(), seen);
            let flush = ["netns", "exec", &inside, "nft", "flush", "chain", "inet", TABLE, "service"];
            assert!(Command::new("ip").args(flush).status().unwrap().success());
            assert_ne!(nft.generation().unwrap(), generation);
            assert_ne!(nft.fingerprint(TABLE).unwrap(), seen);

            // From whatever is there, and away again.
            nft.commit(&ruleset.changes(TABLE, None)).unwrap();
            assert_eq!(listed(&inside), text);
            nft.commit(&Batch::removal(TABLE)).unwrap();
            assert!(nft.fingerprint(TABLE).unwrap().is_empty());
            assert_eq!(listed(&inside), "table inet other {\n}\n");
            nft.commit(&Batch::removal(TABLE)).unwrap();
            assert_eq!(Conntrack::open().unwrap().list(|_| true).unwrap(), []);
        })
        .await;
}

#[tokio::test]
async fn rules_by_marks_come_and_go() {
    let Some(namespace) = Namespace::create() else { return };
    let inside = namespace.name().to_owned();
    namespace
        .run(move || async move {
            let mut routing = Routing::open().unwrap();
            let rule = |v4, table| MarkRule { v4, bits: 1 << 30, table: Table(table), priority: 32_000 };
            let rules = [rule(true, 1), rule(false, 70_000)];
            for rule in &rules {
                assert!(!routing.delete(rule).unwrap());
                assert!(routing.add(rule).unwrap());
                assert!(!routing.add(rule).unwrap());
            }
            let [four, six] = ["-4", "-6"].map(|family| crate::show(&inside, &[family, "rule"]));
            let by_mark =
                |table: &str| format!("32000: from all fwmark 0x40000000/0x40000000 lookup {table}");
            assert!(four.lines().any(|line| line == by_mark("1")), "{four}");
            assert!(six.lines().any(|line| line == by_mark("70000")), "{six}");
            for rule in &rules {
                assert!(routing.delete(rule).unwrap());
            }
            assert!(!crate::show(&inside, &["rule"]).contains("fwmark"));
        })
        .await;
}

#[tokio::test]
async fn what_was_remembered_goes_on_in_another_table() {
    const CLIENTS: u32 = 100_000;
    let Some(namespace) = ground() else { return };
    namespace
        .run(|| async {
            let mut nft = Nft::open().unwrap();
            let mut ruleset = everything();
            let (timeout, hour) = (Duration::from_secs(7200), Duration::from_secs(3600));
            ruleset.sets.get_mut("clients").unwrap().content = Content::Remembered { timeout, size: CLIENTS };
            let memory = |n: u32| Memory { key: n.to_be_bytes().to_vec(), mark: n ^ 0x77, left: hour };
            let all: Vec<_> = (0..CLIENTS).map(memory).collect();
            let mut changes = ruleset.changes(TABLE, None);
            changes.remember("clients", &all);
            nft.commit(&changes).unwrap();

            let mut there = nft.remembered(TABLE, "clients").unwrap();
            assert!(there.iter().all(|memory| memory.left <= hour && memory.left > hour / 2));
            there.iter_mut().for_each(|memory| memory.left = hour);
            there.sort_unstable_by(|one, other| one.key.cmp(&other.key));
            assert!(there == all);
            // More than the map has room for, or for longer than it keeps anything, is refused, and nothing changes.
            for wrong in [memory(CLIENTS), Memory { left: 2 * timeout, ..memory(0) }] {
                let mut changes = ruleset.changes(TABLE, None);
                changes.remember("clients", &[&all[1..], &[memory(0), wrong]].concat());
                assert!(nft.commit(&changes).is_err());
            }
            assert_eq!(nft.remembered(TABLE, "clients").unwrap().len(), all.len());
        })
        .await;
}

#[tokio::test]
async fn a_change_of_a_table_is_the_same_as_the_table_made_anew() {
    let Some(namespace) = ground() else { return };
    let inside = namespace.name().to_owned();
    namespace
        .run(move || async move {
            let mut nft = Nft::open().unwrap();
            let full = everything();
            let mut less = full.clone();
            for name in ["service", "a"] {
                less.chains.remove(name);
            }
            for name in ["members", "clients", "limit"] {
                less.sets.remove(name);
            }
            less.sets.get_mut("services").unwrap().content = Content::Verdicts(BTreeMap::new());
            less.sets.get_mut("flows").unwrap().content = Content::Counted(vec![vec![1, 2, 3, 4], mark()]);
            less.chains.get_mut("out").unwrap().rules.clear();
            let mut many = full.clone();
            many.chains
                .get_mut("service")
                .unwrap()
                .rules
                .insert(0, vec![E::Turns(2000, R(0)), E::Choose(R(0), vec![goto("a"); 2000])]);
            for (before, after) in
                [(&full, &less), (&less, &many), (&many, &full), (&full, &many), (&many, &less)]
            {
                nft.commit(&before.changes(TABLE, None)).unwrap();
                nft.commit(&after.changes(TABLE, Some(before))).unwrap();
                let changed = listed(&inside);
                nft.commit(&after.changes(TABLE, None)).unwrap();
                assert_eq!(sorted(&changed), sorted(&listed(&inside)));
            }
        })
        .await;
}

/// In what order the kernel lists chains and sets follows from when they were made.
fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text
        .lines()
        .map(|line| {
            let mut words: Vec<_> = line.split([',', ' ', '\t']).filter(|word| !word.is_empty()).collect();
            words.sort_unstable();
            words.join(" ")
        })
        .collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn a_change_that_is_refused_is_told_by_its_place_and_changes_nothing() {
    let Some(namespace) = ground() else { return };
    let inside = namespace.name().to_owned();
    namespace
        .run(move || async move {
            let mut nft = Nft::open().unwrap();
            let good = everything();
            nft.commit(&good.changes(TABLE, None)).unwrap();
            let before = listed(&inside);
            let mut bad = good.clone();
            let rules = &mut bad.chains.get_mut("service").unwrap().rules;
            rules.insert(1, vec![E::LoadFlow(Flow::Mark, R(0)), E::InSet(R(0), "nothing".into())]);
            let error = nft.commit(&bad.changes(TABLE, Some(&good))).unwrap_err();
            let reason = "cannot write rule 2 of chain service of nf_tables: No such file or directory";
            assert_eq!(error.to_string(), reason);
            assert_eq!(listed(&inside), before);
        })
        .await;
}
