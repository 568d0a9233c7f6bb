#![allow(clippy::unwrap_used)]

mod handshake;

use std::{future::poll_fn, pin::pin, time::Duration};

use proptest::prelude::*;
use rustls::version;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    testing::{
        PATIENCE, VERSIONS, begin, configs, conn, pair, pair_with, read, sockets, was_told_of_the_end, write,
    },
    *,
};
use crate::conn::{Conn, Inlet};

/// Waits until the socket is readable, whatever is in it.
async fn something_comes(stream: &TlsStream) {
    timeout(PATIENCE, stream.socket.readable()).await.unwrap().unwrap();
}

/// The records in ciphertext: their types and lengths.
fn records(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        records.push((*kind, length));
        bytes = &rest[length..];
    }
    records
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect()
}

#[tokio::test]
async fn what_was_decrypted_is_read_without_waiting_for_the_socket() {
    for version in VERSIONS {
        let (mut server, mut client) = pair(version).await;
        for piece in [&b"first"[..], b"second", b"third"] {
            client.session.writer().write_all(piece).unwrap();
        }
        assert!(client.send_now(Then::More).unwrap());
        let mut got = Vec::new();
        while got.len() < 16 {
            got.extend(read(&mut server, 3).await.unwrap());
            assert!(got.len() == 16 || server.holds, "nothing is left to the socket");
        }
        assert_eq!(got, b"firstsecondthird");
        let pending = poll_fn(|cx| Poll::Ready(server.poll_read_ready(cx).is_pending())).await;
        assert!(pending && server.read(&mut [0; 8]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock));
        assert!(server.ahead.capacity() == 0 && server.pool.lent() == 0, "no buffer while it waits");
    }
}

#[tokio::test]
async fn an_inlet_is_filled_from_what_rustls_holds() {
    let (server, mut client) = pair(&version::TLS13).await;
    let all = pattern(60_000);
    let sending = write(&mut client, &all);
    let reading = async {
        let (mut server, mut inlet, mut got) = (conn(server), Inlet::new(&BufferPool::default()), Vec::new());
        while got.len() < 60_000 {
            assert!(poll_fn(|cx| inlet.poll_fill(cx, &mut server)).await.unwrap() > 0);
            // Little at a time, so that the inlet is full now and then.
            let n = inlet.filled().len().min(700);
            got.extend_from_slice(&inlet.filled()[..n]);
            inlet.consume(n);
            while got.len() + inlet.filled().len() >= 60_000 && !inlet.is_empty() {
                let n = inlet.filled().len();
                got.extend_from_slice(inlet.filled());
                inlet.consume(n);
            }
        }
        got
    };
    let ((), got) = timeout(PATIENCE, async { tokio::join!(sending, reading) }).await.unwrap();
    assert!(got == all);
}

#[tokio::test]
async fn tickets_and_new_keys_leave_a_connection_quiet_and_data_and_ends_do_not() {
    for version in VERSIONS {
        for asks in [TlsStream::is_quiet, TlsStream::is_quiet_so_far] {
            let (mut server, mut client) = pair(version).await;
            if version.version == rustls::ProtocolVersion::TLSv1_3 {
                // The tickets, which look to the socket like a word of the member's.
                something_comes(&client).await;
                assert!(asks(&mut client));
                server.session.refresh_traffic_keys().unwrap();
                server.send_now(Then::More).unwrap();
                something_comes(&client).await;
            }
            assert!(asks(&mut client) && asks(&mut server));
            write(&mut server, b"unasked for").await;
            something_comes(&client).await;
            assert!(!asks(&mut client) && !asks(&mut client));

            let (server, mut client) = pair(version).await;
            drop(server);
            let gone = async {
                while asks(&mut client) {
                    client.socket.readable().await.unwrap();
                }
            };
            timeout(PATIENCE, gone).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_connection_that_waits_wakes_up_for_data_and_not_for_tickets() {
    let (mut server, client) = pair(&version::TLS13).await;
    something_comes(&client).await;
    let mut client = conn(client);
    let mut waits = pin!(poll_fn(|cx| client.poll_not_quiet(cx)));
    let early = poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx).is_ready())).await;
    assert!(!early);
    server.session.refresh_traffic_keys().unwrap();
    server.send_now(Then::More).unwrap();
    assert!(timeout(Duration::from_millis(20), &mut waits).await.is_err());
    write(&mut server, b"x").await;
    timeout(PATIENCE, waits).await.unwrap();
}

#[tokio::test]
async fn closing_says_so_and_a_peer_that_just_closes_has_ended_too() {
    for version in VERSIONS {
        // Tickets that are not read would make the end a reset.
        let (mut server, client) = pair_with(configs(version, 0)).await;
        drop(client);
        assert_eq!(read(&mut server, 8).await.unwrap(), b"");
        assert!(was_told_of_the_end(&mut server));

        let (mut server, mut client) = pair_with(configs(version, 0)).await;
        client.close_silently();
        drop(client);
        assert_eq!(read(&mut server, 8).await.unwrap(), b"");
        assert!(!was_told_of_the_end(&mut server));
    }
}

#[tokio::test]
async fn the_last_bytes_and_the_end_are_one_packet() {
    for version in VERSIONS {
        let (mut server, mut client) = pair_with(configs(version, 0)).await;
        let slices = [IoSlice::new(b"head"), IoSlice::new(b"body")];
        assert_eq!(poll_fn(|cx| server.poll_write(cx, &slices, Then::End)).await.unwrap(), 8);
        let mut got = [0; 256];
        // Loopback delivers before send(2) returns: nothing has left yet.
        assert_eq!(sys::recv(client.socket.as_fd(), &mut got), Err(nix::errno::Errno::EAGAIN));
        assert!(server.end());
        let n = sys::recv(client.socket.as_fd(), &mut got).unwrap();
        let kinds: Vec<_> = records(&got[..n]).iter().map(|(kind, _)| *kind).collect();
        // In TLS 1.3 an alert looks like data from outside.
        let alert = if version.version == rustls::ProtocolVersion::TLSv1_3 { 23 } else { 21 };
        assert_eq!(kinds, [23, alert]);
        assert_eq!(sys::recv(client.socket.as_fd(), &mut [0]), Ok(0), "the end came with it");
        client.feed(&got[..n]);
        assert_eq!(read(&mut client, 64).await.unwrap(), b"headbody");
        assert_eq!(read(&mut client, 64).await.unwrap(), b"");
    }
}

#[tokio::test]
async fn a_head_and_a_body_are_one_record() {
    let (mut server, client) = pair_with(configs(&version::TLS13, 0)).await;
    let body = pattern(10_000);
    let slices = [IoSlice::new(b"head"), IoSlice::new(&body)];
    assert_eq!(poll_fn(|cx| server.poll_write(cx, &slices, Then::More)).await.unwrap(), 10_004);
    let mut got = vec![0; 20_000];
    let n = sys::recv(client.socket.as_fd(), &mut got).unwrap();
    // The content type and the tag of AEAD ciphers are 17 bytes.
    assert_eq!(records(&got[..n]), [(23, 10_004 + 17)]);
}

#[tokio::test]
async fn who_has_finished_still_gets_everything() {
    for version in VERSIONS {
        let (mut server, mut client) = pair(version).await;
        write(&mut client, b"question").await;
        poll_fn(|cx| client.poll_shutdown(cx)).await.unwrap();
        assert_eq!(read(&mut server, 64).await.unwrap(), b"question");
        assert_eq!(read(&mut server, 64).await.unwrap(), b"");
        let all = pattern(300_000);
        let sending = async {
            write(&mut server, &all).await;
            poll_fn(|cx| server.poll_shutdown(cx)).await.unwrap();
        };
        let reading = async {
            let mut got = Vec::new();
            loop {
                let piece = read(&mut client, 5000).await.unwrap();
                if piece.is_empty() {
                    return got;
                }
                got.extend(piece);
            }
        };
        let ((), got) = tokio::join!(sending, reading);
        assert!(got == all);
    }
}

/// The last word may find the kernel full: then it is waited for, and the end does not overtake it.
#[tokio::test]
async fn an_end_does_not_overtake_what_goes_before_it() {
    for version in VERSIONS {
        let (mut server, mut client) = pair_with(configs(version, 0)).await;
        let all = pattern(8 << 20);
        server.session.set_buffer_limit(None);
        server.session.writer().write_all(&all).unwrap();
        assert!(!server.end(), "the kernel has not taken all of it");
        assert!(poll_fn(|cx| Poll::Ready(server.poll_shutdown(cx).is_pending())).await);
        let reading = async {
            let mut got = Vec::new();
            loop {
                let piece = read(&mut client, 100_000).await.unwrap();
                if piece.is_empty() {
                    return got;
                }
                got.extend(piece);
            }
        };
        let ended = poll_fn(|cx| server.poll_shutdown(cx));
        let (got, ended) = timeout(PATIENCE, async { tokio::join!(reading, ended) }).await.unwrap();
        ended.unwrap();
        assert!(got == all);
        assert!(was_told_of_the_end(&mut client));
        assert!(server.end(), "it has ended already");
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_its_writer_back() {
    let (mut server, mut client) = pair(&version::TLS13).await;
    for stream in [&server, &client] {
        SockRef::from(&stream.socket).set_send_buffer_size(64 << 10).unwrap();
        SockRef::from(&stream.socket).set_recv_buffer_size(64 << 10).unwrap();
    }
    let all = pattern(4 << 20);
    let mut written = 0;
    loop {
        let slices = [IoSlice::new(&all[written..])];
        match poll_fn(|cx| Poll::Ready(server.poll_write(cx, &slices, Then::More))).await {
            Poll::Ready(n) => written += n.unwrap(),
            Poll::Pending => break,
        }
    }
    assert!(written < all.len() / 2 && server.accepted > 0);
    let waits = server.session.process_new_packets().unwrap().tls_bytes_to_write();
    assert!(waits <= RECORD + 64, "{waits} bytes wait");
    let sending = write(&mut server, &all[written..]);
    let reading = async {
        let mut got = Vec::new();
        while got.len() < all.len() {
            got.extend(read(&mut client, 100_000).await.unwrap());
        }
        got
    };
    let ((), got) = tokio::join!(sending, reading);
    assert!(got == all);
}

#[tokio::test]
async fn floods_of_tickets_and_of_new_keys_end_the_connection() {
    let (_server, mut client) = pair_with(configs(&version::TLS13, 1 + MOST_TICKETS as usize)).await;
    something_comes(&client).await;
    let ended = async {
        while client.is_quiet() {
            client.socket.readable().await.unwrap();
        }
    };
    timeout(PATIENCE, ended).await.unwrap();
    assert!(matches!(client.ended, Some(End::Violated(_))));

    let (mut server, mut client) = pair(&version::TLS13).await;
    for _ in 0..100 {
        client.session.refresh_traffic_keys().unwrap();
    }
    write(&mut client, b"x").await;
    assert_eq!(read(&mut server, 8).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn what_was_good_is_read_before_what_was_not() {
    let (mut server, mut client) = pair(&version::TLS13).await;
    write(&mut client, b"good").await;
    let forged = [&[23, 3, 3, 0, 20][..], &[7; 20]].concat();
    client.socket.write_all(&forged).await.unwrap();
    assert_eq!(read(&mut server, 64).await.unwrap(), b"good");
    assert_eq!(read(&mut server, 64).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(poll_fn(|cx| server.poll_write(cx, &[IoSlice::new(b"x")], Then::More)).await.is_err());
}

#[tokio::test]
async fn tokios_traits_carry_it_too() {
    let (server, client) = pair(&version::TLS13).await;
    let (mut server, mut client) = (conn(server), conn(client));
    let all = pattern(1 << 20);
    let sending = async {
        server.write_all(&all).await.unwrap();
        server.flush().await.unwrap();
        AsyncWriteExt::shutdown(&mut server).await.unwrap();
    };
    let reading = async {
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        got
    };
    let ((), got) = timeout(PATIENCE, async { tokio::join!(sending, reading) }).await.unwrap();
    assert!(got == all);
}

/// What an idle connection costs beside its socket, without the cipher's own state.
#[tokio::test]
async fn a_stream_is_no_larger_than_it_was() {
    let size = size_of::<TlsStream>();
    assert!(size <= 2048, "{size} bytes");
    assert_eq!(size_of::<Conn>(), size_of::<TcpStream>(), "what is plain pays nothing");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However the bytes come and go, they arrive whole and in order, both ways at once, whoever changes keys meanwhile.
    #[test]
    fn bytes_out_are_bytes_in(
        up in 0..200_000usize,
        down in 0..200_000usize,
        writes in proptest::collection::vec(1..40_000usize, 1..6),
        reads in proptest::collection::vec(1..40_000usize, 1..6),
        keys in any::<bool>(),
        tls13 in any::<bool>(),
    ) {
        let least = up.max(down) / 500 + 1;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut server, mut client) = pair(VERSIONS[usize::from(tls13)]).await;
            let (to_server, to_client) = (pattern(up), pattern(down));
            let both = async {
                tokio::join!(
                    carry(&mut server, &to_client, up, &writes, &reads, least, keys && tls13),
                    carry(&mut client, &to_server, down, &writes, &reads, least, keys && tls13),
                )
            };
            let (at_server, at_client) = timeout(PATIENCE, both).await.unwrap();
            assert!(at_server == to_server && at_client == to_client);
        });
    }
}

/// Sends all, and reads so many bytes; both at once, as a session does.
async fn carry(
    stream: &mut TlsStream,
    all: &[u8],
    expected: usize,
    writes: &[usize],
    reads: &[usize],
    least: usize,
    keys: bool,
) -> Vec<u8> {
    let (mut sent, mut got, mut turn) = (0, Vec::new(), 0);
    let mut waits = 0;
    let mut buffer = vec![0; 40_000 + least];
    poll_fn(|cx| {
        loop {
            let mut moved = false;
            if sent < all.len() {
                if waits == 0 {
                    waits = writes[turn % writes.len()].max(least).min(all.len() - sent);
                    turn += 1;
                    if keys && turn % 7 == 0 {
                        stream.session.refresh_traffic_keys().unwrap();
                    }
                }
                let slices = [IoSlice::new(&all[sent..sent + waits])];
                if let Poll::Ready(n) = stream.poll_write(cx, &slices, Then::More) {
                    let n = n.unwrap();
                    (sent, waits, moved) = (sent + n, waits - n, true);
                }
            }
            if got.len() < expected && stream.poll_read_ready(cx).is_ready() {
                let most = reads[turn % reads.len()].max(least);
                moved = true;
                match stream.read(&mut buffer[..most]) {
                    Ok(n) => {
                        assert!(n > 0, "too early an end");
                        got.extend_from_slice(&buffer[..n]);
                    }
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            if sent == all.len() && got.len() == expected {
                return Poll::Ready(std::mem::take(&mut got));
            }
            if !moved {
                return Poll::Pending;
            }
        }
    })
    .await
}
