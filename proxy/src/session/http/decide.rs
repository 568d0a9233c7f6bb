//! What becomes of a request before a member is asked: the policies' verdict, its pool, its head as the member gets it. Nothing
//! is waited for here.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use amphora_model::ListenerTimeouts;
use tokio::time::Instant;

use super::{address::AddressText, client::Client, persistence::Affinity, request::Answer};
use crate::{
    http::{Method, RequestEdits, RequestView, Version},
    http1::{
        self, Body, Connection, RequestFraming,
        responses::{self, Recipient},
    },
    l7::Outcome,
    local::{LocalListener, LocalPool, Trust, Work, Worker},
    persist::{Persistence, server_cookie},
    snapshot::{ListenerPlan, PoolPlan},
    state::ListenerCounters,
};

/// What is kept of a request once its head has been rewritten.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) framing: RequestFraming,
    /// It carries credentials that a member may bind to the connection.
    pub(super) identity: bool,
}

impl Asked {
    /// Before anything of the body was read: only without one does the next request follow.
    pub(super) fn recipient(&self, closing: bool) -> Recipient {
        self.recipient_after(self.framing.body == Body::None, closing)
    }

    pub(super) fn recipient_after(&self, all_read: bool, closing: bool) -> Recipient {
        let keep_alive = self.framing.keep_alive && all_read && !closing;
        Recipient { version: self.version, method: self.method, keep_alive }
    }

    /// Whom the member's connection may serve next; `None` when nobody.
    pub(super) fn trust(&self, answer: &Answer, client: SocketAddr) -> Option<Trust> {
        let body = self.framing.body != Body::None;
        if answer.early || (body && !self.method.defines_body()) {
            // The member may not have read the body, and then takes it for the next request, whenever it answers that.
            None
        } else if self.method == Method::Head || self.framing.expect_continue {
            Some(Trust::None)
        } else if body || answer.body_in_doubt {
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
    /// The proxy answers it: what it says is in [`Work::out`].
    Answer {
        /// The status.
        status: u16,
        /// Whom it is for.
        to: Recipient,
    },
    /// It is not understood.
    Refuse(u16),
}

/// A request on its way to a member of a pool, its head in [`Work::out`].
pub(super) struct Forward {
    pub(super) asked: Asked,
    pub(super) pool: Rc<LocalPool>,
    pub(super) timeouts: ListenerTimeouts,
    pub(super) affinity: Affinity,
    /// When the head was there.
    pub(super) begun: Instant,
    /// The same in seconds of the clock that all workers share.
    pub(super) now: u32,
}

/// Decides on the request whose head is the first `length` bytes of the client's inlet, and takes it out of there.
///
/// The request runs under the configuration of now, not of when the client went idle; and does not hold it for longer than it
/// takes to know the pool. Says how patient the client is with what is written to it, too.
pub(super) fn decide(
    worker: &Worker,
    listener: &LocalListener,
    counters: &ListenerCounters,
    client: &mut Client,
    work: &mut Work,
    length: usize,
) -> (Decision, Duration) {
    let begun = Instant::now();
    client.active = begun;
    let present = listener.present();
    let plan = present.plan();
    let timeouts = plan.timeouts;
    let patience = timeouts.client_data;
    let view = work.request.view(client.inlet.filled());
    let framing = match http1::request_framing(&view) {
        Ok(framing) => framing,
        Err(reject) => {
            tracing::debug!(%reject, "request refused");
            return (Decision::Refuse(reject.status()), patience);
        }
    };
    let identity = view.binds_identity();
    let asked = Asked { method: view.method(), version: view.version(), framing, identity };
    let to = asked.recipient(listener.is_closing());
    work.out.clear();
    let outcome = plan.l7.evaluate(&view, &mut work.l7);
    if work.l7.is_exceeded() {
        counters.requests_regex_limited.add(1);
    }
    let pool = match outcome {
        Outcome::Pass => plan.default_pool,
        Outcome::Pool(pool) => present.pool_index(pool),
        Outcome::Reject => {
            counters.requests_denied.add(1);
            responses::write_error(&mut work.out, 403, to);
            client.inlet.consume(length);
            return (Decision::Answer { status: 403, to }, patience);
        }
        Outcome::Redirect { code, location } => {
            counters.requests_intercepted.add(1);
            let location = location.pieces(view.path_and_query().unwrap_or_default());
            responses::write_redirect(&mut work.out, code.code(), location, to);
            client.inlet.consume(length);
            return (Decision::Answer { status: code.code(), to }, patience);
        }
    };
    let Some(pool) = pool else {
        responses::write_error(&mut work.out, 503, to);
        client.inlet.consume(length);
        return (Decision::Answer { status: 503, to }, patience);
    };

    let pool = present.pool(pool);
    let pool_plan = &*pool.plan;
    pool_plan.state.counters.of(worker.index).sessions_total.add(1);
    let now = worker.seconds(begun);
    let affinity = Affinity::find(pool_plan, &view, client.address.ip(), now);
    rewrite(&mut work.out, &view, &asked, plan, pool_plan, client.address.ip(), &mut client.address_text);
    client.inlet.consume(length);
    (Decision::Forward(Forward { asked, pool, timeouts, affinity, begun, now }), patience)
}

/// Writes the request's head as the member gets it.
fn rewrite(
    out: &mut Vec<u8>,
    view: &RequestView<'_>,
    asked: &Asked,
    plan: &ListenerPlan,
    pool: &PoolPlan,
    client: IpAddr,
    client_text: &mut AddressText,
) {
    let insert = plan.insert_headers;
    let forwarded_for = insert.x_forwarded_for.then(|| client_text.of(client));
    let connection = if asked.framing.upgrade { Connection::Upgrade } else { Connection::Persistent };
    let edits = RequestEdits {
        forwarded_for,
        forwarded_port: insert.x_forwarded_port.then_some(plan.port_text.as_bytes()),
        forwarded_proto: insert.x_forwarded_proto.then_some(b"http".as_slice()),
        strip_cookie: own_cookie(pool),
        drop_expect: asked.framing.body == Body::None,
    };
    http1::write_request(out, view, connection, &edits);
}

/// The cookie that is the proxy's own, which members do not get to see.
fn own_cookie(pool: &PoolPlan) -> Option<&'static [u8]> {
    matches!(pool.persistence, Some(Persistence::ServerCookie(_))).then_some(server_cookie::NAME)
}
