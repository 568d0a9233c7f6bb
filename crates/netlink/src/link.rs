//! Interfaces: what they are, what is done to them, and their changes as they happen.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd},
};

use futures_util::{Stream, StreamExt};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage},
};
use nix::errno::Errno;
use rtnetlink::MulticastGroup;

use super::{Failure, Netlink};
use crate::{InterfaceName, MacAddress, NetError};

/// The number that the kernel calls an interface by, unique in its network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceIndex(pub u32);

impl fmt::Display for InterfaceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interface {}", self.0)
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: InterfaceIndex,
    /// Its name, which may change.
    pub name: InterfaceName,
    /// Its link-layer address, where that is an Ethernet one.
    pub mac: Option<MacAddress>,
    /// Octets of the largest packet.
    pub mtu: u32,
    /// Set up by the administrator (`IFF_UP`).
    pub up: bool,
    /// Has a carrier, too (`IFF_RUNNING`).
    pub running: bool,
    /// The loopback interface.
    pub loopback: bool,
    /// Resolves no link-layer addresses, so that there is nothing to announce (`IFF_NOARP`).
    pub no_arp: bool,
}

impl Interface {
    /// `None` for a name that cannot be configured anywhere here.
    fn read(message: &LinkMessage) -> Option<Self> {
        let flags = message.header.flags;
        let (mut name, mut mac, mut mtu) = (None, None, 0);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = InterfaceName::new(text),
                LinkAttribute::Address(octets) => mac = octets.as_slice().try_into().ok().map(MacAddress),
                LinkAttribute::Mtu(octets) => mtu = *octets,
                _ => {}
            }
        }
        Some(Self {
            index: InterfaceIndex(message.header.index),
            name: name?,
            mac,
            mtu,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Up | LinkFlags::Running),
            loopback: flags.contains(LinkFlags::Loopback),
            no_arp: flags.contains(LinkFlags::Noarp),
        })
    }

    /// Whether packets can leave by it.
    pub fn is_usable(&self) -> bool {
        self.up && self.running
    }
}

impl Netlink {
    /// Every interface of the namespace.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, NetError> {
        let answers = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default())).await;
        let answers = answers.map_err(|failure| failure.to(|| "list interfaces".to_owned()))?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Interface::read(message),
                _ => None,
            })
            .collect())
    }

    /// The interface of this name.
    ///
    /// # Errors
    /// When the kernel does not answer; not when there is none.
    pub async fn interface(&self, name: &InterfaceName) -> Result<Option<Interface>, NetError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.as_str().to_owned()));
        self.find(message, || format!("find {name}")).await
    }

    /// The interface of this number.
    ///
    /// # Errors
    /// When the kernel does not answer; not when there is none.
    pub async fn interface_by_index(&self, index: InterfaceIndex) -> Result<Option<Interface>, NetError> {
        self.find(link(index), || format!("find {index}")).await
    }

    /// The interface with this link-layer address; the one with the lowest number, if there are more.
    ///
    /// # Errors
    /// When the kernel does not answer; not when there is none.
    pub async fn interface_by_mac(&self, mac: MacAddress) -> Result<Option<Interface>, NetError> {
        let interfaces = self.interfaces().await?;
        Ok(interfaces
            .into_iter()
            .filter(|interface| interface.mac == Some(mac))
            .min_by_key(|found| found.index))
    }

    async fn find(
        &self,
        message: LinkMessage,
        what: impl FnOnce() -> String,
    ) -> Result<Option<Interface>, NetError> {
        match self.exchange(RouteNetlinkMessage::GetLink(message), REQUEST).await {
            Ok(answers) => Ok(answers.messages.iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Interface::read(message),
                _ => None,
            })),
            Err(Failure::Errno(Errno::ENODEV)) => Ok(None),
            Err(failure) => Err(failure.to(what)),
        }
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_up(&self, index: InterfaceIndex) -> Result<(), NetError> {
        self.set_flags(index, LinkFlags::Up, "up").await
    }

    /// Sets an interface down.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_down(&self, index: InterfaceIndex) -> Result<(), NetError> {
        self.set_flags(index, LinkFlags::empty(), "down").await
    }

    async fn set_flags(&self, index: InterfaceIndex, flags: LinkFlags, word: &str) -> Result<(), NetError> {
        let mut message = link(index);
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        self.set(message, || format!("set {index} {word}")).await
    }

    /// Gives an interface another name. Older kernels want it down for that.
    ///
    /// # Errors
    /// When the name is taken, for one.
    pub async fn rename(&self, index: InterfaceIndex, name: &InterfaceName) -> Result<(), NetError> {
        let mut message = link(index);
        message.attributes.push(LinkAttribute::IfName(name.as_str().to_owned()));
        self.set(message, || format!("rename {index} to {name}")).await
    }

    /// Sets the octets of an interface's largest packet.
    ///
    /// # Errors
    /// When the device cannot carry it.
    pub async fn set_mtu(&self, index: InterfaceIndex, mtu: u32) -> Result<(), NetError> {
        let mut message = link(index);
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.set(message, || format!("set the MTU of {index} to {mtu}")).await
    }

    /// Moves an interface into another network namespace, where it is down, without addresses, and of this name. The
    /// caller makes sure that the name is free there: otherwise the kernel may have moved it already when it refuses
    /// the name.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn move_to_namespace(
        &self,
        index: InterfaceIndex,
        namespace: impl AsFd,
        name: &InterfaceName,
    ) -> Result<(), NetError> {
        let mut message = link(index);
        message.attributes.push(LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd()));
        message.attributes.push(LinkAttribute::IfName(name.as_str().to_owned()));
        self.set(message, || format!("move {index} to another namespace as {name}")).await
    }

    pub(super) async fn set(
        &self,
        message: LinkMessage,
        what: impl FnOnce() -> String,
    ) -> Result<(), NetError> {
        self.change(RouteNetlinkMessage::SetLink(message), 0).await.map_err(|failure| failure.to(what))
    }
}

/// Flags of a request for one object; the answer ends with an acknowledgement.
const REQUEST: u16 = netlink_packet_core::NLM_F_REQUEST | netlink_packet_core::NLM_F_ACK;

pub(super) fn link(index: InterfaceIndex) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index.0;
    message
}

/// What happened to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// It is new, or is now so: up, down, with or without a carrier, of another name or MTU. Whoever wants to know
    /// what changed compares it with what it was.
    Now(Interface),
    /// It is gone, or in another namespace.
    Gone(InterfaceIndex),
    /// Changes came too fast, and some were lost: look at all of them anew.
    Missed,
}

/// The changes of the interfaces of a namespace from now on.
pub struct LinkChanges {
    messages: Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send + Unpin>,
}

impl LinkChanges {
    /// Begins to listen, in the namespace of this thread. List the interfaces after this, not before, so that no change
    /// falls between the two.
    ///
    /// # Errors
    /// When the system has no more sockets.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn open() -> Result<Self, NetError> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
            .map_err(NetError::socket("listen to changes of interfaces"))?;
        tokio::spawn(connection);
        Ok(Self { messages: Box::new(messages.map(|(message, _)| message)) })
    }

    /// The next change. Dropping the future loses none.
    ///
    /// # Errors
    /// When the socket failed; there are no more changes then.
    pub async fn next(&mut self) -> Result<LinkChange, NetError> {
        loop {
            let message = self.messages.next().await.ok_or(NetError::Closed)?;
            if let Some(change) = change(&message) {
                return Ok(change);
            }
        }
    }
}

impl fmt::Debug for LinkChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkChanges").finish_non_exhaustive()
    }
}

fn change(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<LinkChange> {
    // Bridges send messages of their own family about ports that come and go, which are not about the interface.
    let is_link = |message: &LinkMessage| message.header.interface_family == AddressFamily::Unspec;
    match &message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) if is_link(message) => {
            Interface::read(message).map(LinkChange::Now)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) if is_link(message) => {
            Some(LinkChange::Gone(InterfaceIndex(message.header.index)))
        }
        NetlinkPayload::Overrun(_) => Some(LinkChange::Missed),
        _ => None,
    }
}
