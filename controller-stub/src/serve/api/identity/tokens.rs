//! Tokens. None is kept: each says who it is for and until when, and is signed by a key of this process. What is kept is which were given
//! back before their end.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;

/// Tokens of one user that were given back and have not ended. Who gives back more ends all that he has.
const GIVEN_BACK: usize = 1024;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// The user's id.
    pub(super) user: String,
    /// The project's.
    pub(super) project: String,
    /// In seconds since 1970.
    pub(super) expires: i64,
    /// No two have the same; a later one has a higher one.
    pub(super) number: u64,
}

/// Those of one process.
#[derive(Debug)]
pub(super) struct Tokens {
    key: hmac::Key,
    next: AtomicU64,
    /// By users' ids.
    ended: Mutex<HashMap<String, Ended>>,
}

/// Which tokens of a user were given back.
#[derive(Debug, Default)]
struct Ended {
    /// All before this one.
    before: u64,
    /// And these, with the time when they end by themselves.
    numbers: BTreeMap<u64, i64>,
}

impl Tokens {
    pub(super) fn new(key: hmac::Key) -> Self {
        Self { key, next: AtomicU64::new(0), ended: Mutex::default() }
    }

    /// A new one.
    pub(super) fn write(&self, user: &str, project: &str, expires: i64) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let said = format!("{user} {project} {expires} {number}");
        let tag = hmac::sign(&self.key, said.as_bytes());
        format!("{}.{}", BASE64URL_NOPAD.encode(said.as_bytes()), BASE64URL_NOPAD.encode(tag.as_ref()))
    }

    /// What one says that is good at a time.
    pub(super) fn read(&self, token: &str, now: i64) -> Option<Token> {
        let (said, tag) = token.split_once('.')?;
        let said = BASE64URL_NOPAD.decode(said.as_bytes()).ok()?;
        let tag = BASE64URL_NOPAD.decode(tag.as_bytes()).ok()?;
        hmac::verify(&self.key, &said, &tag).ok()?;
        let said = String::from_utf8(said).ok()?;
        let [user, project, expires, number] = said.split(' ').collect::<Vec<_>>()[..] else { return None };
        let (expires, number) = (expires.parse().ok()?, number.parse().ok()?);
        let token = Token { user: user.to_owned(), project: project.to_owned(), expires, number };
        self.is_good(&token, now).then_some(token)
    }

    /// Whether one is good at a time: it has not ended, and was not given back.
    pub(super) fn is_good(&self, token: &Token, now: i64) -> bool {
        token.expires > now && !self.ended().get(&token.user).is_some_and(|ended| ended.has(token.number))
    }

    /// Ends one before its time.
    pub(super) fn end(&self, token: Token, now: i64) {
        let mut ended = self.ended();
        let ended = ended.entry(token.user).or_default();
        ended.numbers.retain(|_, expires| *expires > now);
        ended.numbers.insert(token.number, token.expires);
        if ended.numbers.len() > GIVEN_BACK {
            ended.before = self.next.load(Ordering::Relaxed);
            ended.numbers.clear();
        }
    }

    fn ended(&self) -> MutexGuard<'_, HashMap<String, Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ended {
    fn has(&self, number: u64) -> bool {
        number < self.before || self.numbers.contains_key(&number)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_given_back_is_no_longer_good_however_many_there_are() {
        let tokens = Tokens::new(hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]));
        let others = tokens.write("bob", "shop", 100);
        let mut given_back = Vec::new();
        for _ in 0..3 * GIVEN_BACK {
            let [first, second] = [100; 2].map(|expires| tokens.write("alice", "shop", expires));
            assert_ne!(first, second);
            tokens.end(tokens.read(&first, 0).unwrap(), 0);
            given_back.push(first);
        }
        for token in &given_back {
            assert_eq!(tokens.read(token, 0), None);
        }
        assert!(tokens.read(&others, 0).is_some());
        let kept = tokens.write("alice", "shop", 100);
        assert!(tokens.read(&kept, 0).is_some() && tokens.read(&kept, 100).is_none());
        let kept_numbers = |tokens: &Tokens| tokens.ended()["alice"].numbers.len();
        assert!(kept_numbers(&tokens) <= GIVEN_BACK);
        // What has ended by itself need not be known.
        let last = tokens.write("alice", "shop", 200);
        tokens.end(tokens.read(&last, 100).unwrap(), 100);
        assert_eq!(kept_numbers(&tokens), 1);
        assert_eq!(tokens.read(&last, 100), None);
    }
}
