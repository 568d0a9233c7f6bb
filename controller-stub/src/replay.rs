//! Which of the heartbeats that verify are believed: each once, and in about the order in which they were sent.
//!
//! A heartbeat carries the amphora's id and a number that grows by one and begins at 0 when the agent starts, and no
//! time. So a number that comes again is a replay; a smaller one, when it is close, has been overtaken on its way; and one
//! of the first numbers is a restart, if it is new to the letter or the amphora has been silent for longer than it is
//! between two heartbeats. An idle amphora that restarts says to the letter what it said before: it is believed from its
//! second heartbeat on at the latest. One from before a restart is known again for as long as it is remembered, and what has
//! been taken for a restart does not end the numbers before: who goes on with them, with something that is new to the letter,
//! is believed as well.
//!
//! No clock and no socket.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    time::{Duration, Instant},
};

/// How far a heartbeat may be overtaken.
const WINDOW: u64 = 64;

/// A restart is recognized by one of so many first numbers: those before it may be lost.
const EARLY: u64 = 8;

/// Heartbeats of all amphorae together that are remembered to the letter: four months of one that sends each 10 s.
const REMEMBERED: usize = 1 << 20;

/// Of each amphora so many more of those that could be taken for a restart.
const EARLY_REMEMBERED: usize = 512 * EARLY as usize;

/// Amphorae that are remembered.
const AMPHORAE: usize = 1024;

/// An amphora that was silent for so long gives way to another when there are [`AMPHORAE`].
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The most heartbeats of an amphora in a second, when those that were missed are counted.
const RATE: u64 = 20;

/// The longest id that is remembered, in bytes.
const MAX_ID: usize = 255;

/// Where one that is believed belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is the newest of its amphora.
    Newest,
    /// A newer one has overtaken it.
    Overtaken,
}

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

/// Heartbeats that came, by a part of their HMAC; the oldest are forgotten.
#[derive(Default)]
struct Known {
    tags: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Known {
    fn insert(&mut self, tag: u64, most: usize) {
        if self.tags.insert(tag) {
            self.order.push_back(tag);
        }
        if self.order.len() > most
            && let Some(oldest) = self.order.pop_front()
        {
            self.tags.remove(&oldest);
        }
    }
}

/// The numbers of one start of an agent.
#[derive(Clone, Copy)]
struct Numbers {
    highest: u64,
    /// Bit n: the number n below the highest came.
    seen: u64,
    last: Instant,
}

impl Numbers {
    fn from(seq: u64, now: Instant) -> Self {
        Self { highest: seq, seen: 1, last: now }
    }

    /// Goes on with one that is ahead.
    fn go_on(&mut self, seq: u64, known: bool, now: Instant) -> Result<(), Disbelief> {
        let step = seq.checked_sub(self.highest).filter(|step| *step > 0).ok_or(Disbelief::Replayed)?;
        let silence = now.saturating_duration_since(self.last);
        // An idle amphora repeats itself after a restart; a copy from before it must not lead far ahead.
        let reach =
            if known { WINDOW / 2 } else { WINDOW.saturating_add(silence.as_secs().saturating_mul(RATE)) };
        if step > reach {
            return Err(Disbelief::Ahead);
        }
        let seen = self.seen.checked_shl(u32::try_from(step).unwrap_or(u32::MAX)).unwrap_or(0) | 1;
        *self = Self { highest: seq, seen, last: now };
        Ok(())
    }

    /// Takes one that was overtaken.
    fn fill_in(&mut self, seq: u64, now: Instant) -> bool {
        let back = self.highest.checked_sub(seq).filter(|back| *back < WINDOW);
        let missing = back.is_some_and(|back| self.seen & 1 << back == 0);
        if let Some(back) = back {
            self.seen |= 1 << back;
        }
        if missing {
            self.last = now;
        }
        missing
    }
}

/// What is remembered of one amphora.
struct Run {
    numbers: Numbers,
    /// Those before what was taken for a restart.
    before: Option<Numbers>,
    last: Instant,
    /// Between the last two heartbeats that were believed.
    gap: Option<Duration>,
    early: Known,
}

/// What is remembered of all; bounded.
#[derive(Default)]
pub(crate) struct Believed {
    runs: HashMap<String, Run>,
    known: Known,
}

impl Believed {
    /// Judges a heartbeat that verified. `tag` is a part of its HMAC: the same for the same heartbeat.
    pub(crate) fn judge(&mut self, id: &str, seq: u64, tag: u64, now: Instant) -> Result<Place, Disbelief> {
        let mut place = Place::Newest;
        if let Some(run) = self.runs.get_mut(id) {
            let known = self.known.tags.contains(&tag) || run.early.tags.contains(&tag);
            place = run.judge(seq, known, now)?;
        } else {
            self.make_room(id, now)?;
            let numbers = Numbers::from(seq, now);
            let run = Run { numbers, before: None, last: now, gap: None, early: Known::default() };
            self.runs.insert(id.to_owned(), run);
        }
        self.known.insert(tag, REMEMBERED);
        if let Some(run) = self.runs.get_mut(id).filter(|_| seq < EARLY) {
            run.early.insert(tag, EARLY_REMEMBERED);
        }
        Ok(place)
    }

    fn make_room(&mut self, id: &str, now: Instant) -> Result<(), Disbelief> {
        if id.len() > MAX_ID {
            return Err(Disbelief::Id);
        }
        if self.runs.len() < AMPHORAE {
            return Ok(());
        }
        let oldest = self.runs.iter().min_by_key(|(_, run)| run.last).map(|(id, run)| (id.clone(), run.last));
        match oldest {
            Some((id, last)) if now.saturating_duration_since(last) > FORGOTTEN => {
                self.runs.remove(&id);
                Ok(())
            }
            _ => Err(Disbelief::Crowded),
        }
    }
}

impl Run {
    fn judge(&mut self, seq: u64, known: bool, now: Instant) -> Result<Place, Disbelief> {
        let silence = now.saturating_duration_since(self.last);
        let mut place = Place::Newest;
        if let Err(disbelief) = self.numbers.go_on(seq, known, now) {
            let goes_on = |before: &mut Numbers| !known && before.go_on(seq, known, now).is_ok();
            if disbelief == Disbelief::Replayed && !known && self.numbers.fill_in(seq, now) {
                place = Place::Overtaken;
            } else if self.before.as_mut().is_some_and(goes_on) {
                self.before = self.before.map(|before| std::mem::replace(&mut self.numbers, before));
            } else if seq < EARLY && (!known || self.gap.is_some_and(|gap| silence > gap * 3 / 2)) {
                self.before = Some(std::mem::replace(&mut self.numbers, Numbers::from(seq, now)));
            } else {
                return Err(disbelief);
            }
        }
        self.gap = Some(silence);
        self.last = now;
        Ok(place)
    }
}

/// A part of the HMAC at the end of a heartbeat that verified.
pub(crate) fn tag(packet: &[u8]) -> u64 {
    let digits = packet.last_chunk::<16>().and_then(|digits| str::from_utf8(digits).ok());
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
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
            let now = self.start + Duration::from_secs(seconds);
            self.believed.judge("amp", seq, tag << 32 | seq, now).map(drop)
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
        for (seq, place) in [
            (100, Place::Newest),
            (103, Place::Newest),
            (101, Place::Overtaken),
            (102, Place::Overtaken),
            (160, Place::Newest),
            (104, Place::Overtaken),
        ] {
            let judged = lab.believed.judge("amp", seq, seq, lab.start + Duration::from_secs(1));
            assert_eq!(judged, Ok(place), "{seq}");
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
    fn replays_of_long_ago_are_known_again() {
        let mut lab = Lab::new();
        for seq in 0..1000 {
            assert_eq!(lab.at(seq * 10, seq, seq), Ok(()));
        }
        for seq in 0..1000 {
            assert_eq!(lab.at(9_991, seq, seq), Err(Disbelief::Replayed), "{seq}");
        }
        assert_eq!(lab.at(10_000, 1000, 1000), Ok(()), "who has sent them goes on");
        // After a restart those from before it lead nowhere.
        for seq in 0..5 {
            assert_eq!(lab.at(10_001 + seq * 10, seq, 5000 + seq), Ok(()));
        }
        for seq in (0..1000).rev().step_by(60) {
            assert!(lab.at(10_042, seq, seq).is_err(), "{seq}");
        }
        assert_eq!(lab.at(10_051, 5, 5005), Ok(()));
    }

    #[test]
    fn what_was_taken_for_a_restart_does_not_end_the_numbers_before() {
        let mut lab = Lab::new();
        for seq in 0..1000 {
            lab.at(seq * 10, seq, 0).unwrap();
        }
        // Two were lost, and an idle amphora that restarts would say the same.
        assert_eq!(lab.at(10_011, 0, 0), Ok(()));
        for seq in 1002..1100 {
            assert_eq!(lab.at(seq * 10, seq, 0), Ok(()), "{seq}");
            assert!(lab.at(seq * 10 + 1, seq - 1002, 0).is_err(), "{seq}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut known = Known::default();
        (0..5000).for_each(|tag| known.insert(tag % 3000, 1000));
        assert_eq!((known.tags.len(), known.order.len()), (1000, 1000));
        assert!(known.tags.contains(&1999) && !known.tags.contains(&999));
    }

    #[test]
    fn numbers_far_ahead_and_ids_without_end_are_refused() {
        let mut lab = Lab::new();
        lab.at(0, 0, 0).unwrap();
        assert_eq!(lab.at(1, u64::MAX, 0), Err(Disbelief::Ahead));
        assert_eq!(lab.at(3600, 360, 0), Ok(()), "an hour without a way");
        let now = lab.start + Duration::from_secs(3600);
        for n in 1..AMPHORAE {
            assert_eq!(lab.believed.judge(&n.to_string(), 0, 0, now), Ok(Place::Newest));
        }
        assert_eq!(lab.believed.judge("one more", 0, 0, now), Err(Disbelief::Crowded));
        assert_eq!(lab.at(3601, 361, 1), Ok(()), "who is known is not pushed out");
        assert_eq!(lab.believed.judge("one more", 0, 0, now + FORGOTTEN * 2), Ok(Place::Newest));
        assert_eq!(lab.believed.judge(&"x".repeat(MAX_ID + 1), 0, 0, now), Err(Disbelief::Id));
        assert_eq!(lab.believed.runs.len(), AMPHORAE);
    }
}
