//! What an unmodified Octavia sends, understood: the texts that its controller renders for the programs of its own amphora.
//!
//! * [`haproxy_cfg`]: haproxy.cfg and the crt-lists beside it
//! * [`lvs`]: keepalived's text of a listener of datagrams

mod fault;
pub mod haproxy_cfg;
pub(crate) mod html;
pub mod lvs;
mod path;
