#![allow(clippy::unwrap_used)]

use std::net::TcpListener;

use super::*;
use crate::{
    backend::{Backend, Service},
    process,
    tls::{Identities, Offer},
};

fn backend(service: Service) -> (Backend, SocketAddr) {
    let backend = Backend::start(&[service], process::cores().unwrap()[0]).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], backend.ports()[0]));
    (backend, address)
}

fn until(n: u64) -> impl FnMut(Instant, &Tally) -> Command {
    move |_, tally| if tally.exchanges >= n { Command::Stop } else { Command::Continue }
}

#[test]
fn each_kind_of_exchange_works_against_the_backend() {
    for (service, exchange) in [
        (Service::Http, Exchange::http(128, true)),
        (Service::Http, Exchange::http(10 * 1024, true)),
        (Service::Http, Exchange::http(128, false)),
        (Service::Tcp, Exchange::tcp(false)),
        (Service::Tcp, Exchange::tcp(true)),
    ] {
        let (_backend, address) = backend(service);
        let tally = exchanges(address, &exchange, 8, None, &mut until(500)).unwrap();
        assert_eq!(tally.failed(), 0, "{:?}", tally.failures);
        assert!(tally.exchanges >= 500);
        assert_eq!(tally.latency.count(), tally.exchanges);
        assert_eq!(tally.connections > 8, !exchange.keep_alive);
    }
}

#[test]
fn exchanges_over_tls_with_full_handshakes_and_resumed_ones() {
    let identities = Identities::new().unwrap();
    let core = process::cores().unwrap()[0];
    let backend = Backend::with_tls(&[Service::Https], Some(identities.member().unwrap()), core).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], backend.ports()[0]));
    let tls = Some(identities.client(Offer::Http1).unwrap());
    for (length, keep_alive, resumes) in
        [(128, true, false), (10 * 1024, true, false), (128, false, false), (10 * 1024, false, true)]
    {
        let target = Target { address, tls: tls.clone(), resumes };
        let exchange = Exchange::http(length, keep_alive);
        let tally = exchanges(&target, &exchange, 4, None, &mut until(100)).unwrap();
        assert_eq!(tally.failed(), 0, "{:?}", tally.failures);
        let [full, resumed] = tally.handshakes;
        assert_eq!(full + resumed, tally.connections);
        match (keep_alive, resumes) {
            (true, _) => assert_eq!((full, resumed), (4, 0)),
            (false, false) => assert!(full >= 100 && resumed == 0),
            (false, true) => assert!(full == 4 && resumed >= 96, "{full} {resumed}"),
        }
    }
    let strict =
        Target { address, tls: Some(identities.strict_client(Offer::Http1).unwrap()), resumes: false };
    once(&strict, &Exchange::http(128, true)).unwrap();
    let others = Identities::new().unwrap();
    for tls in
        [others.strict_client(Offer::Http1), others.client(Offer::Http1), identities.client(Offer::Http2)]
    {
        let wrong = Target { address, tls: Some(tls.unwrap()), resumes: false };
        assert!(once(&wrong, &Exchange::http(128, true)).is_err());
    }
}

#[test]
fn a_window_counts_between_its_probes() {
    let (_backend, address) = backend(Service::Http);
    let exchange = Exchange::http(128, true);
    let mut probes = 0;
    let window = measure(
        Duration::from_millis(20),
        Duration::from_millis(60),
        || {
            probes += 1;
            Ok(probes)
        },
        |conduct| exchanges(address, &exchange, 2, None, conduct),
    )
    .unwrap();
    assert_eq!((window.before, window.after), (1, 2));
    assert!(window.elapsed >= Duration::from_millis(60) && window.tally.exchanges > 0);
}

#[test]
fn a_rate_is_not_exceeded() {
    let (_backend, address) = backend(Service::Http);
    for keep_alive in [true, false] {
        let exchange = Exchange::http(128, keep_alive);
        let begun = Instant::now();
        let tally = exchanges(address, &exchange, 4, Some(500.0), &mut until(60)).unwrap();
        assert_eq!(tally.failed(), 0, "{:?}", tally.failures);
        // The first four are spread over the first period, all others wait for their time.
        assert!(begun.elapsed() >= Duration::from_secs_f64((tally.exchanges - 4) as f64 / 500.0 - 0.01));
    }
}

#[test]
fn bulk_counts_bytes() {
    let (_backend, address) = backend(Service::Tcp);
    let mut conduct = |_, tally: &Tally| {
        if tally.bytes > 50_000_000 { Command::Stop } else { Command::Continue }
    };
    assert!(bulk(address, 4, &mut conduct).unwrap().bytes > 50_000_000);
}

#[test]
fn failures_are_counted_and_end_a_hopeless_run() {
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(once(refused, &Exchange::http(1, true)).is_err());

    let (_backend, address) = backend(Service::Http);
    let wrong = Exchange::get("/nowhere", "", 200, None);
    let error = exchanges(address, &wrong, 4, None, &mut |_, _| Command::Continue).unwrap_err().to_string();
    assert!(error.contains("Status") && error.contains("404"), "{error}");
    assert!(once(address, &Exchange::get("/nowhere", "", 404, None)).is_ok());
}
