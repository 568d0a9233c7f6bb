//! What rules are made of.

use super::wire::Attributes;

/// Where a register of 4 bytes is: 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register(pub u8);

impl Register {
    /// `NFT_REG32_00` and following.
    fn number(self) -> u32 {
        8 + u32::from(self.0)
    }
}

/// Where a packet is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Header {
    /// IP or IPv6.
    Network,
    /// UDP, SCTP, TCP.
    Transport,
}

/// What of a packet that is not in it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meta {
    /// `NFPROTO_IPV4` (2) or `NFPROTO_IPV6` (10), in one byte.
    Family,
    /// The transport's number, in one byte.
    Transport,
    /// The packet's mark, in the host's order.
    Mark,
}

/// What of a flow is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    /// 0 from the client, 1 to it; one byte.
    Direction,
    /// The mark, in the host's order.
    Mark,
}

/// Which of two a packet goes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It goes on, past what is left of the hook's chain.
    Accept,
    /// It is dropped.
    Drop,
    /// It goes on in this chain, and does not come back.
    Goto(String),
    /// It goes on in this chain, and with the next rule here when that has no verdict.
    Jump(String),
    /// It goes on where it has jumped from.
    Return,
}

impl Verdict {
    pub(super) fn attributes(&self) -> Attributes {
        let verdict = match self {
            Self::Accept => Attributes::default().u32(1, 1),
            Self::Drop => Attributes::default().u32(1, 0),
            // NFT_GOTO.
            Self::Goto(chain) => Attributes::default().u32(1, -4_i32 as u32).text(2, chain),
            // NFT_JUMP.
            Self::Jump(chain) => Attributes::default().u32(1, -3_i32 as u32).text(2, chain),
            // NFT_RETURN.
            Self::Return => Attributes::default().u32(1, -5_i32 as u32),
        };
        Attributes::default().nested(2, &verdict)
    }
}

/// One expression of a rule: what `nft --debug=netlink` shows in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expression {
    /// Loads what is not in the packet.
    Meta(Meta, Register),
    /// Loads of the flow.
    LoadFlow(Flow, Register),
    /// Sets the flow's mark.
    SetMark(Register),
    /// Sets the packet's mark.
    SetPacketMark(Register),
    /// Loads so many bytes from this offset of a header.
    Payload(Header, u32, u32, Register),
    /// `register & mask`, in place.
    Mask(Register, Vec<u8>),
    /// `register | bits`, in place, in the host's order.
    Or(Register, u32),
    /// Goes on when this is what the register has.
    Equal(Register, Vec<u8>),
    /// Goes on when this is not what the register has.
    Differs(Register, Vec<u8>),
    /// Puts this in a register.
    Immediate(Register, Vec<u8>),
    /// Ends the rule so.
    Verdict(Verdict),
    /// Goes on when the set has the register's value.
    InSet(Register, String),
    /// Goes on with what the map has for the first register, in the second.
    Map(Register, String, Register),
    /// Ends the rule as the map says, or goes on with the next.
    VerdictMap(Register, String),
    /// Ends the rule as this table, whose first row is for 0, says.
    Choose(Register, Vec<Verdict>),
    /// The numbers below this, in turn.
    Turns(u32, Register),
    /// A hash of so many bytes of the first register, below a number, with this seed, in the second.
    Hash(Register, u32, u32, u32, Register),
    /// Remembers the second register's value for the key in the first, and renews it.
    Remember(Register, String, Register),
    /// Counts packets under the key in the register, and renews it; goes on with those beyond so many within so many seconds: so many at
    /// once, and then as many as come to that.
    Above(Register, String, u32, u32),
    /// Counts flows under the key in the register; goes on when there are more than this.
    MoreThan(Register, String, u32),
    /// The flow goes to the address and port in these; IPv4 or not.
    ToDestination(bool, Register, Register),
    /// Its source becomes the address of the interface that it leaves by.
    Masquerade,
    /// It is not followed as a flow.
    NotFollowed,
    /// An ICMP or ICMPv6 answer: port unreachable.
    Unreachable,
    /// An ICMP answer, to a packet of IPv4: protocol unreachable.
    ProtocolUnreachable,
}

/// A map that a rule brings with it.
pub(super) type OwnMap<'a> = &'a [Verdict];

impl Expression {
    /// The map that has to be there before the rule.
    pub(super) fn own_map(&self) -> Option<OwnMap<'_>> {
        match self {
            Self::Choose(_, rows) => Some(rows),
            _ => None,
        }
    }

    /// `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`; `own` is the id of [`own_map`](Self::own_map).
    pub(super) fn attributes(&self, own: u32) -> Attributes {
        let none = Attributes::default;
        let value = |bytes: &[u8]| none().bytes(1, bytes);
        let (name, data) = match self {
            Self::Meta(what, to) => {
                let key = match what {
                    Meta::Family => 15,
                    Meta::Transport => 16,
                    Meta::Mark => 3,
                };
                ("meta", none().u32(1, to.number()).u32(2, key))
            }
            Self::LoadFlow(what, to) => {
                let key = match what {
                    Flow::Direction => 1,
                    Flow::Mark => 3,
                };
                ("ct", none().u32(1, to.number()).u32(2, key))
            }
            Self::SetMark(from) => ("ct", none().u32(2, 3).u32(4, from.number())),
            Self::SetPacketMark(from) => ("meta", none().u32(2, 3).u32(3, from.number())),
            Self::Payload(header, offset, length, to) => {
                let base = match header {
                    Header::Network => 1,
                    Header::Transport => 2,
                };
                ("payload", none().u32(1, to.number()).u32(2, base).u32(3, *offset).u32(4, *length))
            }
            Self::Mask(register, mask) => {
                let (number, zero) = (register.number(), vec![0; mask.len()]);
                let data = none().u32(1, number).u32(2, number).u32(3, mask.len() as u32);
                ("bitwise", data.nested(4, &value(mask)).nested(5, &value(&zero)))
            }
            Self::Or(register, bits) => {
                let number = register.number();
                let data = none().u32(1, number).u32(2, number).u32(3, 4);
                let (mask, xor) = (value(&(!bits).to_ne_bytes()), value(&bits.to_ne_bytes()));
                ("bitwise", data.nested(4, &mask).nested(5, &xor))
            }
            Self::Equal(register, bytes) => {
                ("cmp", none().u32(1, register.number()).u32(2, 0).nested(3, &value(bytes)))
            }
            Self::Differs(register, bytes) => {
                ("cmp", none().u32(1, register.number()).u32(2, 1).nested(3, &value(bytes)))
            }
            Self::Immediate(to, bytes) => ("immediate", none().u32(1, to.number()).nested(2, &value(bytes))),
            Self::Verdict(verdict) => ("immediate", none().u32(1, 0).nested(2, &verdict.attributes())),
            Self::InSet(register, set) => ("lookup", none().text(1, set).u32(2, register.number())),
            Self::Map(from, map, to) => {
                ("lookup", none().text(1, map).u32(2, from.number()).u32(3, to.number()))
            }
            Self::VerdictMap(from, map) => ("lookup", none().text(1, map).u32(2, from.number()).u32(3, 0)),
            Self::Choose(from, _) => {
                ("lookup", none().text(1, OWN_MAP).u32(2, from.number()).u32(3, 0).u32(4, own))
            }
            Self::Turns(modulus, to) => ("numgen", none().u32(1, to.number()).u32(2, *modulus).u32(3, 0)),
            Self::Hash(from, length, modulus, seed, to) => {
                let data = none().u32(1, from.number()).u32(2, to.number()).u32(3, *length);
                ("hash", data.u32(4, *modulus).u32(5, *seed).u32(7, 0))
            }
            Self::Remember(key, map, data) => {
                let attributes = none().text(1, map).u32(3, UPDATE).u32(4, key.number());
                ("dynset", attributes.u32(5, data.number()))
            }
            Self::Above(key, set, packets, seconds) => {
                // By packets (NFT_LIMIT_PKTS), of which those beyond go on (NFT_LIMIT_F_INV).
                let limit = none().u64(1, u64::from(*packets)).u64(2, u64::from(*seconds));
                let limit = limit.u32(3, *packets).u32(4, 0).u32(5, 1);
                let limit = none().text(1, "limit").nested(2, &limit);
                ("dynset", none().text(1, set).u32(3, UPDATE).u32(4, key.number()).nested(7, &limit))
            }
            Self::MoreThan(key, set, count) => {
                let limit = none().u32(1, *count).u32(2, 1);
                let limit = none().text(1, "connlimit").nested(2, &limit);
                ("dynset", none().text(1, set).u32(3, ADD).u32(4, key.number()).nested(7, &limit))
            }
            Self::ToDestination(v4, address, port) => {
                let family = if *v4 { 2 } else { 10 };
                let data = none().u32(1, 1).u32(2, family).u32(3, address.number());
                // NF_NAT_RANGE_PROTO_SPECIFIED.
                ("nat", data.u32(5, port.number()).u32(7, 2))
            }
            Self::Masquerade => ("masq", none()),
            Self::NotFollowed => ("notrack", none()),
            Self::Unreachable => ("reject", none().u32(1, 2).bytes(2, &[1])),
            // NFT_REJECT_ICMP_UNREACH, ICMP_PROT_UNREACH.
            Self::ProtocolUnreachable => ("reject", none().u32(1, 0).bytes(2, &[2])),
        };
        let attributes = none().text(1, name);
        if data.len() == 0 && name == "notrack" { attributes } else { attributes.nested(2, &data) }
    }
}

/// The kernel gives it a number.
pub(super) const OWN_MAP: &str = "__map%d";
/// `NFT_DYNSET_OP_ADD`.
const ADD: u32 = 0;
/// `NFT_DYNSET_OP_UPDATE`.
const UPDATE: u32 = 1;
