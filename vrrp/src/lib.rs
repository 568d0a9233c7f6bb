//! VRRP for the addresses of an amphora: RFC 9568 (version 3) and version 2 as keepalived speaks it.
//!
//! | module | what is inside |
//! | --- | --- |
//! | [`packet`] | advertisements on the wire |
//! | [`core`] | the protocol without sockets, clock or threads |
//! | [`config`] | what a virtual router is configured to be: keepalived.conf and the native document |

pub mod config;
pub mod core;
#[cfg(test)]
mod fixture;
pub mod packet;
