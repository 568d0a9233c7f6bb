//! PROMETHEUS listeners: `GET /metrics`, from the thread that writes it, and nothing else. What they carry is not
//! counted as traffic.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use tokio::time::Instant;

use super::http::client::{Begin, Client, HeadError};
use crate::{
    conn::Conn,
    http::{Method, Version},
    http1::{
        self, Body,
        responses::{self, Recipient},
    },
    local::{LocalListener, Worker},
    metrics::{CONTENT_TYPE, Scrape},
};

/// How long a scraper waits for its turn before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves a scraper until its connection ends.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    listener: &Rc<LocalListener>,
    stream: Conn,
    address: SocketAddr,
) {
    let mut client = Client::new(stream, address, &worker.pools.buffers, listener);
    loop {
        let timeout = listener.timeouts().client_data;
        client.active = Instant::now();
        let Begin::Bytes = client.wait_for_request(listener, timeout).await else { return };
        let (mut to, scrape) = match ask(worker, listener, &mut client, timeout).await {
            Asked::Scrape(to) => (to, begin(worker, &mut client, address.ip()).await),
            Asked::Answered(to) if to.keep_alive => continue,
            Asked::Answered(_) => return client.linger(timeout).await,
            Asked::Gone => return,
        };
        let written = match scrape {
            Some(scrape) => {
                // Without a length, HTTP/1.0 ends with the connection.
                to.keep_alive &= to.version == Version::Http11;
                write_text(worker, &mut client, scrape, to, timeout).await
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
            Ok(()) => return client.linger(timeout).await,
            Err(_) => return,
        }
    }
}

/// What became of a request.
enum Asked {
    /// It wants the text.
    Scrape(Recipient),
    /// It has its answer.
    Answered(Recipient),
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
            let (method, version) = (view.method(), view.version());
            let wanted = view.path() == Some(b"/metrics");
            let framing = http1::request_framing(&view);
            client.inlet.consume(length);
            match framing {
                Err(reject) => responses::write_error(&mut work.out, reject.status(), to),
                Ok(framing) => {
                    let keep_alive =
                        framing.keep_alive && framing.body == Body::None && !listener.is_closing(client.address);
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
        Err(HeadError::Gone) => return Asked::Gone,
        Err(HeadError::Late) => responses::write_error(&mut work.out, 408, to),
        Err(HeadError::Reject(reject)) => responses::write_error(&mut work.out, reject.status(), to),
    }
    match client.write_all(&work.out, timeout).await {
        Ok(()) => Asked::Answered(to),
        Err(_) => Asked::Gone,
    }
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
async fn begin(worker: &Worker, client: &mut Client, address: IpAddr) -> Option<Scrape> {
    client.deadline.set(Some(Instant::now() + PATIENCE));
    let mut begun = pin!(worker.scrapes.begin(Some(address)));
    poll_fn(|cx| match begun.as_mut().poll(cx) {
        Poll::Ready(begun) => Poll::Ready(begun),
        Poll::Pending if client.poll_gone(cx).is_ready() => Poll::Ready(None),
        Poll::Pending => client.deadline.poll_expired(cx).map(|()| None),
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
