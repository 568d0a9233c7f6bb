//! What an amphora honours in part.

use serde_json::Value;

/// The remarks in an answer to a change, or in a status: each with its place in the document.
pub(crate) fn of(answer: &Value) -> impl Iterator<Item = String> {
    let remarks = answer.get("remarks").and_then(Value::as_array).into_iter().flatten();
    remarks.filter_map(|remark| Some(format!("{}: {}", remark["path"].as_str()?, remark["text"].as_str()?)))
}
