//! What `serve` tells an agent.

use std::collections::BTreeMap;

use amphora_controller::{
    client::TlsOptions,
    serve::amphora::{Agent, Driver, Orders, orders::Pair},
};
use tokio::sync::watch;

use super::*;

#[tokio::test]
async fn one_of_a_pair_that_refuses_its_document_is_told_of_the_other_where_it_serves() {
    let setup = Setup::new();
    let tls = TlsOptions { certs: Some(setup.certs()), ..TlsOptions::default() };
    let (_tls, configs) = watch::channel(tls.client_config().unwrap());
    let (driver, agent) =
        (Driver::new(configs), Agent { id: AMPHORA.to_owned(), address: setup.agent.address });
    let orders = |port: u16, other: &str| Orders {
        load_balancer: LB.to_owned(),
        interfaces: Vec::new(),
        certificates: BTreeMap::new(),
        document: json!({"loadbalancer": {"id": LB, "listeners": [{"id": LISTENER, "protocol_port": port}]}}),
        pair: Some(Pair {
            vrrp: json!({"instances": [{"name": LB, "unicast": {"peers": [other]}}]}),
            peers: json!({"peers": {"listen": "192.0.2.1:1025", "peer": format!("{other}:1025")}}),
        }),
    };
    let told = || {
        let state = setup.agent.state.lock().unwrap();
        let vrrp = state.vrrp.clone().map(|(_, text)| text);
        [vrrp, state.peers.as_ref().map(ToString::to_string)]
    };
    // The fake refuses port 0.
    driver.apply(&agent, &orders(0, "192.0.2.2")).await.unwrap_err();
    assert_eq!(told(), [None, None], "what has nothing to serve has no addresses");
    driver.apply(&agent, &orders(80, "192.0.2.2")).await.unwrap();
    let refusal = driver.apply(&agent, &orders(0, "192.0.2.3")).await.unwrap_err();
    assert!(refusal.to_string().contains("protocol_port"), "{refusal}");
    for text in told() {
        assert!(text.as_ref().is_some_and(|text| text.contains("192.0.2.3")), "{text:?}");
    }
}
