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
pub(super) mod client;
mod decide;
mod downstream;
mod exchange;
mod own;
mod persistence;
mod tunnel;
mod upstream;

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use self::{
    carry::Disposition,
    client::{Begin, Client, HeadError},
};
use crate::{
    conn::Conn,
    http1::responses::{self, Recipient},
    local::{LocalListener, Worker},
    state::ResponseClass,
};

/// Serves a client until its connection ends; `held` is dropped then.
pub(crate) fn serve<H>(
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
                    refuse(&worker, &listener, &mut client, status).await;
                    break;
                }
                Begin::Late | Begin::Gone | Begin::Unwanted => break,
            }
            // Each may take its time, and more than one may be served before the event loop turns.
            worker.pulse.turn();
            let mut work = worker.scratch.get();
            let head = client.read_head(&mut work.request, listener.timeouts().client_data).await;
            let counters = listener.state().counters.of(worker.index);
            let disposition = match head {
                Ok(length) => {
                    counters.requests.add(1);
                    counters.bytes_in.add(length as u64);
                    carry::serve(&worker, &listener, &mut client, &mut work, length).await
                }
                Err(HeadError::Gone) => {
                    counters.requests.add(1);
                    Disposition::Error(400)
                }
                Err(HeadError::Late) => {
                    counters.requests.add(1);
                    Disposition::Error(408)
                }
                Err(HeadError::Reject(reject)) => {
                    tracing::debug!(%address, %reject, "request refused");
                    counters.requests.add(1);
                    Disposition::Error(reject.status())
                }
            };
            drop(work);
            match disposition {
                Disposition::KeepAlive => continue,
                Disposition::Close => {}
                Disposition::LingeringClose => client.linger().await,
                Disposition::Error(status) => refuse(&worker, &listener, &mut client, status).await,
                Disposition::Tunnel(mut tunnel) => {
                    let state = Arc::clone(listener.state());
                    drop(listener);
                    tunnel.run(&worker, &state, &mut client).await;
                }
            }
            break;
        }
        drop(held);
    }
}

/// Answers what could not be understood or did not come in time, before the connection is closed.
async fn refuse(worker: &Worker, listener: &LocalListener, client: &mut Client, status: u16) {
    let counters = listener.state().counters.of(worker.index);
    counters.request_errors.add(1);
    counters.responses[ResponseClass::of(status) as usize].add(1);
    let mut response = Vec::new();
    responses::write_error(&mut response, status, Recipient::UNKNOWN);
    if client.write_all(&response, listener.timeouts().client_data).await.is_ok() {
        counters.bytes_out.add(response.len() as u64);
        client.linger().await;
    }
}
