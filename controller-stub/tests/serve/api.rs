//! Requests of Octavia's API.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use amphora_controller::serve::{config::Config, network::Networks};
use serde_json::{Value, json};

use crate::ground::Serve;

/// What `serve` answers: status and body.
pub(crate) fn request(serve: &Serve, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let (status, text) = ask(serve, method, &format!("/v2/lbaas/{path}"), body);
    (status, serde_json::from_str(&text).unwrap_or_default())
}

/// The same, of a `serve` that may end meanwhile; `None` when there is no answer, or not all of it.
pub(crate) fn try_request(serve: &Serve, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
    let room = if path.starts_with("octavia/") { "" } else { "lbaas/" };
    let (status, text) = try_ask(serve, method, &format!("/v2/{room}{path}"), body)?;
    let answer = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).ok()? };
    Some((status, answer))
}

/// What `serve` answers to a request for any path.
pub(crate) fn ask(serve: &Serve, method: &str, path: &str, body: &Value) -> (u16, String) {
    try_ask(serve, method, path, body).unwrap()
}

fn try_ask(serve: &Serve, method: &str, path: &str, body: &Value) -> Option<(u16, String)> {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let answer = serve.host.inside(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9876").ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: serve\r\nConnection: close\r\nX-Project-Id: p\r\nX-Roles: admin\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    })?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Some((status, body.to_owned()))
}

/// Makes a load balancer with a listener, a pool and a member.
pub(crate) fn create(serve: &Serve, name: &str, member: (&str, u16)) -> Value {
    let (status, answer) = try_create(serve, name, member);
    assert_eq!(status, 201, "{answer}");
    answer["loadbalancer"].clone()
}

/// The same, which may be refused.
pub(crate) fn try_create(serve: &Serve, name: &str, member: (&str, u16)) -> (u16, Value) {
    let networks = Networks::new(Config::parse("[networks]\nlb = 10.250.0.0/24\n").unwrap().networks);
    let subnet = networks.all()[0].subnets[0].id.to_string();
    let body = json!({"loadbalancer": {
        "name": name,
        "vip_subnet_id": subnet,
        "listeners": [{
            "name": name,
            "protocol": "HTTP",
            "protocol_port": 80,
            "default_pool": {
                "name": name,
                "protocol": "HTTP",
                "lb_algorithm": "ROUND_ROBIN",
                "members": [{"address": member.0, "protocol_port": member.1}],
            },
        }],
    }});
    request(serve, "POST", "loadbalancers", &body)
}

/// `provisioning_status`; `None` when there is none.
pub(crate) fn status(serve: &Serve, id: &str) -> Option<String> {
    let (status, answer) = request(serve, "GET", &format!("loadbalancers/{id}"), &Value::Null);
    (status == 200).then(|| answer["loadbalancer"]["provisioning_status"].as_str().unwrap().to_owned())
}
