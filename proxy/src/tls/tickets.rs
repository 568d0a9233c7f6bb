//! Session tickets: keys that come and go, the same for every worker, and for the other amphora of a pair once it has been told.
//!
//! A ticket is all that there is of a session: nothing is kept here. [`TicketKeys`] has the process's secrets, each with a name
//! and the time of its making; of each a listener derives its own key (HKDF-SHA256) by what it is and what it verifies clients
//! with, so that a ticket opens nothing elsewhere, nor after what verifies has changed.
//!
//! A ticket is the secret's name, a nonce, and under AES-256-GCM the time of its making and the session.

#![expect(
    clippy::disallowed_types,
    reason = "the lock is taken when secrets come or go, once in an hour and thread; else each thread has its own copy"
)]

use std::{
    cell::RefCell,
    fmt,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    rand,
};
use rustls::{
    server::ProducesTickets,
    time_provider::{DefaultTimeProvider, TimeProvider},
};
use zeroize::Zeroize;

/// For how long a secret makes tickets, in seconds.
pub(super) const ROTATION: u64 = 3600;

/// For how long a session may be resumed, in seconds. OpenSSL takes sessions up for 5 minutes, in HAProxy.
pub(super) const LIFETIME: u64 = 7200;

/// For how long one may be whose client was verified: what has been found out about a certificate holds no longer than
/// HAProxy lets it (`tune.ssl.lifetime`).
pub(super) const VERIFIED_LIFETIME: u64 = 300;

/// The most secrets that are kept: those of two amphorae that rotate, and what restarts add.
const MAX_SECRETS: usize = 16;

/// Clocks of a pair may differ by as much, in seconds.
const SKEW: u64 = 60;

const NAME_LENGTH: usize = 16;

/// A secret that keys of tickets are derived from. It can be given to the other amphora.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecret {
    /// Which it is.
    pub name: [u8; NAME_LENGTH],
    /// What it is.
    pub secret: [u8; 32],
    /// When it was made, in seconds since 1970.
    pub made: u64,
}

impl Drop for TicketSecret {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketSecret")
            .field("name", &self.name)
            .field("made", &self.made)
            .finish_non_exhaustive()
    }
}

/// The secrets of a process without a clock: the newest of its own makes tickets, all open them.
#[derive(Debug, Default)]
struct Ring {
    /// Its own, the newest last.
    own: Vec<TicketSecret>,
    /// Those of the other amphora.
    foreign: Vec<TicketSecret>,
}

impl Ring {
    /// Forgets what no ticket that is good can be of.
    fn expire(&mut self, now: u64) {
        let alive = |secret: &TicketSecret| {
            now < secret.made.saturating_add(ROTATION + LIFETIME) && secret.made <= now.saturating_add(SKEW)
        };
        self.own.retain(alive);
        self.foreign.retain(alive);
    }

    /// Whether there is none that should still make tickets.
    fn is_due(&self, now: u64) -> bool {
        !self.own.last().is_some_and(|newest| (newest.made..newest.made + ROTATION).contains(&now))
    }

    fn rotate(&mut self, fresh: TicketSecret) {
        self.expire(fresh.made);
        self.own.push(fresh);
        if self.own.len() > MAX_SECRETS {
            self.own.remove(0);
        }
    }

    /// Whether anything was new.
    fn import(&mut self, secrets: &[TicketSecret], now: u64) -> bool {
        let before = self.foreign.len();
        for secret in secrets {
            let known = |other: &TicketSecret| other.name == secret.name;
            if !self.own.iter().any(known) && !self.foreign.iter().any(known) {
                self.foreign.push(secret.clone());
            }
        }
        let added = self.foreign.len() > before;
        self.expire(now);
        self.foreign.sort_by_key(|secret| secret.made);
        let excess = self.foreign.len().saturating_sub(MAX_SECRETS);
        self.foreign.drain(..excess);
        added
    }

    fn all(&self) -> impl Iterator<Item = &TicketSecret> {
        // The one that makes tickets comes first.
        self.own.iter().rev().chain(self.foreign.iter().rev())
    }
}

/// The secrets of a process, shared by its listeners and workers.
#[derive(Debug, Default)]
pub struct TicketKeys {
    ring: Mutex<Ring>,
    /// Raised by every change of `ring`.
    generation: AtomicU64,
}

impl TicketKeys {
    /// Without any secret; the first ticket makes one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its own secrets, for the other amphora; a new one is made when it is due.
    #[cfg(test)]
    fn export(&self, now: u64) -> Vec<TicketSecret> {
        self.tend(now);
        self.ring().own.clone()
    }

    /// All secrets, if there are others than when `seen` was set last: those of the other amphora as well, which may have been
    /// started anew and know them no more. None are made for that: the first ticket does.
    pub fn news(&self, seen: &mut Option<u64>) -> Option<Vec<TicketSecret>> {
        let generation = self.generation.load(Ordering::Acquire);
        if seen.replace(generation) == Some(generation) {
            return None;
        }
        let ring = self.ring();
        Some(ring.foreign.iter().chain(&ring.own).cloned().collect())
    }

    /// Takes up the other amphora's secrets, whose tickets are good here then. Says whether anything was new.
    pub fn import(&self, secrets: &[TicketSecret], now: u64) -> bool {
        let mut ring = self.ring();
        let new = ring.import(secrets, now);
        if new {
            self.generation.fetch_add(1, Ordering::Release);
        }
        new
    }

    /// [`import`](Self::import), at the time that it is.
    pub fn hear(&self, secrets: &[TicketSecret]) {
        if let Some(now) = DefaultTimeProvider.current_time().filter(|_| !secrets.is_empty()) {
            self.import(secrets, now.as_secs());
        }
    }

    /// Makes a new secret when it is due.
    fn tend(&self, now: u64) {
        let mut ring = self.ring();
        if ring.is_due(now)
            && let Some(fresh) = fresh(now)
        {
            ring.rotate(fresh);
            self.generation.fetch_add(1, Ordering::Release);
        }
    }
}

fn fresh(now: u64) -> Option<TicketSecret> {
    let mut secret = TicketSecret { name: [0; NAME_LENGTH], secret: [0; 32], made: now };
    rand::fill(&mut secret.name).ok()?;
    rand::fill(&mut secret.secret).ok()?;
    Some(secret)
}

/// A listener's tickets.
pub(super) struct Tickets {
    keys: Arc<TicketKeys>,
    /// What tickets are for: another scope does not open them.
    scope: [u8; 32],
    lifetime: u64,
    /// What threads keep derived keys under.
    id: u64,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

/// What a thread has derived for one listener.
struct Derived {
    id: u64,
    generation: u64,
    /// The first makes tickets, until then.
    keys: Vec<([u8; NAME_LENGTH], LessSafeKey)>,
    until: u64,
}

/// The most listeners that a thread keeps derived keys of.
const MAX_DERIVED: usize = 64;

thread_local! {
    static DERIVED: RefCell<Vec<Rc<Derived>>> = const { RefCell::new(Vec::new()) };
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Tickets {
    pub(super) fn new(keys: Arc<TicketKeys>, scope: [u8; 32], lifetime: u64) -> Self {
        Self { keys, scope, lifetime, id: NEXT_ID.fetch_add(1, Ordering::Relaxed) }
    }

    fn derived(&self) -> Option<Rc<Derived>> {
        let generation = self.keys.generation.load(Ordering::Acquire);
        DERIVED.with_borrow_mut(|all| {
            let at = all.iter().position(|derived| derived.id == self.id);
            if let Some(derived) = at.map(|at| &all[at])
                && derived.generation == generation
            {
                return Some(Rc::clone(derived));
            }
            let fresh = Rc::new(self.derive()?);
            match at {
                Some(at) => all[at] = Rc::clone(&fresh),
                None => {
                    if all.len() >= MAX_DERIVED {
                        all.remove(0);
                    }
                    all.push(Rc::clone(&fresh));
                }
            }
            Some(fresh)
        })
    }

    fn derive(&self) -> Option<Derived> {
        let ring = self.keys.ring();
        let generation = self.keys.generation.load(Ordering::Acquire);
        let derive = |secret: &TicketSecret| {
            let extracted = Salt::new(HKDF_SHA256, b"amphora session tickets").extract(&secret.secret);
            let key = UnboundKey::from(extracted.expand(&[&self.scope], &AES_256_GCM).ok()?);
            Some((secret.name, LessSafeKey::new(key)))
        };
        let keys = ring.all().map(derive).collect::<Option<_>>()?;
        let until = ring.own.last().map_or(0, |newest| newest.made + ROTATION);
        Some(Derived { id: self.id, generation, keys, until })
    }

    fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        let mut derived = self.derived()?;
        if now >= derived.until || now + ROTATION < derived.until {
            self.keys.tend(now);
            derived = self.derived()?;
        }
        let (name, key) = derived.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(HEAD + 8 + plain.len() + AES_256_GCM.tag_len());
        ticket.extend(name);
        ticket.extend(nonce);
        let mut sealed = Vec::with_capacity(8 + plain.len() + AES_256_GCM.tag_len());
        sealed.extend(now.to_be_bytes());
        sealed.extend(plain);
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut sealed)
            .ok()?;
        ticket.extend(sealed);
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (head, sealed) = ticket.split_at_checked(HEAD)?;
        let (name, nonce) = head.split_at(NAME_LENGTH);
        let derived = self.derived()?;
        let (name, key) = derived.keys.iter().find(|(known, _)| known == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = sealed.to_vec();
        let plain = key.open_in_place(nonce, Aad::from(name), &mut opened).ok()?;
        let (made, plain) = plain.split_first_chunk::<8>()?;
        let made = u64::from_be_bytes(*made);
        let good = made <= now.saturating_add(SKEW) && now < made.saturating_add(self.lifetime);
        good.then(|| plain.to_vec())
    }
}

/// Name and nonce.
const HEAD: usize = NAME_LENGTH + NONCE_LEN;

/// The most bytes of a session that become a ticket. It has the client's chain in it, and comes back with each hello.
const MAX_SESSION: usize = 12 * 1024;

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        // It is one of two constants, of few digits.
        self.lifetime as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if plain.len() > MAX_SESSION {
            return None;
        }
        self.seal(plain, DefaultTimeProvider.current_time()?.as_secs())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, DefaultTimeProvider.current_time()?.as_secs())
    }
}

#[cfg(test)]
mod tests;
