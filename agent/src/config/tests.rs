#![allow(clippy::unwrap_used)]

use super::*;

/// What a controller of Octavia 19 renders, but for names and numbers.
const RENDERED: &str = "\
[DEFAULT]
debug = True
use_syslog = True

[haproxy_amphora]
base_cert_dir = /var/lib/octavia/certs
base_path = /var/lib/octavia
bind_host = 0.0.0.0
bind_port = 9443
haproxy_cmd = /usr/sbin/haproxy

[health_manager]
controller_ip_port_list = 172.30.0.3:5555, [fd00::3]:5555
heartbeat_interval = 3
heartbeat_key = in$$ecure

[amphora_agent]
agent_server_ca = /etc/octavia/certs/client_ca.pem
agent_server_cert = /etc/octavia/certs/server.pem
agent_request_read_timeout = 180
amphora_id = 0f66bb06-6ab9-5d2f-abb4-8f64a2a92e49
amphora_udp_driver = keepalived_lvs
agent_tls_protocol = TLSv1.2

[controller_worker]
loadbalancer_topology = ACTIVE_STANDBY
";

const LEAST: &str = "[amphora_agent]\namphora_id = a\n";

fn refused(text: &str) -> String {
    Config::parse(&format!("{LEAST}{text}")).unwrap_err().to_string()
}

#[test]
fn octavias_own_file_is_read() {
    let config = Config::parse(RENDERED).unwrap();
    assert!(config.debug);
    assert_eq!(config.bind.to_string(), "0.0.0.0:9443");
    assert_eq!(config.topology, Topology::ActiveStandby);
    assert_eq!(config.heartbeat.controllers.len(), 2);
    assert_eq!(config.heartbeat.interval, Duration::from_secs(3));
    assert_eq!(config.heartbeat.key, "in$ecure");
    assert_eq!(config.amphora_id, "0f66bb06-6ab9-5d2f-abb4-8f64a2a92e49");
}

#[test]
fn defaults_are_octavias() {
    let config = Config::parse(LEAST).unwrap();
    assert_eq!(config.bind.to_string(), "[::]:9443");
    assert_eq!(config.base_path, Path::new("/var/lib/octavia"));
    assert_eq!(config.request_read_timeout, Duration::from_secs(180));
    assert_eq!(config.heartbeat.interval, Duration::from_secs(10));
    assert_eq!(config.tls_protocol, TlsProtocol::Tls12);
    assert_eq!(config.control_socket, Path::new("/run/amphora/proxy.sock"));
    assert_eq!((config.proxy_workers, config.network_namespace), (None, None));
}

#[test]
fn references_reach_other_sections_and_defaults() {
    let config = Config::parse(&format!(
        "{LEAST}[DEFAULT]\nroot = /x\n[haproxy_amphora]\nbase_path = $root/lib\n\
         [amphora]\nrun_dir = ${{haproxy_amphora.base_path}}/run\n"
    ))
    .unwrap();
    assert_eq!(config.control_socket, Path::new("/x/lib/run/proxy.sock"));
}

#[test]
fn unknown_options_are_ignored_in_octavias_sections_alone() {
    assert!(
        Config::parse(&format!("{LEAST}[haproxy_amphora]\nrespawn_count = 2\n[other]\nx = $y\n")).is_ok()
    );
    assert_eq!(refused("[amphora]\nproxy_comand = /x\n"), "[amphora] proxy_comand: line 4: no such option");
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    assert_eq!(Config::parse("").unwrap_err().to_string(), "[amphora_agent] amphora_id: must be set");
    for (text, reason) in [
        ("[haproxy_amphora]\nbind_port = 70000", "[haproxy_amphora] bind_port: "),
        ("[haproxy_amphora]\nbase_path = lib", "[haproxy_amphora] base_path: not an absolute path"),
        ("[haproxy_amphora]\nbase_path = $nope/x", "[haproxy_amphora] base_path: $nope is not set"),
        ("[health_manager]\nheartbeat_interval = 0", "[health_manager] heartbeat_interval: must be from 1"),
        (
            "[health_manager]\ncontroller_ip_port_list = localhost:5555",
            "[health_manager] controller_ip_port_list",
        ),
        (
            "[health_manager]\ncontroller_ip_port_list = 127.0.0.1:5555",
            "[health_manager] heartbeat_key: must",
        ),
        ("[amphora_agent]\nagent_tls_protocol = TLSv2", "[amphora_agent] agent_tls_protocol: not one of"),
        ("[controller_worker]\nloadbalancer_topology = TRIO", "[controller_worker] loadbalancer_topology"),
        ("[amphora]\nnetwork_namespace = ../x", "[amphora] network_namespace: not the name"),
        ("[DEFAULT]\ndebug = maybe", "[DEFAULT] debug: not a boolean"),
    ] {
        let error = refused(text);
        assert!(error.starts_with(reason), "{error}");
    }
}

#[test]
fn controllers_are_split_at_the_last_colon() {
    for (text, expected) in [
        ("127.0.0.1:5555", "127.0.0.1:5555"),
        ("[::1]:5555", "[::1]:5555"),
        ("fd00::3:5555", "[fd00::3]:5555"),
        ("[fe80::1%7]:5555", "[fe80::1%7]:5555"),
    ] {
        assert_eq!(controller(text).unwrap().to_string(), expected);
    }
    for text in ["", "127.0.0.1", "127.0.0.1:0", "[::1", "::1%nosuchinterface:5555"] {
        assert!(controller(text).is_err(), "{text}");
    }
    assert_eq!(controllers(" 127.0.0.1:1 ,127.0.0.1:2,, ").map(|c| c.len()), Ok(2));
}

#[test]
fn the_key_is_not_printed() {
    let config = Config::parse(RENDERED).unwrap();
    assert!(!format!("{config:?}").contains("ecure"));
}
