//! Rules of routing for packets that nf_tables has given a mark, and routes that have everything end here.

use nix::{errno::Errno, libc};

use super::{socket::Socket, wire::Attributes};
use crate::{NetError, Table};

/// `NLM_F_CREATE` and `NLM_F_EXCL`.
const CREATE: u16 = 0x600;
/// `FR_ACT_TO_TBL`.
const TO_TABLE: u8 = 1;
/// `RTPROT_STATIC`.
const STATIC: u8 = 4;
/// `RT_SCOPE_HOST`.
const SCOPE_HOST: u8 = 254;
/// `RTN_LOCAL`.
const LOCAL: u8 = 2;
/// The interface `lo`, which is the first of every network namespace.
const LOOPBACK: u32 = 1;

fn family(v4: bool) -> u8 {
    if v4 { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

/// Packets whose mark has all of these bits are routed by `table`; by the rules that follow where it does not know a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkRule {
    /// IPv4, or IPv6.
    pub v4: bool,
    /// `fwmark BITS/BITS`.
    pub bits: u32,
    /// `table`.
    pub table: Table,
    /// `priority`.
    pub priority: u32,
}

impl MarkRule {
    /// What is behind the family in `struct fib_rule_hdr`, and its attributes.
    fn attributes(&self) -> Attributes {
        let number = |number: u32| number.to_ne_bytes();
        // The table is in an attribute, and there are no flags.
        let header = [0, 0, 0, TO_TABLE, 0, 0, 0, 0];
        let attributes = Attributes::behind(&header).bytes(6, &number(self.priority));
        let attributes = attributes.bytes(10, &number(self.bits)).bytes(16, &number(self.bits));
        attributes.bytes(15, &number(self.table.0))
    }
}

/// Whatever is routed by `table` ends here, for whichever address it is: `local default dev lo table TABLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalRoute {
    /// IPv4, or IPv6.
    pub v4: bool,
    /// `table`.
    pub table: Table,
}

impl LocalRoute {
    fn attributes(&self) -> Attributes {
        // What is behind the length of the prefix, which is 0, in `struct rtmsg`: the table is in an attribute, and there are
        // no flags.
        let header = [0, STATIC, SCOPE_HOST, LOCAL, 0, 0, 0, 0];
        Attributes::behind(&header).bytes(4, &LOOPBACK.to_ne_bytes()).bytes(15, &self.table.0.to_ne_bytes())
    }
}

/// The rules of routing of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Routing(Socket);

impl Routing {
    /// Opens a socket.
    ///
    /// # Errors
    /// When there are no more sockets.
    pub fn open() -> Result<Self, NetError> {
        Socket::open(libc::NETLINK_ROUTE).map(Self)
    }

    /// Adds a rule: whether it was not there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add(&mut self, rule: &MarkRule) -> Result<bool, NetError> {
        let what = "add a rule of routing by mark";
        self.change(libc::RTM_NEWRULE, CREATE, family(rule.v4), &rule.attributes(), Errno::EEXIST, what)
    }

    /// Deletes a rule: whether it was there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete(&mut self, rule: &MarkRule) -> Result<bool, NetError> {
        let what = "delete a rule of routing by mark";
        self.change(libc::RTM_DELRULE, 0, family(rule.v4), &rule.attributes(), Errno::ENOENT, what)
    }

    /// Adds a route: whether it was not there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_local(&mut self, route: &LocalRoute) -> Result<bool, NetError> {
        let what = "add a route to this host";
        self.change(libc::RTM_NEWROUTE, CREATE, family(route.v4), &route.attributes(), Errno::EEXIST, what)
    }

    /// Deletes a route: whether it was there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_local(&mut self, route: &LocalRoute) -> Result<bool, NetError> {
        let what = "delete a route to this host";
        self.change(libc::RTM_DELROUTE, 0, family(route.v4), &route.attributes(), Errno::ESRCH, what)
    }

    fn change(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        attributes: &Attributes,
        done_already: Errno,
        what: &str,
    ) -> Result<bool, NetError> {
        match self.0.ask(kind, flags, family, attributes, what, |_| {}) {
            Err(error) if error.errno() == Some(done_already) => Ok(false),
            changed => changed.map(|()| true),
        }
    }
}
