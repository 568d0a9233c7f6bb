//! Documents that are refused: each with its path and its reason.

mod edits;
mod l7;
mod listener;
mod pool;
mod rate_limit;
mod routing;

use serde_json::{Value, json};

use super::{base, id, set, with};
use crate::{LoadBalancer, MAX_FAULTS, arbitrary};

/// The faults of a document, as lines.
fn faults(document: &Value) -> Vec<String> {
    match LoadBalancer::from_value(document) {
        Ok(_) => Vec::new(),
        Err(refusal) => refusal.faults.iter().map(ToString::to_string).collect(),
    }
}

/// Each case puts a value at a pointer below `loadbalancer`; exactly one fault must come of it, under the path (below
/// `loadbalancer`) and with the words.
fn refused(cases: &[(&str, Value, &str, &str)]) {
    for (pointer, value, path, reason) in cases {
        let found = faults(&with(pointer, value.clone()));
        let start = format!("loadbalancer.{path}: ");
        assert!(
            found.len() == 1 && found[0].starts_with(&start) && found[0].contains(reason),
            "{pointer} = {value}: expected {start}..{reason}.., found {found:#?}"
        );
    }
}

const LISTENER: &str = "/listeners/0";
const POOL: &str = "/pools/0";

#[test]
fn types_and_names() {
    refused(&[
        ("/id", json!("1"), "id", "must be a UUID"),
        ("/id", json!("00000000000040008000000000000001"), "id", "must be a UUID"),
        ("/id", Value::Null, "id", "is required"),
        ("/name", json!(7), "name", "must be a string"),
        ("/name", json!("é".repeat(256)), "name", "not be longer than 255 characters"),
        ("/description", json!("x".repeat(256)), "description", "255"),
        ("/tags", json!(["a", 1]), "tags[1]", "must be a string"),
        ("/admin_state_up", Value::Null, "admin_state_up", "true or false"),
        ("/admin_state_up", json!("true"), "admin_state_up", "true or false"),
        ("/project_id", json!("x".repeat(37)), "project_id", "36"),
        ("/flavor_id", json!("small"), "flavor_id", "must be a UUID"),
        ("/listeners", json!({}), "listeners", "must be a list"),
        ("/listeners/0", json!([]), "listeners[0]", "must be an object"),
        ("/colour", json!("red"), "colour", "is not a field of this object"),
        (
            "/listeners/0/l7policies/0/rules/0/colour",
            json!(1),
            "listeners[0].l7policies[0].rules[0].colour",
            "not a field",
        ),
        ("/pools/0/members/1/colour", Value::Null, "pools[0].members[1].colour", "is not a field"),
    ]);
    assert_eq!(faults(&json!([])), ["must be an object"]);
    assert_eq!(faults(&json!({})), ["loadbalancer: is required"]);
    assert_eq!(faults(&json!({ "loadbalancer": 1 })), ["loadbalancer: must be an object"]);
}

#[test]
fn vips() {
    refused(&[
        ("/vip_address", Value::Null, "vip_address", "is required"),
        ("/vip_address", json!("vip.example.com"), "vip_address", "must be an IPv4 or IPv6 address"),
        ("/vip_address", json!("fe80::1%eth0"), "vip_address", "must be an IPv4 or IPv6 address"),
        ("/vip_address", json!("224.0.0.18"), "vip_address", "multicast"),
        ("/additional_vips", json!([{ "subnet_id": id(2) }]), "additional_vips[0].ip_address", "is required"),
        (
            "/additional_vips",
            json!([{ "ip_address": "192.0.2.1" }]),
            "additional_vips[0].ip_address",
            "another VIP",
        ),
    ]);
}

#[test]
fn several_faults_are_reported_together_and_many_are_counted() {
    let mut document = base();
    set(&mut document, "/vip_address", json!("x"));
    set(&mut document, "/listeners/0/protocol_port", json!(0));
    set(&mut document, "/pools/0/members/0/weight", json!(1000));
    assert_eq!(
        faults(&document),
        [
            "loadbalancer.vip_address: must be an IPv4 or IPv6 address",
            "loadbalancer.pools[0].members[0].weight: must be an integer from 0 to 256",
            "loadbalancer.listeners[0].protocol_port: must be an integer from 1 to 65535",
        ]
    );

    let shape = arbitrary::Shape { pools: 1..=1, members: 300..=300, ..Default::default() };
    let mut document = arbitrary::Generator::new(7).load_balancer(&shape).to_json();
    let members = document.pointer_mut("/loadbalancer/pools/0/members").unwrap().as_array_mut().unwrap();
    members.iter_mut().for_each(|member| member["weight"] = json!("heavy"));
    let found = faults(&document);
    assert_eq!(found.len(), MAX_FAULTS + 1);
    assert_eq!(found[MAX_FAULTS], format!("and {} more faults", 300 - MAX_FAULTS));
}

#[test]
fn a_field_given_twice_is_refused_in_text() {
    let text = base().to_string().replacen("\"protocol\":", "\"protocol\":\"TCP\",\"protocol\":", 1);
    let refusal = LoadBalancer::from_json(text.as_bytes()).unwrap_err();
    assert!(refusal.faults.iter().any(|fault| fault.reason == "is given twice in one object"), "{refusal}");
}

/// Whatever their order in the text, so that the same faults read the same.
#[test]
fn unknown_fields_are_all_found_in_the_order_of_their_names() {
    for n in [3, 64, 65, 200] {
        let names: Vec<_> = (0..n).map(|i| format!("x{i:03}")).collect();
        let mut document = base();
        let text = {
            let lb = document["loadbalancer"].as_object_mut().unwrap();
            lb.remove("listeners");
            let own: Vec<_> = lb.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
            let others: Vec<_> = names.iter().rev().map(|name| format!("\"{name}\": 1")).collect();
            // Known ones after all the others, where there is no bit for them in the first word.
            format!("{{\"loadbalancer\": {{{}, {}}}}}", others.join(", "), own.join(", "))
        };
        let faults = LoadBalancer::from_json(text.as_bytes()).unwrap_err().faults;
        let expected: Vec<_> =
            names.iter().take(crate::MAX_FAULTS).map(|name| format!("loadbalancer.{name}")).collect();
        let found: Vec<_> =
            faults.iter().map(|fault| fault.path.clone()).filter(|path| !path.is_empty()).collect();
        assert_eq!(found, expected);
    }
}
