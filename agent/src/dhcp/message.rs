//! The wire format: RFC 2131 section 2, with the options of RFC 2132, long ones (RFC 3396) and classless routes (RFC 3442).
//!
//! Reading is strict: a message of which a part that matters is wrong is none.

use std::{collections::BTreeMap, net::Ipv4Addr};

use amphora_netlink::MacAddress;
use ipnet::Ipv4Net;

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Octets before the options; the cookie is the last four.
const HEADER: usize = 240;
/// Octets of a message of BOOTP; some servers and relays drop what is shorter.
const SHORTEST: usize = 300;
const SERVER_NAME: std::ops::Range<usize> = 44..108;
const FILE_NAME: std::ops::Range<usize> = 108..236;

/// Routes of an answer, at most: more than any network has, and few enough to set.
const MAX_ROUTES: usize = 64;

/// Codes of options.
mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const SUBNET_MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const MTU: u8 = 26;
    pub(super) const REQUESTED_ADDRESS: u8 = 50;
    pub(super) const LEASE_TIME: u8 = 51;
    pub(super) const OVERLOAD: u8 = 52;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const PARAMETERS: u8 = 55;
    pub(super) const LARGEST: u8 = 57;
    pub(super) const RENEWAL: u8 = 58;
    pub(super) const REBINDING: u8 = 59;
    pub(super) const CLASSLESS_ROUTES: u8 = 121;
    pub(super) const END: u8 = 255;
}

/// What is asked for. Classless routes come before routers (RFC 3442). No name servers: an amphora resolves no names in a
/// tenant's network.
const PARAMETERS: [u8; 7] = [
    option::SUBNET_MASK,
    option::CLASSLESS_ROUTES,
    option::ROUTER,
    option::MTU,
    option::LEASE_TIME,
    option::RENEWAL,
    option::REBINDING,
];

/// What a message is (option 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// DHCPDISCOVER: is there a server?
    Discover,
    /// DHCPOFFER.
    Offer,
    /// DHCPREQUEST: this address, please.
    Request,
    /// DHCPDECLINE: somebody else has it.
    Decline,
    /// DHCPACK.
    Ack,
    /// DHCPNAK.
    Nak,
    /// DHCPRELEASE: it is not needed any more.
    Release,
}

impl Kind {
    /// Its number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Discover => 1,
            Self::Offer => 2,
            Self::Request => 3,
            Self::Decline => 4,
            Self::Ack => 5,
            Self::Nak => 6,
            Self::Release => 7,
        }
    }
}

/// What a client writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What it is.
    pub kind: Kind,
    /// Connects it with its answers.
    pub transaction: u32,
    /// Seconds since the client began to ask.
    pub seconds: u16,
    /// The client's address (`ciaddr`), where it can be reached by it.
    pub address: Ipv4Addr,
    /// Who asks (`chaddr`).
    pub mac: MacAddress,
    /// The address that it asks for, or declines.
    pub requested: Option<Ipv4Addr>,
    /// The server that it is for.
    pub server: Option<Ipv4Addr>,
    /// Octets of the largest IP packet that is taken.
    pub largest: u16,
}

impl Question {
    /// The octets of it.
    pub fn write(&self) -> Vec<u8> {
        let mut message = vec![0; HEADER];
        message[..3].copy_from_slice(&[REQUEST, ETHERNET, 6]);
        message[4..8].copy_from_slice(&self.transaction.to_be_bytes());
        message[8..10].copy_from_slice(&self.seconds.to_be_bytes());
        // No flags: answers to an address that this host does not have yet are received.
        message[12..16].copy_from_slice(&self.address.octets());
        message[28..34].copy_from_slice(&self.mac.0);
        message[236..].copy_from_slice(&COOKIE);
        let mut add = |code: u8, content: &[u8]| {
            message.extend([code, content.len() as u8]);
            message.extend(content);
        };
        add(option::KIND, &[self.kind.number()]);
        if let Some(requested) = self.requested {
            add(option::REQUESTED_ADDRESS, &requested.octets());
        }
        if let Some(server) = self.server {
            add(option::SERVER, &server.octets());
        }
        if matches!(self.kind, Kind::Discover | Kind::Request) {
            add(option::LARGEST, &self.largest.to_be_bytes());
            add(option::PARAMETERS, &PARAMETERS);
        }
        message.push(option::END);
        message.resize(message.len().max(SHORTEST), option::PAD);
        message
    }
}

/// What a server wrote, as it says it: nothing of it is believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// [`Offer`](Kind::Offer), [`Ack`](Kind::Ack) or [`Nak`](Kind::Nak).
    pub kind: Kind,
    /// That of the question.
    pub transaction: u32,
    /// Whom it is for (`chaddr`).
    pub mac: MacAddress,
    /// The client's address to be (`yiaddr`).
    pub address: Ipv4Addr,
    /// Who says so.
    pub server: Option<Ipv4Addr>,
    /// Of the client's subnet.
    pub mask: Option<Ipv4Addr>,
    /// Seconds that the address may be used for.
    pub lease: Option<u32>,
    /// Seconds until it should be asked for again, from the same server.
    pub renewal: Option<u32>,
    /// Seconds until it should be asked for again, from any server.
    pub rebinding: Option<u32>,
    /// The default gateway: the first of them.
    pub router: Option<Ipv4Addr>,
    /// Where they are, [`router`](Self::router) means nothing. A next hop of zeros is the link.
    pub classless_routes: Option<Vec<(Ipv4Net, Ipv4Addr)>>,
    /// Octets of the largest packet of the network.
    pub mtu: Option<u16>,
}

/// Why octets are not an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Too short for the fields that every message has.
    #[error("it is too short")]
    Short,
    /// Not a reply to an Ethernet address, with options of DHCP.
    #[error("it is not a reply of DHCP over Ethernet")]
    Foreign,
    /// An option ends after the message.
    #[error("it ends within an option")]
    Cut,
    /// An option has a length that it cannot have.
    #[error("option {0} has a wrong length")]
    Length(u8),
    /// Not what a server sends.
    #[error("it is not of a kind that a server sends")]
    Kind,
    /// Wrong, or too many.
    #[error("its classless routes are wrong, or more than {MAX_ROUTES}")]
    Routes,
}

impl Answer {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(message: &[u8]) -> Result<Self, Malformed> {
        let (header, options) = message.split_at_checked(HEADER).ok_or(Malformed::Short)?;
        if header[..3] != [REPLY, ETHERNET, 6] || header[236..] != COOKIE {
            return Err(Malformed::Foreign);
        }
        let options = Options::read(header, options)?;
        let four = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let kind = match options.exactly::<1>(option::KIND)? {
            Some([2]) => Kind::Offer,
            Some([5]) => Kind::Ack,
            Some([6]) => Kind::Nak,
            _ => return Err(Malformed::Kind),
        };
        let address = |code| Ok(options.exactly::<4>(code)?.map(Ipv4Addr::from));
        let seconds = |code| Ok(options.exactly::<4>(code)?.map(u32::from_be_bytes));
        Ok(Self {
            kind,
            transaction: u32::from_be_bytes(four(4)),
            mac: MacAddress([header[28], header[29], header[30], header[31], header[32], header[33]]),
            address: four(16).into(),
            server: address(option::SERVER)?,
            mask: address(option::SUBNET_MASK)?,
            lease: seconds(option::LEASE_TIME)?,
            renewal: seconds(option::RENEWAL)?,
            rebinding: seconds(option::REBINDING)?,
            router: options.addresses(option::ROUTER)?.first().copied(),
            classless_routes: options.get(option::CLASSLESS_ROUTES).map(routes).transpose()?,
            mtu: options.exactly::<2>(option::MTU)?.map(u16::from_be_bytes),
        })
    }
}

/// By their codes; what comes in parts is put together.
struct Options(BTreeMap<u8, Vec<u8>>);

impl Options {
    fn read(header: &[u8], options: &[u8]) -> Result<Self, Malformed> {
        let mut all = Self(BTreeMap::new());
        all.add(options)?;
        // Options may go on where the names of a file and of a server would be, in this order.
        let overload = all.exactly::<1>(option::OVERLOAD)?.map_or(0, |[which]| which);
        if overload & 1 != 0 {
            all.add(&header[FILE_NAME])?;
        }
        if overload & 2 != 0 {
            all.add(&header[SERVER_NAME])?;
        }
        Ok(all)
    }

    fn add(&mut self, mut rest: &[u8]) -> Result<(), Malformed> {
        while let Some((&code, after)) = rest.split_first() {
            rest = after;
            match code {
                option::PAD => {}
                option::END => return Ok(()),
                _ => {
                    let (&length, after) = rest.split_first().ok_or(Malformed::Cut)?;
                    let (content, after) = after.split_at_checked(length.into()).ok_or(Malformed::Cut)?;
                    self.0.entry(code).or_default().extend(content);
                    rest = after;
                }
            }
        }
        Ok(())
    }

    fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    fn exactly<const N: usize>(&self, code: u8) -> Result<Option<[u8; N]>, Malformed> {
        self.get(code).map(|content| content.try_into().map_err(|_| Malformed::Length(code))).transpose()
    }

    fn addresses(&self, code: u8) -> Result<Vec<Ipv4Addr>, Malformed> {
        let content = self.get(code).unwrap_or_default();
        let (addresses, rest) = content.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(Malformed::Length(code));
        }
        Ok(addresses.iter().copied().map(Ipv4Addr::from).collect())
    }
}

/// Each a length of a prefix, as many octets of it as are not zero for sure, and the next hop.
fn routes(mut rest: &[u8]) -> Result<Vec<(Ipv4Net, Ipv4Addr)>, Malformed> {
    let mut routes = Vec::new();
    while let Some((&length, after)) = rest.split_first() {
        if length > 32 || routes.len() == MAX_ROUTES {
            return Err(Malformed::Routes);
        }
        let (prefix, after) = after.split_at_checked(length.div_ceil(8).into()).ok_or(Malformed::Routes)?;
        let (next_hop, after) = after.split_first_chunk::<4>().ok_or(Malformed::Routes)?;
        let mut destination = [0; 4];
        destination[..prefix.len()].copy_from_slice(prefix);
        let destination = Ipv4Net::new(destination.into(), length).map_err(|_| Malformed::Routes)?;
        routes.push((destination.trunc(), (*next_hop).into()));
        rest = after;
    }
    Ok(routes)
}

/// What servers of the tests write and read.
#[cfg(test)]
pub(super) mod server;
