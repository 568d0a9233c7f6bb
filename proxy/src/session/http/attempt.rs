//! A request at one member, from its first byte sent to the head of the response.

use std::{mem, rc::Rc};

use tokio::time::Instant;

use super::{
    body::{BodyRelay, Hops},
    decide::Request,
    downstream::Downstream,
    exchange::{Exchange, Failure, Progress},
    persistence::Affinity,
    upstream::Upstream,
};
use crate::{
    http::{ResponseEdits, Version},
    http1::{self, Body, Connection, ResponseFraming, ResponseHop, Transfer},
    local::{LocalListener, Work},
    persist::server_cookie,
    snapshot::PoolPlan,
    state::{Failed, ResponseClass, Unfit},
};

/// Interim responses to one request. A member that sends more has lost its way.
const MOST_INTERIM: usize = 32;

/// A response that is on its way: what is still to be relayed, and what comes after it.
pub(super) struct Response {
    pub(super) download: BodyRelay,
    pub(super) begun: Instant,
    pub(super) keep_member: bool,
    pub(super) keep_client: bool,
    pub(super) switched: bool,
    /// The response had begun before all of the request was sent.
    pub(super) early: bool,
    /// See [`ResponseFraming::body_in_doubt`].
    pub(super) body_in_doubt: bool,
    /// The member has bound an identity to the connection, or is about to.
    pub(super) identity: bool,
}

/// A request at one member.
pub(super) struct Attempt<'a> {
    pub(super) listener: &'a LocalListener,
    pub(super) pool: &'a PoolPlan,
    pub(super) member: usize,
    pub(super) request: &'a Request,
    pub(super) affinity: &'a Affinity,
    pub(super) now: u32,
    /// When the request was ready to be sent.
    pub(super) ready_at: Instant,
    /// How long the head of the response took, once it is there; µs.
    pub(super) response_us: Option<u64>,
}

impl Attempt<'_> {
    /// Sends the request and waits for the response. Its head, as the client is to get it, is in [`Work::out`] then.
    pub(super) async fn response(
        &mut self,
        exchange: &mut Exchange<'_, '_>,
        work: &mut Work,
    ) -> Result<Response, Failure> {
        let at = Rc::clone(exchange.upstream.member());
        let counters = at.counters();
        counters.requests.add(1);
        let mut sent = 0;
        let mut progress = Progress::new(self.ready_at);
        let mut interim = 0;
        let mut continued = false;
        if let Upstream::Http2(stream) = &mut *exchange.upstream {
            stream.send_head(&work.out, &mut work.request, exchange.upload.is_done())?;
            sent = work.out.len();
            counters.bytes_in.add(sent as u64);
        }
        loop {
            let head = exchange.response_head(&work.out, &mut sent, &mut work.response, &mut progress).await;
            let length = head.map_err(|failure| match failure {
                // The member has begun to answer.
                Failure::Unanswered | Failure::NotProcessed if interim > 0 => Failure::CutHead,
                failure => failure,
            })?;
            let view = work.response.view(exchange.upstream.head());
            let upgrade = self.request.framing.upgrade;
            let framing = http1::response_framing(self.request.method, upgrade, &view).map_err(|reason| {
                tracing::debug!(%reason, "bad response");
                Failure::BadResponse
            })?;
            if let Downstream::Http2(stream) = &*exchange.downstream
                && !stream.may_have(&view, framing.switching)
            {
                tracing::debug!("response that is none to an extended CONNECT");
                return Err(if framing.switching {
                    Failure::BadResponse
                } else {
                    Failure::Unfit(Unfit::Tunnel)
                });
            }
            let status = view.status();
            if framing.interim {
                counters.responses[ResponseClass::Informational as usize].add(1);
                interim += 1;
                if interim > MOST_INTERIM {
                    tracing::debug!("too many interim responses");
                    return Err(Failure::BadResponse);
                }
                // HTTP/1.0 has no interim responses.
                let wanted = self.request.version >= Version::Http11;
                let edits = ResponseEdits::default();
                let passed_on = match &mut *exchange.downstream {
                    Downstream::Http1(client) => {
                        let mut text = Vec::new();
                        if wanted {
                            let hop = ResponseHop { client: self.request.version, ..ResponseHop::default() };
                            http1::write_response(&mut text, &view, hop, &edits);
                        }
                        // Few responses have any, so that none is given room for it beforehand.
                        let written = Box::pin(client.write_all(&text, exchange.timeouts.client_data));
                        written.await.map(|()| text.len())
                    }
                    Downstream::Http2(stream) => stream.send_interim(&view),
                };
                if let Some(record) = work.log.record() {
                    record.interim(&view);
                }
                exchange.went(passed_on.map_err(|_| Failure::ClientGone)? as u64);
                exchange.upstream.consume_head(length);
                // It is the client's turn, once.
                if status == 100
                    && self.request.framing.expect_continue
                    && !mem::replace(&mut continued, true)
                {
                    progress.made();
                }
                continue;
            }
            let answered_at = Instant::now();
            let took = answered_at.duration_since(self.ready_at).as_micros() as u64;
            self.response_us = Some(took);
            counters.response_time_us.add(took);
            if sent < work.out.len() {
                // The member answered before it had read the head.
                exchange.upload_broken = true;
            }
            let early = !exchange.is_sent();
            exchange.upload.settle();
            let identity = view.binds_identity();
            self.affinity.learn(self.pool, self.member, &view, self.now);
            let hop = self.hop(&framing, exchange);
            // On a stream nothing follows that could be taken for the body.
            let may_decline = hop.connection == Connection::Close || exchange.downstream.is_stream();
            exchange.body_declined = self.request.framing.expect_continue && !continued && may_decline;
            exchange.closes = hop.connection == Connection::Close;
            let safe = self.request.method.is_safe();
            let plan = self.listener.plan();
            let mut edits = self.affinity.edit(self.pool, self.member, &view, safe);
            if let Some(cookie) = work.extras.as_ref().and_then(|extras| extras.pool_cookie.as_deref()) {
                edits.pool_cookie = Some(cookie);
                let fields = view.fields().map(|(name, value, _)| (name, value));
                edits.private |= server_cookie::needs_private(safe, status, fields);
            }
            edits.transport_security = plan.hsts.as_deref().map(str::as_bytes);
            let changes = work.extras.as_ref().and_then(|extras| extras.response.as_ref());
            let changed = changes.map(|changes| changes.fields(self.pool.members[self.member].address()));
            let changed = changed.transpose().map_err(|_| {
                tracing::debug!("a response that is too large for what policies change in it");
                Failure::Unfit(Unfit::Edits)
            })?;
            edits.fields = changed.as_ref().map(|changed| changed.edits()).unwrap_or_default();
            if let Some(record) = work.log.record() {
                record.answered(&view, &edits, answered_at);
            }
            work.out.clear();
            let hops = Hops::between(exchange.upstream.is_stream(), exchange.downstream.is_stream());
            let mut download = BodyRelay::new(framing.body, hop.transfer, hops);
            match &mut *exchange.downstream {
                Downstream::Http1(_) => {
                    http1::write_response(&mut work.out, &view, hop, &edits);
                    exchange.upstream.consume_head(length);
                    download
                        .begin(&mut work.out, exchange.upstream.source())
                        .map_err(|_| Failure::BadResponse)?;
                }
                Downstream::Http2(stream) => {
                    let ended = exchange.upstream.has_ended();
                    if ended && !download.is_done() {
                        // All was said with the head, and is to the client.
                        download = BodyRelay::new(Body::None, hop.transfer, hops);
                    }
                    let end = download.is_done() && !framing.switching;
                    let sent = stream.send_head(&view, &edits, framing.switching, end);
                    let sent = sent.map_err(|_| Failure::ClientGone)? as u64;
                    exchange.went(sent);
                    exchange.upstream.consume_head(length);
                }
            }
            let class = ResponseClass::of(status) as usize;
            match (500..=599).contains(&status) {
                false => at.state.passed(&self.pool.member_options),
                true => at.state.failed(Failed::Status(status), &self.pool.member_options),
            }
            counters.responses[class].add(1);
            at.pool_counters().responses[class].add(1);
            exchange.counters.responses[class].add(1);
            return Ok(Response {
                download,
                begun: answered_at,
                keep_member: framing.keep_alive,
                keep_client: hop.connection == Connection::Persistent,
                switched: framing.switching,
                early,
                body_in_doubt: framing.body_in_doubt,
                identity,
            });
        }
    }

    /// How the response goes on to the client.
    fn hop(&self, framing: &ResponseFraming, exchange: &Exchange<'_, '_>) -> ResponseHop {
        let transfer = match (framing.body, self.request.version) {
            (Body::Chunked, Version::Http10) => Transfer::UntilClose,
            (Body::UntilClose, Version::Http11 | Version::Http2) => Transfer::Chunked,
            _ => Transfer::AsIs,
        };
        let ends_by_closing = transfer == Transfer::UntilClose
            || (framing.body == Body::UntilClose && transfer == Transfer::AsIs);
        let connection = if framing.switching {
            Connection::Upgrade
        } else if exchange.downstream.is_stream() {
            // What its connection comes to is no matter of one stream.
            Connection::Persistent
        } else if self.request.framing.keep_alive
            && !ends_by_closing
            // What the member does not take of the request is read and passed over, unless the client may well not send it.
            && (exchange.is_sent()
                || !self.request.framing.expect_continue
                || framing.keep_alive && !exchange.upload_broken)
            && !self.listener.is_closing(exchange.downstream.address())
        {
            Connection::Persistent
        } else {
            Connection::Close
        };
        ResponseHop { client: self.request.version, connection, transfer, tunnel: framing.switching }
    }
}
