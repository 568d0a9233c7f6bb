//! After `101 Switching Protocols`: bytes both ways, as on a TCP listener.

use std::sync::Arc;

use super::{client::Client, exchange::MemberSide};
use crate::{
    local::{Present, Worker},
    session::relay::{self, RelayOptions},
};

/// A connection to a member that has left HTTP.
pub(super) struct Tunnel {
    member: MemberSide,
}

impl Tunnel {
    pub(super) fn new(member: MemberSide) -> Self {
        Self { member }
    }

    /// Relays until both sides have finished. It holds what it uses meanwhile, and no configuration.
    pub(super) async fn run(self, worker: &Worker, present: Present, mut client: Client) {
        let (state, timeouts) = (Arc::clone(&present.plan().state), present.plan().timeouts);
        drop(present);
        let MemberSide { mut stream, inlet, slot } = self.member;
        let options = RelayOptions {
            client_timeout: timeouts.client_data,
            member_timeout: timeouts.member_data,
            from_client: client.inlet.into_buffer(),
            from_member: inlet.into_buffer(),
        };
        let counters = slot.member().counters();
        let listener = state.counters.of(worker.index);
        relay::relay(&mut client.stream, &mut stream, options, &worker.pools, listener, counters).await;
    }
}
