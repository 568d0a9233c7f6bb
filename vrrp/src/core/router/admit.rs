//! Which advertisements are taken (RFC 9568 section 7.1, and what keepalived asks besides).

use std::net::IpAddr;

use super::Router;
use crate::{
    core::State,
    packet::{Advertisement, Auth, Envelope, Interval, Refusal, TTL},
};

impl Router {
    /// What the message says, or the first reason not to listen to it.
    pub(super) fn admit(&mut self, envelope: &Envelope, message: &[u8]) -> Result<Advertisement, Refusal> {
        if self.state == State::Initialize {
            return Err(Refusal::Inactive);
        }
        if envelope.source == self.source {
            return Err(Refusal::Own);
        }
        let unicast = self.instance.unicast.as_ref();
        // RFC 9568 section 7.1 asks for 255; keepalived, whose unicast crosses routers, only of multicast.
        if unicast.is_none() && envelope.ttl.is_some_and(|ttl| ttl != TTL) {
            return Err(Refusal::Ttl);
        }
        let decoded = Advertisement::decode(message, envelope, self.multicast)?;
        let advertisement = decoded.advertisement;
        if advertisement.version() != self.instance.version() {
            return Err(Refusal::Version);
        }
        if advertisement.vrid != self.instance.vrid {
            return Err(Refusal::Vrid);
        }
        match (self.instance.auth, advertisement.auth) {
            (Auth::None, Auth::None) => {}
            (Auth::Password(ours), Auth::Password(theirs)) if is_same(&ours, &theirs) => {}
            (Auth::Password(_), Auth::Password(_)) => return Err(Refusal::AuthFailure),
            _ => return Err(Refusal::AuthMismatch),
        }
        match advertisement.interval {
            // Version 3 learns it; but one of 0 would have a master advertise without pause.
            Interval::Centiseconds(interval) if interval > 0 => {}
            interval if interval == self.instance.interval => {}
            _ => return Err(Refusal::Interval),
        }
        let same_addresses = advertisement.addresses.len() == self.addresses.len()
            && self.addresses.iter().all(|address| advertisement.addresses.contains(address));
        if !same_addresses {
            return Err(Refusal::Addresses);
        }
        if is_multicast(envelope.destination) == unicast.is_some() {
            return Err(Refusal::Destination);
        }
        if unicast.is_some_and(|unicast| unicast.check_source && !unicast.peers.contains(&envelope.source)) {
            return Err(Refusal::Peer);
        }
        self.old_checksum |= decoded.old_checksum;
        Ok(advertisement)
    }
}

fn is_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

/// Compares in the same time wherever the difference is.
fn is_same(ours: &[u8], theirs: &[u8]) -> bool {
    ours.iter().zip(theirs).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
