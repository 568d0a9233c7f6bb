//! Rules of routing for packets that nf_tables has given a mark.

use nix::{errno::Errno, libc};

use super::{socket::Socket, wire::Attributes};
use crate::{NetError, Table};

/// `NLM_F_CREATE` and `NLM_F_EXCL`.
const CREATE: u16 = 0x600;
/// `FR_ACT_TO_TBL`.
const TO_TABLE: u8 = 1;

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
    fn family(&self) -> u8 {
        if self.v4 { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
    }

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
        self.change(libc::RTM_NEWRULE, CREATE, rule, Errno::EEXIST, "add a rule of routing by mark")
    }

    /// Deletes a rule: whether it was there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete(&mut self, rule: &MarkRule) -> Result<bool, NetError> {
        self.change(libc::RTM_DELRULE, 0, rule, Errno::ENOENT, "delete a rule of routing by mark")
    }

    fn change(
        &mut self,
        kind: u16,
        flags: u16,
        rule: &MarkRule,
        done_already: Errno,
        what: &str,
    ) -> Result<bool, NetError> {
        match self.0.ask(kind, flags, rule.family(), &rule.attributes(), what, |_| {}) {
            Err(error) if error.errno() == Some(done_already) => Ok(false),
            changed => changed.map(|()| true),
        }
    }
}
