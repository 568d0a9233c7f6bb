//! What requests write into their records; see [`session::log`](crate::session::log).

use tokio::time::Instant;

use super::{decide, exchange::Failure};
use crate::{
    http::{RequestView, Version},
    logs::{
        Record,
        termination::{Cause, Phase},
    },
};

impl Record {
    /// The head of a request was read, `length` bytes, and is understood.
    pub(super) fn requested(&mut self, view: &RequestView<'_>, length: usize, at: Instant) {
        self.marks.requested = Some(at);
        self.bytes_in += length as u64;
        if self.needs.request_line {
            let version: &[u8] = match view.version() {
                Version::Http10 => b"HTTP/1.0",
                Version::Http11 => b"HTTP/1.1",
                Version::Http2 => b"HTTP/2.0",
            };
            self.keep_request(view.method_bytes(), view.target(), version);
        }
    }

    /// What comes is no request, or none that is honoured.
    pub(super) fn refused(&mut self, status: u16) {
        self.status = status.into();
        self.termination.set(Cause::Proxy, Phase::Request);
    }

    /// The request has not come: its client has gone, or is too slow.
    pub(super) fn unrequested(&mut self, status: u16) {
        self.status = status.into();
        let cause = if status == 408 { Cause::ClientLate } else { Cause::ClientGone };
        self.termination.set(cause, Phase::Request);
    }

    /// The proxy answers.
    pub(super) fn replied(&mut self, reply: &decide::LocalReply) {
        self.status = reply.status.into();
        match reply.cause {
            decide::Cause::Denied => self.termination.set(Cause::Proxy, Phase::Request),
            decide::Cause::Redirected => self.termination.set(Cause::Local, Phase::Request),
            decide::Cause::Unserved => self.termination.set(Cause::ServerGone, Phase::Connect),
        }
    }

    /// The client has gone while a member was connected to.
    pub(super) fn abandoned(&mut self) {
        self.status = -1;
        self.termination.set(Cause::ClientGone, Phase::Connect);
    }

    /// An exchange has failed for good, before a response or while it was relayed.
    pub(super) fn failed(&mut self, failure: Failure) {
        let answered = self.marks.answered.is_some();
        let phase = if answered { Phase::Data } else { Phase::Headers };
        let (cause, status) = match failure {
            Failure::Unanswered => (Cause::ServerGone, 502),
            Failure::BadResponse => (Cause::Proxy, 502),
            Failure::MemberLate => (Cause::ServerLate, 504),
            Failure::ClientGone => (Cause::ClientGone, 400),
            Failure::ClientLate => (Cause::ClientLate, 408),
            Failure::BadBody => (Cause::Proxy, 400),
            Failure::Cut => (Cause::ServerGone, 502),
            Failure::CutLate => (Cause::ServerLate, 504),
            Failure::CutBad => (Cause::Proxy, 502),
        };
        if !answered && self.status == 0 {
            self.status = status;
        }
        self.termination.set(cause, phase);
    }
}
