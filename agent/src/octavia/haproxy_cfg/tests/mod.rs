#![allow(clippy::unwrap_used)]

mod hostile;
mod keywords;
mod legal;
mod rendered;
mod roundtrip;

use std::{fs, path::PathBuf};

use super::*;

const NO_VIPS: Context<'static> = Context { certificates: &Everything, vips: &[] };

/// What the controller has really sent, by the name of the scenario.
fn samples() -> Vec<(String, Vec<u8>)> {
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/octavia/haproxy_cfg/samples"));
    let mut samples: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cfg"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    samples.sort();
    samples
}

#[test]
fn what_the_controller_has_sent_translates() {
    let vips = ["10.77.0.100".parse().unwrap()];
    let context = Context { vips: &vips, ..NO_VIPS };
    let mut refused = Vec::new();
    for (name, text) in samples() {
        match translate(&text, &context) {
            Ok(translated) => assert!(!translated.remarks.is_empty(), "{name}"),
            Err(fault) => refused.push(format!("{name}: {fault}")),
        }
    }
    // The reference refuses the first, and cannot bind the second.
    assert_eq!(
        refused,
        [
            "errors-2: line 2: bogus: is not known in section global",
            "errors-3: line 44: bind 10.77.0.100:80: protocol_port 80 is the port of line 22 already",
        ]
    );
}

/// Those beside which the document lies.
#[test]
fn some_of_it_in_full() {
    let golden = |name: &str| -> serde_json::Value {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/octavia/haproxy_cfg/samples");
        serde_json::from_slice(&fs::read(format!("{directory}/{name}.json")).unwrap()).unwrap()
    };
    for (name, text) in samples() {
        if matches!(name.as_str(), "l7_actions" | "terminated_https-4" | "reencryption-3" | "tcp_https_proxy")
        {
            let document = translate(&text, &NO_VIPS).unwrap().load_balancer.to_json();
            assert_eq!(document, golden(&name), "{name}: {document:#}");
        }
    }
}
