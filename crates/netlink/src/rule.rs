//! Rules, which say what is routed by which table.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use nix::errno::Errno;

use super::{Add, Netlink, Outcome, RouteProtocol, family, outcome};
use crate::{Family, NetError, Table};

/// Packets from `source` are routed by `table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// `from`.
    pub source: IpNet,
    /// `table`.
    pub table: Table,
    /// `priority`; without, the kernel takes one less than the least that there is.
    pub priority: Option<u32>,
    /// `proto`.
    pub protocol: RouteProtocol,
}

impl Rule {
    /// Whether `self`, as the kernel lists it, is what is there after `wanted` was added.
    pub fn is(&self, wanted: &Self) -> bool {
        self.source.trunc() == wanted.source.trunc()
            && self.table == wanted.table
            && (wanted.priority.is_none() || self.priority == wanted.priority)
            && self.protocol == wanted.protocol
    }

    /// `None` for rules that this type cannot say: without a source, or with more to it.
    fn read(message: &RuleMessage) -> Option<Self> {
        let header = &message.header;
        let known = matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6)
            && header.action == RuleAction::ToTable
            && header.dst_len == 0
            && header.tos == 0;
        if !known {
            return None;
        }
        let (mut source, mut priority, mut protocol) = (None, None, RouteProtocol::UNSPEC);
        let mut table = header.table.into();
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Source(address) => source = Some(*address),
                RuleAttribute::Priority(number) => priority = Some(*number),
                RuleAttribute::Table(number) => table = *number,
                RuleAttribute::Protocol(number) => protocol = RouteProtocol((*number).into()),
                // The kernel always lists this one, with all bits set when it suppresses nothing.
                RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
                RuleAttribute::Other(_) => {}
                _ => return None,
            }
        }
        let source = IpNet::new(source?, header.src_len).ok()?;
        Some(Self { source, table: Table(table), priority, protocol })
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        let header = &mut message.header;
        header.family = family(Family::of(self.source.addr()));
        header.src_len = self.source.prefix_len();
        header.action = RuleAction::ToTable;
        // Zero here defers to the attribute.
        header.table = u8::try_from(self.table.0).unwrap_or(0);
        let source: IpAddr = self.source.network();
        message.attributes = vec![RuleAttribute::Source(source), RuleAttribute::Table(self.table.0)];
        if let Some(priority) = self.priority {
            message.attributes.push(RuleAttribute::Priority(priority));
        }
        if self.protocol != RouteProtocol::UNSPEC {
            message.attributes.push(RuleAttribute::Protocol(self.protocol.0.into()));
        }
        message
    }
}

impl Netlink {
    /// Every rule of a family that looks at nothing but the source.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn rules(&self, of: Family) -> Result<Vec<Rule>, NetError> {
        let mut message = RuleMessage::default();
        message.header.family = family(of);
        let answers = self.dump(RouteNetlinkMessage::GetRule(message)).await;
        let answers = answers.map_err(|failure| failure.to(|| "list rules".to_owned()))?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRule(message) => Rule::read(message),
                _ => None,
            })
            .collect())
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn add_rule(&self, rule: &Rule) -> Result<Outcome, NetError> {
        // The kernel would give it one that no rule has, and so find none like it.
        if rule.priority.is_none() {
            let there = self.rules(Family::of(rule.source.addr())).await?;
            if there.iter().any(|there| there.is(rule)) {
                return Ok(Outcome::Unchanged);
            }
        }
        let message = RouteNetlinkMessage::NewRule(rule.message());
        outcome(self.add(message, Add::Exclusive).await, &[Errno::EEXIST], || describe("add", rule))
    }

    /// Deletes a rule.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn delete_rule(&self, rule: &Rule) -> Result<Outcome, NetError> {
        let message = RouteNetlinkMessage::DelRule(rule.message());
        outcome(self.change(message, 0).await, &[Errno::ENOENT], || describe("delete", rule))
    }
}

fn describe(verb: &str, rule: &Rule) -> String {
    format!("{verb} the rule from {} to table {}", rule.source, rule.table.0)
}
