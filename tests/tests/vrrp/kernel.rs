//! What others do to the interfaces of a master, and what it makes of it.

use std::time::Duration;

use crate::{
    amphora::{Amphora, Program, wait},
    lan::{Host, Lan, VIP, VIP6},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A virtual router of version 3, an advertisement each 100 ms, with these fields besides.
fn instance(name: &str, vrid: u8, more: &str) -> String {
    format!(r#"{{"name": "{name}", "interface": "eth1", "vrid": {vrid}, "interval_ms": 100, {more}}}"#)
}

fn document(instances: &[String]) -> String {
    format!(r#"{{"instances": [{}]}}"#, instances.join(","))
}

/// Ours as the only one, and master of everything in `config`.
fn alone(lan: &mut Lan, config: &str) -> Option<Amphora> {
    let mut ours = Amphora::new(lan.host(101)?, Program::Ours);
    ours.start(config);
    wait("it becomes master", PATIENCE, || is_master(&ours));
    Some(ours)
}

fn is_master(ours: &Amphora) -> bool {
    ours.path_exists("vrrp.sock") && {
        let status = ours.control("GET", "/status");
        let instances = status["instances"].as_array().unwrap();
        instances.iter().all(|instance| instance["state"] == "MASTER")
    }
}

fn error(ours: &Amphora) -> String {
    ours.control("GET", "/status")["instances"][0]["error"].as_str().unwrap_or_default().to_owned()
}

fn ip(host: &Host, args: &str) {
    host.namespace.ip(&args.split(' ').collect::<Vec<_>>());
}

/// Octavia's, more or less.
fn whole() -> String {
    let more = format!(
        r#""addresses": [{{"address": "{VIP}"}}], "excluded": [{{"address": "{VIP6}"}}],
           "routes": [{{"destination": "10.77.0.0/24", "source": "{VIP}", "scope": "link", "table": 1}}],
           "rules": [{{"source": "{VIP}/32", "table": 1, "priority": 100}}]"#
    );
    document(&[instance("one", 1, &more)])
}

#[test]
fn what_another_hand_removes_is_there_again() {
    let Some(mut lan) = Lan::new() else { return };
    let Some(ours) = alone(&mut lan, &whole()) else { return };
    let held = ours.host.table();
    assert_eq!(held.iter().filter(|line| !line.is_empty()).count(), 2, "{held:?}");
    for command in [
        format!("address delete {VIP}/32 dev eth1"),
        format!("address delete {VIP6}/128 dev eth1"),
        "route delete 10.77.0.0/24 table 1".to_owned(),
        "rule delete priority 100".to_owned(),
    ] {
        ip(&ours.host, &command);
        wait(&command, PATIENCE, || ours.has_vip() && ours.host.table() == held);
    }
    assert!(is_master(&ours));
    assert_eq!(ours.control("GET", "/status")["instances"][0]["counters"]["became_master"], 1);
}

#[test]
fn one_of_two_addresses_of_a_subnet_can_go() {
    let Some(mut lan) = Lan::new() else { return };
    let with = |addresses: &str| document(&[instance("one", 1, &format!(r#""addresses": [{addresses}]"#))]);
    let (first, second) = (r#"{"address": "198.51.100.100/24"}"#, r#"{"address": "198.51.100.101/24"}"#);
    let Some(mut ours) = alone(&mut lan, &with(&format!("{first}, {second}"))) else { return };
    assert!(ours.host.has("198.51.100.100") && ours.host.has("198.51.100.101"));
    ours.reload(&with(second));
    wait("the first goes and the second stays", PATIENCE, || {
        !ours.host.has("198.51.100.100") && ours.host.has("198.51.100.101")
    });
    assert!(is_master(&ours));
}

#[test]
fn what_two_virtual_routers_share_stays_when_one_of_them_goes() {
    let Some(mut lan) = Lan::new() else { return };
    let shared = r#""excluded": [{"address": "198.51.100.7/32"}], "rules": [{"source": "198.51.100.7/32", "table": 1, "priority": 90}]"#;
    let one = instance("one", 1, &format!(r#""addresses": [{{"address": "{VIP}"}}], {shared}"#));
    let two = instance("two", 2, &format!(r#""addresses": [{{"address": "10.77.0.99"}}], {shared}"#));
    let Some(mut ours) = alone(&mut lan, &document(&[one, two.clone()])) else { return };
    ours.reload(&document(&[two]));
    wait("the first goes", PATIENCE, || !ours.host.has(VIP));
    wait("what it shared stays", PATIENCE, || {
        ours.host.has("198.51.100.7") && ours.host.table().iter().any(|line| line.contains("198.51.100.7"))
    });
}

#[test]
fn both_families_come_back_with_the_link() {
    let Some(mut lan) = Lan::new() else { return };
    let v4 = instance("v4", 1, &format!(r#""addresses": [{{"address": "{VIP}"}}]"#));
    let v6 = instance("v6", 1, &format!(r#""addresses": [{{"address": "{VIP6}"}}]"#));
    let Some(ours) = alone(&mut lan, &document(&[v4, v6])) else { return };
    ip(&ours.host, "link set eth1 down");
    wait("it takes no part", PATIENCE, || error(&ours) == "eth1 is down");
    ip(&ours.host, "link set eth1 up");
    // The link-local address is tentative at first.
    wait("both are master again", PATIENCE, || is_master(&ours) && ours.has_vip());
    assert_eq!(error(&ours), "");
}

#[test]
fn advertisements_leave_from_another_address_when_theirs_goes() {
    let Some(mut lan) = Lan::new() else { return };
    let one = instance("one", 1, &format!(r#""addresses": [{{"address": "{VIP}/32"}}]"#));
    let backup = lan.host(102).unwrap();
    let Some(ours) = alone(&mut lan, &document(std::slice::from_ref(&one))) else { return };
    let mut second = Amphora::new(backup, Program::Ours);
    second.start(&document(&[one.replacen("\"vrid\"", "\"priority\": 90, \"vrid\"", 1)]));
    let heard = || second.control("GET", "/status")["instances"][0]["peer"]["address"].clone();
    wait("the backup hears it", PATIENCE, || second.path_exists("vrrp.sock") && heard() == "10.77.0.101");
    ip(&ours.host, "address add 10.77.0.111/24 dev eth1");
    ip(&ours.host, "address delete 10.77.0.101/24 dev eth1");
    // With its primary address the kernel removes all others of the subnet, as it does everywhere unless told otherwise.
    ip(&ours.host, "address replace 10.77.0.111/24 dev eth1");
    wait("it is heard from the other address", PATIENCE, || heard() == "10.77.0.111");
    assert_eq!(error(&ours), "");
}

#[test]
fn what_the_master_begins_over_ipv6_does_not_leave_from_the_vip() {
    let Some(mut lan) = Lan::new() else { return };
    let Some(ours) = alone(&mut lan, &whole()) else { return };
    let route = ours.host.show(&["route", "get", "fd77::102"]);
    assert_eq!(route[0]["prefsrc"], "fd77::101", "{route}");
}

#[test]
fn a_hand_over_that_nobody_took_up_can_be_asked_for_again() {
    let Some(mut lan) = Lan::new() else { return };
    let more = format!(r#""addresses": [{{"address": "{VIP}"}}], "track": {{"fall": 2, "rise": 2}}"#);
    let Some(ours) = alone(&mut lan, &document(&[instance("one", 1, &more)])) else { return };
    for times in 1..=2 {
        ours.control("POST", "/hand-over");
        wait("it says that it goes, and stays", PATIENCE, || {
            let one = &ours.control("GET", "/status")["instances"][0];
            one["counters"]["priority_zero_sent"] == times && one["handed_over"] == false
        });
        assert!(is_master(&ours));
    }
}

#[test]
fn nothing_but_a_socket_is_replaced() {
    let Some(mut lan) = Lan::new() else { return };
    let Some(host) = lan.host(101) else { return };
    let mut ours = Amphora::new(host, Program::Ours);
    let path = ours.base_path().join("vrrp.sock");
    std::fs::write(&path, "precious").unwrap();
    ours.start(&whole());
    wait("it ends", PATIENCE, || ours.has_ended());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
