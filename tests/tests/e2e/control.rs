//! The control socket: changes that nothing cuts half way, and peers that hang.

use std::{io, time::Duration};

use amphora_tests::{Backend, Client, Document, L7Policy, L7Rule, Listener, Proxy, eventually, in_time};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::Instant,
};

fn put(document: &Document) -> String {
    let body = document.to_json().to_string();
    format!("PUT /loadbalancer HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Two documents for one load balancer, each with a port of its own.
async fn two_versions(member: &Backend) -> [Document; 2] {
    let a = Document::http([member]);
    let mut b = a.clone();
    b.listeners[0] = Listener::http().to(&b.pools[0]).port(amphora_tests::free_port(b.vip));
    [a, b]
}

/// Costly enough that whoever asks for it is gone before it is compiled.
fn costly(document: &Document) -> Document {
    let mut document = document.clone();
    for number in 0..100 {
        let rule = L7Rule::new("PATH", "REGEX", &format!("^/{number}/[a-z]{{1,40}}(x|y){{1,20}}$"));
        document.listeners[0].policies.push(L7Policy::new("REJECT", rule));
    }
    document
}

/// Waits until nothing changes any more, and holds what the proxy says against what its workers do.
async fn agrees(proxy: &Proxy, versions: &[Document]) -> usize {
    eventually("all answers agree", async || {
        let told = proxy.request("GET", "/loadbalancer", "").await.unwrap();
        let told: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
        let port = told["loadbalancer"]["listeners"][0]["protocol_port"].as_u64()?;
        let running = versions.iter().position(|v| u64::from(v.listeners[0].port) == port)?;
        for (index, version) in versions.iter().enumerate() {
            let open = Client::try_connect(version.address()).await.is_ok();
            if open != (index == running) {
                return None;
            }
        }
        let listeners: Vec<_> = proxy.stats().await.listeners.into_keys().collect();
        (listeners == [versions[running].listeners[0].id]).then_some(running)
    })
    .await
}

#[tokio::test]
async fn a_change_goes_on_when_who_asked_for_it_has_finished_sending_or_is_gone() {
    let member = Backend::named("a").await;
    let [a, b] = two_versions(&member).await;
    let (costly_a, costly_b) = (costly(&a), costly(&b));
    let mut proxy = Proxy::start(a.clone()).await;
    for round in 0..6 {
        let (wanted, other) = if round % 2 == 0 { (&costly_b, &costly_a) } else { (&costly_a, &costly_b) };
        let mut asking = UnixStream::connect(proxy.control()).await.unwrap();
        asking.write_all(put(wanted).as_bytes()).await.unwrap();
        asking.shutdown().await.unwrap();
        if round < 2 {
            // It is answered all the same.
            let mut answer = String::new();
            in_time("the change is answered", asking.read_to_string(&mut answer)).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"changed\":true"), "{answer}");
        } else {
            // Or whoever asked is gone at one moment or another.
            tokio::time::sleep(Duration::from_micros(300 * round)).await;
            drop(asking);
        }
        // The change may come about between the two, but only once.
        let mut changes = 0;
        loop {
            let running = agrees(&proxy, &[wanted.clone(), other.clone()]).await;
            if !proxy.apply(if running == 0 { wanted } else { other }).await.changed {
                break;
            }
            changes += 1;
            assert!(changes < 2, "round {round}: what it says runs does not run");
        }
        agrees(&proxy, &[wanted.clone(), other.clone()]).await;
    }
    // One after the other on one connection.
    let mut pipelining = UnixStream::connect(proxy.control()).await.unwrap();
    let all: String = [&b, &a, &costly_b, &a, &b].iter().map(|document| put(document)).collect();
    pipelining.write_all(all.as_bytes()).await.unwrap();
    pipelining.shutdown().await.unwrap();
    let mut answers = String::new();
    in_time("all are answered", pipelining.read_to_string(&mut answers)).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 5, "{answers}");
    assert_eq!(agrees(&proxy, &[a.clone(), b.clone()]).await, 1);
    assert!(!proxy.apply(&b).await.changed);
}

#[tokio::test]
async fn changes_that_are_asked_for_at_once_happen_one_after_the_other() {
    let member = Backend::named("a").await;
    let [a, b] = two_versions(&member).await;
    let (a, b) = (costly(&a), costly(&b));
    let mut proxy = Proxy::start(a.clone()).await;
    for _ in 0..3 {
        let (to_a, to_b) = (a.to_json().to_string(), b.to_json().to_string());
        let (first, second, third, info) = tokio::join!(
            proxy.request("PUT", "/loadbalancer", &to_b),
            proxy.request("DELETE", "/loadbalancer", ""),
            proxy.request("PUT", "/loadbalancer", &to_a),
            proxy.request("GET", "/info", ""),
        );
        for answer in [first, second, third, info] {
            assert_eq!(answer.unwrap().status(), 200);
        }
        proxy.apply(&a).await;
        assert_eq!(agrees(&proxy, &[a.clone(), b.clone()]).await, 0);
    }
}

#[tokio::test]
async fn what_is_checked_is_judged_as_a_change_and_changes_nothing() {
    let member = Backend::named("a").await;
    let [a, b] = two_versions(&member).await;
    let mut proxy = Proxy::start(a.clone()).await;
    let generation = proxy.apply(&a).await.generation;
    let mut faulty = b.clone();
    faulty.listeners[0].policies.push(L7Policy::new("REJECT", L7Rule::new("PATH", "REGEX", "(")));
    let faulty = faulty.to_json().to_string();
    for (document, status) in [
        (b.to_json().to_string(), 200),
        (a.to_json().to_string(), 200),
        (faulty.clone(), 400),
        ("{".into(), 400),
    ] {
        let checked = proxy.request("PUT", "/check", &document).await.unwrap();
        assert_eq!(checked.status(), status, "{}", checked.text());
        if status == 400 {
            let refused = proxy.request("PUT", "/loadbalancer", &document).await.unwrap();
            assert_eq!((refused.status(), refused.text()), (400, checked.text()));
        }
    }
    // Nor do many at once, of which each takes its turn with the changes.
    let (costly, same) = (costly(&b).to_json().to_string(), a.to_json().to_string());
    let (first, second, change) = tokio::join!(
        proxy.request("PUT", "/check", &costly),
        proxy.request("PUT", "/check", &faulty),
        proxy.request("PUT", "/loadbalancer", &same),
    );
    assert_eq!([first, second, change].map(|answer| answer.unwrap().status()), [200, 400, 200]);
    assert_eq!(agrees(&proxy, &[a.clone(), b]).await, 0);
    assert_eq!(proxy.apply(&a).await.generation, generation);
    for method in ["GET", "DELETE"] {
        assert_eq!(proxy.request(method, "/check", "").await.unwrap().status(), 405);
    }
}

#[tokio::test]
async fn the_end_of_the_process_does_not_cut_a_change() {
    let member = Backend::named("a").await;
    for _ in 0..3 {
        let [a, b] = two_versions(&member).await;
        let mut proxy = Proxy::start(a.clone()).await;
        let mut asking = UnixStream::connect(proxy.control()).await.unwrap();
        asking.write_all(put(&costly(&b)).as_bytes()).await.unwrap();
        proxy.signal(nix::sys::signal::Signal::SIGTERM);
        let mut answer = String::new();
        let read: io::Result<_> = in_time("it ends", asking.read_to_string(&mut answer)).await;
        // Done or refused, when it was told at all.
        if read.is_ok() && !answer.is_empty() {
            assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 503"), "{answer}");
        }
        assert!(proxy.ended().await.success());
    }
}

#[tokio::test]
async fn peers_that_hang_do_not_delay_the_next() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut calm = Duration::ZERO;
    for _ in 0..5 {
        let begun = Instant::now();
        assert_eq!(proxy.request("GET", "/info", "").await.unwrap().status(), 200);
        calm = calm.max(begun.elapsed());
    }
    let mut hanging = Vec::new();
    for kind in [
        "",
        "PUT /loadbal",
        "PUT /loadbalancer HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n{",
        "reads nothing",
    ] {
        for _ in 0..40 {
            let mut peer = UnixStream::connect(proxy.control()).await.unwrap();
            if kind == "reads nothing" {
                let request = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(40);
                let _ = peer.write_all(request.as_bytes()).await;
            } else {
                let _ = peer.write_all(kind.as_bytes()).await;
            }
            hanging.push(peer);
        }
        let begun = Instant::now();
        assert_eq!(proxy.request("GET", "/info", "").await.unwrap().status(), 200);
        let took = begun.elapsed();
        // Those that hang are waited for 10 s each; whoever had to wait for one of them would take as long.
        assert!(took < Duration::from_secs(3) + calm, "{took:?} after {kind:?}");
    }
}
