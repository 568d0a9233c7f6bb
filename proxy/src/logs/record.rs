//! What a session or a request leaves behind: all that a line can be made of. Filled in along the way, where it costs next to
//! nothing, and only for a listener that has a log.

use std::{
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use amphora_model::{MemberId, PoolId};
use tokio::time::Instant;

use super::{flow::LogPlan, format::Needs, termination::Termination};
use crate::{http::Ids, state::MemberState, tls::PeerFacts};

/// What HAProxy keeps of a request line (`REQURI_LEN`, less the byte behind it).
const MOST_OF_REQUEST: usize = 1023;

/// A session of a TCP listener, or a request.
#[derive(Debug)]
pub struct Record {
    /// What is asked for.
    pub needs: Needs,
    /// `https` where the listener terminates TLS, else `http`.
    pub scheme: &'static str,
    /// The client's address, as it was accepted or as the PROXY protocol has it.
    pub client: SocketAddr,
    /// Where it has connected to, when that is [wanted](Needs::listener_address).
    pub listener: Option<SocketAddr>,
    /// The pool.
    pub pool: Option<PoolId>,
    /// The member that had it last.
    pub member: Option<MemberId>,
    /// That member's address.
    pub member_address: Option<SocketAddr>,
    /// Where the member's connection comes from, when that is [wanted](Needs::source_address).
    pub source: Option<SocketAddr>,
    /// When it happened.
    pub marks: Marks,
    /// That member, to ask it how much it has to do, when that is [wanted](Needs::counts).
    pub at: Option<Arc<MemberState>>,
    /// The response's status; 0 is none, and -1 that of a client that has gone before there was one.
    pub status: i32,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Attempts to connect after the first.
    pub retries: u32,
    /// The last of them went to another member.
    pub redispatched: bool,
    /// How it ended.
    pub termination: Termination,
    /// How many connections there are at its end, when that is [wanted](Needs::counts).
    pub counts: Counts,
    /// What TLS has agreed upon, on an encrypted connection.
    pub tls: Option<Rc<PeerFacts>>,
    /// The number of the line, when that is [wanted](Needs::numbers).
    pub line_number: u32,
    /// The number of the session or request.
    pub number: u32,
    /// What the request is known by, on a listener that asks for it.
    pub ids: Option<Box<Ids>>,
    request: Vec<u8>,
    /// Its version is older than HTTP/1.1.
    is_old: bool,
}

/// Moments of a session or request. One that never came is `None`.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// The connection was accepted; or it could take the next request, when there was one before.
    pub begun: Instant,
    /// Handshakes on the client's connection were done.
    pub shaken: Option<Instant>,
    /// The request's first byte.
    pub first_byte: Option<Instant>,
    /// The end of the request's head; on a TCP listener the connection, as HAProxy has it.
    pub requested: Option<Instant>,
    /// A member was chosen: there are no queues, so that is at once.
    pub dispatched: Option<Instant>,
    /// The connection to the member was there.
    pub connected: Option<Instant>,
    /// The response's head was there.
    pub answered: Option<Instant>,
    /// The end.
    pub ended: Instant,
}

/// Connections, and sessions or requests under way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Of the process.
    pub process: u64,
    /// Of the listener.
    pub frontend: u64,
    /// Of the pool.
    pub backend: u64,
    /// Of the member.
    pub server: u64,
}

impl Record {
    /// One that begins now.
    pub fn new(needs: Needs, client: SocketAddr, begun: Instant) -> Self {
        Self {
            needs,
            scheme: "http",
            client,
            listener: None,
            pool: None,
            member: None,
            member_address: None,
            source: None,
            at: None,
            marks: Marks::new(begun),
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            retries: 0,
            redispatched: false,
            termination: Termination::default(),
            counts: Counts::default(),
            tls: None,
            line_number: 0,
            number: 0,
            ids: None,
            request: Vec::new(),
            is_old: false,
        }
    }

    /// Begins anew, in the same memory.
    pub fn again(&mut self, needs: Needs, client: SocketAddr, begun: Instant) {
        // Each by itself: the whole would be made elsewhere and copied.
        let fresh = Marks::new(begun);
        let Self {
            needs: asked,
            scheme,
            client: from,
            listener,
            pool,
            member,
            member_address,
            source,
            marks,
            at,
            status,
            bytes_in,
            bytes_out,
            retries,
            redispatched,
            termination,
            counts,
            tls,
            line_number,
            number,
            ids,
            request,
            is_old: _,
        } = self;
        (*asked, *scheme, *from, *marks) = (needs, "http", client, fresh);
        (*listener, *member_address, *source) = (None, None, None);
        (*pool, *member, *at, *tls, *ids) = (None, None, None, None, None);
        (*status, *bytes_in, *bytes_out, *retries, *redispatched) = (0, 0, 0, 0, false);
        (*termination, *counts) = (Termination::default(), Counts::default());
        (*line_number, *number) = (0, 0);
        request.clear();
    }

    /// Keeps the request line, as much of it as HAProxy keeps.
    pub fn keep_request(&mut self, method: &[u8], target: &[u8], version: &[u8]) {
        self.keep_request_of(&[method, b" ", target, b" "], version);
    }

    /// The same, what is in front of the version in any parts.
    pub(crate) fn keep_request_of(&mut self, parts: &[&[u8]], version: &[u8]) {
        self.request.clear();
        self.is_old = version == b"HTTP/1.0";
        let length = parts.iter().map(|part| part.len()).sum::<usize>() + version.len();
        self.request.reserve(length.min(MOST_OF_REQUEST));
        for part in parts.iter().chain([&version]) {
            let room = MOST_OF_REQUEST - self.request.len();
            self.request.extend_from_slice(&part[..part.len().min(room)]);
        }
    }

    /// What HAProxy tells apart of versions, which is known also of a request line that was cut off.
    pub(super) fn old_or_new_version(&self) -> &'static [u8] {
        if self.is_old { b"HTTP/1.0" } else { b"HTTP/1.1" }
    }

    /// The request line; `None` when there was none that could be read.
    pub fn request(&self) -> Option<&[u8]> {
        (!self.request.is_empty()).then_some(&self.request)
    }
}

/// The record of what a task works on, when its listener has a log.
#[derive(Debug)]
pub(crate) struct Draft {
    on: bool,
    /// How the record is written: as of its beginning, since it has what that plan needs. Kept for the next record, which
    /// mostly has the same.
    plan: Option<Arc<LogPlan>>,
    record: Record,
}

impl Default for Draft {
    fn default() -> Self {
        let nobody = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        Self { on: false, plan: None, record: Record::new(Needs::default(), nobody, Instant::now()) }
    }
}

impl Draft {
    /// Begins a record that is written by this plan, whatever the listener's is at its end.
    pub(crate) fn begin(&mut self, plan: &Arc<LogPlan>, client: SocketAddr, begun: Instant) -> &mut Record {
        self.on = true;
        if !self.plan.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, plan)) {
            self.plan = Some(Arc::clone(plan));
        }
        self.record.again(plan.format().needs(), client, begun);
        &mut self.record
    }

    /// The record that was begun.
    #[inline]
    pub(crate) fn record(&mut self) -> Option<&mut Record> {
        if self.on { Some(&mut self.record) } else { None }
    }

    /// Takes the record away, with its plan.
    pub(crate) fn take(&mut self) -> Option<(Record, Arc<LogPlan>)> {
        if !self.on {
            return None;
        }
        let Self { plan, record, .. } = std::mem::take(self);
        plan.map(|plan| (record, plan))
    }

    /// The record that was begun, for the last time, and its plan.
    pub(crate) fn end(&mut self) -> Option<(&mut Record, &LogPlan)> {
        if !std::mem::take(&mut self.on) {
            return None;
        }
        self.plan.as_deref().map(|plan| (&mut self.record, plan))
    }
}

impl Marks {
    fn new(begun: Instant) -> Self {
        let none = None;
        Self {
            begun,
            shaken: none,
            first_byte: none,
            requested: none,
            dispatched: none,
            connected: none,
            answered: none,
            ended: begun,
        }
    }

    /// Milliseconds from the beginning, as HAProxy counts them: what is not whole is left out.
    fn since(&self, at: Option<Instant>) -> Option<i64> {
        at.map(|at| milliseconds(at.saturating_duration_since(self.begun)))
    }
}

/// Whole milliseconds, without the 128 bits of [`Duration::as_millis`].
pub(super) fn milliseconds(time: Duration) -> i64 {
    (time.as_secs() as i64).saturating_mul(1000) + i64::from(time.subsec_millis())
}

/// HAProxy's `strm_logs`: milliseconds from the beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) handshake: i64,
    pub(super) idle: i64,
    pub(super) request: Option<i64>,
    pub(super) queue: Option<i64>,
    pub(super) connect: Option<i64>,
    pub(super) data: Option<i64>,
    pub(super) close: i64,
}

impl From<&Marks> for Times {
    fn from(marks: &Marks) -> Self {
        let handshake = marks.since(marks.shaken).unwrap_or(0);
        Self {
            handshake,
            idle: marks.since(marks.first_byte).map_or(0, |first| (first - handshake).max(0)),
            request: marks.since(marks.requested),
            queue: marks.since(marks.dispatched),
            connect: marks.since(marks.connected),
            data: marks.since(marks.answered),
            close: marks.since(Some(marks.ended)).unwrap_or(0),
        }
    }
}
