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
        children(out, child, &format!("{indent}{}", if last { "   " } else { "│  " }), style)?;
    }
    Ok(())
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
    fn another_shape_is_no_panic() {
        for odd in
            [json!(null), json!({"statuses": {"loadbalancer": {"listeners": {"id": 3}, "pools": [1, null]}}})]
        {
            draw(&mut String::new(), &odd, Style::PLAIN).unwrap();
        }
    }
}
