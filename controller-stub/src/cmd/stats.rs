//! `stats`: counters of the load balancer, its listeners and its members, once or again and again with rates.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    time::{Duration, Instant},
};

use amphora_model::LoadBalancerId;
use serde_json::Value;

use super::{Outcome, resolve};
use crate::{client::Client, error::Result};

/// The columns: heading, and the names of the counter in the load balancer's totals and listeners, and in members.
const COLUMNS: [(&str, &[&str], &[&str]); 6] = [
    ("ACTIVE", &["active_connections"], &["active_sessions"]),
    ("TOTAL", &["total_connections"], &["total_sessions"]),
    ("REQUESTS", &["requests"], &["requests"]),
    ("ERRORS", &["request_errors"], &["connect_errors", "response_errors"]),
    ("BYTES IN", &["bytes_in"], &["bytes_in"]),
    ("BYTES OUT", &["bytes_out"], &["bytes_out"]),
];

/// Clears the terminal and goes to its first line (ECMA-48 ED, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// One line of the table; `None` where the object has no such counter.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    label: String,
    counters: [Option<u64>; COLUMNS.len()],
}

/// Shows the counters of every amphora, every `watch` when that is given.
///
/// # Errors
/// The first one, after the others were asked. With `watch`, an amphora that is away for a while is told and asked
/// again; only an error on the first look ends the command.
pub(crate) async fn stats(
    out: &mut impl Write,
    clients: &[Client],
    id: Option<LoadBalancerId>,
    watch: Option<Duration>,
    json: bool,
    terminal: bool,
) -> Result<()> {
    let mut last: HashMap<usize, (Instant, Vec<Row>)> = HashMap::new();
    let mut first = true;
    loop {
        let mut outcome = Outcome::default();
        let mut text = String::new();
        for (n, client) in clients.iter().enumerate() {
            match look(client, id, json).await {
                Ok((answer, _)) if json => text.push_str(&format!("{answer}\n")),
                Ok((answer, names)) => {
                    let (now, rows) = (Instant::now(), rows(&answer, &names));
                    let before = last.get(&n).map(|(then, rows)| (now - *then, rows.as_slice()));
                    text.push_str(&format!("{}\n{}", client.endpoint(), table(&rows, before)));
                    last.insert(n, (now, rows));
                }
                Err(error) if first => outcome.note(Err(error)),
                Err(error) => text.push_str(&format!("{error}\n")),
            }
        }
        if terminal && !json && watch.is_some() {
            out.write_all(CLEAR.as_bytes())?;
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        outcome.result()?;
        let Some(interval) = watch else { return Ok(()) };
        tokio::time::sleep(interval).await;
        first = false;
    }
}

/// The counters, and the names of the objects unless they are not wanted.
async fn look(
    client: &Client,
    id: Option<LoadBalancerId>,
    json: bool,
) -> Result<(Value, HashMap<String, String>)> {
    let id = resolve(client, id).await?;
    let mut names = HashMap::new();
    if !json && let Some(document) = client.get(id).await? {
        collect_names(&document, &mut names);
    }
    Ok((client.stats(id).await?, names))
}

fn collect_names(value: &Value, names: &mut HashMap<String, String>) {
    if let (Some(id), Some(name)) = (value["id"].as_str(), value["name"].as_str().filter(|n| !n.is_empty())) {
        names.insert(id.to_owned(), name.to_owned());
    }
    match value {
        Value::Array(list) => list.iter().for_each(|v| collect_names(v, names)),
        Value::Object(fields) => fields.values().for_each(|v| collect_names(v, names)),
        _ => {}
    }
}

fn rows(answer: &Value, names: &HashMap<String, String>) -> Vec<Row> {
    let name = |id: &str| names.get(id).cloned().unwrap_or_else(|| id.to_owned());
    let sum = |value: &Value, fields: &[&str]| fields.iter().map(|f| value[*f].as_u64()).sum::<Option<u64>>();
    let whole = |value: &Value| COLUMNS.map(|(_, fields, _)| sum(value, fields));
    let mut rows = vec![Row { label: "load balancer".to_owned(), counters: whole(&answer["stats"]) }];
    for (id, listener) in answer["listeners"].as_object().into_iter().flatten() {
        rows.push(Row { label: format!("listener {}", name(id)), counters: whole(listener) });
    }
    for (id, pool) in answer["pools"].as_object().into_iter().flatten() {
        rows.push(Row { label: format!("pool {}", name(id)), counters: [None; COLUMNS.len()] });
        for (id, member) in pool["members"].as_object().into_iter().flatten() {
            let counters = COLUMNS.map(|(_, _, fields)| sum(member, fields));
            rows.push(Row { label: format!("  member {}", name(id)), counters });
        }
    }
    rows
}

/// The rows under their headings, with per-second rates since the look before.
fn table(rows: &[Row], before: Option<(Duration, &[Row])>) -> String {
    let old: BTreeMap<&str, &Row> =
        before.into_iter().flat_map(|(_, rows)| rows).map(|row| (row.label.as_str(), row)).collect();
    let cell = |row: &Row, column: usize| -> String {
        let Some(value) = row.counters[column] else { return String::new() };
        let rate = before.filter(|_| column > 0).and_then(|(elapsed, _)| {
            // A counter that went back is a new process; there is no rate across it.
            let grown = value.checked_sub(old.get(row.label.as_str())?.counters[column]?)?;
            Some(grown as f64 / elapsed.as_secs_f64())
        });
        rate.map_or_else(|| value.to_string(), |rate| format!("{value} ({rate:.0}/s)"))
    };
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| (0..COLUMNS.len()).map(|c| cell(row, c)).collect()).collect();
    let first = rows.iter().map(|row| row.label.chars().count()).max().unwrap_or(0);
    let width = |c: usize| cells.iter().map(|row| row[c].len()).fold(COLUMNS[c].0.len(), usize::max);
    let mut text = " ".repeat(first);
    for (c, (heading, _, _)) in COLUMNS.iter().enumerate() {
        text.push_str(&format!("  {heading:>w$}", w = width(c)));
    }
    text.push('\n');
    for (row, cells) in rows.iter().zip(&cells) {
        let mut line = format!("{:<first$}", row.label);
        for (c, cell) in cells.iter().enumerate() {
            line.push_str(&format!("  {cell:>w$}", w = width(c)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_every_object_and_its_rates() {
        let answer = |requests: u64| {
            json!({"stats": {"active_connections": 1, "total_connections": 9, "request_errors": 0, "bytes_in": 5, "bytes_out": 6},
                "listeners": {"L": {"active_connections": 1, "total_connections": 9, "requests": requests, "request_errors": 0,
                    "bytes_in": 5, "bytes_out": 6}},
                "pools": {"P": {"members": {"M": {"active_sessions": 1, "total_sessions": 2, "requests": requests,
                    "connect_errors": 1, "response_errors": 2, "bytes_in": 3, "bytes_out": 4}}}}})
        };
        let mut names = HashMap::new();
        collect_names(
            &json!({"pools": [{"id": "P", "name": "web", "members": [{"id": "M", "name": "web-1"}]}]}),
            &mut names,
        );
        let (then, now) = (rows(&answer(100), &names), rows(&answer(300), &names));
        let text = table(&now, Some((Duration::from_secs(2), &then)));
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["ACTIVE", "TOTAL", "REQUESTS", "ERRORS", "BYTES", "IN", "BYTES", "OUT"]);
        assert_eq!(lines[2][..6], ["listener", "L", "1", "9", "(0/s)", "300"]);
        assert_eq!(lines[2][6], "(100/s)");
        assert_eq!(lines[3], ["pool", "web"]);
        assert_eq!(lines[4][..8], ["member", "web-1", "1", "2", "(0/s)", "300", "(100/s)", "3"]);
        // A restarted proxy counts from zero again.
        assert!(
            !table(&then, Some((Duration::from_secs(2), &now)))
                .lines()
                .nth(2)
                .unwrap_or("")
                .contains("100 (")
        );
    }
}
