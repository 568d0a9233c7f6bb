//! Why an advertisement was not taken.

use std::fmt;

/// Reasons, each counted by itself. The order is that of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Refusal {
    /// Shorter or longer than its count of addresses says (keepalived `packet_len_err`).
    Length,
    /// TTL or hop limit is not 255 on a multicast packet (keepalived `ip_ttl_err`).
    Ttl,
    /// Not the version of the virtual router, or one that does not exist (keepalived `vers_err`).
    Version,
    /// Not an advertisement (keepalived `invalid_type_rcvd`).
    Type,
    /// The checksum is wrong (keepalived `chk_err`).
    Checksum,
    /// An authentication type that does not exist or is not supported (keepalived `invalid_authtype`).
    AuthType,
    /// Not the authentication type of the virtual router (keepalived `authtype_mismatch`).
    AuthMismatch,
    /// The wrong password (keepalived `auth_failure`).
    AuthFailure,
    /// No virtual router here has this VRID (FRR and RFC 9568 `vridErrors`).
    Vrid,
    /// Version 2: not the interval of the virtual router (keepalived `advert_interval_err`).
    Interval,
    /// Not the addresses of the virtual router (keepalived `addr_list_err`).
    Addresses,
    /// Multicast where unicast is configured or the reverse.
    Destination,
    /// From an address that is not a configured unicast peer.
    Peer,
    /// Sent by this router itself.
    Own,
    /// The router takes no part at present: it is stopped or unfit.
    Inactive,
}

impl Refusal {
    /// Every reason, in order.
    pub const ALL: [Self; 15] = [
        Self::Length,
        Self::Ttl,
        Self::Version,
        Self::Type,
        Self::Checksum,
        Self::AuthType,
        Self::AuthMismatch,
        Self::AuthFailure,
        Self::Vrid,
        Self::Interval,
        Self::Addresses,
        Self::Destination,
        Self::Peer,
        Self::Own,
        Self::Inactive,
    ];

    /// A word for it, as counters are labelled.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Ttl => "ttl",
            Self::Version => "version",
            Self::Type => "type",
            Self::Checksum => "checksum",
            Self::AuthType => "auth_type",
            Self::AuthMismatch => "auth_mismatch",
            Self::AuthFailure => "auth_failure",
            Self::Vrid => "vrid",
            Self::Interval => "interval",
            Self::Addresses => "addresses",
            Self::Destination => "destination",
            Self::Peer => "peer",
            Self::Own => "own",
            Self::Inactive => "inactive",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "its length is not that of its addresses",
            Self::Ttl => "its TTL or hop limit is not 255",
            Self::Version => "it is not of the configured version",
            Self::Type => "it is not an advertisement",
            Self::Checksum => "its checksum is wrong",
            Self::AuthType => "its authentication type is not known",
            Self::AuthMismatch => "its authentication type is not the configured one",
            Self::AuthFailure => "its password is wrong",
            Self::Vrid => "its virtual router is not configured",
            Self::Interval => "its interval is not the configured one",
            Self::Addresses => "its addresses are not the configured ones",
            Self::Destination => "it is multicast where unicast is configured, or the reverse",
            Self::Peer => "its sender is not a configured peer",
            Self::Own => "it is our own",
            Self::Inactive => "the virtual router takes no part at present",
        })
    }
}
