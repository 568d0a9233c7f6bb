//! From what a `vrrp_instance` says to what it means.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use amphora_model::Faults;

use super::{super::validate::Field, global::Globals, lexer::Statement};
use crate::{
    config::{
        Garp, Instance, InterfaceName, Preempt, Track, Unicast, VirtualAddress, VirtualRoute, VirtualRule,
    },
    packet::{Auth, Family, Interval, Version},
};

/// keepalived's, where neither a state nor a priority says something else.
const DEFAULT_PRIORITY: u8 = 100;
/// The priority of who owns the addresses.
const OWNER: u8 = 255;
/// A second in microseconds: keepalived's `advert_int`.
const DEFAULT_INTERVAL: u64 = 1_000_000;

/// `auth_type`.
#[derive(Clone, Copy, Debug)]
pub(super) enum AuthType {
    /// `PASS`.
    Pass,
}

/// What was read so far. `None`: not said, or said with a fault that was noted.
#[derive(Debug)]
pub(super) struct Draft<'s> {
    name: &'s str,
    block: &'s Statement,
    /// Of the first address of the virtual router that was read.
    pub(super) family: Option<Family>,
    pub(super) initially_master: Option<bool>,
    pub(super) interface: Option<InterfaceName>,
    pub(super) vrid: Option<u8>,
    pub(super) priority: Option<u8>,
    pub(super) version: Option<Version>,
    /// In microseconds.
    pub(super) interval: Option<(&'s Statement, u64)>,
    pub(super) nopreempt: Option<&'s Statement>,
    pub(super) preempt_delay: Option<(&'s Statement, Duration)>,
    pub(super) auth_type: Option<AuthType>,
    pub(super) password: Option<[u8; 8]>,
    /// The last two fields are not used.
    pub(super) garp: Garp,
    pub(super) lower_repeat: Option<u32>,
    pub(super) lower_delay: Option<Duration>,
    pub(super) source: Option<IpAddr>,
    pub(super) peers: Vec<IpAddr>,
    pub(super) check_source: bool,
    pub(super) addresses: Vec<VirtualAddress>,
    pub(super) excluded: Vec<VirtualAddress>,
    pub(super) routes: Vec<VirtualRoute>,
    pub(super) rules: Vec<VirtualRule>,
    pub(super) track_interfaces: Vec<InterfaceName>,
    /// Whether a script was named.
    pub(super) tracks: bool,
    pub(super) track: Option<Track>,
    lines: HashMap<(Field, Option<usize>), usize>,
}

impl<'s> Draft<'s> {
    pub(super) fn new(name: &'s str, block: &'s Statement, globals: &Globals) -> Self {
        Self {
            name,
            block,
            family: None,
            initially_master: None,
            interface: None,
            vrid: None,
            priority: None,
            version: None,
            interval: None,
            nopreempt: None,
            preempt_delay: None,
            auth_type: None,
            password: None,
            garp: globals.garp,
            lower_repeat: None,
            lower_delay: None,
            source: None,
            peers: Vec::new(),
            check_source: false,
            addresses: Vec::new(),
            excluded: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
            track_interfaces: Vec::new(),
            tracks: false,
            track: None,
            lines: HashMap::new(),
        }
    }

    /// Remembers where something stands.
    pub(super) fn place(&mut self, field: Field, index: Option<usize>, statement: &Statement) {
        self.lines.insert((field, index), statement.line);
    }

    /// The line of something, or of what it is a part of.
    pub(super) fn line_of(&self, field: Field, index: Option<usize>) -> usize {
        let lines = &self.lines;
        lines.get(&(field, index)).or_else(|| lines.get(&(field, None))).map_or(self.block.line, |line| *line)
    }

    /// The first address tells the family.
    pub(super) fn family_is_of(&mut self, address: Option<IpAddr>) {
        self.family = self.family.or(address.map(Family::of));
    }

    /// The instance; `None` when something is missing that there is no default for.
    pub(super) fn finish(&self, globals: &Globals, faults: &Faults) -> Option<Instance> {
        let family = self.family.unwrap_or(Family::V4);
        let version = match (self.version, family) {
            (Some(version), _) => version,
            // Whatever vrrp_version says.
            (None, Family::V6) => Version::V3,
            (None, Family::V4) => globals.version,
        };
        let (initially_master, priority) = match (self.initially_master, self.priority) {
            (None, priority) => (priority == Some(OWNER), priority.unwrap_or(DEFAULT_PRIORITY)),
            (Some(master), Some(priority)) => (master, priority),
            (Some(master), None) => (master, if master { OWNER } else { DEFAULT_PRIORITY }),
        };
        let interval = self.interval(version, faults);
        let preempt = self.preempt(faults);
        let unicast = self.unicast(globals, faults);
        let missing = |what: &str| self.block.fault(faults, format_args!("needs {what}"));
        if self.interface.is_none() && !self.says("interface") {
            missing("an interface");
        }
        if self.vrid.is_none() && !self.says("virtual_router_id") {
            missing("a virtual_router_id");
        }
        let garp = Garp {
            lower_repeat: self.lower_repeat.unwrap_or_else(|| globals.lower_repeat()),
            lower_delay: self.lower_delay.unwrap_or_else(|| globals.lower_delay()),
            ..self.garp
        };
        Some(Instance {
            name: self.name.to_owned(),
            interface: self.interface.clone()?,
            vrid: self.vrid?,
            family,
            priority,
            interval: interval?,
            preempt: preempt?,
            initially_master,
            accept: true,
            auth: self.auth(version),
            unicast: unicast?,
            garp,
            addresses: self.addresses.clone(),
            excluded: self.excluded.clone(),
            routes: self.routes.clone(),
            rules: self.rules.clone(),
            track_interfaces: self.track_interfaces.clone(),
            track: self.track,
        })
    }

    fn says(&self, keyword: &str) -> bool {
        self.block.block.iter().flatten().any(|statement| statement.keyword() == keyword)
    }

    fn interval(&self, version: Version, faults: &Faults) -> Option<Interval> {
        let micros = self.interval.map_or(DEFAULT_INTERVAL, |(_, micros)| micros);
        let (unit, max, reason) = match version {
            Version::V2 => (1_000_000, 255, "must be 1 to 255 whole seconds in version 2"),
            Version::V3 => (10_000, 4095, "must be 0.01 to 40.95 seconds in hundredths in version 3"),
        };
        let units = u16::try_from(micros / unit).ok().filter(|units| (1..=max).contains(units));
        let interval = units.filter(|_| micros.is_multiple_of(unit)).and_then(|units| match version {
            Version::V2 => u8::try_from(units).ok().map(Interval::Seconds),
            Version::V3 => Some(Interval::Centiseconds(units)),
        });
        if let (None, Some((statement, _))) = (interval, self.interval) {
            statement.fault(faults, reason);
        }
        interval
    }

    fn preempt(&self, faults: &Faults) -> Option<Preempt> {
        // `nopreempt` beside `state MASTER`, as Octavia before 15.0.0 writes it, is cleared by keepalived.
        let nopreempt =
            self.nopreempt.filter(|_| self.initially_master != Some(true) || self.says("preempt"));
        match (nopreempt, self.preempt_delay) {
            (Some(_), Some((delay, duration))) if !duration.is_zero() => {
                delay.fault(faults, "cannot be with nopreempt");
                None
            }
            (Some(nopreempt), _) if self.says("preempt") => {
                nopreempt.fault(faults, "cannot be with preempt");
                None
            }
            (Some(_), _) => Some(Preempt::Never),
            (None, Some((_, duration))) => Some(Preempt::After(duration)),
            (None, None) => Some(Preempt::After(Duration::ZERO)),
        }
    }

    /// Version 3 has none: keepalived leaves it out, and Octavia gives it for IPv6 as well.
    fn auth(&self, version: Version) -> Auth {
        match (version, self.auth_type, self.password) {
            (Version::V2, Some(AuthType::Pass), Some(password)) => Auth::Password(password),
            _ => Auth::None,
        }
    }

    /// Multicast unless there is a peer, whatever else speaks of unicast; so does keepalived.
    fn unicast(&self, globals: &Globals, faults: &Faults) -> Option<Option<Unicast>> {
        if self.peers.is_empty() {
            return Some(None);
        }
        let Some(source) = self.source else {
            if !self.says("unicast_src_ip") {
                self.block.fault(faults, "needs a unicast_src_ip, because it has a unicast_peer");
            }
            return None;
        };
        let check_source = self.check_source || globals.check_source;
        Some(Some(Unicast { source, peers: self.peers.clone(), check_source }))
    }
}
