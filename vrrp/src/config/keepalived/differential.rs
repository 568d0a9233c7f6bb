//! The same texts read by keepalived itself, where it is installed.
//!
//! `keepalived --config-test` says what it does not understand or would change. Of what is accepted here it must understand
//! everything, and what is refused here it must complain about as well, unless the table says why not.

#![allow(clippy::unwrap_used)]

use std::{fs, io::Write, path::Path, process::Command};

use super::{
    parse,
    tests::{BACKUP, MASTER, with, with_address},
};

/// Interfaces need not exist, and the script need not be there.
const PREAMBLE: &str = "global_defs {\n dynamic_interfaces\n enable_script_security\n script_user root\n}\n";

/// Complaints about the system, and about what it leaves out as it is left out here.
const HARMLESS: [&str; 5] = [
    "Disabling track script check_script since not found/accessible",
    "VRRP version 3 does not support authentication. Ignoring.",
    "Truncating auth_pass to 8 characters",
    "Defaulting to multicast. This usage is deprecated",
    "No VIP specified; at least one is sensible",
];

/// What keepalived says to a text, or that it is not there.
fn complaints(directory: &Path, text: &str) -> std::io::Result<Vec<String>> {
    let file = directory.join("keepalived.conf");
    fs::File::create(&file)?.write_all(format!("{PREAMBLE}{text}").as_bytes())?;
    let out = Command::new("keepalived").arg("--config-test").arg("-f").arg(&file).output()?;
    let lines = String::from_utf8_lossy(&out.stderr).into_owned();
    let lines = lines.lines().filter(|line| !HARMLESS.iter().any(|harmless| line.contains(harmless)));
    Ok(lines.map(str::to_owned).collect())
}

/// Later versions word and judge some things differently.
fn is_known_version() -> Result<(), String> {
    let out = Command::new("keepalived").arg("--version").output();
    let out = out.map_err(|error| format!("keepalived does not run here ({error})"))?;
    let version = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    let first = version.lines().next().unwrap_or_default();
    if first.contains("v2.2.") { Ok(()) } else { Err(format!("{first:?} is not version 2.2")) }
}

fn ipv6(text: &str) -> String {
    text.replace("10.77.0.101", "fd77::101")
        .replace("10.77.0.102", "fd77::102")
        .replace("        10.77.0.100\n        10.79.0.100\n", "        fd77::200\n")
}

/// Understood by both. keepalived drops routes with `gateway`, so that word is another one here.
fn good() -> Vec<String> {
    let mut texts: Vec<_> = [MASTER, BACKUP].iter().map(|text| text.replace(" gateway ", " via ")).collect();
    texts.push(ipv6(&texts[0]));
    texts.push(ipv6(&texts[1]).replace("advert_int 1", "advert_int 0.25"));
    texts.push(with(""));
    texts.push(with("version 2\nvirtual_ipaddress {\nfd77::1\n}"));
    for lines in [
        "",
        "priority 255",
        "state MASTER\npriority 5",
        "advert_int 255",
        "advert_int 2.0",
        "version 3\nadvert_int 0.01",
        "version 3\nadvert_int 40.95",
        "nopreempt\naccept",
        "preempt\npreempt_delay 2.5",
        "authentication {\nauth_type PASS\nauth_pass 123456789\n}",
        "authentication { auth_type PASS\n auth_pass \"a #{}!\" }",
        "unicast_src_ip 192.0.2.1\nunicast_peer {\n}",
        "unicast_src_ip 192.0.2.1\nunicast_peer {\n192.0.2.2\n}\ncheck_unicast_src",
        "garp_master_delay 0\ngarp_master_repeat 9\ngarp_master_refresh 9\ngarp_master_refresh_repeat 9",
        "garp_lower_prio_delay 0\ngarp_lower_prio_repeat 0",
        "virtual_ipaddress {\n10.0.0.1/24 dev eth2\n}",
        "virtual_ipaddress_excluded {\nfd77::1\n10.0.0.1/24\n}",
        "virtual_routes {\nto 10.0.0.0/8 oif eth2 via 10.0.0.1 preference 5 table 0x100\nany dev eth1 scope 253\n}",
        "virtual_routes {\ndefault via fd77::1 dev eth1 onlink\n}",
        "virtual_rules {\nlookup main from all order 7\nfrom fd77::1 table 5 priority 0x10\n}",
        "track_interface {\neth2\neth3 weight 0\n}",
    ] {
        texts.push(with_address(lines));
    }
    texts
}

/// Refused by both.
const BAD: &[&str] = &[
    "colour red",
    "state master",
    "priority 0",
    "priority 256",
    "version 1",
    "advert_int 0",
    "advert_int 256",
    "advert_int 0.5",
    "advert_int x",
    "version 3\nadvert_int 40.96",
    "version 3\nadvert_int 0.015",
    "priority 255\nnopreempt",
    "nopreempt\npreempt_delay 1",
    "preempt_delay 1001",
    "state MASTER\npriority 5\npreempt_delay 1",
    "garp_master_delay 4295",
    "garp_master_refresh -1",
    "authentication {\nauth_type MD5\nauth_pass x\n}",
    "authentication {\nauth_type PASS\n}",
    "unicast_src_ip 192.0.2.1\nunicast_peer {\nfd77::2\n}",
    "unicast_src_ip 192.0.2",
    "virtual_ipaddress {\n192.0.2.1/33\n}",
    "virtual_ipaddress {\n192.0.2.1 dev\n}",
    "virtual_ipaddress {\n192.0.2.1 colour red\n}",
    "virtual_ipaddress {\nfd77::1\n}\nvirtual_ipaddress {\n10.0.0.1\n}",
    "virtual_routes {\ndev eth1\n}",
    "virtual_routes {\n10.0.0.0/8 dev eth1 via fd77::1\n}",
    "virtual_rules {\nfrom 10.0.0.1 priority 5\n}",
    "virtual_rules {\nfrom 10.0.0.1 table 5\n}",
    "track_script {\nnone\n}",
    "track_interface {\neth1 up\n}",
    "track_interface {\neth1\neth1\n}",
];

/// Understood by both, with a complaint there.
const COMPLAINED_OF: &[&str] = &[
    // It meant 1 once, and still does.
    "garp_master_repeat 0",
    // Cleared.
    "nopreempt\nstate MASTER\npriority 9",
];

/// Refused here alone, because it cannot be honoured.
const REFUSED_HERE: &[&str] = &[
    "no_accept",
    "use_vmac",
    "priority 1\npriority 2",
    "authentication {\nauth_type AH\nauth_pass x\n}",
    "unicast_ttl 5\nunicast_src_ip 192.0.2.1\nunicast_peer {\n192.0.2.2\n}",
    "virtual_ipaddress {\n192.0.2.1 brd 192.0.2.255\n}",
    "virtual_routes {\n10.0.0.0/8 dev eth1 mtu 1400\n}",
    "track_interface {\neth2 weight 5\n}",
];

#[test]
fn keepalived_agrees() {
    let directory = tempfile::tempdir().unwrap();
    if let Err(reason) = is_known_version() {
        eprintln!("SKIPPED: {reason}; nothing was compared with keepalived");
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: keepalived runs as root alone; nothing was compared with it");
        return;
    }
    let ask = |text: &str| complaints(directory.path(), text).unwrap();
    for text in good() {
        assert!(parse(&text).is_ok(), "{text}\n{:#?}", parse(&text));
        assert_eq!(ask(&text), [""; 0], "{text}");
    }
    for lines in BAD {
        let text = with_address(lines);
        assert!(parse(&text).is_err(), "{text}");
        assert_ne!(ask(&text), [""; 0], "{text}");
    }
    for lines in COMPLAINED_OF {
        let text = with_address(lines);
        assert!(parse(&text).is_ok(), "{text}");
        assert_ne!(ask(&text), [""; 0], "{text}");
    }
    for lines in REFUSED_HERE {
        let text = with_address(lines);
        assert!(parse(&text).is_err(), "{text}");
        assert_eq!(ask(&text), [""; 0], "{text}");
    }
    // Octavia's host routes are had here and lost there.
    let found = ask(MASTER);
    assert!(parse(MASTER).is_ok() && found.iter().any(|line| line.contains("gateway")), "{found:#?}");
}
