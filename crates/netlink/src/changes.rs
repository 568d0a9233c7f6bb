//! That addresses, routes or rules are others than before, by whoever's hand.

use std::fmt;

use futures_util::{Stream, StreamExt};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;

use crate::NetError;

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// The changes of a namespace's addresses, routes and rules from now on. They say that something changed and not what: whoever
/// cares looks at all of it.
pub struct ConfigurationChanges {
    messages: Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send + Unpin>,
}

impl ConfigurationChanges {
    /// Begins to listen, in the namespace of this thread.
    ///
    /// # Errors
    /// When the system has no more sockets.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn open() -> Result<Self, NetError> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&GROUPS)
            .map_err(NetError::socket("listen to changes of addresses, routes and rules"))?;
        tokio::spawn(connection);
        Ok(Self { messages: Box::new(messages.map(|(message, _)| message)) })
    }

    /// Waits for the next change. Dropping the future loses none.
    ///
    /// # Errors
    /// When the socket failed; there are no more changes then.
    pub async fn next(&mut self) -> Result<(), NetError> {
        loop {
            let message = self.messages.next().await.ok_or(NetError::Closed)?;
            if matches!(message.payload, NetlinkPayload::InnerMessage(_) | NetlinkPayload::Overrun(_)) {
                return Ok(());
            }
        }
    }
}

impl fmt::Debug for ConfigurationChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigurationChanges").finish_non_exhaustive()
    }
}
