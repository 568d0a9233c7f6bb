//! What must hold for any text; the fuzz target and the property tests call the same.

use serde_json::{Number, Value};

use super::{MAX_DEPTH, parse, parse_as_text, weight};

/// What must hold for any text: what is read is within the bounds, and comes back from what is written of it as JSON, which
/// is YAML, too; a plain scalar is what the core schema's grammar says; as text it has the same nodes.
pub fn fuzz(data: &[u8]) {
    const MOST: usize = 1 << 12;
    let Ok(text) = std::str::from_utf8(data) else { return };
    let as_text = parse_as_text(text, MOST);
    if let Ok(value) = &as_text {
        assert!(weight(value) <= 2 * text.len() + 1 + MOST, "{} of {}", weight(value), text.len());
    }
    if let Ok(value) = parse(text, MOST) {
        // What aliases copy may weigh more as text.
        if !text.contains('&') {
            assert!(as_text.is_ok_and(|other| same_nodes(&value, &other)), "{value}");
        }
        // A node is a byte of text at least, and a character of an escape is not longer than that.
        assert!(weight(&value) <= 2 * text.len() + 1 + MOST, "{} of {}", weight(&value), text.len());
        let deep = depth(&value);
        assert!(deep <= MAX_DEPTH + 1, "{deep}");
        // The parser's own bounds, of flow collections and of keys, are met by other texts of the same value.
        if deep < MAX_DEPTH && longest_key(&value) < 1024 {
            assert_eq!(parse(&escaped(&value), 0).as_ref(), Ok(&value));
        }
    }
    let is_word =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_' | b'~');
    if !data.is_empty() && data.iter().all(is_word) && text != "-" {
        let read = parse(&format!("[a, {text}]"), 0).ok().map(|list| list[1].clone());
        assert_eq!(read, by_the_grammar(text), "{text}");
    }
}

/// The plain scalar by the table in YAML 1.2.2 section 10.3.2, `None` where JSON has no such number.
fn by_the_grammar(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let all = |text: &str, radix| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(digits) = text.strip_prefix(prefix).filter(|digits| all(digits, radix)) {
            return u64::from_str_radix(digits, radix).ok().map(Value::from);
        }
    }
    match text {
        "null" | "Null" | "NULL" | "~" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => return None,
        _ if [".inf", ".Inf", ".INF"].contains(&unsigned) => return None,
        _ => {}
    }
    let whole = if all(unsigned, 10) { text.parse::<i128>().ok() } else { None };
    let whole = whole
        .and_then(|n| i64::try_from(n).map(Value::from).or_else(|_| u64::try_from(n).map(Value::from)).ok());
    // Rust's grammar of floats is this one, beside words.
    let float = text.contains(|c: char| c.is_ascii_digit())
        && !text.contains(|c: char| c.is_ascii_alphabetic() && !"eE".contains(c));
    match text.parse::<f64>() {
        Ok(number) if float => whole.or_else(|| Number::from_f64(number).map(Value::Number)),
        _ => Some(Value::String(text.to_owned())),
    }
}

/// As JSON in which what YAML does not take as it is (DEL, U+FFFF and their like) is escaped. Beyond the basic plane it takes all,
/// and JSON escapes in another way.
fn escaped(value: &Value) -> String {
    value.to_string().chars().fold(String::new(), |mut text, c| {
        match u16::try_from(u32::from(c)) {
            Ok(code) if code >= 0x7F => text.push_str(&format!("\\u{code:04x}")),
            _ => text.push(c),
        }
        text
    })
}

fn same_nodes(value: &Value, text: &Value) -> bool {
    match (value, text) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_nodes(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same_nodes(a, b)))
        }
        (Value::Null, text) => text.is_null(),
        (value, text) => !value.is_array() && !value.is_object() && text.is_string(),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

fn longest_key(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.iter().map(longest_key).max().unwrap_or_default(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| key.len().max(longest_key(value))).max().unwrap_or_default()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn characters_that_are_only_there_escaped() {
        for text in ["-: \"\\uFFFF\"", r#""\x7f\N\L\ud7ff\U0001F600": "\_\e""#, "- \u{1F600}\u{FEFF}"] {
            fuzz(text.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn words(text in "[-+]?(0o|0x|0b|\\.)?[0-9_]{0,22}(\\.[0-9]{0,3})?([eE][-+]?[0-9]{0,3})?|[-+]?\\.?(inf|Inf|NaN|nan|NULL|true|~)") {
            fuzz(text.as_bytes());
        }

        #[test]
        fn documents(text in "(( {0,4}(- |\\? )?([a-c]|\"[^\"\\\\]{0,3}\"|<<)?: ?|- |[\\[\\]{},|>]|&[ab] |\\*[ab] ?|!!?(str|int|float)? |0x1f|[a-c]|#|\t)\n?){0,30}") {
            fuzz(text.as_bytes());
        }
    }
}
