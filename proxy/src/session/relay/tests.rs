#![allow(clippy::unwrap_used)]

use std::{
    future::{Future, poll_fn},
    io::{self, Write},
    pin::pin,
    rc::Rc,
    thread,
    time::Duration,
};

use proptest::prelude::*;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, LocalSet, yield_now},
    time::{Instant, timeout},
};

use super::*;
use crate::{
    conn::{BUFFER_SIZE, Conn, Pools},
    limits::rate,
    state::{Counter, ListenerCounters, MemberCounters},
};

mod exact;
mod timeouts;

const PATIENCE: Duration = Duration::from_secs(20);
const SECOND: Duration = Duration::from_secs(1);

/// A session under test: its two outer ends, and what it is counted in.
struct Rig {
    client: TcpStream,
    member: TcpStream,
    pools: Pools,
    listener_counters: Rc<ListenerCounters>,
    member_counters: Rc<MemberCounters>,
    end: JoinHandle<RelayEnd>,
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, far) = (near.unwrap(), far.unwrap().0);
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

/// A connection, and its other end.
async fn ours() -> (TcpStream, Conn) {
    let (theirs, ours) = pair().await;
    (theirs, ours.into())
}

async fn rig(options: RelayOptions) -> Rig {
    rig_with(options, Pools::default()).await
}

async fn rig_with(options: RelayOptions, pools: Pools) -> Rig {
    let (client, mut client_side) = ours().await;
    let (member, mut member_side) = ours().await;
    let listener_counters = Rc::new(ListenerCounters::default());
    let member_counters = Rc::new(MemberCounters::default());
    let end = tokio::task::spawn_local({
        let (pools, l, m) = (pools.clone(), listener_counters.clone(), member_counters.clone());
        async move { relay(&mut client_side, &mut member_side, options, &pools, &l, &m).await }
    });
    Rig { client, member, pools, listener_counters, member_counters, end }
}

impl Rig {
    async fn end(self) -> RelayEnd {
        timeout(PATIENCE, self.end).await.expect("the session ends").unwrap()
    }

    fn nothing_is_lent(&self) -> bool {
        self.pools.buffers.lent() == 0 && self.pools.pipes.lent() == 0
    }
}

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

/// Time passes only when everything waits for it.
fn run_paused<F: Future>(test: F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let reached = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{what}"));
}

fn pattern(n: usize, seed: u64) -> Vec<u8> {
    (0..n as u64).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 7) as u8).collect()
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_client_that_closes_its_side_still_gets_the_answer() {
    run(async {
        let mut rig = rig(RelayOptions::default()).await;
        rig.client.write_all(b"question").await.unwrap();
        rig.client.shutdown().await.unwrap();
        let mut got = Vec::new();
        rig.member.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"question");
        rig.member.write_all(b"answer").await.unwrap();
        rig.member.shutdown().await.unwrap();
        got.clear();
        rig.client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"answer");
        let expected = RelayEnd { reason: EndReason::Finished, client_to_member: 8, member_to_client: 6 };
        assert_eq!(rig.end().await, expected);
    });
}

#[test]
fn a_member_that_closes_its_side_still_gets_the_rest() {
    run(async {
        let mut rig = rig(RelayOptions::default()).await;
        rig.member.write_all(b"banner").await.unwrap();
        rig.member.shutdown().await.unwrap();
        let mut got = Vec::new();
        rig.client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"banner");
        rig.client.write_all(b"bye").await.unwrap();
        rig.client.shutdown().await.unwrap();
        got.clear();
        rig.member.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"bye");
        assert_eq!((rig.listener_counters.bytes_in.get(), rig.listener_counters.bytes_out.get()), (3, 6));
        assert_eq!((rig.member_counters.bytes_in.get(), rig.member_counters.bytes_out.get()), (3, 6));
        assert_eq!(rig.end().await.reason, EndReason::Finished);
    });
}

#[test]
fn bytes_read_before_go_first_and_are_not_received_twice() {
    run(async {
        let pools = Pools::default();
        let mut early = pools.buffers.get();
        early.put(b"early ");
        let options = RelayOptions { from_client: Some(early), ..RelayOptions::default() };
        let mut rig = rig_with(options, pools).await;
        rig.client.write_all(b"late").await.unwrap();
        let mut got = [0; 10];
        rig.member.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"early late");
        assert_eq!(rig.listener_counters.bytes_in.get(), 4);
        assert_eq!(rig.member_counters.bytes_in.get(), 10);
    });
}

#[test]
fn a_slow_reader_holds_the_sender_back_and_bytes_are_counted_as_they_pass() {
    const LENGTH: usize = 64 << 20;
    run(async {
        let mut rig = rig(RelayOptions::default()).await;
        SockRef::from(&rig.client).set_recv_buffer_size(64 << 10).unwrap();
        let data: Rc<[u8]> = pattern(LENGTH, 1).into();
        let member = {
            let data = data.clone();
            let mut member = rig.member;
            tokio::task::spawn_local(async move {
                member.write_all(&data).await.unwrap();
                member.shutdown().await.unwrap();
                member
            })
        };
        // The client reads nothing: the flow comes to rest, with at most a pipe and the sockets' buffers full.
        let received = &rig.member_counters.bytes_out;
        let mut before = u64::MAX;
        while before != received.get() || before == 0 {
            before = received.get();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(before < LENGTH as u64 / 2, "{before} bytes were taken from the member");
        let between = received.get() - rig.listener_counters.bytes_out.get();
        assert!(between <= crate::conn::PIPE_SIZE as u64, "{between} bytes are in the proxy");
        assert!(!member.is_finished());

        let mut got = 0;
        let mut chunk = vec![0; 200_000];
        loop {
            let n = rig.client.read(&mut chunk).await.unwrap();
            if n == 0 {
                break;
            }
            assert_eq!(chunk[..n], data[got..got + n]);
            got += n;
        }
        assert_eq!(got, LENGTH);
        drop(member.await.unwrap());
        rig.client.shutdown().await.unwrap();
        let end = timeout(PATIENCE, rig.end).await.unwrap().unwrap();
        assert_eq!((end.reason, end.member_to_client), (EndReason::Finished, LENGTH as u64));
        assert_eq!((rig.pools.buffers.lent(), rig.pools.pipes.lent()), (0, 0));
        assert!(rig.pools.pipes.idle() > 0, "it was spliced, and the pipe came back clean");
    });
}

#[test]
fn an_idle_session_holds_no_buffer_and_no_pipe() {
    run(async {
        let mut rig = rig(RelayOptions::default()).await;
        let data = pattern(500_000, 2);
        for _ in 0..3 {
            let mut got = vec![0; data.len()];
            let (sent, received) = tokio::join!(rig.client.write_all(&data), rig.member.read_exact(&mut got));
            sent.unwrap();
            received.unwrap();
            assert!(got == data);
            until("buffers and pipes are given back", || rig.nothing_is_lent()).await;
        }
        assert!(rig.pools.pipes.idle() <= 1 && rig.pools.buffers.idle() <= 2);
        assert!(!rig.end.is_finished());
    });
}

/// What has passed is known to who connects next, whatever has come of the connection by then.
#[test]
fn bytes_count_for_a_client_that_breaks_its_connection() {
    use amphora_model::{RateLimitAction, RateLimitMetric};
    use rate::tests::{address, limits, policy, rule};
    run(async {
        let rules = vec![rule(1, RateLimitMetric::Kbytes, 1, 60)];
        let (_kept, limits) = limits(vec![policy(1, RateLimitAction::Reject, rules)]);
        let limits = std::sync::Arc::new(limits);
        let hash = limits.client(address(1));
        let mut early = Pools::default().buffers.get();
        early.spare()[..2000].fill(b'x');
        early.commit(2000);
        let options = RelayOptions {
            from_client: Some(early),
            charging: Some(crate::local::Charging::by(&limits, address(1))),
            ..RelayOptions::default()
        };
        let rig = rig(options).await;
        // Before anything is looked at.
        SockRef::from(&rig.client).set_linger(Some(Duration::ZERO)).unwrap();
        let Rig { client, member: _member, end, .. } = rig;
        drop(client);
        let end = timeout(PATIENCE, end).await.unwrap().unwrap();
        assert!(matches!(end.reason, EndReason::Aborted(Peer::Client, _)), "{end:?}");
        let now = rate::Moment::after(Duration::ZERO);
        assert!(limits.request(hash, hash, b"/", now).is_some());
    });
}

/// The bound that docs/limits.md names.
#[test]
fn a_relay_ends_within_a_turn_of_its_limit_of_bytes() {
    use amphora_model::{RateLimitAction, RateLimitMetric};
    use rate::tests::{address, limits, policy, rule};
    run(async {
        let rules = vec![rule(1, RateLimitMetric::Kbytes, 10, 60)];
        let (_kept, limits) = limits(vec![policy(1, RateLimitAction::Reject, rules)]);
        let limits = std::sync::Arc::new(limits);
        let options = RelayOptions {
            charging: Some(crate::local::Charging::by(&limits, address(1))),
            ..RelayOptions::default()
        };
        let Rig { mut client, mut member, end, .. } = rig(options).await;
        let sender = tokio::task::spawn_local(async move { client.write_all(&vec![7; 64 << 20]).await });
        let receiver =
            tokio::task::spawn_local(
                async move { tokio::io::copy(&mut member, &mut tokio::io::sink()).await },
            );
        let end = timeout(PATIENCE, end).await.unwrap().unwrap();
        assert!(matches!(end.reason, EndReason::Limited(_)), "{end:?}");
        let turn = 2 * crate::conn::PIPE_SIZE as u64;
        assert!(end.client_to_member < turn, "{end:?}");
        // Both are told.
        let _ = (sender.await.unwrap(), receiver.await.unwrap());
    });
}

#[test]
fn the_state_of_a_session_is_small() {
    run(async {
        let ((_a, mut client), (_b, mut member)) = (ours().await, ours().await);
        let (pools, listener, counters) =
            (Pools::default(), ListenerCounters::default(), MemberCounters::default());
        let relay = relay(&mut client, &mut member, RelayOptions::default(), &pools, &listener, &counters);
        let size = size_of_val(&relay);
        assert!(size <= 1024, "{size} bytes");
    });
}

#[test]
fn copies_where_there_is_no_pipe() {
    run(async {
        let pools = Pools { pipes: crate::conn::PipePool::new(0, 0), ..Pools::default() };
        let mut rig = rig_with(RelayOptions::default(), pools).await;
        let data = pattern(3 << 20, 3);
        let mut got = vec![0; data.len()];
        let (sent, received) = tokio::join!(rig.client.write_all(&data), rig.member.read_exact(&mut got));
        sent.unwrap();
        received.unwrap();
        assert!(got == data);
    });
}

#[test]
fn a_client_that_resets_takes_the_member_with_it() {
    run(async {
        let mut rig = rig(RelayOptions::default()).await;
        rig.client.write_all(b"x").await.unwrap();
        assert_eq!(rig.member.read_u8().await.unwrap(), b'x');
        reset(rig.client);
        let end = timeout(PATIENCE, rig.end).await.unwrap().unwrap();
        assert_eq!(end.reason, EndReason::Aborted(Peer::Client, io::ErrorKind::ConnectionReset));
        assert_eq!(rig.member.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let counters = rig.member_counters;
        assert_eq!((counters.client_aborts.get(), counters.server_aborts.get()), (1, 0));
    });
}

#[test]
fn a_member_that_resets_ends_the_session_after_its_last_bytes() {
    run(async {
        let mut rig = rig(RelayOptions::default()).await;
        rig.client.write_all(b"x").await.unwrap();
        assert_eq!(rig.member.read_u8().await.unwrap(), b'x');
        rig.member.write_all(b"last words").await.unwrap();
        reset(rig.member);
        let mut got = Vec::new();
        rig.client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"last words");
        let end = timeout(PATIENCE, rig.end).await.unwrap().unwrap();
        assert_eq!(end.reason, EndReason::Aborted(Peer::Member, io::ErrorKind::ConnectionReset));
        let counters = rig.member_counters;
        assert_eq!((counters.client_aborts.get(), counters.server_aborts.get()), (0, 1));
        assert_eq!(counters.response_errors.get(), 1);
    });
}

#[test]
fn a_reset_in_the_middle_of_a_transfer_ends_it_and_no_pipe_is_reused_dirty() {
    run(async {
        let mut rig = rig(RelayOptions::default()).await;
        let data = vec![4; 64 << 20];
        let mut member = rig.member;
        let sender = tokio::task::spawn_local(async move { member.write_all(&data).await });
        let mut some = vec![0; 100_000];
        rig.client.read_exact(&mut some).await.unwrap();
        let counters = rig.member_counters.clone();
        until("a pipe is in use", || rig.pools.pipes.lent() == 1).await;
        reset(rig.client);
        let end = timeout(PATIENCE, rig.end).await.unwrap().unwrap();
        assert!(matches!(end.reason, EndReason::Aborted(Peer::Client, _)), "{end:?}");
        assert!(sender.await.unwrap().is_err(), "the member is told");
        assert_eq!(counters.client_aborts.get(), 1);
        assert_eq!((rig.pools.pipes.lent(), rig.pools.buffers.lent()), (0, 0));
    });
}

#[test]
fn a_busy_session_lets_others_run() {
    run(async {
        let (client, mut client_side) = ours().await;
        let (member, mut member_side) = ours().await;
        // Busy peers on threads of their own, so that the session never has to wait for them.
        let (client, member) = (client.into_std().unwrap(), member.into_std().unwrap());
        client.set_nonblocking(false).unwrap();
        member.set_nonblocking(false).unwrap();
        let sender = thread::spawn(move || {
            let mut client = client;
            client.write_all(&vec![0; 64 << 20]).unwrap();
        });
        let receiver = thread::spawn(move || io::copy(&mut &member, &mut io::sink()).unwrap());

        let (pools, listener, member) =
            (Pools::default(), ListenerCounters::default(), MemberCounters::default());
        let options = RelayOptions::default();
        let mut session =
            pin!(relay(&mut client_side, &mut member_side, options, &pools, &listener, &member));
        poll_fn(|cx| {
            let before = listener.bytes_in.get();
            let polled = session.as_mut().poll(cx);
            let carried = listener.bytes_in.get() - before;
            assert!(carried < 2 * crate::conn::PIPE_SIZE as u64, "{carried} bytes in one turn");
            polled
        })
        .await;
        assert_eq!(listener.bytes_in.get(), 64 << 20);
        sender.join().unwrap();
        receiver.join().unwrap();
    });
}

async fn send(stream: &mut tokio::net::tcp::OwnedWriteHalf, data: &[u8], pieces: &[usize]) {
    let mut sent = 0;
    for (i, piece) in pieces.iter().cycle().enumerate() {
        if sent == data.len() {
            break;
        }
        let n = (*piece).min(data.len() - sent);
        stream.write_all(&data[sent..sent + n]).await.unwrap();
        sent += n;
        if i % 3 == 0 {
            yield_now().await;
        }
    }
    stream.shutdown().await.unwrap();
}

async fn receive(stream: &mut tokio::net::tcp::OwnedReadHalf, pieces: &[usize]) -> Vec<u8> {
    let mut got = Vec::new();
    let mut chunk = vec![0; pieces.iter().copied().max().unwrap_or(1)];
    for piece in pieces.iter().cycle() {
        let n = stream.read(&mut chunk[..*piece]).await.unwrap();
        if n == 0 {
            break;
        }
        got.extend_from_slice(&chunk[..n]);
        if *piece % 2 == 0 {
            yield_now().await;
        }
    }
    got
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// However the bytes come and go, they arrive whole and in order, both ways at once.
    #[test]
    fn bytes_out_are_bytes_in(
        up in 0..600_000usize,
        down in 0..600_000usize,
        sends in proptest::collection::vec(prop_oneof![1..2000usize, 2000..120_000usize], 1..8),
        reads in proptest::collection::vec(prop_oneof![100..2000usize, 2000..120_000usize], 1..8),
        small_buffers in any::<bool>(),
    ) {
        // Pieces of a few bytes only where there are few of them.
        let sends: Vec<_> = sends.iter().map(|n| (*n).max(up.max(down) / 2000)).collect();
        run(async {
            let rig = rig(RelayOptions::default()).await;
            if small_buffers {
                for socket in [&rig.client, &rig.member] {
                    SockRef::from(socket).set_recv_buffer_size(64 << 10).unwrap();
                    SockRef::from(socket).set_send_buffer_size(64 << 10).unwrap();
                }
            }
            let (from_client, from_member) = (pattern(up, 5), pattern(down, 6));
            let (mut client_read, mut client_write) = rig.client.into_split();
            let (mut member_read, mut member_write) = rig.member.into_split();
            let ((), (), at_member, at_client) = timeout(PATIENCE, async {
                tokio::join!(
                    send(&mut client_write, &from_client, &sends),
                    send(&mut member_write, &from_member, &sends),
                    receive(&mut member_read, &reads),
                    receive(&mut client_read, &reads),
                )
            }).await.unwrap();
            assert!(at_member == from_client && at_client == from_member);
            let end = timeout(PATIENCE, rig.end).await.unwrap().unwrap();
            assert_eq!(end, RelayEnd {
                reason: EndReason::Finished,
                client_to_member: up as u64,
                member_to_client: down as u64,
            });
            assert_eq!((rig.pools.buffers.lent(), rig.pools.pipes.lent()), (0, 0));
            assert_eq!(rig.listener_counters.bytes_in.get(), up as u64);
            assert_eq!(rig.listener_counters.bytes_out.get(), down as u64);
        });
    }
}
