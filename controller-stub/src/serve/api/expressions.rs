//! Regular expressions of L7 rules and edits: only the proxy that compiles them knows whether they can be, so it is asked before anything is written.

use std::path::PathBuf;

use super::{
    attributes::{L7RULE, Object},
    fault::Fault,
    scope::new_id,
};
use crate::{
    document::Document,
    error::Error,
    serve::{
        db::{self, Db},
        policies::{Context, Rule},
        turns::Turns,
    },
};
use serde_json::{Value, json};

/// Programs that judge at a time.
const AT_A_TIME: usize = 4;

/// And of one project.
const OF_A_PROJECT: usize = 2;

/// Who judges expressions.
#[derive(Debug)]
pub(super) struct Expressions {
    /// The proxy; without it the one beside this program.
    proxy: Option<PathBuf>,
    turns: Turns,
}

impl Expressions {
    pub(super) fn new(proxy: Option<PathBuf>) -> Self {
        Self { proxy, turns: Turns::new(AT_A_TIME, OF_A_PROJECT) }
    }

    /// Refuses a body with an expression that cannot be compiled. `changed` is the rule that the body changes.
    ///
    /// # Errors
    /// 400 with the reason. What nobody can judge now is left to the amphora.
    pub(super) async fn judge(
        &self,
        db: &Db,
        context: &Context,
        body: &[u8],
        changed: Option<&str>,
    ) -> Result<(), Fault> {
        // Who may change nothing is told so by who would change it.
        if !context.may(Rule::Write, context.project_id.as_deref()) {
            return Ok(());
        }
        // Most bodies have none: they are not read twice.
        if changed.is_none() && !body.windows(5).any(|word| word.eq_ignore_ascii_case(b"REGEX")) {
            return Ok(());
        }
        // What is no JSON is refused by who reads it.
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Ok(()) };
        let mut values = Vec::new();
        match (changed, body.get(L7RULE.one).cloned().and_then(Object::of)) {
            (Some(id), Some(said)) => {
                let id = id.to_owned();
                let old = db.read::<_, db::Error, _>(move |t| Ok(L7RULE.find(t, &id).ok().flatten())).await?;
                let Some(old) = old.filter(|old| context.may(Rule::Write, Some(old.str("project_id"))))
                else {
                    return Ok(());
                };
                collect(&Value::Object(old.with(&said).0), &mut values);
            }
            _ => collect(&body, &mut values),
        }
        if values.is_empty() {
            return Ok(());
        }
        let Ok(document) = Document::parse(&document(&values).to_string()) else { return Ok(()) };
        let project = context.project_id.as_deref().unwrap_or_default();
        let _turn = self.turns.take(project).await.ok_or_else(|| Fault::new(503, "closing"))?;
        match document.judge(self.proxy.clone()).await {
            Err(Error::Faulty(faults)) => {
                let told: Vec<_> = faults.iter().map(|fault| told(&fault.path, &fault.reason)).collect();
                Err(Fault::new(400, told.join("; ")))
            }
            Err(error) => {
                tracing::warn!(%error, "regular expressions are not judged");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }
}

/// What is told of a fault. Octavia's words are of rules.
fn told(path: &str, reason: &str) -> String {
    if path.ends_with(".edits.path.replacement") {
        return format!("Error parsing amphora.edits.path.replacement: {reason}");
    }
    let what = if path.ends_with(".edits.path.regex") { "amphora.edits.path.regex" } else { "L7Rule" };
    format!("Error parsing {what}: Unable to parse regular expression: {reason}")
}

/// An expression.
enum Expression {
    /// Of a rule.
    Rule(String),
    /// That paths are rewritten by, as `path` of edits has it.
    Path(Value),
}

/// The expressions of all rules and edits within.
fn collect(value: &Value, values: &mut Vec<Expression>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, values)),
        Value::Object(map) => {
            let text = |name: &str| map.get(name).and_then(Value::as_str);
            if let (Some("REGEX"), Some(value)) = (text("compare_type"), text("value")) {
                values.push(Expression::Rule(value.to_owned()));
            }
            if let (Some(regex), Some(replacement)) = (text("regex"), text("replacement")) {
                let path = json!({ "regex": regex, "replacement": replacement });
                values.push(Expression::Path(path));
            }
            map.values().for_each(|value| collect(value, values));
        }
        _ => {}
    }
}

/// A document that has nothing but these expressions.
fn document(values: &[Expression]) -> Value {
    let policy = |(at, value): (usize, &Expression)| {
        let mut rule = json!({"id": new_id(), "type": "PATH", "compare_type": "EQUAL_TO", "value": "/"});
        let mut policy = json!({"id": new_id(), "position": at + 1});
        match value {
            Expression::Rule(value) => {
                rule["compare_type"] = json!("REGEX");
                rule["value"] = json!(value);
                policy["action"] = json!("REJECT");
            }
            Expression::Path(path) => {
                policy["amphora"] = json!({"action": "EDIT", "edits": {"path": path}});
            }
        }
        policy["rules"] = json!([rule]);
        policy
    };
    let policies: Vec<_> = values.iter().enumerate().map(policy).collect();
    json!({"loadbalancer": {
        "id": new_id(),
        "vip_address": "192.0.2.1",
        "listeners": [{"id": new_id(), "protocol": "HTTP", "protocol_port": 80, "l7policies": policies}],
    }})
}
