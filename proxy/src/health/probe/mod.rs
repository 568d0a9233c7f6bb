//! The probes: one connection, one question, one [`Outcome`], within one deadline for all of it.
//!
//! `prober` has all that are under way in one epoll instance, `dialogue` is one of them; what is said and how an answer is judged, without sockets,
//! is in `http`, `http2`, `tls`, `ping` and `sctp`. Written against sockets directly rather than on an HTTP client: the request is to be
//! HAProxy's to the byte, of the response no more than the head is wanted, and a probe is to cost little more than its
//! packets. Nothing of what a target sends is kept.

mod dialogue;
mod http;
mod http2;
mod outcome;
mod ping;
pub(super) mod prober;
mod sctp;
mod tls;

pub(super) use self::dialogue::over_tcp;
#[doc(hidden)]
pub use self::http::fuzz as fuzz_http_response;
pub use self::{
    outcome::{CheckStatus, Outcome},
    ping::available as ping_available,
    sctp::available as sctp_available,
};

#[cfg(test)]
mod tests;
