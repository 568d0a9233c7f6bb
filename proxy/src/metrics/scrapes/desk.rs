//! Who reads what, without threads or a clock.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::Piece;
use crate::metrics::{Exposition, Place};

/// Values this old are not given to who asks now.
const SHARED: Duration = Duration::from_secs(1);
/// Scrapes that are written at once; more wait for their turn.
pub(super) const UNDER_WAY: usize = 32;
/// When others wait, one that has taken nothing for so long is cut off,
const STALLED: Duration = Duration::from_secs(3);
/// one of an address that has more under way than who waits when it has gone on for so long,
const LONG: Duration = Duration::from_secs(10);
/// and any that has gone on for so long. `LONG` is also how long a moment is read when there is no room for another.
const LONGEST: Duration = Duration::from_secs(60);
/// Bytes of text in a piece.
pub(super) const PIECE: usize = 64 * 1024;
/// Bytes of text that are kept for others who read the same.
const WINDOW: usize = 16 << 20;
/// Bytes of rows that are kept for all moments that somebody still reads; two moments there may always be.
const MOMENTS: usize = 16 << 20;

/// Everybody who scrapes.
#[derive(Debug, Default)]
pub(super) struct Desk {
    last: u64,
    /// Oldest first.
    moments: VecDeque<Moment>,
    under_way: HashMap<u64, UnderWay>,
    /// By where they come from, oldest first and with their numbers.
    waiting: HashMap<Scraper, VecDeque<(u64, oneshot::Sender<u64>)>>,
    window: Window,
}

/// Who scrapes: a client's address, or the control socket.
pub(super) type Scraper = Option<IpAddr>;

/// The values of one moment.
#[derive(Debug)]
struct Moment {
    id: u64,
    at: Instant,
    generation: u64,
    begin: Exposition,
    readers: usize,
}

#[derive(Debug)]
struct UnderWay {
    from: Scraper,
    moment: u64,
    at: Exposition,
    since: Instant,
    /// When it last took something.
    asked: Instant,
}

/// Text that somebody else may want next.
#[derive(Debug, Default)]
struct Window {
    pieces: HashMap<(u64, Place), (Piece, Exposition)>,
    /// Oldest first.
    order: VecDeque<(u64, Place)>,
    bytes: usize,
}

impl Desk {
    /// Somebody wants to begin. To be [admitted](Self::admit).
    pub(super) fn wait(&mut self, from: Scraper, who: oneshot::Sender<u64>) {
        self.last += 1;
        self.waiting.entry(from).or_default().push_back((self.last, who));
    }

    /// Lets those begin who wait, as far as there are places: first those with the fewest under way from their address. `make`
    /// takes the values of this moment, in the generation of the configuration that is given.
    pub(super) fn admit(&mut self, now: Instant, generation: u64, make: impl Fn() -> Option<Exposition>) {
        loop {
            // Nothing is made for who is gone.
            self.waiting.retain(|_, waiting| {
                while waiting.front().is_some_and(|(_, who)| who.is_closed()) {
                    waiting.pop_front();
                }
                !waiting.is_empty()
            });
            let Some(from) = self.next_in_turn() else { return };
            if self.under_way.len() >= UNDER_WAY && !self.cut_off_one(now, from) {
                return;
            }
            let fresh = |moment: &Moment| {
                moment.generation == generation && now.saturating_duration_since(moment.at) < SHARED
            };
            if !self.moments.back().is_some_and(fresh) {
                self.tidy(now);
                if self.is_full() && !self.cut_off_oldest_moment(now) {
                    return;
                }
                let Some(begin) = make() else { return self.waiting.clear() };
                self.last += 1;
                self.moments.push_back(Moment { id: self.last, at: now, generation, begin, readers: 0 });
            }
            let who = self.waiting.get_mut(&from).and_then(VecDeque::pop_front);
            let (Some((_, who)), Some(moment)) = (who, self.moments.back_mut()) else { return };
            self.last += 1;
            let id = self.last;
            moment.readers += 1;
            let scrape =
                UnderWay { from, moment: moment.id, at: moment.begin.clone(), since: now, asked: now };
            self.under_way.insert(id, scrape);
            if who.send(id).is_err() {
                self.end(id);
            }
        }
    }

    /// The next piece of a scrape; `None` when it was cut off.
    pub(super) fn next(&mut self, now: Instant, id: u64) -> Option<Piece> {
        let scrape = self.under_way.get_mut(&id)?;
        scrape.asked = now;
        let key = (scrape.moment, scrape.at.place());
        if let Some((piece, after)) = self.window.pieces.get(&key) {
            scrape.at = after.clone();
            return Some(piece.clone());
        }
        let mut text = String::with_capacity(PIECE + 1024);
        let more = scrape.at.write_piece(&mut text, PIECE);
        let piece = Piece::new(&text, !more);
        self.window.keep(key, piece.clone(), scrape.at.clone());
        Some(piece)
    }

    /// A scrape has ended, one way or the other.
    pub(super) fn end(&mut self, id: u64) {
        let Some(scrape) = self.under_way.remove(&id) else { return };
        if let Some(moment) = self.moments.iter_mut().find(|moment| moment.id == scrape.moment) {
            moment.readers -= 1;
        }
    }

    /// Forgets what nobody reads and nobody may begin with.
    pub(super) fn tidy(&mut self, now: Instant) {
        let before = self.moments.len();
        let newest = self.moments.back().map(|moment| moment.id);
        self.moments.retain(|moment| {
            let may_be_shared =
                newest == Some(moment.id) && now.saturating_duration_since(moment.at) < SHARED;
            moment.readers > 0 || may_be_shared
        });
        if self.moments.len() < before {
            let moments = &self.moments;
            self.window.retain(|id| moments.iter().any(|moment| moment.id == id));
        }
    }

    /// When something is to be done without anybody asking.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if let Some(from) = self.next_in_turn() {
            return if self.under_way.len() >= UNDER_WAY {
                self.under_way.values().map(|scrape| self.due(scrape, from)).min()
            } else {
                self.moments.front().map(|oldest| self.moment_due(oldest))
            };
        }
        self.moments.iter().filter(|moment| moment.readers == 0).map(|moment| moment.at + SHARED).min()
    }

    fn is_full(&self) -> bool {
        let bytes: usize = self.moments.iter().map(|moment| moment.begin.bytes()).sum();
        self.moments.len() >= 2 && bytes + bytes / self.moments.len() > MOMENTS
    }

    /// Where the next comes from who begins.
    fn next_in_turn(&self) -> Option<Scraper> {
        let first = |waiting: &VecDeque<(u64, _)>| waiting.front().map(|(number, _)| *number);
        let in_turn = self.waiting.iter().min_by_key(|(from, waiting)| (self.of(**from), first(waiting)));
        in_turn.map(|(from, _)| *from)
    }

    /// How many are under way from there.
    fn of(&self, from: Scraper) -> usize {
        self.under_way.values().filter(|scrape| scrape.from == from).count()
    }

    /// When a scrape is cut off for one that waits.
    fn due(&self, scrape: &UnderWay, waits: Scraper) -> Instant {
        let longest = if self.of(scrape.from) > self.of(waits) + 1 { LONG } else { LONGEST };
        (scrape.asked + STALLED).min(scrape.since + longest)
    }

    /// When a moment makes room for another.
    fn moment_due(&self, moment: &Moment) -> Instant {
        let readers = self.under_way.values().filter(|scrape| scrape.moment == moment.id);
        let stalled = readers.map(|scrape| scrape.asked + STALLED).max();
        stalled.unwrap_or(moment.at).min(moment.at + LONG)
    }

    /// Takes the place of one that has stalled, or has gone on for too long.
    fn cut_off_one(&mut self, now: Instant, waits: Scraper) -> bool {
        let scrapes = self.under_way.iter().map(|(&id, scrape)| (self.due(scrape, waits), id));
        let Some((_, id)) = scrapes.min().filter(|(due, _)| now >= *due) else { return false };
        self.end(id);
        true
    }

    fn cut_off_oldest_moment(&mut self, now: Instant) -> bool {
        let oldest = self.moments.front().filter(|oldest| now >= self.moment_due(oldest));
        let Some(id) = oldest.map(|oldest| oldest.id) else { return false };
        self.under_way.retain(|_, scrape| scrape.moment != id);
        self.moments.pop_front();
        self.window.retain(|other| other != id);
        true
    }
}

impl Window {
    fn keep(&mut self, key: (u64, Place), piece: Piece, after: Exposition) {
        self.bytes += piece.framed.len();
        self.pieces.insert(key, (piece, after));
        self.order.push_back(key);
        while self.bytes > WINDOW {
            let Some((piece, _)) = self.order.pop_front().and_then(|key| self.pieces.remove(&key)) else {
                break;
            };
            self.bytes -= piece.framed.len();
        }
    }

    fn retain(&mut self, moment: impl Fn(u64) -> bool) {
        self.order.retain(|(id, _)| moment(*id));
        self.pieces.retain(|(id, _), _| moment(*id));
        self.bytes = self.pieces.values().map(|(piece, _)| piece.framed.len()).sum();
        if self.order.is_empty() {
            *self = Self::default();
        }
    }
}
