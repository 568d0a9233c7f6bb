//! Whether an interface takes addresses and routes from what routers advertise (SLAAC, RFC 4862), and which addresses it answers for:
//! what netlink has no words for of the network, `ip-sysctl` of the kernel's documentation.

#![expect(clippy::disallowed_methods, reason = "procfs answers from memory")]

use std::{fs, io};

use super::{Interface, Outcome};
use crate::NetError;

/// Also where the interface forwards.
const ALWAYS: &str = "2";

/// Of a default route by an advertisement: any other one, whose metric is 1024 unless it says another, is before it.
const METRIC: &str = "2048";

/// Lets an interface of this thread's namespace take what routers advertise, or nothing of it. What it has taken stays. A
/// kernel without IPv6 takes nothing, which is as good.
///
/// # Errors
/// When the kernel's settings cannot be written: `/proc/sys` is read-only.
pub fn autoconfigure(interface: &Interface, take: bool) -> Result<Outcome, NetError> {
    let settings =
        [("accept_ra", if take { ALWAYS } else { "0" }), ("autoconf", if take { "1" } else { "0" })];
    let mut outcome = Outcome::Unchanged;
    let set = |interface, name, value| set(interface, "ipv6", name, value);
    // Before anything is taken. Older kernels have no such setting.
    let metric = if take { set(interface, "ra_defrtr_metric", METRIC) } else { Ok(Outcome::Unchanged) };
    for set in settings.map(|(name, value)| set(interface, name, value)).into_iter().chain([metric]) {
        if set.map_err(NetError::socket("set what an interface takes from routers"))? == Outcome::Changed {
            outcome = Outcome::Changed;
        }
    }
    Ok(outcome)
}

/// Of the addresses of this thread's namespace an interface answers ARP for those that it has itself: of two on one link the other one would
/// answer as well, and go one day.
///
/// # Errors
/// When the kernel's settings cannot be written: `/proc/sys` is read-only.
pub fn answer_for_own(interface: &Interface) -> Result<Outcome, NetError> {
    set(interface, "ipv4", "arp_ignore", "1")
        .map_err(NetError::socket("set which addresses an interface answers for"))
}

fn set(interface: &Interface, family: &str, name: &str, value: &str) -> io::Result<Outcome> {
    let path = format!("/proc/sys/net/{family}/conf/{}/{name}", interface.name);
    match fs::read_to_string(&path) {
        Ok(there) if there.trim() == value => Ok(Outcome::Unchanged),
        Ok(_) => fs::write(&path, value).map(|()| Outcome::Changed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Outcome::Unchanged),
        Err(error) => Err(error),
    }
}
