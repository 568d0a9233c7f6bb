//! The OpenAPI document against the routes, both ways.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::Value;

use super::*;
use crate::{
    rest::{OPENAPI, Resource, route::VrrpResource},
    testing::TestAgent,
    vrrp_client::VrrpAction,
};

const METHODS: [&str; 8] = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE"];

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// Every path and the methods that are documented for it.
fn documented() -> Vec<(String, BTreeSet<String>)> {
    let document = document();
    let methods = |path: &Value| {
        let keys = path.as_object().unwrap().keys().map(|key| key.to_uppercase());
        keys.filter(|key| METHODS.contains(&key.as_str())).collect()
    };
    document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, value)| (path.clone(), methods(value)))
        .collect()
}

fn concrete(path: &str) -> String {
    path.replace("{id}", ID)
        .replace("{pool_id}", POOL)
        .replace("{member_id}", MEMBER)
        .replace("{mac_address}", MAC)
        .replace("{certificate_id}", "web-2026")
}

#[test]
fn every_documented_path_is_routed_with_the_documented_methods() {
    for (path, methods) in documented() {
        let resource = Resource::parse(&concrete(&path)).unwrap_or_else(|e| panic!("{path}: {e:?}"));
        let allowed: BTreeSet<_> = resource.allow().split(", ").map(str::to_owned).collect();
        assert_eq!(allowed, methods, "{path}");
        for method in METHODS {
            let routed = resource.allows(&Method::from_bytes(method.as_bytes()).unwrap());
            assert_eq!(routed, methods.contains(method), "{method} {path}");
        }
    }
}

#[test]
fn every_route_is_documented() {
    let documented: BTreeSet<_> = documented().into_iter().map(|(path, _)| path).collect();
    // The match makes a new resource a compile error here until its path is named.
    let path = |resource: &Resource| match resource {
        Resource::Version => "/2.0",
        Resource::Info => "/2.0/info",
        Resource::Health => "/2.0/health",
        Resource::OpenApi => "/2.0/openapi.json",
        Resource::Metrics => "/metrics",
        Resource::LoadBalancer(_) => "/2.0/loadbalancers/{id}",
        Resource::Status(_) => "/2.0/loadbalancers/{id}/status",
        Resource::Explain(_) => "/2.0/loadbalancers/{id}/explain",
        Resource::Stats(_) => "/2.0/loadbalancers/{id}/stats",
        Resource::Member(..) => "/2.0/loadbalancers/{id}/pools/{pool_id}/members/{member_id}",
        Resource::Certificates => "/2.0/certificates",
        Resource::Certificate(_) => "/2.0/certificates/{certificate_id}",
        Resource::Interfaces => "/2.0/interfaces",
        Resource::Interface(_) => "/2.0/interfaces/{mac_address}",
        Resource::Vrrp(VrrpResource::Configuration) => "/2.0/vrrp",
        Resource::Peers => "/2.0/peers",
        Resource::Vrrp(VrrpResource::Status) => "/2.0/vrrp/status",
        Resource::Vrrp(VrrpResource::Action(VrrpAction::Start)) => "/2.0/vrrp/start",
        Resource::Vrrp(VrrpResource::Action(VrrpAction::Stop)) => "/2.0/vrrp/stop",
        Resource::Vrrp(VrrpResource::Action(VrrpAction::HandOver)) => "/2.0/vrrp/hand-over",
        Resource::Vrrp(VrrpResource::Action(VrrpAction::Resume)) => "/2.0/vrrp/resume",
    };
    let (lb, pool, member) = (ID.parse().unwrap(), POOL.parse().unwrap(), MEMBER.parse().unwrap());
    let named = [
        Resource::Version,
        Resource::Info,
        Resource::Health,
        Resource::OpenApi,
        Resource::Metrics,
        Resource::LoadBalancer(lb),
        Resource::Status(lb),
        Resource::Explain(lb),
        Resource::Stats(lb),
        Resource::Member(lb, pool, member),
        Resource::Certificates,
        Resource::Certificate("web-2026".parse().unwrap()),
        Resource::Interfaces,
        Resource::Interface(MAC.parse().unwrap()),
        Resource::Vrrp(VrrpResource::Configuration),
        Resource::Vrrp(VrrpResource::Status),
        Resource::Peers,
    ];
    let actions = VrrpAction::ALL.map(|action| Resource::Vrrp(VrrpResource::Action(action)));
    let all: Vec<_> = named.into_iter().chain(actions).collect();
    for resource in &all {
        assert_eq!(Resource::parse(&concrete(path(resource))), Ok(resource.clone()));
    }
    assert_eq!(all.iter().map(|resource| path(resource).to_owned()).collect::<BTreeSet<_>>(), documented);
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(root: &Value, value: &Value) {
        match value {
            Value::Object(object) => {
                if let Some(reference) = object.get("$ref") {
                    let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
                    assert!(root.pointer(pointer).is_some(), "{pointer}");
                }
                object.values().for_each(|value| walk(root, value));
            }
            Value::Array(array) => array.iter().for_each(|value| walk(root, value)),
            _ => {}
        }
    }
    let document = document();
    walk(&document, &document);
}

/// What the server really answers to every method of every path is a documented status.
#[tokio::test]
async fn answers_are_documented() {
    let agent = TestAgent::new().await;
    let document = document();
    for prepared in [false, true] {
        if prepared {
            agent.put(&lb(), DOCUMENT).await;
            agent.put("/2.0/vrrp", VRRP).await;
        }
        for (path, methods) in documented() {
            for method in METHODS.into_iter().filter(|method| *method != "DELETE" || prepared) {
                let body = match (method, path.as_str()) {
                    ("PUT", "/2.0/vrrp") => VRRP,
                    ("PUT", "/2.0/peers") if prepared => PEERS,
                    ("PUT", path) if path.ends_with("{id}") => DOCUMENT,
                    _ => "",
                };
                let verb = Method::from_bytes(method.as_bytes()).unwrap();
                let answer = agent.request(verb, &concrete(&path), body).await;
                let status = answer.status.as_u16().to_string();
                if methods.contains(method) {
                    let responses = &document["paths"][&path][method.to_lowercase()]["responses"];
                    assert!(responses[&status].is_object(), "{method} {path}: {status} is not documented");
                } else {
                    assert_eq!(status, "405", "{method} {path}");
                    let allow = answer.headers["allow"].to_str().unwrap();
                    assert_eq!(allow.split(", ").map(str::to_owned).collect::<BTreeSet<_>>(), methods);
                }
            }
        }
    }
    assert_eq!(agent.get("/2.0/openapi.json").await.json(), document);
}
