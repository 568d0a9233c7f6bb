//! PROMETHEUS listeners: `GET /metrics`, as the control thread sees it, and nothing else. What they carry is not
//! counted as traffic.

use std::{io, net::SocketAddr, rc::Rc, time::Duration};

use tokio::{net::TcpStream, sync::oneshot, time::Instant};

use super::http::client::{Begin, Client, HeadError};
use crate::{
    http1::{
        self, Body, Method, Version,
        responses::{self, Recipient},
    },
    metrics::{CONTENT_TYPE, Exposition},
    worker::{LocalListener, Worker},
};

/// How long the control thread may take; it answers in milliseconds unless a change is being applied.
const RENDER_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of text that are written at a time.
const PIECE: usize = 16 * 1024;

/// Serves a scraper until its connection ends.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    listener: &Rc<LocalListener>,
    stream: TcpStream,
    address: SocketAddr,
) {
    let mut client = Client::new(stream, address, &worker.pools.buffers, listener);
    loop {
        let timeout = listener.present().plan().timeouts.client_data;
        client.active = Instant::now();
        let Begin::Bytes = client.wait_for_request(listener, timeout).await else { return };
        let mut work = worker.scratch.get();
        let mut to = Recipient::UNKNOWN;
        let mut exposition = None;
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
                            framing.keep_alive && framing.body == Body::None && !listener.is_closing();
                        to = Recipient { version, method, keep_alive };
                        match method {
                            Method::Get | Method::Head if wanted => match self::exposition(worker).await {
                                Some(found) => {
                                    // Without a length, HTTP/1.0 ends with the connection.
                                    to.keep_alive &= version == Version::Http11;
                                    write_head(&mut work.out, to);
                                    exposition = (method == Method::Get).then_some(found);
                                }
                                None => responses::write_error(&mut work.out, 503, to),
                            },
                            _ => responses::write_error(&mut work.out, 403, to),
                        }
                    }
                }
            }
            Err(HeadError::Gone) => return,
            Err(HeadError::Late) => responses::write_error(&mut work.out, 408, to),
            Err(HeadError::Reject(reject)) => responses::write_error(&mut work.out, reject.status(), to),
        }
        if client.write_all(&work.out, timeout).await.is_err() {
            return;
        }
        if let Some(exposition) = exposition
            && write_pieces(&mut client, exposition, to.version, timeout).await.is_err()
        {
            return;
        }
        if !to.keep_alive {
            drop(work);
            return client.linger().await;
        }
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

/// Writes the text piece by piece: in chunks, or to the end of the connection for HTTP/1.0.
async fn write_pieces(
    client: &mut Client,
    mut exposition: Exposition,
    version: Version,
    timeout: Duration,
) -> io::Result<()> {
    let chunked = version == Version::Http11;
    let mut text = String::new();
    let mut chunk = Vec::new();
    loop {
        text.clear();
        chunk.clear();
        let more = exposition.write_piece(&mut text, PIECE);
        if chunked {
            if !text.is_empty() {
                http1::write_chunk_header(&mut chunk, text.len() as u64);
                chunk.extend_from_slice(text.as_bytes());
                chunk.extend_from_slice(b"\r\n");
            }
            if !more {
                chunk.extend_from_slice(b"0\r\n\r\n");
            }
        } else {
            chunk.extend_from_slice(text.as_bytes());
        }
        client.write_all(&chunk, timeout).await?;
        if !more {
            return Ok(());
        }
        // Writing a piece takes a fraction of a millisecond; others come first after each.
        tokio::task::yield_now().await;
    }
}

async fn exposition(worker: &Worker) -> Option<Exposition> {
    let (reply, found) = oneshot::channel();
    worker.metrics.send(reply).ok()?;
    tokio::time::timeout(RENDER_PATIENCE, found).await.ok()?.ok()
}
