#![allow(clippy::unwrap_used)]

use super::*;

fn refused(text: &str) -> String {
    Config::parse(text).unwrap_err().to_string()
}

#[test]
fn nothing_is_a_configuration() {
    let config = Config::parse("").unwrap();
    assert_eq!(config.api.bind.to_string(), "127.0.0.1:9876");
    assert_eq!(config.worker.topology, Topology::Single);
    assert_eq!(config.networks.len(), 1);
    assert_eq!(config.networks[0].subnets[0].gateway().to_string(), "10.250.0.1");
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    for (text, reason) in [
        ("[api_settings]\nbind_host = 0.0.0.0\n", "[api_settings] auth_strategy: noauth lets anybody in"),
        ("[health_manager]\nheartbeat_interval = 10\n", "[health_manager] heartbeat_timeout: must be twice"),
        ("[certificates]\nca_certificate = /ca.pem\n", "[certificates] ca_private_key: belongs to the other"),
        ("[networks]\nx = 192.0.2.1/24\n", "line 2: [networks] x: bits behind the prefix"),
        (
            "[networks]\nx = 192.0.2.0/24\ny = 192.0.2.128/25\n",
            "line 3: [networks] y: 192.0.2.128/25 overlaps 192.0.2.0/24",
        ),
        ("[networks]\nx = 192.0.2.0/30\n", "has 8 to 29 bits"),
        (
            "[house_keeping]\namphora_expiry_age = 1\n",
            "line 2: [house_keeping] amphora_expiry_age: there is no such thing",
        ),
        ("[compute]\nagent_ports = 20-10\n", "not a range of ports"),
        ("[compute]\ndriver = qemu\n", "[compute] image: driver = qemu takes one"),
        ("[compute]\nmemory = 128\n", "[compute] memory: "),
        ("[compute]\naccel = xen\n", "not one of auto, kvm, tcg"),
        ("[compute]\nmanagement_network = 10.250.0.0/16\n", "10.250.0.0/16 overlaps 10.250.0.0/24"),
    ] {
        let told = refused(text);
        assert!(told.contains(reason), "{text:?}: {told}");
    }
}

#[test]
fn networks_keep_their_ids() {
    let one = Config::parse("[networks]\na = 192.0.2.0/24, 2001:db8::/64\nb = 198.51.100.0/24\n").unwrap();
    let other = Config::parse("[networks]\nb = 198.51.100.0/24\na = 2001:db8::/64\n").unwrap();
    assert_eq!(one.networks[0].id, other.networks[1].id);
    assert_eq!(one.networks[0].subnets[1], other.networks[1].subnets[0]);
    assert_ne!(one.networks[0].subnets[0].id, one.networks[1].subnets[0].id);
}

#[test]
fn a_subnet_knows_its_hosts() {
    let config = Config::parse("[networks]\na = 192.0.2.64/26, 2001:db8::/64\n").unwrap();
    let [v4, v6] = &config.networks[0].subnets[..] else { panic!() };
    let has = |subnet: &Subnet, text: &str| subnet.has_host(text.parse().unwrap());
    assert_eq!((has(v4, "192.0.2.64"), has(v4, "192.0.2.65"), has(v4, "192.0.2.126")), (false, true, true));
    assert_eq!(
        (has(v4, "192.0.2.127"), has(v4, "192.0.2.128"), has(v4, "2001:db8::1")),
        (false, false, false)
    );
    assert_eq!(
        (has(v6, "2001:db8::"), has(v6, "2001:db8::ffff"), has(v6, "2001:db8:0:1::1")),
        (false, true, false)
    );
}

#[test]
fn what_is_ignored_is_told() {
    let text = "[api_settings]\nbind_hots = 1.2.3.4\nbind_port = 1\n[networking]\nallow_vip_networkid = false\n\
        [nonsense]\na = b\nc = d\n[networks]\nany = 192.0.2.0/24\n[health_manager]\nfailover_threshold = 3\n";
    let remarks = Config::parse(text).unwrap().remarks;
    let told = [
        "[api_settings] bind_hots: no such option",
        "[networking] allow_vip_networkid: no",
        "[nonsense]: no such section",
    ];
    assert_eq!(remarks.len(), told.len(), "{remarks:?}");
    for (remark, told) in remarks.iter().zip(told) {
        assert!(remark.contains(told), "{remark}");
    }
    assert_eq!(Config::parse("").unwrap().remarks, [""; 0]);
}

#[test]
fn the_documentation_has_every_option_with_its_default() {
    let text = include_str!("../../../../docs/serve-options.md");
    for (section, name, default) in super::DEFAULTS {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{section}` | `{name}` | ")));
        let row = row.unwrap_or_else(|| panic!("[{section}] {name} is not there"));
        let told = row.split(" | ").nth(2).unwrap();
        let ciphers = default.contains(':') && told.contains("suite B");
        assert!(
            ciphers
                || told == format!("`{default}`")
                || (default.is_empty() && row.contains(&format!("`{name}` | | "))),
            "{row}"
        );
    }
    for (section, name) in super::remarks::READ {
        assert!(text.contains(&format!("| `{section}` | `{name}` | ")), "[{section}] {name} is not there");
    }
    for section in super::remarks::NAMED {
        assert!(text.contains(&format!("| `{section}` | ")), "[{section}] is not there");
    }
}

#[test]
fn files_of_the_documentation_are_taken() {
    let text = include_str!("../../../../docs/serve.md");
    let blocks = text.split("\n\n").filter(|block| {
        let lines = || block.lines().map(str::trim);
        // The hash of a user is cut off there.
        let is_whole = lines().any(|line| line == "[networks]") && lines().all(|line| line != "[users]");
        is_whole && block.lines().all(|line| line.starts_with("    "))
    });
    let mut pools = 0;
    for block in blocks {
        let text: Vec<_> = block.lines().map(str::trim).collect();
        let config = Config::parse(&text.join("\n")).unwrap_or_else(|error| panic!("{block}: {error}"));
        assert_eq!(config.remarks, [""; 0], "{block}");
        pools += usize::from(block.contains("[allocation_pools]"));
    }
    assert_eq!(pools, 2);
}
