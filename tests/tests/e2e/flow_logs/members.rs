//! Members with whom TLS does not come about: how often they are tried, what clients are told, and what the line says, beside HAProxy.

use std::{cell::RefCell, sync::Arc};

use amphora_tests::{Backend, Certificates, L7Policy, L7Rule, TlsClient, TlsMember, eventually};
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    FIELDS,
    pair::{Backing, Front, Pair, Timeouts},
};

/// A member that reads a hello and says this, or nothing, or is never heard of again.
async fn saying(answer: Option<&'static [u8]>) -> Backend {
    Backend::tcp("no TLS", move |mut stream| async move {
        let mut hello = [0; 4096];
        let _ = stream.read(&mut hello).await;
        match answer {
            Some(answer) => drop(stream.write_all(answer).await),
            None => drop(stream.read_to_end(&mut Vec::new()).await),
        }
    })
    .await
}

/// Two members of each kind, and how often they are tried for one request.
async fn members(certificates: &Certificates) -> Vec<(&'static str, [Backend; 2], usize)> {
    let of = async |certificates: &Certificates, id| TlsMember::start(certificates, id, false).await.backend;
    let stranger = Certificates::new();
    let (ours, theirs) = (certificates, &stranger);
    let plain = Some(&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"[..]);
    // A fatal alert, handshake_failure; the beginning of a hello.
    let (alert, half) = (Some(&b"\x15\x03\x03\x00\x02\x02\x28"[..]), Some(&b"\x16\x03\x03\x00\x7a\x02"[..]));
    vec![
        // Who has asked for this host would not get it from another member either.
        ("the name of another", [of(ours, "other").await, of(ours, "other").await], 1),
        ("another authority", [of(theirs, "server").await, of(theirs, "server").await], 4),
        ("expired", [of(ours, "expired").await, of(ours, "expired").await], 4),
        ("revoked", [of(ours, "gone").await, of(ours, "gone").await], 4),
        ("plain", [saying(plain).await, saying(plain).await], 4),
        ("an alert", [saying(alert).await, saying(alert).await], 4),
        ("half a hello", [saying(half).await, saying(half).await], 4),
        ("an end", [saying(Some(b"")).await, saying(Some(b"")).await], 4),
        ("silence", [saying(None).await, saying(None).await], 4),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_do_not_shake_hands_are_tried_and_told_of_as_by_haproxy() {
    let certificates = Certificates::new();
    certificates.issue("other", &["other.example"]);
    certificates.issue_expired("expired", &["shop.example"]);
    certificates.issue("gone", &["shop.example"]);
    certificates.revoke("revoked", &["gone"]);
    let good = TlsMember::start(&certificates, "server", false).await;
    let kinds = members(&certificates).await;
    let (mut pools, mut policies) = (Vec::new(), Vec::new());
    for (_, [one, two], _) in &kinds {
        for addresses in
            [&[one.address][..], &[one.address, two.address], &[one.address, good.backend.address]]
        {
            let backing = Backing::new("HTTP", addresses).verified_by(&certificates);
            // The first that says so is taken.
            let path = format!("/{:02}", pools.len());
            policies.push((
                L7Policy::to_pool(&backing.pool, L7Rule::path(&path)),
                format!(" use_backend {}:LISTENER if {{ path_beg {path} }}\n", backing.pool.id),
            ));
            pools.push(backing);
        }
    }
    let timeouts = Timeouts { client: 30_000, connect: 300, server: 30_000 };
    let front = Front::Https(&certificates);
    let directive = format!("log-format \"{}\"", FIELDS.replace('"', "\\\""));
    let started = Pair::start_on(front, FIELDS, &directive, timeouts, &pools, policies).await;
    let Some(mut pair) = started else { return };

    let client = Arc::new(certificates.client(&[&TLS13], &["http/1.1"]));
    for (n, (kind, [one, two], tries)) in kinds.iter().enumerate() {
        for (at, beside) in ["alone", "two of them", "beside a good one"].into_iter().enumerate() {
            let what = format!("{kind}, {beside}");
            let path = format!("/{:02}", n * 3 + at);
            let statuses = RefCell::new(Vec::new());
            pair.compare(&what, 1, async |address| {
                let before = one.connections() + two.connections();
                let mut client = TlsClient::connect(address, &client, "shop.example").await.unwrap();
                let status = client.get(&path, "").await.unwrap().status();
                statuses.borrow_mut().push(status);
                if beside != "beside a good one" {
                    eventually(&format!("{tries} connections: {what}"), async || {
                        (one.connections() + two.connections() - before == *tries).then_some(())
                    })
                    .await;
                }
            })
            .await;
            let expected = if beside == "beside a good one" && *tries > 1 { 200 } else { 503 };
            // Of two attempts the second may begin with the good one.
            let statuses = statuses.into_inner();
            assert_eq!(statuses[..2], [expected; 2], "{what}");
        }
    }
    pair.end();
}
