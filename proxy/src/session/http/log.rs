//! What requests write into their records; see [`session::log`](crate::session::log).
//!
//! Sizes are HAProxy's, which are not those on the wire: of a message as it comes, before anything is changed in it, the
//! lengths of what it is made of, without what is between them, and a constant for its first line (`struct htx_sl`) and for the
//! end of its head.

use tokio::time::Instant;

use super::{decide, exchange::Failure};
use crate::{
    http::{Known, RequestView, ResponseEdits, ResponseView, Version, fill::WEBSOCKET_KEY_LEN},
    logs::{
        Record,
        termination::{Cause, Phase, RequestCookie, ResponseCookie},
    },
    persist::Persistence,
    snapshot::PoolPlan,
};

/// What HAProxy counts of a head besides its parts: 20 for its first line, 1 for its end.
const HEAD: usize = 21;

/// Of each version.
const VERSION: usize = "HTTP/1.1".len();

impl Record {
    /// The head of a request was read, and is understood.
    pub(super) fn requested(&mut self, view: &RequestView<'_>, at: Instant) {
        self.marks.requested = Some(at);
        let version: &[u8] = match view.version() {
            Version::Http10 => b"HTTP/1.0",
            Version::Http11 => b"HTTP/1.1",
            Version::Http2 => b"HTTP/2.0",
        };
        // HAProxy puts an absolute target together from what HTTP/2 tells apart.
        // That of `OPTIONS *` has no path.
        let (origin, target) = match (view.version(), view.value(Known::Host), view.target()) {
            (Version::Http2, Some(host), b"*") => ([self.scheme.as_bytes(), b"://", host], &b""[..]),
            (Version::Http2, Some(host), target) if view.path().is_some() => {
                ([self.scheme.as_bytes(), b"://", host], target)
            }
            (_, _, target) => ([&b""[..]; 3], target),
        };
        let [scheme, slashes, host] = origin;
        if self.needs.sizes {
            let line = view.method_bytes().len()
                + scheme.len()
                + slashes.len()
                + host.len()
                + target.len()
                + VERSION;
            let fields = view.fields().map(size_of_field).sum::<usize>();
            let added = if view.version() == Version::Http2 {
                added(view.has(Known::TransferEncoding), view.has(Known::Upgrade))
            } else {
                0
            };
            self.bytes_in += (HEAD + line + fields - added) as u64;
        }
        if self.needs.request_line {
            let method = view.method_bytes();
            if scheme.is_empty() {
                self.keep_request(method, target, version);
            } else {
                self.keep_request_of(&[method, b" ", scheme, slashes, host, target, b" "], version);
            }
        }
    }

    /// The request goes to a pool, where a cookie may have named the `member`.
    pub(super) fn led_by_cookie(&mut self, view: &RequestView<'_>, pool: &PoolPlan, member: Option<usize>) {
        let Some(Persistence::ServerCookie(servers)) = &pool.persistence else { return };
        let cookies = view.fields().filter(|(_, _, known)| *known == Known::Cookie);
        self.termination.request_cookie = match (member, servers.known(cookies.map(|(_, value, _)| value))) {
            (Some(_), _) => RequestCookie::Valid,
            (None, None) => RequestCookie::None,
            (None, Some(false)) => RequestCookie::Invalid,
            (None, Some(true)) => RequestCookie::Down,
        };
        self.termination.response_cookie = ResponseCookie::None;
    }

    /// The head of an interim response was passed on.
    pub(super) fn interim(&mut self, view: &ResponseView<'_>) {
        if self.needs.sizes {
            self.bytes_out += size_of_head(view);
        }
    }

    /// The head of the response was read, and goes on with `edits`.
    pub(super) fn answered(&mut self, view: &ResponseView<'_>, edits: &ResponseEdits<'_>, at: Instant) {
        self.marks.answered = Some(at);
        self.status = view.status().into();
        self.interim(view);
        if edits.insert_cookie.is_some() {
            self.termination.response_cookie = ResponseCookie::Inserted;
        } else if edits.strip_cookie.is_some_and(|name| sets_cookie(view, name)) {
            self.termination.response_cookie = ResponseCookie::Deleted;
        }
    }

    /// What comes is no request, or none that is honoured: `response` says so, if it gets there.
    pub(super) fn refused(&mut self, status: u16, response: &[u8]) {
        self.status = status.into();
        self.termination.set(Cause::Proxy, Phase::Request);
        // What answers what is no request is not counted.
        if self.marks.requested.is_some() {
            self.bytes_out += size_of_reply(response, true);
        }
    }

    /// The request has not come: its client has gone, or is too slow.
    pub(super) fn unrequested(&mut self, status: u16) {
        self.status = status.into();
        let cause = if status == 408 { Cause::ClientLate } else { Cause::ClientGone };
        self.termination.set(cause, Phase::Request);
    }

    /// The proxy answers.
    pub(super) fn replied(&mut self, reply: &decide::LocalReply, response: &[u8]) {
        self.status = reply.status.into();
        // HAProxy has the end of the connection in the message itself only when a body is the reason.
        let closes = reply.cause == decide::Cause::Redirected { with_body: true };
        self.bytes_out += size_of_reply(response, closes);
        match reply.cause {
            decide::Cause::Denied => self.termination.set(Cause::Proxy, Phase::Request),
            decide::Cause::Answered | decide::Cause::Redirected { .. } => {
                self.termination.set(Cause::Local, Phase::Request)
            }
            decide::Cause::Unserved => self.termination.set(Cause::ServerGone, Phase::Connect),
        }
    }

    /// There are too many requests, and this one is not answered.
    pub(super) fn dropped(&mut self) {
        self.status = -1;
        self.termination.set(Cause::Proxy, Phase::Request);
    }

    /// The client has gone while it waited for its turn.
    pub(super) fn left(&mut self) {
        self.status = -1;
        self.termination.set(Cause::ClientGone, Phase::Queue);
    }

    /// The client has gone while a member was connected to.
    pub(super) fn abandoned(&mut self) {
        self.status = -1;
        self.termination.set(Cause::ClientGone, Phase::Connect);
    }

    /// An exchange has failed for good, before a response or while it was relayed; or behind a response that is complete, when what
    /// was left of the request did not come or go.
    pub(super) fn failed(&mut self, failure: Failure) {
        let answered = self.marks.answered.is_some();
        // HAProxy meets with the end of a client in one place, however far the exchange has come.
        let gone = failure == Failure::ClientGone;
        let phase = if answered || gone { Phase::Data } else { Phase::Headers };
        let (cause, status) = match failure {
            Failure::Unanswered | Failure::NotProcessed | Failure::CutHead => (Cause::ServerGone, 502),
            Failure::BadResponse | Failure::Unfit(_) => (Cause::Proxy, 502),
            Failure::MemberLate => (Cause::ServerLate, 504),
            Failure::Drained => (Cause::Drained, 503),
            Failure::ClientGone => (Cause::ClientGone, -1),
            Failure::ClientLate => (Cause::ClientLate, 408),
            Failure::BadBody => (Cause::Proxy, 400),
            Failure::Cut => (Cause::ServerGone, 502),
            Failure::CutLate => (Cause::ServerLate, 504),
            // HAProxy's manual says `PD`, and HAProxy this.
            Failure::CutBad => (Cause::ServerGone, 502),
        };
        if !answered && self.status == 0 {
            self.status = status;
        }
        self.termination.set(cause, phase);
    }
}

fn size_of_head(view: &ResponseView<'_>) -> u64 {
    let fields = view.fields().map(size_of_field).sum::<usize>();
    let added =
        if view.version() == Version::Http2 { added(view.has(Known::TransferEncoding), false) } else { 0 };
    (HEAD + VERSION + "200".len() + view.reason().len() + fields - added) as u64
}

/// The size of what a head of HTTP/2 is given here so that it reads as one of HTTP/1.1: that of a body without a length, and the key
/// of an extended CONNECT. It may have neither by itself.
fn added(chunked: bool, upgrade: bool) -> usize {
    let body = if chunked { "transfer-encoding".len() + "chunked".len() } else { 0 };
    let key = if upgrade { "sec-websocket-key".len() + WEBSOCKET_KEY_LEN } else { 0 };
    body + key
}

/// What says whether the connection stays is none of the message.
fn size_of_field((name, value, known): (&[u8], &[u8], Known)) -> usize {
    if known != Known::Connection {
        return name.len() + value.len();
    }
    let options =
        value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|option| !option.is_empty());
    let kept = |option: &&[u8]| {
        !option.eq_ignore_ascii_case(b"close") && !option.eq_ignore_ascii_case(b"keep-alive")
    };
    let kept: usize = options.filter(kept).map(|option| option.len() + 1).sum();
    if kept == 0 { 0 } else { name.len() + kept - 1 }
}

fn sets_cookie(view: &ResponseView<'_>, name: &[u8]) -> bool {
    let mut cookies = view.fields().filter(|(_, _, known)| *known == Known::SetCookie);
    cookies.any(|(_, value, _)| value.strip_prefix(name).is_some_and(|rest| rest.starts_with(b"=")))
}

/// The size of a response that the proxy has written itself. Those to what is no request, and no others, say by themselves that
/// the connection closes.
fn size_of_reply(response: &[u8], closes: bool) -> u64 {
    let Some(head) = memchr::memmem::find(response, b"\r\n\r\n") else { return 0 };
    // Each line has two bytes between its parts, and one more in front that is no part.
    let lines = response[..head].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let said = lines.filter(|line| closes || !line.starts_with(b"connection:")).map(|line| line.len() - 2);
    (HEAD + said.sum::<usize>() + response.len() - (head + 4)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_has_haproxys_size() {
        // HAProxy logs 192 and 105 bytes of these.
        let denied = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 93\r\ncache-control: no-cache\r\ncontent-type: text/html\r\n\r\n\
            <html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</body></html>\n";
        assert_eq!(size_of_reply(denied, false), 192);
        let moved = b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: http://example.org/there\r\ncache-control: no-cache\r\n\
            connection: close\r\n\r\n";
        assert_eq!(size_of_reply(moved, false), 105);
        assert_eq!(size_of_reply(b"", true), 0);
    }
}
