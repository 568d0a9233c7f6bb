//! What a virtual router tells of itself, on the control socket and in the log.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use amphora_ipc::vrrp::{CountersStatus, InstanceStatus, PeerStatus};

use super::Live;
use crate::{
    core::Reason,
    packet::{Refusal, Version},
};

/// One line of the log for each reason to refuse an advertisement in so long, so that a rival does not fill it.
const REFUSAL_LOG: Duration = Duration::from_secs(60);

impl Live {
    pub(in crate::daemon) fn status(&self, now: Instant) -> InstanceStatus {
        let instance = self.instance();
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let counters = self.router.counters();
        InstanceStatus {
            name: instance.name.clone(),
            state: self.router.state().as_str().to_owned(),
            since_ms: self.router.since().map_or(0, |since| millis(now.saturating_duration_since(since))),
            reason: self.reason.map(Reason::as_str).unwrap_or_default().to_owned(),
            interface: instance.interface.to_string(),
            vrid: instance.vrid,
            version: match instance.version() {
                Version::V2 => 2,
                Version::V3 => 3,
            },
            priority: self.router.priority(),
            interval_ms: millis(crate::core::Timing::of(instance.interval).interval()),
            master_interval_ms: millis(self.router.master_interval()),
            fit: self.router.is_fit(),
            handed_over: self.router.has_handed_over(),
            addresses: instance
                .addresses
                .iter()
                .chain(&instance.excluded)
                .map(|address| address.net.to_string())
                .collect(),
            peer: self.router.peer().map(|peer| PeerStatus {
                address: peer.address,
                priority: peer.priority,
                ago_ms: millis(now.saturating_duration_since(peer.at)),
            }),
            counters: CountersStatus {
                sent: counters.sent,
                received: counters.received,
                priority_zero_sent: counters.priority_zero_sent,
                priority_zero_received: counters.priority_zero_received,
                became_master: counters.became_master,
                released_master: counters.released_master,
                refused: Refusal::ALL
                    .into_iter()
                    .filter(|reason| counters.refused(*reason) > 0)
                    .map(|reason| (reason.as_str().to_owned(), counters.refused(reason)))
                    .collect(),
            },
            error: self.error(),
        }
    }

    /// What keeps it from doing what it should.
    fn error(&self) -> Option<String> {
        let unsent = self.unsent.as_ref().filter(|_| self.is_master());
        let errors = [self.waits.as_ref(), unsent, self.fault.as_ref()];
        let errors: Vec<_> = errors.into_iter().flatten().map(String::as_str).collect();
        (!errors.is_empty()).then(|| errors.join("; "))
    }
}

/// When each reason was logged last.
#[derive(Debug, Default)]
pub(super) struct RefusalLog([Option<Instant>; Refusal::ALL.len()]);

impl RefusalLog {
    pub(super) fn note(&mut self, now: Instant, instance: &str, from: IpAddr, reason: Refusal) {
        if matches!(reason, Refusal::Inactive | Refusal::Own) {
            return;
        }
        let Some(place) = Refusal::ALL.iter().position(|one| *one == reason) else { return };
        let last = &mut self.0[place];
        if last.is_none_or(|last| now.saturating_duration_since(last) >= REFUSAL_LOG) {
            *last = Some(now);
            tracing::warn!(%instance, %from, "an advertisement is not taken: {reason}");
        }
    }
}
