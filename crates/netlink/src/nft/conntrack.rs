//! The flows that the kernel follows (conntrack).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::{errno::Errno, libc};

use super::{
    socket::{DUMP, Socket},
    wire::{AttributeIter, Attributes, u32_be},
};
use crate::NetError;

/// `NFNL_SUBSYS_CTNETLINK`, as the upper byte of message types.
const CTNETLINK: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_GET`, `IPCTNL_MSG_CT_DELETE`.
const GET: u16 = CTNETLINK | 1;
const DELETE: u16 = CTNETLINK | 2;

/// Two ends of a direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoints {
    /// Who sends.
    pub source: SocketAddr,
    /// Who gets it.
    pub destination: SocketAddr,
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEntry {
    /// The transport's number: 17 is UDP.
    pub transport: u8,
    /// As the client sends.
    pub original: Endpoints,
    /// As what is answered comes.
    pub reply: Endpoints,
    /// The mark that rules have given it.
    pub mark: u32,
    /// What it is deleted by: the attributes of the original direction.
    tuple: Vec<u8>,
}

/// The flows of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Conntrack(Socket);

impl Conntrack {
    /// Opens a socket.
    ///
    /// # Errors
    /// When the kernel has no nfnetlink, or no more sockets.
    pub fn open() -> Result<Self, NetError> {
        Socket::open(libc::NETLINK_NETFILTER).map(Self)
    }

    /// The flows of a transport with ports for which `wanted` is true. Some that begin or end meanwhile may be missing. It costs
    /// about a microsecond for each flow that there is.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn list(&mut self, wanted: impl Fn(&FlowEntry) -> bool) -> Result<Vec<FlowEntry>, NetError> {
        let mut found = Vec::new();
        self.0.ask(GET, DUMP, 0, &Attributes::default(), "list flows", |message| {
            found.extend(entry(message.attributes()).filter(&wanted));
        })?;
        Ok(found)
    }

    /// Ends a flow: its next packet begins another. One that has ended is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete(&mut self, flow: &FlowEntry) -> Result<(), NetError> {
        let family = if flow.original.source.is_ipv4() { 2 } else { 10 };
        let tuple = Attributes::default().bytes(1 | 1 << 15, &flow.tuple);
        match self.0.ask(DELETE, 0, family, &tuple, "end a flow", |_| {}) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
            deleted => deleted,
        }
    }
}

fn entry(attributes: AttributeIter<'_>) -> Option<FlowEntry> {
    let tuple = attributes.find(1)?;
    let (transport, original) = endpoints(AttributeIter(tuple))?;
    let (_, reply) = endpoints(attributes.inside(2)?)?;
    let mark = attributes.find(8).and_then(u32_be).unwrap_or_default();
    Some(FlowEntry { transport, original, reply, mark, tuple: tuple.to_vec() })
}

fn endpoints(tuple: AttributeIter<'_>) -> Option<(u8, Endpoints)> {
    let (ip, transport) = (tuple.inside(1)?, tuple.inside(2)?);
    let address = |v4, v6| -> Option<IpAddr> {
        if let Some(bytes) = ip.find(v4) {
            return Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into());
        }
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(ip.find(v6)?).ok()?).into())
    };
    let port = |kind| -> Option<u16> { Some(u16::from_be_bytes(transport.find(kind)?.try_into().ok()?)) };
    let source = SocketAddr::new(address(1, 3)?, port(2)?);
    let destination = SocketAddr::new(address(2, 4)?, port(3)?);
    Some((*transport.find(1)?.first()?, Endpoints { source, destination }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_flow_with_ports_is_passed_over() {
        let none = Attributes::default;
        let ip = none().bytes(1, &[10, 0, 0, 1]).bytes(2, &[10, 0, 0, 2]);
        let ports = none().bytes(1, &[17]).bytes(2, &[0, 9]).bytes(3, &[0, 53]);
        let icmp = none().bytes(1, &[1]);
        let entry_of = |transport: &Attributes| {
            let tuple = none().nested(1, &ip).nested(2, transport);
            let flow = none().nested(1, &tuple).nested(2, &tuple).u32(8, 0x77);
            entry(AttributeIter(flow.as_slice()))
        };
        let found = entry_of(&ports).map(|flow| (flow.transport, flow.original, flow.mark));
        let of = |text: &str| text.parse().ok();
        let ends = of("10.0.0.1:9").zip(of("10.0.0.2:53"));
        let ends = ends.map(|(source, destination)| Endpoints { source, destination });
        assert_eq!(found, ends.map(|ends| (17, ends, 0x77)));
        assert_eq!(entry_of(&icmp), None);
        assert_eq!(entry(AttributeIter(&[])), None);
    }
}
