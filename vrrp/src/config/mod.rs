//! What a virtual router is configured to be, as types that cannot be wrong.
//!
//! Two texts become the same [`Config`]: [`keepalived`] as Octavia renders it, and the [native document](native),
//! which can say more. What cannot be honoured is refused with the place and the reason.

pub mod keepalived;
pub mod native;
#[cfg(test)]
mod testing;
mod types;
mod validate;

use amphora_model::Refusal;
pub use amphora_netlink::{InterfaceName, RouteScope, Table};

pub use self::types::{
    Config, Garp, Instance, Preempt, Track, Unicast, VirtualAddress, VirtualRoute, VirtualRule,
};

/// Reads either text: the native document begins with a brace, which keepalived.conf never does.
///
/// # Errors
/// Every fault of the text.
pub fn parse(text: &str) -> Result<Config, Refusal> {
    if text.trim_start().starts_with('{') { native::parse(text) } else { keepalived::parse(text) }
}
