//! How a session or a request ended, in HAProxy's letters (configuration manual 2.6, section 8.5).
//!
//! | what has happened | letters | in the manual |
//! | --- | --- | --- |
//! | response, or both ends, complete | `--` | normal termination |
//! | answered by the proxy: redirect | `LR` | intercepted and locally handled |
//! | answered by the proxy: L7 policy REJECT, too many requests, request not understood, malformed body | `PR` | invalid syntax, or a deny filter |
//! | client gone before its request was complete | `CR` | aborted before sending a full request |
//! | client too slow with its request | `cR` | `timeout http-request` |
//! | client gone while it waited for its turn | `CQ` | aborted while waiting in the queue |
//! | client gone while a member was connected to | `CC` | aborted before the connection could be established |
//! | no member usable, or none could be reached | `SC` | refused, or unreachable |
//! | member too slow to accept | `sC` | `timeout connect` |
//! | client too slow with its body, before the response | `cH` | timed out while waiting for the server |
//! | member closed before a whole response head | `SH` | aborted before its full response headers |
//! | member too slow to respond | `sH` | `timeout server` |
//! | what the member sent is no response | `PH` | blocked the response, because it was invalid |
//! | client gone once a member had its request; gone or too slow while data passed | `CD`, `cD` | aborted during data transfer |
//! | member gone, too slow, or what it sent is no body, while data passed | `SD`, `sD` | died with an error during the data transfer |
//! | malformed body behind the head of a response | `PD` | blocked data |
//! | `drain_timeout` of the member over, before the response, or while data passed | `KH`, `KD` | killed by an admin |

/// What ended it: the first letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// It came to its end.
    #[default]
    Normal = b'-',
    /// The proxy has answered by itself.
    Local = b'L',
    /// The client was too slow.
    ClientLate = b'c',
    /// The client has closed or broken its connection.
    ClientGone = b'C',
    /// The member was too slow.
    ServerLate = b's',
    /// The member has refused, closed or broken its connection.
    ServerGone = b'S',
    /// The proxy has refused to go on.
    Proxy = b'P',
    /// The member drains, and its time is over.
    Drained = b'K',
}

/// Where it stood then: the second letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Behind the end.
    #[default]
    Done = b'-',
    /// Waiting for the request.
    Request = b'R',
    /// Waiting for its turn.
    Queue = b'Q',
    /// Connecting to a member.
    Connect = b'C',
    /// Waiting for the response's head.
    Headers = b'H',
    /// Data was passing.
    Data = b'D',
}

/// What the client said of its member by the persistence cookie: the third letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestCookie {
    /// The pool has none (no `cookie` in the backend).
    #[default]
    NotInUse = b'-',
    /// The client has none.
    None = b'N',
    /// It names no member of the pool.
    Invalid = b'I',
    /// Its member is down.
    Down = b'D',
    /// Its member gets the request.
    Valid = b'V',
}

/// What the client is told to remember: the fourth letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ResponseCookie {
    /// The pool has none.
    #[default]
    NotInUse = b'-',
    /// Nothing.
    None = b'N',
    /// The proxy has added one.
    Inserted = b'I',
    /// The member's own was taken out.
    Deleted = b'D',
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Termination {
    /// What ended it.
    pub cause: Cause,
    /// Where it stood.
    pub phase: Phase,
    /// The persistence cookie of the request.
    pub request_cookie: RequestCookie,
    /// That of the response.
    pub response_cookie: ResponseCookie,
}

impl Termination {
    /// Ends it, unless something has before: the first cause counts.
    pub fn set(&mut self, cause: Cause, phase: Phase) {
        if self.cause == Cause::Normal {
            (self.cause, self.phase) = (cause, phase);
        }
    }

    /// Whether the client has ended it, by going or by waiting, once a member had the request.
    pub fn is_broken_off(self) -> bool {
        matches!((self.cause, self.phase), (Cause::ClientGone | Cause::ClientLate, Phase::Data))
    }

    /// The letters of `%tsc`, of which the first two are `%ts`.
    pub fn letters(self) -> [u8; 4] {
        [self.cause as u8, self.phase as u8, self.request_cookie as u8, self.response_cookie as u8]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_counts() {
        let mut end = Termination::default();
        assert_eq!(&end.letters(), b"----");
        end.set(Cause::ServerLate, Phase::Headers);
        end.set(Cause::ClientGone, Phase::Data);
        end.request_cookie = RequestCookie::Valid;
        end.response_cookie = ResponseCookie::Inserted;
        assert_eq!(&end.letters(), b"sHVI");
    }
}
