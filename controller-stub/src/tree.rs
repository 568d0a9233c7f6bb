//! Octavia's status tree as a tree for people.

use std::{
    collections::HashSet,
    fmt::{self, Write as _},
};

use serde_json::Value;

use crate::{
    remarks,
    style::{Colour, Style},
};

/// The parts of a status document, in the order in which they are drawn, and the word for each.
const PARTS: [(&str, &str); 6] = [
    ("listeners", "listener"),
    ("pools", "pool"),
    ("l7policies", "l7policy"),
    ("health_monitor", "health monitor"),
    ("members", "member"),
    ("rules", "rule"),
];

/// Draws what `GET .../status` answered: `{"statuses": {"loadbalancer": {...}}}`.
///
/// # Errors
/// None but those of the writer; a document of another shape is drawn as far as it goes.
pub fn draw(out: &mut String, status: &Value, style: Style) -> fmt::Result {
    let mut lb = status.pointer("/statuses/loadbalancer").cloned().unwrap_or_default();
    // Octavia lists every pool a second time beside the listeners; to a reader those are only news when no listener
    // has them.
    let shown: HashSet<String> = list(&lb, "listeners").flat_map(|l| list(l, "pools").map(id)).collect();
    if let Some(Value::Array(pools)) = lb.get_mut("pools") {
        pools.retain(|pool| !shown.contains(&id(pool)));
    }
    line(out, "", "load balancer", &lb, style)?;
    children(out, &lb, "", style)?;
    for member in list(status, "leaving_members") {
        let text = |field: &str| member.get(field).and_then(Value::as_str).unwrap_or("?").to_owned();
        write!(
            out,
            "{} member {} of pool {}",
            style.paint(Colour::Yellow, "leaving"),
            text("address"),
            text("pool_id")
        )?;
        out.push(' ');
        draining(out, member)?;
        out.push('\n');
    }
    for remark in remarks::of(status) {
        writeln!(out, "{} {remark}", style.paint(Colour::Yellow, "in part"))?;
    }
    Ok(())
}

fn list<'a>(node: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    node.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn id(node: &Value) -> String {
    node.get("id").and_then(Value::as_str).unwrap_or("?").to_owned()
}

fn children(out: &mut String, node: &Value, indent: &str, style: Style) -> fmt::Result {
    let parts: Vec<(&str, &Value)> = PARTS
        .iter()
        .flat_map(|(field, word)| {
            let value = node.get(field).unwrap_or(&Value::Null);
            let list = match value {
                Value::Array(list) => list.as_slice(),
                Value::Object(fields) if !fields.is_empty() => std::slice::from_ref(value),
                _ => &[],
            };
            list.iter().map(move |child| (*word, child))
        })
        .collect();
    for (i, (word, child)) in parts.iter().enumerate() {
        let last = i + 1 == parts.len();
        let branch = format!("{indent}{}", if last { "└─ " } else { "├─ " });
        line(out, &branch, word, child, style)?;
        if let Some(special) = child.get("amphora") {
            let under = format!("{indent}{}", if last { "   " } else { "│  " });
            told(out, &under, special, style)?;
        }
        children(out, child, &format!("{indent}{}", if last { "   " } else { "│  " }), style)?;
    }
    Ok(())
}

/// What a member's `amphora` tells.
pub(crate) fn told(out: &mut String, under: &str, special: &Value, style: Style) -> fmt::Result {
    let dim = style.paint(Colour::Dim, under).to_string();
    let number = |value: &Value, field: &str| value.get(field).and_then(Value::as_u64).unwrap_or(0);
    if let Some(percent) = special.get("weight_percent").and_then(Value::as_u64) {
        writeln!(out, "{dim}starts slowly: {percent} % of its weight")?;
    }
    if let Some(check) = special.get("check").and_then(Value::as_str) {
        writeln!(out, "{dim}last check: {check}")?;
    }
    if let Some(ejected) = special.get("ejected") {
        let [since, left, times] = ["since_s", "left_s", "times"].map(|field| number(ejected, field));
        writeln!(out, "{dim}taken out as an outlier {since} s ago, {left} s left, time {times} in a row")?;
    }
    if special.get("draining").is_some() {
        write!(out, "{dim}")?;
        draining(out, special)?;
        out.push('\n');
    }
    for failure in list(special, "failures") {
        let text = |field: &str| failure.get(field).and_then(Value::as_str).unwrap_or("?");
        write!(out, "{dim}failed {}: {}", text("at"), text("what"))?;
        match number(failure, "times") {
            0 | 1 => out.push('\n'),
            times => writeln!(out, " ({times} times)")?,
        }
    }
    Ok(())
}

fn draining(out: &mut String, of: &Value) -> fmt::Result {
    let Some(draining) = of.get("draining") else { return Ok(()) };
    let number = |field: &str| draining.get(field).and_then(Value::as_u64).unwrap_or(0);
    let why = draining.get("why").and_then(Value::as_str).unwrap_or("?");
    let [since, left, connections] = ["since_s", "left_s", "connections"].map(number);
    write!(out, "drains ({why}) since {since} s, {left} s left, {connections} connections")
}

fn line(out: &mut String, branch: &str, word: &str, node: &Value, style: Style) -> fmt::Result {
    let text = |field: &str| node.get(field).and_then(Value::as_str).filter(|t| !t.is_empty());
    let id = id(node);
    write!(
        out,
        "{}{word} {}",
        style.paint(Colour::Dim, branch),
        style.paint(Colour::Bold, text("name").unwrap_or(&id))
    )?;
    match (text("address"), node.get("protocol_port").and_then(Value::as_u64)) {
        (Some(address), Some(port)) if address.contains(':') => write!(out, " [{address}]:{port}")?,
        (Some(address), Some(port)) => write!(out, " {address}:{port}")?,
        (None, Some(port)) => write!(out, " :{port}")?,
        _ => {}
    }
    for field in ["type", "action"] {
        if let Some(value) = text(field) {
            write!(out, " {value}")?;
        }
    }
    if let Some(status) = text("operating_status") {
        write!(out, " {}", style.paint(Colour::of_status(status), status))?;
    }
    if let Some(provisioning) = text("provisioning_status").filter(|s| *s != "ACTIVE") {
        write!(out, " {}", style.paint(Colour::Yellow, provisioning))?;
    }
    if text("name").is_some() {
        write!(out, " {}", style.paint(Colour::Dim, id))?;
    }
    out.push('\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn draws_the_whole_tree() {
        let status = json!({"statuses": {"loadbalancer": {"id": "L", "name": "shop", "operating_status": "DEGRADED",
            "provisioning_status": "ACTIVE", "listeners": [{"id": "X", "name": "http", "operating_status": "ONLINE",
                "pools": [{"id": "P", "name": "web", "operating_status": "DEGRADED", "provisioning_status": "PENDING_UPDATE",
                    "health_monitor": {"id": "H", "type": "HTTP", "operating_status": "ONLINE"},
                    "members": [
                        {"id": "A", "address": "10.0.0.1", "protocol_port": 80, "operating_status": "ONLINE"},
                        {"id": "B", "address": "fd00::1", "protocol_port": 80, "operating_status": "ERROR"}]}],
                "l7policies": [{"id": "Y", "action": "REJECT", "rules": [{"id": "R", "type": "PATH"}]}]}],
            "pools": [{"id": "P", "name": "web"}, {"id": "Q", "name": "unused"}]}},
            "remarks": [{"path": "loadbalancer.listeners[X].tls_ciphers", "text": "DES is not known"}, {"path": "x"}]});
        let mut out = String::new();
        draw(&mut out, &status, Style::PLAIN).unwrap();
        assert_eq!(
            out,
            "load balancer shop DEGRADED L\n\
             ├─ listener http ONLINE X\n\
             │  ├─ pool web DEGRADED PENDING_UPDATE P\n\
             │  │  ├─ health monitor H HTTP ONLINE\n\
             │  │  ├─ member A 10.0.0.1:80 ONLINE\n\
             │  │  └─ member B [fd00::1]:80 ERROR\n\
             │  └─ l7policy Y REJECT\n\
             │     └─ rule R PATH\n\
             └─ pool unused Q\n\
             in part loadbalancer.listeners[X].tls_ciphers: DES is not known\n"
        );
        let mut painted = String::new();
        draw(&mut painted, &status, Style::COLOURED).unwrap();
        assert!(painted.contains("\x1b[31mERROR\x1b[0m"));
    }

    #[test]
    fn what_is_special_of_members_is_told_below_them() {
        let status = json!({"statuses": {"loadbalancer": {"id": "L", "pools": [{"id": "P", "members": [
            {"id": "A", "operating_status": "ERROR", "amphora": {
                "check": "L4CON in 0 ms: Connection refused",
                "failures": [
                    {"at": "2026-11-30T02:00:00.0Z", "times": 3, "what": "connect: Connection refused"},
                    {"at": "2026-11-30T01:00:00.0Z", "times": 1, "what": "response: status 500"}]}},
            {"id": "B", "amphora": {"weight_percent": 6, "ejected": {"since_s": 1, "left_s": 29, "times": 2},
                "draining": {"why": "weight 0", "since_s": 4, "left_s": 6, "connections": 2}}}]}]}},
            "leaving_members": [{"pool_id": "P", "id": "C", "address": "10.0.0.9:80",
                "draining": {"why": "removed", "since_s": 4, "left_s": 6, "connections": 2}}]});
        let mut out = String::new();
        draw(&mut out, &status, Style::PLAIN).unwrap();
        assert_eq!(
            out,
            "load balancer L\n\
             └─ pool P\n   \
                ├─ member A ERROR\n   \
                │  last check: L4CON in 0 ms: Connection refused\n   \
                │  failed 2026-11-30T02:00:00.0Z: connect: Connection refused (3 times)\n   \
                │  failed 2026-11-30T01:00:00.0Z: response: status 500\n   \
                └─ member B\n      \
                   starts slowly: 6 % of its weight\n      \
                   taken out as an outlier 1 s ago, 29 s left, time 2 in a row\n      \
                   drains (weight 0) since 4 s, 6 s left, 2 connections\n\
             leaving member 10.0.0.9:80 of pool P drains (removed) since 4 s, 6 s left, 2 connections\n"
        );
    }

    #[test]
    fn another_shape_is_no_panic() {
        for odd in
            [json!(null), json!({"statuses": {"loadbalancer": {"listeners": {"id": 3}, "pools": [1, null]}}})]
        {
            draw(&mut String::new(), &odd, Style::PLAIN).unwrap();
        }
    }
}
