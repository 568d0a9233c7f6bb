//! What becomes of a request before a member is asked: the policies' verdict, its pool, its head as the member gets it. Nothing
//! is waited for, counted or sent here.

use std::{net::SocketAddr, rc::Rc};

use amphora_model::ListenerTimeouts;
use tokio::time::Instant;

use super::{
    address::ClientAddress,
    attempt::Response,
    certificate,
    changes::{self, Changes},
    limit,
    persistence::Affinity,
};
use crate::{
    http::{Known, KnownSet, Method, RequestEdits, RequestView, SetFields, Version},
    http1::{
        self, Body, ChunkedDecoder, Connection, RequestFraming,
        responses::{self, Recipient},
    },
    l7::{self, Outcome},
    limits::rate::{Charge, Farewell, Queued, Taken},
    local::{Extras, LocalListener, LocalPool, Trust, Worker},
    logs::Record,
    persist::{Persistence, server_cookie},
    snapshot::{Chosen, ListenerPlan, PoolPlan},
    tls::PeerFacts,
};

/// What is kept of a request once its head has been rewritten.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) framing: RequestFraming,
    /// It carries credentials that a member may bind to the connection.
    pub(super) identity: bool,
}

/// What has come of a request's body behind its head, while nobody has read any of that.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    /// Bytes as they came.
    pub(super) bytes: usize,
    /// Content, as HAProxy counts it.
    pub(super) content: u64,
    /// There is no more of it: what is behind is the next request.
    pub(super) is_all: bool,
}

impl Waiting {
    /// `behind` is all that has come behind the head.
    pub(super) fn of(body: Body, behind: &[u8]) -> Self {
        match body {
            Body::None => Self { is_all: true, ..Self::default() },
            Body::Length(length) => {
                let bytes = usize::try_from(length).unwrap_or(usize::MAX).min(behind.len());
                Self { bytes, content: bytes as u64, is_all: bytes as u64 == length }
            }
            Body::Chunked => {
                let mut decoder = ChunkedDecoder::new();
                match decoder.decode(behind) {
                    Ok(step) => Self {
                        bytes: step.consumed,
                        // HAProxy has something for the end, too.
                        content: decoder.data() + decoder.trailers() + u64::from(step.done),
                        is_all: step.done,
                    },
                    Err(_) => Self::default(),
                }
            }
            Body::UntilClose => Self::default(),
        }
    }
}

impl Request {
    /// Before anything of the body was read: the next request follows when all of it is there to be passed over.
    pub(super) fn recipient(&self, body: Waiting, closing: bool) -> Recipient {
        self.recipient_after(body.is_all, closing)
    }

    pub(super) fn recipient_after(&self, all_read: bool, closing: bool) -> Recipient {
        let keep_alive = self.framing.keep_alive && all_read && !closing;
        Recipient { version: self.version, method: self.method, keep_alive }
    }

    /// Whom the member's connection may serve next; `None` when nobody.
    pub(super) fn trust(&self, response: &Response, client: SocketAddr) -> Option<Trust> {
        let body = self.framing.body != Body::None;
        if response.early || (body && !self.method.defines_body()) {
            // The member may not have read the body, and then takes it for the next request, whenever it answers that.
            None
        } else if self.method == Method::Head || self.framing.expect_continue {
            Some(Trust::None)
        } else if body || response.body_in_doubt {
            Some(Trust::Client(client))
        } else {
            Some(Trust::Full)
        }
    }
}

/// What is done with a request.
pub(super) enum Decision {
    /// It goes to a member of a pool.
    Forward(Forward),
    /// The proxy answers it.
    Reply(LocalReply),
    /// It is not understood: the status.
    Refuse(u16),
    /// It is too much, and its connection goes.
    Drop(Farewell),
    /// It waits for its turn, and is decided on then.
    Queue(Queued),
}

/// An answer of the proxy's own, which is in [`Work::out`](crate::local::Work).
pub(super) struct LocalReply {
    /// The status.
    pub(super) status: u16,
    /// Whom it is for.
    pub(super) to: Recipient,
    pub(super) cause: Cause,
    /// Of the request's body.
    pub(super) unread: Waiting,
}

/// Why the proxy answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A policy rejects the request, or there are too many.
    Denied,
    /// A policy answers it.
    Answered,
    /// A policy redirects it.
    Redirected {
        /// It has a body.
        with_body: bool,
    },
    /// There is no pool, or no member of it has answered.
    Unserved,
}

/// A request on its way to a member of a pool, its head in [`Work::out`](crate::local::Work).
pub(super) struct Forward {
    pub(super) request: Request,
    pub(super) pool: Rc<LocalPool>,
    pub(super) timeouts: ListenerTimeouts,
    pub(super) affinity: Affinity,
    pub(super) extras: Option<Box<Extras>>,
    /// When the head was there.
    pub(super) begun: Instant,
    /// The same in seconds of the clock that all workers share.
    pub(super) now: u32,
}

/// Who asks.
pub(super) struct Origin<'a> {
    pub(super) address: SocketAddr,
    pub(super) text: &'a mut ClientAddress,
    /// What is known of a client that speaks TLS.
    pub(super) facts: Option<&'a PeerFacts>,
    /// What has come behind the head.
    pub(super) behind: &'a [u8],
    /// How long the head is.
    pub(super) length: usize,
    /// Whose the bytes are, to be told where they are counted.
    pub(super) charge: &'a mut Option<Rc<Charge>>,
    /// It has waited for its turn.
    pub(super) had_turn: bool,
    /// Where it is to be logged, if it is.
    pub(super) record: Option<&'a mut Record>,
}

/// Decides on the request of this head, which came at `begun`: the configuration is that of now, not of when the client went
/// idle, and is not held for longer than it takes to know the pool. What is to be sent is written to `out`.
pub(super) fn decide(
    worker: &Worker,
    listener: &LocalListener,
    mut origin: Origin<'_>,
    view: &RequestView<'_>,
    begun: Instant,
    scratch: &mut l7::Scratch,
    out: &mut Vec<u8>,
) -> Decision {
    let framing = match http1::request_framing(view) {
        Ok(framing) => framing,
        Err(reject) => {
            tracing::debug!(%reject, "request refused");
            let Origin { address, charge, length, .. } = origin;
            let farewell = limit::refused(worker, listener, address.ip(), charge, length, begun);
            return farewell.map_or(Decision::Refuse(reject.status()), Decision::Drop);
        }
    };
    let present = listener.present();
    let plan = present.plan();
    let identity = view.binds_identity();
    let request = Request { method: view.method(), version: view.version(), framing, identity };
    out.clear();
    let ids = plan.identification.as_deref().map(|identification| changes::identify(identification, view));
    if let (Some(ids), Some(record)) = (&ids, &mut origin.record) {
        record.ids = Some(Box::new(ids.clone()));
    }
    if let Some(limits) = &plan.limits
        && !origin.had_turn
        && let Some(taken) = limit::judge(limits, worker, &mut origin, view, begun)
    {
        return too_much(taken, listener, &request, &mut origin, out);
    }
    let cookies = || {
        let fields = view.fields().filter(|(_, _, known)| *known == Known::Cookie);
        fields.map(|(_, value, _)| value)
    };
    let chosen = match plan.l7.evaluate_over(view, origin.facts, scratch) {
        Outcome::Pass => present.default_pool(worker.index, cookies()),
        Outcome::Pool(pool) => present.pool_index(pool).map(|pool| Chosen { pool, set_cookie: None }),
        Outcome::Pools(place) => {
            let split = plan.splits.as_ref().and_then(|splits| splits.of_policy(place));
            split.and_then(|split| present.choose(split, worker.index, cookies()))
        }
        Outcome::Reject => {
            let unread = Waiting::of(framing.body, origin.behind);
            let to = request.recipient(unread, listener.is_closing(origin.address));
            responses::write_error(out, 403, to);
            return Decision::Reply(LocalReply { status: 403, to, cause: Cause::Denied, unread });
        }
        Outcome::Answer(answer) => {
            let unread = Waiting::of(framing.body, origin.behind);
            let to = request.recipient(unread, listener.is_closing(origin.address));
            let facts = changes::facts(plan, view, origin.address, ids.as_ref());
            let status = changes::write_answer(out, answer, &facts, to);
            return Decision::Reply(LocalReply { status, to, cause: Cause::Answered, unread });
        }
        Outcome::Redirect { code, location } => {
            let location = location.pieces(view.path_and_query().unwrap_or_default());
            // As HAProxy, which closes behind these whatever has come.
            let with_body = framing.body != Body::None;
            let to = request.recipient_after(!with_body, listener.is_closing(origin.address));
            responses::write_redirect(out, code.code(), location, to);
            return Decision::Reply(LocalReply {
                status: code.code(),
                to,
                cause: Cause::Redirected { with_body },
                unread: Waiting::of(framing.body, origin.behind),
            });
        }
    };
    let Some(Chosen { pool, set_cookie }) = chosen else {
        let unread = Waiting::of(framing.body, origin.behind);
        let to = request.recipient(unread, listener.is_closing(origin.address));
        responses::write_error(out, 503, to);
        return Decision::Reply(LocalReply { status: 503, to, cause: Cause::Unserved, unread });
    };
    let pool = present.pool(pool);
    let now = worker.seconds(begun);
    let client = origin.address.ip();
    let affinity = Affinity::find(&pool.plan, view, client, now);
    let mut response = None;
    if plan.l7.has_edits() || ids.is_some() {
        let facts = changes::facts(plan, view, origin.address, ids.as_ref());
        let Ok(changes) = Changes::of(plan, view, &origin, &facts, ids.as_ref(), scratch) else {
            return Decision::Refuse(431);
        };
        response = changes.of_response(&facts);
        rewrite(out, view, &request, plan, &pool.plan, origin, Some(&changes));
        if !changes::fits(out) {
            return Decision::Refuse(431);
        }
    } else {
        rewrite(out, view, &request, plan, &pool.plan, origin, None);
    }
    let extras = Extras::of(set_cookie, response);
    Decision::Forward(Forward { request, pool, timeouts: plan.timeouts, affinity, extras, begun, now })
}

/// What becomes of a request that is too much.
#[cold]
fn too_much(
    taken: Taken,
    listener: &LocalListener,
    request: &Request,
    origin: &mut Origin<'_>,
    out: &mut Vec<u8>,
) -> Decision {
    match taken {
        Taken::Denied(seconds) => {
            // What is said of how long to wait holds only if that itself is not counted.
            *origin.charge = None;
            let unread = Waiting::of(request.framing.body, origin.behind);
            let to = request.recipient(unread, listener.is_closing(origin.address));
            responses::write_too_many(out, seconds, to);
            Decision::Reply(LocalReply { status: 429, to, cause: Cause::Denied, unread })
        }
        Taken::Dropped(farewell) => Decision::Drop(farewell),
        Taken::Queued(queued) => Decision::Queue(queued),
    }
}

/// Writes the request's head as the member gets it.
fn rewrite(
    out: &mut Vec<u8>,
    view: &RequestView<'_>,
    request: &Request,
    plan: &ListenerPlan,
    pool: &PoolPlan,
    origin: Origin<'_>,
    changes: Option<&Changes<'_>>,
) {
    let insert = plan.insert_headers;
    let Origin { address, text, facts, .. } = origin;
    // The PROXY protocol says both: Octavia writes neither for such pools.
    let untold = pool.proxy_protocol.is_none();
    let forwarded_for = (insert.x_forwarded_for && untold).then(|| text.of(address.ip()));
    let proto: &[u8] = if facts.is_some() { b"https" } else { b"http" };
    let mut lines = Vec::new();
    let names = match facts {
        Some(facts) => certificate::write(&mut lines, &insert.ssl, facts),
        None => KnownSet::default(),
    };
    let connection = if request.framing.upgrade { Connection::Upgrade } else { Connection::Persistent };
    let edits = RequestEdits {
        forwarded_for,
        forwarded_port: (insert.x_forwarded_port && untold).then_some(plan.port_text.as_bytes()),
        forwarded_proto: insert.x_forwarded_proto.then_some(proto),
        set: SetFields { names, lines: &lines },
        fields: changes.map(|changes| changes.fields.edits()).unwrap_or_default(),
        path: changes.and_then(|changes| changes.path.as_deref()),
        host: changes.and_then(Changes::host),
        strip_cookie: own_cookie(pool),
        drop_expect: request.framing.body == Body::None,
    };
    http1::write_request(out, view, connection, &edits);
}

/// The cookie that is the proxy's own, which members do not get to see.
fn own_cookie(pool: &PoolPlan) -> Option<&'static [u8]> {
    matches!(pool.persistence, Some(Persistence::ServerCookie(_))).then_some(server_cookie::NAME)
}
