//! What is made of the answers of the data plane: keepalived's `fall` and `rise` over a connection instead of a script.
//!
//! A question is sent at each interval. One that is not answered before the next is due is a miss, and so many misses in a row as
//! `fall` says make the data plane unfit: it hangs. One that wants to run and is not let, because others have the processors,
//! does not hang: its misses count [far less](STARVED). Its own "unfit", and the end of the connection, make it unfit at
//! once. So many answers as `rise` says make it fit again; the very first time one is enough, as in keepalived.

use std::time::{Duration, Instant};

use crate::config::Track;

/// So many misses of a data plane that is not let run count as one: with the default interval, and `fall` at 2, it has 2 s.
const STARVED: u32 = 40;

/// The data plane as its answers tell: its questions, misses and verdict.
#[derive(Debug)]
pub struct Fitness {
    track: Track,
    interval: Duration,
    fit: bool,
    ever: bool,
    /// Something is known of it, good or bad.
    known: bool,
    connected: bool,
    /// A question is under way.
    asked: bool,
    /// In units of one that was starved.
    misses: u32,
    hits: u32,
    next: Option<Instant>,
}

impl Fitness {
    /// Unfit and without a connection. `interval` is the time between questions.
    pub fn new(track: Track, interval: Duration) -> Self {
        Self {
            track,
            interval,
            fit: false,
            ever: false,
            known: false,
            connected: false,
            asked: false,
            misses: 0,
            hits: 0,
            next: None,
        }
    }

    /// Whether the data plane is fit.
    pub fn is_fit(&self) -> bool {
        self.fit
    }

    /// Whether that is what it said, or failed to say; before the first answer it is not.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// The connection is there. A question is due at once.
    pub fn handle_connected(&mut self, now: Instant) {
        self.connected = true;
        self.asked = false;
        self.misses = 0;
        self.next = Some(now);
    }

    /// The connection is gone, or could not be made.
    pub fn handle_closed(&mut self) {
        *self = Self { ever: self.ever, known: true, ..Self::new(self.track, self.interval) };
    }

    /// An answer has come.
    pub fn handle_answer(&mut self, fit: bool) {
        self.asked = false;
        self.misses = 0;
        self.known = true;
        if !fit {
            self.fit = false;
            self.hits = 0;
            return;
        }
        self.hits = self.hits.saturating_add(1);
        if self.hits >= self.track.rise || !self.ever {
            self.fit = true;
            self.ever = true;
        }
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. True when a question has to be sent. `starved` looks
    /// whether the data plane wants to run and is not let; it is called after a miss alone.
    pub fn handle_timeout(&mut self, now: Instant, starved: impl FnOnce() -> bool) -> bool {
        if self.next.take_if(|at| *at <= now).is_none() {
            return false;
        }
        self.next = Some(now + self.interval);
        if !self.asked {
            self.asked = true;
            return true;
        }
        self.misses = self.misses.saturating_add(if starved() { 1 } else { STARVED });
        self.hits = 0;
        if self.misses >= self.track.fall.saturating_mul(STARVED) {
            self.fit = false;
            self.known = true;
            // Whoever hung may have lost the question.
            return true;
        }
        false
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn fitness(fall: u32, rise: u32) -> (Fitness, Instant) {
        let mut fitness = Fitness::new(Track { fall, rise }, INTERVAL);
        let now = Instant::now();
        fitness.handle_connected(now);
        (fitness, now)
    }

    #[test]
    fn the_first_answer_is_enough_and_the_next_rises_take_their_count() {
        let (mut fitness, mut now) = fitness(2, 3);
        assert!(!fitness.is_fit());
        assert!(fitness.handle_timeout(now, || false));
        fitness.handle_answer(true);
        assert!(fitness.is_fit());

        fitness.handle_closed();
        assert!(!fitness.is_fit());
        assert_eq!(fitness.poll_timeout(), None);
        fitness.handle_connected(now);
        for hit in 1..=3 {
            assert!(fitness.handle_timeout(now, || false));
            fitness.handle_answer(true);
            assert_eq!(fitness.is_fit(), hit == 3);
            now += INTERVAL;
        }
    }

    #[test]
    fn nothing_is_known_before_it_has_answered_or_failed_to() {
        let (mut answers, now) = fitness(2, 1);
        answers.handle_timeout(now, || false);
        assert!(!answers.is_known());
        answers.handle_answer(false);
        assert!(answers.is_known() && !answers.is_fit());

        let (mut hangs, now) = fitness(2, 1);
        for n in 0..3 {
            assert!(!hangs.is_known(), "{n}");
            hangs.handle_timeout(now + n * INTERVAL, || false);
        }
        assert!(hangs.is_known());

        let (mut gone, now) = fitness(2, 1);
        gone.handle_closed();
        gone.handle_connected(now);
        assert!(gone.is_known(), "it does not become unknown again");
    }

    #[test]
    fn as_many_misses_as_fall_says_and_no_fewer() {
        let (mut fitness, now) = fitness(2, 1);
        assert!(fitness.handle_timeout(now, || false));
        fitness.handle_answer(true);
        assert!(fitness.handle_timeout(now + INTERVAL, || false));
        assert!(!fitness.handle_timeout(now + 2 * INTERVAL, || false), "asked once, until it is answered");
        assert!(fitness.is_fit());
        fitness.handle_answer(true);
        assert!(fitness.handle_timeout(now + 3 * INTERVAL, || false));
        assert!(!fitness.handle_timeout(now + 4 * INTERVAL, || false));
        assert!(fitness.handle_timeout(now + 5 * INTERVAL, || false), "and then asked again");
        assert!(!fitness.is_fit());
        // It goes on when the process does.
        fitness.handle_answer(true);
        assert!(fitness.is_fit());
    }

    #[test]
    fn who_is_not_let_run_gets_forty_times_as_long() {
        let (mut fitness, mut now) = fitness(2, 1);
        fitness.handle_timeout(now, || unreachable!("no miss yet"));
        fitness.handle_answer(true);
        now += INTERVAL;
        fitness.handle_timeout(now, || unreachable!("no miss yet"));
        for miss in 1..=80 {
            assert!(fitness.is_fit(), "{miss}");
            now += INTERVAL;
            fitness.handle_timeout(now, || true);
        }
        assert!(!fitness.is_fit());
    }

    #[test]
    fn its_own_word_counts_at_once() {
        let (mut fitness, now) = fitness(5, 1);
        fitness.handle_timeout(now, || false);
        fitness.handle_answer(true);
        fitness.handle_timeout(now + INTERVAL, || false);
        fitness.handle_answer(false);
        assert!(!fitness.is_fit());
    }

    #[test]
    fn too_early_is_nothing() {
        let (mut fitness, now) = fitness(2, 1);
        fitness.handle_timeout(now, || false);
        assert!(!fitness.handle_timeout(now + INTERVAL / 2, || false));
        assert_eq!(fitness.poll_timeout(), Some(now + INTERVAL));
    }
}
