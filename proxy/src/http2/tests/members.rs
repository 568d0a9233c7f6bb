//! Members that mean well, and what becomes of requests when they do not answer.

use ::http::{HeaderMap, HeaderValue, Request};
use h2::{Reason, server};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const KEEP: Keep = Keep { connections: 2, idle: Duration::from_secs(60), silence: Duration::from_secs(60) };

type Stream = (Request<h2::RecvStream>, server::SendResponse<Bytes>);

/// Runs a member that does this with each connection, and what is asked of it.
fn with_member<S, U>(
    keep: Keep,
    settings: server::Builder,
    serve: impl Fn(server::Connection<TcpStream, Bytes>) -> S + 'static,
    use_it: impl FnOnce(Worker) -> U,
) where
    S: Future<Output = ()> + 'static,
    U: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            loop {
                let stream = listener.accept().await.unwrap().0;
                let handshake = settings.handshake(stream);
                let connection = handshake.await.unwrap();
                spawn_local(serve(connection));
            }
        });
        let streams = MemberStreams::new(Limits::default(), keep, Arc::default());
        use_it(Worker { streams, pool: BufferPool::new(4), address }).await;
    });
}

#[derive(Clone)]
struct Worker {
    streams: MemberStreams,
    pool: BufferPool,
    address: SocketAddr,
}

impl Worker {
    async fn place(&self) -> Place {
        let mut waits = false;
        loop {
            if let Some(place) = self.streams.place() {
                return place;
            }
            if let Some(connecting) = self.streams.connect() {
                let conn = Conn::from(TcpStream::connect(self.address).await.unwrap());
                return connecting.start(conn, &self.pool).await.unwrap();
            }
            poll_fn(|cx| self.streams.poll_changed(cx, &mut waits)).await;
            waits = false;
        }
    }

    async fn get(&self) -> Result<Response<()>, Failure> {
        let (mut answer, _) = self.place().await.send(get(), true)?;
        final_head(&mut answer).await.map(|(response, _)| response)
    }
}

async fn final_head(answer: &mut Answer) -> Result<(Response<()>, RecvBody), Failure> {
    loop {
        if let Answered::Final(response, body) = poll_fn(|cx| answer.poll_head(cx)).await? {
            return Ok((response, body));
        }
    }
}

fn get() -> Request<()> {
    Request::get("http://a/").body(()).unwrap()
}

/// Answers every stream after this long.
fn answering(
    after: Duration,
) -> impl Fn(server::Connection<TcpStream, Bytes>) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
    move |mut connection| {
        Box::pin(async move {
            while let Some(Ok((_, mut respond))) = connection.accept().await as Option<Result<Stream, _>> {
                spawn_local(async move {
                    tokio::time::sleep(after).await;
                    let _ = respond.send_response(response(200), true);
                });
            }
        })
    }
}

#[test]
fn one_connection_that_hangs_is_not_the_matter_of_all() {
    let settings = server::Builder::new();
    with_member(KEEP, settings, answering(Duration::ZERO), |worker| async move {
        // Somebody opens one, and does not come to its end.
        let Ok(Joined::Connect(hangs)) = worker.streams.join().await else { panic!("it is the first") };
        let joined = tokio::time::timeout(Duration::from_secs(10), worker.streams.join()).await;
        let Ok(Ok(Joined::Connect(own))) = joined else { panic!("it waits for what hangs") };
        let conn = Conn::from(TcpStream::connect(worker.address).await.unwrap());
        let (mut answer, _) = own.start(conn, &worker.pool).await.unwrap().send(get(), true).unwrap();
        final_head(&mut answer).await.unwrap();
        assert!(matches!(worker.streams.join().await, Ok(Joined::Place(_))));
        drop(hangs);
    });
}

#[test]
fn clients_share_connections_within_what_the_member_allows() {
    let mut settings = server::Builder::new();
    settings.max_concurrent_streams(3);
    with_member(KEEP, settings, answering(Duration::from_millis(30)), |worker| async move {
        // What the member allows is known from here on.
        worker.get().await.unwrap();
        let tasks: Vec<_> = (0..30)
            .map(|_| {
                let worker = worker.clone();
                spawn_local(async move {
                    let response = worker.get().await.unwrap();
                    assert_eq!(response.status(), 200);
                    assert!(worker.streams.streams() <= 2 * 3);
                    worker.streams.connections()
                })
            })
            .collect();
        let mut most = 0;
        for task in tasks {
            most = most.max(task.await.unwrap());
        }
        assert_eq!((most, worker.streams.streams()), (2, 0));
    });
}

#[test]
fn bodies_trailers_and_interim_heads_go_both_ways() {
    let mut settings = server::Builder::new();
    settings.enable_connect_protocol();
    let serve = |mut connection: server::Connection<TcpStream, Bytes>| async move {
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        spawn_local(async move {
            respond.send_informational(response(103)).unwrap();
            let mut send = respond.send_response(response(200), false).unwrap();
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                send.send_data(data, false).unwrap();
            }
            send.send_trailers(body.trailers().await.unwrap().unwrap()).unwrap();
        });
        assert!(connection.accept().await.is_none_or(|stream| stream.is_err()));
    };
    with_member(KEEP, settings, serve, |worker| async move {
        let (mut answer, mut up) = worker.place().await.send(get(), false).unwrap();
        let sent = Bytes::from((0..300_000u32).map(|n| n as u8).collect::<Vec<_>>());
        let mut left = sent.clone();
        let sending = spawn_local(async move {
            while !left.is_empty() {
                let n = poll_fn(|cx| up.poll_capacity(cx, left.len())).await.unwrap();
                up.send(left.split_to(n), false).unwrap();
            }
            let trailers = [(::http::HeaderName::from_static("t"), HeaderValue::from_static("1"))];
            up.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
        });
        let interim = poll_fn(|cx| answer.poll_head(cx)).await.unwrap();
        assert!(matches!(interim, Answered::Interim(head) if head.status() == 103));
        let (_, mut body) = final_head(&mut answer).await.unwrap();
        let mut got = Vec::new();
        while let Some(data) = poll_fn(|cx| body.poll_data(cx)).await {
            let data = data.unwrap();
            got.extend_from_slice(&data);
            body.release(data.len());
        }
        assert!(got == sent);
        assert_eq!(poll_fn(|cx| body.poll_trailers(cx)).await.unwrap().unwrap()["t"], "1");
        sending.await.unwrap();
        assert!(worker.place().await.takes_extended_connect());
    });
}

#[test]
fn what_was_not_processed_may_be_tried_elsewhere() {
    // The first stream is refused, the second answered once a third is on its way, which GOAWAY leaves out.
    let serve = |mut connection: server::Connection<TcpStream, Bytes>| async move {
        let (_, mut first) = connection.accept().await.unwrap().unwrap();
        first.send_reset(Reason::REFUSED_STREAM);
        let (_, mut second) = connection.accept().await.unwrap().unwrap();
        connection.graceful_shutdown();
        spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            second.send_response(response(200), true).unwrap();
        });
        while let Some(Ok(_)) = connection.accept().await {}
    };
    let keep = Keep { connections: 1, ..KEEP };
    with_member(keep, server::Builder::new(), serve, |worker| async move {
        assert_eq!(worker.get().await.unwrap_err(), Failure::NotProcessed);
        assert_eq!(worker.get().await.unwrap().status(), 200);
        // The connection is on its way out, and the next request takes another.
        assert_eq!(worker.get().await.unwrap_err(), Failure::NotProcessed);
    });
}

#[test]
fn what_may_have_been_processed_is_told_apart() {
    let serve = |mut connection: server::Connection<TcpStream, Bytes>| async move {
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_reset(Reason::INTERNAL_ERROR);
        let _ = connection.accept().await.unwrap().unwrap();
        // Without a word.
        drop(connection);
    };
    with_member(KEEP, server::Builder::new(), serve, |worker| async move {
        let reset = Failure::Failed(Broken::Reset(Reason::INTERNAL_ERROR));
        assert_eq!(worker.get().await.unwrap_err(), reset);
        assert_eq!(worker.get().await.unwrap_err(), Failure::Failed(Broken::Gone));
        // What has ended is not used again.
        assert!(worker.streams.place().is_none());
    });
}

#[test]
fn silent_members_are_asked_and_idle_connections_end() {
    // One that neither answers nor reads, as a machine that is gone.
    let dead = |connection: server::Connection<TcpStream, Bytes>| async move {
        let _connection = connection;
        std::future::pending::<()>().await;
    };
    let keep = Keep { silence: Duration::from_millis(100), idle: Duration::from_millis(100), ..KEEP };
    with_member(keep, server::Builder::new(), dead, |worker| async move {
        let (answer, _) = worker.place().await.send(get(), true).unwrap();
        while !answer.place().has_ended() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // What it was asked is waited for by whom it concerns; nothing is added to it.
        assert_eq!((worker.streams.place().is_none(), worker.streams.connections()), (true, 1));
        drop(answer);
        while worker.streams.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    // One that takes its time, but is there.
    with_member(keep, server::Builder::new(), answering(Duration::from_millis(600)), |worker| async move {
        assert_eq!(worker.get().await.unwrap().status(), 200);
        while worker.streams.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn closed_streams_end_with_what_is_on_them() {
    with_member(KEEP, server::Builder::new(), answering(Duration::from_millis(50)), |worker| async move {
        let (mut answer, _) = worker.place().await.send(get(), true).unwrap();
        worker.streams.close();
        assert!(worker.streams.place().is_none());
        assert_eq!(final_head(&mut answer).await.unwrap().0.status(), 200);
        drop(answer);
        while worker.streams.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}
