//! The kernel's side, in network namespaces that the tests make and remove. They take root, and say so where they are
//! skipped.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails a test")]
#![allow(clippy::disallowed_methods, reason = "tests may block")]

mod announce;
mod netlink;
mod nft;

use std::process::Command;

use amphora_netlink::{Interface, InterfaceName, Netlink};
use amphora_tests::Namespace;

/// What `ip` prints inside, with single blanks and without the ones at the ends of lines.
fn show(namespace: &str, args: &[&str]) -> String {
    let output = Command::new("ip").args(["-n", namespace]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

fn name(text: &str) -> InterfaceName {
    InterfaceName::new(text).unwrap()
}

async fn interface(netlink: &Netlink, text: &str) -> Interface {
    netlink.interface(&name(text)).await.unwrap().unwrap()
}

/// Two namespaces with a link between them, `eth1` at both ends.
fn pair() -> Option<(Namespace, Namespace)> {
    let (one, two) = (Namespace::create()?, Namespace::create()?);
    one.link("eth1", &two, "eth1");
    Some((one, two))
}
