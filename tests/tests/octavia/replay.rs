//! The requests that were recorded with Octavia's own amphora, sent to this one in their order and compared answer by answer.

use std::{collections::BTreeSet, fs, io, path::Path};

use amphora_tests::Message;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    differences::{DIFFERENCES, Difference},
    ground::Ground,
};

/// A line of a recording.
#[derive(Debug, Deserialize)]
struct Recorded {
    scenario: String,
    method: String,
    path: String,
    /// The request's body, where it is text.
    req_text: Option<String>,
    /// Its facts, where there is one.
    req_body: Option<Value>,
    /// Without: there was no answer.
    status: Option<u16>,
    headers: Map<String, Value>,
    json: Option<Value>,
    body: Option<String>,
}

/// What is never the same twice, or is of the machine.
const VOLATILE: &[&str] = &["/1.0/info", "/1.0/details"];

fn recorded(topology: &str) -> Vec<Recorded> {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("octavia/recorded/agent-api-{topology}.jsonl"));
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_single_amphora_answers_as_octavias_own_does() {
    replay("single").await;
}

#[tokio::test]
async fn an_amphora_of_a_pair_answers_as_octavias_own_does() {
    replay("active_standby").await;
}

async fn replay(topology: &'static str) {
    let requests = recorded(topology);
    let config = requests.iter().find(|request| request.path == "/1.0/config").unwrap();
    let Some(ground) = Ground::start(config.req_text.as_ref().unwrap()).await else { return };
    let mut plugged = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (line, request) in (1..).zip(&requests) {
        let card = match request.scenario.as_str() {
            "plug-vip-ok" => Some(("lan1", "fa:16:3e:00:21:01")),
            "plug-network-ok" => Some(("lan2", "fa:16:3e:00:21:02")),
            _ => None,
        };
        if let Some((name, mac)) = card.filter(|(name, _)| plugged.insert(*name)) {
            ground.hot_plug(name, mac);
        }
        let answer =
            send(&ground, request).await.unwrap_or_else(|error| panic!("line {line}: {error}: {request:?}"));
        let found = compare(&ground, request, &answer);
        let known = DIFFERENCES.iter().position(|difference| difference.is_of(topology, line));
        let told = |what: &str| {
            format!(
                "line {line} {} {} {}: {what}\n    {:?}",
                request.scenario,
                request.method,
                request.path,
                answer.text()
            )
        };
        match known {
            None => wrong.extend(found.iter().map(|found| told(found))),
            Some(_) if found.is_empty() => wrong.push(told("is listed as a difference, and is none")),
            Some(at) => {
                used.insert(at);
                let status = DIFFERENCES[at].status;
                if answer.status() != status {
                    wrong.push(told(&format!("{} and not {status}", answer.status())));
                }
                wrong.extend(shape(&answer).into_iter().map(|found| told(&found)));
            }
        }
    }
    for (at, difference) in DIFFERENCES.iter().enumerate() {
        if difference.topology.is_none_or(|only| only == topology) && !used.contains(&at) {
            wrong.push(format!("no such request: {difference:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), requests.len(), wrong.join("\n"));
}

impl Difference {
    fn is_of(&self, topology: &str, line: usize) -> bool {
        self.topology.is_none_or(|only| only == topology) && self.lines.contains(&line)
    }
}

async fn send(ground: &Ground, request: &Recorded) -> io::Result<Message> {
    let Recorded { method, path, .. } = request;
    if path.ends_with("/chunked.pem") && method == "PUT" {
        return ground.client().chunked(method, path, b"abcdef").await;
    }
    let (length, own) = match &request.req_body {
        None => (0, None),
        Some(facts) => (facts["len"].as_u64().unwrap(), request.req_text.as_deref()),
    };
    let body = match (own, length) {
        (None, 0) => Vec::new(),
        (None, 2) => b"\xff\xfe".to_vec(),
        (None, 256) => (0..=255).collect(),
        // The agent's own certificate; the recording has no keys.
        (None, _) => fs::read(ground.certificates.file("agent")).unwrap(),
        (Some(text), _) if path == "/1.0/config" => ground.translated(text).into_bytes(),
        (Some(text), _) => text.as_bytes().to_vec(),
    };
    // What the recorder sent without a type was refused for that alone.
    let untyped = request.json.as_ref().is_some_and(|json| {
        json["error"] == "400 Bad Request: Invalid subnet information"
            && request.req_text.as_ref().is_some_and(|text| text.len() > 400)
    });
    let is_json = (path.contains("/plug/") || path.ends_with("/rules")) && !body.is_empty() && !untyped;
    ground.client().request(method, path, is_json.then_some("application/json"), &body).await
}

/// What is otherwise than in the recording.
fn compare(ground: &Ground, request: &Recorded, answer: &Message) -> Vec<String> {
    let Some(status) = request.status else { return vec!["there was no answer".to_owned()] };
    let mut found = Vec::new();
    if answer.status() != status {
        found.push(format!("{} and not {status}", answer.status()));
    }
    for (name, value) in &request.headers {
        let ours = answer.field(name).unwrap_or("none");
        let theirs = value.as_str().unwrap();
        // Flask names methods in any order.
        let same = match name.as_str() {
            "Allow" => ours.split(", ").collect::<BTreeSet<_>>() == theirs.split(", ").collect(),
            _ => ours.eq_ignore_ascii_case(theirs),
        };
        if !same {
            found.push(format!("{name} {ours:?} and not {theirs:?}"));
        }
    }
    if let Some(theirs) = &request.body
        && answer.text() != *theirs
    {
        found.push(format!("not {theirs:?}"));
    }
    if let Some(theirs) = &request.json {
        match serde_json::from_slice::<Value>(&answer.body) {
            // Texts of successes are the same; of errors what is said differs, and the fields do not.
            Ok(ours) if status < 300 && !VOLATILE.contains(&request.path.as_str()) => {
                let theirs = ground.translated(&theirs.to_string());
                if ours != serde_json::from_str::<Value>(&theirs).unwrap() {
                    found.push(format!("not {theirs}"));
                }
            }
            Ok(ours) => fields(&ours, theirs, "", &mut found),
            Err(error) => found.push(format!("no JSON: {error}")),
        }
    }
    found.extend(shape(answer));
    found
}

/// The fields of two documents, and what kind of value each has.
fn fields(ours: &Value, theirs: &Value, path: &str, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for name in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
                let path = format!("{path}/{name}");
                match (ours.get(name), theirs.get(name)) {
                    (Some(ours), Some(theirs)) => fields(ours, theirs, &path, found),
                    (Some(_), None) if path == "/details" => {}
                    (Some(_), None) => found.push(format!("{path} beyond what was recorded")),
                    _ => found.push(format!("no {path}")),
                }
            }
        }
        (ours, theirs) if std::mem::discriminant(ours) != std::mem::discriminant(theirs) => {
            found.push(format!("{path}: {ours} and not {theirs}"));
        }
        _ => {}
    }
}

/// What the controller relies on in every answer.
fn shape(answer: &Message) -> Vec<String> {
    let mut found = Vec::new();
    if answer.field("connection") != Some("close") {
        found.push("the connection is not closed".to_owned());
    }
    if answer.status() >= 400 {
        let json = serde_json::from_slice::<Map<String, Value>>(&answer.body).unwrap_or_default();
        if !["error", "message", "details"].iter().any(|name| json.contains_key(*name)) {
            found.push("an error that is not one of the two shapes".to_owned());
        }
        if ![400, 404, 405, 409, 500, 503].contains(&answer.status()) {
            found.push("a status that the controller takes for success".to_owned());
        }
    }
    found
}

#[test]
fn the_manual_has_every_reason() {
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent.md")).unwrap();
    for difference in DIFFERENCES {
        assert!(manual.contains(difference.reason), "{}", difference.reason);
    }
}
