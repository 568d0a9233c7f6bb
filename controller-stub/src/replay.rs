//! Which of the heartbeats that verify are believed: each once, and in about the order in which they were sent.
//!
//! A heartbeat carries the amphora's id and a number that grows by one and begins at 0 when the agent starts, and no
//! time. So a number that comes again is a replay; a smaller one, when it is close, has been overtaken on its way; and one
//! of the first numbers is a restart, if it is new to the letter or the amphora has been silent for longer than it is
//! between two heartbeats. An idle amphora that restarts says to the letter what it said before: it is believed from its
//! second heartbeat on at the latest.
//!
//! No clock and no socket.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    time::{Duration, Instant},
};

/// How far a heartbeat may be overtaken.
const WINDOW: u64 = 64;

/// A restart is recognized by one of so many first numbers: those before it may be lost.
const EARLY: u64 = 8;

/// Heartbeats of an amphora that are remembered to the letter.
const REMEMBERED: usize = 256;

/// Amphorae that are remembered.
const AMPHORAE: usize = 1024;

/// An amphora that was silent for so long gives way to another when there are [`AMPHORAE`].
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The most heartbeats of an amphora in a second, when those that were missed are counted.
const RATE: u64 = 20;

/// The longest id that is remembered, in bytes.
const MAX_ID: usize = 255;

/// Why a heartbeat is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disbelief {
    /// It came before, or so much later than others that it cannot have been on its way.
    Replayed,
    /// Its number is ahead of what the amphora can have sent since.
    Ahead,
    /// Too many amphorae have sent within a minute.
    Crowded,
    /// The id is too long for one.
    Id,
}

impl fmt::Display for Disbelief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replayed => "its number came before: a replay",
            Self::Ahead => "its number is ahead of what can have been sent",
            Self::Crowded => "more amphorae send than are remembered",
            Self::Id => "its id is too long",
        })
    }
}

/// What is remembered of one amphora.
struct Run {
    highest: u64,
    /// Bit n: the number n below the highest came.
    seen: u64,
    last: Instant,
    /// Between the last two heartbeats that were believed.
    gap: Option<Duration>,
    recent: VecDeque<u64>,
}

/// What is remembered of all; bounded.
#[derive(Default)]
pub(crate) struct Believed(HashMap<String, Run>);

impl Believed {
    /// Judges a heartbeat that verified. `tag` is a part of its HMAC: the same for the same heartbeat.
    pub(crate) fn judge(&mut self, id: &str, seq: u64, tag: u64, now: Instant) -> Result<(), Disbelief> {
        if let Some(run) = self.0.get_mut(id) {
            return run.judge(seq, tag, now);
        }
        if id.len() > MAX_ID {
            return Err(Disbelief::Id);
        }
        if self.0.len() >= AMPHORAE {
            let oldest =
                self.0.iter().min_by_key(|(_, run)| run.last).map(|(id, run)| (id.clone(), run.last));
            match oldest {
                Some((id, last)) if now.saturating_duration_since(last) > FORGOTTEN => self.0.remove(&id),
                _ => return Err(Disbelief::Crowded),
            };
        }
        let recent = VecDeque::from([tag]);
        self.0.insert(id.to_owned(), Run { highest: seq, seen: 1, last: now, gap: None, recent });
        Ok(())
    }
}

impl Run {
    fn judge(&mut self, seq: u64, tag: u64, now: Instant) -> Result<(), Disbelief> {
        let silence = now.saturating_duration_since(self.last);
        let known = self.recent.contains(&tag);
        if let Some(step) = seq.checked_sub(self.highest).filter(|step| *step > 0) {
            // An idle amphora repeats itself after a restart; a copy from before it must not lead far ahead.
            let reach = if known {
                WINDOW / 2
            } else {
                WINDOW.saturating_add(silence.as_secs().saturating_mul(RATE))
            };
            if step > reach {
                return Err(Disbelief::Ahead);
            }
            self.seen = self.seen.checked_shl(u32::try_from(step).unwrap_or(u32::MAX)).unwrap_or(0) | 1;
            self.highest = seq;
        } else if !known && self.highest - seq < WINDOW && self.seen & 1 << (self.highest - seq) == 0 {
            self.seen |= 1 << (self.highest - seq);
        } else if seq < EARLY && (!known || self.gap.is_some_and(|gap| silence > gap * 3 / 2)) {
            (self.highest, self.seen) = (seq, 1);
        } else {
            return Err(Disbelief::Replayed);
        }
        self.gap = Some(silence);
        self.last = now;
        if !known {
            self.recent.truncate(REMEMBERED - 1);
            self.recent.push_front(tag);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    struct Lab {
        believed: Believed,
        start: Instant,
    }

    impl Lab {
        fn new() -> Self {
            Self { believed: Believed::default(), start: Instant::now() }
        }

        /// A heartbeat at so many seconds; `tag` is what else it says.
        fn at(&mut self, seconds: u64, seq: u64, tag: u64) -> Result<(), Disbelief> {
            self.believed.judge("amp", seq, tag << 32 | seq, self.start + Duration::from_secs(seconds))
        }
    }

    #[test]
    fn a_heartbeat_is_believed_once() {
        let mut lab = Lab::new();
        for seq in 0..500 {
            assert_eq!(lab.at(seq * 10, seq, seq), Ok(()));
            assert_eq!(lab.at(seq * 10 + 1, seq, seq), Err(Disbelief::Replayed), "{seq}");
            assert_eq!(lab.at(seq * 10 + 9, seq / 2, seq / 2), Err(Disbelief::Replayed), "{seq}");
        }
    }

    #[test]
    fn what_was_overtaken_is_believed_within_the_window() {
        let mut lab = Lab::new();
        for seq in [100, 103, 101, 102, 160, 104] {
            assert_eq!(lab.at(1, seq, 0), Ok(()), "{seq}");
        }
        for seq in [101, 160, 96, 20] {
            assert_eq!(lab.at(1, seq, 0), Err(Disbelief::Replayed), "{seq}");
        }
    }

    #[test]
    fn a_restart_is_allowed_for_and_what_was_before_stays_refused() {
        let mut lab = Lab::new();
        for seq in 0..100 {
            lab.at(seq * 10, seq, seq).unwrap();
        }
        // It has something else to say, a second after its last one; the very first is lost.
        assert_eq!(lab.at(991, 1, 1000), Ok(()));
        assert_eq!(lab.at(1001, 2, 1001), Ok(()));
        for seq in [0, 1, 2, 50, 99] {
            assert!(lab.at(1002, seq, seq).is_err(), "{seq}");
        }
        // One from before the restart that is just ahead is believed, and does no harm to those that follow.
        assert_eq!(lab.at(1003, 20, 20), Ok(()));
        for seq in 3..40 {
            assert_eq!(lab.at(1000 + seq * 10, seq, 1000 + seq).is_ok(), seq != 20, "{seq}");
        }
    }

    #[test]
    fn an_idle_amphora_that_restarts_is_believed_from_its_second_heartbeat_on() {
        let mut lab = Lab::new();
        for seq in 0..20 {
            lab.at(seq * 10, seq, 0).unwrap();
        }
        assert_eq!(lab.at(192, 0, 0), Err(Disbelief::Replayed), "not before the next one is due");
        assert_eq!(lab.at(202, 0, 0).or_else(|_| lab.at(212, 1, 0)), Ok(()));
        for seq in 2..60 {
            assert_eq!(lab.at(212 + seq * 10, seq, 0), Ok(()), "{seq}");
        }
    }

    #[test]
    fn numbers_far_ahead_and_ids_without_end_are_refused() {
        let mut lab = Lab::new();
        lab.at(0, 0, 0).unwrap();
        assert_eq!(lab.at(1, u64::MAX, 0), Err(Disbelief::Ahead));
        assert_eq!(lab.at(3600, 360, 0), Ok(()), "an hour without a way");
        let now = lab.start + Duration::from_secs(3600);
        for n in 1..AMPHORAE {
            assert_eq!(lab.believed.judge(&n.to_string(), 0, 0, now), Ok(()));
        }
        assert_eq!(lab.believed.judge("one more", 0, 0, now), Err(Disbelief::Crowded));
        assert_eq!(lab.at(3601, 361, 1), Ok(()), "who is known is not pushed out");
        assert_eq!(lab.believed.judge("one more", 0, 0, now + FORGOTTEN * 2), Ok(()));
        assert_eq!(lab.believed.judge(&"x".repeat(MAX_ID + 1), 0, 0, now), Err(Disbelief::Id));
        assert_eq!(lab.believed.0.len(), AMPHORAE);
    }
}
