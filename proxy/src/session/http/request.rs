//! One request: the member that serves it, again when that fails, and what becomes of the connections.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    task::Poll,
    time::Duration,
};

use tokio::time::Instant;

pub(super) use super::turn::Answer;
use super::{
    client::Client,
    decide::{Asked, Decision, Forward, decide},
    exchange::{Exchange, Failure, MemberSide},
    pump::Pump,
    tunnel::Tunnel,
    turn::Turn,
};
use crate::{
    balance::Flow,
    conn::Inlet,
    http1::{
        Body, Transfer,
        responses::{self, Recipient},
    },
    local::{LocalListener, Work, Worker},
    session::member::{self, Begun, Connected, NoMember, Reuse, Route},
    state::{ListenerCounters, MemberCounters, PoolCounters, ResponseClass},
};

/// A request that cannot be repeated may still use a connection that was idle for no longer than this: a member
/// that keeps connections at all keeps them for longer.
const FRESH: Duration = Duration::from_millis(500);

/// What becomes of the client's connection.
pub(super) enum After {
    /// It waits for the next request.
    Next,
    /// It is closed.
    Close,
    /// It is closed after what the client still sends was read.
    Linger,
    /// The request is answered with this error and the connection closed.
    Refuse(u16),
    /// It has become a tunnel.
    Tunnel(Box<Tunnel>),
}

/// How the service of a request ends.
enum Ending {
    After(After),
    /// With an answer of the proxy's own, which is in [`Work::out`].
    Answer {
        status: u16,
        to: Recipient,
    },
}

/// Serves the request whose head is the first `length` bytes of the client's inlet.
pub(super) async fn serve(
    worker: &Worker,
    listener: &LocalListener,
    client: &mut Client,
    work: &mut Work,
    length: usize,
) -> After {
    let counters = listener.state().counters.of(worker.index);
    let (decision, patience) = decide(worker, listener, counters, client, work, length);
    let (status, to) = match decision {
        Decision::Forward(forward) => match forward.carry(worker, listener, client, work).await {
            Ending::After(after) => return after,
            Ending::Answer { status, to } => (status, to),
        },
        Decision::Answer { status, to } => (status, to),
        Decision::Refuse(status) => return After::Refuse(status),
    };
    counters.responses[ResponseClass::of(status) as usize].add(1);
    if client.write_all(&work.out, patience).await.is_err() {
        return After::Close;
    }
    counters.bytes_out.add(work.out.len() as u64);
    if to.keep_alive { After::Next } else { After::Linger }
}

impl Forward {
    /// Gets the request answered by a member of its pool.
    fn carry(
        self,
        worker: &Worker,
        listener: &LocalListener,
        client: &mut Client,
        work: &mut Work,
    ) -> impl Future<Output = Ending> {
        let Self { asked, pool, timeouts, affinity, begun, now } = self;
        // A block, as in `http::serve`.
        async move {
            let counters = listener.state().counters.of(worker.index);
            let pool_plan = &*pool.plan;
            let pool_counters = pool_plan.state.counters.of(worker.index);
            let mut route = Route {
                pool: &pool,
                timeout: timeouts.member_connect,
                flow: Flow { source: client.address.ip(), source_port: client.address.port() },
                persistent: affinity.member(),
                again: client.own.member_of(&pool),
                avoid: None,
                now,
                worker: worker.index,
                tried: Cell::new(0),
            };
            let tied = route.persistent.or(route.again);
            let own = tied.and_then(|member| Some((member, client.own.take(&pool.members[member])?)));
            let repeatable = asked.framing.body == Body::None && asked.method.is_idempotent();
            let mut reuse = match (pool_plan.proxy_protocol, repeatable) {
                // The header at the start of the connection names one client.
                (Some(_), _) => Reuse::Never,
                (None, true) => Reuse::Any,
                // As HAProxy's `http-reuse safe`: a client's first request cannot have met a closed connection yet, so it does
                // not meet one that another client has left behind.
                (None, false) if client.requests == 1 => Reuse::Never,
                (None, false) => Reuse::Fresh(FRESH),
            };
            let mut is_own = own.is_some();
            let mut begun_with = own.map(|(member, stream)| route.own(member, stream));
            let mut failed: Option<usize> = None;
            let mut side;
            let (mut exchange, mut response, chosen, times) = loop {
                let connected = match begun_with.take() {
                    Some(own) => own,
                    None => match connect(&route, client, &asked, reuse).await {
                        Some(Ok(connected)) => connected,
                        Some(Err(NoMember)) => {
                            return answer(work, 503, asked.recipient(listener.is_closing()), pool_counters);
                        }
                        None => {
                            route.abandoned();
                            return fail(
                                work,
                                asked.recipient(listener.is_closing()),
                                Failure::ClientGone,
                                counters,
                                pool_counters,
                            );
                        }
                    },
                };
                let Connected { slot, member: chosen, stream, opened } = connected;
                if let Some(failed) = failed.take() {
                    member::count_again(&pool.members[failed], &pool.members[chosen]);
                }
                side = MemberSide { stream, inlet: Inlet::new(&worker.pools.buffers), slot };
                if let Some(version) = pool_plan.proxy_protocol
                    && !is_own
                    && member::announce(&mut side.stream, version, client.address, &client.stream)
                        .await
                        .is_err()
                {
                    side.slot.member().counters().response_errors.add(1);
                    let to = asked.recipient(listener.is_closing());
                    return fail(work, to, Failure::Unanswered, counters, pool_counters);
                }
                affinity.remember(pool_plan, chosen, client.address.ip(), now);
                let mut exchange = Exchange {
                    pools: &worker.pools,
                    upload: Pump::new(asked.framing.body, Transfer::WithoutTrailers),
                    timeouts: &timeouts,
                    counters,
                    upload_broken: false,
                    body_declined: false,
                    closes: false,
                    client: &mut *client,
                    member: &mut side,
                };
                let mut turn = Turn {
                    listener,
                    pool: pool_plan,
                    member: chosen,
                    asked: &asked,
                    affinity: &affinity,
                    now,
                    // Taking an idle connection takes no time worth a look at the clock.
                    ready_at: opened.unwrap_or(begun),
                    response_us: None,
                };
                let outcome = turn.run(&mut exchange, work).await;
                let times = Times { begun, ready_at: turn.ready_at, response_us: turn.response_us };
                let failure = match outcome {
                    Ok(answer) => break (exchange, answer, chosen, times),
                    Err(failure) => failure,
                };
                let all_read = exchange.upload.is_done();
                let at = side.slot.member().counters();
                client.active = Instant::now();
                times.count(at, client.active);
                is_own = false;
                match failure {
                    Failure::Unanswered if opened.is_none() && repeatable => {
                        // The member closed an idle connection while the request was on its way to it. Nothing was
                        // answered and the request may be repeated, so it is, on a connection that is surely open.
                        failed = Some(chosen);
                        reuse = Reuse::Never;
                        route.again = Some(chosen);
                    }
                    Failure::Unanswered if repeatable && route.avoid.is_none() => {
                        // The member died under a connection that was made for this request: another gets it, once.
                        failed = Some(chosen);
                        reuse = Reuse::Never;
                        (route.persistent, route.again, route.avoid) = (None, None, Some(chosen));
                    }
                    failure => {
                        count_failure(failure, at);
                        return fail(
                            work,
                            asked.recipient_after(all_read, listener.is_closing()),
                            failure,
                            counters,
                            pool_counters,
                        );
                    }
                }
            };
            // Nobody else is asked any more. A response may last for days and changes pass it by: it holds its member.
            let shared = pool_plan.proxy_protocol.is_none();
            drop(pool);
            let outcome = exchange.relay(&work.out, &mut response.download, response.begun).await;
            let upload_done = exchange.is_sent();
            let at = side.slot.member().counters();
            let ended = outcome.unwrap_or_else(|_| Instant::now());
            client.active = ended;
            times.count(at, ended);
            if let Err(failure) = outcome {
                // What it has come to was counted when the response began.
                count_failure(failure, at);
                return Ending::After(After::Close);
            }
            if response.switched {
                return Ending::After(After::Tunnel(Box::new(Tunnel::new(side, timeouts))));
            }
            if response.keep_member && upload_done && side.inlet.is_empty() {
                let MemberSide { stream, slot, .. } = side;
                if is_own || asked.identity || response.identity {
                    client.own.keep(slot.member(), chosen, stream);
                } else if shared && let Some(trust) = asked.trust(&response, client.address) {
                    slot.member().put_idle(stream, ended, trust);
                }
            }
            Ending::After(if !upload_done {
                After::Linger
            } else if response.keep_client {
                After::Next
            } else {
                client.stream.end();
                After::Close
            })
        }
    }
}

/// What of a turn is counted when it ends.
struct Times {
    begun: Instant,
    ready_at: Instant,
    response_us: Option<u64>,
}

impl Times {
    fn count(&self, at: &MemberCounters, ended: Instant) {
        let total = ended.duration_since(self.begun).as_micros() as u64;
        at.total_time_us.add(total);
        if let Some(response) = self.response_us {
            at.times.add(self.ready_at.duration_since(self.begun).as_micros() as u64, response, total);
        }
    }
}

/// Gets a connection to a member; `None` when the client gives up meanwhile.
async fn connect(
    route: &Route<'_>,
    client: &mut Client,
    asked: &Asked,
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
        if asked.framing.body == Body::None && client.poll_gone(cx).is_ready() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

fn answer(work: &mut Work, status: u16, to: Recipient, pool: &PoolCounters) -> Ending {
    pool.responses[ResponseClass::of(status) as usize].add(1);
    work.out.clear();
    responses::write_error(&mut work.out, status, to);
    Ending::Answer { status, to }
}

/// Ends a request to which no response has begun. As with HAProxy the client's connection outlives a member's failure.
fn fail(
    work: &mut Work,
    to: Recipient,
    failure: Failure,
    listener: &ListenerCounters,
    pool: &PoolCounters,
) -> Ending {
    let refused = match failure {
        Failure::Unanswered | Failure::BadResponse => return answer(work, 502, to, pool),
        Failure::MemberLate => return answer(work, 504, to, pool),
        Failure::ClientLate => 408,
        Failure::BadBody => 400,
        Failure::ClientGone | Failure::Cut | Failure::CutLate | Failure::CutBad => {
            listener.responses[ResponseClass::Other as usize].add(1);
            pool.responses[ResponseClass::Other as usize].add(1);
            return Ending::After(After::Close);
        }
    };
    pool.responses[ResponseClass::of(refused) as usize].add(1);
    Ending::After(After::Refuse(refused))
}

/// Counts what failed at the member that had it last.
fn count_failure(failure: Failure, at: &MemberCounters) {
    match failure {
        Failure::Unanswered | Failure::BadResponse | Failure::MemberLate => at.response_errors.add(1),
        Failure::Cut => {
            at.response_errors.add(1);
            at.server_aborts.add(1);
        }
        Failure::CutLate => at.server_aborts.add(1),
        Failure::CutBad => at.response_errors.add(1),
        Failure::ClientGone | Failure::ClientLate => at.client_aborts.add(1),
        Failure::BadBody => {}
    }
}
