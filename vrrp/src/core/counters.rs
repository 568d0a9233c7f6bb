//! What a virtual router counts.

use crate::packet::Refusal;

/// Counters of one virtual router since it was made; they outlive its states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Advertisements sent, to all peers together as one (keepalived `advert_sent`).
    pub sent: u64,
    /// Advertisements taken (keepalived `advert_rcvd`).
    pub received: u64,
    /// Of those sent, with priority 0 (keepalived `pri_zero_sent`).
    pub priority_zero_sent: u64,
    /// Of those taken, with priority 0 (keepalived `pri_zero_rcvd`).
    pub priority_zero_received: u64,
    /// Times that it became master (keepalived `become_master`).
    pub became_master: u64,
    /// Times that it ceased to be master (keepalived `release_master`).
    pub released_master: u64,
    refused: [u64; Refusal::ALL.len()],
}

impl Counters {
    /// Advertisements refused for a reason.
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refused[reason as usize]
    }

    pub(crate) fn refuse(&mut self, reason: Refusal) {
        self.refused[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_of_its_own() {
        let mut counters = Counters::default();
        for (n, reason) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, n);
            counters.refuse(reason);
        }
        assert!(Refusal::ALL.into_iter().all(|reason| counters.refused(reason) == 1));
    }
}
