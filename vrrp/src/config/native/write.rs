//! The canonical form of a document.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use serde::Serialize;

use crate::{
    config::{
        Config, Garp as ConfigGarp, Instance as ConfigInstance, Preempt, RouteScope,
        Unicast as ConfigUnicast, VirtualAddress, VirtualRoute, VirtualRule,
    },
    packet::{Auth, Interval},
};

/// The document that [`parse`](super::parse) reads as this configuration, with every value spelled out. The password is
/// in it.
///
/// What a text cannot say is lost: fractions of a millisecond.
pub fn to_json(config: &Config) -> String {
    let document = Document { instances: config.instances.iter().map(Instance::of).collect() };
    serde_json::to_string_pretty(&document).expect("strings, numbers and lists are JSON")
}

#[derive(Serialize)]
struct Document<'c> {
    instances: Vec<Instance<'c>>,
}

#[derive(Serialize)]
struct Instance<'c> {
    name: &'c str,
    interface: &'c str,
    vrid: u8,
    version: u8,
    priority: u8,
    interval_ms: u64,
    initially_master: bool,
    preempt: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    preempt_delay_ms: Option<u64>,
    accept: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unicast: Option<Unicast<'c>>,
    garp: Garp,
    addresses: Vec<Address<'c>>,
    excluded: Vec<Address<'c>>,
    routes: Vec<Route<'c>>,
    rules: Vec<Rule>,
    track_interfaces: Vec<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    track: Option<Track>,
}

#[derive(Serialize)]
struct Unicast<'c> {
    source: IpAddr,
    peers: &'c [IpAddr],
    check_source: bool,
}

#[derive(Serialize)]
struct Garp {
    repeat: u32,
    delay_ms: u64,
    refresh_ms: u64,
    refresh_repeat: u32,
    lower_repeat: u32,
    lower_delay_ms: u64,
}

#[derive(Serialize)]
struct Address<'c> {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<&'c str>,
}

#[derive(Serialize)]
struct Route<'c> {
    destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    interface: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<IpAddr>,
    scope: &'static str,
    onlink: bool,
    table: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<u32>,
}

#[derive(Serialize)]
struct Rule {
    source: String,
    table: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
}

#[derive(Serialize)]
struct Track {
    fall: u32,
    rise: u32,
}

impl<'c> Instance<'c> {
    fn of(instance: &'c ConfigInstance) -> Self {
        let (version, interval_ms) = match instance.interval {
            Interval::Seconds(seconds) => (2, u64::from(seconds) * 1000),
            Interval::Centiseconds(centiseconds) => (3, u64::from(centiseconds) * 10),
        };
        let (preempt, preempt_delay_ms) = match instance.preempt {
            Preempt::Never => (false, None),
            Preempt::After(delay) => (true, Some(millis(delay))),
        };
        Self {
            name: &instance.name,
            interface: instance.interface.as_str(),
            vrid: instance.vrid,
            version,
            priority: instance.priority,
            interval_ms,
            initially_master: instance.initially_master,
            preempt,
            preempt_delay_ms,
            accept: instance.accept,
            password: password(instance.auth),
            unicast: instance.unicast.as_ref().map(Unicast::of),
            garp: Garp::of(instance.garp),
            addresses: instance.addresses.iter().map(Address::of).collect(),
            excluded: instance.excluded.iter().map(Address::of).collect(),
            routes: instance.routes.iter().map(Route::of).collect(),
            rules: instance.rules.iter().map(Rule::of).collect(),
            track_interfaces: instance.track_interfaces.iter().map(|interface| interface.as_str()).collect(),
            track: instance.track.map(|track| Track { fall: track.fall, rise: track.rise }),
        }
    }
}

impl<'c> Unicast<'c> {
    fn of(unicast: &'c ConfigUnicast) -> Self {
        Self { source: unicast.source, peers: &unicast.peers, check_source: unicast.check_source }
    }
}

impl Garp {
    fn of(garp: ConfigGarp) -> Self {
        Self {
            repeat: garp.repeat,
            delay_ms: millis(garp.delay),
            refresh_ms: millis(garp.refresh),
            refresh_repeat: garp.refresh_repeat,
            lower_repeat: garp.lower_repeat,
            lower_delay_ms: millis(garp.lower_delay),
        }
    }
}

impl<'c> Address<'c> {
    fn of(address: &'c VirtualAddress) -> Self {
        Self { address: net(address.net), interface: address.interface.as_ref().map(|name| name.as_str()) }
    }
}

impl<'c> Route<'c> {
    fn of(route: &'c VirtualRoute) -> Self {
        Self {
            destination: net(route.destination),
            gateway: route.gateway,
            interface: route.interface.as_str(),
            source: route.source,
            scope: match route.scope {
                RouteScope::Global => "global",
                RouteScope::Link => "link",
            },
            onlink: route.onlink,
            table: route.table.0,
            metric: route.metric,
        }
    }
}

impl Rule {
    fn of(rule: &VirtualRule) -> Self {
        Self { source: net(rule.source), table: rule.table.0, priority: rule.priority }
    }
}

fn net(net: IpNet) -> String {
    net.to_string()
}

fn millis(delay: Duration) -> u64 {
    u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)
}

/// Without the zeros that fill it up.
fn password(auth: Auth) -> Option<String> {
    let Auth::Password(octets) = auth else { return None };
    let end = octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
    Some(octets.iter().take(end).copied().map(char::from).collect())
}
