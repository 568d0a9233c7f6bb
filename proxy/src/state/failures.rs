//! The last failures of a member, and why: what is looked for when clients get a 503.

use nix::errno::Errno;
use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// As many as are remembered.
const KEPT: usize = 8;

/// What has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The connection could not be made: errno, or 0.
    Connect(u16),
    /// It could not be made in time.
    ConnectLate,
    /// TLS could not be agreed on.
    Handshake(Handshake),
    /// Not in time.
    HandshakeLate,
    /// The connection was closed before a byte of the response.
    Unanswered,
    /// It was closed in the head of the response.
    CutHead,
    /// What came was no response.
    BadResponse,
    /// No response came in time.
    Late,
    /// The response had this status.
    Status(u16),
    /// The connection was closed in the body of the response, or in the middle of a session.
    Cut,
    /// Nothing more came in time.
    CutLate,
    /// What came was no body.
    CutBad,
    /// A health check: the index of HAProxy's word for it, and the status of the response, or 0; of [`Failed::check`].
    Check(u8, u16),
}

impl Failed {
    /// Whether it counts against the member: not what this machine lacks itself (HAProxy's `SF_ERR_RESOURCE`), nor what a client can
    /// have any member say, nor, of connections from the addresses of clients, that there is none: answers may go another way.
    pub fn says_something_of_the_member(self, transparent: bool) -> bool {
        const OWN: [Errno; 9] = [
            Errno::EADDRNOTAVAIL,
            Errno::EADDRINUSE,
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::ENOBUFS,
            Errno::ENOMEM,
            Errno::EPERM,
            Errno::EACCES,
            Errno::EINVAL,
        ];
        match self {
            Self::Connect(_) | Self::ConnectLate if transparent => false,
            Self::Connect(errno) => !OWN.iter().any(|own| *own as i32 == i32::from(errno)),
            // A method, or a version, that it does not know.
            Self::Status(501 | 505) => false,
            _ => true,
        }
    }
}

/// Why TLS with a member has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// The member has closed.
    Closed,
    /// The member has sent this alert.
    Alert(u8),
    /// Its certificate has expired.
    Expired,
    /// It is not valid yet.
    NotYetValid,
    /// It is revoked.
    Revoked,
    /// It is of no authority that is trusted.
    UnknownIssuer,
    /// It is for other names.
    OtherName,
    /// There is another fault in it, or there is none.
    Certificate,
    /// There is nothing that both have in common.
    Incompatible,
    /// What came was not TLS as it is to be.
    Protocol,
    /// Anything else.
    Other,
}

impl Handshake {
    const ALL: [Self; 11] = [
        Self::Closed,
        Self::Alert(0),
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::UnknownIssuer,
        Self::OtherName,
        Self::Certificate,
        Self::Incompatible,
        Self::Protocol,
        Self::Other,
    ];

    fn pack(self) -> u16 {
        let (alert, plain) = match self {
            Self::Alert(alert) => (alert, Self::Alert(0)),
            other => (0, other),
        };
        let kind = Self::ALL.iter().position(|known| *known == plain).unwrap_or(Self::ALL.len() - 1);
        (kind as u16) << 8 | u16::from(alert)
    }

    fn unpack(bits: u16) -> Self {
        let [kind, alert] = bits.to_be_bytes();
        match Self::ALL.get(usize::from(kind)) {
            Some(Self::Alert(_)) => Self::Alert(alert),
            Some(known) => *known,
            None => Self::Other,
        }
    }
}

impl fmt::Display for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alert(alert) => return write!(f, "the member sent alert {alert}"),
            Self::Closed => "the member closed the connection",
            Self::Expired => "its certificate has expired",
            Self::NotYetValid => "its certificate is not valid yet",
            Self::Revoked => "its certificate is revoked",
            Self::UnknownIssuer => "its certificate is of no authority of the pool",
            Self::OtherName => "its certificate is for another name",
            Self::Certificate => "its certificate is no good, or missing",
            Self::Incompatible => "no version, cipher suite or protocol in common",
            Self::Protocol => "what came is not TLS",
            Self::Other => "the handshake failed",
        })
    }
}

/// HAProxy's words for checks that failed.
const CHECKS: [&str; 7] = ["L4TOUT", "L4CON", "L6TOUT", "L6RSP", "L7TOUT", "L7RSP", "L7STS"];

impl Failed {
    /// A health check of which HAProxy says this; `None` when that is no failure.
    pub fn check(word: &str, code: Option<u16>) -> Option<Self> {
        let index = CHECKS.iter().position(|known| *known == word)?;
        Some(Self::Check(index as u8, code.unwrap_or(0)))
    }

    fn pack(self) -> (u8, u16) {
        match self {
            Self::Connect(errno) => (1, errno),
            Self::ConnectLate => (2, 0),
            Self::Handshake(why) => (3, why.pack()),
            Self::HandshakeLate => (4, 0),
            Self::Unanswered => (5, 0),
            Self::CutHead => (6, 0),
            Self::BadResponse => (7, 0),
            Self::Late => (8, 0),
            Self::Status(status) => (9, status),
            Self::Cut => (10, 0),
            Self::CutLate => (11, 0),
            Self::CutBad => (12, 0),
            Self::Check(word, code) => (13, u16::from(word) << 10 | code & 0x3ff),
        }
    }

    fn unpack(kind: u8, detail: u16) -> Option<Self> {
        Some(match kind {
            1 => Self::Connect(detail),
            2 => Self::ConnectLate,
            3 => Self::Handshake(Handshake::unpack(detail)),
            4 => Self::HandshakeLate,
            5 => Self::Unanswered,
            6 => Self::CutHead,
            7 => Self::BadResponse,
            8 => Self::Late,
            9 => Self::Status(detail),
            10 => Self::Cut,
            11 => Self::CutLate,
            12 => Self::CutBad,
            13 => Self::Check((detail >> 10) as u8, detail & 0x3ff),
            _ => return None,
        })
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect(0) => "connect: failed",
            Self::Connect(errno) => {
                return write!(f, "connect: {}", nix::errno::Errno::from_raw(i32::from(*errno)).desc());
            }
            Self::ConnectLate => "connect: took too long",
            Self::Handshake(why) => return write!(f, "TLS: {why}"),
            Self::HandshakeLate => "TLS: took too long",
            Self::Unanswered => "request: closed before a response",
            Self::CutHead => "response: closed in its head",
            Self::BadResponse => "response: not understood",
            Self::Late => "response: took too long",
            Self::Status(status) => return write!(f, "response: status {status}"),
            Self::Cut => "data: closed before the end",
            Self::CutLate => "data: nothing more in time",
            Self::CutBad => "data: not understood",
            Self::Check(word, code) => {
                write!(f, "check: {}", CHECKS.get(usize::from(*word)).copied().unwrap_or("failed"))?;
                return if *code == 0 { Ok(()) } else { write!(f, "/{code}") };
            }
        })
    }
}

/// A failure, or several alike one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How long ago the last was, to a tenth of a second.
    pub ago: Duration,
    /// What has failed.
    pub what: Failed,
    /// How many there were, up to 4095.
    pub times: u16,
}

/// The last failures of a member. Any thread adds to them, without a lock; what is written at the same time as something else may
/// take its place.
#[derive(Debug, Default)]
pub struct Failures {
    /// Members that never fail have none.
    ring: OnceLock<Box<Ring>>,
}

#[derive(Debug)]
struct Ring {
    /// What times are counted from.
    begun: Instant,
    next: AtomicU32,
    slots: [AtomicU64; KEPT],
}

/// A slot: when in tenths of a second (32 bits), how many (12), what (4 and 16). None is 0.
struct Slot;

impl Slot {
    const MOST: u64 = 0xfff;

    fn pack(at: u64, times: u64, (kind, detail): (u8, u16)) -> u64 {
        at << 32 | times.min(Self::MOST) << 20 | u64::from(kind & 0xf) << 16 | u64::from(detail)
    }

    fn unpack(slot: u64) -> Option<(u64, u64, Failed)> {
        let what = Failed::unpack((slot >> 16) as u8 & 0xf, slot as u16)?;
        Some((slot >> 32, slot >> 20 & Self::MOST, what))
    }
}

impl Failures {
    /// Remembers one.
    #[cold]
    pub fn add(&self, now: Instant, what: Failed) {
        let ring = self.ring.get_or_init(|| Box::new(Ring::new(now)));
        let at = ring.tenths(now);
        let last = ring.slot(ring.next.load(Ordering::Relaxed).wrapping_sub(1));
        let before = last.load(Ordering::Relaxed);
        if let Some((_, times, same)) = Slot::unpack(before)
            && same == what
        {
            let more = Slot::pack(at, times + 1, what.pack());
            // Who was faster has told as much.
            let _ = last.compare_exchange(before, more, Ordering::Relaxed, Ordering::Relaxed);
            return;
        }
        let next = ring.next.fetch_add(1, Ordering::Relaxed);
        ring.slot(next).store(Slot::pack(at, 1, what.pack()), Ordering::Relaxed);
    }

    /// The last, the latest first.
    pub fn recent(&self, now: Instant) -> Vec<Failure> {
        let Some(ring) = self.ring.get() else { return Vec::new() };
        let (now, next) = (ring.tenths(now), ring.next.load(Ordering::Relaxed));
        let failure = |back: u32| {
            let slot = ring.slot(next.wrapping_sub(back)).load(Ordering::Relaxed);
            let (at, times, what) = Slot::unpack(slot)?;
            let ago = Duration::from_millis(100 * now.saturating_sub(at));
            Some(Failure { ago, what, times: times as u16 })
        };
        (1..=KEPT as u32).filter_map(failure).collect()
    }
}

impl Ring {
    fn new(begun: Instant) -> Self {
        Self { begun, next: AtomicU32::new(0), slots: Default::default() }
    }

    fn slot(&self, at: u32) -> &AtomicU64 {
        &self.slots[at as usize % KEPT]
    }

    /// Enough for 13 years.
    fn tenths(&self, now: Instant) -> u64 {
        let tenths = now.saturating_duration_since(self.begun).as_millis() / 100;
        u64::from(u32::try_from(tenths).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_not_the_members_fault_does_not_count_against_it() {
        let counts = |what: Failed| what.says_something_of_the_member(false);
        let errno = |errno: Errno| Failed::Connect(errno as u16);
        assert!(
            counts(errno(Errno::ECONNREFUSED))
                && counts(errno(Errno::EHOSTUNREACH))
                && counts(Failed::ConnectLate)
        );
        assert!(!counts(errno(Errno::EADDRNOTAVAIL)) && !counts(errno(Errno::EMFILE)));
        for (status, expected) in [(500, true), (501, false), (503, true), (505, false), (599, true)] {
            assert_eq!(counts(Failed::Status(status)), expected, "{status}");
        }
        assert!(!Failed::ConnectLate.says_something_of_the_member(true));
        assert!(!errno(Errno::ECONNREFUSED).says_something_of_the_member(true));
        assert!(Failed::Status(500).says_something_of_the_member(true));
    }

    use super::*;

    fn told(failures: &Failures, now: Instant) -> Vec<String> {
        let text = |f: &Failure| format!("{} s ago: {} ({})", f.ago.as_secs(), f.what, f.times);
        failures.recent(now).iter().map(text).collect()
    }

    #[test]
    fn the_last_are_remembered_and_alike_ones_counted() {
        let begun = Instant::now();
        let at = |s| begun + Duration::from_secs(s);
        let failures = Failures::default();
        assert_eq!(failures.recent(begun), []);
        failures.add(at(0), Failed::Connect(111));
        failures.add(at(1), Failed::Status(500));
        failures.add(at(2), Failed::Status(500));
        failures.add(at(3), Failed::Status(503));
        assert_eq!(
            told(&failures, at(10)),
            [
                "7 s ago: response: status 503 (1)",
                "8 s ago: response: status 500 (2)",
                "10 s ago: connect: Connection refused (1)"
            ]
        );
        for n in 0..20 {
            failures.add(at(20 + n), Failed::Status(500 + n as u16));
        }
        let recent = failures.recent(at(40));
        assert_eq!(recent.len(), KEPT);
        assert!((12..20).rev().zip(&recent).all(|(n, failure)| failure.what == Failed::Status(500 + n)));
        for _ in 0..5000 {
            failures.add(at(50), Failed::Late);
        }
        assert_eq!(failures.recent(at(50))[0].times, 4095);
    }

    #[test]
    fn everything_that_may_fail_is_told_as_itself() {
        let mut all = vec![
            Failed::Connect(0),
            Failed::Connect(113),
            Failed::ConnectLate,
            Failed::HandshakeLate,
            Failed::Unanswered,
            Failed::CutHead,
            Failed::BadResponse,
            Failed::Late,
            Failed::Status(599),
            Failed::Cut,
            Failed::CutLate,
            Failed::CutBad,
            Failed::Handshake(Handshake::Alert(40)),
        ];
        all.extend(Handshake::ALL.map(Failed::Handshake));
        all.extend(
            CHECKS.iter().flat_map(|word| [None, Some(999)].map(|code| Failed::check(word, code))).flatten(),
        );
        let mut texts = std::collections::HashSet::new();
        for what in all {
            let (kind, detail) = what.pack();
            let slot = Slot::pack(7, 3, (kind, detail));
            assert_eq!(Slot::unpack(slot), Some((7, 3, what)));
            assert!(texts.insert(what.to_string()), "{what}");
        }
        assert_eq!(Failed::check("L7OK", Some(200)), None);
        assert_eq!(Slot::unpack(0), None);
    }
}
