//! A client's connection of HTTP/2: many exchanges at once, each on a task of its own that does what HTTP/1.1 does.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use amphora_model::ListenerProtocol;
use h2::Reason;
use tokio::{task::spawn_local, time::Instant};

use super::{
    carry::{Carried, Disposition},
    client::Client,
    counted::{count_drop, count_reply},
    decide::{Decision, Origin, decide},
    downstream::Downstream,
    limit,
    own::OwnConnections,
    stream::{ClientStream, ClientStreams},
    tunnel::Tunnel,
};
use crate::{
    conn::{Conn, Deadline},
    http::Reject,
    http1::responses::{self, Recipient},
    http2::{
        Counted, Ended, Incoming, Limits, Patience, ServerConnection,
        head::{self, RequestContext},
    },
    limits::rate::Farewell,
    local::{Borrowed, Charging, LocalListener, Work, Worker},
    session::{self, log::Logged, metrics, relay::EndReason},
    state::{ListenerCounters, ResponseClass},
};

/// How long streams may go on when their connection is to end: a download of HTTP/1.1 is not cut either, but its connection
/// holds nothing else.
const DRAIN: Duration = Duration::from_secs(3600);

/// Serves a client that begins to speak HTTP/2, perhaps in what was read already, until its connection ends. What counts the
/// connection lives until all of its streams have ended.
pub(in crate::session) async fn serve<H: 'static>(
    worker: Rc<Worker>,
    listener: Rc<LocalListener>,
    client: Client,
    held: H,
) {
    let Client { stream: conn, mut inlet, address, .. } = client;
    let begun = inlet.take();
    let held = Rc::new(held);
    let client = Rc::new(ClientStreams {
        address,
        local: conn.local_addr().ok(),
        facts: conn.facts().cloned(),
        address_text: RefCell::default(),
        own: RefCell::new(OwnConnections::default()),
        farewell: Cell::default(),
        connection: RefCell::default(),
    });
    let client_data = listener.timeouts().client_data;
    let patience = Patience { idle: client_data, progress: client_data };
    let counters = &listener.state().counters.of(worker.index).http2;
    let mut counted = Counted::default();
    let mut connection =
        ServerConnection::new(conn, begun, &worker.pools.buffers, Limits::default(), patience);
    let mut closing = listener.enlist();
    let since = Instant::now();
    let mut is_first = true;
    let streams = Rc::new(Cell::new(0));
    let scraped = listener.plan().protocol == ListenerProtocol::Prometheus;
    loop {
        let accepted = poll_fn(|cx| {
            closing.ensure(cx);
            if let Some(farewell) = client.farewell(cx) {
                return Poll::Ready(Err(Left::Dropped(farewell)));
            }
            if listener.is_closing(address) && !connection.is_draining() {
                connection.drain(DRAIN, !listener.bars(address));
            }
            client.own.borrow_mut().poll_closed(cx);
            let polled = connection.poll_accept(cx);
            counters.observe(&connection, &mut counted);
            polled.map_err(Left::Ended)
        })
        .await;
        let mut incoming = match accepted {
            Ok(incoming) => incoming,
            Err(Left::Dropped(farewell)) => {
                tracing::debug!(%address, ?farewell, "connection dropped");
                match farewell {
                    Farewell::Reset => connection.with_conn(Conn::reset_on_close),
                    Farewell::Silent => connection.with_conn(Conn::vanish_on_close),
                }
                break;
            }
            Err(Left::Ended(ended)) => {
                tracing::debug!(%address, ?ended, "connection ended");
                if let Ended::Refused(_) = ended {
                    log_refused(&worker, &listener, &client, since);
                }
                break;
            }
        };
        worker.pulse.turn();
        if !connection.takes_streams() {
            incoming.respond.reset(Reason::REFUSED_STREAM);
            continue;
        }
        let Some(place) = Place::take(&worker, &streams) else {
            tracing::debug!(%address, "no room for a stream");
            incoming.respond.reset(Reason::REFUSED_STREAM);
            continue;
        };
        let held = (place, Rc::clone(&held));
        if scraped {
            let (worker, listener, client) = (Rc::clone(&worker), Rc::clone(&listener), Rc::clone(&client));
            spawn_local(metrics::serve_stream(worker, listener, client, incoming, held));
            continue;
        }
        let is_first = std::mem::take(&mut is_first);
        worker.runners.run(|deadline| {
            let (worker, listener, client) = (Rc::clone(&worker), Rc::clone(&listener), Rc::clone(&client));
            serve_stream(worker, listener, client, incoming, is_first, deadline, held)
        });
    }
}

/// Why a connection is not served on.
enum Left {
    /// It has ended.
    Ended(Ended),
    /// Too much has come of its client.
    Dropped(Farewell),
}

/// A connection ends because of what its client has done, which is no request: a line says so, as HAProxy's does.
fn log_refused(worker: &Worker, listener: &LocalListener, client: &ClientStreams, since: Instant) {
    let mut work = worker.scratch.get();
    let ClientStreams { address, local, facts, .. } = client;
    session::log::begin(&mut work.log, worker, listener, || *local, *address, since, facts.as_ref());
    if let Some(record) = work.log.record() {
        record.refused(0, b"");
    }
    session::log::end(&mut work.log, worker, listener);
}

/// A stream's place. That of its connection is for the first; each beside it may take a connection to a member of its own, and so takes
/// the place of a client.
struct Place {
    streams: Rc<Cell<usize>>,
    /// Whose place of a client it takes.
    beside: Option<Rc<Worker>>,
}

impl Place {
    fn take(worker: &Rc<Worker>, streams: &Rc<Cell<usize>>) -> Option<Self> {
        let beside = streams.get() > 0;
        if beside && !worker.clients.places.take(Some(worker.clients.limit)) {
            return None;
        }
        streams.set(streams.get() + 1);
        Some(Self { streams: Rc::clone(streams), beside: beside.then(|| Rc::clone(worker)) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.streams.set(self.streams.get() - 1);
        if let Some(worker) = &self.beside {
            worker.clients.places.give_back();
        }
    }
}

/// Serves one request. Gives the deadline back.
async fn serve_stream<H>(
    worker: Rc<Worker>,
    listener: Rc<LocalListener>,
    client: Rc<ClientStreams>,
    incoming: Incoming,
    is_first: bool,
    deadline: Deadline,
    held: H,
) -> Deadline {
    let Incoming { head: fields, came: begun, body, respond, mut charge } = incoming;
    let counters = listener.state().counters.of(worker.index);
    counters.requests.add(1);
    let ended = body.is_empty();
    let mut work = worker.scratch.get();
    let mut stream = ClientStream::new(client, body, respond, deadline, is_first);
    session::log::begin(
        &mut work.log,
        &worker,
        &listener,
        || stream.client.local,
        stream.client.address,
        begun,
        stream.client.facts.as_ref(),
    );
    let key = stream.websocket_key(&fields);
    let mut malformed = None;
    let mut decision = {
        let Work { request: table, text, out, l7, log, charge, .. } = &mut *work;
        let filled = match &key {
            Some(websocket_key) => {
                let context = RequestContext { websocket_key, ended };
                head::read_request(&fields, context, table, text)
            }
            None => Err(Reject::NotImplemented("no random bytes")),
        };
        match filled {
            Ok(length) => {
                counters.bytes_in.add(length as u64);
                let view = table.view(text);
                if let Some(record) = log.record() {
                    record.marks.first_byte = Some(begun);
                    record.requested(&view, begun);
                }
                let ClientStreams { address, address_text, facts, .. } = &*stream.client;
                let text = &mut address_text.borrow_mut();
                let origin = Origin {
                    address: *address,
                    text,
                    facts: facts.as_deref(),
                    behind: &[],
                    length,
                    charge,
                    had_turn: false,
                    record: log.record(),
                };
                let decision = decide(&worker, &listener, origin, &view, begun, l7, out);
                if let (Decision::Forward(forward), Some(record)) = (&decision, log.record()) {
                    record.led_by_cookie(&view, &forward.pool.plan, forward.affinity.member());
                }
                decision
            }
            Err(reject) => {
                tracing::debug!(address = %stream.client.address, %reject, "request refused");
                malformed = head::refusal(reject).err();
                let address = stream.client.address.ip();
                let farewell = limit::refused(&worker, &listener, address, charge, fields.came(), begun);
                farewell.map_or(Decision::Refuse(reject.status()), Decision::Drop)
            }
        }
    };
    // It is in the text now, which is kept for as long as it may have to be sent once more.
    drop(fields);
    charge.shrink(head::kept(&work.request, &work.text));
    if let Decision::Queue(queued) = decision {
        // Few wait, and the others are given no room for it.
        let Some(at) = Box::pin(limit::turn(&worker, queued, &mut Downstream::Http2(&mut stream))).await
        else {
            counters.responses[ResponseClass::Other as usize].add(1);
            if let Some(record) = work.log.record() {
                record.left();
            }
            session::log::end(&mut work.log, &worker, &listener);
            drop((work, charge));
            cut(&mut stream).await;
            drop(held);
            return stream.deadline;
        };
        let Work { request: table, text, out, l7, log, charge, .. } = &mut *work;
        let view = table.view(text);
        let ClientStreams { address, address_text, facts, .. } = &*stream.client;
        let text = &mut address_text.borrow_mut();
        let origin = Origin {
            address: *address,
            text,
            facts: facts.as_deref(),
            behind: &[],
            length: 0,
            charge,
            had_turn: true,
            record: log.record(),
        };
        decision = decide(&worker, &listener, origin, &view, at, l7, out);
        if let (Decision::Forward(forward), Some(record)) = (&decision, log.record()) {
            record.led_by_cookie(&view, &forward.pool.plan, forward.affinity.member());
        }
    }
    if !matches!(decision, Decision::Refuse(_)) && work.l7.is_exceeded() {
        counters.requests_regex_limited.add(1);
    }
    let carried = match decision {
        Decision::Forward(forward) => {
            forward.carry(&worker, &listener, &mut Downstream::Http2(&mut stream), &mut work).await
        }
        Decision::Reply(reply) => Carried::Reply(reply),
        Decision::Refuse(status) => Carried::Relayed(Disposition::Error(status)),
        Decision::Drop(farewell) => {
            count_drop(counters);
            if let Some(record) = work.log.record() {
                record.dropped();
            }
            Carried::Relayed(Disposition::Dropped(farewell))
        }
        // It was waited for.
        Decision::Queue(_) => Carried::Relayed(Disposition::Close),
    };
    let patience = listener.timeouts().client_data;
    let complete = match carried {
        Carried::Reply(reply) => {
            count_reply(&reply, counters);
            {
                let Work { log, out, .. } = &mut *work;
                if let Some(record) = log.record() {
                    record.replied(&reply, out);
                }
            }
            reply_with(&mut stream, &mut work, patience, counters, &worker).await
        }
        Carried::Relayed(Disposition::Error(status)) => {
            counters.request_errors.add(1);
            counters.responses[ResponseClass::of(status) as usize].add(1);
            work.out.clear();
            responses::write_error(&mut work.out, status, Recipient::UNKNOWN);
            {
                let Work { log, out, .. } = &mut *work;
                if let Some(record) = log.record() {
                    // Whom no answer is sent to has none in HAProxy's lines.
                    record.refused(if malformed.is_some() { 0 } else { status }, out);
                }
            }
            match malformed {
                Some(reason) => {
                    stream.reset(reason);
                    true
                }
                None => reply_with(&mut stream, &mut work, patience, counters, &worker).await,
            }
        }
        Carried::Relayed(Disposition::Tunnel(tunnel)) => {
            drop(charge);
            return run_tunnel(&worker, listener, stream, work, tunnel, held).await;
        }
        Carried::Relayed(Disposition::KeepAlive | Disposition::LingeringClose) => true,
        Carried::Relayed(Disposition::Close) => false,
        Carried::Relayed(Disposition::Dropped(farewell)) => {
            stream.client.drop_off(farewell);
            true
        }
    };
    session::log::end(&mut work.log, &worker, &listener);
    drop((work, charge));
    if !complete {
        cut(&mut stream).await;
    }
    drop(held);
    stream.deadline
}

/// Ends a stream so that what was sent is not taken for the whole. That goes before: a reset takes back what waits for the
/// connection's task, which has been woken by it.
pub(in crate::session) async fn cut(stream: &mut ClientStream) {
    tokio::task::yield_now().await;
    stream.reset(Reason::CANCEL);
}

/// Relays what has left HTTP until it ends, and holds no configuration meanwhile.
async fn run_tunnel<H>(
    worker: &Worker,
    listener: Rc<LocalListener>,
    mut stream: ClientStream,
    mut work: Borrowed,
    mut tunnel: Box<Tunnel>,
    held: H,
) -> Deadline {
    let mut log = Logged::taken(&mut work.log);
    let request = work.charge.take().map(Rc::unwrap_or_clone);
    tunnel.charging = Some(Charging::new(worker, &listener, stream.client.address.ip(), request));
    drop(work);
    let state = Arc::clone(listener.state());
    drop(listener);
    let end = tunnel.run_stream(worker, &state, &mut stream).await;
    if let Some(log) = &mut log {
        log.record.relayed(&end);
        log.write(worker, &state);
    }
    if let EndReason::Limited(farewell) = end.reason {
        stream.client.drop_off(farewell);
    } else if !matches!(end.reason, EndReason::Finished) {
        cut(&mut stream).await;
    }
    drop(held);
    stream.deadline
}

/// Sends an answer of the proxy's own, which is in [`Work::out`]; false when the client does not get it.
async fn reply_with(
    stream: &mut ClientStream,
    work: &mut Work,
    patience: Duration,
    counters: &ListenerCounters,
    worker: &Worker,
) -> bool {
    let sent = stream.reply(&work.out, patience).await.is_ok();
    if sent {
        counters.bytes_out.add(work.out.len() as u64);
        limit::charge(work.charge.as_ref(), worker, work.out.len());
    }
    sent
}
