//! Addresses of listeners that the host does not have. They are bound all the same, because the backup of a pair binds
//! the VIP before it owns it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use amphora_model::Binding;
use nix::ifaddrs::getifaddrs;

/// Warns once of each address that no interface has.
pub(super) fn warn_of_missing<'a>(bound: impl Iterator<Item = &'a Binding>) {
    let Ok(interfaces) = getifaddrs() else { return };
    let present = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    for address in missing(bound.map(|binding| &binding.address), &present.collect()) {
        tracing::warn!(target: amphora_logging::EACH, %address, "listening, but no interface has this address: no client can reach it yet");
    }
}

fn missing<'a>(bound: impl Iterator<Item = &'a SocketAddr>, present: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    // All of 127.0.0.0/8 is the loopback interface's, which has one address.
    let needs = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_loopback() && !present.contains(ip);
    bound.map(SocketAddr::ip).filter(needs).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_address_that_is_not_there_is_told_once() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let bound = ["192.0.2.1:80", "192.0.2.2:80", "192.0.2.2:81", "127.0.0.9:1", "0.0.0.0:1", "[::1]:1"]
            .map(|text| text.parse::<SocketAddr>().unwrap());
        let present = BTreeSet::from([address("192.0.2.1")]);
        assert_eq!(missing(bound.iter(), &present), BTreeSet::from([address("192.0.2.2")]));
    }
}
