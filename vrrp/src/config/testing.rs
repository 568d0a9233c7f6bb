//! Made-up configurations for property tests, and keepalived.conf for them.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;
use proptest::{collection::vec, option, prelude::*};

use super::{
    Config, Garp, Instance, InterfaceName, Preempt, RouteScope, Table, Track, Unicast, VirtualAddress,
    VirtualRoute, VirtualRule,
};
use crate::packet::{Auth, Family, Interval};

/// Where a configuration must be one that keepalived.conf can say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Keepalived,
    Native,
}

/// Anything that is valid.
pub(super) fn config(text: For) -> impl Strategy<Value = Config> {
    vec(instance(text), 1..4).prop_map(|mut instances| {
        for (n, instance) in instances.iter_mut().enumerate() {
            instance.name = format!("{}{n}", instance.name);
            instance.vrid = instance.vrid.wrapping_mul(4).wrapping_add(n as u8).max(1);
        }
        let mut seen = std::collections::HashSet::new();
        instances.retain(|i| seen.insert((i.interface.clone(), i.family, i.vrid)));
        Config { instances }
    })
}

fn instance(text: For) -> impl Strategy<Value = Instance> {
    prop_oneof![Just(Family::V4), Just(Family::V6)].prop_flat_map(move |family| {
        let identity = ("[a-z]{1,8}", interface(), 1u8..=63, 1u8..=255, any::<bool>());
        let lists = (
            vec((address(family), option::of(interface())), 1..6),
            vec((any_address(), option::of(interface())), 0..3),
            vec(route(), 0..4),
            vec(rule(text), 0..3),
            proptest::collection::hash_set(interface(), 0..3),
        );
        // A quoted word can have neither quotes nor parameters in it.
        let password = if text == For::Keepalived { "[!#%-Z_-z]{1,8}" } else { "[ -~]{1,8}" };
        let modes = (interval(family), preempt(text), password, any::<bool>());
        let rest = (option::of(unicast(family)), garp(text), option::of((1u32..100, 1u32..100)));
        (identity, lists, modes, rest).prop_map(move |(identity, lists, modes, rest)| {
            let (name, interface, vrid, priority, initially_master) = identity;
            let (addresses, excluded, routes, rules, track_interfaces) = lists;
            let (interval, preempt, password, has_password) = modes;
            let (unicast, garp, track) = rest;
            let initially_master = initially_master && preempt == Preempt::After(Duration::ZERO);
            let priority = if preempt == Preempt::Never { priority.min(254) } else { priority };
            let mut octets = [0; 8];
            octets[..password.len()].copy_from_slice(password.as_bytes());
            let password = has_password && family == Family::V4 && matches!(interval, Interval::Seconds(_));
            let mut seen = std::collections::HashSet::new();
            let mut unique = |list: Vec<(IpNet, Option<InterfaceName>)>| -> Vec<_> {
                let list = list.into_iter().filter(|(net, _)| seen.insert(net.addr()));
                list.map(|(net, interface)| VirtualAddress { net, interface }).collect()
            };
            Instance {
                name,
                interface,
                vrid,
                family,
                priority,
                interval,
                preempt,
                initially_master,
                accept: true,
                auth: if password { Auth::Password(octets) } else { Auth::None },
                unicast,
                garp,
                addresses: unique(addresses),
                excluded: unique(excluded),
                routes,
                rules,
                track_interfaces: track_interfaces.into_iter().collect(),
                track: track.map(|(fall, rise)| Track { fall, rise }),
            }
        })
    })
}

fn interface() -> impl Strategy<Value = InterfaceName> {
    "[a-z][a-z0-9.-]{0,14}".prop_filter_map("a name", |name| InterfaceName::new(&name))
}

fn host(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::V4 => {
            (1u8..=126, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| Ipv4Addr::new(a, b, c, d).into()).boxed()
        }
        Family::V6 => any::<[u8; 15]>()
            .prop_map(|rest| {
                let mut octets = [0xfd; 16];
                octets[1..].copy_from_slice(&rest);
                Ipv6Addr::from(octets).into()
            })
            .boxed(),
    }
}

fn address(family: Family) -> impl Strategy<Value = IpNet> {
    (host(family), 0u8..=128).prop_map(|(host, length)| {
        let max = if host.is_ipv4() { 32 } else { 128 };
        IpNet::new(host, length.min(max)).expect("a length")
    })
}

fn any_address() -> impl Strategy<Value = IpNet> {
    prop_oneof![address(Family::V4), address(Family::V6)]
}

fn interval(family: Family) -> BoxedStrategy<Interval> {
    let v3 = (1u16..=4095).prop_map(Interval::Centiseconds);
    let v2 = (1u8..=255).prop_map(Interval::Seconds);
    match family {
        Family::V4 => prop_oneof![v2, v3].boxed(),
        Family::V6 => prop_oneof![1 => v2, 9 => v3].boxed(),
    }
}

fn preempt(text: For) -> impl Strategy<Value = Preempt> {
    let max = if text == For::Keepalived { 1_000_000 } else { u64::from(u32::MAX) * 1000 };
    prop_oneof![
        Just(Preempt::Never),
        Just(Preempt::After(Duration::ZERO)),
        (1..=max).prop_map(|millis| Preempt::After(Duration::from_millis(millis))),
    ]
}

fn unicast(family: Family) -> impl Strategy<Value = Unicast> {
    (host(family), proptest::collection::hash_set(host(family), 1..4), any::<bool>()).prop_filter_map(
        "other addresses",
        |(source, peers, check_source)| {
            let others = !peers.contains(&source);
            others.then(|| Unicast { source, peers: peers.into_iter().collect(), check_source })
        },
    )
}

fn garp(text: For) -> impl Strategy<Value = Garp> {
    let (unit, max) = if text == For::Keepalived { (1000, 4294) } else { (1, u64::from(u32::MAX)) };
    let delay = move || (0..=max).prop_map(move |delay| Duration::from_millis(delay * unit));
    (1u32..=1000, delay(), delay(), 1u32..=1000, 0u32..=1000, delay()).prop_map(
        |(repeat, delay, refresh, refresh_repeat, lower_repeat, lower_delay)| Garp {
            repeat,
            delay,
            refresh,
            refresh_repeat,
            lower_repeat,
            lower_delay,
        },
    )
}

fn route() -> impl Strategy<Value = VirtualRoute> {
    prop_oneof![Just(Family::V4), Just(Family::V6)].prop_flat_map(|family| {
        let addresses = (address(family), option::of(host(family)), option::of(host(family)));
        let rest = (interface(), any::<bool>(), any::<bool>(), 1..=u32::MAX, option::of(any::<u32>()));
        (addresses, rest).prop_map(|((destination, gateway, source), rest)| {
            let (interface, link, onlink, table, metric) = rest;
            let scope = if link && gateway.is_none() { RouteScope::Link } else { RouteScope::Global };
            let (destination, table) = (destination.trunc(), Table(table));
            VirtualRoute { destination, gateway, interface, source, scope, onlink, table, metric }
        })
    })
}

fn rule(text: For) -> impl Strategy<Value = VirtualRule> {
    (any_address(), 1..=u32::MAX, option::of(any::<u32>())).prop_map(move |(source, table, priority)| {
        let priority = if text == For::Keepalived { priority.or(Some(1)) } else { priority };
        VirtualRule { source: source.trunc(), table: Table(table), priority }
    })
}

/// A keepalived.conf that says this.
pub(super) fn keepalived(config: &Config) -> String {
    let mut out = String::new();
    for instance in &config.instances {
        write_instance(&mut out, instance).expect("a string takes everything");
    }
    out
}

fn write_instance(out: &mut String, i: &Instance) -> std::fmt::Result {
    if let Some(Track { fall, rise }) = i.track {
        writeln!(out, "vrrp_script of_{} {{\nscript /x\nfall {fall}\nrise {rise}\n}}", i.name)?;
    }
    writeln!(out, "vrrp_instance {}\n{{\n\tinterface {}\n", i.name, i.interface)?;
    let state = if i.initially_master { "MASTER" } else { "BACKUP" };
    writeln!(out, " state {state} # as it starts\nvirtual_router_id {}\npriority {}", i.vrid, i.priority)?;
    match i.interval {
        Interval::Seconds(seconds) => writeln!(out, "version 2\nadvert_int {seconds}")?,
        Interval::Centiseconds(n) => writeln!(out, "version 3\nadvert_int {}.{:02}", n / 100, n % 100)?,
    }
    match i.preempt {
        Preempt::Never => writeln!(out, "nopreempt")?,
        Preempt::After(delay) => {
            writeln!(out, "preempt_delay {}.{:03}", delay.as_secs(), delay.subsec_millis())?;
        }
    }
    if let Auth::Password(password) = i.auth {
        let password = String::from_utf8_lossy(&password).replace('\0', "");
        writeln!(out, "authentication {{ auth_type PASS\n auth_pass \"{password}\" }}")?;
    }
    if let Some(unicast) = &i.unicast {
        writeln!(out, "unicast_src_ip {}\nunicast_peer {{", unicast.source)?;
        for peer in &unicast.peers {
            writeln!(out, "{peer}")?;
        }
        writeln!(out, "}}{}", if unicast.check_source { "\ncheck_unicast_src" } else { "" })?;
    }
    writeln!(out, "garp_master_delay {}", i.garp.delay.as_secs())?;
    writeln!(out, "garp_master_repeat {}", i.garp.repeat)?;
    writeln!(out, "garp_master_refresh {}", i.garp.refresh.as_secs())?;
    writeln!(out, "garp_master_refresh_repeat {}", i.garp.refresh_repeat)?;
    writeln!(out, "garp_lower_prio_delay {}", i.garp.lower_delay.as_secs())?;
    writeln!(out, "garp_lower_prio_repeat {}", i.garp.lower_repeat)?;
    for (keyword, list) in [("virtual_ipaddress", &i.addresses), ("virtual_ipaddress_excluded", &i.excluded)]
    {
        writeln!(out, "{keyword} {{")?;
        for VirtualAddress { net, interface } in list {
            let device = interface.as_ref().map(|name| format!(" dev {name}")).unwrap_or_default();
            writeln!(out, "{net}{device}")?;
        }
        writeln!(out, "}}")?;
    }
    writeln!(out, "virtual_routes {{")?;
    for route in &i.routes {
        write!(out, "{} dev {} table {}", route.destination, route.interface, route.table.0)?;
        for (option, address) in [("via", route.gateway), ("src", route.source)] {
            if let Some(address) = address {
                write!(out, " {option} {address}")?;
            }
        }
        if route.scope == RouteScope::Link {
            write!(out, " scope link")?;
        }
        if let Some(metric) = route.metric {
            write!(out, " metric {metric}")?;
        }
        writeln!(out, "{}", if route.onlink { " onlink" } else { "" })?;
    }
    writeln!(out, "}}\nvirtual_rules {{")?;
    for rule in &i.rules {
        let priority = rule.priority.unwrap_or_default();
        writeln!(out, "from {} table {} priority {priority}", rule.source, rule.table.0)?;
    }
    writeln!(out, "}}\ntrack_interface {{")?;
    for interface in &i.track_interfaces {
        writeln!(out, "{interface} weight 0")?;
    }
    writeln!(out, "}}")?;
    if i.track.is_some() {
        writeln!(out, "track_script {{ of_{} }}", i.name)?;
    }
    writeln!(out, "}}")
}
