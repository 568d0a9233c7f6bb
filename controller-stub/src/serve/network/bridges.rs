//! Networks as bridges of this host: one each, which has the gateways of its subnets, so that the host is in every network.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::{
    error::Result,
    failpoint::reach,
    host::{interfaces, ip_batch},
    serve::config::Network,
};

/// What the bridge of a network is called: of 15 characters, as long as a name may be.
pub fn name(network: &Uuid) -> String {
    format!("lb{}", &network.simple().to_string()[..13])
}

/// Makes the bridge of each network as it is to be, and removes those that `instance` has made and nobody needs: neither these
/// networks nor `used`, the networks of rows. Blocks.
///
/// # Errors
/// This host does not permit it, or something else has the name.
pub fn make(networks: &[&Network], used: &BTreeSet<String>, instance: &str) -> Result<()> {
    let mark = format!("amphora-controller {instance}");
    let bridges = interfaces(Some("bridge"))?;
    let mut commands = Vec::new();
    for network in networks {
        let there = bridges.iter().any(|(other, _)| *other == name(&network.id));
        commands.extend(commands_for(network, there, &mark));
    }
    let wanted: BTreeSet<String> = networks.iter().map(|network| name(&network.id)).collect();
    let of_rows: BTreeSet<String> =
        used.iter().filter_map(|id| Uuid::parse_str(id).ok()).map(|id| name(&id)).collect();
    let left = bridges.iter().filter(|(_, alias)| *alias == mark).map(|(name, _)| name);
    let left = left.filter(|name| !wanted.contains(*name) && !of_rows.contains(*name));
    commands.extend(left.map(|name| format!("link delete {name}")));
    reach("bridges");
    ip_batch(&commands)?;
    reach("bridges.done");
    Ok(())
}

/// What brings a bridge from whatever it is to what it is to be.
fn commands_for(network: &Network, there: bool, mark: &str) -> Vec<String> {
    let name = name(&network.id);
    let [a, b, c, ..] = *network.id.as_bytes();
    let mut commands = Vec::new();
    if !there {
        // Its own address: else it is that of the port with the least one, and changes with the ports.
        commands.push(format!(
            "link add {name} address fa:16:3f:{a:02x}:{b:02x}:{c:02x} type bridge forward_delay 0 mcast_snooping 0"
        ));
    }
    commands.push(format!("link set {name} alias \"{mark}\" up"));
    for subnet in &network.subnets {
        let gateway = subnet.gateway();
        let at_once = if gateway.is_ipv6() { " nodad" } else { "" };
        commands.push(format!("address replace {gateway}/{} dev {name}{at_once}", subnet.length));
    }
    commands
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::serve::config::Config;

    #[test]
    fn a_bridge_is_brought_to_what_it_is_to_be() {
        let config = Config::parse("[networks]\na = 192.0.2.0/24, 2001:db8::/64\n").unwrap();
        let network = &config.networks[0];
        let name = name(&network.id);
        assert_eq!(name.len(), 15);
        let commands = commands_for(network, true, "m");
        assert_eq!(
            commands,
            [
                format!("link set {name} alias \"m\" up"),
                format!("address replace 192.0.2.1/24 dev {name}"),
                format!("address replace 2001:db8::1/64 dev {name} nodad"),
            ]
        );
        assert!(commands_for(network, false, "m")[0].starts_with(&format!("link add {name} ")));
    }
}
