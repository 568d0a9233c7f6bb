//! YAML 1.2 into JSON, within bounds: by the core schema, or with every scalar as the text that it is.
//!
//! The parser gives events and leaves their meaning to us: which plain scalars are numbers is the core schema's word
//! (YAML 1.2.2 section 10.3.2) and not what YAML 1.1 made of `1_0`, `0b11`, `010` or `no`. A document may be as large as its
//! text may; what aliases make of it is bounded by the same number.

mod fuzz;

use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};

#[doc(hidden)]
pub use self::fuzz::fuzz;

/// How deep collections may be nested.
const MAX_DEPTH: usize = 32;

/// The most anchors, and the most aliases.
const MAX_ANCHORS: usize = 1_000;

/// What a scalar means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Schema {
    Core,
    Text,
}

/// Reads one document by the core schema. An empty text is `null`.
///
/// `most` bounds what anchors and aliases copy: a byte for each of a scalar, and one for each node.
///
/// # Errors
/// The reason, with line and column.
pub fn parse(text: &str, most: usize) -> Result<Value, String> {
    read(text, most, Schema::Core)
}

/// Reads one document, of which every scalar stays the text that it is, but for nulls: `0644`, `yes` and `1.10` are what
/// was written, for a reader who knows what he expects of each, or who is of YAML 1.1.
///
/// `most` is that of [`parse`].
///
/// # Errors
/// The reason, with line and column.
pub fn parse_as_text(text: &str, most: usize) -> Result<Value, String> {
    read(text, most, Schema::Text)
}

fn read(text: &str, most: usize, schema: Schema) -> Result<Value, String> {
    let mut options = Options::default();
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let parser = Parser::new_from_str_with_options(text, options);
    let mut reader = Reader { parser, schema, anchors: HashMap::new(), aliases: 0, left: most };
    let mut document = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            Event::StreamEnd => return Ok(document.unwrap_or(Value::Null)),
            _ if document.is_some() => return Err(at(&span, "more than one document")),
            event => document = Some(reader.node(event, &span, 0)?.0),
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    schema: Schema,
    anchors: HashMap<usize, Value>,
    aliases: usize,
    /// What anchors and aliases may copy yet.
    left: usize,
}

/// The text of a scalar, for one that is a key.
type Key = Option<String>;

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), String> {
        match self.parser.next_event() {
            Some(event) => event.map_err(|e| e.to_string()),
            None => Err("the text ends too early".to_owned()),
        }
    }

    /// The node that begins with `event`.
    fn node(&mut self, event: Event<'t>, span: &Span, depth: usize) -> Result<(Value, Key), String> {
        if depth > MAX_DEPTH {
            return Err(at(span, &format!("nested more than {MAX_DEPTH} deep")));
        }
        let (value, key, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let read = match self.schema {
                    Schema::Core => scalar,
                    Schema::Text => text_of,
                };
                let value = read(&text, style, tag.as_deref()).map_err(|reason| at(span, &reason))?;
                (value, Some(text.into_owned()), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                expect_tag(tag.as_deref(), "seq").map_err(|reason| at(span, &reason))?;
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => list.push(self.node(event, &span, depth + 1)?.0),
                    }
                }
                (Value::Array(list), None, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                expect_tag(tag.as_deref(), "map").map_err(|reason| at(span, &reason))?;
                (Value::Object(self.mapping(depth)?), None, anchor)
            }
            Event::Alias(anchor) => {
                self.aliases += 1;
                if self.aliases > MAX_ANCHORS {
                    return Err(at(span, &format!("more than {MAX_ANCHORS} aliases")));
                }
                let value =
                    self.anchors.get(&anchor).ok_or_else(|| at(span, "an alias within its anchor"))?;
                let value = value.clone();
                self.spend(&value, span)?;
                let key = value.as_str().map(str::to_owned);
                return Ok((value, key));
            }
            other => return Err(at(span, &format!("unexpected {other:?}"))),
        };
        if anchor != 0 {
            if self.anchors.len() == MAX_ANCHORS {
                return Err(at(span, &format!("more than {MAX_ANCHORS} anchors")));
            }
            self.spend(&value, span)?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok((value, key))
    }

    fn mapping(&mut self, depth: usize) -> Result<Map<String, Value>, String> {
        let mut map = Map::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let is_merge = matches!(&event, Event::Scalar(key, ScalarStyle::Plain, _, None) if key == "<<");
            if event == Event::MappingEnd {
                break;
            }
            let (_, key) = self.node(event, &span, depth + 1)?;
            let key = key.ok_or_else(|| at(&span, "a key that is no scalar"))?;
            let (event, behind) = self.next()?;
            let (value, _) = self.node(event, &behind, depth + 1)?;
            if is_merge {
                merged.push((value, behind));
            } else if map.contains_key(&key) {
                return Err(at(&span, &format!("duplicate key {key:?}")));
            } else {
                map.insert(key, value);
            }
        }
        for (value, span) in merged {
            let maps = if let Value::Array(maps) = value { maps } else { vec![value] };
            for other in maps {
                let Value::Object(other) = other else { return Err(at(&span, "`<<` merges mappings only")) };
                for (key, value) in other {
                    map.entry(key).or_insert(value);
                }
            }
        }
        Ok(map)
    }

    fn spend(&mut self, value: &Value, span: &Span) -> Result<(), String> {
        let left = self.left.checked_sub(weight(value));
        self.left = left.ok_or_else(|| at(span, "anchors and aliases make it too large"))?;
        Ok(())
    }
}

fn weight(value: &Value) -> usize {
    1 + match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(weight).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + weight(value)).sum(),
        _ => 0,
    }
}

fn at(span: &Span, reason: &str) -> String {
    format!("{reason} at line {} column {}", span.start.line(), span.start.col() + 1)
}

fn expect_tag(tag: Option<&Tag>, kind: &str) -> Result<(), String> {
    match tag {
        Some(tag) if tag.original() != "!" && tag.core_suffix() != Some(kind) => {
            Err(format!("tag {} is not known here", tag.original()))
        }
        _ => Ok(()),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let Some(tag) = tag else {
        return if style == ScalarStyle::Plain { core(text) } else { Ok(Value::String(text.to_owned())) };
    };
    let kind = tag.core_suffix().unwrap_or(if tag.original() == "!" { "str" } else { "" });
    let value = match kind {
        "str" => Value::String(text.to_owned()),
        "float" => core(text).map(|value| value.as_f64().map_or(value, Value::from))?,
        "int" | "bool" | "null" => core(text)?,
        _ => return Err(format!("tag {} is not known here", tag.original())),
    };
    let fits = match kind {
        "int" => value.is_i64() || value.is_u64(),
        "float" => value.is_number(),
        "bool" => value.is_boolean(),
        "null" => value.is_null(),
        _ => true,
    };
    if fits { Ok(value) } else { Err(format!("{text:?} is no {}", tag.original())) }
}

/// A scalar as its text. A tag of the core schema that is not `null` changes nothing.
fn text_of(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let kind = tag.map(|tag| tag.core_suffix().unwrap_or(if tag.original() == "!" { "str" } else { "" }));
    match (kind, tag) {
        (None, _) if style == ScalarStyle::Plain && is_null(text) => Ok(Value::Null),
        (Some("null"), _) if is_null(text) => Ok(Value::Null),
        (None | Some("str" | "int" | "float" | "bool"), _) => Ok(Value::String(text.to_owned())),
        (_, tag) => Err(format!("tag {} is not known here", tag.map(Tag::original).unwrap_or_default())),
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// A plain scalar by the core schema.
fn core(text: &str) -> Result<Value, String> {
    let (sign, digits) = match text.as_bytes() {
        [b'+', rest @ ..] => ("", rest),
        [b'-', rest @ ..] => ("-", rest),
        all => ("", all),
    };
    let unsigned = &text[text.len() - digits.len()..];
    let radix = |radix| {
        let number = u64::from_str_radix(&text[2..], radix);
        number.map(Value::from).map_err(|_| format!("{text} is too large"))
    };
    Ok(match text {
        _ if is_null(text) => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_digits(digits, u8::is_ascii_digit) => {
            let plain = unsigned.trim_start_matches('0');
            let plain = format!("{sign}{}", if plain.is_empty() { "0" } else { plain });
            let number =
                plain.parse::<i64>().map(Number::from).or_else(|_| plain.parse::<u64>().map(Number::from));
            number.map_or_else(|_| float(&plain), |number| Ok(number.into()))?
        }
        _ if text.starts_with("0o") && is_digits(&digits[2..], |b| matches!(b, b'0'..=b'7')) => radix(8)?,
        _ if text.starts_with("0x") && is_digits(&digits[2..], u8::is_ascii_hexdigit) => radix(16)?,
        _ if is_float(digits) => float(text)?,
        _ if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") => {
            return Err(format!("{text}: JSON has no such number"));
        }
        _ => Value::String(text.to_owned()),
    })
}

fn is_digits(text: &[u8], digit: impl Fn(&u8) -> bool) -> bool {
    !text.is_empty() && text.iter().all(digit)
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &[u8]) -> bool {
    let end = text.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(text.len());
    let exponent = match &text[end..] {
        [] => true,
        [_, b'-' | b'+', digits @ ..] | [_, digits @ ..] => is_digits(digits, u8::is_ascii_digit),
    };
    let mut parts = text[..end].splitn(2, |&b| b == b'.');
    let (whole, fraction) = (parts.next().unwrap_or_default(), parts.next());
    let all = |digits: &[u8]| digits.iter().all(u8::is_ascii_digit);
    exponent
        && all(whole)
        && all(fraction.unwrap_or_default())
        && match fraction {
            Some(fraction) => !whole.is_empty() || !fraction.is_empty(),
            None => !whole.is_empty(),
        }
}

fn float(text: &str) -> Result<Value, String> {
    let number = text.parse().ok().and_then(Number::from_f64);
    number.map(Value::Number).ok_or_else(|| format!("{text} is too large"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn one(text: &str) -> Value {
        parse(&format!("a: {text}\n"), 1 << 20).unwrap()["a"].clone()
    }

    #[test]
    fn scalars_are_those_of_the_core_schema() {
        for (text, value) in [
            ("1_0", json!("1_0")),
            ("0b11", json!("0b11")),
            ("0B11", json!("0B11")),
            ("010", json!(10)),
            ("-010", json!(-10)),
            ("+7", json!(7)),
            ("00", json!(0)),
            ("0o10", json!(8)),
            ("0O10", json!("0O10")),
            ("-0o10", json!("-0o10")),
            ("0o8", json!("0o8")),
            ("0x1F", json!(31)),
            ("0X1F", json!("0X1F")),
            ("0x1_0", json!("0x1_0")),
            ("1.5", json!(1.5)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            ("1e3", json!(1000.0)),
            ("01e2", json!(100.0)),
            ("1_0.5", json!("1_0.5")),
            ("1e", json!("1e")),
            (".", json!(".")),
            ("12:30:45", json!("12:30:45")),
            ("192.0.2.1", json!("192.0.2.1")),
            ("inf", json!("inf")),
            ("nan", json!("nan")),
            ("18446744073709551615", json!(u64::MAX)),
            ("~", json!(null)),
            ("", json!(null)),
            ("null", json!(null)),
            ("nUll", json!("nUll")),
            ("True", json!(true)),
            ("FALSE", json!(false)),
            ("tRue", json!("tRue")),
            ("yes", json!("yes")),
            ("no", json!("no")),
            ("on", json!("on")),
            ("y", json!("y")),
            ("2001-12-14", json!("2001-12-14")),
            ("\"010\"", json!("010")),
            ("'~'", json!("~")),
            ("!!str 10", json!("10")),
            ("! 10", json!("10")),
            ("!!int \"10\"", json!(10)),
            ("!!float 1", json!(1.0)),
            ("|\n  010\n", json!("010\n")),
        ] {
            assert_eq!(one(text), value, "{text}");
        }
        for text in [
            ".inf",
            "-.Inf",
            "+.INF",
            ".nan",
            "1e999",
            "!!int x",
            "!own 1",
            "!!binary eA==",
            "0xfffffffffffffffff",
        ] {
            assert!(parse(&format!("a: {text}\n"), 1 << 20).is_err(), "{text}");
        }
    }

    #[test]
    fn as_text_scalars_are_what_was_written() {
        let text =
            "[0644, 0o644, yes, True, 1.10, 1_0, .inf, '~', \"\", ~, null, !!int 07, !!str ~, ! ~, !!null ~]";
        assert_eq!(
            parse_as_text(text, 0).unwrap(),
            json!([
                "0644", "0o644", "yes", "True", "1.10", "1_0", ".inf", "~", "", null, null, "07", "~", "~",
                null
            ])
        );
        assert_eq!(parse_as_text("0644: |\n  a\n  b\n", 0).unwrap(), json!({"0644": "a\nb\n"}));
        for text in ["!!binary eA==", "!own 1", "!!null x", "a: 1\na: 2"] {
            assert!(parse_as_text(text, 0).is_err(), "{text}");
        }
    }

    #[test]
    fn aliases_copy_within_the_bound() {
        let text = "a: &a {x: [1, 2]}\nb: *a\nc: {<<: *a, y: 3}\nd: [*a, *a]\ne: &e text\n*e : 1\n";
        assert_eq!(
            parse(text, 1000).unwrap(),
            json!({"a": {"x": [1, 2]}, "b": {"x": [1, 2]}, "c": {"y": 3, "x": [1, 2]},
                "d": [{"x": [1, 2]}, {"x": [1, 2]}], "e": "text", "text": 1})
        );
        assert!(parse(text, 20).unwrap_err().contains("too large at line"));
        for (text, reason) in [
            ("a: &a [*a]", "within its anchor"),
            ("a: *b", "unknown anchor"),
            ("a: 1\n---\nb: 2", "more than one document"),
            ("[a]: 1", "no scalar"),
            ("a: 1\na: 2", "duplicate key \"a\" at line 2"),
            ("a: {<<: 1}", "merges mappings"),
        ] {
            let error = parse(text, 1000).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let aliases = |n: usize| parse(&format!("a: &a 1\nb: [{}]", vec!["*a"; n].join(",")), 1 << 20);
        assert!(aliases(MAX_ANCHORS).is_ok());
        assert!(aliases(MAX_ANCHORS + 1).unwrap_err().contains("aliases"));
    }
}
