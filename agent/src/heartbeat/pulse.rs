//! When the VRRP daemon counts as dead. No clock, no socket.

/// How many heartbeats may leave on the word of an earlier one while the daemon does not answer in time.
const PATIENCE: u32 = 2;

/// What is known of the daemon at the moment of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// No VRRP is configured.
    Unwanted,
    /// It answered.
    Answered,
    /// It runs, but did not answer in time.
    Late,
    /// It does not run.
    Absent,
}

/// The verdict on the daemon.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    dead: bool,
    late: u32,
}

impl Pulse {
    /// Takes in one more observation: whether the daemon is dead.
    pub(super) fn observe(&mut self, beat: Beat) -> bool {
        self.late = if beat == Beat::Late { self.late.saturating_add(1) } else { 0 };
        self.dead = match beat {
            Beat::Unwanted | Beat::Answered => false,
            Beat::Late => self.dead || self.late > PATIENCE,
            Beat::Absent => true,
        };
        self.dead
    }

    /// The verdict as of the last observation.
    pub(super) fn is_dead(&self) -> bool {
        self.dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_counts_at_once_and_silence_after_a_while() {
        use Beat::{Absent, Answered, Late, Unwanted};
        let mut pulse = Pulse::default();
        for (beat, dead) in [
            (Unwanted, false),
            (Absent, true),
            (Answered, false),
            (Late, false),
            (Late, false),
            (Answered, false),
            (Late, false),
            (Late, false),
            (Late, true),
            (Late, true),
            (Answered, false),
            (Absent, true),
            // One that was dead is alive when it says so.
            (Late, true),
            (Unwanted, false),
        ] {
            assert_eq!((pulse.observe(beat), pulse.is_dead()), (dead, dead), "{beat:?}");
        }
    }
}
