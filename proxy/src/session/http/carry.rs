//! One request: the member that serves it, again when that fails, and what becomes of the connections.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    net::SocketAddr,
    task::Poll,
};

use tokio::time::Instant;

use super::{
    attempt::Attempt,
    body::{BodyRelay, FrameRelay, Hops},
    client::Client,
    counted::{Times, count_drop, count_failure, count_reply},
    decide::{Cause, Decision, Forward, LocalReply, Origin, Request, Waiting, decide},
    downstream::Downstream,
    exchange::{Exchange, Failure},
    limit,
    tunnel::Tunnel,
    upstream::{MemberConnection, MemberStream, Upstream},
};
use crate::{
    balance::Flow,
    conn::Inlet,
    http1::{
        Body, Transfer,
        responses::{self, Recipient},
    },
    limits::rate::Farewell,
    local::{LocalListener, Work, Worker},
    logs::calendar::Wall,
    session::member::{self, Begun, Carrier, Connected, NoMember, Reuse, Route, Wanted},
    state::{Failed, ListenerCounters, PoolCounters, ResponseClass},
};

/// What becomes of the client's connection.
pub(super) enum Disposition {
    /// It waits for the next request.
    KeepAlive,
    /// It is closed.
    Close,
    /// It is closed after what the client still sends was read.
    LingeringClose,
    /// The request is answered with this error and the connection closed.
    Error(u16),
    /// It goes at once.
    Dropped(Farewell),
    /// It has become a tunnel.
    Tunnel(Box<Tunnel>),
}

/// How an attempt to get a request answered has ended.
pub(super) enum Carried {
    /// A response was relayed, or can be no more.
    Relayed(Disposition),
    /// The proxy answers.
    Reply(LocalReply),
}

/// Serves the request whose head is the first `length` bytes of the client's inlet.
pub(super) async fn serve(
    worker: &Worker,
    listener: &LocalListener,
    client: &mut Client,
    work: &mut Work,
    length: usize,
) -> Disposition {
    let counters = listener.state().counters.of(worker.index);
    client.active = Instant::now();
    let mut decision = decide_now(worker, listener, client, work, length, false);
    if let Decision::Queue(queued) = decision {
        // Few wait, and the others are given no room for it.
        let waiting = Box::pin(async {
            limit::turn(worker, queued, &mut Downstream::Http1(client)).await?;
            Some(decide_now(worker, listener, client, work, length, true))
        });
        decision = match waiting.await {
            Some(decision) => decision,
            None => return left(work, counters),
        };
    }
    let reply = match decision {
        Decision::Forward(forward) => {
            match forward.carry(worker, listener, &mut Downstream::Http1(client), work).await {
                Carried::Relayed(disposition) => return disposition,
                Carried::Reply(reply) => {
                    // The client has waited, perhaps longer than it may be silent itself, and has all that time again.
                    client.active = Instant::now();
                    reply
                }
            }
        }
        Decision::Reply(reply) => reply,
        Decision::Refuse(status) => return Disposition::Error(status),
        Decision::Drop(farewell) => {
            count_drop(counters);
            if let Some(record) = work.log.record() {
                record.dropped();
            }
            return Disposition::Dropped(farewell);
        }
        // It was waited for.
        Decision::Queue(_) => return Disposition::Close,
    };
    count_reply(&reply, counters);
    if let Some(record) = work.log.record() {
        record.bytes_in += reply.unread.content;
        record.replied(&reply, &work.out);
    }
    let patience = listener.timeouts().client_data;
    if client.write_all(&work.out, patience).await.is_err() {
        return Disposition::Close;
    }
    counters.bytes_out.add(work.out.len() as u64);
    let passed_over = if reply.to.keep_alive { reply.unread.bytes } else { 0 };
    limit::charge(work.charge.as_ref(), worker, work.out.len() + passed_over);
    if reply.to.keep_alive {
        client.inlet.consume(passed_over);
        Disposition::KeepAlive
    } else {
        Disposition::LingeringClose
    }
}

impl Forward {
    /// Gets the request answered by a member of its pool.
    pub(super) fn carry(
        self,
        worker: &Worker,
        listener: &LocalListener,
        downstream: &mut Downstream<'_>,
        work: &mut Work,
    ) -> impl Future<Output = Carried> {
        let Self { request, pool, timeouts, affinity, extras, begun, now } = self;
        work.extras = extras;
        // A block, as in `http::serve`.
        async move {
            let counters = listener.state().counters.of(worker.index);
            let pool_plan = &*pool.plan;
            let pool_counters = pool_plan.state.counters.of(worker.index);
            pool_counters.sessions_total.add(1);
            let mut route = Route {
                pool: &pool,
                timeout: timeouts.member_connect,
                flow: flow(downstream.address()),
                persistent: affinity.member(),
                again: downstream.own(|own| own.member_of(&pool)),
                avoid: None,
                now,
                worker: worker.index,
                header: member::header(
                    pool_plan,
                    downstream.address(),
                    || downstream.local_addr(),
                    downstream.facts().map(|facts| &**facts),
                ),
                facts: downstream.facts().cloned(),
                buffers: &worker.pools.buffers,
                wanted: if request.framing.upgrade {
                    Wanted::Upgrade
                } else if request.identity {
                    Wanted::Identity
                } else {
                    Wanted::Request
                },
                speaks_first: true,
                effort: Cell::default(),
            };
            let repeatable = request.framing.body == Body::None && request.method.is_idempotent();
            let mut reuse = match repeatable {
                true => Reuse::Any,
                // As HAProxy's `http-reuse safe`: a client's first request cannot have met a closed connection yet, so it does
                // not meet one that another client has left behind.
                false if downstream.is_first() => Reuse::Never,
                false => Reuse::Fresh,
            };
            let mut is_own = true;
            let mut again = false;
            let mut refused = 0;
            // What of the body was sent to a member that has not processed it.
            let mut kept: Option<Box<FrameRelay>> = None;
            let mut upstream;
            let (mut exchange, mut response, chosen, times) = loop {
                let connected = if is_own && let Some(own) = take_own(&route, downstream) {
                    own
                } else {
                    is_own = false;
                    match connect(&route, downstream, &request, reuse).await {
                        Some(Ok(connected)) => connected,
                        Some(Err(NoMember)) => {
                            if let Some(record) = work.log.record() {
                                record.routed(&route, begun);
                                record.unconnected(route.effort.get());
                            }
                            // A member that has not processed the request may have got some of its body.
                            let body = request.framing.body;
                            let unread = match refused {
                                0 => downstream.waiting(body),
                                _ => Waiting { is_all: body == Body::None, ..Waiting::default() },
                            };
                            let to = request.recipient(unread, listener.is_closing(downstream.address()));
                            return answer(work, 503, to, unread, pool_counters);
                        }
                        None => {
                            route.abandoned();
                            if let Some(record) = work.log.record() {
                                record.routed(&route, begun);
                                record.abandoned();
                            }
                            let to = request
                                .recipient(Waiting::default(), listener.is_closing(downstream.address()));
                            return fail(work, to, Failure::ClientGone, counters, pool_counters);
                        }
                    }
                };
                let Connected { slot, member: chosen, carrier, opened, reused } = connected;
                // One of the two has failed it.
                if std::mem::take(&mut again)
                    && let Some(failed) = route.avoid.or(route.again)
                {
                    route.again(failed, chosen);
                }
                upstream = match carrier {
                    Carrier::Conn(stream) => Upstream::Http1(MemberConnection {
                        stream,
                        inlet: Inlet::new(&worker.pools.buffers),
                        slot,
                    }),
                    Carrier::Stream(place) => Upstream::Http2(Box::new(MemberStream::new(place, slot))),
                };
                if let Some(kept) = &mut kept
                    && !upstream.is_stream()
                    && !kept.divert_to_wire(request.framing.body)
                {
                    // What is still to come of the body is on its way into frames.
                    let to = request.recipient_after(false, listener.is_closing(downstream.address()));
                    count_failure(Failure::NotProcessed, upstream.counters());
                    return fail(work, to, Failure::NotProcessed, counters, pool_counters);
                }
                if let Some(record) = work.log.record() {
                    record.routed(&route, begun);
                    record.connected(|| upstream.local_addr(), opened.unwrap_or(begun));
                }
                affinity.remember(pool_plan, chosen, downstream.address().ip(), now);
                let mut exchange = Exchange {
                    worker,
                    upload: match kept.take() {
                        Some(kept) => BodyRelay::Frames(kept),
                        None => upload(&request, downstream.is_stream(), upstream.is_stream()),
                    },
                    timeouts: &timeouts,
                    counters,
                    charge: work.charge.clone(),
                    upload_broken: false,
                    body_declined: false,
                    closes: false,
                    rest: None,
                    passed_over: false,
                    downstream: &mut *downstream,
                    upstream: &mut upstream,
                };
                let mut attempt = Attempt {
                    listener,
                    pool: pool_plan,
                    member: chosen,
                    request: &request,
                    affinity: &affinity,
                    now,
                    // Taking an idle connection takes no time worth a look at the clock.
                    ready_at: opened.unwrap_or(begun),
                    response_us: None,
                };
                let mut outcome = attempt.response(&mut exchange, work).await;
                let mut not_processed = false;
                if matches!(outcome, Err(Failure::NotProcessed)) {
                    // Whatever it asks for may be asked for again, if all of it is still there.
                    refused += 1;
                    match exchange.upload.rewind() {
                        Ok(sent) if refused <= MOST_REFUSALS => kept = sent,
                        _ => (outcome, not_processed) = (Err(Failure::Unanswered), true),
                    }
                }
                let times = Times { begun, ready_at: attempt.ready_at, response_us: attempt.response_us };
                let failure = match outcome {
                    Ok(response) => break (exchange, response, chosen, times),
                    Err(failure) => failure,
                };
                let all_read = exchange.upload.is_done();
                if let Some(record) = work.log.record() {
                    record.bytes_in += exchange.upload.content();
                }
                let at = upstream.counters();
                let ended = Instant::now();
                times.count(at, ended);
                downstream.set_active(ended);
                is_own = false;
                // An idle connection may be closed at any time.
                let idle_closed =
                    failure == Failure::Unanswered && reused && repeatable && upstream.is_spent();
                let of_member = if not_processed { Some(Failed::NotProcessed) } else { failure.of_member() };
                if !idle_closed && let Some(what) = of_member {
                    upstream.member().state.failed(what, &pool_plan.member_options);
                }
                match failure {
                    Failure::NotProcessed => {
                        // The member is about to go, or busy: it is asked again, and at last somebody else.
                        again = true;
                        route.again = Some(chosen);
                        if refused == MOST_REFUSALS {
                            (route.persistent, route.again, route.avoid) = (None, None, Some(chosen));
                        }
                    }
                    Failure::Unanswered if idle_closed => {
                        // The member closed an idle connection while the request was on its way to it. Nothing was
                        // answered and the request may be repeated, so it is, on a connection that is surely open.
                        again = true;
                        reuse = Reuse::Never;
                        route.again = Some(chosen);
                    }
                    Failure::Unanswered | Failure::Drained if repeatable && route.avoid.is_none() => {
                        // The member died under a connection that was made for this request: another gets it, once.
                        again = true;
                        reuse = Reuse::Never;
                        (route.persistent, route.again, route.avoid) = (None, None, Some(chosen));
                    }
                    failure => {
                        count_failure(failure, at);
                        return fail(
                            work,
                            request.recipient_after(all_read, listener.is_closing(downstream.address())),
                            failure,
                            counters,
                            pool_counters,
                        );
                    }
                }
            };
            // Nobody else is asked any more. A response may last for days and changes pass it by: it holds its member.
            let shared = pool_plan.proxy_protocol.is_none() && !pool_plan.member_options.transparent;
            drop(pool);
            let outcome = exchange.relay(&work.out, &mut response.download, response.begun).await;
            let upload_done = exchange.is_sent();
            let request_read = upload_done || exchange.passed_over;
            // A member that does not know trailers takes them for the next request.
            let trailed = exchange.upload.has_trailers();
            let rest = exchange.rest;
            if let Some(record) = work.log.record() {
                record.bytes_in += exchange.upload.content();
                record.bytes_out += response.download.content();
            }
            let at = upstream.counters();
            let ended = outcome.unwrap_or_else(|_| Instant::now());
            downstream.set_active(ended);
            times.count(at, ended);
            if let Some(failure) = outcome.err().or(rest) {
                // What it has come to was counted when the response began.
                count_failure(failure, at);
                if let Some(what) = failure.of_member() {
                    upstream.member().state.record.failures.add(Wall::now(), what);
                }
                if let Some(record) = work.log.record() {
                    record.failed(failure);
                }
            }
            if outcome.is_err() {
                return Carried::Relayed(Disposition::Close);
            }
            if response.switched {
                return Carried::Relayed(Disposition::Tunnel(Box::new(Tunnel::new(upstream, timeouts))));
            }
            if let Upstream::Http1(connection) = upstream
                && response.keep_member
                && upload_done
                && connection.inlet.is_empty()
            {
                let MemberConnection { stream, slot, .. } = connection;
                if is_own || request.identity || response.identity {
                    downstream.own(|own| own.keep(slot.member(), chosen, stream));
                } else if shared
                    && !trailed
                    && let Some(trust) = request.trust(&response, downstream.address())
                {
                    slot.member().put_idle(stream, ended, trust);
                }
            }
            Carried::Relayed(if !request_read {
                Disposition::LingeringClose
            } else if response.keep_client {
                Disposition::KeepAlive
            } else if downstream.end() {
                Disposition::Close
            } else {
                Disposition::LingeringClose
            })
        }
    }
}

/// Decides on the request whose head is the first `length` bytes of the client's inlet, when it is there or has `had_turn`.
fn decide_now(
    worker: &Worker,
    listener: &LocalListener,
    client: &mut Client,
    work: &mut Work,
    length: usize,
    had_turn: bool,
) -> Decision {
    let Work { request, out, l7, log, charge, .. } = &mut *work;
    let facts = client.stream.facts().map(|facts| &**facts);
    let bytes = client.inlet.filled();
    let behind = &bytes[length..];
    let origin = Origin {
        address: client.address,
        text: &mut client.address_text,
        facts,
        behind,
        length,
        charge,
        had_turn,
        record: log.record(),
    };
    let view = request.view(bytes);
    let begun = if had_turn { Instant::now() } else { client.active };
    let decision = decide(worker, listener, origin, &view, begun, l7, out);
    if matches!(decision, Decision::Refuse(_)) {
        return decision;
    }
    if let Some(record) = log.record() {
        if !had_turn {
            record.requested(&view, begun);
        }
        if let Decision::Forward(forward) = &decision {
            record.led_by_cookie(&view, &forward.pool.plan, forward.affinity.member());
        }
    }
    if !matches!(decision, Decision::Queue(_)) {
        client.inlet.consume(length);
        if l7.is_exceeded() {
            listener.state().counters.of(worker.index).requests_regex_limited.add(1);
        }
    }
    decision
}

/// The client has gone while it waited for its turn.
fn left(work: &mut Work, counters: &ListenerCounters) -> Disposition {
    counters.responses[ResponseClass::Other as usize].add(1);
    if let Some(record) = work.log.record() {
        record.left();
    }
    Disposition::Close
}

/// How often members may refuse a request before they have processed it (HAProxy `retries`).
const MOST_REFUSALS: u8 = 3;

/// The body of a request on its way, to a member that is spoken to over a `stream` of HTTP/2 or not.
#[inline]
fn upload(request: &Request, from_stream: bool, stream: bool) -> BodyRelay {
    let hops = Hops::between(from_stream, stream);
    let upload = BodyRelay::new(request.framing.body, Transfer::AsIs, hops);
    if stream { upload.keep() } else { upload }
}

fn flow(client: SocketAddr) -> Flow {
    Flow { source: client.ip(), source_port: client.port() }
}

/// The client's own connection to the member that it is tied to.
#[inline]
fn take_own(route: &Route<'_>, downstream: &mut Downstream<'_>) -> Option<Connected> {
    let member = route.persistent.or(route.again)?;
    downstream.own(|own| route.take_own(member, own))
}

/// Gets a connection to a member; `None` when the client gives up meanwhile.
async fn connect(
    route: &Route<'_>,
    downstream: &mut Downstream<'_>,
    request: &Request,
    reuse: Reuse,
) -> Option<Result<Connected, NoMember>> {
    let chosen = match route.begin(reuse) {
        Ok(Begun::Connected(connected)) => return Some(Ok(connected)),
        Ok(Begun::Chosen(chosen)) => chosen,
        Err(no_member) => return Some(Err(no_member)),
    };
    // In a place of its own: most requests find a connection, and clients that wait are given no room for this.
    let mut opening = Box::pin(route.open(chosen, reuse));
    poll_fn(|cx| {
        if let Poll::Ready(connected) = opening.as_mut().poll(cx) {
            return Poll::Ready(Some(connected));
        }
        // A body stays where it is until there is somebody to send it to.
        if request.framing.body == Body::None && downstream.poll_gone(cx).is_ready() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

fn answer(work: &mut Work, status: u16, to: Recipient, unread: Waiting, pool: &PoolCounters) -> Carried {
    pool.responses[ResponseClass::of(status) as usize].add(1);
    work.out.clear();
    responses::write_error(&mut work.out, status, to);
    Carried::Reply(LocalReply { status, to, cause: Cause::Unserved, unread })
}

/// Ends a request to which no response has begun. As with HAProxy the client's connection outlives a member's failure.
fn fail(
    work: &mut Work,
    to: Recipient,
    failure: Failure,
    listener: &ListenerCounters,
    pool: &PoolCounters,
) -> Carried {
    if let Some(record) = work.log.record() {
        record.failed(failure);
    }
    let refused = match failure {
        Failure::Unanswered
        | Failure::NotProcessed
        | Failure::CutHead
        | Failure::BadResponse
        | Failure::Unfit(_) => {
            return answer(work, 502, to, Waiting::default(), pool);
        }
        Failure::Drained => return answer(work, 503, to, Waiting::default(), pool),
        Failure::MemberLate => return answer(work, 504, to, Waiting::default(), pool),
        Failure::ClientLate => 408,
        Failure::BadBody => 400,
        Failure::ClientGone | Failure::Cut | Failure::CutLate | Failure::CutBad => {
            listener.responses[ResponseClass::Other as usize].add(1);
            pool.responses[ResponseClass::Other as usize].add(1);
            return Carried::Relayed(Disposition::Close);
        }
    };
    pool.responses[ResponseClass::of(refused) as usize].add(1);
    Carried::Relayed(Disposition::Error(refused))
}
