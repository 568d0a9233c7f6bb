//! PROMETHEUS listeners: `GET /metrics`, from the thread that writes it, and nothing else, in HTTP/1.1 and HTTP/2. What they carry is
//! counted as that of an HTTP listener is; heartbeats leave it out.

use std::{future::poll_fn, io, net::SocketAddr, pin::pin, rc::Rc, task::Poll, time::Duration};

use tokio::time::Instant;

use super::http::{
    client::{Begin, Client, HeadError},
    downstream::Downstream,
    http2,
    stream::{ClientStream, ClientStreams},
};
use crate::{
    conn::{Conn, Deadline},
    http::{Method, Reject, RequestView, Version, fill::WEBSOCKET_KEY_LEN},
    http1::{
        self, Body,
        responses::{self, Recipient},
    },
    http2::{
        Incoming,
        head::{self, RequestContext},
    },
    local::{LocalListener, Work, Worker},
    metrics::{CONTENT_TYPE, Scrape},
    state::{ListenerCounters, ResponseClass},
};

/// How long a scraper waits for its turn before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves a scraper until its connection ends; `held` is dropped then.
pub(super) async fn serve<H: 'static>(
    worker: Rc<Worker>,
    listener: Rc<LocalListener>,
    stream: Conn,
    address: SocketAddr,
    held: H,
) {
    let mut client = Client::new(stream, address, &worker.pools.buffers, &listener);
    if serve_http1(&worker, &listener, &mut client).await == Left::ToHttp2 {
        // Few scrapers come for this, so that none is given room for it beforehand.
        Box::pin(http2::serve(worker, listener, client, held)).await;
    } else {
        drop(client);
        drop(held);
    }
}

/// What is left of a connection.
#[derive(PartialEq, Eq)]
enum Left {
    /// Nothing.
    Nothing,
    /// The scraper has begun to speak HTTP/2.
    ToHttp2,
}

async fn serve_http1(worker: &Rc<Worker>, listener: &Rc<LocalListener>, client: &mut Client) -> Left {
    let counters = listener.state().counters.of(worker.index);
    loop {
        let timeout = listener.timeouts().client_data;
        client.active = Instant::now();
        match client.wait_for_request(listener, timeout).await {
            Begin::Bytes => {}
            // As a client of any other listener: one that leaves without a byte has begun a request and not ended it.
            ended @ (Begin::Late | Begin::Gone) if client.requests == 0 => {
                counters.requests.add(1);
                let status = if matches!(ended, Begin::Late) { 408 } else { 400 };
                let told = {
                    let mut work = worker.scratch.get();
                    work.out.clear();
                    write_failed(counters, &mut work.out, status);
                    write(counters, client, &work.out, timeout).await
                };
                if told.is_ok() {
                    client.linger(timeout).await;
                }
                return Left::Nothing;
            }
            Begin::Late | Begin::Gone | Begin::Unwanted => return Left::Nothing,
        }
        let (mut to, scrape) = match ask(worker, listener, client, timeout).await {
            Asked::Scrape(to) => (to, begin(worker, Downstream::Http1(client)).await),
            Asked::Answered(to) if to.keep_alive => continue,
            Asked::Answered(_) => {
                client.linger(timeout).await;
                return Left::Nothing;
            }
            Asked::Http2 => return Left::ToHttp2,
            Asked::Gone => return Left::Nothing,
        };
        let written = match scrape {
            Ok(scrape) => {
                // Without a length, HTTP/1.0 ends with the connection.
                to.keep_alive &= to.version == Version::Http11;
                answered(counters, 200);
                write_text(worker, counters, client, scrape, to, timeout).await
            }
            Err(NoTurn::Late) => {
                let mut work = worker.scratch.get();
                work.out.clear();
                answered(counters, 503);
                responses::write_error(&mut work.out, 503, to);
                write(counters, client, &work.out, timeout).await
            }
            Err(NoTurn::Gone) => {
                unanswered(counters);
                return Left::Nothing;
            }
        };
        match written {
            Ok(()) if to.keep_alive => {}
            Ok(()) => {
                client.linger(timeout).await;
                return Left::Nothing;
            }
            Err(_) => return Left::Nothing,
        }
    }
}

/// Counts what a request came to.
fn answered(counters: &ListenerCounters, status: u16) {
    counters.responses[ResponseClass::of(status) as usize].add(1);
}

/// Counts a request whose scraper did not wait for what it comes to.
fn unanswered(counters: &ListenerCounters) {
    counters.responses[ResponseClass::Other as usize].add(1);
}

/// Writes the answer to what is no good request, and counts it.
fn write_failed(counters: &ListenerCounters, out: &mut Vec<u8>, status: u16) {
    counters.request_errors.add(1);
    answered(counters, status);
    responses::write_error(out, status, Recipient::UNKNOWN);
}

/// Writes all of it, and counts it.
async fn write(
    counters: &ListenerCounters,
    client: &mut Client,
    bytes: &[u8],
    timeout: Duration,
) -> io::Result<()> {
    client.write_all(bytes, timeout).await?;
    counters.bytes_out.add(bytes.len() as u64);
    Ok(())
}

/// What became of a request.
enum Asked {
    /// It wants the text.
    Scrape(Recipient),
    /// It has its answer.
    Answered(Recipient),
    /// It is none, but the beginning of HTTP/2.
    Http2,
    /// There is nobody to answer.
    Gone,
}

/// Reads a request, and answers it if it is none for the text.
async fn ask(
    worker: &Rc<Worker>,
    listener: &Rc<LocalListener>,
    client: &mut Client,
    timeout: Duration,
) -> Asked {
    let mut work = worker.scratch.get();
    let mut to = Recipient::UNKNOWN;
    work.out.clear();
    let head = client.read_head(&mut work.request, timeout).await;
    if matches!(head, Err(HeadError::Reject(Reject::VersionNotSupported))) && client.speaks_http2() {
        return Asked::Http2;
    }
    let counters = listener.state().counters.of(worker.index);
    counters.requests.add(1);
    match head {
        Ok(length) => {
            counters.bytes_in.add(length as u64);
            let view = work.request.view(client.inlet.filled());
            let (method, version, wanted) = (view.method(), view.version(), is_wanted(&view));
            let framing = http1::request_framing(&view);
            client.inlet.consume(length);
            match framing {
                Err(reject) => write_failed(counters, &mut work.out, reject.status()),
                Ok(framing) => {
                    let keep_alive = framing.keep_alive
                        && framing.body == Body::None
                        && !listener.is_closing(client.address);
                    to = Recipient { version, method, keep_alive };
                    match method {
                        Method::Get if wanted => return Asked::Scrape(to),
                        Method::Head if wanted => {
                            to.keep_alive &= version == Version::Http11;
                            answered(counters, 200);
                            write_head(&mut work.out, to);
                        }
                        _ => {
                            answered(counters, 403);
                            responses::write_error(&mut work.out, 403, to);
                        }
                    }
                }
            }
        }
        Err(HeadError::Gone) => write_failed(counters, &mut work.out, 400),
        Err(HeadError::Late) => write_failed(counters, &mut work.out, 408),
        Err(HeadError::Reject(reject)) => write_failed(counters, &mut work.out, reject.status()),
    }
    match write(counters, client, &work.out, timeout).await {
        Ok(()) => Asked::Answered(to),
        Err(_) => Asked::Gone,
    }
}

fn is_wanted(view: &RequestView<'_>) -> bool {
    view.path() == Some(b"/metrics")
}

fn write_head(out: &mut Vec<u8>, to: Recipient) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncache-control: no-store\r\ncontent-type: ");
    out.extend_from_slice(CONTENT_TYPE.as_bytes());
    if to.version == Version::Http11 {
        out.extend_from_slice(b"\r\ntransfer-encoding: chunked");
    }
    out.extend_from_slice(if to.keep_alive { b"\r\n\r\n" } else { b"\r\nconnection: close\r\n\r\n" });
}

/// Why a scraper has no turn.
enum NoTurn {
    /// It did not come in time.
    Late,
    /// The scraper has left.
    Gone,
}

/// Waits for the scraper's turn.
async fn begin(worker: &Worker, mut client: Downstream<'_>) -> Result<Scrape, NoTurn> {
    let until = Instant::now() + PATIENCE;
    let mut begun = pin!(worker.scrapes.begin(Some(client.address().ip())));
    poll_fn(|cx| match begun.as_mut().poll(cx) {
        Poll::Ready(begun) => Poll::Ready(begun.ok_or(NoTurn::Late)),
        Poll::Pending if client.poll_gone(cx).is_ready() => Poll::Ready(Err(NoTurn::Gone)),
        Poll::Pending => client.poll_deadline(cx, until).map(|()| Err(NoTurn::Late)),
    })
    .await
}

/// Writes the text piece by piece: in chunks, or to the end of the connection for HTTP/1.0.
async fn write_text(
    worker: &Worker,
    counters: &ListenerCounters,
    client: &mut Client,
    mut scrape: Scrape,
    to: Recipient,
    timeout: Duration,
) -> io::Result<()> {
    {
        let mut work = worker.scratch.get();
        work.out.clear();
        write_head(&mut work.out, to);
        write(counters, client, &work.out, timeout).await?;
    }
    loop {
        let piece = scrape.next().await.ok_or(io::ErrorKind::TimedOut)?;
        match to.version {
            Version::Http11 => write(counters, client, piece.chunk(), timeout).await?,
            _ => write(counters, client, &piece.text(), timeout).await?,
        }
        if piece.is_last() {
            return Ok(());
        }
    }
}

/// Serves one request of a scraper that speaks HTTP/2.
pub(super) async fn serve_stream<H>(
    worker: Rc<Worker>,
    listener: Rc<LocalListener>,
    client: Rc<ClientStreams>,
    incoming: Incoming,
    held: H,
) {
    let Incoming { head: fields, body, respond, charge, .. } = incoming;
    let ended = body.is_empty();
    let timeout = listener.timeouts().client_data;
    let counters = listener.state().counters.of(worker.index);
    counters.requests.add(1);
    let mut stream = ClientStream::new(client, body, respond, Deadline::never(), false);
    let asked = {
        let mut work = worker.scratch.get();
        let Work { request: table, text, .. } = &mut *work;
        // There is nothing here that could be agreed on with it.
        let context = RequestContext { websocket_key: &[b'='; WEBSOCKET_KEY_LEN], ended };
        head::read_request(&fields, context, table, text).map(|length| {
            counters.bytes_in.add(length as u64);
            let view = table.view(&text[..length]);
            let wanted = is_wanted(&view) && !head::is_extended_connect(&fields);
            let to = Recipient { version: view.version(), method: view.method(), keep_alive: true };
            (to, wanted)
        })
    };
    drop((fields, charge));
    let sent = match asked {
        Ok((to, true)) if matches!(to.method, Method::Get | Method::Head) => {
            send_text(&worker, counters, &mut stream, to, timeout).await
        }
        Ok((to, _)) => refuse(counters, &mut stream, 403, to, timeout).await,
        Err(reject) => {
            counters.request_errors.add(1);
            let (status, to) = (reject.status(), Recipient::UNKNOWN);
            match head::refusal(reject).err() {
                Some(reason) => {
                    answered(counters, status);
                    stream.reset(reason);
                    Ok(())
                }
                None => refuse(counters, &mut stream, status, to, timeout).await,
            }
        }
    };
    if sent.is_err() {
        http2::cut(&mut stream).await;
    }
    drop(held);
}

async fn refuse(
    counters: &ListenerCounters,
    stream: &mut ClientStream,
    status: u16,
    to: Recipient,
    timeout: Duration,
) -> io::Result<()> {
    answered(counters, status);
    let mut out = Vec::new();
    responses::write_error(&mut out, status, to);
    stream.reply(&out, timeout).await?;
    counters.bytes_out.add(out.len() as u64);
    Ok(())
}

/// Sends the text piece by piece.
async fn send_text(
    worker: &Worker,
    counters: &ListenerCounters,
    stream: &mut ClientStream,
    to: Recipient,
    timeout: Duration,
) -> io::Result<()> {
    let mut out = Vec::new();
    write_head(&mut out, to);
    if to.method == Method::Head {
        answered(counters, 200);
        let length = stream.begin_reply(&out, false)?;
        counters.bytes_out.add(length as u64);
        return Ok(());
    }
    let mut scrape = match begin(worker, Downstream::Http2(stream)).await {
        Ok(scrape) => scrape,
        Err(NoTurn::Late) => return refuse(counters, stream, 503, to, timeout).await,
        Err(NoTurn::Gone) => {
            unanswered(counters);
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    };
    answered(counters, 200);
    let length = stream.begin_reply(&out, true)?;
    counters.bytes_out.add(length as u64);
    loop {
        let piece = scrape.next().await.ok_or(io::ErrorKind::TimedOut)?;
        let text = piece.text();
        let length = text.len();
        stream.send_data(text, piece.is_last(), timeout).await?;
        counters.bytes_out.add(length as u64);
        if piece.is_last() {
            return Ok(());
        }
    }
}
