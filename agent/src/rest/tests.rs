#![allow(clippy::unwrap_used)]

mod bounds;
mod certificates;
mod changes;
mod crowds;
mod documented;
mod peers;
mod small_disk;
mod transport;
mod v1;
mod vrrp;

use crate::fixture::DOCUMENT;

const ID: &str = "10000000-0000-4000-8000-000000000001";
const OTHER_ID: &str = "10000000-0000-4000-8000-0000000000ff";
const POOL: &str = "30000000-0000-4000-8000-000000000001";
const MEMBER: &str = "40000000-0000-4000-8000-000000000001";
const MAC: &str = "fa:16:3e:00:21:01";

/// A VRRP configuration, as far as the agent looks into one.
const VRRP: &str = r#"{"instances": [{"name": "lb", "interface": "eth1", "vrid": 1}]}"#;

/// A document that names the other amphora.
const PEERS: &str =
    r#"{"peers": {"listen": "192.0.2.1:1025", "peer": "192.0.2.2:1025", "key": "0123456789abcdef"}}"#;

fn lb() -> String {
    format!("/2.0/loadbalancers/{ID}")
}

fn member(pool: &str, member: &str) -> String {
    format!("/2.0/loadbalancers/{ID}/pools/{pool}/members/{member}")
}

/// The document under another name.
fn named(name: &str) -> String {
    DOCUMENT.replace(r#""name": "lb""#, &format!(r#""name": "{name}""#))
}
