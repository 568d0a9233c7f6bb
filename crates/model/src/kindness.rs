//! What a pool grants its members beyond what Octavia has a word for: `pool.amphora`.

use std::time::Duration;

/// `pool.amphora`; by default nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kindness {
    /// `slow_start`, whole seconds: for so long the weight of a member that is new or back grows from a sixteenth to all of it, as
    /// with HAProxy's `slowstart`. Zero: it has all of it at once.
    pub slow_start: Duration,
    /// `transparent_client_address`: members are connected to from the addresses of clients (HAProxy's `source 0.0.0.0 usesrc
    /// clientip`); of pools whose members are connected to.
    pub transparent: bool,
}

impl Kindness {
    /// Whether there is nothing of it.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
