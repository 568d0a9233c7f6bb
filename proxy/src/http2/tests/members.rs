//! Members that mean well, and what becomes of requests when they do not answer.

mod malformed;

use std::{collections::VecDeque, task::Poll};

use ::http::{Request, Response};
use h2::{Reason, server};
use tokio::net::{TcpListener, TcpStream};

use super::{
    head::RequestBlock,
    hpack::FieldList,
    raw::{CONTINUATION, DATA, END_STREAM, Frame, HEADERS, RST_STREAM, Raw, frame, literal},
    *,
};
use crate::{
    conn::BUFFER_SIZE,
    http::{Method, RequestHead, ResponseHead},
    http1::response_framing,
};

const KEEP: Keep = Keep {
    connections: 2,
    idle: Duration::from_secs(60),
    silence: Duration::from_secs(60),
    patience: Duration::from_secs(60),
    http1: Duration::from_secs(60),
};

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
    with_backlog(usize::MAX, keep, settings, serve, use_it);
}

/// The same, of which no more than about `backlog` bytes wait for clients.
fn with_backlog<S, U>(
    backlog: usize,
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
        let backlog = Rc::new(Backlog::new(backlog));
        let streams = MemberStreams::new(Limits::default(), keep, Arc::default(), Rc::clone(&backlog));
        use_it(Worker { streams, backlog, pool: BufferPool::new(4), address }).await;
    });
}

#[derive(Clone)]
struct Worker {
    streams: MemberStreams,
    backlog: Rc<Backlog>,
    pool: BufferPool,
    address: SocketAddr,
}

impl Worker {
    async fn place(&self) -> Place {
        let mut waits = false;
        loop {
            if let Some(place) = self.streams.place(Idle::Any) {
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

    /// The status.
    async fn get(&self) -> Result<Option<u16>, Failure> {
        let (mut answer, _) = self.place().await.send(get(), true)?;
        final_head(&mut answer).await.map(|(head, _)| head.status())
    }
}

async fn final_head(answer: &mut Answer) -> Result<(FieldList, RecvBody), Failure> {
    loop {
        if let Answered::Final(head, body) = poll_fn(|cx| answer.poll_head(cx)).await? {
            return Ok((head, body));
        }
    }
}

fn trailers() -> FieldList {
    head::trailers([(&b"t"[..], &b"1"[..])].into_iter())
}

/// What members of the library answer.
fn answer(status: u16) -> Response<()> {
    Response::builder().status(status).body(()).unwrap()
}

fn asking(line: &str) -> RequestBlock {
    let text = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut head = RequestHead::new();
    head.parse(text.as_bytes()).unwrap().unwrap();
    head::request(&head.view(text.as_bytes()), true, ([127, 0, 0, 1], 80).into())
}

fn get() -> RequestBlock {
    asking("GET /")
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
                    let _ = respond.send_response(answer(200), true);
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
        let Ok(Joined::Connect(hangs)) = worker.streams.join(Idle::Any).await else {
            panic!("it is the first")
        };
        let joined = tokio::time::timeout(Duration::from_secs(10), worker.streams.join(Idle::Any)).await;
        let Ok(Ok(Joined::Connect(own))) = joined else { panic!("it waits for what hangs") };
        let conn = Conn::from(TcpStream::connect(worker.address).await.unwrap());
        let (mut answer, _) = own.start(conn, &worker.pool).await.unwrap().send(get(), true).unwrap();
        final_head(&mut answer).await.unwrap();
        assert!(matches!(worker.streams.join(Idle::Any).await, Ok(Joined::Place(_))));
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
                    assert_eq!(response, Some(200));
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
            respond.send_informational(answer(103)).unwrap();
            let mut send = respond.send_response(answer(200), false).unwrap();
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
            up.send_trailers(&trailers()).unwrap();
        });
        let interim = poll_fn(|cx| answer.poll_head(cx)).await.unwrap();
        assert!(matches!(interim, Answered::Interim(head) if head.status() == Some(103)));
        let (_, mut body) = final_head(&mut answer).await.unwrap();
        let mut got = Vec::new();
        while let Some(data) = poll_fn(|cx| body.poll_data(cx)).await {
            let data = data.unwrap();
            got.extend_from_slice(&data);
            body.release(data.len());
        }
        assert!(got == sent);
        assert_eq!(poll_fn(|cx| body.poll_trailers(cx)).await.unwrap().unwrap(), trailers());
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
            second.send_response(answer(200), true).unwrap();
        });
        while let Some(Ok(_)) = connection.accept().await {}
    };
    let keep = Keep { connections: 1, ..KEEP };
    with_member(keep, server::Builder::new(), serve, |worker| async move {
        assert_eq!(worker.get().await.unwrap_err(), Failure::NotProcessed);
        assert_eq!(worker.get().await.unwrap(), Some(200));
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
        assert!(worker.streams.place(Idle::Any).is_none());
    });
}

#[test]
fn silent_members_are_asked_and_idle_connections_end() {
    // One that neither answers nor reads, as a machine that is gone.
    let dead = |connection: server::Connection<TcpStream, Bytes>| async move {
        let _connection = connection;
        std::future::pending::<()>().await;
    };
    let keep = Keep {
        silence: Duration::from_millis(100),
        patience: Duration::from_millis(100),
        idle: Duration::from_millis(100),
        ..KEEP
    };
    with_member(keep, server::Builder::new(), dead, |worker| async move {
        let place = worker.place().await;
        // What comes behind the request is a sign of life.
        place.settled().await;
        let (answer, _) = place.send(get(), true).unwrap();
        while !answer.place().has_ended() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // What it was asked is waited for by whom it concerns; nothing is added to it.
        assert_eq!((worker.streams.place(Idle::Any).is_none(), worker.streams.connections()), (true, 1));
        drop(answer);
        while worker.streams.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    // One that takes its time, but is there.
    with_member(keep, server::Builder::new(), answering(Duration::from_millis(600)), |worker| async move {
        assert_eq!(worker.get().await.unwrap(), Some(200));
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
        assert!(worker.streams.place(Idle::Any).is_none());
        assert_eq!(final_head(&mut answer).await.unwrap().0.status(), Some(200));
        drop(answer);
        while worker.streams.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

/// Answers every stream with so many bytes, as its window allows.
fn sending(
    length: usize,
) -> impl Fn(server::Connection<TcpStream, Bytes>) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
    move |mut connection| {
        Box::pin(async move {
            while let Some(Ok((_, mut respond))) = connection.accept().await as Option<Result<Stream, _>> {
                spawn_local(async move {
                    let mut body = respond.send_response(answer(200), false).unwrap();
                    let mut left = length;
                    while left > 0 {
                        body.reserve_capacity(left.min(16 * 1024));
                        let Some(Ok(n)) = poll_fn(|cx| body.poll_capacity(cx)).await else { return };
                        left -= n.min(left);
                        let _ = body.send_data(Bytes::from(vec![7; n]), left == 0);
                    }
                });
            }
        })
    }
}

#[test]
fn what_clients_do_not_take_is_held_back_and_comes_when_they_do() {
    const STREAMS: usize = 60;
    const LENGTH: usize = 200 * 1024;
    const BOUND: usize = 512 * 1024;
    let wide = Limits::default().stream_window as usize;
    with_backlog(BOUND, KEEP, server::Builder::new(), sending(LENGTH), |worker| async move {
        let backlog = Rc::clone(&worker.backlog);
        let mut bodies: Vec<(Answer, RecvBody)> = Vec::new();
        for _ in 0..STREAMS {
            let (mut answer, _) = worker.place().await.send(get(), true).unwrap();
            let (_, mut body) = final_head(&mut answer).await.unwrap();
            // One after the other fills its window, which is that of one buffer from some time on.
            let before = backlog.bytes();
            let filled = poll_fn(|cx| {
                body.absorb(cx);
                let filled = backlog.bytes() - before;
                if filled >= BUFFER_SIZE { Poll::Ready(filled) } else { Poll::Pending }
            });
            let filled = filled.await;
            assert!(filled <= wide);
            bodies.push((answer, body));
            // What comes of others meanwhile is taken, too, as their tasks do.
            poll_fn(|cx| {
                bodies.iter_mut().for_each(|(_, body)| body.absorb(cx));
                Poll::Ready(())
            })
            .await;
        }
        // Nothing is on its way any more when a request has gone there and back.
        worker.get().await.unwrap();
        poll_fn(|cx| {
            bodies.iter_mut().for_each(|(_, body)| body.absorb(cx));
            Poll::Ready(())
        })
        .await;
        let most = BOUND + wide + STREAMS * BUFFER_SIZE;
        assert!(backlog.bytes() <= most, "{} of at most {most}", backlog.bytes());
        for (_, body) in &mut bodies {
            let mut whole = 0;
            while let Some(data) = poll_fn(|cx| body.poll_data(cx)).await {
                let length = data.unwrap().len();
                whole += length;
                body.release(length);
            }
            assert_eq!(whole, LENGTH);
        }
        // Who leaves in the middle holds nothing.
        let (mut answer, _) = worker.place().await.send(get(), true).unwrap();
        let (_, mut body) = final_head(&mut answer).await.unwrap();
        poll_fn(|cx| {
            body.absorb(cx);
            if backlog.bytes() > 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        drop((answer, body));
        assert_eq!(backlog.bytes(), 0);
    });
}
