//! The last failures of a member, and why: what is looked for when clients get a 503.

use nix::errno::Errno;
use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use crate::logs::calendar::Wall;

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
    /// It has refused to process the request.
    NotProcessed,
    /// What it is, or has said, cannot be had by who has asked.
    Unfit(Unfit),
    /// A health check: the index of HAProxy's word for it, and the status of the response, or 0; of [`Failed::check`].
    Check(u8, u16),
}

impl Failed {
    /// Whether it counts against the member: not what this machine lacks itself (HAProxy's `SF_ERR_RESOURCE`), nor what a client can
    /// have any member say or fail at, nor that it has refused to process a request, nor, of connections from the addresses of clients,
    /// that there is none: answers may go another way.
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
            Self::NotProcessed | Self::Unfit(_) => false,
            _ => true,
        }
    }
}

/// Why a client cannot have what it has asked a member for, which might have answered others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// With what policies change in it the response is too large, which may be by what the client has asked for.
    Edits,
    /// The client has asked for a tunnel, and the member has answered as if it had not.
    Tunnel,
    /// The client has asked for a tunnel, and over HTTP/2 the member takes none.
    ExtendedConnect,
}

impl Unfit {
    const ALL: [Self; 3] = [Self::Edits, Self::Tunnel, Self::ExtendedConnect];

    fn as_str(self) -> &'static str {
        match self {
            Self::Edits => "response: too large with what policies change in it",
            Self::Tunnel => "response: none to who has asked for a tunnel",
            Self::ExtendedConnect => "request: no tunnels over HTTP/2",
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

    /// Whether it may be by the name that the member was asked for: by that it chooses its certificate, or refuses.
    pub fn may_be_by_name(self) -> bool {
        match self {
            Self::Closed | Self::Alert(_) | Self::UnknownIssuer | Self::OtherName | Self::Certificate => true,
            Self::Expired
            | Self::NotYetValid
            | Self::Revoked
            | Self::Incompatible
            | Self::Protocol
            | Self::Other => false,
        }
    }

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
            Self::NotProcessed => (14, 0),
            Self::Unfit(why) => (15, why as u16),
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
            14 => Self::NotProcessed,
            15 => Self::Unfit(Unfit::ALL.get(usize::from(detail)).copied()?),
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
            Self::NotProcessed => "request: refused before it was processed",
            Self::Unfit(why) => why.as_str(),
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
    /// When the last was, to a tenth of a second: always the same, whenever it is asked for.
    pub at: Wall,
    /// What has failed.
    pub what: Failed,
    /// How many there were.
    pub times: u32,
}

/// The last failures of a member. Any thread adds to them, without a lock; what is written at the same time as something else may
/// take its place.
#[derive(Debug, Default)]
pub struct Failures {
    /// Members that never fail have none.
    ring: OnceLock<Box<Ring>>,
}

#[derive(Debug, Default)]
struct Ring {
    next: AtomicU32,
    slots: [AtomicU64; KEPT],
    /// How many, of each slot.
    times: [AtomicU32; KEPT],
}

/// A slot: the lower half of when, in tenths of a second since 1970 (32 bits), and what (4 and 16). None is 0.
struct Slot;

impl Slot {
    fn pack(at: u32, (kind, detail): (u8, u16)) -> u64 {
        u64::from(at) << 32 | u64::from(kind & 0xf) << 16 | u64::from(detail)
    }

    fn unpack(slot: u64) -> Option<(u32, Failed)> {
        let what = Failed::unpack((slot >> 16) as u8 & 0xf, slot as u16)?;
        Some(((slot >> 32) as u32, what))
    }
}

/// Microseconds in a tenth of a second.
const TENTH: i64 = 100_000;

fn tenths(at: Wall) -> i64 {
    at.0.div_euclid(TENTH)
}

impl Failures {
    /// Remembers one.
    #[cold]
    pub fn add(&self, at: Wall, what: Failed) {
        let ring = self.ring.get_or_init(Box::default);
        let slot = Slot::pack(tenths(at) as u32, what.pack());
        let (last, times) = ring.slot(ring.next.load(Ordering::Relaxed).wrapping_sub(1));
        let before = last.load(Ordering::Relaxed);
        if Slot::unpack(before).is_some_and(|(_, same)| same == what) {
            // Who was faster has told as much of when.
            let _ = last.compare_exchange(before, slot, Ordering::Relaxed, Ordering::Relaxed);
            let more = |times: u32| times.checked_add(1);
            let _ = times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
            return;
        }
        let (next, times) = ring.slot(ring.next.fetch_add(1, Ordering::Relaxed));
        times.store(1, Ordering::Relaxed);
        next.store(slot, Ordering::Relaxed);
    }

    /// The last, the latest first. `now` tells in which half of 13 years they were.
    pub fn recent(&self, now: Wall) -> Vec<Failure> {
        let Some(ring) = self.ring.get() else { return Vec::new() };
        let (now, next) = (tenths(now), ring.next.load(Ordering::Relaxed));
        let failure = |back: u32| {
            let (slot, times) = ring.slot(next.wrapping_sub(back));
            let (at, what) = Slot::unpack(slot.load(Ordering::Relaxed))?;
            // Later than now, where the clock was set back since.
            let later = at.wrapping_sub(now as u32) as i32;
            let at = Wall((now + i64::from(later)) * TENTH);
            Some(Failure { at, what, times: times.load(Ordering::Relaxed) })
        };
        (1..=KEPT as u32).filter_map(failure).collect()
    }
}

impl Ring {
    fn slot(&self, at: u32) -> (&AtomicU64, &AtomicU32) {
        let at = at as usize % KEPT;
        (&self.slots[at], &self.times[at])
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

    /// So many tenths of a second after a moment of 2026, and some microseconds.
    fn at(tenths: i64) -> Wall {
        Wall(1_796_000_000_000_000 + TENTH * tenths + 99_999)
    }

    fn told(failures: &Failures, now: Wall) -> Vec<String> {
        let text = |f: &Failure| format!("{}: {} ({})", f.at.rfc3339(), f.what, f.times);
        failures.recent(now).iter().map(text).collect()
    }

    #[test]
    fn the_same_failure_has_the_same_time_whenever_it_is_asked_for() {
        let failures = Failures::default();
        failures.add(at(3), Failed::Late);
        let first = told(&failures, at(3));
        assert_eq!(first, ["2026-11-30T00:53:20.3Z: response: took too long (1)"]);
        // Years later, and before it where the clock was set back.
        for tenths in [4, 5, 13, 36_000, 2_000_000_000, -1, -36_000] {
            assert_eq!(told(&failures, at(tenths)), first, "{tenths}");
        }
    }

    #[test]
    fn the_last_are_remembered_and_alike_ones_counted() {
        let at = |s: i64| at(10 * s);
        let failures = Failures::default();
        assert_eq!(failures.recent(at(0)), []);
        failures.add(at(0), Failed::Connect(111));
        failures.add(at(1), Failed::Status(500));
        failures.add(at(2), Failed::Status(500));
        failures.add(at(3), Failed::Status(503));
        assert_eq!(
            told(&failures, at(10)),
            [
                "2026-11-30T00:53:23.0Z: response: status 503 (1)",
                "2026-11-30T00:53:22.0Z: response: status 500 (2)",
                "2026-11-30T00:53:20.0Z: connect: Connection refused (1)"
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
        assert_eq!(failures.recent(at(50))[0].times, 5000);
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
            Failed::NotProcessed,
            Failed::Handshake(Handshake::Alert(40)),
        ];
        all.extend(Handshake::ALL.map(Failed::Handshake));
        all.extend(Unfit::ALL.map(Failed::Unfit));
        all.extend(
            CHECKS.iter().flat_map(|word| [None, Some(999)].map(|code| Failed::check(word, code))).flatten(),
        );
        let mut texts = std::collections::HashSet::new();
        for what in all {
            assert_eq!(Slot::unpack(Slot::pack(u32::MAX, what.pack())), Some((u32::MAX, what)));
            assert!(texts.insert(what.to_string()), "{what}");
        }
        assert_eq!(Failed::check("L7OK", Some(200)), None);
        let others =
            [Failed::NotProcessed, Failed::Unfit(Unfit::Edits), Failed::Status(501), Failed::Connect(24)];
        assert!(others.iter().all(|what| !what.says_something_of_the_member(false)));
        assert_eq!(Slot::unpack(0), None);
    }
}
