//! `vrrp_instance`.

use std::time::Duration;

use amphora_model::Faults;

use super::{
    super::validate::Field,
    draft::{AuthType, Draft},
    global::{self, Globals, MAX_DELAY, MAX_REPEAT},
    lexer::Statement,
    route::{virtual_address, virtual_route, virtual_rule},
    script::{self, Scripts},
    unsupported,
    value::{Reason, address, decimal_seconds, interface, number, seconds, times},
};
use crate::packet::{Family, Version};

/// The greatest `preempt_delay`, in microseconds (keepalived's `TIMER_MAX_SEC`).
const MAX_PREEMPT_DELAY: u64 = 1_000_000_000;
/// Octets of a password that are sent (RFC 2338 section 5.3.6).
const PASSWORD: usize = 8;
/// Blocks whose lines add to those of an earlier one.
const LISTS: [&str; 7] = [
    "unicast_peer",
    "virtual_ipaddress",
    "virtual_ipaddress_excluded",
    "virtual_routes",
    "virtual_rules",
    "track_interface",
    "track_script",
];

/// Reads a block; `None` when it has no name or no block at all.
pub(super) fn read<'s>(
    block: &'s Statement,
    globals: &Globals,
    scripts: &Scripts,
    faults: &Faults,
) -> Option<Draft<'s>> {
    let [name] = block.values() else {
        block.fault(faults, "needs a name, and nothing else before its block");
        return None;
    };
    let mut reader = Reader { draft: Draft::new(name, block, globals), scripts, faults, seen: Vec::new() };
    for statement in block.body(faults)? {
        reader.statement(statement);
    }
    Some(reader.draft)
}

struct Reader<'s, 'f> {
    draft: Draft<'s>,
    scripts: &'f Scripts,
    faults: &'f Faults,
    seen: Vec<&'s str>,
}

impl<'s> Reader<'s, '_> {
    fn statement(&mut self, s: &'s Statement) {
        let keyword = s.keyword();
        if self.seen.contains(&keyword) && !LISTS.contains(&keyword) {
            return s.fault(self.faults, "is given twice");
        }
        self.seen.push(keyword);
        let (draft, faults) = (&mut self.draft, self.faults);
        match keyword {
            "state" => draft.initially_master = s.value(faults, state),
            "interface" => draft.interface = s.value(faults, interface),
            "virtual_router_id" => {
                draft.place(Field::Vrid, None, s);
                draft.vrid = s.value(faults, octet);
            }
            "priority" => draft.priority = s.value(faults, octet),
            "version" => self.version(s),
            "advert_int" => draft.interval = s.value(faults, interval).map(|micros| (s, micros)),
            "preempt" => drop(s.flag(faults)),
            "nopreempt" => {
                draft.place(Field::Preempt, None, s);
                draft.nopreempt = s.flag(faults).map(|()| s);
            }
            "preempt_delay" => {
                draft.place(Field::PreemptDelay, None, s);
                draft.preempt_delay = s.value(faults, preempt_delay).map(|delay| (s, delay));
            }
            "accept" => drop(s.flag(faults)),
            "authentication" => self.authentication(s),
            "garp_master_delay"
            | "garp_master_repeat"
            | "garp_master_refresh"
            | "garp_master_refresh_repeat"
            | "garp_lower_prio_delay"
            | "garp_lower_prio_repeat" => self.garp(s),
            "check_unicast_src" => draft.check_source = s.flag(faults).is_some(),
            "unicast_src_ip" => {
                draft.place(Field::UnicastSource, None, s);
                draft.source = s.value(faults, address);
                draft.family_is_of(draft.source);
            }
            _ => self.list(s),
        }
    }

    fn list(&mut self, s: &'s Statement) {
        match s.keyword() {
            "unicast_peer" => self.each(
                s,
                Field::UnicastPeers,
                |s, faults| s.only_word(faults, address),
                |draft, it| {
                    draft.family_is_of(Some(it));
                    draft.peers.push(it);
                    draft.peers.len()
                },
            ),
            "virtual_ipaddress" => self.each(s, Field::Addresses, virtual_address, |draft, it| {
                draft.family_is_of(Some(it.net.addr()));
                draft.addresses.push(it);
                draft.addresses.len()
            }),
            "virtual_ipaddress_excluded" => self.each(s, Field::Excluded, virtual_address, |draft, it| {
                draft.excluded.push(it);
                draft.excluded.len()
            }),
            "virtual_routes" => self.each(s, Field::Routes, virtual_route, |draft, it| {
                draft.routes.push(it);
                draft.routes.len()
            }),
            "virtual_rules" => self.each(s, Field::Rules, virtual_rule, |draft, it| {
                draft.rules.push(it);
                draft.rules.len()
            }),
            "track_interface" => self.each(
                s,
                Field::TrackInterfaces,
                |s, faults| {
                    s.without_block(faults)?;
                    script::weight(s.values(), s, faults);
                    interface(s.keyword()).map_err(|reason| s.fault(faults, reason)).ok()
                },
                |draft, it| {
                    draft.track_interfaces.push(it);
                    draft.track_interfaces.len()
                },
            ),
            "track_script" => self.track_script(s),
            _ => unsupported::refuse(s, "vrrp_instance", self.faults),
        }
    }

    /// Reads each line of a block by `read`, and adds it by `add`, which tells how many there are then.
    fn each<T>(
        &mut self,
        block: &'s Statement,
        field: Field,
        read: impl Fn(&Statement, &Faults) -> Option<T>,
        add: impl Fn(&mut Draft<'s>, T) -> usize,
    ) {
        self.draft.place(field, None, block);
        for line in block.block(self.faults).unwrap_or_default() {
            if let Some(item) = read(line, self.faults) {
                let count = add(&mut self.draft, item);
                self.draft.place(field, Some(count - 1), line);
            }
        }
    }

    fn version(&mut self, s: &Statement) {
        let version = s.value(self.faults, global::version);
        if version == Some(Version::V2) && self.draft.family == Some(Family::V6) {
            // keepalived ignores it there, and obeys it before the first address.
            s.fault(self.faults, "version 2 must stand before the first IPv6 address to have an effect");
        }
        self.draft.version = version;
    }

    fn garp(&mut self, s: &Statement) {
        let (draft, faults) = (&mut self.draft, self.faults);
        let garp = &mut draft.garp;
        match s.keyword() {
            "garp_master_delay" => garp.delay = s.value(faults, seconds(0..=MAX_DELAY)).unwrap_or(garp.delay),
            "garp_master_repeat" => {
                garp.repeat = s.value(faults, times(1..=MAX_REPEAT)).unwrap_or(garp.repeat);
            }
            "garp_master_refresh" => {
                garp.refresh = s.value(faults, seconds(0..=u32::MAX)).unwrap_or(garp.refresh);
            }
            "garp_master_refresh_repeat" => {
                let repeat = s.value(faults, times(1..=MAX_REPEAT));
                garp.refresh_repeat = repeat.unwrap_or(garp.refresh_repeat);
            }
            "garp_lower_prio_delay" => draft.lower_delay = s.value(faults, seconds(0..=MAX_DELAY)),
            _ => draft.lower_repeat = s.value(faults, number(0..=MAX_REPEAT)),
        }
    }

    fn authentication(&mut self, block: &'s Statement) {
        let faults = self.faults;
        let mut seen: Vec<&str> = Vec::new();
        let Some(statements) = block.block(faults) else { return };
        for s in statements {
            if seen.contains(&s.keyword()) {
                s.fault(faults, "is given twice");
                continue;
            }
            seen.push(s.keyword());
            match s.keyword() {
                "auth_type" => self.draft.auth_type = s.value(faults, auth_type),
                "auth_pass" => {
                    self.draft.place(Field::Password, None, s);
                    self.draft.password = s.value(faults, password);
                }
                _ => unsupported::refuse(s, "authentication", faults),
            }
        }
        if !seen.contains(&"auth_type") {
            block.fault(faults, "needs an auth_type");
        }
        if !seen.contains(&"auth_pass") {
            block.fault(faults, "needs an auth_pass");
        }
    }

    fn track_script(&mut self, block: &Statement) {
        for line in block.block(self.faults).unwrap_or_default() {
            let track = self.scripts.tracked(line, self.faults);
            if std::mem::replace(&mut self.draft.tracks, true) {
                line.fault(self.faults, "only one script can be tracked: it stands for the data plane");
            }
            self.draft.track = track;
        }
    }
}

impl Statement {
    /// The only word of a line in a block, which `read` understands.
    fn only_word<T>(&self, faults: &Faults, read: impl FnOnce(&str) -> Result<T, Reason>) -> Option<T> {
        self.without_block(faults)?;
        if let Some(other) = self.values().first() {
            self.fault(faults, format_args!("{other:?} is not supported here"));
            return None;
        }
        read(self.keyword()).map_err(|reason| self.fault(faults, reason)).ok()
    }
}

fn octet(text: &str) -> Result<u8, Reason> {
    let number = number(1..=255)(text)?;
    u8::try_from(number).map_err(|error| error.to_string())
}

/// Whether it starts as master.
fn state(text: &str) -> Result<bool, Reason> {
    match text {
        "MASTER" => Ok(true),
        "BACKUP" => Ok(false),
        _ => Err("must be MASTER or BACKUP".to_owned()),
    }
}

/// In microseconds; what the version allows is not known yet.
fn interval(text: &str) -> Result<u64, Reason> {
    decimal_seconds(text).ok_or_else(|| "must be seconds, with decimals in version 3".to_owned())
}

fn preempt_delay(text: &str) -> Result<Duration, Reason> {
    decimal_seconds(text)
        .filter(|micros| *micros <= MAX_PREEMPT_DELAY && micros.is_multiple_of(1000))
        .map(Duration::from_micros)
        .ok_or_else(|| "must be 0 to 1000 seconds, in milliseconds".to_owned())
}

fn auth_type(text: &str) -> Result<AuthType, Reason> {
    match text {
        "PASS" => Ok(AuthType::Pass),
        "AH" => Err("IPsec AH is not supported".to_owned()),
        _ => Err("must be PASS".to_owned()),
    }
}

/// The first eight octets count.
fn password(text: &str) -> Result<[u8; PASSWORD], Reason> {
    if text.is_empty() || !text.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
        return Err("must be one or more printable ASCII characters".to_owned());
    }
    let mut password = [0; PASSWORD];
    for (place, octet) in password.iter_mut().zip(text.bytes()) {
        *place = octet;
    }
    Ok(password)
}
