//! Disposition `101 Switching Protocols`: bytes both ways, as on a TCP listener.

use amphora_model::ListenerTimeouts;

use super::{client::Client, upstream::MemberConnection};
use crate::{
    local::Worker,
    session::relay::{self, RelayEnd, RelayOptions},
    state::ListenerState,
};

/// A connection to a member that has left HTTP.
pub(super) struct Tunnel {
    member: MemberConnection,
    timeouts: ListenerTimeouts,
}

impl Tunnel {
    /// `timeouts` are those of the request that request for it.
    pub(super) fn new(member: MemberConnection, timeouts: ListenerTimeouts) -> Self {
        Self { member, timeouts }
    }

    /// Relays until both sides have finished. It holds what it uses meanwhile, and no configuration.
    pub(super) async fn run(
        &mut self,
        worker: &Worker,
        listener: &ListenerState,
        client: &mut Client,
    ) -> RelayEnd {
        let Self { member: MemberConnection { stream, inlet, slot }, timeouts } = self;
        let options = RelayOptions {
            client_timeout: timeouts.client_data,
            member_timeout: timeouts.member_data,
            from_client: client.inlet.take(),
            from_member: inlet.take(),
        };
        let counters = slot.member().counters();
        let listener = listener.counters.of(worker.index);
        relay::relay(&mut client.stream, stream, options, &worker.pools, listener, counters).await
    }
}
