//! `amphora-agent translate`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may block")]

use std::{
    fs,
    process::{Command, Output},
};

use amphora_model::{ListenerProtocol, LoadBalancer};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/octavia/haproxy_cfg/samples");

fn translate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_amphora-agent")).arg("translate").args(arguments).output().unwrap()
}

#[test]
fn a_text_is_printed_as_a_document() {
    let output = translate(&[&format!("{SAMPLES}/http_basic.cfg")]);
    assert_eq!(output.status.code(), Some(0));
    let lb = LoadBalancer::from_json(&output.stdout).unwrap();
    assert_eq!((lb.listeners.len(), lb.pools.len()), (1, 1));
    let remarks = String::from_utf8(output.stderr).unwrap();
    assert!(
        remarks.contains("http_basic.cfg: line 9: has no effect: each listener has its own limit"),
        "{remarks}"
    );
}

#[test]
fn what_is_refused_is_told_with_its_line() {
    let output = translate(&[&format!("{SAMPLES}/errors-2.cfg")]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.ends_with("errors-2.cfg: line 2: bogus: is not known in section global\n"), "{error}");
    assert!(output.stdout.is_empty());
    assert_eq!(translate(&["/nowhere"]).status.code(), Some(1));
}

#[test]
fn certificates_and_addresses_may_be_given() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!("{SAMPLES}/octavia-12-tls.cfg");
    let certificates = ["--certificates", directory.path().to_str().unwrap(), &text];
    let error = String::from_utf8(translate(&certificates).stderr).unwrap();
    assert!(error.contains("55555555-2222-2222-2222-222222222222.pem, which is not there"), "{error}");
    let list = "/var/lib/octavia/certs/11111111-1111-1111-1111-111111111111/abc.pem\n";
    fs::write(directory.path().join("55555555-2222-2222-2222-222222222222.pem"), list).unwrap();
    fs::write(directory.path().join("abc.pem"), "").unwrap();
    let output = translate(&certificates);
    let lb = LoadBalancer::from_json(&output.stdout).unwrap();
    assert_eq!(lb.listeners[0].tls.as_ref().unwrap().certificate.as_str(), "abc");

    let without = format!("{SAMPLES}/backup_weights_admin-6.cfg");
    assert_eq!(translate(&[&without]).status.code(), Some(1));
    let output = translate(&["--vip", "192.0.2.1", "--vip=2001:db8::1", &without]);
    assert_eq!(LoadBalancer::from_json(&output.stdout).unwrap().vips.len(), 2);
}

#[test]
fn texts_of_listeners_of_datagrams_are_known_by_their_first_line() {
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/src/octavia/lvs/samples");
    let output = translate(&[&format!("{samples}/lvs_udp_sctp.conf")]);
    let lb = LoadBalancer::from_json(&output.stdout).unwrap();
    assert_eq!((lb.vips.len(), lb.listeners.len(), lb.pools[0].members.len()), (3, 1, 3));
    let output = translate(&[&format!("{samples}/lvs_udp_sctp-4.conf")]);
    let lb = LoadBalancer::from_json(&output.stdout).unwrap();
    assert_eq!((lb.listeners[0].protocol, lb.pools[0].members.len()), (ListenerProtocol::Sctp, 3));
}
