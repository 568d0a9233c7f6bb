//! One request: what the policies make of it, the member that serves it, and what becomes of the connections.

use std::{
    future::{Future, poll_fn},
    mem,
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use tokio::{net::TcpStream, time::Instant};

use super::{
    address::AddressText,
    client::Client,
    exchange::{Exchange, Failure, MemberSide, Progress},
    persistence::Affinity,
    pump::Pump,
    tunnel::Tunnel,
};
use crate::{
    balance::Flow,
    http1::{
        self, Body, Connection, Method, RequestEdits, RequestFraming, RequestView, ResponseEdits,
        ResponseFraming, Transfer, Version,
        responses::{self, Recipient},
    },
    l7::Outcome,
    local::{LocalListener, Trust, Work, Worker},
    model::ListenerTimeouts,
    net,
    persist::{Persistence, server_cookie},
    session::{
        inlet::Inlet,
        member::{self, Connected, NoMember, Reuse, Route},
    },
    snapshot::{ListenerPlan, PoolPlan},
    state::{ListenerCounters, MemberCounters, ResponseClass},
};

/// A request that cannot be repeated may still use a connection that was idle for no longer than this: a member
/// that keeps connections at all keeps them for longer.
const FRESH: Duration = Duration::from_millis(500);

/// Interim responses to one request. A member that sends more has lost its way.
const MOST_INTERIM: usize = 32;

/// The beginning of a response's body that is not longer is copied behind the head: one send(2) of both is cheaper than
/// a writev(2).
const SMALL_BODY: usize = 1024;

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

/// What is kept of a request once its head has been rewritten.
struct Asked {
    method: Method,
    version: Version,
    framing: RequestFraming,
    /// It carries credentials that a member may bind to the connection.
    identity: bool,
}

impl Asked {
    /// Before anything of the body was read: only without one does the next request follow.
    fn recipient(&self, closing: bool) -> Recipient {
        self.recipient_after(self.framing.body == Body::None, closing)
    }

    fn recipient_after(&self, all_read: bool, closing: bool) -> Recipient {
        let keep_alive = self.framing.keep_alive && all_read && !closing;
        Recipient { version: self.version, method: self.method, keep_alive }
    }

    /// Whom the member's connection may serve next; `None` when nobody.
    fn trust(&self, answer: &Answer, client: SocketAddr) -> Option<Trust> {
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

/// Serves the request whose head is the first `length` bytes of the client's inlet.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    listener: &LocalListener,
    client: &mut Client,
    work: &mut Work,
    length: usize,
) -> After {
    let begun = Instant::now();
    client.active = begun;
    let counters = listener.state().counters.of(worker.index);
    let view = work.request.view(client.inlet.filled());
    let framing = match http1::request_framing(&view) {
        Ok(framing) => framing,
        Err(reject) => {
            tracing::debug!(%reject, "request refused");
            return After::Refuse(reject.status());
        }
    };
    let identity = view.binds_identity();
    let asked = Asked { method: view.method(), version: view.version(), framing, identity };
    let to = asked.recipient(listener.is_closing());
    work.out.clear();
    // The request runs under the configuration of now, not of when the client went idle; and does not hold it for
    // longer than it takes to know the pool.
    let present = listener.present();
    let plan = present.plan();
    let timeouts = plan.timeouts;
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
            return answer(client, &work.out, length, 403, to, timeouts, counters).await;
        }
        Outcome::Redirect { code, location } => {
            counters.requests_intercepted.add(1);
            let location = location.pieces(view.path_and_query().unwrap_or_default());
            responses::write_redirect(&mut work.out, code.code(), location, to);
            return answer(client, &work.out, length, code.code(), to, timeouts, counters).await;
        }
    };
    let Some(pool) = pool else {
        responses::write_error(&mut work.out, 503, to);
        return answer(client, &work.out, length, 503, to, timeouts, counters).await;
    };

    let local_pool = present.pool(pool);
    let pool_plan = &*local_pool.plan;
    pool_plan.state.counters.of(worker.index).sessions_total.add(1);
    let now = worker.seconds(begun);
    let affinity = Affinity::find(pool_plan, &view, client.address.ip(), now);
    rewrite(&mut work.out, &view, &asked, plan, pool_plan, client.address.ip(), &mut client.address_text);
    client.inlet.consume(length);
    drop(present);
    let mut route = Route {
        pool: &local_pool,
        timeout: timeouts.member_connect,
        flow: Flow { source: client.address.ip(), source_port: client.address.port() },
        persistent: affinity.member(),
        again: client.own.member_of(&local_pool),
        avoid: None,
        now,
        worker: worker.index,
    };
    let tied = route.persistent.or(route.again);
    let mut own = tied.and_then(|member| Some((member, client.own.take(&local_pool.members[member])?)));
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
    let mut failed: Option<usize> = None;
    let mut side;
    let (mut exchange, mut answer, is_own, chosen, times) = loop {
        let is_own = own.is_some();
        let found = connect(&route, own.take(), client, &asked, reuse).await;
        let Connected { slot, member: chosen, stream, opened } = match found {
            Some(Ok(connected)) => connected,
            Some(Err(NoMember)) => {
                let to = asked.recipient(listener.is_closing());
                work.out.clear();
                responses::write_error(&mut work.out, 503, to);
                return answer(client, &work.out, 0, 503, to, timeouts, counters).await;
            }
            None => {
                counters.request_errors.add(1);
                return After::Close;
            }
        };
        if let Some(failed) = failed.take() {
            member::count_again(&local_pool.members[failed], &local_pool.members[chosen]);
        }
        side = MemberSide { stream, inlet: Inlet::new(&worker.pools.buffers), slot };
        if let Some(version) = pool_plan.proxy_protocol
            && !is_own
            && member::announce(&mut side.stream, version, client.address, &client.stream).await.is_err()
        {
            side.slot.member().counters().response_errors.add(1);
            let to = asked.recipient(listener.is_closing());
            return fail(client, work, to, Failure::Unanswered, timeouts, counters).await;
        }
        affinity.remember(pool_plan, chosen, client.address.ip(), now);
        let mut exchange = Exchange {
            pools: &worker.pools,
            upload: Pump::new(asked.framing.body, Transfer::WithoutTrailers),
            timeouts,
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
            Ok(answer) => break (exchange, answer, is_own, chosen, times),
            Err(failure) => failure,
        };
        let all_read = exchange.upload.is_done();
        let at = side.slot.member().counters();
        client.active = Instant::now();
        times.count(at, client.active);
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
                let to = asked.recipient_after(all_read, listener.is_closing());
                return fail(client, work, to, failure, timeouts, counters).await;
            }
        }
    };
    // Nobody else is asked any more. A response may last for days and changes pass it by: it holds its member.
    let shared = pool_plan.proxy_protocol.is_none();
    drop(local_pool);
    let outcome = exchange.relay(&work.out, &mut answer.download, answer.begun).await;
    let (all_read, upload_done) = (exchange.upload.is_done(), exchange.is_sent());
    let at = side.slot.member().counters();
    let ended = outcome.unwrap_or_else(|_| Instant::now());
    client.active = ended;
    times.count(at, ended);
    if let Err(failure) = outcome {
        count_failure(failure, at);
        let to = asked.recipient_after(all_read, listener.is_closing());
        return fail(client, work, to, failure, timeouts, counters).await;
    }
    if answer.switched {
        return After::Tunnel(Box::new(Tunnel::new(side, timeouts)));
    }
    if answer.keep_member && upload_done && side.inlet.is_empty() {
        let MemberSide { stream, slot, .. } = side;
        if is_own || asked.identity || answer.identity {
            client.own.keep(slot.member(), chosen, stream);
        } else if shared && let Some(trust) = asked.trust(&answer, client.address) {
            slot.member().put_idle(stream, ended, trust);
        }
    }
    if !upload_done {
        After::Linger
    } else if answer.keep_client {
        After::Next
    } else {
        net::end(&client.stream);
        After::Close
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

/// Gets a connection to a member, the client's `own` if it has one; `None` when the client gives up meanwhile.
async fn connect(
    route: &Route<'_>,
    own: Option<(usize, TcpStream)>,
    client: &mut Client,
    asked: &Asked,
    reuse: Reuse,
) -> Option<Result<Connected, NoMember>> {
    if let Some((member, stream)) = own {
        return Some(Ok(route.own(member, stream)));
    }
    let mut connected = pin!(route.connect(reuse));
    poll_fn(|cx| {
        if let Poll::Ready(connected) = connected.as_mut().poll(cx) {
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

/// A response that is on its way: what is still to be relayed, and what comes after it.
struct Answer {
    download: Pump,
    begun: Instant,
    keep_member: bool,
    keep_client: bool,
    switched: bool,
    /// The response had begun before all of the request was sent.
    early: bool,
    /// See [`ResponseFraming::body_in_doubt`].
    body_in_doubt: bool,
    /// The member has bound an identity to the connection, or is about to.
    identity: bool,
}

/// A request at one member.
struct Turn<'a> {
    listener: &'a LocalListener,
    pool: &'a PoolPlan,
    member: usize,
    asked: &'a Asked,
    affinity: &'a Affinity,
    now: u32,
    /// When the request was ready to be sent.
    ready_at: Instant,
    /// How long the head of the response took, once it is there; µs.
    response_us: Option<u64>,
}

impl Turn<'_> {
    /// Sends the request and waits for the response. Its head, as the client is to get it, is in [`Work::out`] then.
    async fn run(&mut self, exchange: &mut Exchange<'_>, work: &mut Work) -> Result<Answer, Failure> {
        let at = Rc::clone(exchange.member.slot.member());
        let counters = at.counters();
        counters.requests.add(1);
        let mut sent = 0;
        let mut progress = Progress::new(self.ready_at);
        let mut interim = 0;
        let mut continued = false;
        loop {
            let head = exchange.response_head(&work.out, &mut sent, &mut work.response, &mut progress).await;
            let length = head.map_err(|failure| match failure {
                // The member has begun to answer.
                Failure::Unanswered if interim > 0 => Failure::BadResponse,
                failure => failure,
            })?;
            let view = work.response.view(exchange.member.inlet.filled());
            let upgrade = self.asked.framing.upgrade;
            let framing = http1::response_framing(self.asked.method, upgrade, &view).map_err(|reason| {
                tracing::debug!(%reason, "bad response");
                Failure::BadResponse
            })?;
            let status = view.status();
            if framing.interim {
                interim += 1;
                if interim > MOST_INTERIM {
                    tracing::debug!("too many interim responses");
                    return Err(Failure::BadResponse);
                }
                // HTTP/1.0 has no interim responses.
                let wanted = self.asked.version == Version::Http11;
                let mut passed_on = Vec::new();
                if wanted {
                    let edits = ResponseEdits { client: self.asked.version, ..ResponseEdits::default() };
                    http1::write_response(&mut passed_on, &view, &edits);
                }
                exchange.member.inlet.consume(length);
                let patience = exchange.timeouts.client_data;
                exchange.client.write_all(&passed_on, patience).await.map_err(|_| Failure::ClientGone)?;
                exchange.counters.bytes_out.add(passed_on.len() as u64);
                // It is the client's turn, once.
                if status == 100 && self.asked.framing.expect_continue && !mem::replace(&mut continued, true)
                {
                    progress.made();
                }
                continue;
            }
            let answered_at = Instant::now();
            let took = answered_at.duration_since(self.ready_at).as_micros() as u64;
            self.response_us = Some(took);
            counters.response_time_us.add(took);
            counters.responses[ResponseClass::of(status) as usize].add(1);
            exchange.counters.responses[ResponseClass::of(status) as usize].add(1);
            if sent < work.out.len() {
                // The member answered before it had read the head.
                exchange.upload_broken = true;
            }
            let early = !exchange.is_sent();
            let identity = view.binds_identity();
            self.affinity.learn(self.pool, self.member, &view, self.now);
            let plan = self.framing(&framing, exchange);
            exchange.body_declined =
                self.asked.framing.expect_continue && !continued && plan.connection == Connection::Close;
            exchange.closes = plan.connection == Connection::Close;
            let safe = matches!(self.asked.method, Method::Get | Method::Head);
            let edits = ResponseEdits {
                client: self.asked.version,
                connection: plan.connection,
                transfer: plan.transfer,
                tunnel: framing.switching,
                ..ResponseEdits::default()
            };
            work.out.clear();
            http1::write_response(
                &mut work.out,
                &view,
                &self.affinity.edit(self.pool, self.member, &view, safe, edits),
            );
            exchange.member.inlet.consume(length);
            let mut download = Pump::new(framing.body, plan.transfer);
            let begun = download.claim(&mut exchange.member.inlet).map_err(|_| Failure::BadResponse)?;
            if begun.len() <= SMALL_BODY {
                let n = begun.len();
                work.out.extend_from_slice(begun);
                download.wrote(&mut exchange.member.inlet, n);
            }
            return Ok(Answer {
                download,
                begun: answered_at,
                keep_member: framing.keep_alive,
                keep_client: plan.connection == Connection::Persistent,
                switched: framing.switching,
                early,
                body_in_doubt: framing.body_in_doubt,
                identity,
            });
        }
    }

    /// How the response goes on to the client.
    fn framing(&self, framing: &ResponseFraming, exchange: &Exchange<'_>) -> Onward {
        let transfer = match (framing.body, self.asked.version) {
            (Body::Chunked, Version::Http10) => Transfer::UntilClose,
            (Body::UntilClose, Version::Http11) => Transfer::Chunked,
            _ => Transfer::AsIs,
        };
        let ends_by_closing = transfer == Transfer::UntilClose
            || (framing.body == Body::UntilClose && transfer == Transfer::AsIs);
        let connection = if framing.switching {
            Connection::Upgrade
        } else if self.asked.framing.keep_alive
            && !ends_by_closing
            // A member that means to close is not likely to read what is left of the request.
            && (exchange.is_sent() || framing.keep_alive && !exchange.upload_broken)
            && !self.listener.is_closing()
        {
            Connection::Persistent
        } else {
            Connection::Close
        };
        Onward { transfer, connection }
    }
}

struct Onward {
    transfer: Transfer,
    connection: Connection,
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
    let edits = RequestEdits {
        connection: if asked.framing.upgrade { Connection::Upgrade } else { Connection::Persistent },
        forwarded_for,
        forwarded_port: insert.x_forwarded_port.then_some(plan.port_text.as_bytes()),
        forwarded_proto: insert.x_forwarded_proto.then_some(b"http".as_slice()),
        strip_cookie: own_cookie(pool),
        drop_expect: asked.framing.body == Body::None,
    };
    http1::write_request(out, view, &edits);
}

/// The cookie that is the proxy's own, which members do not get to see.
fn own_cookie(pool: &PoolPlan) -> Option<&'static [u8]> {
    matches!(pool.persistence, Some(Persistence::ServerCookie(_))).then_some(server_cookie::NAME)
}

/// Sends an answer of the proxy's own. `consume` bytes of the inlet are the request's head.
async fn answer(
    client: &mut Client,
    response: &[u8],
    consume: usize,
    status: u16,
    to: Recipient,
    timeouts: ListenerTimeouts,
    counters: &ListenerCounters,
) -> After {
    client.inlet.consume(consume);
    counters.responses[ResponseClass::of(status) as usize].add(1);
    if client.write_all(response, timeouts.client_data).await.is_err() {
        return After::Close;
    }
    counters.bytes_out.add(response.len() as u64);
    if to.keep_alive { After::Next } else { After::Linger }
}

/// Ends a request that could not be served. As with HAProxy the client's connection outlives a member's failure.
async fn fail(
    client: &mut Client,
    work: &mut Work,
    to: Recipient,
    failure: Failure,
    timeouts: ListenerTimeouts,
    counters: &ListenerCounters,
) -> After {
    let status = match failure {
        Failure::Unanswered | Failure::BadResponse => 502,
        Failure::MemberLate => 504,
        Failure::ClientLate => return After::Refuse(408),
        Failure::BadBody => return After::Refuse(400),
        Failure::ClientGone => {
            counters.request_errors.add(1);
            return After::Close;
        }
        Failure::Cut => return After::Close,
    };
    work.out.clear();
    responses::write_error(&mut work.out, status, to);
    answer(client, &work.out, 0, status, to, timeouts, counters).await
}

fn count_failure(failure: Failure, at: &MemberCounters) {
    match failure {
        Failure::Unanswered | Failure::BadResponse | Failure::MemberLate => at.response_errors.add(1),
        Failure::Cut => {
            at.response_errors.add(1);
            at.server_aborts.add(1);
        }
        Failure::ClientGone | Failure::ClientLate | Failure::BadBody => at.client_aborts.add(1),
    }
}
