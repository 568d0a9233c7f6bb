//! Clients are let go before the VIP moves, as the VRRP daemon asks for it on the fitness socket.

use std::time::Duration;

use amphora_tests::{Backend, Client, Document, Proxy, Step, eventually, in_time};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// The fitness socket of a proxy.
pub(crate) struct Fitness(UnixStream);

impl Fitness {
    pub(crate) async fn of(proxy: &Proxy) -> Self {
        let mut path = proxy.control().into_os_string();
        path.push(".fitness");
        Self(UnixStream::connect(path).await.unwrap())
    }

    pub(crate) async fn ask(&mut self, octet: u8) -> u8 {
        self.0.write_all(&[octet]).await.unwrap();
        let mut answer = [0];
        in_time("an answer", self.0.read_exact(&mut answer)).await.unwrap();
        answer[0]
    }
}

/// Whether somebody new is let in.
async fn is_open(proxy: &Proxy) -> bool {
    let connecting = Client::try_connect(proxy.address());
    tokio::time::timeout(Duration::from_millis(200), connecting)
        .await
        .is_ok_and(|connected| connected.is_ok())
}

#[tokio::test]
async fn clients_go_after_their_response_and_nobody_new_comes_until_resumed() {
    let member = Backend::http("a", |request| match request.target() {
        "/slow" => vec![Step::ReadBody, Step::Wait, Step::response("200 OK", "", "slow")],
        _ => Step::ok("a"),
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut idle = proxy.client().await;
    assert_eq!(idle.get("/").await.text(), "a");
    let mut busy = proxy.client().await;
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    proxy.until_member(0, "the member has it", |member| member.active_sessions == 1).await;

    let mut fitness = Fitness::of(&proxy).await;
    assert_eq!(fitness.ask(b'q').await, b'b', "somebody is served");
    assert!(idle.ends_within(Duration::from_secs(5)).await);
    assert_eq!(fitness.ask(b'?').await, b'+', "it is fit all the same");
    if is_open(&proxy).await {
        eprintln!("SKIPPED: this host lets no plain user attach a filter to a socket");
        return;
    }
    member.proceed();
    let response = busy.response().await;
    assert_eq!((response.text(), response.field("connection")), ("slow".to_owned(), Some("close")));
    eventually("nobody is left", async || (fitness.ask(b'q').await == b'd').then_some(())).await;
    assert!(!is_open(&proxy).await);

    assert_eq!(fitness.ask(b'r').await, b'+');
    let mut client = proxy.client().await;
    for _ in 0..2 {
        let response = client.get("/").await;
        assert_eq!((response.text(), response.field("connection")), ("a".to_owned(), None));
    }
}

#[tokio::test]
async fn they_come_in_again_when_the_connection_closes_and_a_change_keeps_them_out() {
    let member = Backend::named("a").await;
    let mut proxy = Proxy::start(Document::http([&member])).await;
    let mut fitness = Fitness::of(&proxy).await;
    assert_eq!(fitness.ask(b'q').await, b'd');
    if is_open(&proxy).await && is_open(&proxy).await {
        eprintln!("SKIPPED: this host lets no plain user attach a filter to a socket");
        return;
    }
    proxy
        .change(|document| {
            let listener = document.listeners.remove(0).with("timeout_client_data", 40_000);
            document.listeners.push(listener);
        })
        .await;
    assert!(!is_open(&proxy).await);
    drop(fitness);
    eventually("they are let in", async || is_open(&proxy).await.then_some(())).await;
    assert_eq!(proxy.client().await.get("/").await.text(), "a");
}
