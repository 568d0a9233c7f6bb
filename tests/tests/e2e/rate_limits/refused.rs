//! Requests that are not understood count, as with HAProxy.

use amphora_tests::{
    Backend, Client, End, Proxy,
    http2::{Http2Client, request},
};

use super::{DAY, haproxy, http, policy, rule, source, statuses};

/// One that names two hosts.
const ODD: &str = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";

#[tokio::test]
async fn what_is_not_understood_counts_as_with_haproxy() {
    let member = Backend::named("member").await;
    let proxy = Proxy::start(http(&member, vec![policy("DENY", vec![rule("REQUESTS", 3, DAY)])])).await;
    let deny = " tcp-request connection track-sc0 src\n http-request deny deny_status 429 if { sc_http_req_rate(0) gt 3 }\n";
    let haproxy = haproxy(&member, deny).await;
    for address in
        [Some(proxy.address()), haproxy.as_ref().map(|haproxy| haproxy.address)].into_iter().flatten()
    {
        for _ in 0..2 {
            let mut client = Client::connect_from(source(1), address).await;
            client.send(ODD).await;
            assert_eq!(client.response().await.status(), 400);
        }
        assert_eq!(statuses(address, source(1), 2).await, [200, 429], "{address}");
        assert_eq!(statuses(address, source(2), 1).await, [200], "{address}: nobody else's");
    }
    let mut tunnel = Client::connect_from(source(3), proxy.address()).await;
    tunnel.send("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n").await;
    assert_eq!(tunnel.response().await.status(), 405);
    assert_eq!(statuses(proxy.address(), source(3), 3).await, [200, 200, 429]);
}

/// Their connection stays, however many there are.
#[tokio::test]
async fn streams_that_are_not_understood_count_with_their_bytes() {
    let member = Backend::named("member").await;
    let policies = vec![
        policy("REJECT", vec![rule("REQUESTS", 10, DAY)]),
        policy("DENY", vec![rule("KBYTES", 10, DAY)]),
    ];
    let proxy = Proxy::start(http(&member, policies)).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let too_many = || {
        let mut request = request("GET", "/");
        for n in 0..120 {
            request.headers_mut().append("x", format!("{n:060}").parse().unwrap());
        }
        request
    };
    assert_eq!(client.get("/").await.status, Some(200));
    for _ in 0..5 {
        assert_eq!(client.ask(too_many(), None, None).await.status, Some(431));
    }
    assert_eq!(client.get("/").await.status, Some(429), "more than 10 KiB have come");
    for _ in 0..3 {
        assert_eq!(client.ask(too_many(), None, None).await.status, Some(431));
    }
    // The eleventh.
    assert_eq!(client.ask(too_many(), None, None).await.status, None);
    let mut client = proxy.client().await;
    client.send(ODD).await;
    assert!(matches!(client.end().await, End::Reset), "in HTTP/1.1, too");
}
