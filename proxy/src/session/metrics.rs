//! PROMETHEUS listeners: `GET /metrics`, from the thread that writes it, and nothing else, in HTTP/1.1 and HTTP/2. What they carry is
//! not counted as traffic.

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
    loop {
        let timeout = listener.timeouts().client_data;
        client.active = Instant::now();
        let Begin::Bytes = client.wait_for_request(listener, timeout).await else { return Left::Nothing };
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
            Some(scrape) => {
                // Without a length, HTTP/1.0 ends with the connection.
                to.keep_alive &= to.version == Version::Http11;
                write_text(worker, client, scrape, to, timeout).await
            }
            None => {
                let mut work = worker.scratch.get();
                work.out.clear();
                responses::write_error(&mut work.out, 503, to);
                client.write_all(&work.out, timeout).await
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
    match client.read_head(&mut work.request, timeout).await {
        Ok(length) => {
            let view = work.request.view(client.inlet.filled());
            let (method, version, wanted) = (view.method(), view.version(), is_wanted(&view));
            let framing = http1::request_framing(&view);
            client.inlet.consume(length);
            match framing {
                Err(reject) => responses::write_error(&mut work.out, reject.status(), to),
                Ok(framing) => {
                    let keep_alive = framing.keep_alive
                        && framing.body == Body::None
                        && !listener.is_closing(client.address);
                    to = Recipient { version, method, keep_alive };
                    match method {
                        Method::Get if wanted => return Asked::Scrape(to),
                        Method::Head if wanted => {
                            to.keep_alive &= version == Version::Http11;
                            write_head(&mut work.out, to);
                        }
                        _ => responses::write_error(&mut work.out, 403, to),
                    }
                }
            }
        }
        Err(HeadError::Reject(Reject::VersionNotSupported)) if client.speaks_http2() => return Asked::Http2,
        Err(HeadError::Gone) => return Asked::Gone,
        Err(HeadError::Late) => responses::write_error(&mut work.out, 408, to),
        Err(HeadError::Reject(reject)) => responses::write_error(&mut work.out, reject.status(), to),
    }
    match client.write_all(&work.out, timeout).await {
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

/// Waits for the scraper's turn; `None` when that does not come in time, or when the client is gone.
async fn begin(worker: &Worker, mut client: Downstream<'_>) -> Option<Scrape> {
    let until = Instant::now() + PATIENCE;
    let mut begun = pin!(worker.scrapes.begin(Some(client.address().ip())));
    poll_fn(|cx| match begun.as_mut().poll(cx) {
        Poll::Ready(begun) => Poll::Ready(begun),
        Poll::Pending if client.poll_gone(cx).is_ready() => Poll::Ready(None),
        Poll::Pending => client.poll_deadline(cx, until).map(|()| None),
    })
    .await
}

/// Writes the text piece by piece: in chunks, or to the end of the connection for HTTP/1.0.
async fn write_text(
    worker: &Worker,
    client: &mut Client,
    mut scrape: Scrape,
    to: Recipient,
    timeout: Duration,
) -> io::Result<()> {
    {
        let mut work = worker.scratch.get();
        work.out.clear();
        write_head(&mut work.out, to);
        client.write_all(&work.out, timeout).await?;
    }
    loop {
        let piece = scrape.next().await.ok_or(io::ErrorKind::TimedOut)?;
        match to.version {
            Version::Http11 => client.write_all(piece.chunk(), timeout).await?,
            _ => client.write_all(&piece.text(), timeout).await?,
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
    let mut stream = ClientStream::new(client, body, respond, Deadline::never(), false);
    let asked = {
        let mut work = worker.scratch.get();
        let Work { request: table, text, .. } = &mut *work;
        // There is nothing here that could be agreed on with it.
        let context = RequestContext { websocket_key: &[b'='; WEBSOCKET_KEY_LEN], ended };
        head::read_request(&fields, context, table, text).map(|length| {
            let view = table.view(&text[..length]);
            let wanted = is_wanted(&view) && !head::is_extended_connect(&fields);
            let to = Recipient { version: view.version(), method: view.method(), keep_alive: true };
            (to, wanted)
        })
    };
    drop((fields, charge));
    let sent = match asked {
        Ok((to, true)) if matches!(to.method, Method::Get | Method::Head) => {
            send_text(&worker, &mut stream, to, timeout).await
        }
        Ok((to, _)) => refuse(&mut stream, 403, to, timeout).await,
        Err(reject) => match head::refusal(reject).err() {
            Some(reason) => {
                stream.reset(reason);
                Ok(())
            }
            None => refuse(&mut stream, reject.status(), Recipient::UNKNOWN, timeout).await,
        },
    };
    if sent.is_err() {
        http2::cut(&mut stream).await;
    }
    drop(held);
}

async fn refuse(stream: &mut ClientStream, status: u16, to: Recipient, timeout: Duration) -> io::Result<()> {
    let mut out = Vec::new();
    responses::write_error(&mut out, status, to);
    stream.reply(&out, timeout).await
}

/// Sends the text piece by piece.
async fn send_text(
    worker: &Worker,
    stream: &mut ClientStream,
    to: Recipient,
    timeout: Duration,
) -> io::Result<()> {
    let mut out = Vec::new();
    write_head(&mut out, to);
    if to.method == Method::Head {
        return stream.begin_reply(&out, false).map(drop);
    }
    let Some(mut scrape) = begin(worker, Downstream::Http2(stream)).await else {
        return refuse(stream, 503, to, timeout).await;
    };
    stream.begin_reply(&out, true)?;
    loop {
        let piece = scrape.next().await.ok_or(io::ErrorKind::TimedOut)?;
        stream.send_data(piece.text(), piece.is_last(), timeout).await?;
        if piece.is_last() {
            return Ok(());
        }
    }
}
