#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;

use super::parse;
use crate::{
    config::{
        Config, Garp, Instance, Preempt, RouteScope, Table, Track, Unicast, native,
        testing::{For, config, keepalived},
    },
    packet::{Auth, Family, Interval},
};

pub(super) const MASTER: &str = include_str!("../testdata/octavia-master.keepalived.conf");
pub(super) const BACKUP: &str = include_str!("../testdata/octavia-backup.keepalived.conf");

/// An instance with these lines, of which the first is line 4.
pub(super) fn with(lines: &str) -> String {
    format!("vrrp_instance a {{\n interface eth1\n virtual_router_id 1\n{lines}\n}}\n")
}

/// The same with an address, on the line after `lines`.
pub(super) fn with_address(lines: &str) -> String {
    with(&format!("{lines}\nvirtual_ipaddress {{\n192.0.2.100\n}}"))
}

fn one(text: &str) -> Instance {
    match parse(text) {
        Ok(Config { mut instances }) if instances.len() == 1 => instances.remove(0),
        other => panic!("{text}\n{other:#?}"),
    }
}

pub(super) fn faults(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(config) => panic!("{text}\n{config:#?}"),
        Err(refusal) => refusal.faults.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn what_octavia_renders_is_understood() {
    for (text, priority, own, other) in [(MASTER, 100, 101, 102), (BACKUP, 90, 102, 101)] {
        let instance = one(text);
        assert_eq!(instance.name, "79944cc4d5a2517a9f40bd330ff87c8c");
        assert_eq!(instance.interface.as_str(), "eth1");
        assert_eq!((instance.vrid, instance.priority, instance.family), (1, priority, Family::V4));
        assert_eq!((instance.interval, instance.preempt), (Interval::Seconds(1), Preempt::Never));
        assert!(instance.accept && !instance.initially_master);
        assert_eq!(instance.auth, Auth::Password(*b"79944cc\0"));
        let address = |last: u8| [10, 77, 0, last].into();
        let unicast = Unicast { source: address(own), peers: vec![address(other)], check_source: false };
        assert_eq!(instance.unicast, Some(unicast));
        let garp = Garp { refresh: Duration::from_secs(5), refresh_repeat: 2, ..Garp::default() };
        assert_eq!(instance.garp, garp);
        let nets = |list: &[crate::config::VirtualAddress]| -> Vec<_> {
            assert!(list.iter().all(|address| address.interface.is_none()));
            list.iter().map(|address| address.net.to_string()).collect()
        };
        assert_eq!(nets(&instance.addresses), ["10.77.0.100/32", "10.79.0.100/32"]);
        assert_eq!(nets(&instance.excluded), ["fd77::100/128"]);
        let routes: Vec<_> = instance
            .routes
            .iter()
            .map(|r| (r.destination.to_string(), r.gateway.map(|g| g.to_string()), r.onlink, r.scope))
            .collect();
        let route = |destination: &str, gateway: Option<&str>| {
            let scope = if gateway.is_some() { RouteScope::Global } else { RouteScope::Link };
            (destination.to_owned(), gateway.map(str::to_owned), gateway.is_some(), scope)
        };
        let expected = [
            route("10.77.0.0/24", None),
            route("0.0.0.0/0", Some("10.77.0.1")),
            route("192.0.2.0/24", Some("10.77.0.1")),
            route("10.79.0.0/24", None),
            route("0.0.0.0/0", Some("10.79.0.1")),
            route("fd77::/64", None),
            route("::/0", Some("fd77::1")),
        ];
        assert_eq!(routes, expected);
        assert!(instance.routes.iter().all(|route| route.table == Table(1) && route.metric.is_none()));
        assert_eq!(instance.routes[0].source, Some(address(100)));
        let rules: Vec<_> =
            instance.rules.iter().map(|r| (r.source.to_string(), r.table, r.priority)).collect();
        let rule = |source: &str| (source.to_owned(), Table(1), Some(100));
        assert_eq!(rules, [rule("10.77.0.100/32"), rule("10.79.0.100/32"), rule("fd77::100/128")]);
        assert_eq!(instance.track, Some(Track { fall: 2, rise: 2 }));
        assert!(instance.track_interfaces.is_empty());
    }
}

#[test]
fn octavias_ipv6_is_version_3_without_its_password() {
    let text = MASTER
        .replace("10.77.0.101", "fd77::101")
        .replace("10.77.0.102", "fd77::102")
        .replace("        10.77.0.100\n        10.79.0.100\n", "        fd77::100\n")
        .replace("excluded {\n        fd77::100\n", "excluded {\n        10.77.0.100\n");
    let instance = one(&text);
    assert_eq!((instance.family, instance.interval), (Family::V6, Interval::Centiseconds(100)));
    assert_eq!(instance.auth, Auth::None);
    assert_eq!(instance.excluded[0].net.to_string(), "10.77.0.100/32");
    // Whatever the global version is.
    assert_eq!(one(&format!("global_defs {{\nvrrp_version 2\n}}\n{text}")), instance);
}

#[test]
fn what_is_not_said_has_keepaliveds_default() {
    let instance = one(&with_address(""));
    assert_eq!((instance.priority, instance.interval), (100, Interval::Seconds(1)));
    assert_eq!((instance.preempt, instance.initially_master), (Preempt::After(Duration::ZERO), false));
    assert_eq!((instance.auth, instance.unicast.is_none(), instance.accept), (Auth::None, true, true));
    assert_eq!((instance.garp, instance.track), (Garp::default(), None));
    // Without any address it is IPv4, and version 2 may be without.
    let instance = one(&with(""));
    assert_eq!((instance.family, instance.addresses.len()), (Family::V4, 0));
    // A script's counts.
    let script = "vrrp_script s {\n script /x\n}\n";
    let instance = one(&format!("{script}{}", with_address("track_script {\ns\n}")));
    assert_eq!(instance.track, Some(Track { fall: 1, rise: 1 }));
}

#[test]
fn priority_and_state_stand_in_for_each_other() {
    let of = |lines: &str| {
        let instance = one(&with_address(lines));
        (instance.priority, instance.initially_master)
    };
    assert_eq!(of("state MASTER"), (255, true));
    assert_eq!(of("state BACKUP"), (100, false));
    assert_eq!(of("priority 255"), (255, true));
    assert_eq!(of("priority 254"), (254, false));
    assert_eq!(of("state MASTER\npriority 10"), (10, true));
    assert_eq!(of("priority 255\nstate BACKUP"), (255, false));
}

#[test]
fn the_version_decides_what_an_interval_is() {
    let of = |lines: &str| one(&with_address(lines)).interval;
    assert_eq!(of("advert_int 255"), Interval::Seconds(255));
    assert_eq!(of("advert_int 2.0"), Interval::Seconds(2));
    assert_eq!(of("version 3\nadvert_int 0.01"), Interval::Centiseconds(1));
    assert_eq!(of("advert_int 40.95\nversion 3"), Interval::Centiseconds(4095));
    assert_eq!(of("version 2"), Interval::Seconds(1));
    let global = format!("{}global_defs {{\n vrrp_version 3\n}}", with_address("advert_int 0.25"));
    assert_eq!(one(&global).interval, Interval::Centiseconds(25));
    // Before the first address of IPv6 version 2 counts.
    let text = with("version 2\nvirtual_ipaddress {\nfd77::1\n}");
    assert_eq!((one(&text).family, one(&text).interval), (Family::V6, Interval::Seconds(1)));
}

#[test]
fn a_password_has_eight_octets() {
    let of = |word: &str| {
        one(&with_address(&format!("authentication {{\nauth_type PASS\nauth_pass {word}\n}}"))).auth
    };
    assert_eq!(of("secret"), Auth::Password(*b"secret\0\0"));
    assert_eq!(of("123456789"), Auth::Password(*b"12345678"));
    assert_eq!(of("\"a b {}#!\""), Auth::Password(*b"a b {}#!"));
}

#[test]
fn announcements_have_globals_for_defaults() {
    let globals = "global_defs {
        vrrp_garp_master_delay 1
        vrrp_garp_master_repeat 2
        vrrp_garp_master_refresh 3
        vrrp_garp_master_refresh_repeat 4
        vrrp_check_unicast_src
        router_id node-1
        script_user root
        enable_script_security
    }\n";
    let unicast = "unicast_src_ip 192.0.2.1\nunicast_peer {\n192.0.2.2\n}\n";
    let second = Duration::from_secs(1);
    let instance = one(&format!("{globals}{}", with_address(unicast)));
    let garp = Garp {
        repeat: 2,
        delay: second,
        refresh: 3 * second,
        refresh_repeat: 4,
        lower_repeat: 2,
        lower_delay: second,
    };
    assert_eq!(instance.garp, garp);
    assert!(instance.unicast.unwrap().check_source);
    // Globals that come later give only what is settled at the end.
    let instance = one(&format!("{}{globals}", with_address(unicast)));
    assert_eq!(instance.garp, Garp { lower_repeat: 2, lower_delay: second, ..Garp::default() });
    // An instance's own count does not change what a lower priority gets.
    let lines = "garp_master_repeat 9\ngarp_master_delay 8\ngarp_master_refresh_repeat 0";
    let instance = one(&with_address(lines));
    assert_eq!(instance.garp, Garp { repeat: 9, delay: 8 * second, ..Garp::default() });
    let lines = "garp_lower_prio_repeat 0\ngarp_lower_prio_delay 7\ngarp_master_repeat 0";
    let instance = one(&format!("{globals}{}", with_address(lines)));
    assert_eq!(instance.garp, Garp { repeat: 1, lower_repeat: 0, lower_delay: 7 * second, ..garp });
}

#[test]
fn every_other_keyword_has_its_meaning() {
    let of = |lines: &str| one(&with_address(lines));
    assert_eq!(of("preempt").preempt, Preempt::After(Duration::ZERO));
    assert_eq!(of("preempt_delay 2.5").preempt, Preempt::After(Duration::from_millis(2500)));
    assert_eq!(of("nopreempt\npreempt_delay 0").preempt, Preempt::Never);
    assert_eq!(of("accept\nnopreempt").preempt, Preempt::Never);
    let cleared = of("state MASTER\npriority 100\nnopreempt");
    assert_eq!((cleared.preempt, cleared.initially_master), (Preempt::After(Duration::ZERO), true));
    let unicast =
        of("unicast_src_ip 192.0.2.1\nunicast_peer {\n192.0.2.2\n192.0.2.3\n}\ncheck_unicast_src").unicast;
    let unicast = unicast.unwrap();
    assert_eq!((unicast.peers.len(), unicast.check_source), (2, true));
    // What Octavia renders while the other amphora does not exist.
    assert_eq!(of("unicast_src_ip 192.0.2.1\nunicast_peer {\n}").unicast, None);
    let interfaces = of("track_interface {\neth2\neth3 weight 0\n}").track_interfaces;
    assert_eq!(interfaces.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["eth2", "eth3"]);
    let lines = "virtual_ipaddress {\n10.0.0.1/24 dev eth2\n}\nvirtual_ipaddress { 10.0.0.2 }";
    let addresses = of(lines).addresses;
    assert_eq!(addresses.len(), 3);
    assert_eq!(
        (addresses[0].net.to_string().as_str(), addresses[0].interface.as_ref().unwrap().as_str()),
        ("10.0.0.1/24", "eth2")
    );
    let lines =
        "virtual_routes {\nto 10.1.2.3/8 oif eth2 gw 10.0.0.1 preference 5 table 0x100\nany dev eth1\n}";
    let routes = of(lines).routes;
    assert_eq!(routes[0].destination.to_string(), "10.0.0.0/8");
    assert_eq!((routes[0].table, routes[0].metric), (Table(256), Some(5)));
    assert_eq!((routes[1].destination.to_string().as_str(), routes[1].table), ("0.0.0.0/0", Table::MAIN));
    let rules = of("virtual_rules {\nlookup main from all order 7\n}").rules;
    assert_eq!(
        (rules[0].source.to_string().as_str(), rules[0].table, rules[0].priority),
        ("0.0.0.0/0", Table::MAIN, Some(7))
    );
    let script = "vrrp_script s {\n script \"/x y\" z\n interval 0\n timeout 2\n weight 0\n user root\n fall 3\n rise 4\n}\n";
    let instance = one(&format!("{script}{}", with_address("track_script {\ns weight 0\n}")));
    assert_eq!(instance.track, Some(Track { fall: 3, rise: 4 }));
}

#[test]
fn a_text_may_have_comments_quotes_and_carriage_returns() {
    let text = "# head\r\n! more\r\nvrrp_instance \"a b\"\r\n\r\n{ # here\r\ninterface \"eth1\"\r\nvirtual_router_id 1!x\r\n}\r\n";
    let instance = one(text);
    assert_eq!((instance.name.as_str(), instance.vrid), ("a b", 1));
}

#[test]
fn instances_must_differ() {
    let text = format!("{0}{0}{1}", with(""), with("").replace("instance a", "instance b"));
    assert_eq!(
        faults(&text),
        [
            "line 6: \"a\" is the name of another instance",
            "line 8: \"a\" has the virtual router 1 on eth1",
            "line 13: \"a\" has the virtual router 1 on eth1",
        ]
    );
}

#[test]
fn faults_are_reported_together() {
    let text = BACKUP.replace("advert_int 1", "advert_int x").replace("priority 90", "colour blue");
    let text = text.replace("10.77.0.101", "10.77.0.102").replace("onlink table 1", "offlink table 1");
    let lines: Vec<_> = parse(&text).unwrap_err().faults.into_iter().map(|fault| fault.path).collect();
    assert_eq!(lines, ["line 11", "line 16", "line 38", "line 39", "line 41", "line 43", "line 24"]);
}

#[test]
fn two_hundred_and_fifty_five_addresses_fit() {
    let text = |count: usize| {
        let list: String = (0..count).map(|n| format!("10.0.{}.{}\n", n / 256, n % 256)).collect();
        with(&format!("virtual_ipaddress {{\n{list}}}"))
    };
    assert_eq!(one(&text(255)).addresses.len(), 255);
    assert_eq!(faults(&text(256)), ["line 4: 256 addresses do not fit into an advertisement (255 do)"]);
}

proptest! {
    #[test]
    fn every_configuration_is_read_and_comes_back_from_its_document(config in config(For::Keepalived)) {
        let parsed = parse(&keepalived(&config));
        prop_assert_eq!(parsed.as_ref(), Ok(&config));
        prop_assert_eq!(crate::config::parse(&keepalived(&config)), parsed);
        prop_assert_eq!(native::parse(&native::to_json(&config)), Ok(config));
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>(), words in "([a-z{}\"#!\\\\$@ \n]|vrrp_instance |default )*") {
        super::fuzz(text.as_bytes());
        super::fuzz(words.as_bytes());
    }

    #[test]
    fn no_change_to_a_good_text_makes_it_panic(
        master in any::<bool>(),
        at in any::<prop::sample::Index>(),
        length in 0usize..12,
        new in "[a-z0-9.:/{}\"#\\\\ \n-]{0,6}",
    ) {
        let mut text = if master { MASTER } else { BACKUP }.to_owned();
        let at = at.index(text.len());
        text.replace_range(at..(at + length).min(text.len()), &new);
        super::fuzz(text.as_bytes());
    }

    #[test]
    fn lines_may_be_lost_or_swapped(first in any::<prop::sample::Index>(), second in any::<prop::sample::Index>()) {
        let mut lines: Vec<_> = MASTER.lines().collect();
        let (first, second) = (first.index(lines.len()), second.index(lines.len()));
        lines.swap(first, second);
        super::fuzz(lines.join("\n").as_bytes());
        lines.remove(first);
        super::fuzz(lines.join("\n").as_bytes());
    }
}
