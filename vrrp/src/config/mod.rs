//! What a virtual router is configured to be, as types that cannot be wrong.
//!
//! Two texts become the same [`Config`]: [`keepalived`] as Octavia renders it, and the [native document](native),
//! which can say more. What cannot be honoured is refused with the place and the reason.

mod fault;
pub mod keepalived;
pub mod native;
#[cfg(test)]
mod testing;
mod types;
mod validate;

pub use amphora_netlink::{InterfaceName, RouteScope, Table};

pub use self::{
    fault::{Invalid, MAX_FAULTS},
    types::{Config, Garp, Instance, Preempt, Track, Unicast, VirtualAddress, VirtualRoute, VirtualRule},
};

/// Reads either text: the native document begins with a brace, which keepalived.conf never does.
///
/// # Errors
/// Every fault of the text.
pub fn parse(text: &str) -> Result<Config, Vec<Invalid>> {
    if text.trim_start().starts_with('{') { native::parse(text) } else { keepalived::parse(text) }
}
