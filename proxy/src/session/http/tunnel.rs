//! After `101 Switching Protocols`: bytes both ways, as on a TCP listener.

use std::{rc::Rc, sync::Arc};

use super::{client::Client, exchange::MemberSide};
use crate::{
    local::{LocalListener, Worker},
    model::ListenerTimeouts,
    session::relay::{self, RelayOptions},
};

/// A connection to a member that has left HTTP.
pub(super) struct Tunnel {
    member: MemberSide,
    timeouts: ListenerTimeouts,
}

impl Tunnel {
    /// `timeouts` are those of the request that asked for it.
    pub(super) fn new(member: MemberSide, timeouts: ListenerTimeouts) -> Self {
        Self { member, timeouts }
    }

    /// Relays until both sides have finished. It holds what it uses meanwhile, and no configuration.
    pub(super) async fn run(self, worker: &Worker, listener: Rc<LocalListener>, mut client: Client) {
        let state = Arc::clone(listener.state());
        drop(listener);
        let MemberSide { mut stream, inlet, slot } = self.member;
        let options = RelayOptions {
            client_timeout: self.timeouts.client_data,
            member_timeout: self.timeouts.member_data,
            from_client: client.inlet.into_buffer(),
            from_member: inlet.into_buffer(),
        };
        let counters = slot.member().counters();
        let listener = state.counters.of(worker.index);
        relay::relay(&mut client.stream, &mut stream, options, &worker.pools, listener, counters).await;
    }
}
