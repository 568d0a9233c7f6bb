#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;

use super::{parse, to_json};
use crate::{
    config::{
        Garp, Preempt, RouteScope, Table, Track,
        testing::{For, config},
    },
    packet::{Auth, Family, Interval},
};

/// The least that says something.
const LEAST: &str = r#"{"instances": [{"name": "a", "interface": "eth1", "vrid": 7, "addresses": [{"address": "192.0.2.1"}]}]}"#;

fn faults(text: &str) -> Vec<String> {
    parse(text).unwrap_err().faults.iter().map(ToString::to_string).collect()
}

/// An instance that has these fields as well, or instead.
fn with(fields: &str) -> String {
    format!(
        r#"{{"instances": [{{"name": "a", "interface": "eth1", "addresses": [{{"address": "192.0.2.1"}}], {fields}}}]}}"#
    )
}

#[test]
fn what_is_not_given_has_a_default() {
    let config = parse(LEAST).unwrap();
    let [instance] = config.instances.as_slice() else { panic!("{config:?}") };
    assert_eq!((instance.vrid, instance.priority, instance.family), (7, 100, Family::V4));
    assert_eq!(instance.interval, Interval::Centiseconds(100));
    assert_eq!(instance.preempt, Preempt::After(Duration::ZERO));
    assert_eq!((instance.auth, instance.garp), (Auth::None, Garp::default()));
    assert!(instance.accept && !instance.initially_master && instance.unicast.is_none());
    assert_eq!(instance.addresses[0].net.to_string(), "192.0.2.1/32");
    assert_eq!((instance.track, instance.routes.len(), instance.rules.len()), (None, 0, 0));
}

#[test]
fn the_examples_of_the_documentation_are_read() {
    let page = include_str!("../../../../docs/vrrp.md");
    let examples = page.split("```json\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let examples: Vec<_> = examples.map(|example| parse(example).unwrap()).collect();
    let [short, config] = examples.as_slice() else { panic!("{} examples", examples.len()) };
    assert_eq!(short.instances.len(), 1);
    let [first, second] = config.instances.as_slice() else { panic!("{config:?}") };
    assert_eq!(first.interval, Interval::Centiseconds(10));
    assert_eq!(first.preempt, Preempt::Never);
    assert_eq!(first.track, Some(Track { fall: 2, rise: 2 }));
    assert_eq!(first.routes[0].scope, RouteScope::Link);
    assert_eq!(first.routes[0].table, Table(1));
    assert_eq!(second.interval, Interval::Seconds(1));
    assert_eq!(second.auth, Auth::Password(*b"secret\0\0"));
    assert_eq!(parse(&to_json(config)).as_ref(), Ok(config));
}

#[test]
fn strangers_are_refused_unless_the_document_lets_them() {
    for (said, checks) in
        [("", true), (r#", "check_source": null"#, true), (r#", "check_source": false"#, false)]
    {
        let unicast =
            format!(r#""vrid": 1, "unicast": {{"source": "192.0.2.2", "peers": ["192.0.2.3"]{said}}}"#);
        let config = parse(&with(&unicast)).unwrap();
        assert_eq!(config.instances[0].unicast.as_ref().unwrap().check_source, checks, "{said}");
        assert_eq!(parse(&to_json(&config)), Ok(config), "{said}");
    }
}

#[test]
fn faults_are_reported_together_with_their_paths() {
    let text = r#"{"more": 1, "instances": [
        {"name": "a", "interface": "eth 1", "vrid": 0, "colour": "red", "name": "b",
         "addresses": [{"address": "192.0.2.1"}, {"address": "192.0.2.300"}, 5]},
        {"interface": 1, "vrid": 256, "garp": {"repeat": 0, "often": true}, "unicast": {"peers": ["x", 1]},
         "track": {"fall": 0}, "accept": "yes", "addresses": {}, "priority": 1.5,
         "routes": [{"destination": "default", "scope": "host"}], "rules": [{"source": "::/0"}]},
        "c"]}"#;
    let found = faults(text);
    for expected in [
        "more: is not a field of this object",
        "instances[0].name: is given twice in one object",
        "instances[0].colour: is not a field of this object",
        "instances[0].interface: \"eth 1\" is not the name of an interface",
        "instances[0].vrid: must be an integer from 1 to 255",
        "instances[0].addresses[1].address: \"192.0.2.300\" is not an IP address with or without a prefix length",
        "instances[0].addresses[2]: must be an object",
        "instances[1].name: is required",
        "instances[1].interface: must be a string",
        "instances[1].vrid: must be an integer from 1 to 255",
        "instances[1].garp.repeat: must be an integer from 1 to 1000",
        "instances[1].garp.often: is not a field of this object",
        "instances[1].unicast.source: is required",
        "instances[1].unicast.peers[0]: \"x\" is not an IP address",
        "instances[1].unicast.peers[1]: must be a string",
        "instances[1].track.fall: must be an integer from 1 to 2147483647",
        "instances[1].track.rise: is required",
        "instances[1].accept: must be true or false",
        "instances[1].addresses: must be a list",
        "instances[1].priority: must be an integer from 1 to 255",
        "instances[1].routes[0].scope: must be \"global\" or \"link\"",
        "instances[1].rules[0].table: is required",
        "instances[2]: must be an object",
    ] {
        assert!(found.iter().any(|fault| fault == expected), "{expected}\nis not among {found:#?}");
    }
}

#[test]
fn each_refusal_has_its_path_and_reason() {
    for (fields, expected) in [
        (
            r#""vrid": 1, "interval_ms": 5"#,
            "instances[0].interval_ms: must be a multiple of 10 from 10 to 40950",
        ),
        (r#""vrid": 1, "interval_ms": 40960"#, "instances[0].interval_ms: must be a multiple of 10"),
        (r#""vrid": 1, "version": 2, "interval_ms": 100"#, "instances[0].interval_ms: must be whole seconds"),
        (
            r#""vrid": 1, "version": 2, "interval_ms": 256000"#,
            "instances[0].interval_ms: must be whole seconds",
        ),
        (r#""vrid": 1, "version": 4"#, "instances[0].version: must be an integer from 2 to 3"),
        (r#""vrid": 1, "password": "x""#, "instances[0].password: version 3 has no password"),
        (r#""vrid": 1, "version": 2, "password": "123456789""#, "instances[0].password: must be 1 to 8"),
        (r#""vrid": 1, "version": 2, "password": """#, "instances[0].password: must be 1 to 8"),
        (r#""vrid": 1, "version": 2, "password": "é""#, "instances[0].password: must be 1 to 8"),
        (r#""vrid": 1, "accept": false"#, "instances[0].accept: a load balancer must accept"),
        (r#""vrid": 1, "preempt": false, "preempt_delay_ms": 1"#, "instances[0].preempt_delay_ms: cannot be"),
        (r#""vrid": 1, "preempt": false, "initially_master": true"#, "instances[0].preempt: whoever starts"),
        (r#""vrid": 1, "preempt": false, "priority": 255"#, "instances[0].preempt: whoever owns"),
        (
            r#""vrid": 1, "initially_master": true, "preempt_delay_ms": 1"#,
            "instances[0].preempt_delay_ms: whoever",
        ),
        (r#""vrid": 1, "unicast": {"source": "192.0.2.2"}"#, "instances[0].unicast.peers: at least one"),
        (
            r#""vrid": 1, "unicast": {"source": "192.0.2.2", "peers": ["192.0.2.3", "192.0.2.2"]}"#,
            "instances[0].unicast.peers[1]: 192.0.2.2 is the router's own",
        ),
        (
            r#""vrid": 1, "unicast": {"source": "fd77::1", "peers": ["192.0.2.3"]}"#,
            "instances[0].unicast.source: fd77::1 is not of the instance's family, IPv4",
        ),
        (
            r#""vrid": 1, "excluded": [{"address": "192.0.2.1/24"}]"#,
            "instances[0].excluded[0]: 192.0.2.1 is given",
        ),
        (r#""vrid": 1, "excluded": [{"address": "ff02::1"}]"#, "instances[0].excluded[0]: ff02::1 is not"),
        (
            r#""vrid": 1, "routes": [{"destination": "10.0.0.0/8", "gateway": "fd77::1"}]"#,
            "instances[0].routes[0]: the gateway fd77::1 is not of the family",
        ),
        (
            r#""vrid": 1, "routes": [{"destination": "10.0.0.0/8", "gateway": "10.0.0.1", "scope": "link"}]"#,
            "instances[0].routes[0]: scope link is for routes without a gateway",
        ),
        (
            r#""vrid": 1, "track_interfaces": ["eth2", "eth2"]"#,
            "instances[0].track_interfaces[1]: eth2 is given",
        ),
        (r#""vrid": 1, "track": null, "extra": null"#, "instances[0].extra: is not a field"),
    ] {
        let found = faults(&with(fields));
        assert_eq!(found.len(), 1, "{fields}: {found:#?}");
        assert!(found[0].starts_with(expected), "{fields}: {found:#?}");
    }
    assert_eq!(faults("{}"), ["instances: is required"]);
    assert_eq!(faults(r#"{"instances": []}"#), ["instances: must be a list of at least one instance"]);
    assert!(faults("{")[0].starts_with("not a JSON document"));
    assert!(faults("[]")[0].ends_with("must be an object"));
}

#[test]
fn instances_must_differ_and_faults_name_their_place_in_the_document() {
    let one = |name: &str, vrid: u8| {
        format!(
            r#"{{"name": "{name}", "interface": "eth1", "vrid": {vrid}, "addresses": [{{"address": "192.0.2.1"}}]}}"#
        )
    };
    let text = format!(r#"{{"instances": [{}, 1, {}, {}]}}"#, one("a", 1), one("a", 2), one("b", 1));
    assert_eq!(
        faults(&text),
        [
            "instances[1]: must be an object",
            "instances[2]: \"a\" is the name of another instance",
            "instances[3].vrid: \"a\" has the virtual router 1 on eth1",
        ]
    );
}

#[test]
fn too_many_addresses_are_refused() {
    let addresses = |count: usize| -> String {
        let list: Vec<_> =
            (0..count).map(|n| format!(r#"{{"address": "10.0.{}.{}"}}"#, n / 256, n % 256)).collect();
        format!(
            r#"{{"instances": [{{"name": "a", "interface": "e", "vrid": 1, "addresses": [{}]}}]}}"#,
            list.join(",")
        )
    };
    assert!(parse(&addresses(255)).is_ok());
    assert_eq!(
        faults(&addresses(256)),
        ["instances[0].addresses: 256 addresses do not fit into an advertisement (255 do)"]
    );
    assert_eq!(faults(&addresses(0)), ["instances[0].addresses: at least one address is required"]);
}

/// A field, how many items it has in the first instance and in the second, and the items.
type List = (&'static str, [usize; 2], fn(usize) -> String);

/// `count` instances with these lists.
fn many(count: usize, lists: &[List]) -> String {
    let instances: Vec<_> = (0..count)
        .map(|n| {
            let mut fields = String::new();
            for (name, [first, second], item) in lists {
                let range = match n {
                    0 => 0..*first,
                    1 => *first..first + second,
                    _ => 0..0,
                };
                let items: Vec<_> = range.map(item).collect();
                fields.push_str(&format!(r#", "{name}": [{}]"#, items.join(",")));
            }
            format!(r#"{{"name": "i{n}", "interface": "e", "vrid": {}, "version": 2{fields}}}"#, n + 1)
        })
        .collect();
    format!(r#"{{"instances": [{}]}}"#, instances.join(","))
}

#[test]
fn more_than_the_thread_can_bear_is_refused() {
    assert!(parse(&many(32, &[])).is_ok());
    assert_eq!(faults(&many(34, &[])), ["instances[32]: more than 32 virtual routers in all"]);

    let address: fn(usize) -> String = |n| format!(r#"{{"address": "10.0.{}.{}"}}"#, n / 256, n % 256);
    let route: fn(usize) -> String = |n| format!(r#"{{"destination": "10.0.{}.{}/32"}}"#, n / 256, n % 256);
    let rule: fn(usize) -> String =
        |n| format!(r#"{{"source": "10.0.{}.{}", "table": 1}}"#, n / 256, n % 256);
    for (name, item) in [("excluded", address), ("routes", route), ("rules", rule)] {
        assert!(parse(&many(2, &[(name, [500, 12], item)])).is_ok(), "{name}");
        let what = name.replace("excluded", "addresses");
        assert_eq!(
            faults(&many(3, &[(name, [500, 20], item)])),
            [format!("instances[1].{name}[12]: more than 512 {what} in all")]
        );
        assert_eq!(
            faults(&many(1, &[(name, [600, 0], item)])),
            [format!("instances[0].{name}[512]: more than 512 {what} in all")]
        );
    }
    // Both kinds of addresses are in the one sum.
    let other: fn(usize) -> String = |n| format!(r#"{{"address": "10.1.{}.{}"}}"#, n / 256, n % 256);
    let text =
        |excluded| many(2, &[("addresses", [200, 200], address), ("excluded", [100, excluded], other)]);
    assert!(parse(&text(12)).is_ok());
    assert_eq!(faults(&text(13)), ["instances[1].excluded[12]: more than 512 addresses in all"]);
}

proptest! {
    #[test]
    fn every_configuration_comes_back_from_its_document(config in config(For::Native)) {
        let text = to_json(&config);
        prop_assert_eq!(crate::config::parse(&text), parse(&text));
        prop_assert_eq!(parse(&text), Ok(config));
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>(), json in r#"[\[\]{}:,"a1 -.e]{0,20}"#) {
        super::fuzz(text.as_bytes());
        super::fuzz(json.as_bytes());
    }

    #[test]
    fn no_change_to_a_document_makes_it_panic(
        config in config(For::Native),
        at in any::<prop::sample::Index>(),
        end in any::<prop::sample::Index>(),
        new in r#"[\[\]{}:,"a1 -.]{0,3}|null|-1|1e9|"::""#,
    ) {
        let mut text = to_json(&config);
        let at = at.index(text.len());
        let end = at + end.index(text.len() - at).min(10);
        text.replace_range(at..end, &new);
        super::fuzz(text.as_bytes());
    }
}
