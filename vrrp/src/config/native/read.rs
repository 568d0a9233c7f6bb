//! The objects of a document.

use std::{net::IpAddr, time::Duration};

use amphora_model::{document::object::Object, excerpt};
use ipnet::IpNet;

use crate::{
    config::{
        Garp, Instance, InterfaceName, Preempt, RouteScope, Table, Track, Unicast, VirtualAddress,
        VirtualRoute, VirtualRule,
    },
    packet::{Auth, Family, Interval, Version},
};

/// The longest delay, in milliseconds: that of keepalived.conf.
const MAX_MILLIS: u64 = u32::MAX as u64 * 1000;
/// The greatest number of announcements at a time.
const MAX_REPEAT: u32 = 1000;
/// The greatest count of a health check, keepalived's.
const MAX_COUNT: u32 = i32::MAX as u32;
/// Octets of a password.
const PASSWORD: usize = 8;
const DEFAULT_PRIORITY: u8 = 100;
const DEFAULT_INTERVAL: u64 = 1000;

/// Every instance that could be read, with its path.
pub(super) fn config(o: &mut Object<'_>) -> Option<Vec<(String, Instance)>> {
    o.require("instances", |o, name| {
        let mut count = 0;
        let instances = o.objects(name, |o| {
            count += 1;
            instance(o).map(|instance| (o.path().to_string(), instance))
        });
        if count == 0 {
            o.fault(name, "must be a list of at least one instance");
        }
        Some(instances)
    })
}

fn instance(o: &mut Object<'_>) -> Option<Instance> {
    let name = o.require("name", |o, name| o.parsed(name, |text| Ok(text.to_owned())));
    let interface = o.require("interface", |o, name| o.parsed(name, interface_name));
    let vrid = o.require("vrid", |o, name| o.integer(name, 1..=255));
    let priority = o.integer("priority", 1..=255).unwrap_or(DEFAULT_PRIORITY);
    let interval = interval(o);
    let initially_master = o.boolean("initially_master").unwrap_or(false);
    let preempt = preempt(o);
    let accept = o.boolean("accept").unwrap_or(true);
    let auth = o.parsed("password", password).map_or(Auth::None, Auth::Password);
    let unicast = o.object("unicast", unicast);
    let garp = o.object("garp", |o| Some(garp(o))).unwrap_or_default();
    let addresses = o.objects("addresses", virtual_address);
    let excluded = o.objects("excluded", virtual_address);
    let routes = o.objects("routes", |o| route(o, interface.as_ref()));
    let rules = o.objects("rules", rule);
    let track_interfaces = o.strings("track_interfaces", interface_name);
    let track = o.object("track", track);
    let first = addresses.first().map(|address| address.net.addr());
    let family = first.or(unicast.as_ref().map(|unicast| unicast.source)).map_or(Family::V4, Family::of);
    Some(Instance {
        name: name?,
        interface: interface?,
        vrid: vrid?,
        family,
        priority,
        interval: interval?,
        preempt,
        initially_master,
        accept,
        auth,
        unicast,
        garp,
        addresses,
        excluded,
        routes,
        rules,
        track_interfaces,
        track,
    })
}

fn interval(o: &mut Object<'_>) -> Option<Interval> {
    let version = match o.integer::<u8>("version", 2..=3) {
        Some(2) => Version::V2,
        _ => Version::V3,
    };
    let (unit, max, what) = match version {
        Version::V2 => (1000, 255, "must be whole seconds from 1000 to 255000 in version 2"),
        Version::V3 => (10, 4095, "must be a multiple of 10 from 10 to 40950 in version 3"),
    };
    let millis = o.integer("interval_ms", 1..=MAX_MILLIS).unwrap_or(DEFAULT_INTERVAL);
    let units = u16::try_from(millis / unit)
        .ok()
        .filter(|units| millis.is_multiple_of(unit) && (1..=max).contains(units));
    let interval = units.and_then(|units| match version {
        Version::V2 => u8::try_from(units).ok().map(Interval::Seconds),
        Version::V3 => Some(Interval::Centiseconds(units)),
    });
    if interval.is_none() {
        o.fault("interval_ms", what);
    }
    interval
}

fn millis(o: &mut Object<'_>, name: &'static str) -> Option<Duration> {
    o.integer(name, 0..=MAX_MILLIS).map(Duration::from_millis)
}

fn preempt(o: &mut Object<'_>) -> Preempt {
    let preempt = o.boolean("preempt").unwrap_or(true);
    let delay = millis(o, "preempt_delay_ms").unwrap_or_default();
    if preempt {
        return Preempt::After(delay);
    }
    if !delay.is_zero() {
        o.fault("preempt_delay_ms", "cannot be where preempt is false");
    }
    Preempt::Never
}

fn unicast(o: &mut Object<'_>) -> Option<Unicast> {
    let source = o.require("source", |o, name| o.parsed(name, address));
    let peers = o.strings("peers", address);
    let check_source = o.boolean("check_source").unwrap_or(true);
    Some(Unicast { source: source?, peers, check_source })
}

/// What is not given is keepalived's default, except that a lower priority is answered as a new master announces itself.
fn garp(o: &mut Object<'_>) -> Garp {
    let default = Garp::default();
    let repeat = o.integer("repeat", 1..=MAX_REPEAT).unwrap_or(default.repeat);
    let delay = millis(o, "delay_ms").unwrap_or(default.delay);
    Garp {
        repeat,
        delay,
        refresh: millis(o, "refresh_ms").unwrap_or(default.refresh),
        refresh_repeat: o.integer("refresh_repeat", 1..=MAX_REPEAT).unwrap_or(default.refresh_repeat),
        lower_repeat: o.integer("lower_repeat", 0..=MAX_REPEAT).unwrap_or(repeat),
        lower_delay: millis(o, "lower_delay_ms").unwrap_or(delay),
    }
}

fn virtual_address(o: &mut Object<'_>) -> Option<VirtualAddress> {
    let net = o.require("address", |o, name| o.parsed(name, net));
    let interface = o.parsed("interface", interface_name);
    Some(VirtualAddress { net: net?, interface })
}

fn route(o: &mut Object<'_>, of_instance: Option<&InterfaceName>) -> Option<VirtualRoute> {
    let destination = o.require("destination", |o, name| o.parsed(name, net));
    let gateway = o.parsed("gateway", address);
    let interface = o.parsed("interface", interface_name).or_else(|| of_instance.cloned());
    let source = o.parsed("source", address);
    let scope = o.parsed("scope", |text| match text {
        "global" => Ok(RouteScope::Global),
        "link" => Ok(RouteScope::Link),
        _ => Err("must be \"global\" or \"link\"".to_owned()),
    });
    let onlink = o.boolean("onlink").unwrap_or(false);
    let table = o.integer("table", 1..=u32::MAX).map_or(Table::MAIN, Table);
    let metric = o.integer("metric", 0..=u32::MAX);
    Some(VirtualRoute {
        destination: destination?.trunc(),
        gateway,
        interface: interface?,
        source,
        scope: scope.unwrap_or(RouteScope::Global),
        onlink,
        table,
        metric,
    })
}

fn rule(o: &mut Object<'_>) -> Option<VirtualRule> {
    let source = o.require("source", |o, name| o.parsed(name, net));
    let table = o.require("table", |o, name| o.integer(name, 1..=u32::MAX));
    let priority = o.integer("priority", 0..=u32::MAX);
    Some(VirtualRule { source: source?.trunc(), table: Table(table?), priority })
}

fn track(o: &mut Object<'_>) -> Option<Track> {
    let fall = o.require("fall", |o, name| o.integer(name, 1..=MAX_COUNT));
    let rise = o.require("rise", |o, name| o.integer(name, 1..=MAX_COUNT));
    Some(Track { fall: fall?, rise: rise? })
}

fn interface_name(text: &str) -> Result<InterfaceName, String> {
    InterfaceName::new(text).ok_or_else(|| format!("{} is not the name of an interface", excerpt(text)))
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{} is not an IP address", excerpt(text)))
}

/// With or without the length of its prefix.
fn net(text: &str) -> Result<IpNet, String> {
    let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map_err(|_| format!("{} is not an IP address with or without a prefix length", excerpt(text)))
}

fn password(text: &str) -> Result<[u8; PASSWORD], String> {
    let octets = text.as_bytes();
    let mut password = [0; PASSWORD];
    let printable = octets.iter().all(|octet| matches!(octet, b' '..=b'~'));
    match password.get_mut(..octets.len()) {
        Some(place) if printable && !octets.is_empty() => place.copy_from_slice(octets),
        _ => return Err(format!("must be 1 to {PASSWORD} printable ASCII characters")),
    }
    Ok(password)
}

/// For [`Duration`]s whose bound is checked where they are read.
const _: () = assert!(Duration::from_millis(MAX_MILLIS).as_secs() == u32::MAX as u64);
