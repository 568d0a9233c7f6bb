//! The host's ends of links of amphorae: each is to be there, up, and on the bridge of its network. One look finds out all of them.

use std::{collections::HashMap, io, net::IpAddr, path::Path};

use nix::{errno::Errno, net::if_::if_nametoindex};
use serde_json::Value;

use super::bridges::Bridges;
use crate::{
    error::{Error, Result},
    host::{NAMESPACES, ip_each, ip_shows},
};

/// The host's end of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The port that it is of; `None` of the one by which a machine is managed.
    pub port: Option<String>,
    /// What it is called.
    pub name: String,
    /// The bridge that it is to be on.
    pub bridge: String,
    /// Where it leads to.
    pub behind: Behind,
}

/// What is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behind {
    /// An interface of this link-layer address in a network namespace.
    Namespace {
        /// The name of the namespace.
        name: String,
        /// The address.
        mac: String,
    },
    /// A process.
    Process {
        /// It does not reach others on the bridge.
        isolated: bool,
    },
}

/// The interfaces of this host, and by what numbers it knows namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    interfaces: HashMap<String, Interface>,
    namespaces: HashMap<String, i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Interface {
    up: bool,
    carrier: bool,
    master: Option<String>,
    /// That of the other end.
    namespace: Option<i64>,
    addresses: Vec<(IpAddr, u8)>,
}

/// What is wrong with an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wrong {
    /// It is not on its bridge, or down.
    adrift: bool,
    /// It seems to lead nowhere.
    severed: bool,
}

/// Whether an interface that is shown has a flag.
fn flag(entry: &Value, name: &str) -> bool {
    entry["flags"].as_array().is_some_and(|all| all.iter().any(|flag| flag == name))
}

impl Shown {
    /// Asks the kernel. Blocks for some milliseconds.
    fn ask() -> Result<Self> {
        // Not `list-id`: of more namespaces than some hundred it shows the first.
        Ok(Self::of(&ip_shows(&["address", "show"])?, &ip_shows(&["netns", "list"])?))
    }

    fn of(interfaces: &[Value], namespaces: &[Value]) -> Self {
        let text = |entry: &Value, name: &str| entry[name].as_str().map(str::to_owned);
        let interface = |entry: &Value| {
            let address = |one: &Value| {
                let length = u8::try_from(one["prefixlen"].as_u64()?).ok()?;
                Some((one["local"].as_str()?.parse().ok()?, length))
            };
            let addresses = entry["addr_info"].as_array().into_iter().flatten();
            let this = Interface {
                up: flag(entry, "UP"),
                carrier: !flag(entry, "NO-CARRIER"),
                master: text(entry, "master"),
                namespace: entry["link_netnsid"].as_i64(),
                addresses: addresses.filter_map(address).collect(),
            };
            Some((text(entry, "ifname")?, this))
        };
        let namespace = |entry: &Value| Some((text(entry, "name")?, entry["id"].as_i64()?));
        Self {
            interfaces: interfaces.iter().filter_map(interface).collect(),
            namespaces: namespaces.iter().filter_map(namespace).collect(),
        }
    }

    /// Whether there is an interface.
    pub(super) fn has(&self, name: &str) -> bool {
        self.interfaces.contains_key(name)
    }

    /// Whether one is there, is up, and has all of these addresses.
    pub(super) fn is_up_with(&self, name: &str, addresses: impl IntoIterator<Item = (IpAddr, u8)>) -> bool {
        self.interfaces.get(name).is_some_and(|found| {
            found.up && addresses.into_iter().all(|address| found.addresses.contains(&address))
        })
    }

    fn judge(&self, end: &End) -> Wrong {
        let Some(found) = self.interfaces.get(&end.name) else {
            return Wrong { adrift: false, severed: true };
        };
        let elsewhere = match &end.behind {
            Behind::Namespace { name, .. } => {
                found.namespace.is_none() || self.namespaces.get(name) != found.namespace.as_ref()
            }
            Behind::Process { .. } => false,
        };
        // Nobody has the other end, or it is down.
        let severed = elsewhere || found.up && !found.carrier;
        Wrong { adrift: !found.up || found.master.as_ref() != Some(&end.bridge), severed }
    }
}

/// Makes bridges anew that are not there, and brings ends back to theirs. Gives those, by their place in `ends`, that lead nowhere. What fails is
/// said, and tried by the next look. Blocks.
///
/// # Errors
/// It cannot be found out how they are.
pub fn mend(bridges: &Bridges, ends: &[End]) -> Result<Vec<usize>> {
    let shown = Shown::ask()?;
    let made = bridges.mend(&shown);
    let (mut commands, mut severed) = (Vec::new(), Vec::new());
    for (place, end) in ends.iter().enumerate() {
        let wrong = shown.judge(end);
        if wrong.adrift && (shown.has(&end.bridge) || made.contains(&end.bridge)) {
            tracing::warn!(link = end.name, bridge = end.bridge, "a link is brought back to its bridge");
            commands.extend(back(end));
        }
        if wrong.severed {
            match leads_nowhere(end, shown.has(&end.name)) {
                Ok(true) => severed.push(place),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(link = end.name, %error, "cannot tell where a link leads to: it is left");
                }
            }
        }
    }
    if let Err(error) = ip_each(&commands) {
        tracing::error!(%error, "links are not back on their bridges");
    }
    Ok(severed)
}

/// What brings an end to its bridge.
pub fn back(end: &End) -> Vec<String> {
    let End { name, bridge, .. } = end;
    let mut commands = vec![format!("link set {name} master {bridge} up")];
    if end.behind == (Behind::Process { isolated: true }) {
        commands.push(format!("link set {name} type bridge_slave isolated on"));
    }
    commands
}

/// Whether an end that seems to lead nowhere does so for certain: a list is not proof of what is not in it.
fn leads_nowhere(end: &End, shown: bool) -> Result<bool> {
    match if_nametoindex(end.name.as_str()) {
        Ok(_) if !shown => return Ok(false),
        Ok(_) => {}
        Err(Errno::ENODEV) => return Ok(true),
        Err(e) => return Err(Error::local(&end.name, e)),
    }
    let Behind::Namespace { name, mac } = &end.behind else { return Ok(true) };
    let path = Path::new(NAMESPACES).join(name);
    if !path.try_exists().map_err(|e: io::Error| Error::local(path.display(), e))? {
        return Ok(true);
    }
    let inside = ip_shows(&["-n", name, "link", "show"])?;
    Ok(!inside.iter().any(|entry| entry["address"].as_str() == Some(mac) && flag(entry, "UP")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn shown() -> Shown {
        let interfaces = json!([
            {},
            {"ifname": "lb0", "flags": ["BROADCAST", "UP"], "addr_info": [{"local": "192.0.2.1", "prefixlen": 24}]},
            {"ifname": "v1", "flags": ["UP", "LOWER_UP"], "master": "lb0", "link_netnsid": 4},
            {"ifname": "v2", "flags": ["UP", "LOWER_UP"], "link_netnsid": 4},
            {"ifname": "v3", "flags": [], "master": "lb0", "link_netnsid": 4},
            {"ifname": "v4", "link": "w4", "flags": ["UP"], "master": "lb0"},
            {"ifname": "v5", "flags": ["NO-CARRIER", "UP"], "master": "lb0", "link_netnsid": 4},
            {"ifname": "t1", "flags": ["UP", "LOWER_UP"], "master": "lb0"},
            {"ifname": "t2", "flags": ["NO-CARRIER", "UP"], "master": "lb0"},
        ]);
        let namespaces = json!([{"name": "new"}, {"name": "one", "id": 4}, {"name": "two", "id": 5}]);
        Shown::of(interfaces.as_array().unwrap(), namespaces.as_array().unwrap())
    }

    #[test]
    fn an_end_is_judged_by_what_is_shown() {
        let shown = shown();
        let veth = |name: &str, namespace: &str| End {
            port: None,
            name: name.to_owned(),
            bridge: "lb0".to_owned(),
            behind: Behind::Namespace { name: namespace.to_owned(), mac: String::new() },
        };
        let tap = |name: &str| End { behind: Behind::Process { isolated: true }, ..veth(name, "") };
        let wrong = |adrift, severed| Wrong { adrift, severed };
        for (end, expected) in [
            (veth("v1", "one"), wrong(false, false)),
            (veth("v2", "one"), wrong(true, false)),
            (veth("v3", "one"), wrong(true, false)),
            (veth("v1", "two"), wrong(false, true)),
            (veth("v1", "gone"), wrong(false, true)),
            (veth("v4", "one"), wrong(false, true)),
            (veth("v5", "one"), wrong(false, true)),
            (veth("v9", "one"), wrong(false, true)),
            (tap("t1"), wrong(false, false)),
            (tap("t2"), wrong(false, true)),
        ] {
            assert_eq!(shown.judge(&end), expected, "{end:?}");
        }
        assert_eq!(
            back(&tap("t1")),
            ["link set t1 master lb0 up", "link set t1 type bridge_slave isolated on"]
        );
    }

    #[test]
    fn a_bridge_has_its_addresses() {
        let address = |text: &str| (text.parse().unwrap(), 24);
        assert!(shown().is_up_with("lb0", [address("192.0.2.1")]));
        assert!(!shown().is_up_with("lb0", [address("192.0.2.2")]));
        assert!(!shown().is_up_with("lb1", []));
    }

    #[test]
    fn a_list_is_no_proof_of_what_is_not_in_it() {
        let end = End {
            port: None,
            name: "lo".to_owned(),
            bridge: "lb0".to_owned(),
            behind: Behind::Process { isolated: false },
        };
        assert!(!leads_nowhere(&end, false).unwrap());
        assert!(leads_nowhere(&End { name: "no-such-link".to_owned(), ..end }, false).unwrap());
    }
}
