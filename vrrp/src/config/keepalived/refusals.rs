//! Everything that is refused, with its line and its text.

use super::tests::{faults, with_address};

/// What an instance cannot have: its lines, of which the first is line 4, and the only fault.
const REFUSED: &[(&str, &str)] = &[
    ("colour red", "line 4: \"colour red\": is not a known keyword in vrrp_instance"),
    ("colour {\nred {\n}\n}", "line 4: \"colour\": is not a known keyword in vrrp_instance"),
    ("\"\"", "line 4: \"\": is not a known keyword in vrrp_instance"),
    ("state master", "line 4: \"state master\": must be MASTER or BACKUP"),
    ("state", "line 4: \"state\": needs a value"),
    ("priority 0", "line 4: \"priority 0\": must be a whole number from 1 to 255"),
    ("priority 256", "line 4: \"priority 256\": must be a whole number from 1 to 255"),
    ("priority 1 2", "line 4: \"priority 1 2\": has more than one value"),
    ("priority 1\npriority 1", "line 5: \"priority 1\": is given twice"),
    ("priority 1 {\n}", "line 4: \"priority 1\": has no block"),
    ("version 1", "line 4: \"version 1\": must be 2 or 3"),
    ("advert_int 0", "line 4: \"advert_int 0\": must be 1 to 255 whole seconds in version 2"),
    ("advert_int 256", "line 4: \"advert_int 256\": must be 1 to 255 whole seconds in version 2"),
    ("advert_int 0.5", "line 4: \"advert_int 0.5\": must be 1 to 255 whole seconds in version 2"),
    (
        "version 3\nadvert_int 40.96",
        "line 5: \"advert_int 40.96\": must be 0.01 to 40.95 seconds in hundredths in version 3",
    ),
    (
        "version 3\nadvert_int 0.015",
        "line 5: \"advert_int 0.015\": must be 0.01 to 40.95 seconds in hundredths in version 3",
    ),
    ("advert_int x", "line 4: \"advert_int x\": must be seconds, with decimals in version 3"),
    ("nopreempt on", "line 4: \"nopreempt on\": nopreempt takes no value"),
    ("priority 255\nnopreempt", "line 5: whoever owns the addresses (priority 255) must preempt"),
    ("nopreempt\npreempt", "line 4: \"nopreempt\": cannot be with preempt"),
    ("nopreempt\npreempt_delay 1", "line 5: \"preempt_delay 1\": cannot be with nopreempt"),
    ("preempt_delay 1001", "line 4: \"preempt_delay 1001\": must be 0 to 1000 seconds, in milliseconds"),
    ("preempt_delay 0.0001", "line 4: \"preempt_delay 0.0001\": must be 0 to 1000 seconds, in milliseconds"),
    ("state MASTER\npreempt_delay 1", "line 5: whoever starts as master cannot wait before it preempts"),
    (
        "no_accept",
        "line 4: \"no_accept\": is not supported: a load balancer must accept packets to its addresses",
    ),
    (
        "strict_mode",
        "line 4: \"strict_mode\": is not supported: strict mode would not accept packets to the addresses",
    ),
    (
        "use_vmac",
        "line 4: \"use_vmac\": is not supported: addresses stay with the interface's own hardware address",
    ),
    ("notify /x", "line 4: \"notify /x\": is not supported: no script is run"),
    ("notify_master /x", "line 4: \"notify_master /x\": is not supported: no script is run"),
    (
        "mcast_src_ip 192.0.2.1",
        "line 4: \"mcast_src_ip 192.0.2.1\": is not supported: multicast has the group of RFC 9568 and comes from the interface's own address",
    ),
    (
        "unicast_ttl 5",
        "line 4: \"unicast_ttl 5\": is not supported: advertisements leave with a TTL of 255 (RFC 9568 section 5.1.1.3)",
    ),
    ("include /x", "line 4: \"include /x\": other files are not read"),
    ("garp_master_repeat 1001", "line 4: \"garp_master_repeat 1001\": must be a whole number from 0 to 1000"),
    ("garp_master_delay 4295", "line 4: \"garp_master_delay 4295\": must be a whole number from 0 to 4294"),
    (
        "garp_master_refresh -1",
        "line 4: \"garp_master_refresh -1\": must be a whole number from 0 to 4294967295",
    ),
    ("authentication {\nauth_type AH\nauth_pass x\n}", "line 5: \"auth_type AH\": IPsec AH is not supported"),
    ("authentication {\nauth_type MD5\nauth_pass x\n}", "line 5: \"auth_type MD5\": must be PASS"),
    ("authentication {\nauth_type PASS\n}", "line 4: \"authentication\": needs an auth_pass"),
    ("authentication {\nauth_pass x\n}", "line 4: \"authentication\": needs an auth_type"),
    (
        "authentication {\nauth_type PASS\nauth_pass s3cret x\n}",
        "line 6: \"auth_pass ...\": has more than one value",
    ),
    (
        "authentication {\nauth_type PASS\nauth_pass pässword\n}",
        "line 6: \"auth_pass ...\": must be one or more printable ASCII characters",
    ),
    (
        "authentication {\nauth_type PASS\nauth_pass x\nauth_key y\n}",
        "line 7: \"auth_key y\": is not a known keyword in authentication",
    ),
    ("authentication", "line 4: \"authentication\": authentication needs a block in braces"),
    (
        "unicast_peer {\n192.0.2.2\n}",
        "line 1: \"vrrp_instance a\": needs a unicast_src_ip, because it has a unicast_peer",
    ),
    (
        "unicast_src_ip 192.0.2.1\nunicast_peer {\n192.0.2.1\n}",
        "line 6: 192.0.2.1 is the router's own address",
    ),
    ("unicast_src_ip 192.0.2.1\nunicast_peer {\n192.0.2.2\n192.0.2.2\n}", "line 7: 192.0.2.2 is given twice"),
    (
        "unicast_src_ip 192.0.2.1\nunicast_peer {\nfd77::2\n}",
        "line 6: fd77::2 is not of the instance's family, IPv4",
    ),
    (
        "unicast_src_ip 192.0.2.1\nunicast_peer {\n192.0.2.2 min_ttl 5\n}",
        "line 6: \"192.0.2.2 min_ttl 5\": \"min_ttl\" is not supported here",
    ),
    (
        "unicast_src_ip 192.0.2.1/24",
        "line 4: \"unicast_src_ip 192.0.2.1/24\": \"192.0.2.1/24\" is not an IP address",
    ),
    (
        "virtual_ipaddress {\n192.0.2.1/33\n}",
        "line 5: \"192.0.2.1/33\": the length of the prefix must be a whole number from 0 to 32",
    ),
    (
        "virtual_ipaddress {\n192.0.2.1 brd 1.2.3.4\n}",
        "line 5: \"192.0.2.1 brd 1.2.3.4\": \"brd\" is not supported here, only dev is",
    ),
    ("virtual_ipaddress {\n192.0.2.1 dev\n}", "line 5: \"192.0.2.1 dev\": dev needs a value"),
    ("virtual_ipaddress {\n192.0.2.100/24\n}", "line 8: 192.0.2.100 is given twice"),
    ("virtual_ipaddress {\n224.0.0.1\n}", "line 5: 224.0.0.1 is not an address that a host can have"),
    (
        "virtual_ipaddress x {\n}",
        "line 4: \"virtual_ipaddress x\": virtual_ipaddress takes no value before its block",
    ),
    (
        "virtual_ipaddress_excluded {\n127.0.0.1\n}",
        "line 5: 127.0.0.1 is not an address that a host can have",
    ),
    ("virtual_routes {\ndev eth1\n}", "line 5: \"dev eth1\": needs a destination"),
    ("virtual_routes {\ndefault via 10.0.0.1\n}", "line 5: \"default via 10.0.0.1\": needs a dev"),
    (
        "virtual_routes {\nblackhole 10.0.0.0/8 dev e\n}",
        "line 5: \"blackhole 10.0.0.0/8 dev e\": \"blackhole\" is not an IP address",
    ),
    (
        "virtual_routes {\n10.0.0.0/8 dev e mtu 9\n}",
        "line 5: \"10.0.0.0/8 dev e mtu 9\": \"mtu\" is not supported here",
    ),
    ("virtual_routes {\n10.0.0.0/8 dev e dev f\n}", "line 5: \"10.0.0.0/8 dev e dev f\": dev is given twice"),
    (
        "virtual_routes {\n10.0.0.0/8 dev e table 0\n}",
        "line 5: \"10.0.0.0/8 dev e table 0\": \"0\" is not a table: main, local, default or 1 to 4294967295",
    ),
    (
        "virtual_routes {\n10.0.0.0/8 dev e scope host\n}",
        "line 5: \"10.0.0.0/8 dev e scope host\": \"host\" is not a supported scope: global or link",
    ),
    (
        "virtual_routes {\n10.0.0.0/8 dev e via fd77::1\n}",
        "line 5: the gateway fd77::1 is not of the family of 10.0.0.0/8",
    ),
    (
        "virtual_routes {\ndefault dev e via fd77::1 src 10.0.0.1\n}",
        "line 5: the source 10.0.0.1 is not of the family of ::/0",
    ),
    (
        "virtual_routes {\n10.0.0.0/8 dev e via 10.0.0.1 scope link\n}",
        "line 5: scope link is for routes without a gateway",
    ),
    ("virtual_rules {\nfrom 10.0.0.1 priority 5\n}", "line 5: \"from 10.0.0.1 priority 5\": needs a table"),
    ("virtual_rules {\nfrom 10.0.0.1 table 5\n}", "line 5: \"from 10.0.0.1 table 5\": needs a priority"),
    ("virtual_rules {\ntable 5 priority 5\n}", "line 5: \"table 5 priority 5\": needs a from"),
    (
        "virtual_rules {\nfrom 10.0.0.1 to 10.0.0.2 table 5 priority 5\n}",
        "line 5: \"from 10.0.0.1 to 10.0.0.2 table 5 priority 5\": \"to\" is not supported here",
    ),
    ("track_script {\nnone\n}", "line 5: \"none\": no vrrp_script of this name is defined before"),
    (
        "track_interface {\neth1 weight 5\n}",
        "line 5: \"eth1 weight 5\": must be weight 0: what is tracked and down takes the instance out, it does not change its priority",
    ),
    ("track_interface {\neth1 up\n}", "line 5: \"eth1 up\": \"up\" is not known here"),
    ("track_interface {\neth1\neth1\n}", "line 6: eth1 is given twice"),
    ("track_interface {\neth1 {\n}\n}", "line 5: \"eth1\": has no block"),
    (
        "track_file {\nx\n}",
        "line 4: \"track_file\": is not supported: only interfaces and the data plane are tracked",
    ),
];

#[test]
fn each_refusal_has_its_line_and_text() {
    for (lines, expected) in REFUSED {
        assert_eq!(faults(&with_address(lines)), [*expected], "{lines}");
    }
}

/// The same for whole texts.
const REFUSED_TEXTS: &[(&str, &str)] = &[
    ("", "there is no vrrp_instance"),
    ("global_defs {\n}", "there is no vrrp_instance"),
    ("vrrp_instance {\n}", "line 1: \"vrrp_instance\": needs a name, and nothing else before its block"),
    (
        "vrrp_instance a b {\n}",
        "line 1: \"vrrp_instance a b\": needs a name, and nothing else before its block",
    ),
    ("vrrp_instance a", "line 1: \"vrrp_instance a\": vrrp_instance needs a block in braces"),
    ("vrrp_instance a {\nvirtual_router_id 1\n}", "line 1: \"vrrp_instance a\": needs an interface"),
    ("vrrp_instance a {\ninterface e\n}", "line 1: \"vrrp_instance a\": needs a virtual_router_id"),
    (
        "vrrp_instance a {\ninterface e\nvirtual_router_id 0\n}",
        "line 3: \"virtual_router_id 0\": must be a whole number from 1 to 255",
    ),
    (
        "vrrp_instance a {\ninterface e/0\nvirtual_router_id 1\n}",
        "line 2: \"interface e/0\": \"e/0\" is not the name of an interface",
    ),
    (
        "vrrp_instance a {\ninterface e\nvirtual_router_id 1\nversion 3\n}",
        "line 1: at least one address is required",
    ),
    (
        "vrrp_instance a {\ninterface e\nvirtual_router_id 1\nvirtual_ipaddress {\nfd77::1\n}\nversion 2\n}",
        "line 7: \"version 2\": version 2 must stand before the first IPv6 address to have an effect",
    ),
    (
        "vrrp_instance a {\ninterface e\nvirtual_router_id 1\nversion 2\nvirtual_ipaddress {\nfd77::1\n}\nauthentication {\nauth_type PASS\nauth_pass x\n}\n}",
        "line 10: version 2 over IPv6 has no room for a password",
    ),
    (
        "vrrp_instance a {\ninterface e\nvirtual_router_id 1\nvirtual_ipaddress {\nfd77::1\n192.0.2.1\n}\n}",
        "line 6: 192.0.2.1 is not of the instance's family, IPv6",
    ),
];

#[test]
fn each_refused_text_has_its_reason() {
    for (text, expected) in REFUSED_TEXTS {
        assert_eq!(faults(text), [*expected], "{text}");
    }
    let instance = with_address("");
    for (text, expected) in [
        ("colour {\nred\n}\n", "line 1: \"colour\": is not a known block"),
        (
            "vrrp_sync_group g {\ngroup {\na\n}\n}\n",
            "line 1: \"vrrp_sync_group g\": is not supported: instances are independent of each other",
        ),
        (
            "virtual_server 10.0.0.1 80 {\n}\n",
            "line 1: \"virtual_server 10.0.0.1 80\": is not supported: IPVS is not used",
        ),
        (
            "global_defs {\nvrrp_strict\n}\n",
            "line 2: \"vrrp_strict\": is not supported: strict mode would not accept packets to the addresses",
        ),
        ("global_defs {\nvrrp_version 4\n}\n", "line 2: \"vrrp_version 4\": must be 2 or 3"),
        ("global_defs {\nrouter\n}\n", "line 2: \"router\": is not a known keyword in global_defs"),
        ("vrrp_script {\n}\n", "line 1: \"vrrp_script\": needs a name, and nothing else before its block"),
        ("vrrp_script s {\n}\n", "line 1: \"vrrp_script s\": needs a script"),
        ("vrrp_script s {\nscript\n}\n", "line 2: \"script\": needs a command"),
        (
            "vrrp_script s {\nscript x\nfall 0\n}\n",
            "line 3: \"fall 0\": must be a whole number from 1 to 2147483647",
        ),
        ("vrrp_script s {\nscript x\nrise 1\nrise 1\n}\n", "line 4: \"rise 1\": is given twice"),
        (
            "vrrp_script s {\nscript x\nweight 5\n}\n",
            "line 3: \"weight 5\": must be weight 0: what is tracked and down takes the instance out, it does not change its priority",
        ),
        (
            "vrrp_script s {\nscript x\ninit_fail\n}\n",
            "line 3: \"init_fail\": is not supported: the data plane is asked before the instance starts",
        ),
        (
            "vrrp_script s {\nscript x\n}\nvrrp_script s {\nscript x\n}\n",
            "line 4: \"vrrp_script s\": is the name of another vrrp_script",
        ),
    ] {
        assert_eq!(faults(&format!("{text}{instance}")), [expected], "{text}");
    }
    let scripts = "vrrp_script s {\nscript x\n}\nvrrp_script t {\nscript x\n}\n";
    assert_eq!(
        faults(&format!("{scripts}{}", with_address("track_script {\ns\nt\n}"))),
        ["line 12: \"t\": only one script can be tracked: it stands for the data plane"]
    );
}

#[test]
fn more_than_the_thread_can_bear_is_refused_at_its_line() {
    let lines = |count: usize, line: fn(usize) -> String| (0..count).map(line).collect::<Vec<_>>().join("\n");
    for (block, what, line) in [
        (
            "virtual_ipaddress_excluded",
            "addresses",
            (|n| format!("10.0.{}.{}", n / 256, n % 256)) as fn(usize) -> String,
        ),
        ("virtual_routes", "routes", |n| format!("10.0.{}.{} dev e", n / 256, n % 256)),
        ("virtual_rules", "rules", |n| format!("from 10.0.{}.{} table 1 priority 1", n / 256, n % 256)),
    ] {
        // Its lines begin on line 5; of the addresses one stands elsewhere.
        let fits = if what == "addresses" { 511 } else { 512 };
        let text = |count| with_address(&format!("{block} {{\n{}\n}}", lines(count, line)));
        assert!(super::parse(&text(fits)).is_ok(), "{block}");
        assert_eq!(faults(&text(fits + 1)), [format!("line {}: more than 512 {what} in all", 5 + fits)]);
    }
    let instances = |count| {
        lines(count, |n| format!("vrrp_instance i{n} {{\ninterface e\nvirtual_router_id {}\n}}", n + 1))
    };
    assert!(super::parse(&instances(32)).is_ok());
    assert_eq!(faults(&instances(40)), ["line 129: more than 32 virtual routers in all"]);
}
