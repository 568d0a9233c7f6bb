//! How handshakes begin and end.

use rustls::ProtocolVersion::TLSv1_3;

use super::*;

#[tokio::test]
async fn tickets_go_with_the_answer_to_a_request_that_is_there_already() {
    let (mut server, mut client) = begin(sockets().await, configs(&version::TLS13, 2));
    poll_fn(|cx| {
        // The request goes with the client's last word of the handshake.
        let _ = server.poll_handshake(cx);
        client.poll_handshake(cx)
    })
    .await
    .unwrap();
    write(&mut client, b"request").await;
    timeout(PATIENCE, poll_fn(|cx| server.poll_handshake(cx))).await.unwrap().unwrap();
    assert!(server.holds && server.session.wants_write());
    write(&mut server, b"response").await;
    assert!(!server.session.wants_write());
    assert_eq!(read(&mut client, 64).await.unwrap(), b"response");
    let Connection::Client(session) = &client.session else { panic!() };
    assert_eq!(session.tls13_tickets_received(), 2);
}

#[tokio::test]
async fn a_hello_in_records_and_packets_of_one_byte_is_understood() {
    for version in VERSIONS {
        let (mut server, mut client) = begin(sockets().await, configs(version, 2));
        let mut hello = Vec::new();
        while client.session.wants_write() {
            client.session.write_tls(&mut hello).unwrap();
        }
        let shaking = async {
            for (at, _) in hello.iter().enumerate().skip(5) {
                let record = [22, 3, 1, 0, 1, hello[at]];
                for byte in record {
                    client.socket.write_all(&[byte]).await.unwrap();
                    if at % 16 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            }
            poll_fn(|cx| client.poll_handshake(cx)).await.unwrap();
            write(&mut client, b"x").await;
        };
        let (shaken, ()) =
            timeout(PATIENCE, async { tokio::join!(poll_fn(|cx| server.poll_handshake(cx)), shaking) })
                .await
                .unwrap();
        shaken.unwrap();
        assert_eq!(read(&mut server, 8).await.unwrap(), b"x");
    }
}

#[tokio::test]
async fn a_handshake_fails_for_its_reason() {
    // The client does not know the certificate.
    let (server, _) = configs(&version::TLS13, 2);
    let (_, client) = configs(&version::TLS13, 2);
    let (mut server, mut client) = begin(sockets().await, (server, client));
    let (a, b) = timeout(PATIENCE, async {
        tokio::join!(poll_fn(|cx| server.poll_handshake(cx)), poll_fn(|cx| client.poll_handshake(cx)))
    })
    .await
    .unwrap();
    assert!(matches!(a, Err(HandshakeError::Tls(rustls::Error::AlertReceived(_)))), "{a:?}");
    assert!(matches!(b, Err(HandshakeError::Tls(rustls::Error::InvalidCertificate(_)))), "{b:?}");

    // One that speaks plain HTTP.
    let (mut server, client) = begin(sockets().await, configs(&version::TLS13, 2));
    assert_eq!(client.socket.try_write(b"GET / HTTP/1.1\r\n\r\n").unwrap(), 18);
    let a = timeout(PATIENCE, poll_fn(|cx| server.poll_handshake(cx))).await.unwrap();
    assert!(matches!(a, Err(HandshakeError::Tls(rustls::Error::InvalidMessage(_)))), "{a:?}");

    // One that leaves, and one that is reset.
    let (mut server, mut client) = begin(sockets().await, configs(&version::TLS13, 2));
    client.close_silently();
    drop(client);
    let a = timeout(PATIENCE, poll_fn(|cx| server.poll_handshake(cx))).await.unwrap();
    assert!(matches!(a, Err(HandshakeError::Closed)), "{a:?}");
    let (mut server, client) = begin(sockets().await, configs(&version::TLS13, 2));
    SockRef::from(&client.socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let a = timeout(PATIENCE, poll_fn(|cx| server.poll_handshake(cx))).await.unwrap();
    assert!(matches!(a, Err(HandshakeError::Socket(_))), "{a:?}");
}

/// What comes along with the hello, in the same segment, is not waited for a second time.
#[tokio::test]
async fn an_end_that_came_with_the_hello_is_seen_at_once() {
    let unsupported_certificate = [21, 3, 3, 0, 2, 2, 43];
    for version in VERSIONS {
        for behind in [&unsupported_certificate[..], b"GET / HTTP/1.1\r\n\r\n"] {
            let (mut server, mut client) = begin(sockets().await, configs(version, 2));
            let mut sent = Vec::new();
            client.session.write_tls(&mut sent).unwrap();
            sent.extend_from_slice(behind);
            // As who accepts does with what is behind the hello.
            server.feed(&sent);
            let shaken = poll_fn(|cx| Poll::Ready(server.poll_handshake(cx))).await;
            assert!(matches!(shaken, Poll::Ready(Err(HandshakeError::Tls(_)))), "{behind:?}: {shaken:?}");
        }
    }
}

/// What comes right behind the client's last word is no part of the handshake.
#[tokio::test]
async fn garbage_behind_a_handshake_does_not_undo_it() {
    for version in VERSIONS {
        let (mut server, mut client) = begin(sockets().await, configs(version, 0));
        client.send_now(Then::More).unwrap();
        something_comes(&server).await;
        assert!(poll_fn(|cx| Poll::Ready(server.poll_handshake(cx).is_pending())).await);
        while !client.session.wants_write() || client.session.is_handshaking() && version.version == TLSv1_3 {
            something_comes(&client).await;
            let _ = client.pull(Ask::Ready);
        }
        let mut last = Vec::new();
        while client.session.wants_write() {
            client.session.write_tls(&mut last).unwrap();
        }
        last.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
        client.socket.write_all(&last).await.unwrap();
        timeout(PATIENCE, poll_fn(|cx| server.poll_handshake(cx))).await.unwrap().unwrap();
        assert_eq!(read(&mut server, 8).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
