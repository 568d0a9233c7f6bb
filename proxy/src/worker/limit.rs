//! Rate limits at a connection: before anything is read of it.

use std::{io, net::SocketAddr, rc::Rc};

use tokio::{io::Interest, net::TcpStream, task::spawn_local, time::Instant};

use crate::{
    conn::Conn,
    limits::rate::{Believed, Farewell, Queued, Taken},
    local::{LocalListener, Worker},
    session,
    snapshot::ListenerPlan,
};

/// Counts a connection; `None` if it may go on. Those of trusted proxies are not counted: they bring those of many.
#[inline]
pub(super) fn judge(worker: &Worker, plan: &ListenerPlan, client: SocketAddr) -> Option<Taken> {
    let limits = plan.limits.as_ref().filter(|limits| limits.counts_connections())?;
    if limits.believed().is_some_and(|believed: &Believed| believed.includes(client.ip())) {
        return None;
    }
    let broken = limits.connection(limits.client(client.ip()), worker.moment(Instant::now()))?;
    Some(broken.take(worker.index))
}

/// Closes a connection that is too much.
pub(super) fn turn_away(stream: TcpStream, taken: Taken) {
    let mut conn = Conn::from(stream);
    match taken {
        Taken::Dropped(Farewell::Silent) => conn.vanish_on_close(),
        _ => conn.reset_on_close(),
    }
}

/// Begins to serve a client when its turn has come, if it is still there. `held` is dropped when its connection has ended.
pub(super) fn wait<H: 'static>(
    worker: &Rc<Worker>,
    listener: Rc<LocalListener>,
    stream: TcpStream,
    client: SocketAddr,
    turn: Queued,
    held: H,
) {
    let worker = Rc::clone(worker);
    spawn_local(async move {
        let begun = Instant::now();
        let waited = turn_of(stream, worker.turns(&turn)).await;
        turn.end(worker.index, begun.elapsed());
        match waited {
            Ok(Some(stream)) => session::start(&worker, listener, stream, client, held),
            Ok(None) => {}
            Err(error) => tracing::debug!(%client, %error, "a client that had waited is not served"),
        }
    });
}

/// The connection, when it has had its turn; `None` when its client has gone, or has finished sending.
async fn turn_of(stream: TcpStream, turn: impl Future<Output = ()>) -> io::Result<Option<TcpStream>> {
    let gone = async {
        loop {
            match stream.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => {}
                _ => return,
            }
            // What it has sent stays where it is. The runtime is to forget of it, so that it wakes for what comes next.
            let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = stream.try_io(Interest::READABLE, nothing);
        }
    };
    tokio::select! {
        biased;
        () = gone => return Ok(None),
        () = turn => {}
    }
    // Registered once more: the runtime is to know of what has come.
    TcpStream::from_std(stream.into_std()?).map(Some)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::sleep,
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, client)
    }

    #[tokio::test]
    async fn what_was_sent_meanwhile_is_there_when_the_turn_comes() {
        let (server, mut client) = pair().await;
        client.write_all(b"hello").await.unwrap();
        server.readable().await.unwrap();
        let mut server = turn_of(server, sleep(Duration::from_millis(10))).await.unwrap().unwrap();
        let mut text = [0; 5];
        server.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
    }

    #[tokio::test]
    async fn who_goes_is_waited_for_no_longer() {
        for sends in [false, true] {
            let (server, mut client) = pair().await;
            if sends {
                client.write_all(b"hello").await.unwrap();
                server.readable().await.unwrap();
            }
            let waiting = turn_of(server, sleep(Duration::from_secs(3600)));
            let (waited, ()) = tokio::join!(waiting, async { drop(client) });
            assert!(waited.unwrap().is_none());
        }
    }
}
