//! Requests that Octavia 19.0.0 has answered: `octavia.jsonl`, which `tests/octavia/api` records.
//!
//! A line is method, path, body, status, and the answer: the text of a fault, or an object in which identifiers have names, and what
//! depends on times and networks is left out. A last element names what was made. `null` for an answer: only the status is looked at.

use std::collections::BTreeMap;

use super::*;

const PROJECT: &str = "pppppppppppppppppppppppppppppppp";

/// What depends on times, networks and the worker.
const LEFT_OUT: [&str; 10] = [
    "vip_address",
    "vip_network_id",
    "vip_port_id",
    "provisioning_status",
    "operating_status",
    "updated_at",
    "created_at",
    "ip_address",
    "network_id",
    "port_id",
];

#[tokio::test]
async fn requests_are_answered_as_by_octavia() {
    let stage = Stage::new("");
    let network = stage.api.shared.config.networks[0].id.to_string();
    let mut names =
        BTreeMap::from([("subnet".to_owned(), stage.subnet.clone()), ("net".to_owned(), network)]);
    let mut wrong = Vec::new();
    let lines: Vec<_> = include_str!("octavia.jsonl").lines().collect();
    assert!(lines.len() > 400);
    for line in lines {
        let record: Value = serde_json::from_str(line).unwrap();
        let text = |at: usize| record[at].as_str().unwrap().to_owned();
        let method: Method = text(0).parse().unwrap();
        let path = named(&text(1), '{', '}', &names);
        let body = match &record[2] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            body => named(&body.to_string(), '<', '>', &names),
        };
        let request = http::Request::builder()
            .method(method.clone())
            .uri(&path)
            .header("content-type", "application/json")
            .header("x-project-id", PROJECT);
        let request = request.body(()).unwrap();
        let answer = stage.api.answer(&request.into_parts().0, Bytes::from(body)).await;
        let mut told = answer.body.unwrap_or_default();
        if let (Some(name), Some(object)) = (record.get(5), told.as_object()) {
            let made = object.values().find_map(|one| one["id"].as_str().or(one["name"].as_str()));
            let made = made.unwrap_or_else(|| panic!("{line}: {told}"));
            names.insert(name.as_str().unwrap().to_owned(), made.to_owned());
        }
        if let (200, Value::Object(expected)) = (answer.status, &record[4])
            && method == PUT
        {
            // Of a change only what was changed is kept.
            let (one, kept) = expected.iter().next().unwrap();
            let kept = kept.as_object().unwrap();
            told[one].as_object_mut().unwrap().retain(|name, _| kept.contains_key(name));
        }
        let told = if answer.status >= 400 { told["faultstring"].take() } else { told };
        let (told, expected) = (plain(told, "", &names), plain(record[4].clone(), "", &BTreeMap::new()));
        if answer.status != record[3] || (!record[4].is_null() && told != expected) {
            wrong.push(format!("{line}\n  {} {told}", answer.status));
        }
        if method != GET {
            stage.settle().await;
        }
    }
    assert!(wrong.is_empty(), "{} are not:\n{}", wrong.len(), wrong.join("\n"));
}

/// Puts identifiers in place of names.
fn named(text: &str, open: char, close: char, names: &BTreeMap<String, String>) -> String {
    names.iter().fold(text.to_owned(), |text, (name, id)| text.replace(&format!("{open}{name}{close}"), id))
}

/// Puts names in place of identifiers, and an order where there is none.
fn plain(value: Value, key: &str, names: &BTreeMap<String, String>) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map
                .into_iter()
                .filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()) && !name.ends_with("_links"));
            Value::Object(kept.map(|(name, value)| (name.clone(), plain(value, &name, names))).collect())
        }
        Value::Array(items) => {
            let mut items: Vec<_> = items.into_iter().map(|item| plain(item, key, names)).collect();
            if [
                "listeners",
                "pools",
                "members",
                "l7policies",
                "rules",
                "allowed_cidrs",
                "tags",
                "loadbalancers",
            ]
            .contains(&key)
            {
                items.sort_by_key(Value::to_string);
            }
            Value::Array(items)
        }
        Value::String(text) if key == "tls_ciphers" && !text.is_empty() => json!("~"),
        Value::String(text) => json!(plain_text(text, names)),
        other => other,
    }
}

fn plain_text(text: String, names: &BTreeMap<String, String>) -> String {
    let ids = names.iter().filter(|(_, id)| id.len() == 36);
    let mut text = ids.fold(text, |text, (name, id)| text.replace(id.as_str(), name));
    if let Some(at) = text.find("should be one of") {
        // Octavia tells them in the order of a set.
        text.truncate(at);
    }
    if let (Some(from), Some(to)) = (text.find("Value: '{"), text.rfind("}'.")) {
        text.replace_range(from..to + 3, "Value: BODY.");
    }
    let is_id = |word: &str| word.len() == 36 && uuid::Uuid::parse_str(word).is_ok();
    let words: Vec<_> = text.split(' ').map(|word| if is_id(word) { "<id>" } else { word }).collect();
    words.join(" ")
}
