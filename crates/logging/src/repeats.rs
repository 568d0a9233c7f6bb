//! Which lines are told, and how many were not.
//!
//! Of equal lines [`EACH`] are told in [`PERIOD`], and of all lines of one kind [`KIND`]: an attacker who decides what is in a
//! line decides whether two are equal. Lines that tell of objects of the configuration are bounded by it, and each that is not
//! equal to another is told. One kind never hides another, and a line that comes for the first time is told unless its
//! kind has used up its own. What is left out is counted, and its number is there to be told when no more has come for [`QUIET`],
//! at the latest at the end of the period.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    mem,
    time::{Duration, Instant},
};

/// Equal lines that are told in a period.
pub const EACH: u32 = 5;

/// Lines of one kind that are told in a period.
pub const KIND: u32 = 200;

/// From the first of them.
pub const PERIOD: Duration = Duration::from_secs(10);

/// Lines that have not come for so long have stopped.
pub const QUIET: Duration = Duration::from_secs(1);

/// Lines that are remembered, as numbers. Of more than that in a period those that are equal are not found out, and count for
/// their kind.
const REMEMBERED: usize = 1024;

/// Bytes of a line that are kept to tell what was left out.
const LONGEST: usize = 512;

/// The lines of a while. `K` is what a line is of; a program has a fixed number of kinds.
#[derive(Debug)]
pub struct Repeats<K> {
    lines: HashMap<(K, u64), Window>,
    kinds: HashMap<K, Window>,
    hasher: RandomState,
}

/// Lines that were not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut<K> {
    /// What they are of.
    pub kind: K,
    /// The line, or the last one of those that are not equal.
    pub line: String,
    /// How many.
    pub count: u64,
    /// All of them are equal.
    pub equal: bool,
}

impl<K> fmt::Display for LeftOut<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, count, equal, .. } = self;
        match equal {
            true => write!(f, "{count} more like this left out: {line}"),
            false => write!(f, "{count} more of this kind left out, the last: {line}"),
        }
    }
}

#[derive(Debug)]
struct Window {
    until: Instant,
    told: u32,
    left_out: u64,
    /// The last that was left out, and when.
    line: String,
    last: Instant,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { until: now + PERIOD, told: 0, left_out: 0, line: String::new(), last: now }
    }

    /// Whether there is room for one more; it is left out otherwise.
    fn has_room(&mut self, now: Instant, limit: u32, line: &str) -> bool {
        if now >= self.until {
            (self.until, self.told) = (now + PERIOD, 0);
        }
        if self.told < limit {
            return true;
        }
        self.left_out += 1;
        self.last = now;
        self.line.clear();
        self.line.push_str(beginning(line));
        false
    }

    /// When it is to be told how many were left out.
    fn due(&self) -> Option<Instant> {
        (self.left_out > 0).then(|| self.until.min(self.last + QUIET))
    }

    fn take<K>(&mut self, kind: K, equal: bool) -> LeftOut<K> {
        LeftOut { kind, line: mem::take(&mut self.line), count: mem::take(&mut self.left_out), equal }
    }
}

/// What is kept of a line.
fn beginning(line: &str) -> &str {
    let mut end = line.len().min(LONGEST);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line[..end]
}

impl<K> Default for Repeats<K> {
    fn default() -> Self {
        Self { lines: HashMap::new(), kinds: HashMap::new(), hasher: RandomState::new() }
    }
}

impl<K: Clone + Eq + Hash> Repeats<K> {
    /// Whether this line is to be told; it is counted otherwise.
    pub fn admit(&mut self, now: Instant, kind: K, line: &str) -> bool {
        self.admit_within(now, kind, KIND, line)
    }

    /// The same for a kind whose lines nobody from outside decides on: as many are told as are not equal.
    pub fn admit_each(&mut self, now: Instant, kind: K, line: &str) -> bool {
        self.admit_within(now, kind, u32::MAX, line)
    }

    fn admit_within(&mut self, now: Instant, kind: K, limit: u32, line: &str) -> bool {
        let key = (kind.clone(), self.hasher.hash_one(line));
        if let Some(window) = self.lines.get_mut(&key)
            && !window.has_room(now, EACH, line)
        {
            return false;
        }
        let of_kind = self.kinds.entry(kind).or_insert_with(|| Window::new(now));
        if !of_kind.has_room(now, limit, line) {
            return false;
        }
        of_kind.told += 1;
        if self.lines.len() >= REMEMBERED {
            self.forget(now);
        }
        if self.lines.len() < REMEMBERED || self.lines.contains_key(&key) {
            self.lines.entry(key).or_insert_with(|| Window::new(now)).told += 1;
        }
        true
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to tell, unless more lines come until then.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.lines.values().chain(self.kinds.values()).filter_map(Window::due).min()
    }

    /// What was left out and is to be told by now.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<LeftOut<K>> {
        let left_out = self.take(|window| window.due().is_some_and(|due| due <= now));
        self.forget(now);
        left_out
    }

    /// All that was left out and has not been told.
    pub fn end(&mut self) -> Vec<LeftOut<K>> {
        self.take(|window| window.left_out > 0)
    }

    fn take(&mut self, which: impl Fn(&Window) -> bool) -> Vec<LeftOut<K>> {
        let lines = self.lines.iter_mut().filter(|(_, window)| which(window));
        let mut left_out: Vec<_> = lines.map(|((kind, _), window)| window.take(kind.clone(), true)).collect();
        let kinds = self.kinds.iter_mut().filter(|(_, window)| which(window));
        left_out.extend(kinds.map(|(kind, window)| window.take(kind.clone(), false)));
        left_out
    }

    fn forget(&mut self, now: Instant) {
        let lives = |window: &Window| window.left_out > 0 || now < window.until;
        self.lines.retain(|_, window| lives(window));
        self.kinds.retain(|_, window| lives(window));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn of_833_equal_lines_in_a_second_five_are_told_and_a_number() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let told =
            (0..833).filter(|n| repeats.admit(start + *n * 1200 * MS / 1000, "accept", "no descriptors"));
        assert_eq!(told.count(), 5);
        let last = start + 832 * 1200 * MS / 1000;
        assert_eq!(repeats.poll_timeout(), Some(last + QUIET));
        assert_eq!(repeats.handle_timeout(last + QUIET - MS), []);
        let left_out = LeftOut { kind: "accept", line: "no descriptors".to_owned(), count: 828, equal: true };
        assert_eq!(repeats.handle_timeout(last + QUIET), [left_out]);
        assert_eq!(repeats.poll_timeout(), None);
    }

    #[test]
    fn a_line_that_never_stops_is_told_of_each_period() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let (mut told, mut counted) = (0, 0);
        // Each 100 ms for a minute and a bit.
        for n in 0..601 {
            let now = start + n * 100 * MS;
            let due = repeats.handle_timeout(now);
            counted += due.iter().map(|left_out| left_out.count).sum::<u64>();
            told += u64::from(repeats.admit(now, 0, "again"));
        }
        assert_eq!((told, counted), (31, 570));
    }

    #[test]
    fn kinds_do_not_hide_each_other_and_what_is_new_is_told() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let flood = |repeats: &mut Repeats<u32>, kind, line: &dyn Fn(u32) -> String| {
            (0..10_000).filter(|n| repeats.admit(now, kind, &line(*n))).count()
        };
        assert_eq!(flood(&mut repeats, 1, &|_| "equal".to_owned()), 5);
        assert!(repeats.admit(now, 1, "another of the kind"));
        // 1, 2, 3 ... are as many different lines.
        assert_eq!(flood(&mut repeats, 1, &|n| format!("{n}")), 194);
        assert!(!repeats.admit(now, 1, "yet another"), "the kind has used up its own");
        assert!(repeats.admit(now, 2, "equal"));
        let mut left_out: Vec<_> = repeats.end().into_iter().map(|l| (l.line, l.count, l.equal)).collect();
        left_out.sort();
        assert_eq!(left_out, [("equal".to_owned(), 9995, true), ("yet another".to_owned(), 9807, false)]);
        // The kind has its own again when the period is over.
        assert!(repeats.admit(now + PERIOD, 1, "yet another"));
    }

    #[test]
    fn of_those_that_tell_of_many_objects_each_is_told_and_none_again_and_again() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let down = |n: u32| format!("member {n} is down");
        assert_eq!((0..10_000).filter(|n| repeats.admit_each(now, 1, &down(*n))).count(), 10_000);
        assert_eq!((0..100).filter(|_| repeats.admit_each(now, 1, &down(1))).count(), 4);
        assert!(repeats.lines.len() <= REMEMBERED);
        assert_eq!(repeats.end().iter().map(|left_out| left_out.count).sum::<u64>(), 96);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        for n in 0..100_000u32 {
            repeats.admit(now, n % 50, &format!("{n} {}", "ä".repeat(1000)));
        }
        assert!(repeats.lines.len() <= REMEMBERED);
        assert!(repeats.end().iter().all(|left_out| left_out.line.len() <= LONGEST));
        assert_eq!(repeats.handle_timeout(now + PERIOD), []);
        assert_eq!((repeats.lines.len(), repeats.kinds.len()), (0, 0));
    }

    proptest! {
        /// What is not told is counted, and who comes first is told.
        #[test]
        fn nothing_is_lost(events in proptest::collection::vec((0..20_000u64, 0..3u8, 0..4u8), 0..400)) {
            let (mut repeats, start) = (Repeats::default(), Instant::now());
            let (mut told, mut counted, mut now) = (0, 0, start);
            let mut seen = std::collections::HashSet::new();
            for (pause, kind, line) in &events {
                now += Duration::from_micros(*pause);
                while let Some(at) = repeats.poll_timeout().filter(|at| *at <= now) {
                    let left_out = repeats.handle_timeout(at);
                    prop_assert!(!left_out.is_empty());
                    counted += left_out.iter().map(|left_out| left_out.count).sum::<u64>();
                }
                let admitted = repeats.admit(now, *kind, &line.to_string());
                prop_assert!(admitted || !seen.insert((kind, line)));
                seen.insert((kind, line));
                told += u64::from(admitted);
            }
            counted += repeats.end().iter().map(|left_out| left_out.count).sum::<u64>();
            prop_assert_eq!(told + counted, events.len() as u64);
        }
    }
}
