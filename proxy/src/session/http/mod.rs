//! HTTP/1.1 between a client and members: requests in turn, each under the snapshot that is present when its head is there.
//! It holds that until the pool is known, the pool until the response has begun, and from then on its member alone.
//!
//! A request is *decided* on, without waiting; *carried* to a member, and to another when that fails; and *exchanged* for a
//! response between a [`Downstream`](downstream::Downstream) and an [`Upstream`](upstream::Upstream). One task serves one client. Everything it waits for is waited for in one place at a time:
//!
//! ```text
//! wait_for_request -> read_head -> decide -> carry: Route::begin, open -> Attempt: send, await the response -> Exchange: relay
//!        ^                                   ^                                |                                  |
//!        |                                   +------------ retry -------------+                                  |
//!        +------------- keep-alive ------------------------------------------------------------------------------+--> tunnel (101)
//! ```

mod address;
mod attempt;
mod body;
mod carry;
mod certificate;
mod changes;
pub(super) mod client;
mod counted;
mod decide;
pub(super) mod downstream;
mod exchange;
pub(super) mod http2;
mod limit;
mod log;
mod own;
mod persistence;
pub(super) mod stream;
mod tunnel;
mod upstream;

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use tokio::time::Instant;

pub(super) use self::own::OwnConnections;
use self::{
    carry::Disposition,
    client::{Begin, Client, HeadError},
    counted::count_drop,
    tunnel::Tunnel,
};
use crate::{
    conn::Conn,
    http::Reject,
    http1::responses::{self, Recipient},
    local::{Borrowed, Charging, LocalListener, Worker},
    logs::Draft,
    session::{self, log::Logged},
    state::ResponseClass,
};

/// Serves a client until its connection ends; `held` is dropped then.
pub(crate) fn serve<H: 'static>(
    worker: Rc<Worker>,
    listener: Rc<LocalListener>,
    stream: Conn,
    address: SocketAddr,
    held: H,
) -> impl Future<Output = ()> {
    let mut client = Client::new(stream, address, &worker.pools.buffers, &listener);
    // A block, which uses what it takes along where that is. The arguments of an asynchronous function are in its future once
    // more, beside the variables that they become.
    async move {
        loop {
            // A client that waits holds no configuration.
            let patience = listener.timeouts().client_data;
            match client.wait_for_request(&listener, patience).await {
                Begin::Bytes => {}
                // A client that never sent a byte is told why it is let go; one between requests is not, since it
                // might take the response for that to its next request.
                // One that leaves without a byte has begun a request and not ended it, as HAProxy counts.
                ended @ (Begin::Late | Begin::Gone) if client.requests == 0 => {
                    listener.state().counters.of(worker.index).requests.add(1);
                    let status = if matches!(ended, Begin::Late) { 408 } else { 400 };
                    // Few clients come for this, so that none is given room for it beforehand.
                    Box::pin(let_go(&worker, &listener, &mut client, status)).await;
                    break;
                }
                Begin::Late | Begin::Gone | Begin::Unwanted => break,
            }
            // Each may take its time, and more than one may be served before the event loop turns.
            worker.pulse.turn();
            let mut work = worker.scratch.get();
            begin_log(&mut work.log, &worker, &listener, &client);
            if let Some(record) = work.log.record() {
                record.marks.first_byte = Some(Instant::now());
            }
            let head = client.read_head(&mut work.request, listener.timeouts().client_data).await;
            let counters = listener.state().counters.of(worker.index);
            let disposition = match head {
                Ok(length) => {
                    counters.requests.add(1);
                    counters.bytes_in.add(length as u64);
                    carry::serve(&worker, &listener, &mut client, &mut work, length).await
                }
                Err(late_or_gone @ (HeadError::Gone | HeadError::Late)) => {
                    counters.requests.add(1);
                    let status = if matches!(late_or_gone, HeadError::Late) { 408 } else { 400 };
                    if let Some(record) = work.log.record() {
                        record.unrequested(status);
                    }
                    Disposition::Error(status)
                }
                Err(HeadError::Reject(Reject::VersionNotSupported)) if client.speaks_http2() => {
                    drop(work);
                    // Many clients never do.
                    Box::pin(http2::serve(worker, listener, client, held)).await;
                    return;
                }
                Err(HeadError::Reject(reject)) => {
                    tracing::debug!(%address, %reject, "request refused");
                    counters.requests.add(1);
                    let (come, now) = (client.inlet.filled().len(), Instant::now());
                    match limit::refused(&worker, &listener, address.ip(), &mut work.charge, come, now) {
                        Some(farewell) => {
                            count_drop(counters);
                            if let Some(record) = work.log.record() {
                                record.dropped();
                            }
                            Disposition::Dropped(farewell)
                        }
                        None => Disposition::Error(reject.status()),
                    }
                }
            };
            let linger = match disposition {
                Disposition::KeepAlive => {
                    session::log::end(&mut work.log, &worker, &listener);
                    continue;
                }
                Disposition::Close => false,
                Disposition::LingeringClose => true,
                Disposition::Dropped(farewell) => {
                    client.drop_off(farewell);
                    false
                }
                // These are few, so that none is given room for it beforehand.
                Disposition::Error(status) => {
                    let told = Box::pin(refuse(&worker, &listener, &mut client, &mut work.log, status)).await;
                    limit::charge(work.charge.as_ref(), &worker, told);
                    told > 0
                }
                Disposition::Tunnel(tunnel) => {
                    Box::pin(run_tunnel(&worker, listener, &mut client, work, tunnel)).await;
                    break;
                }
            };
            session::log::end(&mut work.log, &worker, &listener);
            drop(work);
            if linger {
                client.linger(listener.timeouts().client_data).await;
            }
            break;
        }
        drop(held);
    }
}

/// Serves a client that has agreed on HTTP/2 in its handshake.
pub(crate) async fn serve_http2<H: 'static>(
    worker: Rc<Worker>,
    listener: Rc<LocalListener>,
    stream: Conn,
    address: SocketAddr,
    held: H,
) {
    let client = Client::new(stream, address, &worker.pools.buffers, &listener);
    http2::serve(worker, listener, client, held).await;
}

/// Relays what has left HTTP until it ends, and holds no configuration meanwhile.
async fn run_tunnel(
    worker: &Worker,
    listener: Rc<LocalListener>,
    client: &mut Client,
    mut work: Borrowed,
    mut tunnel: Box<Tunnel>,
) {
    let mut log = Logged::taken(&mut work.log);
    let request = work.charge.take().map(Rc::unwrap_or_clone);
    tunnel.charging = Some(Charging::new(worker, &listener, client.address.ip(), request));
    drop(work);
    let state = Arc::clone(listener.state());
    drop(listener);
    let end = tunnel.run(worker, &state, client).await;
    drop(tunnel);
    if let Some(log) = &mut log {
        log.record.relayed(&end);
        log.write(worker, &state);
    }
}

/// A request, or the wait for one, begins.
fn begin_log(draft: &mut Draft, worker: &Worker, listener: &LocalListener, client: &Client) {
    session::log::begin(
        draft,
        worker,
        listener,
        || client.stream.local_addr().ok(),
        client.address,
        client.active,
        client.stream.facts(),
    );
}

/// Tells a client that has asked for nothing, and closes its connection.
async fn let_go(worker: &Worker, listener: &LocalListener, client: &mut Client, status: u16) {
    let mut draft = Draft::default();
    begin_log(&mut draft, worker, listener, client);
    if let Some(record) = draft.record() {
        record.unrequested(status);
    }
    let told = refuse(worker, listener, client, &mut draft, status).await;
    session::log::end(&mut draft, worker, listener);
    if told > 0 {
        client.linger(listener.timeouts().client_data).await;
    }
}

/// Answers what could not be understood or did not come in time, before the connection is closed; how many bytes the client was told.
async fn refuse(
    worker: &Worker,
    listener: &LocalListener,
    client: &mut Client,
    log: &mut Draft,
    status: u16,
) -> usize {
    let counters = listener.state().counters.of(worker.index);
    counters.request_errors.add(1);
    counters.responses[ResponseClass::of(status) as usize].add(1);
    let mut response = Vec::new();
    responses::write_error(&mut response, status, Recipient::UNKNOWN);
    let told = client.write_all(&response, listener.timeouts().client_data).await;
    let told = told.map_or(0, |()| response.len());
    counters.bytes_out.add(told as u64);
    if let Some(record) = log.record() {
        record.refused(status, &response);
    }
    told
}
