//! What members answer to clients' own addresses ends here.
//!
//! A pool with `transparent_client_address` sees connections from the addresses of clients. Answers to these come to this machine
//! because routes lead here, and the kernel would pass them on: so rules of nf_tables mark what comes from where such members
//! listen, and a rule of routing has what is marked end here, where the sockets are (the kernel's `tproxy.rst`). What is for
//! addresses of this machine's own ends here in any case.

use amphora_netlink::{
    NetError, Table,
    nft::{LocalRoute, MarkRule, Routing},
};

use super::plan::Plan;

/// Of the marks of packets, which have others of the operator's beside it.
pub(super) const RETURN: u32 = 1 << 29;
/// A table with a single route, and the priority of the rules that lead there: before those of the VIPs.
const HERE: Table = Table(111);
const PRIORITY: u32 = 31_000;

/// The rules and routes of both families.
#[derive(Debug)]
pub(super) struct Returns {
    routing: Routing,
    /// Of IPv4 and IPv6: whether they are there; `None`: what a predecessor has left.
    there: [Option<bool>; 2],
}

impl Returns {
    pub(super) fn open() -> Result<Self, NetError> {
        Ok(Self { routing: Routing::open()?, there: [None; 2] })
    }

    /// Has what a plan wants before its rules are written, which are of no use without.
    pub(super) fn begin(&mut self, plan: &Plan) -> Result<(), NetError> {
        self.each(plan, |this, v4, wanted| if wanted { this.add(v4) } else { Ok(()) })
    }

    /// Takes away what a plan does not want, once its rules are written.
    pub(super) fn end(&mut self, plan: &Plan) -> Result<(), NetError> {
        self.each(plan, |this, v4, wanted| if wanted { Ok(()) } else { this.delete(v4) })
    }

    /// Has what a plan wants, and no other; another hand may have been there.
    pub(super) fn keep(&mut self, plan: &Plan) {
        if let Err(error) = self.begin(plan).and_then(|()| self.end(plan)) {
            tracing::warn!(%error, "answers of members to clients' own addresses may not end here");
        }
    }

    fn each(
        &mut self,
        plan: &Plan,
        mut change: impl FnMut(&mut Self, bool, bool) -> Result<(), NetError>,
    ) -> Result<(), NetError> {
        for v4 in [true, false] {
            change(self, v4, plan.transparent.iter().any(|member| member.is_ipv4() == v4))?;
        }
        Ok(())
    }

    fn add(&mut self, v4: bool) -> Result<(), NetError> {
        let added = self.routing.add_local(&LocalRoute { v4, table: HERE })?;
        let added = self.routing.add(&rule(v4))? || added;
        if added && self.there[usize::from(v4)] == Some(true) {
            tracing::warn!("another hand had removed the rule by which answers of members end here");
        }
        self.there[usize::from(v4)] = Some(true);
        Ok(())
    }

    fn delete(&mut self, v4: bool) -> Result<(), NetError> {
        if self.there[usize::from(v4)] == Some(false) {
            return Ok(());
        }
        self.routing.delete(&rule(v4))?;
        self.routing.delete_local(&LocalRoute { v4, table: HERE })?;
        self.there[usize::from(v4)] = Some(false);
        Ok(())
    }
}

fn rule(v4: bool) -> MarkRule {
    MarkRule { v4, bits: RETURN, table: HERE, priority: PRIORITY }
}
