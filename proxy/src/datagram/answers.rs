//! By which way answers leave: the one of all that has a VIP as its source.
//!
//! What comes from a member is routed while that is still the source, for NAT puts the VIP there when the packet leaves. So rules of
//! routing that look at the source, as those for VIPs do, do not see it, and where the client is in a network that a port of members
//! reaches it would leave by that port, from an address that is not the port's. Rules of nf_tables mark the answers, and a rule of
//! routing has what is marked routed by the VIPs' table. IPVS looks the way up once more instead (`snat_reroute`).

use amphora_netlink::{
    NetError, Table,
    nft::{MarkRule, Routing},
};

use super::plan::Plan;

/// Of the marks of packets, which have others of the operator's beside it.
pub(super) const ANSWER: u32 = 1 << 30;
/// The VIPs' table, and the priority of the rules that lead there, in Octavia's amphora.
const VIPS: Table = Table(1);
const PRIORITY: u32 = 32_000;

/// The rules of both families.
#[derive(Debug)]
pub(super) struct Answers {
    routing: Routing,
    /// Of IPv4 and IPv6: what is known of the kernel's; `None`: what a predecessor has left.
    rules: [Option<State>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    There,
    Gone,
    /// It was told that the kernel refuses it.
    Refused,
}

impl Answers {
    pub(super) fn open() -> Result<Self, NetError> {
        Ok(Self { routing: Routing::open()?, rules: [None; 2] })
    }

    /// Has the rules that a plan wants, and no other. Without them datagrams are forwarded all the same.
    pub(super) fn keep(&mut self, plan: &Plan) {
        for (state, v4) in self.rules.iter_mut().zip([true, false]) {
            let mut addresses = plan.services.iter().flat_map(|service| &service.addresses);
            let wanted = addresses.any(|address| address.is_ipv4() == v4);
            let rule = MarkRule { v4, bits: ANSWER, table: VIPS, priority: PRIORITY };
            let kept = match wanted {
                true => self.routing.add(&rule).map(|missing| {
                    if missing && *state == Some(State::There) {
                        tracing::warn!("another hand had removed the rule by which answers are routed");
                    }
                    State::There
                }),
                false if *state == Some(State::Gone) => continue,
                false => self.routing.delete(&rule).map(|_| State::Gone),
            };
            *state = Some(kept.unwrap_or_else(|error| {
                if wanted && *state != Some(State::Refused) {
                    tracing::warn!(%error, "answers to clients in networks of members may leave by the members' port");
                }
                State::Refused
            }));
        }
    }
}
