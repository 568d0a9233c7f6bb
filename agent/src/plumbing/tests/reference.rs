//! What a namespace has is what it has after Octavia's own agent was asked for the same, to the last address, route of any
//! table, and rule. The texts in `octavia` were written after these requests by `ip addr`, `ip route show table all`
//! and `ip rule` for both families.

use super::*;

/// All that a namespace has, in lines.
#[derive(Debug, PartialEq, Eq)]
struct State {
    /// With the name of the interface, and its MTU, in front.
    addresses: Vec<String>,
    routes: Vec<String>,
    rules: Vec<String>,
}

impl State {
    /// Without the loopback interface, and without link-local and multicast addresses, which are the kernel's.
    fn read(text: &str) -> Self {
        let mut state = Self { addresses: Vec::new(), routes: Vec::new(), rules: Vec::new() };
        let mut interface = String::new();
        for line in text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            let unwanted =
                |word: &str| word.starts_with("fe80::") || matches!(word, "ff00::/8" | "lo" | "::1/128");
            if line.iter().any(|word| unwanted(word)) {
                continue;
            }
            match line.as_slice() {
                [number, name, _flags, "mtu", mtu, ..] if number.ends_with(':') => {
                    let name = name.trim_end_matches(':').split('@').next().unwrap_or_default();
                    interface = format!("{name} mtu {mtu}");
                }
                ["inet" | "inet6", ..] => {
                    // IPv6 addresses are not checked for duplicates here.
                    let words: Vec<_> = line.into_iter().filter(|word| *word != "nodad").collect();
                    state.addresses.push(format!("{interface} {}", words.join(" ")));
                }
                [] | ["link/ether" | "link/loopback" | "valid_lft", ..] => {}
                [priority, "from", source, ..] if priority.ends_with(':') => {
                    if *source != "all" {
                        state.rules.push(line.join(" "));
                    }
                }
                _ => state.routes.push(line.join(" ")),
            }
        }
        for lines in [&mut state.addresses, &mut state.routes, &mut state.rules] {
            lines.sort();
        }
        state
    }

    fn of(machine: &Machine) -> Self {
        let shown: [&[&str]; 5] = [
            &["addr"],
            &["-4", "route", "show", "table", "all"],
            &["-6", "route", "show", "table", "all"],
            &["-4", "rule"],
            &["-6", "rule"],
        ];
        Self::read(&shown.map(|args| machine.show(args)).concat())
    }
}

/// The kernel adds its own routes to addresses of IPv6 when it gets to it.
async fn assert_state(machine: &Machine, expected: &State) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while State::of(machine) != *expected && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(State::of(machine), *expected);
}

#[tokio::test]
async fn the_vips_of_a_single_amphora() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.plug(vip()).await.unwrap();
    let expected = State::read(include_str!("octavia/plug-vip-single.txt"));
    assert_eq!((expected.addresses.len(), expected.routes.len(), expected.rules.len()), (4, 18, 3));
    assert_state(&machine, &expected).await;
}

#[tokio::test]
async fn the_vips_of_a_pair() {
    let Some(machine) = Machine::new(Topology::ActiveStandby) else { return };
    machine.plug(vip()).await.unwrap();
    let expected = State::read(include_str!("octavia/plug-vip-active_standby.txt"));
    assert_eq!((expected.addresses.len(), expected.routes.len(), expected.rules.len()), (1, 9, 0));
    assert_state(&machine, &expected).await;
}

#[tokio::test]
async fn a_network_that_changes_and_one_beside_the_vips() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.plug(vip()).await.unwrap();
    for body in [PLUG_NETWORK, PLUG_NETWORK_UPDATE, PLUG_VIP_NETWORK] {
        machine.plug(network(body)).await.unwrap();
    }
    let mut expected = State::read(include_str!("octavia/plug-network-single.txt"));
    assert_eq!((expected.addresses.len(), expected.routes.len(), expected.rules.len()), (5, 16, 1));
    // Octavia's agent leaves these of an additional VIP that the last request does not have.
    let left = [
        "10.79.0.0/24 dev eth1 table 1 proto static scope link src 10.79.0.100",
        "10.79.0.0/24 dev eth1 proto static scope link",
    ];
    expected.routes.retain(|route| !left.contains(&route.as_str()));
    assert_eq!(expected.routes.len(), 14);
    assert_state(&machine, &expected).await;
}
