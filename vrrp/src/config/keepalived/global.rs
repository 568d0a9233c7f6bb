//! `global_defs`.

use std::time::Duration;

use amphora_model::Faults;

use super::{
    lexer::Statement,
    unsupported,
    value::{number, seconds, times},
};
use crate::{config::Garp, packet::Version};

/// The greatest number of announcements at a time. keepalived sets no bound, and would send for minutes.
pub(super) const MAX_REPEAT: u32 = 1000;
/// keepalived keeps delays as microseconds in 32 bits.
pub(super) const MAX_DELAY: u32 = u32::MAX / 1_000_000;

/// What instances start from.
#[derive(Debug)]
pub(super) struct Globals {
    /// `vrrp_version`: of instances that do not say, over IPv4.
    pub(super) version: Version,
    /// `vrrp_garp_*`: of instances that come after. Its last two fields are not used.
    pub(super) garp: Garp,
    /// `vrrp_garp_lower_prio_repeat`, of all instances that do not say.
    lower_repeat: Option<u32>,
    /// `vrrp_garp_lower_prio_delay`, of all instances that do not say.
    lower_delay: Option<Duration>,
    /// `vrrp_check_unicast_src`, of all instances.
    pub(super) check_source: bool,
}

impl Default for Globals {
    fn default() -> Self {
        Self {
            version: Version::V2,
            garp: Garp::default(),
            lower_repeat: None,
            lower_delay: None,
            check_source: false,
        }
    }
}

impl Globals {
    pub(super) fn read(&mut self, block: &Statement, faults: &Faults) {
        for statement in block.block(faults).unwrap_or_default() {
            self.statement(statement, faults);
        }
    }

    fn statement(&mut self, s: &Statement, faults: &Faults) {
        let garp = &mut self.garp;
        match s.keyword() {
            "vrrp_version" => set(&mut self.version, s.value(faults, version)),
            "vrrp_garp_master_delay" => set(&mut garp.delay, s.value(faults, seconds(0..=MAX_DELAY))),
            "vrrp_garp_master_repeat" => set(&mut garp.repeat, s.value(faults, times(1..=MAX_REPEAT))),
            "vrrp_garp_master_refresh" => set(&mut garp.refresh, s.value(faults, seconds(0..=u32::MAX))),
            "vrrp_garp_master_refresh_repeat" => {
                set(&mut garp.refresh_repeat, s.value(faults, times(1..=MAX_REPEAT)));
            }
            "vrrp_garp_lower_prio_delay" => self.lower_delay = s.value(faults, seconds(0..=MAX_DELAY)),
            "vrrp_garp_lower_prio_repeat" => self.lower_repeat = s.value(faults, number(0..=MAX_REPEAT)),
            "vrrp_check_unicast_src" => self.check_source = s.flag(faults).is_some(),
            // In notifications and for scripts, of which there are none.
            "router_id" => drop(s.value(faults, |_| Ok(()))),
            "script_user" => drop(s.without_block(faults)),
            "enable_script_security" => drop(s.flag(faults)),
            _ => unsupported::refuse(s, "global_defs", faults),
        }
    }

    /// By default that of a new master, as the globals have it, whatever the instance has.
    pub(super) fn lower_repeat(&self) -> u32 {
        self.lower_repeat.unwrap_or(self.garp.repeat)
    }

    /// By default that of a new master, as the globals have it, whatever the instance has.
    pub(super) fn lower_delay(&self) -> Duration {
        self.lower_delay.unwrap_or(self.garp.delay)
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// The version of the protocol.
pub(super) fn version(text: &str) -> Result<Version, String> {
    match text {
        "2" => Ok(Version::V2),
        "3" => Ok(Version::V3),
        _ => Err("must be 2 or 3".to_owned()),
    }
}
